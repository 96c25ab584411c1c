"""Labelled examples to rate: from a user's own files, or a known source."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from rbml.data.inputs import Embedded, Shown
from rbml.errors import DataError, UsageError
from rbml.training.tune.job_data import JobData, read
from rbml.training.tune.known import is_known, known_source
from rbml.training.tune.rating import FEWEST


class Rateable(NamedTuple):
    """Examples whose labels can be rated.

    Attributes:
        x: inputs ``(N, ...)``, features of a backbone for pictures in colour and texts.
        y: classes ``(N,)``.
        names: of the classes.
        places: where each example is: its file, its file and line, or its part and number in a known source.
        shown: each example in one line; empty where its place says as much.
        draw: pictures at the given places of the list as a report draws them; ``None`` if the examples are none.
    """

    x: Tensor
    y: Tensor
    names: list[str]
    places: list[str]
    shown: list[str]
    draw: Callable[[Sequence[int]], Shown] | None


def rateable(
    place: str, target: str = "", classes: bool = False, encoder: str = "", root: str | None = None
) -> Rateable:
    """Read a table, a folder of pictures by class, labelled texts, or a known source by its name.

    Args:
        place: a path as for :func:`rbml.training.tune.job_data.read`, or a name of ``rbml list data``.
        target: of a table: the column of the labels.
        classes: whether a column of numbers names classes.
        encoder: the frozen backbone for pictures and texts; empty means the usual one, and the pixels themselves for
            the grey pictures of a known source.
        root: where a known source is looked for.

    Raises:
        UsageError: for real values, or options that do not fit.
        DataError: naming the line or file that cannot be used, or a class with too few examples.
    """
    if is_known(place):
        if target or classes:
            raise UsageError(f"--target and --classes are for tables, and {place} is a known source: leave them out")
        found = _known(place, encoder, root)
    else:
        found = _own(read(place, target, classes, encoder, None), target)
    sizes = torch.bincount(found.y, minlength=len(found.names)).tolist()
    if few := [f"{name!r} ({size})" for name, size in zip(found.names, sizes, strict=True) if size < FEWEST]:
        listed = ", ".join(few[:3]) + (f" and {len(few) - 3} more" if len(few) > 3 else "")
        raise DataError(
            f"{place} has fewer than {FEWEST} examples of the class {listed}: labels of so small a class cannot be "
            "judged. Add examples, or take the class out."
        )
    return found


def _own(job: JobData, target: str) -> Rateable:
    if job.setting.target.kind != "classes":
        raise UsageError(
            f"rbml rate judges labels that name classes, and the column {target!r} holds numbers. If its numbers name "
            "classes, add --classes. For real values look at the largest residuals of a model (rbml tune makes one)"
        )
    modality = job.setting.modality
    if not (isinstance(modality, Embedded) and modality.inner.kind == "pictures"):
        return Rateable(job.examples.x, job.examples.y, job.names, job.places, job.shown, None)
    inner = modality.inner

    def draw(places: Sequence[int]) -> Shown:
        return inner.show(inner.read([job.raw[place] for place in places]))

    return Rateable(job.examples.x, job.examples.y, job.names, job.places, [], draw)


def _known(name: str, encoder: str, root: str | None) -> Rateable:
    source = known_source(name, encoder, root)
    x = source.modality.ready(source.stored)
    assert isinstance(x, Tensor)
    first = source.parts[0].modality

    def draw(chosen: Sequence[int]) -> Shown:
        return first.show(torch.cat([part.x for part in source.parts])[torch.tensor(list(chosen))])

    drawn = draw if first.kind == "pictures" else None
    return Rateable(x.flatten(1).float(), source.y, source.names, source.places, source.shown(), drawn)
