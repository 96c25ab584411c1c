"""Parkinsons telemonitoring: voice recordings of 42 patients, each with a clinical score; one task per patient.

A. Tsanas, M. A. Little, P. E. McSharry, L. O. Ramig, "Accurate telemonitoring of Parkinson's disease progression by
non-invasive speech tests", IEEE Trans. Biomedical Engineering 57(4), 2010 (UCI Machine Learning Repository 189, CC BY
4.0). Patients were scored at the start, after three and after six months; the scores in between are interpolated, so
that within a patient they are two straight lines in time, with a bend near day 90. With the time among the inputs and
support drawn at random a few recordings give them away: judge a claim about voice without the time, and one about the
future in order of time.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rbml.data.examples import Grouped, check_part, check_split
from rbml.data.inputs.rows import Rows, read_rows
from rbml.data.sources import table
from rbml.data.store import need
from rbml.errors import DataError

PATIENTS = 42
GROUP, TIME = "subject#", "test_time"
_TARGETS = {"total": "total_UPDRS", "motor": "motor_UPDRS"}
_FIRST = {"train": 1, "val": 31, "test": 35}
_LAST = {"train": 30, "val": 34, "test": 42}

PROTOCOL: list[tuple[dict[str, Any], dict[str, Any]]] = [
    ({}, {"task": "per_group", "model": "mlp", "shots": 5, "queries": 15, "algorithm": "ridge_regression"})
]
"""What differs from a recipe's defaults: gradient steps at the rates that suit pictures would diverge."""


def load(
    part: str, root: str | Path | None = None, *, split: str | None = None, seed: int = 0, with_time: bool = False
) -> Grouped:
    """Parkinson's scores from voice recordings: real values, 42 patients (UCI).

    Patients 1 to 30 are for training, 31 to 34 for validation, 35 to 42 for testing; the inputs are age, sex and 16
    voice measures, standardised by the training patients.

    Args:
        part: ``"train"``, ``"val"`` or ``"test"``.
        root: the folder to look for data in, instead of ``$RBML_DATA``.
        split: which score is predicted: ``"total"`` (UPDRS, the default) or ``"motor"``.
        seed: ignored.
        with_time: whether the time of a recording (days) is an input too.

    Returns:
        ``x`` ``(N, 18)`` or, with the time, ``(N, 19)``; ``y`` ``(N, 1)`` in points; ``order`` is the time.

    Raises:
        UsageError: for a part or a split that does not exist.
        DataError: for data that is not there, or is not what was expected.
    """
    check_part(part)
    check_split(split, *_TARGETS)
    patients = {name: list(range(_FIRST[name], _LAST[name] + 1)) for name in _FIRST}
    return select(read(root), patients[part], patients["train"], split, with_time, f"part {part}")


def read(root: str | Path | None = None) -> Rows:
    """Read the file.

    Raises:
        DataError: if it is not there, or does not have 42 patients.
    """
    path = need(
        "parkinsons/parkinsons_updrs.data",
        root,
        "It is the file parkinsons_updrs.data of the UCI Machine Learning Repository, no. 189.",
    )
    file = read_rows(path)
    patients = {row.cells.get(GROUP) for row in file.rows}
    if patients != {str(patient) for patient in range(1, PATIENTS + 1)}:
        raise DataError(f"{path} has {len(patients)} patients, but {PATIENTS} were expected: fetch the file again.")
    return file


def select(
    file: Rows, patients: list[int], training: list[int], split: str | None, with_time: bool, which: str
) -> Grouped:
    """Return the recordings of some patients, standardised by those of the training patients.

    Args:
        file: the file, as :func:`read` returns it.
        patients: the numbers of the patients, 1 to 42.
        training: the patients whose means and deviations standardise the inputs.
        split: ``"total"`` or ``"motor"``; ``None`` means ``"total"``.
        with_time: whether the time is an input.
        which: what ``about`` calls these patients.
    """
    score = _TARGETS[check_split(split, *_TARGETS)]
    left_out = {GROUP, *_TARGETS.values()} | (set() if with_time else {TIME})
    columns = [name for name in file.columns if name not in left_out]
    chosen, known = ([str(patient) for patient in each] for each in (patients, training))
    return table.select(file.rows, GROUP, columns, [score], TIME, chosen, known, f"parkinsons of UCI, {which}")
