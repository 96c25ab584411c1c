"""What the documentation shows runs as it is written there (with fewer steps)."""

import importlib.util
import re
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import matplotlib
import pytest
import torch
from matplotlib import pyplot
from torch import nn

import rbml
from rbml.data import inputs, targets
from rbml.data.sources import glyphs
from rbml.models import MLP

ROOT = Path(__file__).parent.parent


def test_readme_in_python_runs():
    block = "\n".join(re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL))
    names: dict[str, object] = {}
    exec(block.replace("range(100)", "range(1)").replace("Conv4(5)", "Conv4(5, filters=4)"), names)
    probabilities = names["probabilities"]
    assert isinstance(probabilities, torch.Tensor)
    assert probabilities.shape == (25, 5)
    assert torch.allclose(probabilities.sum(1), torch.ones(25))


def example(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, ROOT / "examples" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def run(capsys, tmp_path, monkeypatch) -> Callable[[str, str], list[str]]:
    """Run an example with few steps, see that it draws its figure, and return what it prints."""
    matplotlib.use("agg")

    def call(name: str, arguments: str) -> list[str]:
        figure = tmp_path / "figure.png"
        example(name).main([*arguments.split(), "--out", str(figure)])
        assert figure.stat().st_size > 0
        return capsys.readouterr().out.splitlines()

    yield call
    pyplot.close("all")


def numbers(line: str) -> list[float]:
    return [float(word) for word in re.findall(r"(?<![\w.-])\d+\.\d+", line)]


def test_sinusoid_example_prints_a_row_a_preset(capsys):
    example("sinusoid").main(2)
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[1:]] == ["maml", "meta_sgd"]
    assert all(float(line.split()[1]) > 0 for line in lines[1:])


def test_own_rule_is_proved_and_learns_every_number_of_its_own(run):
    lines = run("own_rule", "--outer-steps 1 --seeds 1")
    verdicts = [line.split()[-1] for line in lines if line.startswith(("phi.", "model."))]
    assert verdicts == ["agrees"] * 10
    (row,) = (line for line in lines if line.startswith("soft_sign"))
    assert len(numbers(row)) == 4
    learned = [numbers(line)[-1] for line in lines if line.startswith("  learned decay")]
    assert all(abs(decay - 0.3) < 0.01 and decay != 0.3 for decay in learned)  # one step of Adam away from its start


def test_own_algorithm_stands_beside_its_parents(run, monkeypatch, tmp_path):
    monkeypatch.setenv("RBML_CACHE", str(tmp_path))  # few glyphs, and not kept for others
    monkeypatch.setattr(glyphs, "CLASSES", {"train": range(8), "test": range(8, 14)})
    lines = run("own_algorithm", "--outer-steps 1 --filters 4 --tasks 3")
    rows = {line.split()[0]: numbers(line) for line in lines[2:]}
    assert list(rows) == ["maml", "protonet", "protomaml", "mine"]
    assert all(len(row) == 4 and 0 <= row[0] <= 100 for row in rows.values())


def test_own_algorithm_has_an_exact_hypergradient(pictures):
    mine = example("own_algorithm").mine(MLP(144, 3, hidden=(5,), activation=nn.Tanh), steps=2)
    verdict = rbml.check(mine, pictures())
    assert verdict.passed, str(verdict)
    assert any("proximal" in finding.parameter for finding in verdict.findings)


def test_learned_schedule_comes_back_bit_for_bit_and_beats_its_start_on_validation(run):
    lines = run("learned_schedule", "--steps 6 --outer-steps 4 --seeds 1")
    assert "bit for bit" in lines[1]
    start, learned = (numbers(line[40:])[0] for line in lines[-2:])
    assert learned < start


def test_hyper_cleaning_scores_what_it_says(run):
    module = example("hyper_cleaning")
    clean = module.split("digits", 0)[0]
    train, wrong = module.corrupt(clean, 0)
    assert int(wrong.sum()) == len(wrong) // 2
    assert torch.equal(train.y != clean.y, wrong)  # a wrong label is never the right one by chance
    assert module.f1(wrong, wrong) == 1
    assert module.f1(torch.ones_like(wrong), wrong) == pytest.approx(2 / 3, abs=1e-3)
    lines = run("hyper_cleaning", "--steps 15 --outer-steps 6 --seeds 1")
    f1, everything, cleaned, right, *_ = numbers(lines[-1])
    assert f1 > 0.8
    assert everything < cleaned < right


def test_weight_decay_each_learns_a_number_a_weight(run):
    lines = run("weight_decay_each", "--steps 5 --outer-steps 3 --few 10 --sizes 20 20 --seeds 1")
    assert lines[0].startswith("20,710 numbers")
    assert numbers(lines[4])[0] < numbers(lines[1])[0]  # the few to validate are fitted better than at the start
    assert [line[5:39].strip() for line in lines[-5::2]] == [
        "no decay",
        "one per weight",
        "one per weight, trained on val too",
    ]


def test_own_modality_and_target_go_end_to_end(capsys):
    kinds = [dict(inputs.ALL), dict(targets.ALL)]
    try:
        example("own_modality_and_target").main(["--outer-steps", "30"])
    finally:
        for table, own in zip((inputs.ALL, targets.ALL), kinds, strict=True):
            table.clear()
            table.update(own)
    measured, predicted, left_out = capsys.readouterr().out.splitlines()
    before, *_, after, baseline = (float(word) for word in re.findall(r"([\d.]+) degrees", measured))
    assert after < before and 0 < baseline < 180
    assert re.fullmatch(r"b: \d+ degrees, ddd: \d+ degrees", predicted)
    assert re.fullmatch(r"leaving out one word at a time: [\d.]+ degrees", left_out)


def test_learned_learning_rate_receives_a_gradient_and_improves_on_its_start(run):
    lines = run("learned_learning_rate", "--steps 20 --outer-steps 4 --no-compile")
    by_engine, by_difference = (float(word) for word in re.findall(r"-?\d+\.\d+", lines[0]))
    assert by_engine == pytest.approx(by_difference, rel=1e-6)
    rates = [float(word) for word in lines[1].partition(": ")[2].split(", ")]
    assert rates[-1] > rates[0]  # 20 steps are few: the larger, the better
    assert [line.split("  ")[0] for line in lines[-2:]] == ["fixed at 1.0", f"learned: {rates[-1]:.3g}"]
