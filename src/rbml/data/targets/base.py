"""What a target kind is: the loss, metrics, baselines and checks for the outputs of a model."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from torch import Tensor

from rbml.data.batch import Batch
from rbml.errors import UsageError

Loss = Callable[[Tensor, Tensor], Tensor]
"""From the prediction and the targets of one task, ``(n, ...)`` each, to a scalar."""

Baseline = Callable[[Batch, Batch], Tensor]
"""From the support and query batches of one task to predictions like a model's, without any learning across tasks."""


@dataclass(frozen=True)
class Metric:
    """A measure of how good predictions are.

    Attributes:
        name: its name, such as ``"accuracy"``.
        of: a function from the prediction ``(n, ...)`` and the batch of one task to a scalar; it respects the batch's
            mask, and uses operators that work under ``vmap``.
        better: whether higher or lower values are better.
        unit: ``"%"`` shows a share of one as percent; any other unit is printed after the number.
    """

    name: str
    of: Callable[[Tensor, Batch], Tensor]
    better: Literal["higher", "lower"]
    unit: str = ""

    def improves(self, value: float, best: float | None) -> bool:
        """Return whether a value is better than the best so far; NaN never is."""
        if value != value:
            return False
        return best is None or (value > best if self.better == "higher" else value < best)

    def shown(self, value: float) -> str:
        """Return a value as text, with its unit."""
        return f"{value:.1%}" if self.unit == "%" else f"{value:.3g}{' ' * bool(self.unit)}{self.unit}"


def unchanged(y: Tensor) -> Tensor:
    """Return targets as they are."""
    return y


@dataclass(frozen=True)
class Target:
    """What a model predicts, and how that is scored.

    Labels that a user gives, and records and metrics that a user sees, are in the user's units; ``y`` of a batch and
    predictions are in those that a model learns. They differ where a target is scaled (:func:`rbml.data.targets.real`).

    Attributes:
        kind: its name in :data:`rbml.data.targets.ALL`.
        loss: the default loss.
        metrics: at least one; the first decides which checkpoint is the best.
        baselines: each by its name; each predicts a whole task.
        check: refuses, with a ``UsageError``, a prediction ``(n, ...)`` and a batch that do not fit: labels out of
            range, shapes that would broadcast.
        read: from raw labels (and the names of the classes, if they are known) to targets ``(n, ...)`` and names.
        decode: from a prediction ``(n, ...)`` and the names to one record of plain values per example, which ``rbml
            predict`` prints.
        spec: the options of this target as plain values; saved with every model.
        make: from the options to the target; ``None`` where there are none.
        scaled: from targets in the user's units ``(..., d)`` to those that a model learns.
        unscaled: from targets or predictions to the user's units.
    """

    kind: str
    loss: Loss
    metrics: tuple[Metric, ...]
    baselines: Mapping[str, Baseline]
    check: Callable[[Tensor, Batch], None]
    read: Callable[[Sequence[Any], Sequence[str] | None], tuple[Tensor, list[str]]]
    decode: Callable[[Tensor, Sequence[str]], list[dict[str, Any]]]
    spec: Mapping[str, Any] = field(default_factory=dict)
    make: Callable[..., Target] | None = None
    scaled: Callable[[Tensor], Tensor] = unchanged
    unscaled: Callable[[Tensor], Tensor] = unchanged

    def with_spec(self, spec: Mapping[str, Any]) -> Target:
        """Return the target of this kind with other options.

        Raises:
            UsageError: if it has no options, or not these.
        """
        if not spec:
            return self
        if self.make is None:
            raise UsageError(f"targets of the kind {self.kind} have no options, but there are {', '.join(spec)}")
        return self.make(**spec)
