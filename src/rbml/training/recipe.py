"""A recipe says everything that a run depends on, as plain values: it is the configuration in the run folder."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field, fields, replace
from inspect import signature
from pathlib import Path
from typing import Any, get_type_hints

import torch
from torch import nn

from rbml import algorithms, data, hypergrad, models
from rbml.data.sources.folder import read_classes
from rbml.errors import CheckpointError, UsageError, unknown
from rbml.hypergrad import Hypergradient
from rbml.learner import Learner, Statistics
from rbml.strategy.parsing import fitted
from rbml.strategy.settings import changed, frozen
from rbml.tasks import FewShot, generator
from rbml.training.strategy_file import LearnedStrategy, load_strategy

TRAIN, VALIDATE, TEST, START = range(4)
"""The streams of random numbers: training tasks, validation tasks, test tasks, initial weights."""

_ELSEWHERE = {
    "return",
    "model",
    "options",
    "loss",
    "strategy",
    "hypergradient",
    "generator",
    "curriculum",
    "lr",
    "steps",
}
"""Arguments of presets and of the learner that other entries of a recipe set, or that only a program can."""


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
        steps: inner steps; ``None`` is the preset's, or those of the strategy file.
        strategy: the parts of another strategy than the preset's, in order: ``"weight_decay, momentum, sgd"``.
        settings: options of its parts, by address: ``{"sgd.lr.per": "layer"}``, see :mod:`rbml.strategy.settings`.
        options: other options of the preset or of :class:`rbml.Learner`: ``{"adapt": "head.*"}``.
        strategy_file: a learned strategy to begin with, as ``rbml strategy export`` writes it; ``None`` is the preset's
            own, at its start.
        freeze_strategy: whether nothing of the strategy is learned.
        engine: the hypergradient, of ``rbml.hypergrad``, or ``auto``, which ``rbml train`` replaces by the one that
            ``rbml explain`` chooses; ``None`` is the preset's.
        engine_options: options of the engine: ``{"store": "segments"}``.
        model: the model, of ``rbml.models``.
        filters: filters of each block of conv4.
        norm: the norm of conv4: batch, group, layer or none.
        pool: how conv4 halves its maps: stride or max.
        size: height and width of the pictures, pixels.
        channels: 1 for grey, 3 for colour.
        context: context parameters of the model; ``None`` is 100 for cavia, which adapts them, else 0.
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
    strategy: str | None = None
    settings: dict[str, Any] = field(default_factory=dict)
    options: dict[str, Any] = field(default_factory=dict)
    strategy_file: str | None = None
    freeze_strategy: bool = False
    engine: str | None = None
    engine_options: dict[str, Any] = field(default_factory=dict)
    model: str = "conv4"
    filters: int = 64
    norm: str = "batch"
    pool: str = "stride"
    size: int = 28
    channels: int = 1
    context: int | None = None
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
            ("engine", self.engine or "adjoint", (*hypergrad.ALL, "auto")),
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
        for name in ("steps", "context"):
            if (getattr(self, name) or 0) < 0:
                raise UsageError(f"{name} must be at least 0, not {getattr(self, name)}")
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
        context = (100 if self.algorithm == "cavia" else 0) if self.context is None else self.context
        if self.model == "mlp":
            return models.MLP(self.channels * self.size**2, self.ways, hidden=(256, 128, 64, 64), context=context)
        shape = (self.channels, self.filters, self.norm, self.pool, self.size)
        return models.Conv4(self.ways, *shape, context=context)  # type: ignore[arg-type]

    def build_learner(self) -> Learner:
        """Return the learner at its start; the global random state is left as it was.

        Raises:
            UsageError: if the preset or the strategy has no such option.
            CheckpointError: if the strategy file cannot be read, or does not fit the model.
        """
        learned = None if self.strategy_file is None else load_strategy(Path(self.strategy_file))
        source = generator(self.seed, START)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(source.initial_seed())
            learner = algorithms.ALL[self.algorithm](self.build_model(), **self._options(learned))
            learner = self._with_strategy(learner, learned)
        if self.steps == 0 and learner.strategy.start is None:
            raise UsageError(f"steps must be at least 1, not 0: without an inner step {self.algorithm} adapts nothing")
        return learner

    def _with_strategy(self, learner: Learner, learned: LearnedStrategy | None) -> Learner:
        plan = own = learner.strategy if learned is None else learned.strategy
        if self.strategy is not None or self.settings:
            plan = changed(own, self.settings, self.strategy)
            lost = {part.name for part in own.parts if "lr" in part.hypers} - {part.name for part in plan.parts}
            if self.lr is not None and lost:
                raise UsageError(f"lr={self.lr:g} is that of {lost.pop()}, which is not in strategy={self.strategy!r}")
        if learned is not None:
            if self.lr is not None:
                raise UsageError(
                    f"lr={self.lr:g} has no place: {self.strategy_file} says what the strategy's numbers are"
                )
            return learned.onto(learner, self.freeze_strategy, plan)
        plan = frozen(plan) if self.freeze_strategy else plan
        return learner if plan is own else learner.with_strategy(plan)

    def _options(self, learned: LearnedStrategy | None) -> dict[str, Any]:
        """Return what the preset is called with, beside the model."""
        preset = algorithms.ALL[self.algorithm]
        chosen: dict[str, Any] = {"shared_head": self.shared_head, "statistics": self.statistics}
        chosen |= {"chunk": self.chunk, "compile": self.compile}
        steps = learned.steps if self.steps is None and learned is not None else self.steps
        chosen |= {name: value for name, value in (("lr", self.lr), ("steps", steps)) if value is not None}
        if "lr" in chosen and "lr" not in signature(preset).parameters:
            raise UsageError(f"{self.algorithm} has no lr to set: leave it out")
        if self.engine not in (None, "auto") or self.engine_options:
            chosen["hypergradient"] = self._engine()
        hints = get_type_hints(Learner.__init__) | get_type_hints(preset)
        known = [name for name in hints if name not in {*_ELSEWHERE, *chosen}]
        for name, value in self.options.items():
            if name not in known:
                raise unknown(f"option of {self.algorithm}", name, known)
            chosen[name] = fitted(value, hints[name], name)
        return chosen

    def _engine(self) -> Hypergradient:
        if self.engine in (None, "auto"):
            raise UsageError(f"options of an engine ({', '.join(self.engine_options)}) need its name: --engine NAME")
        kind = hypergrad.ALL[str(self.engine)]
        types = get_type_hints(kind)
        hints = {one.name: types[one.name] for one in fields(kind)}
        options: dict[str, Any] = {}
        for name, value in self.engine_options.items():
            if name not in hints:
                raise unknown(f"option of {self.engine}", name, hints)
            if name == "solver":
                if value not in hypergrad.SOLVERS:
                    raise unknown("solver", str(value), hypergrad.SOLVERS)
                options[name] = hypergrad.SOLVERS[value]()
            else:
                options[name] = fitted(value, hints[name], f"{name} of {self.engine}")
        engine: Hypergradient = kind(**options)
        return engine

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
