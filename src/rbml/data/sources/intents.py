"""What sources of sentences with intents share: class-disjoint folds, and sentences as labelled examples."""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import torch

from rbml.data.examples import Labelled
from rbml.data.inputs.text import Text
from rbml.errors import DataError

FOLDS = tuple(f"fold-{number}" for number in range(1, 6))
"""The splits of ProtAugment (Dopierre et al. 2021, arXiv:2105.12995): five random ones of the classes."""

PROTOCOL: list[tuple[dict[str, Any], dict[str, Any]]] = [
    ({}, {"meta_steps": 300, "tasks": 8, "outer_lr": 1e-4}),
    (
        {"encoder": [None], "model": ["conv4", "tfidf", "text_embedding"]},
        {"model": "tfidf", "algorithm": "r2d2", "outer_lr": 1e-2},
    ),
]
"""What differs from a recipe's defaults, which are for pictures. Pretrained features are destroyed by a high rate."""

_KEYS = {"train": "train", "val": "valid", "test": "test"}


def fold_classes(path: Path, fold: str) -> dict[str, list[str]]:
    """Return the classes of each part in one of ProtAugment's folds.

    Args:
        path: the file ``protaugment_splits.json``.
        fold: a name of :data:`FOLDS`.

    Raises:
        DataError: if the file cannot be used.
    """
    number = fold.removeprefix("fold-").zfill(2)
    labels = read_json(path, number, "labels")
    try:
        return {part: sorted(map(str, labels[key])) for part, key in _KEYS.items()}
    except (KeyError, TypeError) as error:
        raise DataError(f"{path} cannot be read as a class split: {error!r}.") from None


def read_json(path: Path, *keys: str) -> Any:
    """Return what a JSON file has at some keys.

    Raises:
        DataError: if it cannot be read, or does not have them.
    """
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        for key in keys:
            found = found[key]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path} cannot be read: {error!r}.") from None
    return found


def labelled(
    sentences: Sequence[tuple[str, str]],
    chosen: Sequence[str],
    training: Collection[str],
    modality: Text,
    origin: str,
) -> Labelled:
    """Return the sentences of some classes, read by a modality that knows how often each word occurs in training.

    Args:
        sentences: pairs of a text and its class.
        chosen: the classes to return, in this order.
        training: the classes whose sentences the frequencies are counted in.
        modality: how sentences are read.
        origin: where they come from, in words.

    Raises:
        DataError: for a class without sentences, or a text without words.
    """
    place = {name: index for index, name in enumerate(chosen)}
    kept = sorted(((place[name], text) for text, name in sentences if name in place), key=lambda pair: pair[0])
    if missing := set(chosen) - {chosen[index] for index, _ in kept}:
        raise DataError(f"the class {min(missing)!r} has no sentences ({origin}): is the file complete?")
    fitted = modality.fitted([text for text, name in sentences if name in training])
    x = fitted.read([text for _, text in kept])
    y = torch.tensor([index for index, _ in kept], dtype=torch.int64)
    return Labelled(x, y, list(chosen), f"{origin}: {len(chosen)} classes, {len(kept)} sentences", fitted)
