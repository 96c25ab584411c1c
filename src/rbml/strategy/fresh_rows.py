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
def fresh_rows(to: To = "zero", when: When = "start", rows: str = "head.*", name: str = "fresh_rows") -> Rule:
    r"""Set the rows of a class in the head to a start of their own before the first step that sees the class.

    .. math:: w_k \leftarrow \mathrm{start} \qquad \text{before step } t_k = \min \{t : k \in y_t\}

    With ``when="start"`` all classes of a stream begin anew before its first step, as in OML (Javed and White 2019,
    arXiv:1905.12588): every row is then pushed down by all other classes alike. With ``"arrival"`` a row forgets how it
    was pushed down before its class came, so that a new class does not begin behind all others; but later classes push
    earlier ones down and not the reverse, which favours late ones, unless rows :func:`rbml.strategy.settle`. Rows of
    classes that never come stay as they are learned. The gradient passes unchanged, and what a rule with memory
    remembers of a row stays.

    Args:
        to: ``"zero"``; ``"drawn"``: uniform numbers as in a new ``nn.Linear``, biases zero; or ``"mean"``: the mean of
            the rows of classes that came before, or that the stream does not have (zero if there are none).
        when: ``"start"``: all classes of the stream before its first step; or ``"arrival"``: each before the first step
            that sees it. Measured (docs/results.md): with steps on single drawings, ``"start"`` knows far more of a
            long stream.
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
