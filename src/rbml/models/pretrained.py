"""Pretrained backbones as models like any other: adapted as a whole, by a pattern, by LoRA, or only their head."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from rbml import backbones
from rbml.backbones import Backbone
from rbml.models.lora import lora


class Pretrained(nn.Module):
    """A pretrained backbone, ``body``, and after it a linear ``head`` that starts at random.

    Args:
        body: from inputs to features ``(n, width)``.
        width: the number of features.
        outputs: the number of classes, or of regression targets.
    """

    def __init__(self, body: nn.Module, width: int, outputs: int) -> None:
        """Put a head on the body."""
        super().__init__()
        self.body = body
        self.head = nn.Linear(width, outputs)

    def forward(self, *inputs: Tensor, **named: Tensor) -> Tensor:
        """Map inputs ``(n, ...)`` to ``(n, outputs)``."""
        output: Tensor = self.head(self.body(*inputs, **named))
        return output


def with_head(backbone: Backbone, outputs: int, rank: int = 0) -> nn.Module:
    """Return a backbone with a head, as a model.

    Args:
        backbone: the backbone.
        outputs: the number of classes, or of regression targets.
        rank: of LoRA: only low-rank changes and the head are trained and adapted; 0 trains all weights.

    Raises:
        UsageError: if the rank is negative, or the backbone has no layer that LoRA changes.
    """
    model: Any = Pretrained(backbone.body, backbone.width, outputs)
    return lora(model, rank) if rank else model


def efficientnet_lite0(outputs: int, rank: int = 0, weights: str = "imagenet") -> nn.Module:
    """EfficientNet-Lite0 with ImageNet weights, and a head (Tan and Le 2019, arXiv:1905.11946): for photographs.

    Args:
        outputs: the number of classes, or of regression targets.
        rank: of LoRA (arXiv:2106.09685): only low-rank changes and the head are trained and adapted; 0 trains all.
        weights: ``"imagenet"``, or ``"none"`` to start at random.

    Raises:
        UsageError: for other weights, or if the package with the weights is not installed.
        DataError: if the weights are damaged.
    """
    return with_head(backbones.efficientnet_lite0.load("" if weights == "imagenet" else weights), outputs, rank)


def timm(outputs: int, name: str = "", rank: int = 0, weights: str = "hub") -> nn.Module:
    """Any model of the library timm, with a head, timm:NAME (Wightman 2019): rbml list backbones says how.

    Args:
        outputs: the number of classes, or of regression targets.
        name: of the model in timm, such as ``"resnet18"``; it is written after a colon.
        rank: of LoRA (arXiv:2106.09685): only low-rank changes and the head are trained and adapted; 0 trains all.
        weights: ``"hub"`` (downloaded once), ``"none"`` (at random), or a file of weights.

    Raises:
        UsageError: if timm is not installed, or has no such model.
        DataError: if the weights cannot be had.
    """
    return with_head(backbones.timm.load(name, weights), outputs, rank)
