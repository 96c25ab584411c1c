"""All examples of a known source, for a training job or for rating their labels."""

from __future__ import annotations

from inspect import signature
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from rbml import catalogue, data
from rbml.data import Labelled
from rbml.data.inputs import Modality
from rbml.data.inputs.embedded import embedded
from rbml.errors import DataError, UsageError
from rbml.recipe import protocol

FILES = ("folder", "table", "text")
"""The sources of :mod:`rbml.data` that are a user's own files, which are named by their path instead."""

ENCODERS = {"pictures": "efficientnet_lite0", "text": "minilm"}
"""The frozen backbone on whose features a model is trained, unless another one is named."""


class Known(NamedTuple):
    """All parts of a known source together.

    Attributes:
        stored: inputs ``(N, ...)``, features of a backbone for pictures in colour and texts.
        y: classes ``(N,)``; the parts have classes of their own.
        names: of the classes.
        modality: how stored inputs are made ready.
        encoder: the backbone; empty for grey pictures, which are taken as they are.
        parts: the source as it was read, part by part, with its inputs as they were before the backbone.
        places: the part of each example and its number there.
    """

    stored: Tensor
    y: Tensor
    names: list[str]
    modality: Modality
    encoder: str
    parts: list[Labelled]
    places: list[str]

    def shown(self) -> list[str]:
        """Return each text in one line; empty for pictures."""
        if self.parts[0].modality.kind != "text":
            return []
        return [str(one) for part in self.parts for one in part.modality.show(part.x).values]


def is_known(place: str | Path) -> bool:
    """Return whether this names a known source.

    Raises:
        DataError: if it is neither that nor a file or folder.
    """
    name, path = str(place), Path(place).expanduser()
    if path.exists():
        return False
    known = [one for one in catalogue.names("data") if one not in FILES]
    if name in known:
        return True
    if not path.suffix:
        raise DataError(
            f"{name!r} is neither a file or folder nor a known source: name a table (with --target), a folder of "
            f"pictures, a file of texts, or one of {', '.join(known)}."
        )
    return False


def known_source(name: str, encoder: str = "", root: str | None = None) -> Known:
    """Return all parts of a known source together.

    Args:
        name: of the source.
        encoder: the frozen backbone for pictures and texts; empty means the usual one, and the pixels themselves for
            grey pictures.
        root: where the source is looked for.

    Raises:
        UsageError: for a source of real values.
    """
    parts = _parts(name, encoder, root)
    first = parts[0][1]
    if not isinstance(first, Labelled):
        raise UsageError(f"{name} has real values in groups, and labels that name classes are needed: name another one")
    kind = first.modality.kind
    colour = kind == "pictures" and first.modality.facts().get("channels") == 3
    chosen = encoder or (ENCODERS[kind] if kind == "text" or colour else "")
    size = int(protocol.facts(chosen).get("size", 0)) if kind == "pictures" else 0
    seen = [embedded(examples, chosen, size) if chosen else examples for _, examples in parts]
    y, names, places = [], list[str](), list[str]()
    for part, examples in parts:
        y.append(examples.y + len(names))
        names += examples.names
        places += [f"{name} {part} {place}" for place in range(len(examples.y))]
    stored = torch.cat([one.x for one in seen])
    return Known(stored, torch.cat(y), names, seen[0].modality, chosen, [one for _, one in parts], places)


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
