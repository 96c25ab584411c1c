"""Rows of the head that begin anew when their class first comes in a stream."""

from __future__ import annotations

from typing import Literal, get_args

import torch
from torch import Tensor

from rbml.errors import UsageError, unknown
from rbml.strategy.base import Rule, Values, part
from rbml.strategy.draws import uniform
from rbml.strategy.views import StepInfo
from rbml.tree import Tree, matching

To = Literal["zero", "drawn", "mean"]
When = Literal["arrival", "start"]


@part
def fresh_rows(to: To = "zero", when: When = "arrival", rows: str = "head.*", name: str = "fresh_rows") -> Rule:
    r"""Set the rows of a class in the head to a start of their own before the first step that sees the class.

    .. math:: w_k \leftarrow \mathrm{start} \qquad \text{before step } t_k = \min \{t : k \in y_t\}

    In a stream, softmax pushes down the rows of classes that have not come yet, so that a new class begins behind all
    others, and the earlier classes of a long stream would decide how far. OML (Javed and White 2019, arXiv:1905.12588)
    resets the rows of a stream's classes at its start, ANML (Beaulieu et al. 2020, arXiv:2002.09571) when they come.
    Rows of classes that never come stay as they are learned. The gradient passes unchanged, and what a rule with memory
    remembers of a row stays.

    Args:
        to: ``"zero"``; ``"drawn"``: uniform numbers as in a new ``nn.Linear``, biases zero; or ``"mean"``: the mean of
            the rows of classes that came before, or that the stream does not have (zero if there are none).
        when: ``"arrival"``, or ``"start"``: all classes of the stream before its first step.
        rows: a pattern of the adapted parameters that have one row per class.
        name: the name of the part in the strategy.

    Raises:
        UsageError: for an unknown choice, or, in use, if the pattern matches no adapted parameter.
    """  # noqa: DOC501  `unknown` returns the UsageError
    for what, value, known in (("start of rows", to, get_args(To)), ("moment", when, get_args(When))):
        if value not in known:
            raise unknown(what, str(value), known)

    def update(direction: Tree, state: Tree, theta: Tree, values: Values, at: StepInfo) -> tuple[Tree, Tree]:
        return direction, state

    def before(theta: Tree, at: StepInfo) -> Tree:
        own = matching(theta, rows)
        if not own:
            raise UsageError(f"{name}: rows={rows!r} matches no adapted parameter; there are {', '.join(theta)}")
        if at.arrivals is None:
            raise UsageError(f"{name} needs targets that are classes, and a head with a row for each")
        fresh = at.arrivals == at.t if when == "arrival" else (at.arrivals >= 0) & (torch.as_tensor(at.t) == 0)
        others = ~fresh & ~(at.arrivals > at.t)
        return theta | {key: _started(theta[key], key, fresh, others, at) for key in own}

    def _started(leaf: Tensor, key: str, fresh: Tensor, others: Tensor, at: StepInfo) -> Tensor:
        column = (-1, *[1] * (leaf.dim() - 1))
        start = torch.zeros_like(leaf)
        if to == "drawn" and leaf.dim() > 1:
            bound = leaf[0].numel() ** -0.5
            start = bound * (2 * uniform(at, f"{name}/{key}", leaf) - 1)
        if to == "mean":
            total = torch.where(others.reshape(column), leaf, 0).sum(0, keepdim=True)
            start = total / others.sum().clamp(min=1)
        return torch.where(fresh.reshape(column), start, leaf)

    return Rule(name, {}, update, random=to == "drawn", before=before, by_class=True)
