"""The strategy of a training run that is tuned where nobody says which: many numbers around usual ones."""

from __future__ import annotations

from rbml.strategy import Hyper, Scalar, Strategy, chain, knots, l2, label_smoothing, momentum, sgd

RATE, DECAY, MOMENTUM, SMOOTHING = 0.05, 1e-4, 0.9, 0.02


def usual_strategy(classes: bool, curve: int = 8) -> Strategy:
    """Return SGD whose rate, decay, schedule and momentum are learned; for classes also the label smoothing.

    One rate and one weight decay for every tensor, and a curve of factors along the run for each: more than 50 numbers
    for three layers.

    Args:
        classes: whether the targets are classes.
        curve: how many knots the curve of a tensor has.
    """
    smoothing = [label_smoothing(Scalar(SMOOTHING, bounds=(0, 1)))] if classes else []
    return chain(
        *smoothing,
        l2(Hyper(DECAY, per="tensor", bounds=(0, None))),
        momentum(Hyper(MOMENTUM, bounds=(0, 1))),
        sgd(Hyper(RATE, per="tensor", bounds=(0, None))),
        knots(curve),
    )
