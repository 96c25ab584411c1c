"""Tasks as Keras takes them: a pair (support, query), each a pair of arrays (x, y) with the tasks in front."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np

from rbml.errors import UsageError
from rbml.tasks import generator, task_seeds

Pair = tuple[Any, Any]


class Drawn(keras.utils.PyDataset):  # type: ignore[misc]  # Keras has no types
    """Batches of tasks of a task source (:class:`rbml.tasks.TaskSource`): other tasks in every step and epoch.

    The same seed always gives the same tasks.

    Args:
        source: where tasks come from.
        tasks: tasks per step.
        steps: steps per epoch.
        shape: of one input of the model.
        seed: of the tasks.
    """

    def __init__(self, source: Any, tasks: int, steps: int, shape: tuple[int | None, ...], seed: int = 0) -> None:
        """Keep what to draw."""
        super().__init__()
        self.source, self.tasks, self.steps, self.shape, self.seed = source, tasks, steps, shape, seed
        self.epoch = 0

    def __len__(self) -> int:
        """Return the steps of an epoch."""
        return self.steps

    def __getitem__(self, step: int) -> tuple[Pair, Pair]:
        """Return the tasks of one step."""
        seeds = task_seeds(self.tasks, generator(self.seed, self.epoch * self.steps + step))
        return pairs(self.source.draw(seeds), self.shape)

    def on_epoch_end(self) -> None:
        """Go on to the tasks of the next epoch."""
        self.epoch += 1


def is_source(given: Any) -> bool:
    """Return whether tasks are drawn from it."""
    return callable(getattr(given, "draw", None))


def is_tasks(given: Any) -> bool:
    """Return whether it is a stack of tasks of rbml: ``Episodes``, or a ``Stream``."""
    return hasattr(given, "query") and (hasattr(given, "support") or hasattr(given, "steps"))


def pairs(tasks: Any, shape: tuple[int | None, ...]) -> tuple[Pair, Pair]:
    """Return a stack of tasks of rbml as arrays: ``((x, y), (x, y))``, the support sets and the queries.

    Args:
        tasks: ``Episodes`` or a ``Stream``.
        shape: of one input of the model; channels move behind the other axes if the model has them there.

    Raises:
        UsageError: if the tasks have masks or inputs of several parts.
    """
    support = tasks.steps if hasattr(tasks, "steps") else tasks.support
    for batch in (support, tasks.query):
        if batch.mask or isinstance(batch.x, dict):
            what = "inputs of several parts" if isinstance(batch.x, dict) else "masks (tasks of unequal size)"
            raise UsageError(
                f"MetaModel takes tasks of one input array and equal size, and these have {what}: use KERAS_BACKEND="
                "torch and Learner(rbml.keras.from_keras(model), ...)"
            )
    query = tasks.query
    return (_inputs(support.x, shape), support.y.numpy()), (_inputs(query.x, shape), query.y.numpy())


def _inputs(x: Any, shape: tuple[int | None, ...]) -> Any:
    found = np.asarray(x)
    own = found.shape[-len(shape) :]
    fits = all(wanted in (None, size) for wanted, size in zip(shape, own, strict=True))
    moved = (*own[1:], own[0])
    if not fits and all(wanted in (None, size) for wanted, size in zip(shape, moved, strict=True)):
        return np.moveaxis(found, -len(shape), -1)
    return found
