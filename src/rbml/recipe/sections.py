"""The sections of a recipe: frozen, validated, and importable without PyTorch."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field, Strict, ValidationError, field_validator, model_validator

from rbml import catalogue
from rbml.errors import CheckpointError, UsageError, unknown
from rbml.recipe import entries
from rbml.recipe.messages import explained, kind_name
from rbml.recipe.migrate import is_flat, migrated

Count = Annotated[int, Field(ge=1)]

_NO_ENCODER = ""
_SIZED = re.compile(r"(.*?)\(((?:\s*(?:ways|shots|queries)\s*=\s*\d+\s*,?)+)\)", re.DOTALL)


class Section(BaseModel):
    """What all sections share: frozen, strict types, no unknown entries; wrong values raise a ``UsageError``."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)
    place: ClassVar[str] = ""

    @model_validator(mode="wrap")
    @classmethod
    def _refuse(cls, values: Any, handler: Callable[[Any], Any]) -> Any:
        try:
            return handler(values)
        except ValidationError as error:
            raise explained(error, cls.place, list(cls.model_fields)) from error


class Choice(Section):
    """A member of a family, by name, with the arguments of its constructor."""

    name: str
    options: dict[str, Any] = {}


class Data(Section):
    """A source of data: a name of ``rbml.data``, with a path if it needs one (``folder:PATH``).

    Its tasks may have sizes of their own, which differ from those of the recipe: ``omniglot(ways=20, shots=1)``.
    """

    place: ClassVar[str] = "data"
    name: str
    path: str | None = None
    split: str | None = None
    options: dict[str, Any] = {}
    sizes: dict[Literal["ways", "shots", "queries"], Count] = {}

    @staticmethod
    def of(source: str) -> Data:
        """Return the source that a string such as ``"folder:PATH"`` or ``"omniglot(ways=20)"`` names.

        >>> Data.of("folder:a(b)(shots=5, ways=3)").sizes
        {'shots': 5, 'ways': 3}
        """
        found = _SIZED.fullmatch(source)
        bare, text = found.groups() if found else (source, "")
        pairs = (one.split("=") for one in text.split(",") if one.strip())
        sizes: dict[Any, int] = {name.strip(): int(number) for name, number in pairs}
        name, _, path = bare.partition(":")
        return Data(name=name, path=path or None, sizes=sizes)

    @property
    def source(self) -> str:
        """The string that names this source."""
        sizes = f"({', '.join(f'{name}={size}' for name, size in self.sizes.items())})" if self.sizes else ""
        return (self.name if self.path is None else f"{self.name}:{self.path}") + sizes


class TaskChoice(Section):
    """How tasks are drawn from the data."""

    place: ClassVar[str] = "tasks"
    name: str | None = None
    ways: Count = 5
    shots: Count = 1
    queries: Count = 5
    labels: Literal["given", "none"] = "given"
    options: dict[str, Any] = {}


class Inputs(Section):
    """How pictures are read, and the pretrained backbone, if there is one, whose features the model learns on."""

    place: ClassVar[str] = "inputs"
    size: Count = 28
    channels: Count = 1
    encoder: str | None = None


class StrategyChoice(Section):
    """How the strategy differs from the algorithm's own."""

    place: ClassVar[str] = "strategy"
    chain: str | None = None
    settings: dict[str, Any] = {}
    file: str | None = None
    freeze: bool = False


class Outer(Section):
    """Training across tasks."""

    place: ClassVar[str] = "outer"
    start: str | None = None
    meta_steps: Annotated[int, Field(ge=0)] = 2000
    pretrain: Annotated[int, Field(ge=0)] = 0
    tasks: Count = 32
    lr: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 2e-3
    clip: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 10.0
    seed: Annotated[int, Field(ge=0)] = 0
    validate_every: Count = 200
    validate_tasks: Count = 200
    patience: Annotated[int, Field(ge=0)] = 0
    keep_best: Count = 1
    save_every: Count = 100


class Execution(Section):
    """How the work is run; none of these options changes a result by more than rounding."""

    place: ClassVar[str] = "execution"
    chunk: Count = 32
    compile: Literal["no", "trace", "step", "whole", "auto"] = "no"
    vectorise: Literal["auto", "yes", "no"] = "auto"
    verify: bool = True

    @field_validator("compile", mode="before")
    @classmethod
    def _switch(cls, value: Any) -> Any:
        """Accept true for ``"whole"`` and false for ``"no"``: in rbml 0.1.0 this was a switch."""
        return {True: "whole", False: "no"}[value] if isinstance(value, bool) else value


class Recipe(Section):
    """Everything that a run depends on: the configuration in its folder.

    Attributes:
        data: where examples come from.
        tasks: how tasks are drawn from them.
        inputs: how pictures are read.
        model: a model of ``rbml.models``; what it must know about the data (channels, outputs ...) is filled in.
        algorithm: a preset of ``rbml.algorithms``, with any option of it or of :class:`rbml.Learner`.
        strategy: changes of the strategy's parts and options, or a learned strategy to begin with.
        engine: the hypergradient, of ``rbml.hypergrad``, or ``auto``, which ``rbml train`` replaces by the one that
            ``rbml explain`` chooses; ``None`` is the algorithm's.
        outer: training across tasks.
        execution: how the work is run.
    """

    data: Annotated[tuple[Data, ...], Strict(False), Field(min_length=1)] = (Data(name="glyphs"),)
    tasks: TaskChoice = TaskChoice()
    inputs: Inputs = Inputs()
    model: Choice = Choice(name="conv4")
    algorithm: Choice = Choice(name="maml")
    strategy: StrategyChoice = StrategyChoice()
    engine: Choice | None = None
    outer: Outer = Outer()
    execution: Execution = Execution()

    @model_validator(mode="after")
    def _check(self) -> Recipe:
        """Refuse unknown names, and numbers that are not allowed."""
        for one in self.data:
            if one.name not in catalogue.names("data"):
                raise unknown("data source", one.name, [*catalogue.names("data"), "folder:PATH"])
        for kind, name, known in (
            ("algorithm", self.algorithm.name, catalogue.names("algorithms")),
            ("model", self.model.name.partition(":")[0], catalogue.names("models")),
            ("encoder", (self.inputs.encoder or _NO_ENCODER).partition(":")[0], catalogue.names("backbones")),
            ("engine", self.engine.name if self.engine else "auto", (*catalogue.names("engines"), "auto")),
            ("kind of task", self.tasks.name or catalogue.names("tasks")[0], catalogue.names("tasks")),
        ):
            if name not in known and (kind, name) != ("encoder", _NO_ENCODER):
                raise unknown(kind, name, known)
        if self.tasks.labels == "none" and self.tasks.name not in (None, *entries.WITHOUT_LABELS):
            listed = ", ".join(entries.WITHOUT_LABELS)
            raise UsageError(f"tasks of the kind {self.tasks.name} need labels: without labels there are {listed}")
        if self.tasks.ways < 2:
            raise UsageError(f"a task needs at least 2 classes (ways), not {self.tasks.ways}")
        if self.inputs.channels not in (1, 3):
            raise UsageError(f"channels must be 1 (grey) or 3 (colour), not {self.inputs.channels}")
        if self.outer.meta_steps < 1 and not self.outer.pretrain:
            raise UsageError(f"meta_steps must be at least 1 without pretraining, not {self.outer.meta_steps}")
        for name, value in self.short().items():
            _check_option(name, value)
        return self

    @staticmethod
    def of(**changes: Any) -> Recipe:
        """Return the default recipe with entries changed by their short names: ``Recipe.of(ways=3, filters=8)``.

        Raises:
            UsageError: for an unknown name, or a value that is not allowed.

        >>> Recipe.of(data="folder:pictures", filters=8).model
        Choice(name='conv4', options={'filters': 8})
        """
        return Recipe().changed(**changes)

    def changed(self, **changes: Any) -> Recipe:
        """Return the recipe with entries changed by their short names, as in :meth:`of`.

        ``None`` removes an option. Another source, model or engine begins without the options of the former one.

        Raises:
            UsageError: for an unknown name, or a value that is not allowed.
        """  # noqa: DOC501  `unknown` returns the UsageError
        tree = self.model_dump()
        tree["data"], *others = tree["data"]
        if changes.get("data") is not None:
            sources = [changes["data"]] if isinstance(changes["data"], str) else changes["data"]
            tree["data"], *others = (Data.of(source).model_dump() for source in sources)
        elif sized := {name for name in ("ways", "shots", "queries") if changes.get(name) is not None}:
            for one in (tree["data"], *others):  # what is asked for now takes precedence over a source's own sizes
                one["sizes"] = {name: size for name, size in one["sizes"].items() if name not in sized}
        if changes.get("engine", "") is None:
            tree["engine"] = None
        # Names first: a new name empties the table of options, which the same call may fill.
        ordered = sorted(changes.items(), key=lambda item: not (entries.place(item[0]) or "").endswith(".name"))
        for name, value in ordered:
            path = entries.place(name)
            if path is None and name != "data":
                raise unknown("entry of a recipe", name, ["data", *entries.ENTRIES])
            if path is not None and (name, value) != ("engine", None):
                entries.put(tree, path, value)
        engine = tree["engine"] or {}
        if "name" not in engine:
            if engine.get("options"):
                raise UsageError(f"options of an engine ({', '.join(engine['options'])}) need its name: --engine NAME")
            tree["engine"] = None
        return Recipe(**(tree | {"data": (tree["data"], *others)}))

    @property
    def source(self) -> str:
        """The text that means the data: one source, or several with a plus between them."""
        return "+".join(one.source for one in self.data)

    def short(self) -> dict[str, Any]:
        """Return the entries that are set, by their short names."""
        tree = self.model_dump()
        tree["data"] = tree["data"][0]
        found = {name: entries.value_at(tree, entry.path) for name, entry in entries.ENTRIES.items()}
        return {name: value for name, value in found.items() if value is not None}

    def tables(self) -> dict[str, dict[str, Any]]:
        """Return the options that have no short names, by the table that ``--set`` names."""
        tree = self.model_dump()
        tree["data"] = tree["data"][0]
        short = {entry.path for entry in entries.ENTRIES.values()}
        found = {table: entries.value_at(tree, path) or {} for table, path in entries.TABLES.items()}
        return {
            table: {name: value for name, value in own.items() if f"{entries.TABLES[table]}.{name}" not in short}
            for table, own in found.items()
        }

    def to_json(self) -> dict[str, Any]:
        """Return the recipe as plain values."""
        return self.model_dump(mode="json")

    @staticmethod
    def from_json(values: Mapping[str, Any]) -> Recipe:
        """Return the recipe that plain values describe, also one that rbml 0.1.0 wrote.

        Raises:
            CheckpointError: if they do not describe a recipe.
        """
        try:
            return Recipe(**(migrated(values) if is_flat(values) else values))
        except (TypeError, UsageError) as error:
            raise CheckpointError(f"the run's configuration cannot be used by this rbml: {error}") from error


def _check_option(name: str, value: Any) -> None:
    """Refuse wrong values of options that have a short name: tables of options have no types in the tree."""
    entry = entries.ENTRIES[name]
    if ".options." not in entry.path or isinstance(value, dict | list):  # a learned number, or a range to draw from
        return
    whole = isinstance(value, int) and not isinstance(value, bool)
    if not (whole if entry.kind is int else whole or isinstance(value, float) if entry.kind is float
            else isinstance(value, entry.kind)):  # fmt: skip
        raise UsageError(f"{name} must be {kind_name(entry.kind)}, not {value!r}")
    if entry.choices and value not in entry.choices:
        raise unknown(f"choice of {name}", str(value), entry.choices)
    if entry.least is not None and value < entry.least:
        raise UsageError(f"{name} must be at least {entry.least:g}, not {value}")
    if name == "lr" and not 0 < value < math.inf:
        raise UsageError(f"lr must be a number above 0, not {value}")
