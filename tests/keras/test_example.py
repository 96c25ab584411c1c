"""The founding programme in Keras runs, and its rate receives a gradient."""

from __future__ import annotations

import importlib.util
import os
import re
from pathlib import Path

import pytest

pytest.importorskip("keras", reason="needs Keras: pip install 'rbml[keras]'")
if os.environ["KERAS_BACKEND"] != "torch":
    pytest.skip("these tests need KERAS_BACKEND=torch", allow_module_level=True)

EXAMPLES = Path(__file__).parents[2] / "examples"


def test_the_rate_of_a_keras_network_is_learned_while_it_trains(capsys: pytest.CaptureFixture[str]) -> None:
    spec = importlib.util.spec_from_file_location("keras_learning_rate", EXAMPLES / "keras_learning_rate.py")
    assert spec is not None and spec.loader is not None
    example = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(example)
    example.main(["--seeds", "1", "--steps", "15"])
    first, *lines = capsys.readouterr().out.splitlines()
    (gradient,) = re.findall(r"its gradient at once (\S+)", first)
    assert float(gradient) < 0  # a higher rate is better
    (start, learned) = re.findall(r"learned from 0.01: (\S+) -> (\S+),", lines[1])[0]
    assert float(learned) > 1.1 * float(start)
    assert len(lines) == 2 + 7


def test_documentation_in_python_runs() -> None:
    text = (EXAMPLES.parent / "docs" / "keras.md").read_text()
    blocks = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    names: dict[str, object] = {}
    for block in (block for block in blocks if "MetaModel" not in block):
        exec(block, names)
    assert names["difference"] < 1e-4  # type: ignore[operator]
