"""Task distributions: each draws stacks of tasks, reproducibly. ``ALL`` is the table of them."""

from __future__ import annotations

from rbml.tasks.base import Batch, Episodes, TaskDistribution, generator, task_seeds
from rbml.tasks.few_shot import FewShot
from rbml.tasks.sinusoid import Sinusoid

__all__ = ["ALL", "Batch", "Episodes", "FewShot", "Sinusoid", "TaskDistribution", "generator", "task_seeds"]

ALL = {"few_shot": FewShot, "sinusoid": Sinusoid}
