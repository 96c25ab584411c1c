"""A recipe says everything that a run depends on, as plain values: it is the configuration in the run folder."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

import torch
from torch import nn

from rbml import algorithms, data, hypergrad, models
from rbml.binding import Statistics
from rbml.data.folder import read_classes
from rbml.errors import CheckpointError, UsageError, unknown
from rbml.learner import Learner
from rbml.tasks import FewShot, generator

TRAIN, VALIDATE, TEST, START = range(4)
"""The streams of random numbers: training tasks, validation tasks, test tasks, initial weights."""


def protocol(source: str, ways: int | None, algorithm: str | None) -> dict[str, Any]:
    """Return what a source's papers do, where that is not a recipe's default.

    Omniglot: Finn et al. 2017 (arXiv:1703.03400, appendix A.1), whose 5-way setting is the default.
    """
    if source != "omniglot":
        return {}
    twenty = {"lr": 0.1, "steps": 5, "tasks": 16} if ways == 20 and algorithm in (None, "maml", "fomaml") else {}
    return {"split": "vinyals"} | twenty


@dataclass(frozen=True)
class Recipe:
    """One few-shot classification run.

    Attributes:
        data: a source of ``rbml.data``, or ``folder:PATH``.
        split: which split of the classes; ``None`` is the source's own.
        ways: classes a task.
        shots: support examples a class.
        queries: query examples a class while training.
        algorithm: a preset of ``rbml.algorithms``.
        lr: its inner learning rate, or where that starts; ``None`` is the preset's.
        steps: inner steps; ``None`` is the preset's.
        engine: the hypergradient, of ``rbml.hypergrad``; ``None`` is the preset's.
        model: the model, of ``rbml.models``.
        filters: filters of each block of conv4.
        norm: the norm of conv4: batch, group, layer or none.
        pool: how conv4 halves its maps: stride or max.
        size: height and width of the pictures, pixels.
        channels: 1 for grey, 3 for colour.
        shared_head: whether all classes start from one learned row.
        statistics: of batch norm on queries while training: transductive (their own) or inductive (of support).
        meta_steps: outer steps: how often theta0 and phi are changed.
        tasks: tasks an outer step.
        outer_lr: the learning rate of Adam at the start; it falls to zero along a cosine.
        clip: the largest norm of a meta-gradient; 0 does not clip.
        seed: the seed of everything that is drawn.
        chunk: tasks that are vectorised at once; fewer need less memory.
        compile: compile the meta-gradient first, which takes a minute and a C++ compiler, and pays in a long run.
        validate_every: outer steps between validations.
        validate_tasks: tasks of a validation.
        save_every: outer steps between checkpoints.
    """

    data: str = "glyphs"
    split: str | None = None
    ways: int = 5
    shots: int = 1
    queries: int = 5
    algorithm: str = "maml"
    lr: float | None = None
    steps: int | None = None
    engine: str | None = None
    model: str = "conv4"
    filters: int = 64
    norm: str = "batch"
    pool: str = "stride"
    size: int = 28
    channels: int = 1
    shared_head: bool = False
    statistics: Statistics = "transductive"
    meta_steps: int = 2000
    tasks: int = 32
    outer_lr: float = 2e-3
    clip: float = 10.0
    seed: int = 0
    chunk: int = 32
    compile: bool = False
    validate_every: int = 200
    validate_tasks: int = 200
    save_every: int = 100

    def __post_init__(self) -> None:
        """Refuse names and numbers that cannot be meant."""
        for kind, name, known in (
            ("algorithm", self.algorithm, algorithms.ALL),
            ("model", self.model, models.ALL),
            ("engine", self.engine or "adjoint", hypergrad.ALL),
            ("choice of statistics", self.statistics, ("transductive", "inductive")),  # conv4 keeps no running ones
        ):
            if name not in known:
                raise unknown(kind, name, known)
        positive = ("ways", "shots", "queries", "filters", "size", "channels", "meta_steps", "tasks", "chunk",
                    "validate_every", "validate_tasks", "save_every")  # fmt: skip
        for name in positive:
            if getattr(self, name) < 1:
                raise UsageError(f"{name} must be at least 1, not {getattr(self, name)}")
        if self.ways < 2:
            raise UsageError("a task needs at least 2 ways to tell apart, not 1")
        if self.steps is not None and self.steps < 1:
            raise UsageError(f"steps must be at least 1, not {self.steps}: without an inner step nothing is adapted")
        for name in ("lr", "outer_lr"):
            rate = getattr(self, name)
            if rate is not None and not 0 < rate < math.inf:
                raise UsageError(f"{name} must be a number above 0, not {rate}")
        if not 0 <= self.clip < math.inf:
            raise UsageError(f"clip must be a number, at least 0 (which does not clip), not {self.clip}")
        if self.seed < 0:
            raise UsageError(f"seed must be at least 0, not {self.seed}")
        if self.channels not in (1, 3):
            raise UsageError(f"channels must be 1 (grey) or 3 (colour), not {self.channels}")

    def build_model(self) -> nn.Module:
        """Return the model with its start weights."""
        if self.model == "mlp":
            return models.MLP(self.channels * self.size**2, self.ways, hidden=(256, 128, 64, 64))
        return models.Conv4(self.ways, self.channels, self.filters, self.norm, self.pool, self.size)  # type: ignore[arg-type]

    def build_learner(self) -> Learner:
        """Return the learner at its start; the global random state is left as it was."""
        options: dict[str, Any] = {"shared_head": self.shared_head, "statistics": self.statistics}
        options |= {"chunk": self.chunk, "compile": self.compile}
        for name, value in (("lr", self.lr), ("steps", self.steps)):
            if value is not None:
                options[name] = value
        if self.engine is not None:
            options["hypergradient"] = hypergrad.ALL[self.engine]()
        source = generator(self.seed, START)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(source.initial_seed())
            return algorithms.ALL[self.algorithm](self.build_model(), **options)

    def build_tasks(self, part: str, root: str | None = None, **changes: Any) -> FewShot:
        """Return the tasks of one part of the classes, ``"train"``, ``"val"`` or ``"test"``.

        Args:
            part: which part; ``"all"`` for every class of a folder.
            root: where data is looked for.
            **changes: of the recipe, such as another source or another number of queries.
        """
        recipe = replace(self, **changes)
        own = {"size": self.size, "channels": self.channels} if recipe.data.startswith("folder") else {}
        if part == "all" and own:
            arrays = read_classes(recipe.data.partition(":")[2], self.size, self.channels)
        else:
            arrays = data.load(recipe.data, part, root, recipe.split, **own)
        wanted = (self.channels, self.size, self.size)
        if tuple(arrays.x.shape[1:]) != wanted:
            has, model = (" x ".join(map(str, shape)) for shape in (arrays.x.shape[1:], wanted))
            raise UsageError(
                f"{recipe.data} has pictures of {has} (channels, height, width), but the model is for {model}: "
                f"a run of size {arrays.x.shape[-1]} and channels {arrays.x.shape[1]} fits them"
            )
        return FewShot(arrays, recipe.ways, recipe.shots, recipe.queries)

    def to_json(self) -> dict[str, Any]:
        """Return the recipe as plain values."""
        return asdict(self)

    @staticmethod
    def from_json(values: dict[str, Any]) -> Recipe:
        """Return the recipe of plain values.

        Raises:
            CheckpointError: if they are not those of a recipe.
        """
        known = {field.name for field in fields(Recipe)}
        if strange := sorted(set(values) - known):
            raise CheckpointError(
                f"the run's configuration has entries that this rbml does not know: {', '.join(strange)}"
            )
        try:
            return Recipe(**values)
        except (TypeError, UsageError) as error:
            raise CheckpointError(f"the run's configuration cannot be used by this rbml: {error}") from error
