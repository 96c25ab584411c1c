"""The tasks on which something that was learned is measured: of its own source, or of another one."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from rbml.cli.devices import chosen_device
from rbml.cli.reading import reading_shown
from rbml.data.setting import Setting
from rbml.errors import UsageError
from rbml.recipe import Recipe, build
from rbml.tasks import PerGroup, TaskSource
from rbml.training.learned import Learned


def tasks_for(recipe: Recipe, setting: Setting, whose: str, part: str, root: str | None, **changes: Any) -> TaskSource:
    """Return the tasks of a part of the data of a recipe, or of what the changes name.

    Args:
        recipe: of what was learned.
        setting: its inputs and targets.
        whose: what messages call it, such as ``"the run in runs/a"``.
        part: of the data.
        root: where data is looked for.
        **changes: of the recipe, by short names.

    Raises:
        UsageError: for a source, a part or sizes that cannot be.
        DataError: for data that is not there, or cannot be used.
    """
    if setting.modality.kind == "table" and str(changes.get("data", "")).startswith("table:"):
        changes.setdefault("data_options", recipe.data[0].options)  # another table has the same columns
    if setting.modality.kind == "text":  # other sentences are split into the same words
        spec = setting.modality.spec()
        changes.setdefault("data_options", {name: spec[name] for name in ("tokenizer", "buckets", "longest")})
    with reading_shown():
        tasks = build.tasks(recipe, part, root, chosen_device(), **changes)
    check_fits(setting, whose, tasks)
    # A table is standardised by its own training rows, and another table's would be other units than the run's.
    return tasks.read_as(setting.modality, setting.target) if isinstance(tasks, PerGroup) else tasks


def check_fits(setting: Setting, whose: str, tasks: TaskSource) -> None:
    """Refuse tasks whose inputs or targets are none that a model was made for.

    Raises:
        UsageError: saying what the model has, and what the tasks have.
    """
    if setting.target.kind != tasks.target.kind or setting.modality.kind != tasks.modality.kind:
        raise UsageError(
            f"{whose} predicts {setting.target.kind} from {setting.modality.kind}, but these tasks "
            f"are {tasks.target.kind} from {tasks.modality.kind}"
        )
    own, others = (list(one.modality.spec().get("columns", ())) for one in (setting, tasks))
    if own != others:
        raise UsageError(
            f"{whose} predicts from the columns {', '.join(own)}, but these tasks have {', '.join(others)}"
        )


def usual_part(source: str | None, own: str) -> str:
    """Return which classes are meant where none are named: nothing of a foreign folder was learned on.

    Args:
        source: the source of the tasks; ``None`` is the run's own.
        own: the source that was learned on.
    """
    from rbml.data.sources.folder import divided

    kind, _, path = (source or "").partition(":")
    return "all" if kind == "folder" and source != own and not divided(Path(path)) else "test"


def checksum(subject: Learned) -> str:
    """Return a checksum of what was learned: values of another learner must not be taken for its own."""
    total = hashlib.sha256(subject.recipe.model_dump_json().encode())
    for name, leaf in sorted(subject.learner.state_dict().items()):
        total.update(name.encode())
        total.update(leaf.detach().cpu().contiguous().numpy().tobytes())
    return total.hexdigest()[:16]
