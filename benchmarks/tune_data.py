"""The data sets of ``benchmarks/tune.py``: each is read as ``rbml tune`` reads a user's own files.

Pictures in colour and texts go through the frozen backbone of ``rbml tune``; the others are taken as they are.
"""

from __future__ import annotations

import csv
import os
import random
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import torch

from rbml import Batch, data
from rbml.training.tune.job_data import read


def digits() -> Batch:
    """1,797 handwritten digits of scikit-learn, 8x8 grey."""
    return _sklearn("digits", classes=True)


def cancer() -> Batch:
    """569 rows of 30 measurements of cells, 2 classes."""
    return _sklearn("breast_cancer", classes=True)


def wine() -> Batch:
    """178 rows of 13 measurements of wines, 3 classes."""
    return _sklearn("wine", classes=True)


def diabetes() -> Batch:
    """442 rows of 10 measurements, a real value to predict."""
    return _sklearn("diabetes", classes=False)


def parkinsons() -> Batch:
    """3,000 voice recordings of 42 patients, 19 numbers each; the score to predict in units of its own spread."""
    lines = list(csv.DictReader((_root() / "parkinsons/parkinsons_updrs.data").open()))
    columns = [name for name in lines[0] if name not in ("subject#", "motor_UPDRS", "total_UPDRS")]
    rows = torch.tensor([[float(line[name]) for name in [*columns, "total_UPDRS"]] for line in lines])
    rows = _standard(rows[torch.randperm(len(rows), generator=torch.Generator().manual_seed(0))[:3000]])
    return Batch(rows[:, :-1], rows[:, -1:])


def mnist() -> Batch:
    """3,000 handwritten digits, 28x28 grey, averaged to 14x14."""
    found = data.load("mnist", "test", _root())
    order = torch.randperm(len(found.y), generator=torch.Generator().manual_seed(0))[:3000]
    small = torch.nn.functional.avg_pool2d(found.x[order].float() / 255, 2)
    return Batch(small.flatten(1), found.y[order])


def banking77() -> Batch:
    """2,310 questions to a bank about 77 matters, 30 each; features of MiniLM."""
    groups: dict[str, list[str]] = {}
    for line in csv.DictReader((_root() / "banking77/train.csv").open(newline="")):
        groups.setdefault(line["category"], []).append(line["text"])
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder) / "texts.csv"
        with place.open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["text", "label"])
            writer.writerows([text, name] for name, texts in groups.items() for text in texts[:30])
        return read(place).examples


def grocery() -> Batch:
    """900 photographs in shops of 30 coarse classes, 30 each, 84x84 colour; features of EfficientNet-lite0."""
    lines = list(csv.DictReader((_root() / "grocery_store/images.csv").open()))
    random.Random(0).shuffle(lines)
    groups: dict[str, list[str]] = {}
    for line in lines:
        groups.setdefault(line["coarse_class"], []).append(line["path"])
    kept = dict(sorted((name, paths[:30]) for name, paths in groups.items() if len(paths) >= 30)[:30])
    with (
        tempfile.TemporaryDirectory() as folder,
        zipfile.ZipFile(_root() / "grocery_store/grocery_store_84x84.zip") as file,
    ):
        inside = {name.split("/", 1)[-1]: name for name in file.namelist()} | {name: name for name in file.namelist()}
        for name, paths in kept.items():
            (Path(folder) / name).mkdir()
            for number, path in enumerate(paths):
                (Path(folder) / name / f"{number}.jpg").write_bytes(file.read(inside[path]))
        return read(Path(folder)).examples


ALL: dict[str, Callable[[], Batch]] = {
    "digits": digits,
    "mnist": mnist,
    "parkinsons": parkinsons,
    "banking77": banking77,
    "grocery": grocery,
    "cancer": cancer,
    "diabetes": diabetes,
    "wine": wine,
}


def _root() -> Path:
    place = os.environ.get("RBML_DATA")
    if not place:
        raise SystemExit("set RBML_DATA to the folder with the data sets, or name only: digits cancer diabetes wine")
    return Path(place)


def _sklearn(name: str, classes: bool) -> Batch:
    from sklearn import datasets  # noqa: PLC0415  not a dependency of the package

    x, y = getattr(datasets, f"load_{name}")(return_X_y=True)
    if classes:
        return Batch(_standard(torch.tensor(x).float()), torch.tensor(y))
    return Batch(_standard(torch.tensor(x).float()), _standard(torch.tensor(y).float()[:, None]))


def _standard(x: torch.Tensor) -> torch.Tensor:
    return (x - x.mean(0)) / x.std(0).clamp(min=1e-6)
