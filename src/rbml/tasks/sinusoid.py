"""Sinusoid regression (Finn, Abbeel and Levine, 2017, arXiv:1703.03400, section 5.1): the smallest problem there is.

Shapes: B tasks, K shots, Q queries.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import pi

import torch
from torch import Tensor

from rbml.data.batch import Batch
from rbml.data.inputs import Arrays, Modality
from rbml.data.targets import REAL, Target
from rbml.errors import UsageError
from rbml.tasks.base import Episodes, generator, task_seeds


@dataclass(frozen=True)
class Sinusoid:
    """Tasks ``y = amplitude * sin(x - phase)`` with amplitude in U[0.1, 5], phase in U[0, pi] and x in U[-5, 5].

    Args:
        shots: K, support points per task.
        queries: Q, query points per task.

    Raises:
        UsageError: for numbers below one.

    >>> Sinusoid(shots=5, queries=10).sample(3, generator(0)).support.x.shape
    torch.Size([3, 5, 1])
    """

    shots: int = 10
    queries: int = 10

    @property
    def modality(self) -> Modality:
        """Numbers as they are."""
        return Arrays()

    @property
    def target(self) -> Target:
        """Real values."""
        return REAL

    @property
    def outputs(self) -> int:
        """One value per point."""
        return 1

    @property
    def about(self) -> str:
        """A sentence on what the tasks are."""
        return "sinusoids with amplitude in U[0.1, 5], phase in U[0, pi] and x in U[-5, 5]"

    def __post_init__(self) -> None:
        """Check the numbers."""
        for name, number in (("shots", self.shots), ("queries", self.queries)):
            if number < 1:
                raise UsageError(f"{name} must be at least 1, not {number}.")

    def sample(self, count: int, generator: torch.Generator) -> Episodes:
        """Draw ``count`` tasks: support ``(B, K, 1)`` and query ``(B, Q, 1)``, x and y alike, in float32."""
        return self.draw(task_seeds(count, generator))

    def draw(self, seeds: Sequence[int]) -> Episodes:
        """Return the tasks of the given seeds: the same seed always gives the same task."""
        if not seeds:
            raise UsageError("no tasks were asked for: the count must be at least 1.")
        x, y = (torch.stack(parts)[..., None] for parts in zip(*(self._task(seed) for seed in seeds), strict=True))
        return Episodes(Batch(x[:, : self.shots], y[:, : self.shots]), Batch(x[:, self.shots :], y[:, self.shots :]))

    def curve(self, seed: int) -> tuple[float, float]:
        """Return the amplitude and the phase (radians) of the task of ``seed``, to draw its true curve."""
        amplitude, phase, _ = self._drawn(seed)
        return float(amplitude), float(phase)

    def _task(self, seed: int) -> tuple[Tensor, Tensor]:
        # One task at a time: in a stack, the last bit of torch.sin depends on the position of a number.
        amplitude, phase, x = self._drawn(seed)
        return x, amplitude * torch.sin(x - phase)

    def _drawn(self, seed: int) -> tuple[Tensor, Tensor, Tensor]:
        uniform = torch.rand(2 + self.shots + self.queries, generator=generator(seed))
        return 0.1 + 4.9 * uniform[0], pi * uniform[1], 10 * uniform[2:] - 5
