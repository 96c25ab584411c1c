"""Any model of the library timm (R. Wightman, PyTorch Image Models), without its classifier."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from rbml.backbones.base import Backbone
from rbml.backbones.norm import with_frozen_norms
from rbml.errors import DataError, UsageError

FACTS = {"size": 224, "channels": 3}
"""The pictures for which most of them are, where a recipe says nothing else."""


class Normalised(nn.Module):
    """A network for pictures that are normalised by the mean and deviation of its training.

    Args:
        net: from normalised pictures to features.
        mean: of red, green and blue in 0 .. 1.
        std: their deviation.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, net: nn.Module, mean: tuple[float, ...], std: tuple[float, ...]) -> None:
        """Keep mean and deviation as buffers."""
        super().__init__()
        self.net = net
        self.register_buffer("mean", torch.tensor(mean).view(-1, 1, 1))
        self.register_buffer("std", torch.tensor(std).view(-1, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        """Map pictures ``(n, 3, h, w)`` in 0 .. 1 to features ``(n, width)``."""
        features: Tensor = self.net((x - self.mean) / self.std)
        return features


def load(more: str, weights: str = "hub") -> Backbone:
    """Any model of timm, timm:NAME (such as timm:resnet18): needs the package, and a network for its weights.

    Its batch norms keep the statistics of its training. timm needs torchvision, which must fit the installed PyTorch.

    Args:
        more: the name of the model in timm.
        weights: ``"hub"`` (downloaded once, by timm), ``"none"`` (at random), or a file of weights that timm can read.

    Raises:
        UsageError: if timm is not installed, or has no such model.
        DataError: if the weights cannot be had.
    """
    library = _library()
    if not more or not library.is_model(more):
        near = ", ".join(library.list_models(f"*{more.partition('.')[0][:6]}*")[:8]) if more else "timm:resnet18"
        raise UsageError(f"timm has no model named {more!r}; there is {near or 'a list at timm.list_models()'}")
    file = {} if weights in ("hub", "none") else {"checkpoint_path": str(_file(weights))}
    try:
        net = library.create_model(more, pretrained=weights == "hub", num_classes=0 if not file else None, **file)
    except (OSError, RuntimeError) as error:  # no network, an unknown tag, a file of another model
        raise DataError(
            f"the weights of timm:{more} cannot be had ({str(error).splitlines()[0]}): download them by other means "
            "and name the file (model.weights=FILE), or start at random (model.weights=none)"
        ) from error
    if file:
        net.reset_classifier(0)
    told = library.data.resolve_model_data_config(net)
    body = Normalised(with_frozen_norms(net.eval()), tuple(told["mean"]), tuple(told["std"]))
    facts = {"size": int(told["input_size"][-1]), "channels": int(told["input_size"][0])}
    about = f"{more} of timm {library.__version__}, weights: {weights}"
    return Backbone(f"timm:{more}", body.eval(), int(net.num_features), "pictures", facts, about)


def _library() -> Any:
    try:
        return importlib.import_module("timm")
    except ModuleNotFoundError as error:
        if error.name not in ("timm", "torchvision"):
            raise
        raise UsageError(f"models of timm need {error.name}: pip install 'rbml[timm]'") from None
    except RuntimeError as error:  # torchvision of another version than PyTorch
        raise UsageError(f"timm cannot be used here: {error}. Install the torchvision that fits PyTorch") from error


def _file(weights: str) -> Path:
    path = Path(weights).expanduser()
    if not path.is_file():
        raise DataError(f"there is no file of weights {weights}: name a file, or hub, or none")
    return path
