"""The strategy of a training run that is tuned where nobody says which: many numbers around usual ones."""

from __future__ import annotations

import math
from collections.abc import Sequence

from torch import Tensor, nn

from rbml.data.batch import Inputs
from rbml.strategy import (
    Hyper,
    Part,
    Scalar,
    Strategy,
    chain,
    dropout,
    knots,
    l2,
    label_smoothing,
    momentum,
    sgd,
    warp_pictures,
)

RATE, DECAY, MOMENTUM, SMOOTHING, DROPPED, WARPED = 0.05, 1e-4, 0.9, 0.02, 0.02, 0.2

DROPS_FROM, WARPS_FROM = 180.0, 900.0
"""From so many seconds on there is time to compile a step that drops features, or warps pictures.

On one busy core compiling the runs of an MLP and their derivative took 16 s, with dropout 41 s; with warped pictures
the runs alone took 59 s. Operator by operator such steps take 1.5 to 2 times as long as those without.
"""


def usual_strategy(
    classes: bool, curve: int = 8, drops: str = "", pictures: str = "", shape: Sequence[int] = ()
) -> Strategy:
    """Return SGD whose rate, decay, schedule and momentum are learned; for classes also the label smoothing.

    One rate and one weight decay for every tensor, and a curve of factors along the run for each: more than 50 numbers
    for three layers.

    Args:
        classes: whether the targets are classes.
        curve: how many knots the curve of a tensor has.
        drops: a pattern of the layers in front of which features are dropped, at a learned rate per layer.
        pictures: the layer whose inputs are pictures, which are warped with a learned strength.
        shape: of one picture, where that layer sees them flattened.
    """
    more: list[Part] = []
    if classes:
        more.append(label_smoothing(Scalar(SMOOTHING, bounds=(0, 1))))
    if drops:
        more.append(dropout(Hyper(DROPPED, per="layer", bounds=(0, 1)), drops))
    if pictures:
        more.append(warp_pictures(Hyper(WARPED, bounds=(0, None)), pictures, shape))
    return chain(
        *more,
        l2(Hyper(DECAY, per="tensor", bounds=(0, None))),
        momentum(Hyper(MOMENTUM, bounds=(0, 1))),
        sgd(Hyper(RATE, per="tensor", bounds=(0, None))),
        knots(curve),
    )


def usual_for(model: nn.Module, classes: bool, x: Inputs, seconds: float = math.inf) -> Strategy:
    """Return the usual strategy with what this model and these inputs allow besides.

    Features are dropped in front of every linear and convolutional layer but the first. Pictures are warped where they
    enter the first layer as they are, or flattened.

    Args:
        model: any module; its frozen layers are left alone.
        classes: whether the targets are classes.
        x: inputs ``(N, ...)``.
        seconds: how long tuning may take: see :data:`DROPS_FROM`.
    """
    # Not isinstance: attention reads the weight of a subclass of nn.Linear without calling it.
    layers = {
        name: layer
        for name, layer in model.named_modules()
        if type(layer) in (nn.Linear, nn.Conv1d, nn.Conv2d) and name and layer.weight.requires_grad
    }
    names, first = list(layers), next(iter(layers.values()), None)
    pictures, shape = "", list[int]()
    if (
        seconds >= WARPS_FROM
        and isinstance(x, Tensor)
        and x.dim() == 4
        and x.shape[1] in (1, 3)
        and min(x.shape[2:]) > 1
    ):
        if isinstance(first, nn.Conv2d) and first.in_channels == x.shape[1]:
            pictures = names[0]
        elif isinstance(first, nn.Linear) and first.in_features == x[0].numel():
            pictures, shape = names[0], list(x.shape[1:])
    drops = "|".join(names[1:]) if seconds >= DROPS_FROM else ""
    return usual_strategy(classes, drops=drops, pictures=pictures, shape=shape)
