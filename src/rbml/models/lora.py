"""Low-rank adaptation: a large trained layer stays as it is, and a product of two small matrices is learned."""

from __future__ import annotations

import copy
from typing import Any

from torch import Tensor, nn

from rbml.errors import UsageError


class LowRank(nn.Module):
    r"""A layer that stays as it is, plus a low-rank change of it that starts at zero.

    .. math:: y = W x + b + B A x, \qquad A \in R^{r \times d},\; B \in R^{k \times r},\; B = 0 \text{ at the start}

    Of a convolution, A is one of the same kernel, stride and padding to r channels, and B one of 1 x 1.

    Args:
        layer: the layer, which is put in as it is.
        rank: r.
    """

    def __init__(self, layer: nn.Linear | nn.Conv2d, rank: int) -> None:
        """Build A and B beside the layer; the layer's own parameters are not trained any more."""
        super().__init__()
        self.layer = layer.requires_grad_(False)
        down: Any = copy.deepcopy(layer)  # a subclass may pad in a way of its own
        down.bias = None
        down.weight = nn.Parameter(layer.weight.new_empty(rank, *layer.weight.shape[1:]))
        nn.init.kaiming_uniform_(down.weight, a=5**0.5)
        if isinstance(layer, nn.Linear):
            down.out_features = rank
            up: nn.Module = nn.Linear(rank, layer.out_features, bias=False)
        else:
            down.out_channels = rank
            up = nn.Conv2d(rank, layer.out_channels, 1, bias=False)
        nn.init.zeros_(up.get_parameter("weight"))
        self.down, self.up = down, up.to(layer.weight)

    def forward(self, x: Tensor) -> Tensor:
        """Return the outputs of the changed layer, of the same shape as the layer's own."""
        output: Tensor = self.layer(x) + self.up(self.down(x))
        return output


def lora(model: nn.Module, rank: int = 4, keep: str = "head") -> nn.Module:
    """Return a copy of a model of which only low-rank changes, and the head, are trained and adapted.

    Hu et al. 2021 (arXiv:2106.09685), whose scale alpha / r is 1 here. Every linear layer and every convolution without
    groups, but for the head, is changed by two small layers ``down`` and ``up`` beside it; all other parameters
    stay as they are. At the start the function is that of the model.

    Args:
        model: the model; it is left untouched.
        rank: of the changes.
        keep: the name of the head, which is trained whole.

    Raises:
        UsageError: if the rank is below one, or the model has no layer to change.

    >>> small = lora(nn.Sequential(nn.Linear(8, 8), nn.Tanh(), nn.Linear(8, 2)), rank=2, keep="2")
    >>> [name for name, leaf in small.named_parameters() if leaf.requires_grad]
    ['0.down.weight', '0.up.weight', '2.weight', '2.bias']
    """
    if rank < 1:
        raise UsageError(f"the rank of LoRA must be at least 1, not {rank}")
    own = copy.deepcopy(model)
    found = [name for name, layer in own.named_modules() if _is_changed(own, name, layer) and name != keep]
    if not found:
        raise UsageError(f"LoRA changes linear layers and convolutions, of which the model has none besides {keep!r}")
    for name, leaf in own.named_parameters():
        if name.rpartition(".")[0] != keep:
            leaf.requires_grad_(False)
    for name in found:
        owner, _, last = name.rpartition(".")
        layer: Any = own.get_submodule(name)
        setattr(own.get_submodule(owner), last, LowRank(layer, rank))
    return own


def _is_changed(model: nn.Module, name: str, layer: nn.Module) -> bool:
    """Return whether a layer is changed: PyTorch's attention reads the weights of its own last layer directly."""
    if isinstance(model.get_submodule(name.rpartition(".")[0]), nn.MultiheadAttention):
        return False
    return isinstance(layer, nn.Linear) or (isinstance(layer, nn.Conv2d) and layer.groups == 1)
