"""``rbml curve``: the same tasks for all methods, kept values, and what is said."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest
import torch

from rbml.recipe import build
from rbml.tasks import generator, task_seeds
from rbml.training import RunFolder
from rbml.training.curve import first_shots

OPTIONS = ["--shots", "1,2", "--queries", "2", "--episodes", "4", "--json"]


def test_all_methods_are_measured_on_the_same_tasks(
    run: RunFolder, rbml: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rbml.training.rivals.STEPS", (1, 2, 4))
    monkeypatch.setattr("rbml.training.rivals.RATES", (0.01, 0.03, 0.1))
    done = rbml("curve", run.path, *OPTIONS)
    assert done.code == 0, done
    found = json.loads(done.out)
    names = {method["name"]: method for method in found["methods"]}
    assert {"learner", "fine-tuning", "from scratch", "logistic regression on raw inputs"} <= set(names)
    assert "nearest centroid on features" in names and found["said"] and found["shots"] == [1, 2]
    tasks = build.tasks(run.recipe(), "test", shots=2, queries=2).draw(task_seeds(4, generator(0, 2)))
    for place, shots in enumerate((1, 2)):
        truth = run.learner().evaluate(first_shots(tasks, shots), "inductive").accuracy
        assert truth is not None
        point = names["learner"]["by_shots"][place]
        assert point["score"]["mean"] == pytest.approx(truth[:, -1].mean().item(), abs=1e-6)
    chosen = names["fine-tuning"]["by_shots"][0]["chosen"]
    assert chosen["steps"] in (1, 2, 4) and chosen["lr"] in (0.01, 0.03, 0.1)
    folder = run.path / "curves" / f"{found['source'].replace('/', '_').replace(':', '-')}-3w-2q"
    assert {"curve.json", "curve.png"} <= {path.name for path in folder.iterdir()}


def test_it_goes_on_from_what_was_measured(run: RunFolder, rbml: Callable, monkeypatch: pytest.MonkeyPatch) -> None:
    options = [*OPTIONS, "--methods", "centroid", "--out", "c"]
    before = json.loads(rbml("curve", run.path, *options).out)
    monkeypatch.setattr("rbml.training.curve._some", lambda *_: pytest.fail("this was measured before"))
    assert json.loads(rbml("curve", run.path, *options).out) == before


def test_the_support_sets_are_nested_and_the_queries_are_the_same(run: RunFolder) -> None:
    whole = build.tasks(run.recipe(), "test", shots=2, queries=2).draw([5, 6])
    small = first_shots(whole, 1)
    assert small.support.y[0].tolist() == [0, 1, 2]
    assert torch.equal(small.support.x, whole.support.x[:, ::2])
    assert torch.equal(small.query.x, whole.query.x)


def test_wrong_use_is_refused_in_one_line(run: RunFolder, fails: Callable) -> None:
    assert "whole numbers" in fails(2, "curve", run.path, "--shots", "1,x")
    assert "no method is called 'svm'; there are: learner; fine-tuning" in fails(
        2, "curve", run.path, *OPTIONS, "--methods", "svm"
    )
    assert "queries need" in fails(1, "curve", run.path, "--shots", "9", "--queries", "1")


def test_shots_for_which_there_is_too_little_are_left_out(run: RunFolder, rbml: Callable) -> None:
    done = rbml("curve", run.path, "--queries", "2", "--episodes", "2", "--methods", "raw")
    assert done.code == 0, done
    assert "There are too few examples for 3, 5, 10, 20 shots and 2 queries." in done.out
    assert "fine-tuning" not in done.out
