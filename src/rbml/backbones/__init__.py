"""Pretrained backbones, one file each; ``ALL`` is the table of them. Their weights come from packages or files."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

from rbml.backbones import efficientnet_lite0, hf, minilm, timm
from rbml.backbones.base import Backbone
from rbml.backbones.sentence import Tokenizer
from rbml.errors import unknown

__all__ = ["ALL", "TOKENIZERS", "Backbone", "Tokenizer", "load", "tokenizer"]

ALL: dict[str, Callable[..., Backbone]] = {
    "efficientnet_lite0": efficientnet_lite0.load,
    "timm": timm.load,
    "minilm": minilm.load,
    "hf": hf.load,
}
"""By name, from what follows the colon (``"resnet18"`` in ``"timm:resnet18"``; often nothing) to the backbone."""


def load(name: str) -> Backbone:
    """Return a backbone with its weights.

    Args:
        name: a name of ``ALL``; some take more after a colon.

    Raises:
        UsageError: for an unknown name, or a package that is not installed.
        DataError: for weights that are not there, or are damaged.
    """  # noqa: DOC501  `unknown` returns the UsageError
    kind, _, more = name.partition(":")
    if kind not in ALL:
        raise unknown("backbone", name, ALL)
    return ALL[kind](more)


TOKENIZERS: dict[str, Callable[[str], Tokenizer]] = {"minilm": minilm.tokenizer, "hf": hf.tokenizer}
"""Of the backbones of text."""


@lru_cache(maxsize=4)
def tokenizer(name: str) -> Tokenizer:
    """Return the tokenizer of a backbone of text.

    Args:
        name: a name of ``TOKENIZERS``; some take more after a colon.

    Raises:
        UsageError: for an unknown name, or a package that is not installed.
        DataError: for a tokenizer that is not there, or is damaged.
    """  # noqa: DOC501  `unknown` returns the UsageError
    kind, _, more = name.partition(":")
    if kind not in TOKENIZERS:
        raise unknown("tokenizer", name, ["ngrams", "words", *TOKENIZERS])
    return TOKENIZERS[kind](more)
