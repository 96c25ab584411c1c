"""Task distributions: each draws stacks of tasks by seed. ``ALL`` is the table of them."""

from __future__ import annotations

from rbml.data.batch import Batch, Inputs
from rbml.tasks.base import (
    Episode,
    Episodes,
    Stream,
    Task,
    TaskDistribution,
    TaskSource,
    generator,
    task_seeds,
)
from rbml.tasks.clusters import cactus
from rbml.tasks.continual import Continual
from rbml.tasks.few_shot import FewShot
from rbml.tasks.grouped import PerGroup
from rbml.tasks.jobs import Job
from rbml.tasks.mixture import Mixture
from rbml.tasks.padding import stack
from rbml.tasks.replay import Replay
from rbml.tasks.sinusoid import Sinusoid
from rbml.tasks.supervised import Supervised
from rbml.tasks.unlabelled import RandomClasses, aal, umtra

__all__ = [
    "ALL",
    "Batch",
    "Continual",
    "Episode",
    "Episodes",
    "FewShot",
    "Inputs",
    "Job",
    "Mixture",
    "PerGroup",
    "RandomClasses",
    "Replay",
    "Sinusoid",
    "Stream",
    "Supervised",
    "Task",
    "TaskDistribution",
    "TaskSource",
    "aal",
    "cactus",
    "generator",
    "stack",
    "task_seeds",
    "umtra",
]

ALL = {
    "few_shot": FewShot,
    "per_group": PerGroup,
    "mixture": Mixture,
    "sinusoid": Sinusoid,
    "supervised": Supervised,
    "umtra": umtra,
    "aal": aal,
    "cactus": cactus,
    "continual": Continual,
}
