"""What a user sees: names that exist, a text for each, and an import that does nothing."""

from __future__ import annotations

import ast
import importlib
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import rbml
from rbml.errors import RbmlError, UsageError, unknown

ROOT = Path(str(rbml.__file__)).parent
PACKAGES = sorted(
    ".".join(["rbml", *path.relative_to(ROOT).parts[:-1]])
    for path in ROOT.rglob("__init__.py")
    if "__all__" in path.read_text() and path.parent.name != "keras"  # each of its names needs a backend: tests/keras
)


def undocumented(tree: ast.Module) -> Iterator[str]:
    """Yield the public definitions without a docstring, nested in classes too."""
    if not ast.get_docstring(tree):
        yield "the module"
    open_ = [("", node) for node in tree.body]
    while open_:
        prefix, node = open_.pop()
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            continue
        name = f"{prefix}{node.name}"
        if node.name.startswith("_"):
            continue
        overloaded = any("overload" in ast.unparse(one) for one in node.decorator_list)
        if not ast.get_docstring(node) and not overloaded:
            yield name
        if isinstance(node, ast.ClassDef):
            open_ += [(f"{name}.", child) for child in node.body]


@pytest.mark.parametrize("path", sorted(ROOT.rglob("*.py")), ids=lambda path: str(path.relative_to(ROOT)))
def test_every_public_name_is_documented(path: Path) -> None:
    assert list(undocumented(ast.parse(path.read_text()))) == []


def test_this_test_sees_what_is_undocumented() -> None:
    source = (
        '"""M."""\nclass A:\n    """A."""\n    def f(self): ...\n    def _g(self): ...\ndef h(): ...\nclass _B: ...'
    )
    assert sorted(undocumented(ast.parse(source))) == ["A.f", "h"]


@pytest.mark.parametrize("package", PACKAGES)
def test_every_name_in_all_exists_and_the_list_is_sorted(package: str) -> None:
    module = importlib.import_module(package)
    assert [name for name in module.__all__ if not hasattr(module, name)] == []
    assert len(set(module.__all__)) == len(module.__all__)
    assert set(module.__all__) <= set(dir(module))


@pytest.mark.parametrize("package", ["rbml.algorithms", "rbml.hypergrad", "rbml.strategy", "rbml.models", "rbml.tasks"])
def test_every_member_of_a_table_is_a_public_name(package: str) -> None:
    module = importlib.import_module(package)
    names = {getattr(module, name) for name in module.__all__ if name != "ALL" and callable(getattr(module, name))}
    assert [name for name, member in module.ALL.items() if member not in names] == []


def test_a_name_that_does_not_exist() -> None:
    with pytest.raises(AttributeError, match="module 'rbml' has no attribute 'Learnr'"):
        rbml.Learnr  # noqa: B018
    assert set(rbml.__all__) <= set(dir(rbml))


def loaded_by(statement: str) -> set[str]:
    new = "json.dumps(sorted(set(sys.modules) - before))"
    code = f"import json, sys; before = set(sys.modules); {statement}; print({new})"
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return {name.split(".")[0] for name in json.loads(answer.stdout)}


HEAVY = {"torch", "numpy", "PIL", "click", "rich", "pooch", "tqdm", "sklearn", "matplotlib", "tensorboard", "scipy"}


def test_importing_rbml_loads_nothing() -> None:
    assert not loaded_by("import rbml; rbml.__version__; dir(rbml)") & HEAVY


def test_the_library_itself_needs_torch_and_numpy_alone() -> None:
    parts = "algorithms, data, hypergrad, models, strategy, tasks, Learner, Batch, BlindError"
    assert loaded_by(f"from rbml import {parts}") & HEAVY <= {"torch", "numpy", "tqdm"}


def test_every_error_has_one_root_and_a_meaning() -> None:
    errors = importlib.import_module("rbml.errors")
    kinds = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, Exception)]
    assert all(issubclass(kind, RbmlError) and kind.__doc__ for kind in kinds) and len(kinds) >= 6
    assert issubclass(errors.BlindError, UsageError)


def test_an_unknown_name_says_what_was_probably_meant() -> None:
    assert "did you mean 'beta'? (known: alpha, beta)" in str(unknown("thing", "betta", ["beta", "alpha"]))
    assert str(unknown("thing", "xyz", ["beta"])) == "there is no thing named 'xyz'. (known: beta)"
