"""What ``rbml evaluate`` prints and keeps of a run on streams, and how the report shows it."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from tests.cli.conftest import TINY

from rbml import models
from rbml.algorithms import anml, oml, streaming_lda
from rbml.cli import continual
from rbml.reports import continual as reports
from rbml.strategy import Hyper
from rbml.tasks import Continual, generator
from rbml.training import RunFolder

X = torch.randn(130, 6, generator=generator(0)) + (torch.arange(130) // 10)[:, None] * torch.randn(
    6, generator=generator(1)
)
SOURCE = Continual((X, torch.arange(130) // 10), ways=4, shots=3, queries=2)


def test_a_learner_is_followed_through_as_many_classes_as_there_are(capsys: pytest.CaptureFixture[str]) -> None:
    torch.manual_seed(0)
    found = json.loads(json.dumps(continual.by_classes(oml(models.MLP(6, 4, (8,)), steps=12), SOURCE, seed=0)))
    assert found["marks"] == [10, 13] and found["streams"] == 2
    assert list(found["lines"]) == ["learned", continual.MEANS, continual.DISCRIMINANT]
    assert all(0 <= score["mean"] <= 1 for line in found["lines"].values() for score in line)
    continual.show_by_classes(found)
    shown = capsys.readouterr().out
    assert "accuracy in % over all classes seen so far" in shown and "backward transfer" in shown
    assert "forward transfer" in shown and found["measures"][continual.MEANS]["forward transfer"]["mean"] == 0
    best = max(found["lines"], key=lambda name: found["lines"][name][-1]["mean"])
    assert (f"At 13 classes {best} knows more than the learner's own steps" in " ".join(shown.split())) == (
        best != "learned"
    )


def test_a_cosine_head_stands_beside_linear_ones_on_its_features() -> None:
    torch.manual_seed(0)
    learner = oml(models.MLP(6, 4, (8,)), 10.0, 12, cosine=True)
    found = continual.by_classes(learner, SOURCE, seed=0)
    assert list(found["lines"]) == ["learned", continual.MEANS, continual.DISCRIMINANT]


def test_a_learner_that_adapts_its_body_is_followed_with_its_head_alone_too() -> None:
    torch.manual_seed(0)
    learner = anml(models.MLP(6, 4, (8,)), Hyper(0.3, per="layer"), steps=12)
    with torch.no_grad():
        for leaf in learner.phi.parameters():
            leaf.fill_(-1.0)
    found = continual.by_classes(learner, SOURCE, seed=0)
    assert list(found["lines"]) == ["learned", continual.HEAD, continual.MEANS, continual.DISCRIMINANT]
    same = anml(learner.model, Hyper(0.3, per="layer"), steps=12, adapt="head")
    with torch.no_grad():
        for leaf in same.phi.parameters():
            leaf.fill_(-1.0)
    assert continual.by_classes(same, SOURCE, seed=0)["lines"]["learned"] == found["lines"][continual.HEAD]


def test_a_head_from_examples_stands_alone_and_a_batch_divides_the_stream() -> None:
    learner = streaming_lda(models.MLP(6, 4, (8,)))
    found = continual.by_classes(learner, Continual((X, torch.arange(130) // 10), 4, 3, 2, batch=4), seed=0)
    assert found["marks"] == [10, 12] and list(found["lines"]) == ["learned"]
    assert not math.isnan(found["lines"]["learned"][0]["mean"])


def test_the_report_draws_one_line_per_learner() -> None:
    score = {"mean": 0.5, "interval": 0.1, "tasks": 2, "groups": None}
    found = {"marks": [10, 50], "shots": 5, "streams": 2, "lines": {"learned": [score] * 2, "class means": [score] * 2}}
    assert reports.by_classes({"a": {}, "b": {"by_classes": found}}) == found and reports.by_classes({"a": {}}) is None
    assert "50.0 ± 10.0" in reports.classes_table(found)
    axes = reports.accuracy_by_classes(found).axes[0]
    assert [line.get_label() for line in axes.lines] == ["learned", "class means"]


@pytest.mark.parametrize("name", ["oml", "anml"])
def test_a_run_with_the_network_of_a_paper_is_trained_and_followed(name: str, pictures: Path, rbml: Callable) -> None:
    own = {"oml": "--set model.width=4", "anml": "--set model.gate_filters=2"}[name].split()
    sizes = [*TINY, "--size", "28", "--filters", "2", "--shots", "2", "--steps", "6", *own]
    streams = ["--algorithm", name, "--model", name, "--task", "continual", "--set", "task.labels=global"]
    trained = rbml("train", f"folder:{pictures}", *sizes, *streams, "--set", "task.remember=2", "--run", "run")
    assert trained.code == 0, trained.err
    assert "3-way 2-shot" in trained.out and "no more to validate with" not in trained.out
    layers = {layer.rpartition(".")[0] for layer in RunFolder("run").learner().adapted}
    assert {"hidden", "head"} == layers if name == "oml" else "modulation.0" not in layers
    found = json.loads(rbml("evaluate", "run", "--shots", "3", "--queries", "1", "--episodes", "2", "--json").out)
    assert (found["shots"], found["by_classes"]["shots"], len(found["accuracy"]["inductive"])) == (3, 3, 10)
    assert list(found["by_classes"]["lines"])[:2] == ["learned", continual.HEAD]


def test_a_run_with_a_cosine_head_is_followed_and_adapted(pictures: Path, rbml: Callable) -> None:
    sizes = [*TINY, "--size", "28", "--filters", "4", "--shots", "2", "--steps", "6", "--norm", "group", "--lr", "1"]
    streams = ["--algorithm", "oml", "--task", "continual", "--set", "learner.cosine=true"]
    trained = rbml("train", f"folder:{pictures}", *sizes, *streams, "--run", "run")
    assert trained.code == 0 and "tempered(factor 0.0625 learned), settle(tau 15 learned)" in trained.out, trained.err
    assert RunFolder("run").learner().adapted == ["head.weight"]
    found = json.loads(rbml("evaluate", "run", "--shots", "3", "--queries", "1", "--episodes", "2", "--json").out)
    assert list(found["by_classes"]["lines"]) == ["learned", continual.MEANS, continual.DISCRIMINANT]
    adapted = rbml("adapt", "run", "--support", pictures, "--out", "mine.rbml")
    assert adapted.code == 0, adapted.err
