"""The flat options that every preset takes, and the learner that they describe."""

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
    calls: int = 1000,
    generator: torch.Generator | None = None,
) -> Learner:
    """Return a learner from the flat options of the presets.

    Args:
        model: the model.
        strategy: how one step changes theta; ``None`` means ``sgd(0.1)``.
        steps: T, inner steps.
        loss: a function from (prediction, target) of one task to a scalar.
        adapt: as in :class:`rbml.learner.Initial`.
        head: the pattern of the head's parameters, as in :class:`rbml.learner.Head`.
        shared_head: learn one row from which every class starts.
        stepwise: as in :class:`rbml.learner.Initial`.
        reset: as in :class:`rbml.learner.Initial`.
        hypergradient: the engine; ``None`` means ``Adjoint()``.
        step_weights: as in :class:`rbml.learner.Phase`.
        curriculum: phases of training, instead of one engine and one set of weights.
        statistics: as in :class:`rbml.Learner`.
        chunk: as in :class:`rbml.learner.Execution`.
        compile: likewise; ``True`` means ``"whole"``, ``False`` means ``"no"``.
        vectorise: likewise.
        verify: likewise.
        calls: likewise.
        generator: for the parts of phi that start at random; ``None`` means PyTorch's global generator.

    Raises:
        UsageError: if a curriculum and ``step_weights`` are both given, or an option has a wrong value.
    """
    if curriculum is not None and step_weights is not None:
        raise UsageError("a curriculum sets the step weights itself: leave step_weights out")
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
        Execution(chunk, mode, vectorise, verify, calls),
    )
    return learner if generator is None else learner.with_strategy(learner.strategy, generator)
