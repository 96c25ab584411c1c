"""From recipes to tasks, models and learners."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from rbml import Batch, Episodes, algorithms, hypergrad
from rbml.data import inputs
from rbml.data.inputs.table import Table
from rbml.data.setting import Setting
from rbml.data.targets import REAL
from rbml.errors import DataError, UsageError
from rbml.models import MLP, Conv4
from rbml.recipe import Recipe, build
from rbml.strategy.serialize import described, from_plain, plain
from rbml.tasks import FewShot, Mixture, RandomClasses


def test_what_a_recipe_says_is_what_is_built() -> None:
    recipe = Recipe.of(ways=4, algorithm="meta_sgd", lr=0.2, steps=3, engine="unrolled", filters=6, norm="group",
                    pool="max", size=32, channels=3, shared_head=True, statistics="inductive", chunk=5)  # fmt: skip
    learner = build.learner(recipe)
    assert isinstance(learner.model, Conv4)
    assert (learner.steps, learner.statistics, learner.execution.chunk) == (3, "inductive", 5)
    assert isinstance(learner.hypergradient, hypergrad.Unrolled)
    shapes = {name: tuple(leaf.shape) for name, leaf in learner.named_parameters()}
    assert shapes["model.blocks.0.conv.weight"] == (6, 3, 3, 3)
    assert shapes["model.head.weight"] == (1, 24)  # one row for all classes; 2 x 2 x 6 features
    phi = [leaf for name, leaf in learner.named_parameters() if name.startswith("phi")]
    assert all(torch.equal(leaf, torch.full_like(leaf, 0.2)) for leaf in phi)
    assert isinstance(build.learner(recipe.changed(model="mlp")).model, MLP)


def test_the_seed_decides_the_start_and_the_global_random_state_does_not() -> None:
    before = torch.get_rng_state()
    first = build.learner(Recipe.of(filters=2, algorithm="meta_sgd")).state_dict()
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(99)
    again = build.learner(Recipe.of(filters=2, algorithm="meta_sgd")).state_dict()
    other = build.learner(Recipe.of(filters=2, algorithm="meta_sgd", seed=1)).state_dict()
    assert all(torch.equal(leaf, again[name]) for name, leaf in first.items())
    drawn = ("model.head.weight", "model.blocks.1.conv.weight", "phi.sgd.lr/head.weight")
    found = [name for name in first if name.endswith(("head.weight", "1.conv.weight"))]
    assert len(found) >= len(drawn)
    assert not any(torch.equal(first[name], other[name]) for name in found)


def test_tasks_come_from_the_parts_of_the_source() -> None:
    recipe = Recipe.of(ways=3, shots=2, queries=4)
    names = {part: set(build.tasks(recipe, part).names) for part in ("val", "test")}
    assert not names["val"] & names["test"]
    tasks = build.tasks(recipe, "test", data="digits", ways=6, shots=1)
    assert (tasks.ways, tasks.shots, tasks.queries, len(tasks.names)) == (6, 1, 4, 10)


def test_validation_has_as_many_ways_as_there_are_classes() -> None:
    few = build.tasks(Recipe.of(data="glyphs"), "val")
    classes = len(few.names)
    recipe = Recipe.of(data="glyphs", ways=classes + 1)
    assert build.tasks(recipe, "train").ways == classes + 1 and build.tasks(recipe, "val").ways == classes
    with pytest.raises(UsageError, match="ways need"):
        build.tasks(recipe.changed(ways=10_000), "train")


def test_pictures_are_scaled_to_the_size_and_channels_of_the_recipe() -> None:
    small, large = (build.tasks(Recipe.of(size=size, channels=3), "test", data="digits") for size in (28, 56))
    assert "scaled to 56x56, three channels" in large.about
    one, two = (tasks.draw([3]).query.x for tasks in (small, large))
    assert two.shape[2:] == (3, 56, 56) and two.min() >= 0 and two.max() <= 1
    pooled = torch.nn.functional.avg_pool2d(two[0], 2)
    assert (pooled - one[0]).abs().mean() < 0.02
    assert build.setting(Recipe.of(size=56, channels=3), large).modality == inputs.Pictures(56, 3)


def test_a_source_may_have_tasks_of_its_own_size() -> None:
    recipe = Recipe.of(data=["glyphs(ways=3)", "glyphs(ways=6, shots=2)"], queries=2)
    assert recipe.source == "glyphs(ways=3)+glyphs(ways=6, shots=2)"
    assert Recipe.from_json(recipe.to_json()) == recipe
    tasks = build.tasks(recipe, "test")
    counts = tasks.draw(range(8)).support.mask["class"].sum(1).tolist()
    assert set(counts) == {3, 6} and tasks.outputs == 6
    assert build.tasks(recipe, "test", ways=4).outputs == 4  # what is asked for later takes precedence


def test_all_classes_are_for_folders(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="part"):
        build.tasks(Recipe.of(), "all", data="digits")
    with pytest.raises(DataError, match="no class folders"):
        build.tasks(Recipe.of(), "all", data=f"folder:{tmp_path}")


SMALL: dict[str, Any] = {"filters": 2, "size": 16, "ways": 3}


def test_the_strategy_is_what_the_recipe_says() -> None:
    settings = {"sgd.lr.per": "layer", "sgd.lr.per_step": True, "momentum.nesterov": True}
    recipe = Recipe.of(steps=3, lr=0.2, strategy="momentum, sgd", settings=settings, **SMALL)
    learner = build.learner(recipe)
    assert described(learner.strategy) == "momentum(decay 0.9, nesterov), sgd(lr 0.2 learned per layer each step)"
    phi = dict(learner.phi.named_parameters())
    assert len(phi) == 9 and all(torch.equal(leaf, torch.full((3,), 0.2)) for leaf in phi.values())
    plain = build.learner(Recipe.of(steps=3, lr=0.2, **SMALL)).state_dict()
    assert all(torch.equal(leaf, plain[name]) for name, leaf in learner.state_dict().items() if "phi" not in name)
    frozen = build.learner(recipe.changed(freeze_strategy=True))
    assert not dict(frozen.phi.named_parameters()) and set(dict(frozen.phi.named_buffers())) >= set(phi)


def test_starts_that_are_drawn_depend_on_the_seed_alone() -> None:
    recipe = Recipe.of(settings={"sgd.lr.value": [0.1, 0.2], "sgd.lr.per": "element"}, **SMALL)
    first = build.learner(recipe).phi.state_dict()
    torch.manual_seed(77)
    again, other = build.learner(recipe).phi.state_dict(), build.learner(recipe.changed(seed=1)).phi.state_dict()
    assert all(torch.equal(leaf, again[name]) for name, leaf in first.items())
    assert not torch.equal(first["sgd.lr/head.weight"], other["sgd.lr/head.weight"])


def test_options_reach_the_preset_and_the_learner() -> None:
    learner = build.learner(
        Recipe.of(algorithm="maml++", options={"learned_rates": False, "head": "head.weight"}, **SMALL)
    )
    assert not dict(learner.phi.named_parameters()) and learner.head == ["head.weight"]
    assert build.learner(Recipe.of(options={"adapt": "head.*"}, **SMALL)).adapted == ["head.weight", "head.bias"]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"options": {"adpt": "x"}}, "no option of maml named 'adpt': did you mean 'adapt'"),
        ({"options": {"adapt": 3}}, "adapt must be text, not 3"),
        ({"options": {"hypergradient": "x"}}, "no option of maml named 'hypergradient'"),
        ({"settings": {"sdg.lr": 1}}, "did you mean 'sgd'"),
        (
            {"settings": {"momentum.decay": 1}},
            'has no momentum: insert it at the right place in the chain.* strategy="momentum, sgd"',
        ),
        ({"strategy": "momentm"}, "did you mean 'momentum'"),
        ({"strategy": "adagrad", "lr": 0.1}, r"lr=0.1 is that of sgd, which is not in strategy='adagrad'"),
        ({"strategy": "l2"}, "has no rule that takes steps"),
        ({"algorithm": "protonet", "lr": 0.1}, r"protonet has no learning rate \(lr\) to set.*leave --lr out"),
        ({"steps": 0}, "steps must be at least 1, not 0: without an inner step maml adapts nothing"),
    ],
)
def test_what_the_preset_or_the_strategy_has_not_is_refused(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        build.learner(Recipe.of(**(SMALL | changes)))


def test_a_head_from_the_support_set_needs_no_inner_step() -> None:
    for changes in (
        {"algorithm": "protonet"},
        {"algorithm": "r2d2", "steps": 0},
        {"steps": 0, "strategy": "ridge, sgd"},
    ):
        assert build.learner(Recipe.of(**(SMALL | changes))).steps == 0


def test_context_parameters_are_those_of_cavia() -> None:
    shapes = {
        name: leaf.shape for name, leaf in build.learner(Recipe.of(algorithm="cavia", **SMALL)).named_parameters()
    }
    assert shapes["model.context"] == (100,)
    assert build.learner(Recipe.of(algorithm="cavia", context=4, model="mlp", ways=3)).adapted == ["context"]
    assert "context" not in dict(build.learner(Recipe.of(**SMALL)).model.named_parameters())


@pytest.mark.parametrize("algorithm", algorithms.ALL)
def test_every_preset_is_built_from_a_recipe(algorithm: str) -> None:
    recipe, rows = Recipe.of(algorithm=algorithm, **SMALL), Setting(Table("ab", [0, 0], [1, 1]), REAL, 1)
    kinds = algorithms.TARGETS.get(algorithm, ("classes", "real"))
    for kind, setting in (("classes", build.setting(recipe)), ("real", rows)):
        own = recipe.changed(model="mlp") if kind == "real" else recipe
        if kind not in kinds:
            with pytest.raises(UsageError, match=f"{algorithm} is for targets of the kind"):
                build.learner(own, setting)
            continue
        learner = build.learner(own, setting)
        assert from_plain(plain(learner.strategy)).parts[0].name == learner.strategy.parts[0].name


def test_bounded_numbers_of_terms_keep_the_type_of_the_model() -> None:
    """PyTorch gives the tangent of a float32 number behind a sigmoid as float64 (forward over reverse)."""
    settings = {"l2.strength.bounds": [0, 1], "label_smoothing.rate.bounds": [0, 1]}
    learner = build.learner(Recipe.of(strategy="l2, label_smoothing, sgd", settings=settings, **SMALL))
    x, y = torch.rand(2, 6, 1, 16, 16), torch.arange(6).remainder(3).expand(2, -1)
    grads = learner.backward(Episodes(Batch(x, y), Batch(x, y))).grads
    assert all(grad.dtype == torch.float32 for grad in grads.values())
    assert all(abs(float(grads[f"phi.{name}"])) > 0 for name in ("l2.strength", "label_smoothing.rate"))


def test_several_sources_are_a_mixture() -> None:
    recipe = Recipe.of(data=["glyphs", "digits"], ways=3, queries=2)
    assert [one.source for one in recipe.data] == ["glyphs", "digits"]
    tasks = build.tasks(recipe, "test")
    assert isinstance(tasks, Mixture) and build.setting(recipe, tasks).outputs == 3
    assert tasks.draw([1, 2]).query.y.shape == (2, 6)
    with pytest.raises(UsageError, match="pretraining works with one source"):
        build.supervised(recipe.changed(pretrain=2))


def test_an_option_of_a_model_is_one_of_its_maker() -> None:
    model = build.learner(Recipe.of(model="mlp", model_options={"hidden": [5]}, ways=3)).model
    assert [leaf.shape for name, leaf in model.named_parameters() if "weight" in name] == [(5, 784), (3, 5)]
    for options, said in (
        ({"hiden": [5]}, "did you mean 'hidden'"),
        ({"outputs": 3}, "no option of mlp named 'outputs'"),
    ):
        with pytest.raises(UsageError, match=said):
            build.learner(Recipe.of(model="mlp", model_options=options))


def test_without_labels_only_the_test_has_classes() -> None:
    recipe = Recipe.of(labels="none", ways=3, queries=2, task_options={"strength": 2.0})
    train, val, test = (build.tasks(recipe, part) for part in ("train", "val", "test"))
    assert isinstance(train, RandomClasses) and isinstance(val, RandomClasses) and isinstance(test, FewShot)
    assert train.augmentation.strength == 2 and "without labels" in val.about and "without labels" not in test.about
    aal = build.tasks(Recipe.of(task="aal", shots=2, augment="shift"), "train")  # the kind says it: no labels
    assert isinstance(aal, RandomClasses) and aal.different == 2 and aal.augmentation.names == ("shift",)
    mixture = build.tasks(recipe.changed(data=["glyphs", "glyphs"]), "train")
    assert isinstance(mixture, Mixture) and all(isinstance(one, RandomClasses) for one in mixture.sources)
    with pytest.raises(UsageError, match=r"few_shot need labels.*umtra, aal, cactus"):
        Recipe.of(labels="none", task="few_shot")
    with pytest.raises(UsageError, match="choice of labels named 'some'"):
        Recipe.of(labels="some")
    with pytest.raises(UsageError, match="pretraining needs labels"):
        build.supervised(recipe)


def test_changed_pictures_and_new_classes_are_for_training_only() -> None:
    options = {"rotate_classes": True, "mix_classes": 0.5}
    recipe = Recipe.of(augment="auto", task_options=options)
    train, val, test = (build.tasks(recipe, part) for part in ("train", "val", "test"))
    assert train.augmentation.names == ("affine", "elastic") and train.mix_classes == 0.5 and len(train.names) == 4800
    for other in (val, test):
        assert other.augmentation.names == () and other.mix_classes == 0
    assert len(val.names) == 100
