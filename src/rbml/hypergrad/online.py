r"""Learn phi while the inner loop goes on: real-time hyperparameter optimization, RTHO.

A :class:`rbml.hypergrad.forward.Run` holds the carry and its derivative by every number that is learned. Between steps
it gives the derivative of the outer loss *as it stands now*, and the caller may change m before the run goes on::

    run = online.begin(inner, m, "phi.*")
    while run.t < inner.steps:
        found, run = online.go_on(inner, m, run, steps=10)
        m = m | {name: m[name] - 1e-3 * grad for name, grad in found.grads.items()}

.. math:: Z_{t+1} = \frac{\partial \Phi}{\partial c} Z_t + \frac{\partial \Phi}{\partial m}, \qquad
          m \leftarrow m - \eta\, (\partial_m L + \partial_c L \cdot Z_t)

As long as m stays as it was, each derivative is exact: that of ``Forward()`` for a run of t steps. Once m changes it is
approximate: Z goes on as if the earlier steps had been taken with today's m. Memory: flat in T, a carry a number that
is learned. Time: about two gradients a step and number. Blind to what is not learned. Source: Franceschi et al. 2017
(arXiv:1703.01785, section 3.2). Under ``torch.func.vmap`` every task has a run of its own.
"""

from __future__ import annotations

from rbml.errors import UsageError
from rbml.hypergrad.base import MetaGradient
from rbml.hypergrad.forward import Run, advance, derivative, directions, unflattened
from rbml.hypergrad.forward import begin as _begin
from rbml.inner import Inner
from rbml.tree import Tree, matching, pick


def begin(inner: Inner, m: Tree, learn: str = "phi.*", limit: int = 1000) -> Run:
    """Start a run that can be differentiated by what ``learn`` matches.

    Args:
        inner: the problem.
        m: the meta-parameters.
        learn: a pattern for names of ``m``; several are joined with ``|``.
        limit: how many numbers it takes at most: each has a carry of its own.

    Raises:
        UsageError: if the pattern matches nothing, or too much.
    """
    learned = pick(m, matching(m, learn))
    total = sum(leaf.numel() for leaf in learned.values())
    if not total:
        raise UsageError(f"learn={learn!r} matches no meta-parameter; there are {', '.join(m) or 'none'}")
    if total > limit:
        raise UsageError(f"learn={learn!r} matches {total:,} numbers, each with a carry of its own; limit={limit:,}")
    return _begin(inner, m, directions(learned, 0, total))


def go_on(inner: Inner, m: Tree, run: Run, steps: int = 1) -> tuple[MetaGradient, Run]:
    """Take up to ``steps`` more steps with ``m`` as it is now, and return the outer loss now and its derivative.

    Args:
        inner: the problem; a run ends after its T steps.
        m: the meta-parameters, perhaps changed since the last call.
        run: as :func:`begin` or the last call left it; it is not changed.
        steps: how many steps, 1 or more.

    Raises:
        UsageError: if ``steps`` is below 1, or the run has ended.
    """
    if steps < 1 or run.t >= inner.steps:
        raise UsageError(f"a run of {inner.steps} steps that has taken {run.t} cannot take {steps} more")
    for _ in range(min(steps, inner.steps - run.t)):
        run = advance(inner, m, run)
    loss, aux, numbers = derivative(inner, m, run)
    return MetaGradient(loss, unflattened(numbers, pick(m, run.directions)), aux, {}), run
