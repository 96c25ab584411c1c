"""A user's own training job, from files: a table, a folder of pictures, or labelled texts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from rbml.data import targets
from rbml.data.batch import Batch
from rbml.data.inputs.embedded import Embedded
from rbml.data.inputs.rows import Row, Rows, check_columns, numbers, read_rows
from rbml.data.inputs.table import Table
from rbml.data.inputs.text_files import TEXT_COLUMNS
from rbml.data.setting import Setting
from rbml.data.targets import Units, real
from rbml.errors import DataError, UsageError
from rbml.recipe import Recipe, build, protocol
from rbml.training.tune.known import ENCODERS, is_known, known_source
from rbml.training.tune.tuning import division


class JobData(NamedTuple):
    """What a training job needs.

    Attributes:
        examples: inputs as the model takes them, and targets.
        stored: inputs as the modality stores them.
        names: of the classes or values.
        setting: inputs and targets of the model.
        recipe: of the model.
        places: a name for each example, such as its file or line.
        shown: how an example can be shown in one line, such as its text.
        raw: the examples as they were found: paths, texts or rows.
    """

    examples: Batch
    stored: Any
    names: list[str]
    setting: Setting
    recipe: Recipe
    places: list[str]
    shown: list[str]
    raw: Sequence[Any]

    def model(self) -> nn.Module:
        """Return the model with first weights."""
        return build.model(self.recipe, self.setting)


def read(
    place: str | Path,
    target: str = "",
    classes: bool = False,
    encoder: str = "",
    seed: int | None = 0,
    root: str | None = None,
) -> JobData:
    """Read a CSV file of numbers (with a target column), pictures in one folder per class, texts, or a known source.

    Args:
        place: the file, the folder, or a name of ``rbml list data``.
        target: the column to predict, of a table; empty for pictures and texts.
        classes: whether a column of numbers names classes.
        encoder: the frozen backbone for pictures and texts; empty takes that of
            :data:`rbml.training.tune.known.ENCODERS`, and the grey pictures of a known source as they are.
        seed: of the division into three parts: inputs are standardised by the examples of the first two; ``None``:
            by all examples.
        root: where a known source is looked for.

    Raises:
        UsageError: where the options do not fit the data.
        DataError: naming the line or file that cannot be used.
    """
    if is_known(place):
        if target or classes:
            raise UsageError(f"--target and --classes are for tables, and {place} is a known source: leave them out")
        return _known_source(str(place), encoder, seed, root)
    path = Path(place).expanduser()
    if target:
        if path.is_dir():
            raise UsageError(f"{path} is a folder of pictures, whose folders name the classes: leave --target out")
        return _table(read_rows(path), target, classes, seed)
    kind = "pictures" if path.is_dir() else "text"
    if path.suffix.lower() in (".csv", ".tsv"):
        _check_text(read_rows(path))
    name = encoder or ENCODERS[kind]
    recipe = _recipe(encoder=name, **protocol.facts(name))
    modality = build.setting(recipe).modality
    found = modality.find([path], labelled=True)
    stored = modality.read(found.raw)
    y, names = targets.CLASSES.read(found.labels or [], found.targets)
    if len(names) < 2:
        raise DataError(f"{path} has only one class ({names[0]}): add another one.")
    assert isinstance(modality, Embedded) and isinstance(stored, Tensor)
    modality = modality.standardised(stored[_tuned_on(len(stored), seed)])
    setting = Setting(modality, targets.CLASSES, len(names))
    examples = Batch(modality.ready(stored), y)
    places = list(found.places or found.names)
    return JobData(examples, stored, names, setting, recipe, places, list(map(str, found.raw)), found.raw)


def _check_text(file: Rows) -> None:
    """Refuse a table whose column to predict was not named: it would be read as a file of texts."""
    if not set(TEXT_COLUMNS) & set(file.columns):
        raise DataError(
            f"{file.path} has no column of texts ({', '.join(TEXT_COLUMNS)}): it has {', '.join(file.columns)}. To "
            f"predict a column of a table from the others, name it: --target {file.columns[-1]}."
        )


def _tuned_on(total: int, seed: int | None) -> Tensor:
    """Return the places of the examples by which inputs are standardised: all but those of the third part."""
    if seed is None:
        return torch.arange(total)
    train, val, _ = division(total, seed)
    return torch.cat([train, val])


def _known_source(name: str, encoder: str, seed: int | None, root: str | None) -> JobData:
    source = known_source(name, encoder, root)
    modality, stored = source.modality, source.stored
    if isinstance(modality, Embedded):
        modality = modality.standardised(stored[_tuned_on(len(stored), seed)])
        recipe = _recipe(encoder=source.encoder, **protocol.facts(source.encoder))
    else:
        recipe = _recipe(**{name: modality.facts()[name] for name in ("size", "channels")})
    setting = Setting(modality, targets.CLASSES, len(source.names))
    examples = Batch(modality.ready(stored), source.y)
    shown = source.shown() or source.places
    return JobData(examples, stored, source.names, setting, recipe, source.places, shown, source.places)


def _recipe(**more: Any) -> Recipe:
    return Recipe.of(**({"algorithm": "maml", "model": "mlp", "model_options": {"hidden": [64]}} | more))


def _table(file: Rows, target: str, classes: bool, seed: int | None) -> JobData:
    check_columns([target], file.columns, str(file.path))
    columns = [name for name in file.columns if name != target]
    if not columns:
        raise DataError(f"{file.path} has no column besides {target!r} to predict it from.")
    known = [file.rows[place] for place in _tuned_on(len(file.rows), seed).tolist()]
    named = classes or not _all_numbers(file, target)
    table = Table.fitted(columns, numbers(known, columns), [target])
    if named:
        y, names = targets.CLASSES.read([_label(row, target) for row in file.rows], None)
        if len(names) < 2:
            raise DataError(f"{file.path} has only one class in the column {target!r} ({names[0]}).")
        setting = Setting(table, targets.CLASSES, len(names))
    else:
        units = Units.fitted(numbers(known, [target]))
        own = real(units.offset, units.scale)
        y, names = own.read([float(row.cells[target]) for row in file.rows], [target])
        setting = Setting(table, own, 1)
    stored = table.read(file.rows)
    shown = [_line(row.cells, columns) for row in file.rows]
    places = [row.place for row in file.rows]
    return JobData(Batch(table.ready(stored), y), stored, names, setting, _recipe(), places, shown, file.rows)


def _label(row: Row, target: str) -> str:
    if not row.cells[target]:
        raise DataError(f"{row.place} has nothing in the column {target!r}: write a class there, or remove the row.")
    return row.cells[target]


def _all_numbers(file: Rows, target: str) -> bool:
    """Return whether a column holds real values; one in which only a few cells are no numbers is refused."""
    others = [row for row in file.rows if not _is_number(row, target)]
    if others and 2 * len(others) < len(file.rows):
        row = others[0]
        raise DataError(
            f"{row.place} has {row.cells[target] or 'nothing'!r} in the column {target!r}, where most rows have "
            "numbers: repair or remove the row, or say with --classes that the column names classes."
        )
    return not others


def _is_number(row: Row, name: str) -> bool:
    try:
        return bool(torch.isfinite(torch.tensor(float(row.cells[name]))))
    except ValueError:
        return False


def _line(cells: Mapping[str, str], columns: list[str]) -> str:
    return ", ".join(f"{name} {cells[name]}" for name in columns[:4]) + (", ..." if len(columns) > 4 else "")
