"""What ``rbml curve`` measures: the subject, its tasks, and the methods that it is compared with."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from rbml.cli.devices import chosen_device
from rbml.cli.sources import checksum, tasks_for, usual_part
from rbml.errors import DataError, RbmlError, UsageError
from rbml.recipe import Recipe, build
from rbml.recipe.streams import VALIDATE
from rbml.tasks import Episode, TaskSource, generator, task_seeds
from rbml.training.curve import Curve, first_shots
from rbml.training.evaluator import describe_sizes, sizes_of
from rbml.training.learned import Learned, load
from rbml.training.rivals import (
    FINE_TUNING,
    SCRATCH,
    Method,
    baselines,
    choice,
    features_of,
    fine_tuned,
    gradient_descent,
    learner_itself,
    plain_baselines,
    untrained,
)

SHOTS = (1, 2, 3, 5, 10, 20)
"""The numbers of examples that are tried where none are named."""

_VALIDATION_TASKS = 10
_MOST_PIXELS = 84  # per side, of pictures that are given to baselines as they are
_SMALL: dict[str, Any] = {"model": "conv4", "filters": 32}
_DROPPED = "nearest neighbour"  # where there are better baselines, it only hides them


class Plan(NamedTuple):
    """What is to be measured, and what is said about it.

    Attributes:
        curve: the measurement.
        about: entries of the result besides the numbers.
        place: the folder for what was measured, if none is named.
    """

    curve: Curve
    about: dict[str, Any]
    place: Path


class _Sources(NamedTuple):
    """Where tasks come from: the same tasks, read in several ways.

    Attributes:
        own: as the learner reads them.
        raw: without a backbone in front.
        validation: on which rates and steps are chosen, as ``own`` and as ``raw``.
        shots: the numbers of examples for which there is enough data.
        notes: what a user must know about them.
    """

    own: TaskSource
    raw: TaskSource
    validation: tuple[TaskSource, TaskSource]
    shots: tuple[int, ...]
    notes: list[str]


def plan(
    place: str, shots: tuple[int, ...] | None, episodes: int, seed: int, chosen: str | None, given: dict[str, Any]
) -> Plan:
    """Return what is to be measured.

    Args:
        place: the subject: the folder of a run, ``backbone:NAME``, or a file that ``rbml adapt`` wrote.
        shots: the numbers of examples; ``None`` means the usual ones, as far as the data has so many.
        episodes: how many tasks.
        seed: which tasks.
        chosen: parts of the names of methods, with commas between them; ``None`` means all methods.
        given: ``source``, ``split``, ``part``, ``ways``, ``queries`` and ``data_root``, as on the command line.

    Raises:
        UsageError: for tasks that do not fit, or names that no method has.
        DataError: for data that is not there, or not enough of it.
    """
    subject = load(place, device=chosen_device())
    recipe, given = subject.recipe, dict(given)
    own, source = recipe.source, given.pop("source")
    root = given.pop("data_root") or (subject.run.read_config()["data_root"] if subject.run else None)
    part = given.pop("part") or usual_part(source, own)
    changes = {name: value for name, value in given.items() if value is not None}
    if source is not None:
        changes |= {"data": source, "split": changes.get("split")}
    if changes.get("ways") and subject.setting.target.kind != "classes":
        raise UsageError(f"the tasks of {own} have no classes: leave --ways out")
    sources = _sources(subject, part, root, changes, shots)
    methods = _methods(subject, sources, seed, chosen)
    sizes = {name: size for name, size in sizes_of(sources.own).items() if name != "shots"}
    identity = {
        "subject": checksum(subject), "tasks": sources.own.about, "raw": sources.raw.about, "part": part, **sizes,
    }  # fmt: skip
    named = source or own
    about = {
        "subject": subject.name, "title": f"{subject.name}, tasks of {named}", "source": named, "part": part,
        "subtitle": ", ".join(one for one in (describe_sizes(sizes), f"{episodes} tasks") if one),
        "tasks": sources.own.about, "notes": sources.notes, **sizes,
    }  # fmt: skip
    folder = named.replace("/", "_").replace(":", "-").strip("-")
    folder += "".join(f"-{size}{name[0]}" for name, size in sizes.items()) + f"-{part}" * (part in ("train", "val"))
    above = subject.run.path if subject.run else Path()
    name = folder if subject.run else f"{Path(subject.name).name.replace(':', '-')}-{folder}"
    return Plan(Curve(methods, sources.shots, episodes, seed, identity), about, above / "curves" / name)


def _sources(
    subject: Learned, part: str, root: str | None, changes: dict[str, Any], shots: tuple[int, ...] | None
) -> _Sources:
    recipe, setting, whose, notes = subject.recipe, subject.setting, subject.name, list[str]()

    def own(most: int, of: str = part, **others: Any) -> TaskSource:
        return tasks_for(recipe, setting, whose, of, root, **{**changes, **others, "shots": most})

    if shots is not None:
        usable, tasks = shots, own(shots[-1])
    else:
        usable, tasks = _largest(SHOTS, own)
        if left := [str(one) for one in SHOTS if one not in usable]:
            notes.append(f"There are too few examples for {', '.join(left)} shots and {changes['queries']} queries.")
    raw = _without_backbone(subject, tasks, part, root, {**changes, "shots": usable[-1]})
    own_validation, kind = tasks, part
    for kind, others in (("val", {}), ("val", {"data": recipe.source, "split": None})):
        try:
            own_validation = own(usable[-1], kind, **others)
        except RbmlError:  # no such part of this source, or not enough classes in it
            continue
        raw_validation = _without_backbone(
            subject, own_validation, kind, root, {**changes, **others, "shots": usable[-1]}
        )
        break
    else:
        raw_validation = raw
        notes.append(
            "There are no validation classes: rates and steps were chosen on other tasks of the same classes, which "
            "favours fine-tuning and training from scratch a little."
        )
    return _Sources(tasks, raw, (own_validation, raw_validation), usable, notes)


def _largest(shots: tuple[int, ...], build: Callable[[int], TaskSource]) -> tuple[tuple[int, ...], TaskSource]:
    """Return the shots for which the data has enough examples, and what ``build`` makes for the largest of them.

    Raises:
        DataError: if there are not even enough for the smallest.
    """
    for end in range(len(shots), 1, -1):
        try:
            return shots[:end], build(shots[end - 1])
        except DataError:  # it is raised again below if the number of shots is not the reason
            continue
    return shots[:1], build(shots[0])


def _without_backbone(
    subject: Learned, tasks: TaskSource, part: str, root: str | None, changes: dict[str, Any]
) -> TaskSource:
    """Return the same tasks with the inputs as they were before a backbone; pictures not larger than 84 pixels."""
    if subject.recipe.inputs.encoder is None:
        return tasks
    size = min(subject.recipe.inputs.size, _MOST_PIXELS)
    return build.tasks(subject.recipe, part, root, chosen_device(), **{**changes, "encoder": None, "size": size})


def _untrained_recipe(recipe: Recipe, raw: TaskSource) -> Recipe:
    """Return the recipe of the network that is trained from scratch: without a backbone, a small one on pictures."""
    if recipe.inputs.encoder is None:
        return recipe
    facts = {name: raw.modality.facts()[name] for name in ("size", "channels")}
    return recipe.changed(encoder=None, **facts, **_SMALL)


def _methods(subject: Learned, sources: _Sources, seed: int, chosen: str | None) -> list[Method]:
    """Return the learner and what it is compared with.

    Raises:
        UsageError: for a name that no method has.
    """
    learner, tasks, raw = subject.learner, sources.own, sources.raw
    found = [learner_itself(learner, tasks)]

    def drawn(source: TaskSource) -> Callable[[int], Episode]:
        def draw(shots: int) -> Episode:
            return first_shots(source.draw(task_seeds(_VALIDATION_TASKS, generator(seed, VALIDATE))), shots)

        return draw

    features = features_of(learner, tasks)
    if features is not None:
        make = fine_tuned(learner, tasks.target.loss)
        about = "the learner's network with a new head, trained as a whole on the support set"
        choose = choice(make, sources.validation[0], drawn(sources.validation[0]))
        found.append(gradient_descent(FINE_TUNING, about, make, tasks, choose))
    if raw is tasks or raw.modality.kind == "pictures":
        make = untrained(learner, _untrained_recipe(subject.recipe, raw), raw)
        what = "the same network" if raw is tasks else f"a small network ({_SMALL['model']}) on the pictures"
        about = f"{what}, untrained until it learns the support set"
        choose = choice(make, sources.validation[1], drawn(sources.validation[1]))
        found.append(gradient_descent(SCRATCH, about, make, raw, choose))
    found += plain_baselines(raw)
    if features is not None:
        found += baselines(tasks, "features", "the inputs of the head of the learner's network", features)
    found = [one for one in found if not one.name.startswith(_DROPPED)]
    if chosen is None:
        return found
    wanted = [one.strip() for one in chosen.split(",")]
    if strange := [one for one in wanted if not any(one in method.name for method in found)]:
        raise UsageError(f"no method is called {strange[0]!r}; there are: {'; '.join(one.name for one in found)}")
    return [one for one in found if one is found[0] or any(name in one.name for name in wanted)]
