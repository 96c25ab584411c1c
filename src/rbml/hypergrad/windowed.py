"""Windows along one run: long streams and training jobs, differentiated in parts while they go on."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor

from rbml.errors import UsageError
from rbml.hypergrad.adjoint import Adjoint
from rbml.hypergrad.base import Hypergradient, MetaGradient
from rbml.hypergrad.unrolled import detached
from rbml.inner import Carry, Inner
from rbml.tree import Step, Tree, add, prefixed, scale, under

_THETA, _STATE = "carry.theta.", "carry.state."


@dataclass(frozen=True)
class Windowed:
    r"""Cut one run into windows: the outer loss is taken at the end of each, and no derivative passes between them.

    .. math:: L = \frac1W \sum_{w=1}^{W} L_{outer}(c_{t_w}), \qquad \frac{dL}{dm} \approx \frac1W \sum_w
              \frac{d}{dm} L_{outer}\big(c_{t_w}(m;\, c_{t_{w-1}} \text{ held fixed})\big)

    The loss counts every part of a run, not its end alone, so that a strategy is learned for all of it. Approximate:
    what a step does beyond the end of its window is left out, which favours what pays off soon (Wu et al. 2018,
    arXiv:1803.02021). With windows as long as the run it is the inner engine. Memory: that of the engine for one
    window, however long the run is. Time: that of the engine, and an outer loss per window. It is blind to what the
    inner engine is blind to; theta0 is seen by the first window alone, except where it enters by the objective.

    Source: truncated backpropagation through time as it is used to train learned optimizers (Andrychowicz et al. 2016,
    arXiv:1606.04474; Metz et al. 2019, arXiv:1810.10180). ``window=`` of other engines differs: it sees the end of a
    run only. It does not go with step weights.

    Args:
        every: steps per window; the last one may be shorter.
        engine: which differentiates a window.

    Raises:
        UsageError: if ``every`` is below 1.
    """

    every: int = 10
    engine: Hypergradient = Adjoint()  # noqa: RUF009  frozen
    approximate = True

    def __post_init__(self) -> None:
        """Check the options."""
        if self.every < 1:
            raise UsageError(f"every, the steps of a window, must be at least 1, not {self.every}")

    def __call__(self, inner: Inner, m: Tree) -> MetaGradient:
        """Return the mean outer loss over the ends of all windows, and its truncated derivative."""
        ends = [*range(self.every, inner.steps, self.every), inner.steps]
        carry: Carry | None = None
        losses: list[Tensor] = []
        grads: Tree = {}
        start = 0
        for end in ends:
            loss, found, aux, info = self.engine(_window(inner, start, end, carry), m)
            losses.append(loss)
            grads = add(grads, found)
            carry, start = detached(Carry(under(aux, _THETA), under(aux, _STATE))), end
        own = {name: leaf for name, leaf in aux.items() if not name.startswith((_THETA, _STATE))}
        return MetaGradient(sum(losses[1:], losses[0]) / len(ends), scale(grads, 1 / len(ends)), own, info)


def _window(inner: Inner, first: int, end: int, carry: Carry | None) -> Inner:
    """Return the steps from ``first`` up to ``end`` as an inner loop of its own, which begins at a fixed carry.

    Args:
        inner: the whole run.
        first: the first step.
        end: one more than the last step.
        carry: what the window begins with; ``None`` means the start of the run, which depends on m.
    """

    def start(m: Tree) -> Carry:
        return inner.start(m) if carry is None else carry

    def objective(theta: Tree, m: Tree, t: Step) -> Tensor:
        return inner.objective(theta, m, t + first)

    def update(grads: Tree, now: Carry, m: Tree, t: Step) -> Carry:
        return inner.update(grads, now, m, t + first)

    def outer(last: Carry, m: Tree) -> tuple[Tensor, Any]:
        loss, aux = inner.outer(last, m)
        return loss, aux | prefixed(last.theta, _THETA) | prefixed(last.state, _STATE)

    enters = inner.enters if carry is None else {name: where - {"start"} for name, where in inner.enters.items()}
    return replace(
        inner, start=start, objective=objective, update=update, outer=outer, steps=end - first, enters=enters
    )
