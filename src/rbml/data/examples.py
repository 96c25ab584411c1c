"""What a data source is, and the arrays that it returns, from which tasks are drawn."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol, TypeVar

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

from rbml import errors
from rbml.data.batch import Inputs
from rbml.data.inputs import Arrays
from rbml.data.inputs.base import Modality
from rbml.data.targets import REAL, Target
from rbml.devices import CPU, free_memory, placed

PARTS = ("train", "val", "test")


class Labelled(NamedTuple):
    """Examples with their classes.

    Attributes:
        x: stored inputs ``(N, ...)``, as the modality's ``read`` returns them; pictures are uint8
            ``(N, channels, height, width)``, and line drawings have **bright ink on a background of 0**, so that all
            sources look alike.
        y: ``(N,)`` int64, classes ``0 .. C-1``.
        names: the C class names, in the order of the labels.
        about: a sentence on where the examples come from, split included: it is written into the run folder.
        modality: how stored inputs are made ready.
        augment: the changes of :mod:`rbml.data.augment` that leave the class of such examples as it is, by name.
    """

    x: Any  # Inputs; a union would make everyone who has plain tensors test for a tree first
    y: Tensor
    names: list[str]
    about: str
    modality: Modality = Arrays()
    augment: tuple[str, ...] = ()

    @property
    def classes(self) -> int:
        """How many classes there are: C."""
        return len(self.names)


class Grouped(NamedTuple):
    """Examples with real-valued targets, in groups: one group (a patient, a machine, a customer) is one task.

    Attributes:
        x: stored inputs ``(N, ...)``, as the modality's ``read`` returns them.
        y: ``(N, d)`` floating point, in the units of the data; tasks have them as ``target.scaled`` makes them.
        groups: ``(N,)`` int64, groups ``0 .. G-1``.
        names: the G names of the groups, in the order of their numbers.
        about: a sentence on where the examples come from, split included: it is written into the run folder.
        modality: how stored inputs are made ready.
        order: ``(N,)`` floating point, a time for example; ``None`` where there is no order.
        target: what is predicted, with the units that the training groups decided.
        columns: the d names of the targets.
    """

    x: Inputs
    y: Tensor
    groups: Tensor
    names: list[str]
    about: str
    modality: Modality
    order: Tensor | None = None
    target: Target = REAL
    columns: Sequence[str] = ("value",)


Examples = Labelled | Grouped
"""What a source returns."""


E = TypeVar("E", Labelled, Grouped)


def kept_on(device: torch.device, examples: E) -> E:
    """Return examples on a device, where tasks are then gathered, if they take at most half of its free memory.

    Larger ones stay where they are, and a learner on the device is given one stack of tasks after another.
    """
    free = free_memory(device)
    size = sum(leaf.nbytes for leaf in tree_leaves((examples.x, examples.y)))
    if device == CPU or (free is not None and 2 * size > free):
        return examples
    return examples._replace(x=placed(examples.x, device), y=placed(examples.y, device))


class Source(Protocol):
    """A function that loads one part of one data set. The first line of its docstring is what ``rbml list`` shows."""

    __doc__: str | None

    def __call__(
        self, part: str, root: str | Path | None = None, *, split: str | None = None, seed: int = 0
    ) -> Examples:
        """Load the classes or the groups of a part.

        Args:
            part: ``"train"``, ``"val"`` or ``"test"``: they share no class and no group.
            root: the folder to look for data in, instead of ``$RBML_DATA``.
            split: which division of the classes into parts, if there are several; ``None`` for the usual one.
            seed: for what is drawn or divided at random; sources without randomness ignore it.

        Raises:
            UsageError: for a part or a split that does not exist.
            DataError: for data that is not there, or cannot be read.
        """
        ...


def check_part(part: str) -> None:
    """Raise a ``UsageError`` for a part that is not one of ``PARTS``."""
    if part not in PARTS:
        raise errors.unknown("part", part, PARTS)


def check_split(split: str | None, *splits: str) -> str:
    """Return the split, the first of ``splits`` for None; raise a ``UsageError`` for one that is not among them."""
    if split is None:
        return splits[0]
    if split not in splits:
        raise errors.unknown("split", split, splits)
    return split


def check_test_only(part: str, name: str, classes: int) -> None:
    """Raise a ``UsageError`` for a part other than ``"test"`` of a set with too few classes to learn from."""
    check_part(part)
    if part != "test":
        raise errors.UsageError(
            f"{name} has no part {part!r}: it has only {classes} classes, which are kept for testing. "
            "Learn on another source, such as glyphs or omniglot, and load this one's part 'test'."
        )
