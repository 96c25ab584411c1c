"""Features of a frozen pretrained backbone, as a modality of their own: small models learn on them in seconds."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from rbml import backbones
from rbml.backbones import Backbone
from rbml.backbones.norm import folded
from rbml.data.batch import Inputs
from rbml.data.inputs.base import Modality, RawExamples, Shown
from rbml.data.kept_rows import KeptRows
from rbml.data.progress import tell
from rbml.devices import CPU, placed
from rbml.errors import DataError, UsageError

_BLOCK = 16
"""Examples that go through the backbone at once: more need more memory and are not faster on a processor."""

_SENTENCES = 256
"""The same of sentences, which the backbone divides by their length."""

_SHOWN = 8

_UNSEEN = ("frequencies", "text", "label")
"""What says how sentences are read from files, or counts words for baselines: no backbone sees it."""

_device: ContextVar[torch.device] = ContextVar("device", default=CPU)

E = TypeVar("E", bound=Any)


@dataclass(frozen=True)
class Embedded:
    """Features of a frozen backbone, stored as float32 ``(n, width)``: they are computed once, when inputs are read.

    Args:
        inner: how the backbone's inputs are read.
        backbone: its name, as :func:`rbml.backbones.load` takes it.
        fingerprint: a checksum of the weights that made the features: other weights are refused. Empty takes those
            that are installed.
        size: of pictures only: to this height and width they are scaled before they enter the backbone, where the
            inner modality reads them in another one; 0 means that they stay as they are.
        mean: the mean of each feature over the training examples; empty leaves the features as they are.
        std: their standard deviations, above zero: what is made ready is ``(feature - mean) / std``.

    Raises:
        UsageError: for a modality that the backbone cannot read, or means and deviations that do not fit together.
    """

    inner: Modality
    backbone: str
    fingerprint: str = ""
    size: int = 0
    mean: Sequence[float] = ()
    std: Sequence[float] = ()

    kind = "embedded"

    def __post_init__(self) -> None:
        """Convert the lists of a saved file to tuples; refuse what does not fit together."""
        for name in ("mean", "std"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
        if len(self.mean) != len(self.std) or not all(std > 0 for std in self.std):
            raise UsageError(
                f"features need a mean and a standard deviation above zero each, not {len(self.mean)} means and "
                f"{len(self.std)} deviations" + (f" down to {min(self.std)}" if self.std else "")
            )

    def standardised(self, features: Tensor) -> Embedded:
        """Return the same with the means and deviations of training features ``(n, width)``.

        Features of MiniLM have a spread of 0.05: a model whose first weights and rates are made for inputs of spread 1
        would hardly learn from them. A feature that is constant stays constant.
        """
        mean, std = features.double().mean(0), features.double().std(0, correction=0)
        std = torch.where(std > 1e-6 * mean.abs().clamp(min=1e-6), std, 1.0)
        return replace(self, mean=mean.tolist(), std=std.tolist())

    def read(self, raw: Sequence[Any]) -> Tensor:
        """Return the features of raw inputs, as the inner modality reads them.

        Raises:
            DataError: naming what cannot be read, or for other weights than those that the features are of.
        """
        return self._in_blocks(len(raw), lambda start, stop: self.inner.read(raw[start:stop]))

    def embed(self, stored: Inputs) -> Tensor:
        """Return the features ``(n, width)`` of inputs that the inner modality has read.

        Raises:
            DataError: for other weights than those that the features are of.
        """
        return self._in_blocks(_count(stored), lambda start, stop: _rows(stored, slice(start, stop)))

    def kept(self, stored: Inputs) -> Tensor:
        """Return the same as :meth:`embed`, up to rounding, and keep the features of each example for the next time.

        The features of a sentence differ in the last digit with the sentences that go through the backbone beside it
        (by at most 1.6e-7 for MiniLM, whose features are of length 1).

        Raises:
            DataError: for other weights than those that the features are of.
        """
        keys = self._keys(stored)
        seen = {name: value for name, value in self.inner.spec().items() if name not in _UNSEEN}
        how = hashlib.sha256(json.dumps([self.inner.kind, seen], sort_keys=True, default=str).encode())
        name = f"features-{self.backbone}-{self.fingerprint}-{self.size}-{how.hexdigest()[:16]}"
        rows = KeptRows(name, self.loaded().width)
        known = rows.read(list(dict.fromkeys(keys)))
        places: dict[bytes, int] = {}  # of what is new: of equal examples the first
        for place, key in enumerate(keys):
            if key not in known:
                places.setdefault(key, place)
        new, missing = list(places), torch.tensor(list(places.values()), dtype=torch.int64)

        def keep(start: int, found: Tensor) -> None:
            some = dict(zip(new[start : start + len(found)], found.float().numpy(), strict=True))
            known.update(some)
            rows.add(some)

        self._in_blocks(len(missing), lambda start, stop: _rows(stored, missing[start:stop]), keep)
        return torch.from_numpy(np.stack([known[key] for key in keys])) if keys else torch.empty(0, rows.width)

    def _keys(self, stored: Inputs) -> list[bytes]:
        """Return a checksum of every example."""
        leaves = [stored] if isinstance(stored, Tensor) else [stored[name] for name in sorted(stored)]
        facts = "".join(f"{tuple(leaf.shape[1:])} {leaf.dtype} " for leaf in leaves).encode()

        def key(rows: Sequence[Tensor]) -> bytes:
            total = hashlib.sha256(facts)
            for row in rows:
                total.update(row.contiguous().numpy().data)
            return total.digest()[:20]

        return [key(rows) for rows in zip(*leaves, strict=True)]

    def _in_blocks(
        self,
        total: int,
        stored: Callable[[int, int], Inputs],
        each: Callable[[int, Tensor], None] = lambda start, found: None,
    ) -> Tensor:
        """Return the features of so many inputs, of which a function returns those from one place to another.

        Args:
            total: how many.
            stored: returns inputs from one place up to another.
            each: called with the first place of a block and its features.
        """
        backbone, device, found = self.loaded(), _device.get(), []
        body = backbone.body.to(device)
        block = _SENTENCES if self.inner.kind == "text" else _BLOCK
        for start in range(0, total, block):
            ready = placed(self.inner.ready(stored(start, start + block)), device)
            if self.inner.kind == "pictures":
                ready = self._fitted(ready)
            with torch.no_grad():
                found.append((body(ready) if isinstance(ready, Tensor) else body(**ready)).cpu())
            each(start, found[-1])
            tell("features", min(start + block, total), total)
        return torch.cat(found).float() if found else torch.empty(0, backbone.width)

    def _fitted(self, pictures: Inputs) -> Tensor:
        """Return pictures in the size and with the channels that the backbone is for."""
        assert isinstance(pictures, Tensor)
        channels = self.loaded().facts.get("channels", pictures.shape[1])
        if pictures.shape[1] == 1 < channels:
            pictures = pictures.expand(-1, channels, -1, -1)
        if self.size not in (0, pictures.shape[-1]):
            side = (self.size, self.size)
            pictures = F.interpolate(pictures, side, mode="bicubic", antialias=True).clamp(0, 1)
        return pictures.contiguous(memory_format=torch.channels_last)

    def loaded(self) -> Backbone:
        """Return the backbone.

        Raises:
            DataError: if its weights are not those that the features are of.
            UsageError: if its package is not installed, or it reads another kind of inputs.
        """
        found, fingerprint = _loaded(self.backbone)
        if self.fingerprint and fingerprint != self.fingerprint:
            raise DataError(
                f"this was made with features of {self.backbone} with the weights {self.fingerprint}, but those that "
                f"are installed are {fingerprint} ({found.about}): install the former version, or train again"
            )
        if found.modality != self.inner.kind:
            raise UsageError(f"{self.backbone} is a backbone for {found.modality}, and these are {self.inner.kind}")
        return found

    def ready(self, stored: Inputs) -> Inputs:
        """Return the features ``(..., width)``, standardised if means are given."""
        if not self.mean:
            return stored
        assert isinstance(stored, Tensor)
        mean, std = (torch.tensor(each, dtype=torch.float64, device=stored.device) for each in (self.mean, self.std))
        return ((stored.double() - mean) / std).float()

    def show(self, stored: Inputs) -> Shown:
        """Return the first few features by number: the inputs themselves are not kept."""
        assert isinstance(stored, Tensor)
        rows = stored[:, :_SHOWN].tolist()
        return Shown("table", [{f"feature {place}": value for place, value in enumerate(row)} for row in rows])

    def spec(self) -> dict[str, Any]:
        """Return the inner modality, and the backbone with a checksum of its weights."""
        inner = {"kind": self.inner.kind, "spec": self.inner.spec()}
        spec = {"inner": inner, "backbone": self.backbone, "fingerprint": self.fingerprint, "size": self.size}
        return spec | ({"mean": list(self.mean), "std": list(self.std)} if self.mean else {})

    def facts(self) -> dict[str, Any]:
        """Return how many features there are."""
        return {"inputs": self.loaded().width}

    def find(self, places: Sequence[Path | str], labelled: bool) -> RawExamples:
        """Return the raw examples of places as the inner modality finds them.

        Raises:
            DataError: naming what cannot be used.
        """
        return self.inner.find(places, labelled)


@lru_cache(maxsize=2)
def _loaded(name: str) -> tuple[Backbone, str]:
    """Return a backbone, frozen, and the checksum of its weights; loading takes a second."""
    found = backbones.load(name)
    return replace(found, body=folded(found.body)), found.fingerprint()


def embedding(inner: Modality, backbone: str, size: int = 0) -> Embedded:
    """Return the modality of the features of a backbone, with the checksum of the weights that are installed.

    Args:
        inner: how the backbone's inputs are read.
        backbone: its name.
        size: as in :class:`Embedded`.

    Raises:
        UsageError: if the backbone is not known or not installed, or reads another kind of inputs.
        DataError: if its weights are damaged.
    """
    pictures = size if inner.kind == "pictures" and inner.facts()["size"] != size else 0
    found = Embedded(inner, backbone, _loaded(backbone)[1], pictures)
    found.loaded()
    return found


def reads(backbone: str) -> tuple[str, Mapping[str, Any]]:
    """Return the kind of modality that a backbone reads, and the options with which it works best.

    Raises:
        UsageError: if the backbone is not known or not installed.
        DataError: if its weights are damaged.
    """
    found = _loaded(backbone)[0]
    return found.modality, found.facts


def embedded(examples: E, backbone: str, size: int = 0) -> E:
    """Return examples with the features of a backbone in place of their inputs.

    The features are kept on disk (:mod:`rbml.data.kept_rows`), by the content of each example and the weights: a larger
    set, or another part of it, computes only what is new.

    Args:
        examples: a :class:`rbml.data.Labelled` or :class:`rbml.data.Grouped`.
        backbone: its name.
        size: as in :class:`Embedded`.

    Raises:
        UsageError: if the backbone is not known or not installed, or reads another kind of inputs.
        DataError: if its weights are damaged.
    """
    modality = embedding(examples.modality, backbone, size)
    about = f"{examples.about}; features of {backbone}"
    changed: E = examples._replace(x=modality.kept(examples.x), modality=modality, about=about)
    return changed


@contextmanager
def computed_on(device: torch.device) -> Iterator[None]:
    """Have the backbones compute features on a device; the features themselves come back to the processor."""
    token = _device.set(device)
    try:
        yield
    finally:
        _device.reset(token)


def _count(stored: Inputs) -> int:
    return len(stored) if isinstance(stored, Tensor) else len(next(iter(stored.values())))


def _rows(stored: Inputs, which: Tensor | slice) -> Inputs:
    if isinstance(stored, Tensor):
        return stored[which]
    return {name: leaf[which] for name, leaf in stored.items()}
