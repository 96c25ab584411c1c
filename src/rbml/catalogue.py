"""What there is: names, first lines and options of all tables, read from the source without importing it."""

from __future__ import annotations

import ast
import re
import sys
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

TABLES = {
    "algorithms": "rbml.algorithms",
    "strategies": "rbml.strategy",
    "engines": "rbml.hypergrad",
    "models": "rbml.models",
    "backbones": "rbml.backbones",
    "data": "rbml.data",
    "tasks": "rbml.tasks",
}
"""The families, each with the package whose ``ALL`` lists its members."""


class Option(NamedTuple):
    """An argument of a member.

    Attributes:
        name: its name.
        default: its default as it is written in the source, shortened; empty if it has none.
        text: what the docstring says of it.
    """

    name: str
    default: str
    text: str


class Member(NamedTuple):
    """A member of a family.

    Attributes:
        line: the first line of its docstring.
        options: its arguments.
    """

    line: str
    options: tuple[Option, ...]


def names(family: str) -> tuple[str, ...]:
    """Return the names of a family, in the order of its table.

    Where the package is loaded already, its table itself is asked: a program may have added members of its own.

    >>> {"mlp", "conv4"} <= set(names("models"))
    True
    """
    loaded = getattr(sys.modules.get(TABLES[family]), "ALL", None)
    return tuple(loaded) if loaded is not None else _written_names(family)


@cache
def _written_names(family: str) -> tuple[str, ...]:
    return tuple(name for name, _ in _table(_parsed(_home(TABLES[family])), "ALL"))


def members(family: str) -> dict[str, Member]:
    """Return every member of a family by name."""
    return {name: _member(_definition(_parsed(path), wanted)) for name, (path, wanted) in _places(family).items()}


def constant(family: str, name: str, wanted: str) -> Any:
    """Return a constant of plain values from the file of a member, or ``None`` if the file has none.

    Args:
        family: of :data:`TABLES`.
        name: the member.
        wanted: the name of the constant, such as ``"PROTOCOL"``.
    """
    places = _places(family)
    if name not in places:
        return None
    for target, value in _assigned(_shared(_parsed(places[name][0]), wanted)):
        if target == wanted:
            return ast.literal_eval(value)
    return None


def _shared(tree: ast.Module, wanted: str) -> ast.Module:
    """Return the module from which another one imports a constant that several members share, or itself."""
    for node in tree.body:
        if isinstance(node, ast.ImportFrom) and node.module and wanted in {alias.name for alias in node.names}:
            package, _, last = node.module.rpartition(".")
            return _parsed(_home(package).with_name(f"{last}.py"))
    return tree


def _home(package: str) -> Path:
    # Finding rbml.data imports rbml, which imports nothing; find_spec("rbml.data.x") would import rbml.data.
    spec = find_spec(package)
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin)


@cache
def _parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text())


def _places(family: str) -> dict[str, tuple[Path, str]]:
    """Return for each member the file that defines it, and its name there."""
    package = TABLES[family]
    home = _home(package)
    tree = _parsed(home)
    imported = {
        alias.asname or alias.name: (node.module, alias.name)
        for node in tree.body
        if isinstance(node, ast.ImportFrom) and node.module
        for alias in node.names
    }
    found = {}
    for name, value in _table(tree, "ALL"):
        if isinstance(value, ast.Attribute):  # omniglot.load
            assert isinstance(value.value, ast.Name)
            module, wanted = ".".join(imported[value.value.id]), value.attr
        else:
            assert isinstance(value, ast.Name)
            module, wanted = imported[value.id]
        path = home.parent.joinpath(*module.split(".")[len(package.split(".")) :]).with_suffix(".py")
        found[name] = (path, wanted)
    return found


def _assigned(tree: ast.Module) -> list[tuple[str, ast.expr]]:
    found = []
    for node in tree.body:
        targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
        value = getattr(node, "value", None)
        if value is not None:
            found += [(target.id, value) for target in targets if isinstance(target, ast.Name)]
    return found


def _table(tree: ast.Module, name: str) -> list[tuple[str, ast.expr]]:
    for target, value in _assigned(tree):
        if target == name and isinstance(value, ast.Dict):
            pairs = zip(value.keys, value.values, strict=True)
            return [(str(key.value), entry) for key, entry in pairs if isinstance(key, ast.Constant)]
    raise AssertionError("the package of a family has a table ALL")


_DEFINED = (ast.FunctionDef, ast.ClassDef)


def _definition(tree: ast.Module, name: str) -> ast.FunctionDef | ast.ClassDef:
    for node in tree.body:
        if isinstance(node, _DEFINED) and node.name == name:
            return node
    raise AssertionError(f"{name} is not where the table says")


def _member(definition: ast.FunctionDef | ast.ClassDef) -> Member:
    text = ast.get_docstring(definition) or ""
    texts = _arguments(text)
    found = {name: value for name, value in _defaults(definition).items() if name in texts or not texts}
    options = tuple(Option(name, value, texts.get(name, "")) for name, value in found.items())
    return Member((text.splitlines() or [""])[0].replace("``", "'"), options)


def _defaults(member: ast.FunctionDef | ast.ClassDef) -> dict[str, str]:
    """Return the arguments of a function or a class with their defaults, as they are written."""
    if isinstance(member, ast.ClassDef):
        made = [one for one in member.body if isinstance(one, ast.FunctionDef) and one.name == "__init__"]
        if not made:  # a dataclass
            lines = [one for one in member.body if isinstance(one, ast.AnnAssign) and isinstance(one.target, ast.Name)]
            return {ast.unparse(one.target): _written(one.value) for one in lines}
        member = made[0]
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
    entry = r"^    ([\w*][\w, *]*): (.+?)(?=^    \S|\Z)"
    for several, line in re.findall(entry, section[1] if section else "", re.MULTILINE | re.DOTALL):
        for name in several.split(", "):
            found[name] = re.sub(r":\w+:`~?(?:[\w.]+\.)?(\w+)`", r"\1", " ".join(line.split())).replace("``", "'")
    return found
