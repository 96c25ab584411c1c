"""The best learners of a run are kept, also over a stop, and their mean prediction is measured."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from rbml.data.targets.classes import ACCURACY
from rbml.errors import CheckpointError, UsageError
from rbml.tasks import FewShot
from rbml.training import Recipe, RunFolder, evaluate
from rbml.training.ensemble import Ensemble, Ranking


def test_a_ranking_keeps_the_best_and_the_first_of_equal_ones() -> None:
    ranking = Ranking(2, ACCURACY)
    for step, value in ((1, 0.5), (2, float("nan")), (3, 0.4), (4, 0.5), (5, 0.6)):
        ranking = ranking.including(step, value)
    assert ranking.places == ((5, 0.6), (1, 0.5))
    assert Ranking.restored(2, ACCURACY, ranking.saved()) == ranking
    assert Ranking(1, ACCURACY).including(1, 0.5).saved() == {}


def test_a_stopped_run_keeps_the_same_learners(
    recipe: Callable[..., Recipe], trained: Callable[..., RunFolder], tasks: FewShot
) -> None:
    settings = recipe(keep_best=2, validate_every=2, save_every=5, meta_steps=10)
    whole, cut = trained("whole", settings), trained("cut", settings, stop_after=7)
    (cut.ensemble / "99.pt").write_bytes(b"of a step after the checkpoint")
    trained("cut", settings)
    names = [sorted(path.name for path in run.ensemble.iterdir()) for run in (whole, cut)]
    assert names[0] == names[1] and len(names[0]) == 2
    journal = {entry["step"]: entry["validation"] for entry in whole.lines() if "validation" in entry}
    best = sorted(journal, key=lambda step: (-journal[step], step))[:2]
    assert names[0] == sorted(f"{step}.pt" for step in best)
    first, second = whole.learners()
    for learner, step in ((first, best[0]), (second, best[1])):
        kept: Any = torch.load(whole.among_best(step), weights_only=True)["content"]["learner"]
        assert all(torch.equal(leaf, kept[name]) for name, leaf in learner.state_dict().items())
    assert all(torch.equal(leaf, whole.learner().state_dict()[name]) for name, leaf in first.state_dict().items())

    part = tasks.draw(range(3))
    found = Ensemble([first, second]).evaluate(part, metrics=(ACCURACY,))
    each = [one.evaluate(part).prediction.softmax(-1) for one in (first, second)]
    assert torch.allclose(found.prediction.exp(), (each[0] + each[1]) / 2)
    assert torch.allclose(found.loss[:, 0], torch.func.vmap(first.loss)(found.prediction, part.query.y))
    right = (found.prediction.argmax(-1) == part.query.y).double().mean(1)
    assert torch.allclose(found.metrics["accuracy"][:, 0].double(), right)
    scores = evaluate(Ensemble([first, second]), tasks, 3, 0)["inductive"]["accuracy"]  # type: ignore[arg-type]
    assert len(scores) == 1


def test_a_run_with_one_best_learner_has_no_ensemble(
    recipe: Callable[..., Recipe], trained: Callable[..., RunFolder], tasks: FewShot
) -> None:
    run = trained("run", recipe(meta_steps=2, validate_every=1))
    assert not run.ensemble.exists()
    with pytest.raises(CheckpointError, match=r"only its best learner.*--keep-best 5"):
        run.learners()
    with pytest.raises(UsageError, match="at least 2 learners"):
        Ensemble([run.learner()])
    learner, part = run.learner(), tasks.draw([0])
    real = part._replace(query=part.query._replace(y=part.query.y.float()))
    with pytest.raises(UsageError, match="probabilities of classes"):
        Ensemble([learner, learner]).evaluate(real)
