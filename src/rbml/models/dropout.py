"""Dropout while training across tasks: a layer that drops only where the outer loop says so."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn

from rbml import random
from rbml.errors import UsageError


class Dropout(nn.Module):
    r"""Marks a place of a model where features are dropped at random while training across tasks.

    .. math:: x \leftarrow \frac{z}{1 - \mathrm{rate}}\, x, \qquad z \sim \mathrm{Bernoulli}(1 - \mathrm{rate})

    Source: Srivastava et al. 2014 (JMLR 15:1929); whole feature maps of pictures ``(n, C, H, W)`` as in Tompson et al.
    2015, arXiv:1411.4280. Called by itself it passes its input on. While a meta-gradient is taken, the learner drops
    its inputs, on the support set at every inner step and on the queries: z is a function of the task's key, the step
    and the layer's name, so that an engine that evaluates a step twice drops the same features. Evaluations and adapted
    models drop nothing. ``rbml.strategy.dropout`` is another thing: a part of the strategy, whose rate can be learned,
    and which stays when a task is learned.

    Args:
        rate: the share that is dropped, from 0 to below 1.

    Raises:
        UsageError: if the rate is not in this range.
    """

    def __init__(self, rate: float) -> None:
        """Remember the rate."""
        super().__init__()
        if not 0 <= rate < 1:
            raise UsageError(f"dropout must be from 0 to below 1, not {rate}")
        self.rate = rate

    def forward(self, x: Tensor) -> Tensor:
        """Return the input."""
        return x

    def dropped(self, x: Tensor, key: Tensor, name: str) -> Tensor:
        """Return the input with a share of its features (of pictures: maps) at zero, and the others larger.

        Args:
            x: ``(n, ...)``.
            key: an int64 scalar; the same one drops the same features.
            name: of the layer: others drop other features.
        """
        unit = x[:, :, :1, :1] if x.dim() == 4 else x
        kept = random.uniform(key, f"dropout/{name}", unit) >= self.rate
        return x * (kept.to(x.dtype) / (1 - self.rate))


Change = Callable[[Tensor], Tensor]


def dropouts(model: nn.Module) -> list[tuple[str, Dropout]]:
    """Return the places of a model where features are dropped, with their names; none where the rate is zero."""
    return [(name, layer) for name, layer in model.named_modules() if isinstance(layer, Dropout) and layer.rate]


def changes(model: nn.Module, key: Tensor) -> list[tuple[str, Change]]:
    """Return each place by name with the function that drops there, as :func:`rbml.autodiff.module.call` takes it."""

    def at(name: str, layer: Dropout) -> Change:
        return lambda x: layer.dropped(x, key, name)

    return [(name, at(name, layer)) for name, layer in dropouts(model)]
