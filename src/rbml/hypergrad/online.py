r"""Learn phi while the inner loop is running: real-time hyperparameter optimization (RTHO).

A :class:`rbml.hypergrad.forward.Run` contains the carry and its derivative with respect to every learned number.
Between steps it gives the derivative of the outer loss *at the current step*, and the caller may change m before the
run continues::

    run = online.begin(inner, m, "phi.*")
    while run.t < inner.steps:
        found, run = online.go_on(inner, m, run, steps=10)
        m = m | {name: m[name] - 1e-3 * grad for name, grad in found.grads.items()}

.. math:: Z_{t+1} = \frac{\partial \Phi}{\partial c} Z_t + \frac{\partial \Phi}{\partial m}, \qquad
          m \leftarrow m - \eta\, (\partial_m L + \partial_c L \cdot Z_t)

As long as m does not change, every derivative is exact: that of ``Forward()`` for a run of t steps. Once m has changed
it is approximate: Z continues as if the earlier steps had been taken with the current m. Memory: independent of T, one
carry per learned number. Time: about two gradients per step and learned number. Blind to numbers that are not learned.
Source: Franceschi et al. 2017 (arXiv:1703.01785, section 3.2). Under ``torch.func.vmap`` every task has its own run.
"""

from __future__ import annotations

from rbml.errors import UsageError
from rbml.hypergrad.base import MetaGradient
from rbml.hypergrad.forward import Run, advance, derivative, directions, unflattened
from rbml.hypergrad.forward import begin as _begin
from rbml.inner import Inner
from rbml.tree import Tree, matching, pick


def begin(inner: Inner, m: Tree, learn: str = "phi.*", limit: int = 1000) -> Run:
    """Start a run that is differentiated with respect to the meta-parameters matched by ``learn``.

    Args:
        inner: the problem.
        m: the meta-parameters.
        learn: a pattern for names of ``m``; join several with ``|``.
        limit: the largest number of learned elements; each needs its own carry.

    Raises:
        UsageError: if the pattern matches no meta-parameter or more than ``limit`` elements.
    """
    learned = pick(m, matching(m, learn))
    total = sum(leaf.numel() for leaf in learned.values())
    if not total:
        raise UsageError(f"learn={learn!r} matches no meta-parameter; there are {', '.join(m) or 'none'}")
    if total > limit:
        raise UsageError(
            f"learn={learn!r} matches {total:,} numbers, more than limit={limit:,}, and each needs its own carry: "
            "learn fewer, or raise limit="
        )
    return _begin(inner, m, directions(learned, 0, total))


def go_on(inner: Inner, m: Tree, run: Run, steps: int = 1) -> tuple[MetaGradient, Run]:
    """Take up to ``steps`` more steps with the current ``m``; return the outer loss there, its derivative and the run.

    Args:
        inner: the problem; a run ends after its T steps.
        m: the current meta-parameters, which may have changed since the last call.
        run: the run that :func:`begin` or the last call returned; it is not modified.
        steps: the number of steps, at least 1.

    Raises:
        UsageError: if ``steps`` is below 1, or the run has ended.
    """
    if steps < 1 or run.t >= inner.steps:
        raise UsageError(
            f"a run of {inner.steps} steps that has taken {run.t} cannot take {steps} more: "
            "set steps= to at least 1, and begin a new run after the last step"
        )
    for _ in range(min(steps, inner.steps - run.t)):
        run = advance(inner, m, run)
    loss, aux, numbers = derivative(inner, m, run)
    return MetaGradient(loss, unflattened(numbers, pick(m, run.directions)), aux, {}), run
