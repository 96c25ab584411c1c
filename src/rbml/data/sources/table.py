"""A table of your own: a CSV file, one group of rows (a patient, a machine, a customer) per task."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from rbml.data.examples import PARTS, Grouped, check_part, check_split
from rbml.data.inputs.rows import Row, check_columns, numbers, read_rows
from rbml.data.inputs.table import Table
from rbml.data.targets import Units, real
from rbml.errors import DataError, UsageError

_FEWEST = 5

PROTOCOL: list[tuple[dict[str, Any], dict[str, Any]]] = [
    ({}, {"task": "per_group", "model": "mlp", "shots": 5, "queries": 15, "algorithm": "ridge_regression"})
]
"""What differs from a recipe's defaults: gradient steps at the rates that suit pictures would diverge."""


def load(
    part: str,
    root: str | Path | None = None,
    *,
    split: str | None = None,
    seed: int = 0,
    group: str = "",
    target: str = "",
    inputs: str = "",
    order: str = "",
) -> Grouped:
    """Rows of your own, one group of a CSV file per task: table:FILE.

    The groups are shuffled with ``seed`` and divided 64 : 16 : 20. Inputs are standardised by the rows of the training
    groups.

    Args:
        part: ``"train"``, ``"val"`` or ``"test"``: they share no group.
        root: the CSV file, with a header.
        split: ``"groups"``, or ``None``.
        seed: for the division.
        group: the column that names the group of a row, any text.
        target: the column to predict, or several separated by commas.
        inputs: the columns to predict from, separated by commas; by default all the others except the order.
        order: a column of numbers, such as a time, by which the rows of a group are sorted.

    Returns:
        ``x`` ``(N, inputs)`` float64 and ``y`` ``(N, targets)``, in the units of the file.

    Raises:
        UsageError: if the file, the group or the target is not named, or a column is named for two purposes.
        DataError: if the file cannot be used, or has too few groups; it names the line if there is one.
    """
    check_part(part)
    check_split(split, "groups")
    if root is None:
        raise UsageError("the source table needs a file: table:FILE.")
    file = read_rows(root)
    targets = _listed(target)
    if not group or not targets:
        raise UsageError(
            f"a table needs a group and a target: choose columns of {file.path} with --group and --target; it has "
            f"{', '.join(file.columns)}"
        )
    others = [name for name in file.columns if name not in {group, order, *targets}]
    columns = _listed(inputs) or others
    if mixed := sorted({group, *targets} & set(columns)):
        raise UsageError(f"the column {mixed[0]!r} is the group or a target: leave it out of the inputs")
    check_columns([group, *targets, *columns, *_listed(order)], file.columns, str(file.path))
    if not columns:
        raise DataError(f"{file.path} has no column to predict from: it has {', '.join(file.columns)}.")
    names = sorted({_named(row, group) for row in file.rows})
    division = divide(names, seed, str(file.path))
    return select(
        file.rows, group, columns, targets, order, division[part], division["train"],
        f"rows of {file.path.resolve()}, part {part} (groups of {group!r} shuffled with seed {seed})",
    )  # fmt: skip


def _listed(names: str) -> list[str]:
    return [name.strip() for name in names.split(",") if name.strip()]


def _named(row: Row, group: str) -> str:
    name = row.cells[group]
    if not name:
        raise DataError(f"{row.place} is empty in the column {group!r}: every row needs a group.")
    return name


def divide(
    names: Sequence[str], seed: int, origin: str, what: tuple[str, str] = ("group", "groups"), column: str = "group"
) -> dict[str, list[str]]:
    """Divide groups, or classes, 64 : 16 : 20 into train, val and test.

    Args:
        names: of the groups.
        seed: by which they are shuffled.
        origin: where they come from, in words.
        what: the word for one of them, and for several.
        column: the column that has them.

    Raises:
        DataError: for fewer than five of them.
    """
    if len(names) < _FEWEST:
        few = f"{len(names)} {what[len(names) != 1]}"
        raise DataError(
            f"{origin} has {few}, but at least {_FEWEST} are needed to divide them into {', '.join(PARTS)}: is the "
            f"{column} column the right one?"
        )
    val, test = max(1, round(0.16 * len(names))), max(1, round(0.2 * len(names)))
    order = np.random.default_rng(seed).permutation(len(names))
    rows = {"test": order[:test], "val": order[test : test + val], "train": order[test + val :]}
    return {part: [names[row] for row in sorted(rows[part])] for part in PARTS}


def select(
    rows: Sequence[Row],
    group: str,
    columns: Sequence[str],
    targets: Sequence[str],
    order: str,
    chosen: Sequence[str],
    training: Sequence[str],
    origin: str,
) -> Grouped:
    """Return the rows of the chosen groups, inputs and targets standardised by the rows of the training groups.

    Args:
        rows: the rows of a file.
        group: the column of the groups.
        columns: the inputs.
        targets: the columns to predict.
        order: the column of the order; ``""`` means none.
        chosen: the groups to return.
        training: the groups whose means and deviations standardise the inputs, and what is learned of the targets.
        origin: where they come from, in words.

    Raises:
        DataError: naming the line of a cell that is not a number.
    """
    place = {name: index for index, name in enumerate(chosen)}
    kept = [row for row in rows if row.cells[group] in place]
    known = set(training)
    fitted = [row for row in rows if row.cells[group] in known]
    table = Table.fitted(columns, numbers(fitted, columns), targets)
    units = Units.fitted(numbers(fitted, targets))
    about = f"{origin}: {len(chosen)} groups, {len(kept)} rows, {len(columns)} inputs, target {', '.join(targets)}"
    return Grouped(
        x=table.read(kept),
        y=torch.from_numpy(numbers(kept, targets)).float(),
        groups=torch.tensor([place[row.cells[group]] for row in kept], dtype=torch.int64),
        names=list(chosen),
        about=about,
        modality=table,
        order=torch.from_numpy(numbers(kept, [order])[:, 0]) if order else None,
        target=real(units.offset, units.scale),
        columns=tuple(targets),
    )
