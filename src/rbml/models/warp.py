"""Warp layers: learned across tasks, they precondition the gradients of the layers that a task adapts."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from rbml.errors import UsageError


class Warped(nn.Module):
    """A layer followed by a linear map of its outputs that starts as the identity.

    Parameters: those of the layer, as ``layer.*``, and ``warp.weight``. The latter must not be adapted:
    ``adapt="!*.warp.*"``.
    """

    def __init__(self, layer: nn.Linear | nn.Conv2d) -> None:
        """Wrap a layer; the warp of a convolution is a 1 x 1 convolution."""
        super().__init__()
        self.layer = layer
        like = layer.weight
        if isinstance(layer, nn.Linear):
            self.warp: nn.Module = nn.Linear(layer.out_features, layer.out_features, bias=False)
            start = torch.eye(layer.out_features)
        else:
            self.warp = nn.Conv2d(layer.out_channels, layer.out_channels, 1, bias=False)
            start = torch.eye(layer.out_channels)[:, :, None, None]
        self.warp.weight = nn.Parameter(start.to(like))

    def forward(self, x: Tensor) -> Tensor:
        """Return the warped outputs of the layer, of the same shape."""
        output: Tensor = self.warp(self.layer(x))
        return output


def warped(model: nn.Module, keep: str = "head") -> nn.Module:
    """Return a copy of a model with a warp after every linear layer and convolution.

    Lee and Choi 2018 (T-nets, arXiv:1801.05558); Flennerhag et al. 2020 (WarpGrad, arXiv:1909.00025). The function that
    the model computes is unchanged at the start; the names of its layers get ``.layer`` after them.

    Args:
        model: the model; it is left untouched.
        keep: the layer that gets no warp.

    Raises:
        UsageError: if the model has no other linear layer or convolution.
    """
    own = copy.deepcopy(model)
    found = [
        name
        for name, layer in own.named_modules()
        if isinstance(layer, nn.Linear | nn.Conv2d) and name not in ("", keep)
    ]
    if not found:
        raise UsageError(f"a model needs a linear layer or a convolution besides {keep!r} to be warped")
    for name in found:
        owner, _, leaf = name.rpartition(".")
        layer = own.get_submodule(name)
        assert isinstance(layer, nn.Linear | nn.Conv2d)
        setattr(own.get_submodule(owner), leaf, Warped(layer))
    return own
