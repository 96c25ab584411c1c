"""Runs that begin with what another run has learned, and runs that are trained longer."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch

from rbml import algorithms
from rbml.errors import UsageError
from rbml.models import MLP, Adaptor
from rbml.recipe import Recipe, build
from rbml.tasks import FewShot
from rbml.training import RunFolder, files
from rbml.training.start import given, look, take

Trained = Callable[..., RunFolder]
Same = Callable[[RunFolder, RunFolder], bool]


def test_a_run_begins_with_theta0_and_phi_of_another(recipe: Callable[..., Recipe], trained: Trained) -> None:
    first = trained("first", recipe(algorithm="meta_sgd", meta_steps=3))
    second = trained("second", recipe(algorithm="meta_sgd", meta_steps=3, start=str(first.path)), stop_after=1)
    began = build.learner(second.recipe(), second.setting())
    second.begin(began)
    learned = first.learner().state_dict()
    assert all(torch.equal(leaf, learned[name]) for name, leaf in began.state_dict().items())
    assert second.read_config()["about"]["start"].startswith("theta0 (all of it), and phi, of ")


def test_it_needs_the_other_run_no_more_and_resumes_bit_for_bit(
    recipe: Callable[..., Recipe], trained: Trained, same: Same
) -> None:
    first = trained("first", recipe(meta_steps=2))
    settings = recipe(meta_steps=5, start=str(first.path))
    whole = trained("whole", settings)
    trained("cut", settings, stop_after=1)
    first.path.rename(first.path.with_name("elsewhere"))
    assert same(trained("cut", settings), whole)


def test_what_does_not_fit_keeps_its_own_start(recipe: Callable[..., Recipe]) -> None:
    other = build.learner(recipe(ways=4, algorithm="meta_sgd", seed=5))
    learner = build.learner(recipe())
    head = learner.model.head.weight.detach().clone()
    taken = take(learner, given(other))
    assert taken.left == ["head.weight", "head.bias"] and not taken.phi
    assert str(taken) == f"theta0 ({len(taken.theta)} of {len(taken.theta) + 2} tensors; new: head.weight, head.bias)"
    assert torch.equal(learner.model.head.weight, head)
    assert torch.equal(learner.model.blocks[0].conv.weight, other.model.blocks[0].conv.weight)


def test_models_without_a_common_parameter_are_refused(recipe: Callable[..., Recipe]) -> None:
    learner = build.learner(recipe())
    theta = MLP(3, 2, ()).state_dict()
    with pytest.raises(UsageError, match=r"no parameter of the same name and shape .*: use the same --model"):
        take(learner, given(build.learner(recipe())) | {"theta": theta})


def test_a_model_looks_at_training_tasks_before_the_first_step() -> None:
    y = torch.arange(60) // 6
    x = torch.randn(10, 4)[y] + torch.randn(60, 4) * torch.tensor([5.0, 1.0, 1.0, 1.0])
    learner = algorithms.protonet(Adaptor(4, 3))
    look(learner, FewShot((x, y), 3, 2, 2), seed=0)
    assert torch.allclose(learner.model.centre, x.mean(0), atol=0.3)
    assert learner.model.residual.weight.diagonal().argmin() == 0  # what varies most within classes is shrunk
    other = algorithms.protonet(Adaptor(4, 3))
    look(other, FewShot((x, y), 3, 2, 2), seed=0)
    assert torch.equal(other.model.residual.weight, learner.model.residual.weight)
    without = algorithms.protonet(MLP(4, 3, ()))
    before = without.state_dict()
    look(without, FewShot((x, y), 3, 2, 2), seed=0)
    assert all(torch.equal(leaf, before[name]) for name, leaf in without.state_dict().items())


def test_a_longer_run_goes_on_along_the_cosine_of_its_new_length(
    recipe: Callable[..., Recipe], trained: Trained, same: Same
) -> None:
    run = trained("run", recipe(meta_steps=4, outer_lr=0.01))
    run.lengthen(8)
    assert run.recipe().outer.meta_steps == 8
    other = trained("other", recipe(meta_steps=4, outer_lr=0.01))
    other.lengthen(8)
    trained("run", run.recipe())
    trained("other", other.recipe(), stop_after=2)
    trained("other", other.recipe())
    rates = [line["outer_lr"] for line in run.lines()]
    cosine = [0.01 * (1 + math.cos(math.pi * step / total)) / 2 for total in (4, 8) for step in range(total)]
    assert rates == pytest.approx(cosine[:4] + cosine[8:])
    assert files.load(run.last, "checkpoint")["step"] == 8
    assert same(run, other), "also when it is stopped in between"
    with pytest.raises(UsageError, match="has 8 outer steps: ask for more"):
        run.lengthen(8)
