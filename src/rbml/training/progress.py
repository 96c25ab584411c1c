"""The result of one outer step, and the state of the outer loop: optimizer and learning-rate schedule."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from rbml.data.targets import Metric
from rbml.learner import Learner
from rbml.training.log import Records
from rbml.training.run_folder import RunFolder
from rbml.training.validation import Best


@dataclass(frozen=True)
class Progress:
    """The result of one outer step.

    Attributes:
        step: outer steps taken, from 1; steps of pretraining count up to 0.
        loss: the mean query loss over the step's tasks.
        value: the mean of the metric over the step's tasks.
        validation: the metric on the validation tasks; ``None`` if there was no validation at this step.
        metric: the metric.
    """

    step: int
    loss: float
    value: float
    validation: float | None
    metric: Metric


@dataclass(frozen=True)
class Outer:
    """The outer optimizer and its schedule.

    Attributes:
        optimizer: Adam.
        schedule: a cosine to zero.
    """

    optimizer: torch.optim.Optimizer
    schedule: torch.optim.lr_scheduler.LRScheduler

    @staticmethod
    def of(learner: Learner, lr: float, steps: int) -> Outer:
        """Return an optimizer of a learner's parameters for the given number of steps."""
        optimizer = torch.optim.Adam(learner.parameters(), lr=lr)
        return Outer(optimizer, torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps))

    def save(self, log: Records, run: RunFolder, learner: Learner, step: int, best: Best | None, **more: Any) -> None:
        """Write the checkpoint from which training can resume."""
        content = {
            "learner": learner.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "schedule": self.schedule.state_dict(),
            "random": torch.get_rng_state(),
            "step": step,
            "best": None if best is None else best.value,
        }
        log.save(run.last, "checkpoint", content | ({} if best is None else best.saved()) | more)

    def restore(self, saved: Mapping[str, Any]) -> None:
        """Restore optimizer, schedule and PyTorch's global random state from a checkpoint.

        Where the run has become longer than it was, its learning rate goes on along the cosine of the new length.
        """
        total = self.schedule.T_max  # type: ignore[attr-defined]
        self.optimizer.load_state_dict(saved["optimizer"])
        self.schedule.load_state_dict(saved["schedule"])
        if self.schedule.T_max != total:  # type: ignore[attr-defined]
            self.schedule.T_max = total  # type: ignore[attr-defined]
            rates = [rate_at(saved["step"], total, float(base)) for base in self.schedule.base_lrs]
            for group, rate in zip(self.optimizer.param_groups, rates, strict=True):
                group["lr"] = rate
            self.schedule._last_lr = [*rates]
        torch.set_rng_state(saved["random"])


def rate_at(step: int, total: int, first: float) -> float:
    """Return the learning rate after so many outer steps of a run: a cosine from the first to zero.

    >>> rate_at(0, 10, 0.002), rate_at(5, 10, 0.002), rate_at(10, 10, 0.002)
    (0.002, 0.001, 0.0)
    """
    return first * (1 + math.cos(math.pi * step / total)) / 2
