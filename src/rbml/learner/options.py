"""The options of a learner besides model, strategy and engine: how theta begins, and how the work is run."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Literal, NamedTuple, get_args

from rbml.errors import UsageError, unknown
from rbml.hypergrad import Adjoint, Hypergradient

Compile = Literal["no", "trace", "step", "whole", "auto"]
Vectorise = Literal["auto"] | bool


@dataclass(frozen=True)
class Head:
    """Which parameters have one row per class, and how these rows begin.

    They let the learner start for any number of classes: for fewer it uses the first rows, for more it repeats rows
    (worse than a learner that was meta-trained with that many).

    Args:
        pattern: a pattern of their names; ``None`` means the last linear layer that the model uses.
        shared: learn one row from which every class starts (Ye and Chao 2022, arXiv:2106.16245), rather than one row
            per class.
    """

    pattern: str | None = None
    shared: bool = False


@dataclass(frozen=True)
class Initial:
    """Where theta begins, and which part of it a task may change.

    Args:
        adapt: which parameters a task adapts, a pattern such as ``"conv.*"``; ``"head"`` and ``"body"`` stand for the
            parameters of the head and for all the others. Parameters that are not adapted are learned across tasks.
        head: which parameters have one row per class.
        stepwise: a pattern of parameters that have their own value for every inner step, and one for the queries after
            the last step: learned across tasks, not adapted. ``"norms"`` stands for the parameters of all
            normalisation layers (MAML++'s per-step batch norm).
        reset: a pattern of adapted parameters that begin every task at the model's own, fixed value, which is not
            learned: context parameters.
    """

    adapt: str = "*"
    head: Head = field(default_factory=Head)
    stepwise: str = ""
    reset: str = ""


@dataclass(frozen=True)
class Execution:
    """How the work is run; none of these options changes a result by more than rounding.

    Args:
        chunk: how many tasks are vectorised at once; this bounds memory. Traced and compiled as a whole, chunks run on
            the threads that PyTorch is given, one on each: there 4 to 8 tasks are a good number.
        compile: ``"no"`` runs PyTorch's operators one by one, under the transforms of ``torch.func``. ``"trace"``
            follows these once for each shape of tasks (some seconds) and then runs the simplified list of operators:
            of all steps if they are few, else of one step and its adjoint. ``"whole"`` also compiles the meta-gradient
            as one graph (a minute or more; for few inner steps), of one task where tasks run apart
            (:mod:`rbml.learner.apart`), several at the same time. ``"step"`` compiles one inner step and its adjoint,
            or of a small network a few steps at once, which are used for all steps (for many inner steps); both need a
            C++ compiler. ``"auto"`` measures on the first tasks which of these pays (:mod:`rbml.learner.choosing`).
        calls: with ``compile="auto"``: how many meta-gradients will be taken, about.
        vectorise: whether tasks run side by side under ``vmap``. ``False`` runs each by itself, and several at the same
            time on the threads that PyTorch is given (on a processor). ``"auto"`` does that where the operators of one
            task are large enough (:mod:`rbml.learner.apart`), and where the model does not run under ``vmap``, with a
            warning.
        verify: whether to verify the first meta-gradient of each shape of tasks: see
            :mod:`rbml.learner.verification`.

    Raises:
        UsageError: for a chunk or calls below one, or an unknown choice.
    """

    chunk: int = 32
    compile: Compile = "no"
    vectorise: Vectorise = "auto"
    verify: bool = True
    calls: int = 1000

    def __post_init__(self) -> None:
        """Refuse values that are not allowed."""
        if self.chunk < 1:
            raise UsageError(f"chunk is how many tasks run at once, at least 1, not {self.chunk}")
        if self.calls < 1:
            raise UsageError(f"calls is how many meta-gradients will be taken, at least 1, not {self.calls}")
        if self.compile not in get_args(Compile):
            raise unknown("choice of compile", str(self.compile), get_args(Compile))
        if self.vectorise not in ("auto", True, False):
            raise UsageError(f"vectorise is 'auto', True or False, not {self.vectorise!r}")


class Phase(NamedTuple):
    """The settings that may change while training goes on.

    Attributes:
        hypergradient: the engine.
        step_weights: the weight of the query loss after each inner step, T numbers (MAML++'s multi-step loss);
            ``None`` counts the last step only.
    """

    hypergradient: Hypergradient = Adjoint()
    step_weights: Sequence[float] | None = None


@dataclass(frozen=True)
class Curriculum:
    """The phase of training as a pure function of progress.

    Args:
        phase: a function from the share of training that is done, 0 to 1, to the phase.
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
