"""Gates: what the inputs of layers come through while the support set passes."""

from __future__ import annotations

import torch
from torch import Tensor

from rbml.errors import UsageError
from rbml.strategy.base import Gate, StepInfo, Values, part
from rbml.strategy.draws import uniform
from rbml.strategy.hyper import Hyper, as_hyper

_SMALL = 1e-6
"""Keeps the logarithms of a rate finite."""


@part
def dropout(rate: float | Hyper = 0.2, layers: str = "head", temperature: float = 0.1, name: str = "dropout") -> Gate:
    r"""Drop inputs of layers at random in every inner step, so softly that the rate can be learned.

    .. math:: x \leftarrow \frac{1 - z}{1 - \mathrm{rate}}\, x, \qquad z = \mathrm{sigmoid}\left(\frac1\tau \left(
              \log\frac{\mathrm{rate}}{1 - \mathrm{rate}} + \log\frac{u}{1 - u}\right)\right), \qquad u \sim U(0, 1)

    Source: Gal, Hron, Kendall 2017 (Concrete dropout), arXiv:1705.07832; the temperature is tau. With ``layers="head"``
    it drops features before the head. Every example has its own u; of pictures ``(n, C, H, W)`` whole maps are dropped
    (Tompson et al. 2015, arXiv:1411.4280). u is a function of the task's key, the step and the layer's name
    (:func:`rbml.strategy.uniform`), so that an engine that takes a step twice drops the same; the derivatives are those
    for the u that was drawn. The queries, and the adapted model, see all inputs. Differs: the paper also pulls the rate
    by a prior; here it is learned by the query loss alone.

    Args:
        rate: how much is dropped, from 0 to 1; learn it with ``Hyper(0.2, bounds=(0, 1))``, one for all or one a layer
            (that of the layer's weight).
        layers: a pattern of names of layers with adapted parameters.
        temperature: how soft; towards 0 it becomes dropout as PyTorch has it, and the rate hard to learn.
        name: what it is filed under; two of them with other names drop other inputs.

    Raises:
        UsageError: if no layer matches, the temperature is not above zero, or a rate has a number an element.
    """
    if temperature <= 0:
        raise UsageError(f"{name}: the temperature must be above 0, not {temperature}")

    def passed(values: Values, inputs: Tensor, *, layer: str, at: StepInfo) -> Tensor:
        p = next(iter(values["rate"].values()))
        if p.dim():
            raise UsageError(f"{name}: a layer has one rate: take per='all', 'layer' or 'tensor', not 'element'")
        unit = inputs[:, :, :1, :1] if inputs.dim() == 4 else inputs
        u = uniform(at, f"{name}/{layer}", unit)
        z = torch.sigmoid((_logit(p) + _logit(u)) / temperature)
        return inputs * ((1 - z) / (1 - p))

    return Gate(name, {"rate": as_hyper(rate)}, layers, passed, random=True)


def _logit(p: Tensor) -> Tensor:
    return torch.log(p + _SMALL) - torch.log(1 - p + _SMALL)
