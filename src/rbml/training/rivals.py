"""What a learner is compared with on the same tasks: gradient descent without learning across tasks, and baselines.

Shapes: B tasks, T inner steps.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from rbml import algorithms
from rbml.autodiff import module as modules
from rbml.data.batch import each_input
from rbml.data.inputs import Embedded, Pictures, Text
from rbml.data.inputs.colour import colour_histogram
from rbml.data.targets import Baseline, Metric
from rbml.devices import placed
from rbml.learner import Learner, Statistics
from rbml.learner.frozen import FrozenBody
from rbml.learner.initial import head_layer_name, head_names
from rbml.recipe import Recipe, build
from rbml.recipe.streams import START
from rbml.tasks import Episode, TaskSource, generator
from rbml.tasks.base import count, one
from rbml.training.evaluator import judge

LEARNER = "learner"
FINE_TUNING = "fine-tuning"
SCRATCH = "from scratch"

INPUTS = "raw inputs"
"""Where baselines work on the inputs as they are."""

RATES = tuple(10.0 ** (power / 2) for power in range(-8, 2))
"""The learning rates that fine-tuning and training from scratch may have: 0.0001 to 3."""

STEPS = (5, 10, 20, 50, 100)
"""After how many steps they may end."""

_FIRST_RATE = 0.03
_DETAILS = ("nearest neighbour", "support mean")
"""Baselines that are measured on the inputs alone: on features they tell nothing new."""


@dataclass(frozen=True)
class Chosen:
    """What was chosen on validation tasks.

    Attributes:
        lr: the learning rate.
        steps: the number of gradient steps.
        value: the metric on the validation tasks with these.
    """

    lr: float
    steps: int
    value: float


@dataclass(frozen=True)
class Method:
    """A way to solve tasks.

    Attributes:
        name: as tables show it.
        about: one sentence on what is done.
        tasks: the source of its tasks. All methods draw the same examples; how these are read may differ.
        of: from a stack of tasks and what was chosen to the target's first metric of each task, ``(B,)``.
        choose: from the shots to what is chosen on validation tasks; ``None`` where there is nothing to choose.
    """

    name: str
    about: str
    tasks: TaskSource
    of: Callable[[Episode, Chosen | None], Tensor]
    choose: Callable[[int], Chosen] | None = None


def learner_itself(learner: Learner, tasks: TaskSource) -> Method:
    """Return the learner as a method; predictions do not depend on the other queries of a task."""

    def of(part: Episode, chosen: Chosen | None) -> Tensor:
        return _last(learner, part, tasks)

    return Method(LEARNER, "adapted as it has learned to", tasks, of)


def gradient_descent(
    name: str, about: str, make: Callable[[float, int], Learner], tasks: TaskSource, choose: Callable[[int], Chosen]
) -> Method:
    """Return plain gradient descent as a method, its rate and steps chosen on validation tasks.

    Args:
        name: of the method.
        about: the beginning of the sentence on what is done.
        make: from a learning rate and a number of steps to the learner.
        tasks: the source of its tasks.
        choose: from the shots to the rate and the steps.
    """

    def of(part: Episode, chosen: Chosen | None) -> Tensor:
        assert chosen is not None
        return _last(make(chosen.lr, chosen.steps), part, tasks)

    about = f"{about}, with momentum; learning rate and steps chosen on validation tasks for each number of examples"
    return Method(name, about, tasks, of, choose)


def fine_tuned(learner: Learner, target_loss: Any) -> Callable[[float, int], Learner]:
    """Return how the whole network is fine-tuned from the learner's theta0, with a new head that begins at zero."""
    start = _start_of(learner)
    options: dict[str, Any] = {"loss": target_loss, "head": learner.initial.head.pattern}
    options |= {"statistics": "running"} if learner.statistics == "running" else {}
    return partial(_made, algorithms.finetune, start, options | _how(learner))


def untrained(learner: Learner, recipe: Recipe, tasks: TaskSource) -> Callable[[float, int], Learner]:
    """Return how the recipe's network is trained from its untrained start."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(generator(recipe.outer.seed, START).initial_seed())
        start = build.model(recipe, build.setting(recipe, tasks))
        for layer in start.modules():  # a pretrained network begins anew, too
            reset = getattr(layer, "reset_parameters", None)
            if callable(reset):
                reset()
    start.to(learner.device)  # drawn before on the processor: the same start everywhere
    return partial(_made, algorithms.scratch, start, {"loss": tasks.target.loss} | _how(learner))


def _how(learner: Learner) -> dict[str, Any]:
    run = learner.execution
    return {"chunk": run.chunk, "vectorise": run.vectorise, "verify": False}


def _made(preset: Callable[..., Learner], start: nn.Module, options: dict[str, Any], lr: float, steps: int) -> Learner:
    return preset(start, lr=lr, steps=steps, **options)


def _start_of(learner: Learner) -> nn.Module:
    """Return a copy of the learner's model with one value per parameter, all of which can be trained."""
    model = copy.deepcopy(learner.model)
    for name in learner.stepwise:
        modules.put(model, name, nn.Parameter(learner.model.get_parameter(name).detach()[0].clone()))
    for name in head_names(model, learner.initial.head.pattern):
        model.get_parameter(name).requires_grad_(True)
    return model


def choice(
    make: Callable[[float, int], Learner], tasks: TaskSource, drawn: Callable[[int], Episode]
) -> Callable[[int], Chosen]:
    """Return a function from the shots to the best rate and steps on validation tasks.

    The rate is changed in factors of the square root of ten as long as that helps, so that the best one lies inside
    what was tried, not at its edge. The metric after every number of steps comes from one run. Of equally good choices
    the one with fewer steps is taken.

    Args:
        make: from a learning rate and a number of steps to the learner.
        tasks: the source of validation tasks.
        drawn: from the shots to validation tasks.
    """
    metric = tasks.target.metrics[0]

    def choose(shots: int) -> Chosen:
        part, tried = drawn(shots), dict[int, Chosen]()

        def best(at: int) -> Chosen:
            if at not in tried:
                tried[at] = _best_steps(make, RATES[at], part, tasks)
            return tried[at]

        def better(one: Chosen, other: Chosen) -> bool:
            return metric.improves(one.value, None if other.value != other.value else other.value)

        at = min(range(len(RATES)), key=lambda place: abs(RATES[place] - _FIRST_RATE))
        for move in (1, -1):
            while 0 <= at + move < len(RATES) and better(best(at + move), best(at)):
                at += move
        return best(at)

    return choose


def _best_steps(make: Callable[[float, int], Learner], lr: float, part: Episode, tasks: TaskSource) -> Chosen:
    """Return the best number of steps with one rate; twice as many are tried only where many are better than few."""
    metric, found = tasks.target.metrics[0], Chosen(lr, STEPS[0], float("nan"))
    for limit in (STEPS[-2], STEPS[-1]):
        learner = make(lr, limit)
        evaluation = learner.evaluate(part, _which(learner), ways=ways_of(tasks), metrics=(metric,))
        by_step = evaluation.metrics[metric.name].mean(0)
        for steps in STEPS[: STEPS.index(limit) + 1]:
            value = by_step[steps].item()
            if metric.improves(value, None if found.value != found.value else found.value):
                found = Chosen(lr, steps, value)
        if found.steps < limit:
            break
    return found


def baselines(tasks: TaskSource, where: str, about: str, convert: Callable[[Episode], Episode] | None) -> list[Method]:
    """Return the target's baselines as methods.

    Args:
        tasks: the source of their tasks.
        where: what the names end with, such as ``"raw inputs"``.
        about: what they work on, for the sentence on what is done.
        convert: from a stack of tasks to the same ones with other inputs; ``None`` leaves them as they are.
    """
    metric = tasks.target.metrics[0]
    return [
        Method(f"{name} on {where}", f"{name} on {about}", tasks, partial(_judged, baseline, metric, convert))
        for name, baseline in tasks.target.baselines.items()
        if convert is None or name not in _DETAILS
    ]


class View(NamedTuple):
    """What can be looked at in examples without any network.

    Attributes:
        where: its name.
        about: the same, for a sentence on what is done.
        convert: from a stack of tasks to the same ones with other inputs; ``None`` leaves them as they are.
    """

    where: str
    about: str
    convert: Callable[[Episode], Episode] | None = None


def views(tasks: TaskSource) -> list[View]:
    """Return what baselines look at: the inputs; of colour pictures also their colours; of sentences their words."""
    modality = tasks.modality
    if isinstance(modality, Text):  # numbers of words are no numbers to compute with
        return [View("words", "the words (TF-IDF)", partial(_each, modality.features))]
    if isinstance(modality, Embedded):
        return [View("features", f"the features of {modality.backbone}")]
    found = [View(INPUTS, "the inputs as they are")]
    if isinstance(modality, Pictures) and modality.channels == 3:
        about = "the shares of the colours in a picture (hue, saturation, brightness)"
        found.append(View("colours", about, partial(_each, _colours)))
    return found


def plain_baselines(tasks: TaskSource) -> list[Method]:
    """Return the target's baselines, on everything that can be looked at without a network, as methods."""
    return [method for view in views(tasks) for method in baselines(tasks, *view)]


def _each(change: Callable[[Any], Tensor], part: Episode) -> Episode:
    """Return the tasks with other inputs, which are made for all examples at once."""
    support, query = (
        batch._replace(x=change(each_input(lambda leaf: leaf.flatten(0, 1), batch.x)).view(*batch.y.shape[:2], -1))
        for batch in part
    )
    return Episode(support, query)


def _colours(pictures: Tensor) -> Tensor:
    return colour_histogram((pictures * 255).round().to(torch.uint8))


def _judged(
    baseline: Baseline,
    metric: Metric,
    convert: Callable[[Episode], Episode] | None,
    part: Episode,
    chosen: Chosen | None,
) -> Tensor:
    return judge(baseline, metric, part if convert is None else convert(part))


def features_of(learner: Learner, tasks: TaskSource) -> Callable[[Episode], Episode] | None:
    """Return what replaces the inputs of tasks by the inputs of the learner's head at theta0; ``None`` without a head.

    Batch norm uses the statistics of the support set.
    """
    layer = head_layer_name(learner.model, learner.initial.head.pattern)
    if not layer:
        return None

    def convert(part: Episode) -> Episode:
        found, part = [], placed(part, learner.device)
        with torch.no_grad():
            for index in range(count(part)):
                bound = learner.bind(one(part, index), _which(learner), ways_of(tasks) if learner.head else None)
                found.append(FrozenBody(bound, layer).features({}))
        support, query = (
            batch._replace(x=torch.stack([each[name] for each in found]))
            for name, batch in (("support", part.support), ("query", part.query))
        )
        return Episode(support, query)

    return convert


def ways_of(tasks: TaskSource) -> int | None:
    """Return the number of classes of the tasks; ``None`` where they have no classes."""
    return getattr(tasks, "ways", None)


def _which(learner: Learner) -> Statistics:
    return "running" if learner.statistics == "running" else "inductive"


def _last(learner: Learner, part: Episode, tasks: TaskSource) -> Tensor:
    metric = tasks.target.metrics[0]
    found = learner.evaluate(part, _which(learner), each_step=False, ways=ways_of(tasks), metrics=(metric,))
    return found.metrics[metric.name][:, -1]
