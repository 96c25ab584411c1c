"""A rule that holds parameters where earlier parts of a stream needed them."""

from __future__ import annotations

import torch
from torch import Tensor

from rbml.errors import UsageError
from rbml.strategy.base import Rule, Values, part
from rbml.strategy.hyper import Hyper, as_hyper
from rbml.strategy.views import StepInfo
from rbml.tree import Tree, prefixed, tmap, under, zeros_like


@part
def ewc(strength: float | Hyper = 1.0, every: int = 10, name: str = "ewc") -> Rule:
    r"""Pull every parameter to where it was, the more the earlier parts of the stream depended on it.

    .. math:: d \leftarrow d + \mathrm{strength} \cdot F \circ (\theta - \theta^*)

    After every so many steps :math:`\theta^*` becomes the parameters of that moment, and the mean of the squared
    directions since then is added to F, the diagonal of the empirical Fisher information (of single examples, if a step
    sees one). Source: elastic weight consolidation (Kirkpatrick et al. 2017, arXiv:1612.00796) with one sum over the
    past (Schwarz et al. 2018, arXiv:1805.06370, without decay). It must come first in the chain, where directions are
    gradients. State: three tensors like theta.

    Args:
        strength: of the pull.
        every: how many steps make a part of the stream: those of one class, for example.
        name: the name of the part in the strategy.

    Raises:
        UsageError: if ``every`` is below 1.
    """
    if every < 1:
        raise UsageError(f"every, the steps of one part of a stream, must be at least 1, not {every}")

    def init(theta: Tree) -> Tree:
        zero = zeros_like(theta)
        return prefixed(zero, "fisher/") | prefixed(zero, "since/") | prefixed(zero, "anchor/")

    def update(direction: Tree, state: Tree, theta: Tree, values: Values, at: StepInfo) -> tuple[Tree, Tree]:
        fisher, since, anchor = (under(state, f"{what}/") for what in ("fisher", "since", "anchor"))
        pulled = tmap(lambda d, s, f, p, a: d + s * f * (p - a), direction, values["strength"], fisher, theta, anchor)
        since = tmap(lambda s, d: s + d * d / every, since, direction)
        ends = torch.as_tensor((at.t + 1) % every == 0, device=next(iter(theta.values())).device)

        def at_end(now: Tensor, before: Tensor) -> Tensor:
            return torch.where(ends, now, before)

        fisher, anchor = tmap(lambda f, s: at_end(f + s, f), fisher, since), tmap(at_end, theta, anchor)
        since = tmap(lambda s: at_end(torch.zeros_like(s), s), since)
        return pulled, prefixed(fisher, "fisher/") | prefixed(since, "since/") | prefixed(anchor, "anchor/")

    return Rule(name, {"strength": as_hyper(strength)}, update, init)
