"""``rbml list``: what there is, a line each, read from the tables without importing PyTorch."""

from __future__ import annotations

import ast
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
def command(kind: str | None) -> None:
    """Say what there is, a line each.

    KIND is algorithms, strategies, engines, models, data or tasks; all of them by default.
    """
    if kind is not None and kind not in KINDS:
        raise unknown("list", kind, KINDS)
    for one in [kind] if kind else KINDS:
        if kind is None:
            click.secho(one, bold=True)
        entries = catalogue(KINDS[one])
        width = max(len(name) for name in entries)
        for name, line in entries.items():
            click.echo(f"  {name:{width}}  {line}")


def catalogue(package: str) -> dict[str, str]:
    """Return each name of a package's table ``ALL`` with the first line of its docstring."""
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
    entries = {}
    for name, value in _table(home):
        if isinstance(value, ast.Attribute):  # omniglot.load
            assert isinstance(value.value, ast.Name)
            module, wanted = imported[value.value.id][1], value.attr
        else:
            assert isinstance(value, ast.Name)
            module, wanted = imported[value.id]
        source = folder / f"{module.rpartition('.')[2]}.py"
        entries[name] = _first_line(ast.parse(source.read_text()), wanted)
    return entries


def _table(tree: ast.Module) -> list[tuple[str, ast.expr]]:
    for node in tree.body:
        target = node.targets[0] if isinstance(node, ast.Assign) else getattr(node, "target", None)
        if isinstance(target, ast.Name) and target.id == "ALL" and isinstance(node.value, ast.Dict):  # type: ignore[attr-defined]
            pairs = zip(node.value.keys, node.value.values, strict=True)  # type: ignore[attr-defined]
            return [(str(key.value), value) for key, value in pairs if isinstance(key, ast.Constant)]
    raise AssertionError("a package of a family has a table ALL")


def _first_line(tree: ast.Module, name: str) -> str:
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and node.name == name:
            return (ast.get_docstring(node) or "").splitlines()[0].replace("``", "'")
    raise AssertionError(f"{name} is not where the table says")
