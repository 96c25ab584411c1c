"""The catalogue: what is read from the source is what the tables hold."""

from __future__ import annotations

import subprocess
import sys
from types import ModuleType

import pytest

from rbml import algorithms, backbones, catalogue, data, hypergrad, models, strategy, tasks

FAMILIES = {"algorithms": algorithms, "strategies": strategy, "engines": hypergrad, "models": models,
            "backbones": backbones, "data": data, "tasks": tasks}  # fmt: skip


@pytest.mark.parametrize(("family", "module"), FAMILIES.items())
def test_every_member_is_there_with_its_first_line(family: str, module: ModuleType) -> None:
    found = catalogue.members(family)
    assert list(found) == list(catalogue.names(family)) == list(module.ALL)
    for name, member in module.ALL.items():
        assert (member.__doc__ or "").splitlines()[0].replace("``", "'") == found[name].line


def test_a_member_that_a_program_has_added_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(models.ALL, "mine", models.MLP)
    assert "mine" in catalogue.names("models")


def test_constants_are_plain_values() -> None:
    assert catalogue.constant("data", "omniglot", "SPLITS") == (
        *("vinyals", "vinyals-1200", "lake"),
        *("lake-within", "antoniou"),
    )
    assert catalogue.constant("data", "omniglot", "NONE") is None
    assert catalogue.constant("data", "elsewhere", "SPLITS") is None


def test_names_need_no_torch() -> None:
    code = (
        "import sys; from rbml import catalogue; [catalogue.members(one) and print(*catalogue.names(one)) "
        "for one in catalogue.TABLES]; sys.exit('torch' in sys.modules)"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert [line.split() for line in found.splitlines()] == [list(module.ALL) for module in FAMILIES.values()]
