"""A learned strategy in a file: what comes back, what it fits, and what it says where it does not."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

from rbml import Episodes, Learner, models
from rbml.algorithms.options import assemble
from rbml.errors import CheckpointError, DivergedError, UsageError
from rbml.recipe import build
from rbml.strategy import Hyper, Rule, Strategy, chain, kronecker, momentum, ridge, sgd
from rbml.strategy.serialize import described
from rbml.strategy.settings import changed
from rbml.training import LearnedStrategy, Recipe, RunFolder, export_strategy, files, load_strategy

Pictures = Callable[..., Episodes]


def net(ways: int = 3, hidden: tuple[int, ...] = (6, 5)) -> models.MLP:
    return models.MLP(144, ways, hidden, nn.Tanh).double()


def plan(per: str = "layer", per_step: bool = True) -> Strategy:
    return chain(momentum(Hyper(0.5, bounds=(0, 1))), sgd(Hyper(0.1, per=per, per_step=per_step, bounds=(0, None))))  # type: ignore[arg-type]


def taught(strategy: Strategy, ways: int = 3, steps: int = 3, hidden: tuple[int, ...] = (6, 5)) -> Learner:
    """Return a learner whose phi is not where it started."""
    learner = assemble(net(ways, hidden), strategy, steps)
    with torch.no_grad():
        for leaf in learner.phi.parameters():
            leaf += 0.3 * torch.randn(leaf.shape, dtype=leaf.dtype)
    return learner


@pytest.mark.parametrize("per", ["all", "layer", "tensor", "element"])
def test_what_was_learned_comes_back_and_learns_the_same(per: str, pictures: Pictures, tmp_path: Path) -> None:
    learner = taught(plan(per))
    export_strategy(learner, tmp_path / "s", {"run": "x"})
    learned = load_strategy(tmp_path / "s")
    assert (learned.steps, learned.about) == (3, {"run": "x"})
    assert learned.theta == {name: tuple(leaf.shape) for name, leaf in learner.model.named_parameters()}
    fresh = assemble(learner.model, None, 3)
    again = learned.onto(fresh)
    episodes = pictures()
    ours, theirs = learner.meta_gradient(episodes), again.meta_gradient(episodes)
    assert torch.equal(ours.loss, theirs.loss) and ours.grads.keys() == theirs.grads.keys()
    assert all(torch.equal(grad, theirs.grads[name]) for name, grad in ours.grads.items())
    assert described(fresh.strategy) == "sgd(lr 0.1)"  # a copy was made


def test_frozen_it_acts_the_same_and_has_no_gradient(pictures: Pictures) -> None:
    learner = taught(plan())
    fixed = LearnedStrategy.of(learner).onto(assemble(learner.model, None, 3), freeze=True)
    assert not dict(fixed.phi.named_parameters())
    result = fixed.meta_gradient(pictures())
    assert torch.equal(result.loss, learner.meta_gradient(pictures()).loss)
    assert all(name.startswith("model.") for name in result.grads)


def test_a_frozen_strategy_can_be_kept_and_put_on_again(tmp_path: Path) -> None:
    """A number that is left out of the rule where it is fixed at zero stays in it when it was learned before."""
    learner = taught(chain(momentum(0.5, dampening=Hyper(0.0)), kronecker(), sgd(0.1)))
    fixed = LearnedStrategy.of(learner).onto(learner, freeze=True)
    export_strategy(fixed, tmp_path / "s")
    again = load_strategy(tmp_path / "s").onto(assemble(learner.model, None, 3))
    here, there = learner.phi.state_dict(), again.phi.state_dict()
    assert here.keys() == there.keys() and all(torch.equal(leaf, there[name]) for name, leaf in here.items())
    assert not dict(again.phi.named_parameters())


@pytest.mark.parametrize(("steps", "picked"), [(2, [0, 1]), (3, [0, 1, 2]), (5, [0, 1, 2, 2, 2])])
def test_other_numbers_of_steps_take_the_first_or_repeat_the_last(steps: int, picked: list[int]) -> None:
    learner = taught(plan("element"))
    again = LearnedStrategy.of(learner).onto(assemble(net(), None, steps))
    for name, leaf in again.phi.named_parameters():
        there = learner.phi.get_parameter(name)
        assert torch.equal(leaf, there if name == "momentum.decay" else there[picked])


@pytest.mark.parametrize("per_step", [False, True])
def test_a_head_for_other_classes_repeats_the_rows(per_step: bool) -> None:
    learner = taught(plan("element", per_step))
    again = LearnedStrategy.of(learner).onto(assemble(net(ways=7), None, 3))
    rows = [0, 1, 2, 0, 1, 2, 0]
    for name in ("sgd.lr/head.weight", "sgd.lr/head.bias"):
        there = learner.phi.state_dict()[name]
        assert torch.equal(again.phi.state_dict()[name], there[:, rows] if per_step else there[rows])


def test_one_value_for_all_fits_any_model_and_one_a_layer_any_size() -> None:
    for per, hidden in (("all", (4, 4, 4)), ("layer", (9, 2)), ("tensor", (9, 2))):
        learner = taught(plan(per))
        again = LearnedStrategy.of(learner).onto(assemble(net(hidden=hidden), None, 3))
        here = again.phi.state_dict()
        assert all(torch.equal(leaf, here[name]) for name, leaf in learner.phi.state_dict().items())


@pytest.mark.parametrize(
    ("per", "hidden", "said"),
    [
        (
            "element",
            (6, 4),
            r"sgd.lr/body.3.weight is 3 x 5 x 6 in the file and 3 x 4 x 6 here; sgd.lr/body.3.bias is 3 x 5",
        ),
        (
            "layer",
            (6, 5, 4),
            r"parameters: sgd.lr/body.5\.\* is not in the file\. Use it with a model of the same structure",
        ),
        ("tensor", (6,), r"sgd.lr/body.3.weight is in the file only; sgd.lr/body.3.bias is in the file only\."),
        ("element", (4, 4, 4), r"; .*; .* and 4 more"),
    ],
)
def test_where_it_does_not_fit_the_first_parameters_are_named(per: str, hidden: tuple[int, ...], said: str) -> None:
    learned = LearnedStrategy.of(taught(plan(per)))
    with pytest.raises(CheckpointError, match=said):
        learned.onto(assemble(net(hidden=hidden), None, 3))


def test_tensors_fit_by_their_shapes() -> None:
    learned = LearnedStrategy.of(taught(chain(kronecker(), sgd(0.1))))
    assert learned.onto(assemble(net(), None, 3))
    with pytest.raises(
        CheckpointError, match=r"kronecker.matrices/head.weight/out is 3 x 3 in the file and 4 x 4 here"
    ):
        learned.onto(assemble(net(ways=4), None, 3))


def test_parts_may_be_added_and_fixed_but_numbers_mean_what_they_meant() -> None:
    learner = taught(plan())
    learned, fresh = LearnedStrategy.of(learner), assemble(learner.model, None, 3)
    more = changed(
        learned.strategy, {"sgd.lr.learn": False, "weight_decay.rate.per": "layer"}, "weight_decay, momentum, sgd"
    )
    again = learned.onto(fresh, strategy=more)
    here = again.phi.state_dict()
    assert all(torch.equal(leaf, here[name]) for name, leaf in learner.phi.state_dict().items())
    assert {name.partition(".")[0] for name, _ in again.phi.named_parameters()} == {"weight_decay", "momentum"}
    with pytest.raises(UsageError, match=r"sgd.lr was learned as Hyper.* set only sgd.lr.learn"):
        learned.onto(fresh, strategy=changed(learned.strategy, {"sgd.lr.per": "all"}))


def test_a_learner_takes_another_strategy_whole() -> None:
    model = net()
    learner = assemble(model, sgd(0.1), 2)
    own = {name: leaf.clone() for name, leaf in learner.model.named_parameters()}
    other = learner.with_strategy(chain(ridge(), sgd(Hyper((0.1, 0.2)))), torch.Generator().manual_seed(3))
    again = learner.with_strategy(chain(ridge(), sgd(Hyper((0.1, 0.2)))), torch.Generator().manual_seed(3))
    assert torch.equal(other.phi.state_dict()["sgd.lr"], again.phi.state_dict()["sgd.lr"])
    assert all(torch.equal(leaf, own[name]) for name, leaf in other.model.named_parameters())
    free = [name for name, leaf in other.model.named_parameters() if not leaf.requires_grad]
    assert free == ["head.weight", "head.bias"]  # made from the support set, so not learned
    back = other.with_strategy(sgd(0.1))
    assert all(leaf.requires_grad for leaf in back.model.parameters())
    assert all(leaf.requires_grad for leaf in learner.model.parameters())
    with pytest.raises(UsageError, match="has no rule that takes steps"):
        learner.with_strategy(ridge())
    with pytest.raises(UsageError, match="the head is made from the support set"):
        assemble(model, sgd(0.1), 2, adapt="body.*").with_strategy(chain(ridge(), sgd(0.1)))


def test_files_that_cannot_be(tmp_path: Path) -> None:
    path = tmp_path / "s"
    with pytest.raises(CheckpointError, match=r"there is no file .*: make it with rbml strategy export"):
        load_strategy(path)
    learner = taught(plan())
    export_strategy(learner, path)
    content = files.load(path, "strategy")
    files.save(path, "strategy", content | {"strategy": [{"by": "sgdd", "settings": {}, "learned": []}]})
    with pytest.raises(CheckpointError, match=r"holds a strategy that this rbml cannot make: .* did you mean 'sgd'"):
        load_strategy(path)
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(CheckpointError, match="is damaged"):
        load_strategy(path)
    with torch.no_grad():
        learner.phi.get_parameter("momentum.decay").fill_(torch.nan)
    with pytest.raises(DivergedError, match=r"momentum.decay of the strategy is not finite"):
        export_strategy(learner, tmp_path / "t")
    own = Rule("own", {}, lambda d, state, theta, values, at: (d, state))
    with pytest.raises(UsageError, match="the part own was not made"):
        export_strategy(assemble(net(), chain(own, sgd(0.1))), tmp_path / "t")
    assert not (tmp_path / "t").exists()


def test_a_run_keeps_a_copy_of_the_file(tmp_path: Path) -> None:
    small = {"filters": 2, "size": 16, "ways": 2}
    donor = build.learner(Recipe.of(algorithm="meta_sgd", steps=2, **small))  # type: ignore[arg-type]
    path = tmp_path / "s"
    export_strategy(donor, path)
    recipe = Recipe.of(strategy_file=str(path), freeze_strategy=True, seed=5, **small)  # type: ignore[arg-type]
    folder = RunFolder(tmp_path / "run")
    folder.create(recipe, {}, None)
    path.unlink()
    with pytest.raises(CheckpointError, match="there is no file"):
        build.learner(recipe)
    learner = build.learner(folder.recipe())
    assert learner.steps == 2 and folder.read_config()["strategy"][0]["learned"] == []
    assert not dict(learner.phi.named_parameters())
    there = donor.phi.state_dict()
    assert all(torch.equal(leaf, there[name]) for name, leaf in learner.phi.state_dict().items())
