"""Gates: functions applied to the inputs of layers while the model sees the support set."""

from __future__ import annotations

import torch
from torch import Tensor

from rbml.errors import UsageError
from rbml.strategy.base import Gate, Values, part
from rbml.strategy.draws import uniform
from rbml.strategy.hyper import Hyper, as_hyper
from rbml.strategy.views import StepInfo

_SMALL = 1e-6
"""Keeps the logarithms finite for rates of 0 and 1."""


@part
def dropout(rate: float | Hyper = 0.2, layers: str = "head", temperature: float = 0.1, name: str = "dropout") -> Gate:
    r"""Drop inputs of layers at random in every inner step, smoothly, so that the rate can be learned.

    .. math:: x \leftarrow \frac{1 - z}{1 - \mathrm{rate}}\, x, \qquad z = \mathrm{sigmoid}\left(\frac1\tau \left(
              \log\frac{\mathrm{rate}}{1 - \mathrm{rate}} + \log\frac{u}{1 - u}\right)\right), \qquad u \sim U(0, 1)

    Source: Gal, Hron, Kendall 2017 (Concrete dropout), arXiv:1705.07832; tau is the temperature. With ``layers="head"``
    it drops features in front of the head. Every example has its own u. For images ``(n, C, H, W)`` whole feature maps
    are dropped (Tompson et al. 2015, arXiv:1411.4280). u is a function of the task's key, the step and the layer's name
    (:func:`rbml.strategy.uniform`), so that an engine that evaluates a step twice drops the same inputs. Derivatives
    are taken for the u that was drawn. Nothing is dropped for queries or in the adapted model. One difference from the
    paper: it also regularises the rate by a prior; here the query loss alone decides.

    Args:
        rate: the fraction that is dropped, from 0 to 1; learn it with ``Hyper(0.2, bounds=(0, 1))``: one rate for all
            layers or one per layer (the one that belongs to the layer's weight).
        layers: a pattern of names of layers with adapted parameters.
        temperature: how smooth the dropping is; close to 0 it becomes PyTorch's dropout, and the rate is hard to learn.
        name: the name of the part in the strategy; two parts with different names drop different inputs.

    Raises:
        UsageError: if the temperature is not above zero, or, in use, if no layer matches or the rate has one value per
            element.
    """
    if temperature <= 0:
        raise UsageError(f"{name}: the temperature must be above 0, not {temperature}")

    def dropped(values: Values, inputs: Tensor, *, layer: str, at: StepInfo) -> Tensor:
        p = next(iter(values["rate"].values()))
        if p.dim():
            raise UsageError(f"{name}: a layer has one rate: use per='all', 'layer' or 'tensor', not 'element'")
        # Neighbouring pixels are correlated, so one draw per feature map decides about all of its pixels.
        unit = inputs[:, :, :1, :1] if inputs.dim() == 4 else inputs
        u = uniform(at, f"{name}/{layer}", unit)
        z = torch.sigmoid((_logit(p) + _logit(u)) / temperature)
        return inputs * ((1 - z) / (1 - p))

    return Gate(name, {"rate": as_hyper(rate)}, layers, dropped, random=True)


def _logit(p: Tensor) -> Tensor:
    return torch.log(p + _SMALL) - torch.log(1 - p + _SMALL)
