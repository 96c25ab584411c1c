"""Pretrained backbones, one file each; ``ALL`` is the table of them. Their weights come from packages or files."""

from __future__ import annotations

from collections.abc import Callable

from rbml.backbones import efficientnet_lite0, timm
from rbml.backbones.base import Backbone
from rbml.errors import unknown

__all__ = ["ALL", "Backbone", "load"]

ALL: dict[str, Callable[..., Backbone]] = {
    "efficientnet_lite0": efficientnet_lite0.load,
    "timm": timm.load,
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
