"""The README's Python runs as it stands, with fewer outer steps."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

README = Path(__file__).parent.parent / "README.md"


def test_the_python_section_runs(capsys: pytest.CaptureFixture[str]) -> None:
    blocks = re.findall(r"```python\n(.*?)```", README.read_text(), flags=re.DOTALL)
    assert len(blocks) >= 2
    code = "\n".join(blocks)
    assert "range(100)" in code
    names: dict[str, object] = {}
    exec(compile(code.replace("range(100)", "range(2)"), str(README), "exec"), names)
    assert tuple(names["probabilities"].shape) == (25, 5)  # type: ignore[attr-defined]
    assert "tensor" in capsys.readouterr().out
