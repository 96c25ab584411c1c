"""What a pretrained backbone is: a network from inputs to features, with the way its inputs are read."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import nn


@dataclass(frozen=True)
class Backbone:
    """A network that was trained on other data, without its last layer.

    Attributes:
        name: what ``backbones.load`` makes it from, such as ``"efficientnet_lite0"`` or ``"timm:resnet18"``.
        body: in eval mode, from inputs that the modality made ready ``(n, ...)`` to features ``(n, width)``; it
            normalises its inputs itself. A body of text takes its inputs as keyword arguments.
        width: the number of features.
        modality: the kind of its inputs, a name of :data:`rbml.data.inputs.ALL`.
        facts: the options of that modality with which it works best, such as ``{"size": 160, "channels": 3}``.
        about: where its weights come from, and their licence.
    """

    name: str
    body: nn.Module
    width: int
    modality: str
    facts: Mapping[str, Any] = field(default_factory=dict)
    about: str = ""

    def fingerprint(self) -> str:
        """Return a checksum of all weights: features of other weights must not be mistaken for these."""
        total = hashlib.sha256()
        for name, leaf in sorted(self.body.state_dict().items()):
            total.update(name.encode())
            total.update(leaf.detach().cpu().contiguous().numpy().tobytes())
        return total.hexdigest()[:16]
