"""What the documentation shows runs as it is written there (with fewer steps)."""

import importlib.util
import re
from pathlib import Path

import torch

ROOT = Path(__file__).parent.parent


def test_readme_in_python_runs():
    (block,) = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    names: dict[str, object] = {}
    exec(block.replace("range(100)", "range(1)").replace("Conv4(5)", "Conv4(5, filters=4)"), names)
    probabilities = names["probabilities"]
    assert isinstance(probabilities, torch.Tensor)
    assert probabilities.shape == (25, 5)
    assert torch.allclose(probabilities.sum(1), torch.ones(25))


def test_sinusoid_example_prints_a_row_a_preset(capsys):
    spec = importlib.util.spec_from_file_location("sinusoid", ROOT / "examples" / "sinusoid.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    module.main(2)
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[1:]] == ["maml", "meta_sgd"]
    assert all(float(line.split()[1]) > 0 for line in lines[1:])
