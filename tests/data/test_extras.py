from __future__ import annotations

import math
import sys

import pytest

from rbml.data.extras import require
from rbml.errors import UsageError


def test_a_library_that_is_there_is_returned() -> None:
    assert require("math", "images", "counting") is math


def test_a_missing_library_is_named_as_it_is_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] == "PIL"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(sys, "path", [])
    with pytest.raises(UsageError) as caught:
        require("PIL.Image", "images", "reading pictures")
    assert str(caught.value) == "reading pictures needs Pillow: pip install 'rbml[images]'"


def test_a_broken_library_is_not_called_missing(tmp_path: object, monkeypatch: pytest.MonkeyPatch) -> None:
    with open(f"{tmp_path}/rbml_broken_library.py", "w") as file:
        file.write("import rbml_its_own_need")
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(ModuleNotFoundError, match="rbml_its_own_need"):
        require("rbml_broken_library", "images", "reading pictures")
