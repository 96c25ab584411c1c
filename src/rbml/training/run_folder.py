"""The run folder: all that is needed to resume, evaluate, adapt and report.

::

    config.json       the recipe, the setting, the whole strategy, a description of the data, versions, threads
    strategy.pt       the learned strategy with which it began, if there was one
    start.pt          the learner of another run with which it began, if there was one
    journal.jsonl     one line per outer step, with the validation if there was one
    last.pt           the checkpoint to resume from: theta0, phi, optimizer, schedule, step
    best.pt           theta0 and phi of the best validation
    ensemble/         theta0 and phi of the best validations, by outer step, if more than one is kept
    tensorboard/      the same curves for TensorBoard
    evaluations/      one file of scores per source of tasks on which it was measured
    plots/            the report of ``rbml report``
"""

from __future__ import annotations

import json
import platform
from collections.abc import Iterator
from contextlib import contextmanager
from inspect import signature
from pathlib import Path
from typing import Any

import torch

import rbml
from rbml import models
from rbml.data.setting import Setting
from rbml.errors import CheckpointError, RbmlError, UsageError
from rbml.learner import Learner
from rbml.recipe import Recipe, build
from rbml.strategy import Strategy
from rbml.strategy.serialize import described, plain
from rbml.training import files
from rbml.training.start import given, take

PRETRAINING = "pretraining"
"""The ``stage`` of a checkpoint or of an entry of the journal during pretraining; they have none afterwards."""

try:
    import fcntl
except ModuleNotFoundError:  # Windows has none: there, two processes are not kept from training the same run
    fcntl = None  # type: ignore[assignment]


class RunFolder:
    """The files of one run, by name."""

    def __init__(self, path: str | Path) -> None:
        """Point to a folder; nothing is read or created."""
        self.path = Path(path)

    @property
    def config(self) -> Path:
        """The configuration: the recipe, and the circumstances of the run."""
        return self.path / "config.json"

    @property
    def journal(self) -> Path:
        """What happened at each outer step, one line of JSON per step."""
        return self.path / "journal.jsonl"

    @property
    def last(self) -> Path:
        """The checkpoint to resume from."""
        return self.path / "last.pt"

    @property
    def best(self) -> Path:
        """The learner of the best validation."""
        return self.path / "best.pt"

    @property
    def ensemble(self) -> Path:
        """Where the learners of the best validations are, if more than one is kept."""
        return self.path / "ensemble"

    def among_best(self, step: int) -> Path:
        """The learner of one of the best validations."""
        return self.ensemble / f"{step}.pt"

    @property
    def strategy(self) -> Path:
        """The learned strategy with which the run began: a copy of the file that was given."""
        return self.path / "strategy.pt"

    @property
    def start(self) -> Path:
        """The theta0 and phi with which the run began: those of the run that was given."""
        return self.path / "start.pt"

    @property
    def tensorboard(self) -> Path:
        """Where TensorBoard's curves go."""
        return self.path / "tensorboard"

    @property
    def plots(self) -> Path:
        """Where the report goes."""
        return self.path / "plots"

    def evaluation(self, name: str) -> Path:
        """The scores on one source of tasks, such as ``"omniglot-5w1s"``."""
        return self.path / "evaluations" / f"{name}.json"

    def create(
        self, recipe: Recipe, about: dict[str, str], data_root: str | None, setting: Setting | None = None
    ) -> None:
        """Create the folder and write the configuration, with a copy of the strategy file.

        Args:
            recipe: what the run does.
            about: descriptions of the training and validation tasks, and of the protocol.
            data_root: where data was looked for.
            setting: the setting that follows from the data; ``None`` means the recipe's pictures with classes.

        Raises:
            RbmlError: if the folder cannot be created.
            UsageError: if the preset or the strategy does not have an option of the recipe.
            CheckpointError: if the strategy file cannot be read, or does not fit.
        """
        setting = build.setting(recipe) if setting is None else setting
        strategy = build.learner(recipe, setting).strategy
        with files.writing(self.path):
            self.path.mkdir(parents=True, exist_ok=True)
        versions = {"rbml": rbml.__version__, "torch": torch.__version__, "python": platform.python_version()}
        content = {
            "recipe": recipe.to_json(),
            "setting": setting.to_json(),
            "strategy": _written(strategy),
            "about": about,
            "data_root": data_root,
            "versions": versions,
            "threads": torch.get_num_threads(),
        }
        if recipe.strategy.file is not None:
            files.write_atomically(self.strategy, Path(recipe.strategy.file).read_bytes())
        if recipe.outer.start is not None:
            other = given(RunFolder(recipe.outer.start).learner())
            taken = take(build.learner(recipe, setting), other)
            content["about"] = about | {"start": f"{taken}, of {recipe.outer.start}"}
            files.save(self.start, "start", other)
        files.write_json(self.config, content)

    def begin(self, learner: Learner) -> None:
        """Give a new learner what the run was told to begin with: theta0 and phi of another run, if there is one.

        Raises:
            CheckpointError: if the copy of them is damaged.
        """
        if self.start.is_file():
            take(learner, files.load(self.start, "start"))

    def lengthen(self, steps: int) -> None:
        """Write into the configuration that the run is to have more outer steps than before.

        Raises:
            UsageError: if it has as many already.
        """
        content = self.read_config()
        recipe = Recipe.from_json(content["recipe"])
        if steps <= recipe.outer.meta_steps:
            raise UsageError(f"the run in {self.path} has {recipe.outer.meta_steps} outer steps: ask for more")
        content["recipe"] = recipe.changed(meta_steps=steps).to_json()
        files.write_json(self.config, content)

    def read_config(self) -> dict[str, Any]:
        """Return the configuration.

        Raises:
            CheckpointError: if there is none, or it cannot be read.
        """  # noqa: DOC501  the ValueError is caught below
        if not self.config.is_file():
            what = "is not a run folder: it has no config.json" if self.path.exists() else "does not exist"
            raise CheckpointError(f"{self.path} {what}. Expected the run folder that rbml train or rbml demo made")
        try:
            content: dict[str, Any] = json.loads(self.config.read_text())
            if not content.keys() >= {"recipe", "data_root", "threads"}:
                raise ValueError("entries are missing")
        except (ValueError, AttributeError) as error:
            raise CheckpointError(f"{self.config} is damaged ({error}): restore it from a copy") from error
        return content

    def recipe(self) -> Recipe:
        """Return the recipe of the run; if it names a strategy file, that is the copy in the folder."""
        recipe = Recipe.from_json(self.read_config()["recipe"])
        return recipe if recipe.strategy.file is None else recipe.changed(strategy_file=str(self.strategy))

    def setting(self) -> Setting:
        """Return the setting of the run; for a run of rbml 0.1.0, the one that follows from its recipe.

        Raises:
            CheckpointError: if it is missing, or names something that this rbml does not have.
        """
        written = self.read_config().get("setting")
        return build.setting(self.recipe()) if written is None else Setting.from_json(written)

    def learner(self, which: str = "best") -> Learner:
        """Return the learner of the best validation (or of the last checkpoint), ready to use.

        Raises:
            CheckpointError: if there is no checkpoint yet, or it is damaged or of another model.
        """
        recipe = self.recipe()
        path = self.best if which == "best" and self.best.is_file() else self.last
        if not path.is_file():
            raise CheckpointError(f"{self.path} has no checkpoint yet: rbml train --resume {self.path} goes on")
        content = files.load(path, "best" if path == self.best else "checkpoint")
        if content.get("stage") == PRETRAINING:
            raise CheckpointError(f"{self.path} is still pretraining: rbml train --resume {self.path} goes on")
        learner = build.learner(to_be_restored(recipe), self.setting())
        restore(learner, content["learner"], path)
        return learner

    def learners(self) -> list[Learner]:
        """Return the learners of the best validations, the best first.

        Raises:
            CheckpointError: if only one was kept, or a file is damaged or of another model.
        """
        places = files.load(self.last, "checkpoint").get("ranking", []) if self.last.is_file() else []
        if len(places) < 2:
            kept = "only its best learner" if self.best.is_file() else "no learner yet"
            raise CheckpointError(f"{self.path} has kept {kept}: an ensemble needs a run trained with --keep-best 5")
        recipe, setting, found = to_be_restored(self.recipe()), self.setting(), []
        for step, _ in places:
            found.append(build.learner(recipe, setting))
            restore(found[-1], files.load(self.among_best(step), "best")["learner"], self.among_best(step))
        return found

    def fresh(self) -> Learner:
        """Return the learner before any training, without pretrained weights.

        Raises:
            CheckpointError: if the configuration cannot be read.
        """
        return build.learner(self.recipe(), self.setting())

    def saved_step(self) -> int:
        """Return the number of outer steps at the last checkpoint; 0 if there is none.

        Steps of pretraining are numbered so that the last of them is 0, and the earlier ones are negative.

        Raises:
            CheckpointError: if it is damaged.
        """
        return int(files.load(self.last, "checkpoint")["step"]) if self.last.is_file() else 0

    def trained(self, which: str = "best") -> int:
        """Return after how many outer steps :meth:`learner` of the same argument was kept; 0 if there is none.

        Raises:
            CheckpointError: if the checkpoint is damaged.
        """
        best = which == "best" and self.best.is_file()
        return int(files.load(self.best, "best")["step"]) if best else self.saved_step()

    def best_validation(self) -> float:
        """Return the validation of the best learner so far.

        Raises:
            CheckpointError: if there is none, or it is damaged.
        """
        return float(files.load(self.best, "best")["validation"])

    def lines(self, pretraining: bool = False) -> Iterator[dict[str, Any]]:
        """Yield the journal's entries; a last line that was cut off is left out.

        Args:
            pretraining: whether to yield those of pretraining too, whose steps count up to 0.

        Raises:
            CheckpointError: if any other line is damaged.
        """
        if not self.journal.is_file():
            return
        with self.journal.open(errors="replace") as file:
            for number, line in enumerate(file, 1):
                if line.endswith("\n"):
                    entry = self._entry(line, number)
                    if pretraining or entry.get("stage") != PRETRAINING:
                        yield entry

    def _entry(self, line: str, number: int) -> dict[str, Any]:
        try:
            entry = json.loads(line)
        except ValueError:
            entry = None
        if not isinstance(entry, dict) or "step" not in entry:
            raise CheckpointError(f"{self.journal} is damaged: line {number} is not an entry; remove that line")
        return entry

    def trim_journal(self, step: int) -> None:
        """Remove the journal's entries after ``step``: these steps will be taken again."""
        kept = [line for line in self.lines(pretraining=True) if line["step"] <= step]
        files.write_atomically(self.journal, "".join(json.dumps(line) + "\n" for line in kept).encode())

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keep other processes from training this run at the same time; the lock ends with the process.

        Raises:
            RbmlError: if another process is training the run.
        """
        with self.config.open("rb") as file:
            if fcntl is not None:
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError as error:
                    raise RbmlError(
                        f"{self.path} is being trained by another process: wait for it, or stop it"
                    ) from error
            yield


def to_be_restored(recipe: Recipe) -> Recipe:
    """Return the recipe for a learner that gets all its numbers from a file: its model starts at random.

    Pretrained weights would be read in vain, and need their package or a network.
    """
    model = recipe.model
    maker: Any = models.ALL[model.name.partition(":")[0]]
    if "weights" not in signature(maker).parameters:
        return recipe
    return recipe.changed(model_options={**model.options, "weights": "none"})


def _written(strategy: Strategy) -> Any:
    """Return the whole strategy as plain values, or as text if a part of it is not in rbml's tables."""
    try:
        return plain(strategy)
    except UsageError:
        return described(strategy)


def restore(learner: Learner, state: dict[str, Any], path: Path) -> None:
    """Load a learner's parameters.

    Raises:
        CheckpointError: if they belong to another model.
    """
    try:
        learner.load_state_dict(state)
    except RuntimeError as error:
        first = str(error).splitlines()[1].strip() if "\n" in str(error) else str(error)
        raise CheckpointError(f"{path} belongs to another model than the run's configuration: {first}") from error
