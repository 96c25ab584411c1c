"""The flat options that every preset takes, and the learner that they come to."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import nn

from rbml.data.targets import Loss
from rbml.errors import UsageError
from rbml.hypergrad import Adjoint, Hypergradient
from rbml.learner import Curriculum, Execution, Head, Initial, Learner, Phase, Statistics
from rbml.learner.options import Compile, Vectorise
from rbml.strategy import Part, Strategy


def assemble(
    model: nn.Module,
    strategy: Strategy | Part | None = None,
    steps: int = 1,
    loss: Loss = F.cross_entropy,
    *,
    adapt: str = "*",
    head: str | None = None,
    shared_head: bool = False,
    stepwise: str = "",
    reset: str = "",
    hypergradient: Hypergradient | None = None,
    step_weights: Sequence[float] | None = None,
    curriculum: Curriculum | None = None,
    statistics: Statistics = "transductive",
    chunk: int = 32,
    compile: Compile | bool = "no",
    vectorise: Vectorise = "auto",
    verify: bool = True,
    generator: torch.Generator | None = None,
) -> Learner:
    """Return a learner from flat options, as the presets take them.

    Args:
        model: the model.
        strategy: how one step changes theta; ``None`` is ``sgd(0.1)``.
        steps: T, inner steps.
        loss: from (prediction, target) of one task to a scalar.
        adapt: as of :class:`rbml.learner.Initial`.
        head: the pattern of the head's parameters, as of :class:`rbml.learner.Head`.
        shared_head: learn one row that every class starts from.
        stepwise: as of :class:`rbml.learner.Initial`.
        reset: as of :class:`rbml.learner.Initial`.
        hypergradient: the engine; ``None`` is ``Adjoint()``.
        step_weights: as of :class:`rbml.learner.Phase`.
        curriculum: phases of training in place of one engine and one set of weights.
        statistics: as of :class:`rbml.Learner`.
        chunk: as of :class:`rbml.learner.Execution`.
        compile: likewise; ``True`` is ``"whole"``, ``False`` is ``"no"``.
        vectorise: likewise.
        verify: likewise.
        generator: for what of phi is drawn at its start; ``None`` is PyTorch's global one.

    Raises:
        UsageError: if both a curriculum and what it decides are given, or an option cannot be meant.
    """
    if curriculum is not None and step_weights is not None:
        raise UsageError("a curriculum decides the weights of the steps: leave step_weights out")
    engine = Adjoint() if hypergradient is None else hypergradient
    mode: Compile = {True: "whole", False: "no"}[compile] if isinstance(compile, bool) else compile  # type: ignore[assignment]
    learner = Learner(
        model,
        strategy,
        steps,
        loss,
        Initial(adapt, Head(head, shared_head), stepwise, reset),
        Phase(engine, step_weights) if curriculum is None else curriculum,
        statistics,
        Execution(chunk, mode, vectorise, verify),
    )
    return learner if generator is None else learner.with_strategy(learner.strategy, generator)
