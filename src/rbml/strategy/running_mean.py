"""Rows of the head whose rate falls as 1 / n with the examples of their class, as in a running mean."""

from __future__ import annotations

import torch

from rbml.errors import UsageError
from rbml.strategy.base import Rule, Values, part
from rbml.strategy.hyper import Hyper, as_hyper
from rbml.strategy.views import StepInfo
from rbml.tree import Tree, matching


@part
def running_mean(power: float | Hyper = 1.0, rows: str = "head.*", name: str = "running_mean") -> Rule:
    r"""Anneal the rate of every row of the head by how many steps have passed since its class came.

    .. math:: d_k \leftarrow \begin{cases} n_k^{-\mathrm{power}}\, d_k & t \ge t_k \\ 0 & \text{before} \end{cases}
              \qquad n_k = 1 + t - t_k, \qquad t_k = \min \{t : k \in y_t\}

    A running mean of n numbers moves by exactly 1 / n towards the n-th (Robbins and Monro 1951, Ann. Math. Stat. 22):
    with a power of 1, a rate is a share of what has been seen, which means the same on a stream of any length. The sum
    of the rates grows with the logarithm of the length only, where a constant rate's grows with the length. Rows of
    classes that never come stay as they are. Beside :func:`rbml.strategy.settle`, whose rows stop altogether.

    Args:
        power: how fast a row's rate falls: 0 does not anneal, 1 is a running mean. Learn it bounded:
            ``Hyper(0.9, bounds=(0, 1))``; a rate that falls faster than 1 / n stops before it has arrived.
        rows: a pattern of the adapted parameters that have one row per class.
        name: the name of the part in the strategy.

    Raises:
        UsageError: in use, if the pattern matches no adapted parameter, or the targets are not classes.
    """

    def update(direction: Tree, state: Tree, theta: Tree, values: Values, at: StepInfo) -> tuple[Tree, Tree]:
        own = matching(direction, rows)
        if not own:
            raise UsageError(f"{name}: rows={rows!r} matches no adapted parameter; there are {', '.join(direction)}")
        if at.arrivals is None:
            raise UsageError(f"{name} needs targets that are classes, and a head with a row for each")
        here = (at.arrivals >= 0) & (at.arrivals <= at.t)
        number = torch.where(here, at.t - at.arrivals + 1, 1)

        def annealed(key: str) -> torch.Tensor:
            leaf, column = direction[key], (-1, *[1] * (direction[key].dim() - 1))
            share = number.to(leaf.dtype).reshape(column) ** -values["power"][key]
            return torch.where(here.reshape(column), leaf * share, 0)

        return direction | {key: annealed(key) for key in own}, state

    return Rule(name, {"power": as_hyper(power)}, update, by_class=True)
