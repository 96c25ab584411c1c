"""``compile="auto"``: what is measured, what is taken, and what is kept."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from tests.learner.test_steps import jobs, net

from rbml.algorithms.options import assemble
from rbml.learner import choosing
from rbml.learner.choosing import choose
from rbml.learner.options import Execution
from rbml.strategy import Hyper, sgd


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RBML_CACHE", str(tmp_path))


def timed(monkeypatch: pytest.MonkeyPatch, seconds: dict[str, float]) -> list[Execution]:
    """Let each way of execution take the given seconds, and return the list of those that are tried."""
    tried: list[Execution] = []

    def take(learner: Any, how: Execution, tasks: Any) -> tuple[float, float]:
        tried.append(how)
        learner.run(how)
        if how.compile != "no":
            learner.compiled.operators = 100
        return seconds[how.compile], 1.0

    monkeypatch.setattr(choosing, "_seconds", take)
    monkeypatch.setattr(choosing.shutil, "which", lambda name: "/usr/bin/g++")
    return tried


def learner(calls: int, steps: int = 2) -> Any:
    return assemble(net(), sgd(Hyper(0.1)), steps, compile="auto", calls=calls, verify=False)


@pytest.mark.parametrize(
    ("calls", "seconds", "tried", "taken"),
    [
        (5, {"no": 1.0}, ["no"], "no"),
        (100, {"no": 1.0, "trace": 0.5}, ["no", "trace"], "trace"),
        (100, {"no": 1.0, "trace": 0.95}, ["no", "trace"], "no"),
        (1000, {"no": 1.0, "trace": 0.5, "whole": 0.1}, ["no", "trace", "whole"], "whole"),
        (1000, {"no": 1.0, "trace": 0.5, "whole": 0.49}, ["no", "trace", "whole"], "trace"),
    ],
)
def test_what_pays_is_taken(
    calls: int, seconds: dict[str, float], tried: list[str], taken: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = timed(monkeypatch, seconds)
    own = learner(calls)
    found = choose(own, jobs(2))
    assert [how.compile for how in seen] == tried and found.execution.compile == taken
    assert own.execution.compile == "auto", "the learner is left as it is"


def test_large_operators_are_compiled_without_a_trace_before(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(choosing, "apart", lambda *_: True)
    seen = timed(monkeypatch, {"no": 10.0, "whole": 1.0})
    assert choose(learner(1000), jobs(2)).execution.compile == "whole"
    assert [how.compile for how in seen] == ["no", "whole"]


def test_of_many_large_steps_one_is_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(choosing, "apart", lambda *_: True)
    seen = timed(monkeypatch, {"no": 10.0, "step": 1.0})
    assert choose(learner(1000, steps=20), jobs(2)).execution.compile == "step"
    assert [how.compile for how in seen] == ["no", "step"]


def test_what_cannot_be_compiled_stays_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(choosing, "apart", lambda *_: True)
    timed(monkeypatch, {"no": 10.0})  # what is not in the table raises KeyError
    found = choose(learner(1000), jobs(2))
    assert found.execution.compile == "no" and "it cannot be compiled: 'whole'" in str(found)


def test_the_choice_is_kept_for_the_next_time(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = timed(monkeypatch, {"no": 1.0, "trace": 0.5})
    torch.manual_seed(0)
    tasks = jobs(2)
    first, again = choose(learner(100), tasks), choose(learner(100), tasks)
    assert len(seen) == 2 and again.execution == first.execution
    assert "traced, 2 at once 0.5 s" in str(first) and "measured by an earlier run" in str(again)
    assert "2.0 times as fast" in str(again)


def test_what_cannot_be_traced_runs_operator_by_operator(monkeypatch: pytest.MonkeyPatch) -> None:
    def take(learner: Any, how: Execution, tasks: Any) -> tuple[float, float]:
        if how.compile != "no":
            raise RuntimeError("data-dependent\nmore")
        return 1.0, 1.0

    monkeypatch.setattr(choosing, "_seconds", take)
    found = choose(learner(100), jobs(2))
    assert found.execution.compile == "no" and "it cannot be traced: data-dependent" in str(found)


def test_a_learner_chooses_at_its_first_meta_gradient(monkeypatch: pytest.MonkeyPatch) -> None:
    own, tasks = learner(1), jobs(2)
    torch.manual_seed(3)
    found = own.meta_gradient(tasks)
    assert own.execution.compile == "no", "one meta-gradient is not worth tracing"
    plain = assemble(net(), sgd(Hyper(0.1)), 2, verify=False).meta_gradient(tasks)
    assert torch.equal(found.loss, plain.loss)
