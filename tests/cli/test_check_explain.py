from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from rbml.diagnostics.checking import Verdict
from rbml.hypergrad import GMRES, Adjoint, Implicit
from rbml.learner import Learner
from rbml.recipe import Recipe, build
from rbml.training import RunFolder

SMALL = ["--filters", "2", "--tasks", "2", "--queries", "1"]
SHAPE = ["--ways", "3", "--queries", "2", "--size", "12", "--filters", "4"]  # of the run that is a fixture


def test_check_says_of_every_parameter_what_it_found(rbml: Callable[..., Any]) -> None:
    done = rbml("check", "glyphs", "--algorithm", "fomaml", "--set", "strategy.sgd.lr.learn=true", *SMALL)
    assert done.code == 1, "an approximation is not exact"
    assert "model.head.weight" in done.out and "phi.sgd.lr" in done.out and "approximate" in done.out
    assert "Adjoint(hvp='reverse') from Unrolled()" in done.out


def test_check_passes_what_is_right(rbml: Callable[..., Any]) -> None:
    done = rbml("check", "glyphs", "--algorithm", "anil", "--steps", "2", *SMALL)
    assert done.code == 0 and "agrees" in done.out and "differs" not in done.out


def test_explain_shows_every_engine_and_takes_one(rbml: Callable[..., Any]) -> None:
    done = rbml("explain", "glyphs", *SMALL)
    assert done.code == 0
    for name in ("Unrolled()", "Adjoint(store='segments')", "Implicit()", "Evolution()"):
        assert name in done.out
    assert "Choice: " in done.out and "blind to" in done.out


def test_auto_is_decided_once_and_written_down(rbml: Callable[..., Any], tmp_path: Path) -> None:
    run = tmp_path / "run"
    done = rbml("train", "glyphs", *SMALL, "--meta-steps", "1", "--engine", "auto", "--run", str(run))
    assert done.code == 0 and "engine: " in done.out
    recipe = RunFolder(run).recipe()
    assert recipe.engine is not None and recipe.engine.name in ("unrolled", "adjoint")
    assert rbml("explain", str(run)).code == 0
    again = rbml("explain", str(run), "--ways", "3")
    assert again.code == 2 and "leave the other options out" in again.err


@pytest.mark.parametrize("created", [True, False])
def test_a_start_has_what_another_run_has_learned(
    created: bool, run: RunFolder, rbml: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """That of a run that was created and not yet trained, and that of a recipe which would begin so."""
    seen: list[Learner] = []

    def kept(learner: Learner, episodes: Any) -> Verdict:
        seen.append(learner)
        return Verdict([], {}, "Adjoint()")

    monkeypatch.setattr("rbml.diagnostics.checking.check", kept)
    recipe = run.recipe()
    if created:
        RunFolder(tmp_path / "next").create(recipe.changed(start=str(run.path)), {}, None)
        done = rbml("check", str(tmp_path / "next"))
    else:
        done = rbml("check", recipe.source, "--from", str(run.path), *SHAPE)
    assert done.code == 0, done.err
    learned = run.learner().model.state_dict()
    assert all(torch.equal(leaf, learned[name]) for name, leaf in seen[0].model.state_dict().items())


def test_options_of_an_engine(rbml: Callable[..., Any]) -> None:
    recipe = Recipe.of(engine="adjoint", engine_options={"store": "segments", "window": 2}, filters=2)
    assert build.learner(recipe).hypergradient == Adjoint(store="segments", window=2)
    solver = Recipe.of(
        algorithm="imaml", engine="implicit", engine_options={"solver": "gmres", "damping": 0.5}, filters=2
    )
    assert build.learner(solver).hypergradient == Implicit(GMRES(), damping=0.5)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--engine", "adjoint", "--set", "engine.store=segment"], "did you mean 'segments'"),
        (["--engine", "adjoint", "--set", "engine.sotre=all"], "did you mean 'store'"),
        (["--engine", "implicit", "--set", "engine.solver=gmers"], "did you mean 'gmres'"),
        (["--set", "engine.store=segments"], "need its name: --engine NAME"),
        (["--set", "engine=adjoint"], "such as engine.store=segments"),
        (["--engine", "adjont"], "did you mean 'adjoint'"),
    ],
)
def test_what_an_engine_has_not_is_refused(rbml: Callable[..., Any], words: list[str], message: str) -> None:
    done = rbml("explain", "glyphs", *SMALL, *words)
    assert done.code == 2 and message in done.err, done.err
