"""How many labelled examples a learner needs, beside what needs no learning across tasks: a metric against shots.

All methods see the same tasks. The support set of k shots is part of that of more, and the queries are the same
everywhere, so that the differences between two methods, and between two numbers of shots, are paired.

Shapes: B tasks, n examples of one task, K the largest number of shots.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from rbml.data.batch import rows
from rbml.errors import UsageError
from rbml.recipe.streams import TEST
from rbml.tasks import Episode, generator, task_seeds
from rbml.training import files
from rbml.training.evaluator import Score, groups_of
from rbml.training.rivals import LEARNER, Chosen, Method

CHUNK = 10
"""So many tasks are measured at a time: a run that is stopped loses no more."""


class Curve(NamedTuple):
    """What is measured.

    Attributes:
        methods: the learner, which is :data:`rbml.training.rivals.LEARNER`, and what it is compared with.
        shots: the numbers of support examples (per class, where there are classes), rising.
        episodes: how many tasks.
        seed: which tasks.
        identity: everything else that the values depend on, as plain values: the learner's weights, the source ...
    """

    methods: Sequence[Method]
    shots: Sequence[int]
    episodes: int
    seed: int
    identity: dict[str, Any]


@dataclass
class Cell:
    """The values of one method with one number of shots, as they are kept in a file.

    Attributes:
        values: the metric of each task that was measured, in the order of the tasks.
        chosen: what the method chose on validation tasks: its learning rate and number of steps.
    """

    values: list[float]
    chosen: Chosen | None = None


class Store:
    """The folder that keeps what was measured, one small file per method and number of shots."""

    def __init__(self, folder: Path, curve: Curve) -> None:
        """Point to a folder, which is created when the first values are written."""
        self.folder, self.curve = folder, curve

    def path(self, method: Method, shots: int) -> Path:
        """Return the file of a cell; its name is a checksum of all that its values depend on."""
        curve = self.curve
        what = {"method": method.name, "shots": shots, "most": max(curve.shots), "seed": curve.seed, **curve.identity}
        digest = hashlib.sha256(json.dumps(what, sort_keys=True).encode()).hexdigest()[:16]
        return self.folder / "values" / f"{digest}.json"

    def read(self, method: Method, shots: int) -> Cell:
        """Return what is known of a cell; empty if nothing is. A file that was damaged is measured again."""
        try:
            content = json.loads(self.path(method, shots).read_text())
            chosen = content["chosen"]
            return Cell([float(one) for one in content["values"]], None if chosen is None else Chosen(**chosen))
        except (OSError, ValueError, KeyError, TypeError):
            return Cell([])

    def write(self, method: Method, shots: int, cell: Cell) -> None:
        """Keep a cell.

        Raises:
            RbmlError: if it cannot be written.
        """
        path = self.path(method, shots)
        with files.writing(path):
            path.parent.mkdir(parents=True, exist_ok=True)
        files.write_json(path, {"method": method.name, "shots": shots} | asdict(cell))


def measure(curve: Curve, store: Store, stop: Callable[[], bool] = lambda: False) -> Iterator[tuple[str, int, int]]:
    """Measure what the store does not have yet; all methods with few shots first.

    Args:
        curve: what is measured.
        store: where values are kept.
        stop: called after every few tasks; if it returns true, the measurement ends, and a later one goes on.

    Yields:
        The method, the shots, and how many tasks of these are newly done (or were known).
    """
    for shots in curve.shots:
        for method in curve.methods:
            cell = store.read(method, shots)
            if done := min(len(cell.values), curve.episodes):
                yield method.name, shots, done
            while len(cell.values) < curve.episodes:
                if stop():
                    return
                if cell.chosen is None and method.choose is not None:
                    yield method.name, shots, 0
                    cell.chosen = method.choose(shots)
                new = _some(curve, method, shots, len(cell.values), cell.chosen)
                cell.values += new
                store.write(method, shots, cell)
                yield method.name, shots, len(new)


def _some(curve: Curve, method: Method, shots: int, start: int, chosen: Chosen | None) -> list[float]:
    seeds = task_seeds(curve.episodes, generator(curve.seed, TEST))[start : start + CHUNK]
    found: list[float] = method.of(first_shots(method.tasks.draw(seeds), shots), chosen).tolist()
    return found


def first_shots(tasks: Episode, shots: int) -> Episode:
    """Return tasks with the first ``shots`` support examples of each class only, or of the task if it has no classes.

    Args:
        tasks: a stack of tasks with at least as many, all of the same form.
        shots: how many are kept.

    Raises:
        UsageError: if the tasks have masks: those of a mixture of sources are not all of the same form.
    """
    if tasks.support.mask:
        raise UsageError("the tasks of a mixture have unequal sizes: measure with one source of tasks at a time")
    y = tasks.support.y[0]
    if y.is_floating_point() or y.dim() != 1:
        places = torch.arange(min(shots, len(y)), device=y.device)
    else:
        alike = y[:, None] == y
        place = alike.tril(-1).sum(1)  # how many of the same class come before
        places = torch.nonzero(place < shots).flatten()
    return Episode(torch.func.vmap(lambda batch: rows(batch, places))(tasks.support), tasks.query)


def result(curve: Curve, store: Store) -> dict[str, Any]:
    """Return what is known by now as plain values: scores by method and shots, and comparisons with the learner.

    A comparison is a mean difference over the tasks that both were measured on, positive where the learner is better.
    """
    tasks, metric = curve.methods[0].tasks, curve.methods[0].tasks.target.metrics[0]
    groups = groups_of(tasks, curve.episodes, curve.seed, TEST)
    sign = 1.0 if metric.better == "higher" else -1.0
    found: list[dict[str, Any]] = []
    cells = {(method.name, shots): store.read(method, shots) for method in curve.methods for shots in curve.shots}
    for method in curve.methods:
        by_shots = []
        for shots in curve.shots:
            cell, own = cells[method.name, shots], cells[curve.methods[0].name, shots]
            values, learned = (torch.tensor(one.values[: curve.episodes]).double() for one in (cell, own))
            both = min(len(values), len(learned))
            by_shots.append(
                {
                    "shots": shots,
                    "score": _score(values, groups),
                    "learner_better_by": None
                    if method.name == LEARNER
                    else _score(sign * (learned[:both] - values[:both]), groups),
                    "chosen": None if cell.chosen is None else asdict(cell.chosen),
                }
            )
        found.append({"name": method.name, "about": method.about, "by_shots": by_shots})
    return {
        "metric": {"name": metric.name, "better": metric.better, "unit": metric.unit},
        "shots": list(curve.shots),
        "episodes": curve.episodes,
        "seed": curve.seed,
        "per_class": tasks.target.kind == "classes",
        "methods": found,
    }


def _score(values: Tensor, groups: Sequence[int] | None) -> dict[str, Any] | None:
    return asdict(Score.of(values, groups and groups[: len(values)])) if len(values) > 1 else None
