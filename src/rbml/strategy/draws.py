"""Random numbers for rules and terms: an engine that takes a step twice sees the same ones."""

from __future__ import annotations

from torch import Tensor

from rbml import random
from rbml.strategy.views import StepInfo


def uniform(at: StepInfo, name: str, like: Tensor) -> Tensor:
    """Return numbers between 0 and 1 (both excluded) of the shape and type of ``like``.

    They depend on the task's key, the step, the name and the place in the tensor: :func:`rbml.random.uniform`.

    Args:
        at: the moment; its key must be set.
        name: what they are for: other names get other numbers.
        like: the shape, type and device.
    """
    return random.uniform(_key(at), name, like)


def normal(at: StepInfo, name: str, like: Tensor) -> Tensor:
    """Return standard normal numbers, as :func:`uniform`: :func:`rbml.random.normal`."""
    return random.normal(_key(at), name, like)


def _key(at: StepInfo) -> Tensor:
    assert at.key is not None, "a part that draws random numbers says so: random=True"
    return random.fold(at.key, at.t)
