"""Changed pictures as a part of the strategy, so that the strength of the changes can be learned."""

from __future__ import annotations

import math
from collections.abc import Sequence

from torch import Tensor

from rbml import random
from rbml.data.augment import warped
from rbml.errors import UsageError
from rbml.strategy.base import Gate, Values, part
from rbml.strategy.hyper import Hyper, as_hyper
from rbml.strategy.views import StepInfo


@part
def warp_pictures(
    strength: float | Hyper = 0.3, layers: str = "*conv*", shape: Sequence[int] = (), name: str = "warp_pictures"
) -> Gate:
    r"""Turn, scale, slant, shift and bend the pictures of every inner step at random, with a learnable strength.

    .. math:: x'(p) = x(p + s\, v_u(p)) \quad \text{(to first order in s)}

    with the strength s, places p in the picture, and a random smooth field of shifts v, the usual one for s = 1: up to
    10 degrees, 15 % of the size of each side, a tenth of the width, and the bends of a hand
    (:func:`rbml.data.augment.warped`). Every picture has its own draw u, a function of the task's key, the step and the
    name, so that an engine that evaluates a step twice changes it in the same way. Derivatives are taken for the u that
    was drawn, through the bilinear interpolation. Queries and the adapted model see pictures as they are. The changes
    are those of :class:`rbml.data.augment.Augmentation`, whose strength is fixed; learning it by the loss after
    training is Hataya et al. 2022 (Meta Approach to Data Augmentation Optimization, arXiv:2006.07965).

    Args:
        strength: how large the changes are; learn it with ``Hyper(0.3, bounds=(0, None))``.
        layers: a pattern that names the one layer with adapted parameters whose inputs are the pictures
            ``(n, c, h, w)``: usually the first convolution.
        shape: ``(c, h, w)``, where the layer sees flattened pictures ``(n, c h w)``, as the first one of an MLP does.
        name: the name of the part in the strategy.

    Raises:
        UsageError: in use, if the inputs of the layer are not pictures, or the strength has one value per element.
    """

    def changed(values: Values, inputs: Tensor, *, layer: str, at: StepInfo) -> Tensor:
        strength = next(iter(values["strength"].values()))
        flat = shape and inputs.dim() == 2 and inputs.shape[1] == math.prod(shape)
        pictures = inputs.view(-1, *shape) if flat else inputs
        if pictures.dim() != 4 or strength.dim():
            raise UsageError(
                f"{name}: it needs pictures (n, channels, height, width) and one strength, and the inputs of {layer} "
                f"are {tuple(inputs.shape)} and the strength is {tuple(strength.shape)}: name the layer that sees the "
                "pictures, with shape=(channels, height, width) if it sees them flattened, and use per='all'"
            )
        assert at.key is not None, "a part that draws random numbers says so: random=True"
        return warped(pictures, random.fold(at.key, at.t), strength, f"{name}/{layer}").view(inputs.shape)

    return Gate(name, {"strength": as_hyper(strength)}, layers, changed, random=True)
