"""``rbml list``: what there is, a line each, read from the tables without importing PyTorch."""

from __future__ import annotations

import ast
import re
from importlib.util import find_spec
from pathlib import Path

import click

from rbml.errors import unknown

KINDS = {
    "algorithms": "rbml.algorithms",
    "strategies": "rbml.strategy",
    "engines": "rbml.hypergrad",
    "models": "rbml.models",
    "data": "rbml.data",
    "tasks": "rbml.tasks",
}


@click.command("list")
@click.argument("kind", required=False)
@click.argument("name", required=False)
@click.option("-v", "--verbose", is_flag=True, help="With the options of each.")
def command(kind: str | None, name: str | None, verbose: bool) -> None:
    """Say what there is, a line each; or what the options of one are.

    KIND is algorithms, strategies, engines, models, data or tasks; all of them by default.

    \b
    rbml list strategies
    rbml list strategies momentum
    """  # noqa: D301  \b is click's
    if kind is not None and kind not in KINDS:
        raise unknown("list", kind, KINDS)
    for one in [kind] if kind else KINDS:
        if kind is None:
            click.secho(one, bold=True)
        entries = catalogue(KINDS[one])
        if name is not None and name not in entries:
            raise unknown(f"entry of rbml list {kind}", name, entries)
        width = max(len(entry) for entry in entries)
        for entry, member in entries.items():
            if name in (None, entry):
                click.echo(f"  {entry:{width if name is None else 0}}  {_first_line(member)}")
                if verbose or name is not None:
                    _say_options(member)
    if kind == "strategies" and (verbose or name is not None):
        click.echo(_FORM.format(part=name or "PART"))


_FORM = """
Set one: rbml train SOURCE --set strategy.{part}.OPTION=VALUE. Of a number that is to be learned: OPTION.value, .per
(all, layer, tensor, element), .per_step, .bounds, .learn. Other parts, in order: --set strategy='NAME, NAME, ...'"""


def _say_options(member: ast.stmt) -> None:
    """Print a line for every option: its name, its default and what it is."""
    texts = _arguments(ast.get_docstring(member) or "") if isinstance(member, _DEFINED) else {}
    found = {option: value for option, value in _defaults(member).items() if option in texts or not texts}
    names = max((len(option) for option in found), default=0)
    values = min(max((len(value) for value in found.values()), default=0), 18)
    for option, value in found.items():
        click.echo(f"      {option:{names}}  {value:{values}}  {texts.get(option, '')}".rstrip())


_DEFINED = (ast.FunctionDef, ast.ClassDef)


def _defaults(member: ast.stmt) -> dict[str, str]:
    """Return the options of a function or a class with their defaults, as they are written."""
    if isinstance(member, ast.ClassDef):
        made = [one for one in member.body if isinstance(one, ast.FunctionDef) and one.name == "__init__"]
        if not made:  # a dataclass
            lines = [one for one in member.body if isinstance(one, ast.AnnAssign) and isinstance(one.target, ast.Name)]
            return {ast.unparse(one.target): _written(one.value) for one in lines}
        member = made[0]
    if not isinstance(member, ast.FunctionDef):
        return {}
    plain = [*member.args.posonlyargs, *member.args.args]
    defaults = [None] * (len(plain) - len(member.args.defaults)) + list(member.args.defaults)
    pairs = [*zip(plain, defaults, strict=True), *zip(member.args.kwonlyargs, member.args.kw_defaults, strict=True)]
    return {one.arg: _written(value) for one, value in pairs if one.arg != "self"}


def _written(value: ast.expr | None) -> str:
    text = ast.unparse(value) if value else ""
    return re.sub(r"^field\(default_factory=(.*)\)$", r"\1()", text)


def _arguments(text: str) -> dict[str, str]:
    """Return what the section Args (or Attributes) of a docstring says of each argument."""
    section = re.search(r"^(?:Args|Attributes):\n(.*?)(?=^\S|\Z)", text, re.MULTILINE | re.DOTALL)
    found: dict[str, str] = {}
    for names, line in re.findall(
        r"^    ([\w*][\w, *]*): (.+?)(?=^    \S|\Z)", section[1] if section else "", re.M | re.S
    ):
        for name in names.split(", "):
            found[name] = re.sub(r":\w+:`~?(?:[\w.]+\.)?(\w+)`", r"\1", " ".join(line.split())).replace("``", "'")
    return found


def catalogue(package: str) -> dict[str, ast.stmt]:
    """Return each name of a package's table ``ALL`` with the definition behind it."""
    spec = find_spec(package)
    assert spec is not None
    assert spec.origin is not None
    folder = Path(spec.origin).parent
    home = ast.parse(Path(spec.origin).read_text())
    imported = {
        alias.asname or alias.name: (node.module, alias.name)
        for node in home.body
        if isinstance(node, ast.ImportFrom) and node.module
        for alias in node.names
    }
    entries: dict[str, ast.stmt] = {}
    parsed: dict[Path, ast.Module] = {}
    for name, value in _table(home):
        if isinstance(value, ast.Attribute):  # omniglot.load
            assert isinstance(value.value, ast.Name)
            module, wanted = ".".join(imported[value.value.id]), value.attr
        else:
            assert isinstance(value, ast.Name)
            module, wanted = imported[value.id]
        source = folder.joinpath(*module.split(".")[len(package.split(".")) :]).with_suffix(".py")
        if source not in parsed:
            parsed[source] = ast.parse(source.read_text())
        entries[name] = _definition(parsed[source], wanted)
    return entries


def _table(tree: ast.Module) -> list[tuple[str, ast.expr]]:
    for node in tree.body:
        target = node.targets[0] if isinstance(node, ast.Assign) else getattr(node, "target", None)
        if isinstance(target, ast.Name) and target.id == "ALL" and isinstance(node.value, ast.Dict):  # type: ignore[attr-defined]
            pairs = zip(node.value.keys, node.value.values, strict=True)  # type: ignore[attr-defined]
            return [(str(key.value), value) for key, value in pairs if isinstance(key, ast.Constant)]
    raise AssertionError("a package of a family has a table ALL")


def _definition(tree: ast.Module, name: str) -> ast.stmt:
    for node in tree.body:
        if isinstance(node, _DEFINED) and node.name == name:
            return node
    raise AssertionError(f"{name} is not where the table says")


def _first_line(member: ast.stmt) -> str:
    text = ast.get_docstring(member) if isinstance(member, _DEFINED) else ""
    return (text or "").splitlines()[0].replace("``", "'")
