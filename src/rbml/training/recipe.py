"""A recipe says everything that a run depends on, as plain values: it is the configuration in the run folder."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields, replace
from typing import Any

import torch
from torch import nn

from rbml import algorithms, data, hypergrad, models
from rbml.errors import CheckpointError, UsageError, unknown
from rbml.learner import Learner, Statistics
from rbml.tasks import FewShot, generator

TRAIN, VALIDATE, TEST, START = range(4)
"""The streams of random numbers: training tasks, validation tasks, test tasks, initial weights."""

PROTOCOLS: dict[str, dict[str, Any]] = {
    "omniglot": {"split": "vinyals"},
}
"""What a source's papers do, where that is not a recipe's default."""


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
        engine: a hypergradient of ``rbml.hypergrad``; ``None`` is the preset's.
        model: a model of ``rbml.models``.
        filters: of each block of conv4.
        norm: of conv4: batch, group, layer or none.
        pool: of conv4: stride or max.
        size: height and width of the pictures, pixels.
        channels: 1 for grey, 3 for colour.
        shared_head: whether all classes start from one learned row.
        statistics: of batch norm while training: transductive or inductive.
        meta_steps: outer steps.
        tasks: tasks an outer step.
        outer_lr: of Adam, at the start; it falls to zero along a cosine.
        clip: the largest norm of a meta-gradient; 0 does not clip.
        seed: of everything that is drawn.
        chunk: tasks that are vectorised at once.
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
        if self.outer_lr <= 0 or self.clip < 0:
            raise UsageError(f"outer_lr must be above 0 and clip at least 0, not {self.outer_lr} and {self.clip}")

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
            part: which part.
            root: where data is looked for.
            **changes: of the recipe, such as another source or another number of queries.
        """
        recipe = replace(self, **changes)
        own = {"size": self.size, "channels": self.channels} if recipe.data.startswith("folder") else {}
        arrays = data.load(recipe.data, part, root, recipe.split, **own)
        wanted = (self.channels, self.size, self.size)
        if tuple(arrays.x.shape[1:]) != wanted:
            raise UsageError(f"{recipe.data} has pictures {tuple(arrays.x.shape[1:])}, but the model is for {wanted}")
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
        return Recipe(**values)
