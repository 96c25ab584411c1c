"""What a learner is told beside the model, the strategy and the engine: how theta begins, and how the work is run."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Literal, NamedTuple, get_args

from rbml.errors import UsageError, unknown
from rbml.hypergrad import Adjoint, Hypergradient

Compile = Literal["no", "step", "whole"]
Vectorise = Literal["auto"] | bool


@dataclass(frozen=True)
class Head:
    """Which parameters have one row per class, and how these rows begin.

    They let the learner start for any number of classes: fewer take the first rows, more take the rows again (worse
    than a learner that was meta-trained with so many).

    Args:
        pattern: their names; ``None`` takes the last linear layer that the model uses.
        shared: learn one row that every class starts from (Ye and Chao 2022, arXiv:2106.16245) rather than one each.
    """

    pattern: str | None = None
    shared: bool = False


@dataclass(frozen=True)
class Initial:
    """Where theta begins, and what a task may change of it.

    Args:
        adapt: which parameters a task adapts, a pattern such as ``"conv.*"``; ``"head"`` and ``"body"`` stand for the
            parameters of the head and for all others. What is not adapted is learned across tasks only.
        head: which parameters have one row per class.
        stepwise: a pattern of parameters that have a value of their own for every inner step and for the queries after
            the last one: learned across tasks, not adapted. ``"norms"`` stands for those of all normalisation layers
            (MAML++'s per-step batch norm).
        reset: a pattern of adapted parameters whose start is the model's own, not learned: context parameters.
    """

    adapt: str = "*"
    head: Head = field(default_factory=Head)
    stepwise: str = ""
    reset: str = ""


@dataclass(frozen=True)
class Execution:
    """How the work is run: none of it changes a result by more than rounding.

    Args:
        chunk: how many tasks are vectorised at once; it bounds memory.
        compile: ``"no"`` runs PyTorch's operators one by one; ``"whole"`` compiles the meta-gradient as one graph (a
            minute or more, for a few inner steps); ``"step"`` compiles one inner step and its adjoint, which
            serve every step (for many inner steps). Both need a C++ compiler, and compile again for other shapes.
        vectorise: whether tasks run side by side under ``vmap``. ``"auto"`` does so where the model allows it, and
            otherwise takes one task after another and says so once.
        verify: whether the first meta-gradient for each shape of tasks is verified: see
            :mod:`rbml.learner.verification`.

    Raises:
        UsageError: for a chunk below one or an unknown choice.
    """

    chunk: int = 32
    compile: Compile = "no"
    vectorise: Vectorise = "auto"
    verify: bool = True

    def __post_init__(self) -> None:
        """Refuse what cannot be meant."""
        if self.chunk < 1:
            raise UsageError(f"chunk is how many tasks run at once, at least 1, not {self.chunk}")
        if self.compile not in get_args(Compile):
            raise unknown("choice of compile", str(self.compile), get_args(Compile))
        if self.vectorise not in ("auto", True, False):
            raise UsageError(f"vectorise is 'auto', True or False, not {self.vectorise!r}")


class Phase(NamedTuple):
    """What changes while training goes on.

    Attributes:
        hypergradient: the engine.
        step_weights: how much the query loss after each inner step counts, T numbers (MAML++'s multi-step loss);
            ``None`` counts the last step only.
    """

    hypergradient: Hypergradient = Adjoint()
    step_weights: Sequence[float] | None = None


@dataclass(frozen=True)
class Curriculum:
    """Phases as a pure function of progress.

    Args:
        phase: from how much of the training is done, 0 to 1, to the phase.
    """

    phase: Callable[[float], Phase]


def curriculum_of(given: Hypergradient | Phase | Curriculum | None) -> Curriculum:
    """Return an engine or one phase as a curriculum that never changes."""
    if isinstance(given, Curriculum):
        return given
    phase = given if isinstance(given, Phase) else Phase(Adjoint() if given is None else given)
    return Curriculum(partial(_constant, phase))


def _constant(phase: Phase, progress: float) -> Phase:
    return phase
