"""The units of real targets: those of the user outside, and numbers of the size of one inside.

Shapes: n examples, d targets.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rbml.errors import UsageError


@dataclass(frozen=True)
class Units:
    r"""Where targets lie and how far they spread: a model learns :math:`(y - \mathrm{offset}) / \mathrm{scale}`.

    An inner learning rate that suits numbers of the size of one diverges on scores around 30 or prices around 10,000.

    Args:
        offset: one per target; one number for any number of targets.
        scale: likewise, above zero.

    Raises:
        UsageError: where these do not fit together.

    >>> units = Units((30.0,), (10.0,))
    >>> units.scaled(torch.tensor([[40.0]])), units.unscaled(torch.tensor([[1.0]]))
    (tensor([[1.]]), tensor([[40.]]))
    """

    offset: Sequence[float] = (0.0,)
    scale: Sequence[float] = (1.0,)

    def __post_init__(self) -> None:
        """Keep tuples, as a saved file gives lists; refuse what does not fit together."""
        for name in ("offset", "scale"):
            object.__setattr__(self, name, tuple(float(value) for value in getattr(self, name)))
        if not len(self.offset) == len(self.scale) > 0:
            raise UsageError(f"targets need an offset and a scale each, not {len(self.offset)} and {len(self.scale)}")
        if not all(np.isfinite([*self.offset, *self.scale])) or min(self.scale) <= 0:
            raise UsageError(f"offsets must be finite and scales above zero, not {self.offset} and {self.scale}")

    @classmethod
    def fitted(cls, values: NDArray[np.float64]) -> Units:
        """Return mean and standard deviation of training targets ``(rows, d)``; a constant target keeps its scale."""
        mean, std = values.mean(0), values.std(0)
        # A constant column has a deviation of some rounding errors, which must not become the unit.
        std = np.where(std > 1e-9 * np.abs(mean).clip(1e-300), std, 1.0)
        return cls(mean.tolist(), std.tolist())

    @property
    def plain(self) -> bool:
        """Whether nothing is changed."""
        return all(value == 0 for value in self.offset) and all(value == 1 for value in self.scale)

    def scaled(self, y: Tensor) -> Tensor:
        """Return targets in the user's units ``(..., d)`` as the model learns them.

        Raises:
            UsageError: for another number of targets.
        """
        if self.plain:
            return y
        self._check(y, y.shape[-1] if y.dim() else 0)
        # In double precision: a large offset would otherwise eat the digits of a small scale.
        return ((y.double() - self.like(y.double(), self.offset)) / self.like(y.double(), self.scale)).to(y.dtype)

    def unscaled(self, prediction: Tensor) -> Tensor:
        """Return a prediction or targets in the user's units.

        Args:
            prediction: ``(..., d)``, or ``(..., 2d)``: means and logarithms of variances.

        Raises:
            UsageError: for another number of targets.
        """
        if self.plain:
            return prediction
        d = len(self.offset)
        sure = d if prediction.shape[-1] == 2 * d else 0  # how many of the columns are logarithms of variances
        self._check(prediction, prediction.shape[-1] - sure)
        wide = prediction.double()
        scale = self.like(wide, self.scale)
        mean = wide[..., :d] * scale + self.like(wide, self.offset)
        return torch.cat([mean, wide[..., d:] + 2 * scale.log()] if sure else [mean], -1).to(prediction.dtype)

    def error(self, difference: Tensor) -> Tensor:
        """Return differences ``(..., d)`` of what the model learns in the user's units."""
        return difference if self.plain else difference * self.like(difference, self.scale)

    def spec(self) -> dict[str, Any]:
        """Return the options as plain values; nothing where they change nothing."""
        return {} if self.plain else {"offset": list(self.offset), "scale": list(self.scale)}

    def like(self, tensor: Tensor, values: Sequence[float]) -> Tensor:
        """Return numbers of this object as a tensor of the type and on the device of another."""
        return torch.tensor(tuple(values), dtype=tensor.dtype, device=tensor.device)

    def _check(self, tensor: Tensor, width: int) -> None:
        if width != len(self.offset):
            raise UsageError(
                f"there are offsets and scales for {len(self.offset)} targets, which need as many columns, not a "
                f"tensor of the shape {tuple(tensor.shape)}"
            )
