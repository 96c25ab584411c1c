"""Rows of the head that learn while their class is new, and then settle."""

from __future__ import annotations

import torch

from rbml.errors import UsageError
from rbml.strategy.base import Rule, Values, part
from rbml.strategy.hyper import Hyper, as_hyper
from rbml.strategy.views import StepInfo
from rbml.tree import Tree, matching


@part
def settle(tau: float | Hyper = 15.0, rows: str = "head.*", name: str = "settle") -> Rule:
    r"""Let every row of the head learn when its class comes, and less and less after that.

    .. math:: d_k \leftarrow \begin{cases} e^{-(t - t_k) / \tau}\, d_k & t \ge t_k \\ 0 & \text{before} \end{cases}
              \qquad t_k = \min \{t : k \in y_t\}

    In a stream, the steps of later classes push the rows of earlier ones down, the more the longer the stream is. Here
    a row depends on the steps around the arrival of its class alone, so that tau, learned on short streams, means the
    same on long ones (docs/results.md: a rate learned on streams of 90 steps ruins streams of 3,000; with rows that
    settle it does not). Rows of classes that never come stay as they are. Source: none; a schedule per class in the
    sense of :mod:`rbml.strategy.schedules`.

    Args:
        tau: in how many steps after the arrival of its class the rate of a row falls to 37 %; above zero. Learn it with
            ``Hyper(15.0, bounds=(0, None))``.
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
        age = torch.where(here, at.t - at.arrivals, 0)

        def settled(key: str) -> torch.Tensor:
            leaf, column = direction[key], (-1, *[1] * (direction[key].dim() - 1))
            share = torch.exp(-age.to(leaf.dtype).reshape(column) / values["tau"][key])
            return torch.where(here.reshape(column), leaf * share, 0)

        return direction | {key: settled(key) for key in own}, state

    return Rule(name, {"tau": as_hyper(tau)}, update, by_class=True)
