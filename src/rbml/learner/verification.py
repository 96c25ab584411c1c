"""Verify the first meta-gradient of a learner, because no list of what PyTorch differentiates wrongly is complete.

An engine that takes a forward derivative of the inner gradient assumes that the Jacobian of that gradient is symmetric.
If a model or a loss hides something from one mode of differentiation (``torch.no_grad`` inside, a tensor hook, an
operator whose two derivatives differ), the result would be silently wrong. So, once per learner and shape of tasks, the
forward-over-reverse derivative of one task's first inner steps is compared with backpropagation through them.
"""

from __future__ import annotations

import copy
import math
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch

from rbml.autodiff.remedies import named
from rbml.errors import RbmlError, UnsoundError, UsageError
from rbml.hypergrad import Adjoint, FirstOrder, Forward, Hypergradient, Unrolled
from rbml.inner import Inner
from rbml.tasks.base import moved
from rbml.tree import Tree, norm

if TYPE_CHECKING:
    from rbml.learner.learner import Learner

STEPS = 2
"""How many inner steps are compared; the second one depends on what the first one did."""

TOLERANCE = {torch.float64: 1e-6, torch.float32: 1e-2}
"""How far apart the two may be, relative to the norm of the whole gradient."""


def verify(learner: Learner, task: Any, engine: Hypergradient, key: torch.Tensor | None, ways: int | None) -> None:
    """Compare the two ways of differentiating one task, in double precision where the model allows it.

    Costs two meta-gradients of one task with at most two inner steps.

    Args:
        learner: the learner; it is copied.
        task: one task.
        engine: the engine whose kind of derivative is checked.
        key: the seed of parts that draw random numbers.
        ways: C, if it is another number than the learner's.

    Raises:
        UnsoundError: if they disagree; it names the parameters, and an engine that is right.
        UsageError: if an operator has no forward derivative, which the engine needs.
        RbmlError: whatever else rbml refuses while the derivative is taken.
    """
    if not isinstance(engine, Adjoint | Unrolled | FirstOrder | Forward):
        return  # approximate by design, or right to give zero
    truth = dtype = None
    for dtype in (torch.float64, next(learner.model.parameters()).dtype):
        try:
            m, inner = _problem(learner, task, dtype, key, ways)
            truth = Unrolled()(inner, m).grads
            break
        except RbmlError:
            raise
        except Exception:  # some operators exist only in the model's own precision: try that next
            continue
    if truth is None or not m:
        return
    _check_not_blind(learner, truth)
    forward = isinstance(engine, Forward) or (isinstance(engine, Adjoint) and engine.hvp == "forward")
    if not forward:
        return
    try:
        found = Adjoint(keep=0)(inner, m).grads
    except RuntimeError as error:
        if (remedy := named(error)) is not None:
            raise remedy from error
        reason = str(error).strip().splitlines()[0]
        raise UsageError(
            f"{type(engine).__name__}() needs a forward derivative of every operator, and one of the model, the loss "
            f'or the strategy has none ({reason}): use hypergradient=Adjoint(hvp="reverse"), or Unrolled()'
        ) from error
    _compare(found, truth, TOLERANCE.get(dtype or torch.float32, 0.1), engine)


def _problem(
    learner: Learner, task: Any, dtype: torch.dtype, key: torch.Tensor | None, ways: int | None
) -> tuple[Tree, Inner]:
    own = copy.deepcopy(learner).to(dtype)
    m = {name: leaf.detach() for name, leaf in own.named_parameters() if leaf.requires_grad}
    inner = own.inner(moved(task, dtype), ways=ways, key=key)
    return m, replace(inner, steps=min(inner.steps, STEPS))


def _check_not_blind(learner: Learner, truth: Tree) -> None:
    """Refuse a meta-gradient that is exactly zero for all the parameters that a task adapts."""
    adapted = [f"model.{name}" for name in learner.adapted if f"model.{name}" in truth]
    if any(
        rule.before is not None for rule in learner.strategy.rules
    ):  # rows that begin anew do not depend on how they were
        return
    if adapted and not any(bool(truth[name].any()) for name in adapted):
        shown = ", ".join(name.removeprefix("model.") for name in adapted[:3])
        more = ", ..." if len(adapted) > 3 else ""
        raise UnsoundError(
            f"the meta-gradient of all adapted parameters ({shown}{more}) is exactly zero: the model does not "
            "compute with the parameters it is called with. It may read its weights from elsewhere (a Keras layer, a "
            "cached copy, tensor.data); compute with the module's own parameters, or, if zero is what you expect, set "
            "verify=False",
            adapted,
        )


def _compare(found: Tree, truth: Tree, tolerance: float, engine: Hypergradient) -> None:
    size = float(norm(truth))
    far = {name: float((found[name] - leaf).norm()) for name, leaf in truth.items()}
    wrong = {name: error for name, error in far.items() if not error <= tolerance * size}
    if not wrong or size == 0 or not math.isfinite(size):  # a loss that is not finite is reported by the training loop
        return
    worst = sorted(wrong, key=lambda name: -wrong[name])
    listed = ", ".join(
        f"{name} {tuple(truth[name].shape)} off by {wrong[name] / size:.1e} of the gradient" for name in worst[:3]
    )
    more = ", ..." if len(worst) > 3 else ""
    raise UnsoundError(
        f"{engine} is wrong for this model: a forward derivative of the inner gradient disagrees with backpropagation "
        f"through it ({listed}{more}). Something in the model, the loss or the strategy is hidden from one of the two "
        "(torch.no_grad or tensor hooks inside, an operator with two different derivatives, a model that gives another "
        "gradient each time): use hypergradient=Unrolled(), which is backpropagation itself",
        worst,
    )
