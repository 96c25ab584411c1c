"""Labelled examples to rate: from a user's own files, or a known source."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from inspect import signature
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from rbml import catalogue, data
from rbml.data import Labelled
from rbml.data.inputs import Embedded, Shown
from rbml.data.inputs.embedded import embedded
from rbml.errors import DataError, UsageError
from rbml.recipe import protocol
from rbml.training.tune.job_data import ENCODERS, JobData, read
from rbml.training.tune.rating import FEWEST

FILES = ("folder", "table", "text")
"""The sources of :mod:`rbml.data` that are a user's own files, which are named by their path instead."""


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
    if place in catalogue.names("data") and place not in FILES and not Path(place).exists():
        if target or classes:
            raise UsageError(f"--target and --classes are for tables, and {place} is a known source: leave them out")
        found = _known_source(place, encoder, root)
    else:
        path = Path(place).expanduser()
        if not path.exists() and not path.suffix:
            known = ", ".join(name for name in catalogue.names("data") if name not in FILES)
            raise DataError(
                f"{place!r} is neither a file or folder nor a known source: name a table (with --target), a folder of "
                f"pictures, a file of texts, or one of {known}."
            )
        found = _own(read(path, target, classes, encoder, None), target)
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


def _known_source(name: str, encoder: str, root: str | None) -> Rateable:
    """Return all parts of a known source together."""
    parts = _parts(name, encoder, root)
    first = parts[0][1]
    if not isinstance(first, Labelled):
        raise UsageError(f"rbml rate judges labels that name classes, and {name} has real values: name another source")
    kind = first.modality.kind
    colour = kind == "pictures" and first.modality.facts().get("channels") == 3
    chosen = encoder or (ENCODERS[kind] if kind == "text" or colour else "")
    size = int(protocol.facts(chosen).get("size", 0)) if kind == "pictures" else 0
    x, y, names, places, shown = [], [], list[str](), list[str](), list[str]()
    for part, examples in parts:
        seen = embedded(examples, chosen, size) if chosen else examples
        ready = seen.modality.ready(seen.x)
        x.append(ready.flatten(1).float())
        y.append(examples.y + len(names))
        names += examples.names
        places += [f"{name} {part} {place}" for place in range(len(examples.y))]
        if kind == "text":
            shown += [str(one) for one in examples.modality.show(examples.x).values]

    def draw(chosen: Sequence[int]) -> Shown:
        stored = torch.cat([examples.x for _, examples in parts]) if len(parts) > 1 else first.x
        return first.modality.show(stored[torch.tensor(list(chosen))])

    return Rateable(torch.cat(x), torch.cat(y), names, places, shown, draw if kind == "pictures" else None)


def _parts(name: str, encoder: str, root: str | None) -> list[tuple[str, Any]]:
    """Return the parts of a source that there are; some have one only."""
    own: dict[str, Any] = (
        {"tokenizer": encoder or ENCODERS["text"]} if "tokenizer" in signature(data.ALL[name]).parameters else {}
    )
    found: list[tuple[str, Any]] = []
    for part in ("train", "val"):
        try:
            found.append((part, data.load(name, part, root, **own)))
        except UsageError:  # a source that is for testing only
            continue
    return [*found, ("test", data.load(name, "test", root, **own))]
