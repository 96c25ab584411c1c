"""The plan of the house, kept by reading the source: who may import whom, how long a file may be, who may print."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import rbml

ROOT = Path(str(rbml.__file__)).parent
FILES = sorted(ROOT.rglob("*.py"))

FLOORS: dict[str, int] = {
    "rbml.tree": 1,
    "rbml.errors": 1,
    "rbml.random": 1,
    "rbml.catalogue": 1,
    "rbml.devices": 1,
    "rbml.recipe": 1,
    "rbml.strategy": 2,
    "rbml.models": 2,
    "rbml.backbones": 2,
    "rbml.data": 2,
    "rbml.inner": 2,
    "rbml.autodiff": 2,
    "rbml.operators": 2,
    "rbml.hypergrad": 3,
    "rbml.tasks": 3,
    "rbml.learner": 4,
    "rbml.algorithms": 5,
    "rbml.diagnostics": 5,
    "rbml.training": 6,
    "rbml.recipe.build": 6,
    "rbml.predictor": 7,
    "rbml.reports": 7,
    "rbml.keras": 7,
    "rbml.cli": 8,
    "rbml.__main__": 9,
}
BESIDE: dict[str, set[str]] = {
    "rbml.random": {"rbml.tree"},
    "rbml.inner": {"rbml.autodiff"},
    "rbml.strategy": {"rbml.data"},
    "rbml.data": {"rbml.backbones"},  # features of a backbone are a modality
    "rbml.models": {"rbml.backbones"},
    "rbml.autodiff": {"rbml.operators"},
    "rbml.recipe": {"rbml.catalogue", "rbml.errors"},
    "rbml.devices": {"rbml.errors"},
    "rbml.recipe.build": {"rbml.training"},  # learned strategies are read there
    "rbml.training": {"rbml.recipe.build"},
}
"""On a floor each is blind to the others, but for these."""
NARROW: dict[str, set[str]] = {
    "rbml.hypergrad": {"rbml.inner", "rbml.autodiff", "rbml.tree", "rbml.errors", "rbml.random"},
}
"""Some see less than their floor would let them."""

LONGEST = 350
REPOSITORY = Path(__file__).parents[1]
OTHERS = sorted(path for folder in ("tests", "benchmarks", "examples") for path in (REPOSITORY / folder).rglob("*.py"))


def unit(module: str) -> str:
    """Return the part of the house that a module belongs to: ``rbml.data`` for ``rbml.data.store``."""
    return "rbml.recipe.build" if module.startswith("rbml.recipe.build") else ".".join(module.split(".")[:2])


def imports(tree: ast.AST, package: str) -> Iterator[tuple[int, str]]:
    """Yield every imported module of rbml with its line: at the top, inside functions, and by ``import_module``."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                base = ".".join([*package.split(".")[: len(package.split(".")) - node.level + 1], base]).rstrip(".")
            if base == "rbml":
                yield from ((node.lineno, home(alias.name)) for alias in node.names)
            else:
                yield node.lineno, base
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith("import_module"):
            for argument in node.args[:1]:
                if isinstance(argument, ast.Constant) and isinstance(argument.value, str):
                    yield node.lineno, argument.value


def home(name: str) -> str:
    """Return the module behind a name of the package itself."""
    return rbml._HOME.get(name, f"rbml.{name}")


def modules() -> Iterator[tuple[Path, str, str]]:
    for path in FILES:
        parts = ["rbml", *path.relative_to(ROOT).with_suffix("").parts]
        package = ".".join(parts[:-1])
        yield path, (package if parts[-1] == "__init__" else ".".join(parts)), package


def trespasses(module: str, source: str, package: str) -> list[str]:
    """Return what a module imports from beside or above itself."""
    own, found = unit(module), []
    for line, name in imports(ast.parse(source), package):
        other = unit(name)
        if other.split(".")[0] != "rbml" or other == own or other not in FLOORS:
            continue
        allowed = FLOORS[other] < FLOORS[own] or other in BESIDE.get(own, set())
        if not allowed or other not in NARROW.get(own, {other}):
            found.append(f"{module}:{line} (floor {FLOORS[own]}) imports {name} (floor {FLOORS[other]})")
    return found


def test_every_part_of_the_house_has_a_floor() -> None:
    parts = {unit(module) for _, module, _ in modules()} - {"rbml"}
    assert parts <= set(FLOORS), f"say in FLOORS where {sorted(parts - set(FLOORS))} stand"


def test_imports_run_downwards_only() -> None:
    found = [
        line
        for path, module, package in modules()
        if module != "rbml"
        for line in trespasses(module, path.read_text(), package)
    ]
    assert not found, "\n".join(found)


@pytest.mark.parametrize(
    ("module", "line"),
    [
        ("rbml.tree", "from rbml.errors import UsageError\nfrom rbml.inner import Inner"),
        ("rbml.strategy.descent", "import rbml.models.mlp"),
        ("rbml.hypergrad.adjoint", "from rbml.strategy import sgd"),
        ("rbml.hypergrad.adjoint", "def f():\n    from rbml import learner"),
        ("rbml.models.mlp", "from rbml import Learner"),
        ("rbml.models.mlp", "from ..strategy import sgd"),
        ("rbml.models.mlp", "from .. import strategy"),
        ("rbml.data.store", "from rbml.tasks import Batch"),
        ("rbml.learner.learner", "import importlib\nimportlib.import_module('rbml.training')"),
        ("rbml.training.trainer", "from rbml.reports import write"),
        ("rbml.reports.page", "from rbml.cli import main"),
    ],
)
def test_this_test_sees_trespasses(module: str, line: str) -> None:
    assert trespasses(module, line, module.rpartition(".")[0])


@pytest.mark.parametrize(
    ("module", "line"),
    [
        ("rbml.tasks.few_shot", "from rbml.data import Source"),
        ("rbml.autodiff.module", "from rbml.operators import Differentiable"),
        ("rbml.cli.train", "from rbml.training import train"),
        ("rbml.strategy.descent", "from rbml.strategy.base import Rule\nfrom .hyper import Hyper\nimport torch"),
    ],
)
def test_and_lets_the_others_pass(module: str, line: str) -> None:
    assert not trespasses(module, line, module.rpartition(".")[0])


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_file_is_too_long_and_none_prints_but_the_command_line(path: Path) -> None:
    source = path.read_text()
    assert source.count("\n") <= LONGEST, "divide it"
    if path.relative_to(ROOT).parts[0] != "cli":
        for node in ast.walk(ast.parse(source)):
            assert not (isinstance(node, ast.Call) and ast.unparse(node.func) == "print"), (
                f"print in line {node.lineno}"
            )


@pytest.mark.parametrize("path", OTHERS, ids=lambda path: str(path.relative_to(REPOSITORY)))
def test_no_test_benchmark_or_example_is_too_long(path: Path) -> None:
    assert path.read_text().count("\n") <= LONGEST, "divide it"
