"""Photographs of groceries: what is adapted, beside what needs no meta-training, on classes that no run has seen.

    python benchmarks/grocery.py                                         # a backbone without any run
    python benchmarks/grocery.py backbone:efficientnet_lite0 RUN         # others beside it: runs, backbones

The 17 test classes of the grocery store pictures (84x84). Sets of classes: random ones of five; the five kinds of
apples; all 17. From each class 5, 10 or 20 pictures are learned, and all its others are recognised. Each draw of
pictures is the same for every method, so that differences are paired: further tables have the mean difference to each
baseline. With 95 % intervals over the draws (Student's t); draws share pictures, so that an interval is for these 17
classes, not for others. The first time, the features of 1406 pictures are computed: half a minute on a free core.
"""

from __future__ import annotations

import argparse
import math
import statistics
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.stats import t as student  # type: ignore[import-untyped]
from sklearn.linear_model import LogisticRegression, RidgeClassifierCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from rbml import data
from rbml.backbones.colour import hsv
from rbml.data import Labelled
from rbml.data.inputs.embedded import Embedded, embedded
from rbml.training import learned

Array = NDArray[Any]
Classify = Callable[[Array, Array, Array], Array]
APPLES = ("Golden-Delicious", "Granny-Smith", "Pink-Lady", "Red-Delicious", "Royal-Gala")
SHOTS = (5, 10, 20)
OURS = "backbone:efficientnet_lite0"


class Draw(NamedTuple):
    """Which pictures are learned and which recognised, by place, and how many classes they have."""

    support: Array
    query: Array
    labels: Array
    ways: int


class Method(NamedTuple):
    """Features of all test pictures, and a classifier ``(support, labels, query) -> labels``."""

    x: Array
    classify: Classify


def pictures(**options: Any) -> Labelled:
    """Return the test pictures."""
    found = data.ALL["grocery"]("test", None, **options)
    assert isinstance(found, Labelled)
    return found


def draw(y: Array, classes: Array, shots: int, seed: int) -> Draw:
    """Return one draw: ``shots`` pictures of each class to learn, all others to recognise."""
    random = np.random.default_rng([seed, shots])
    support, query, labels = [], [], np.full(y.max() + 1, -1)
    for label, one in enumerate(classes):
        places = random.permutation(np.flatnonzero(y == one))
        support.append(places[:shots])
        query.append(places[shots:])
        labels[one] = label
    return Draw(np.concatenate(support), np.concatenate(query), labels[y], len(classes))


def draws(examples: Labelled, kind: str, count: int, shots: int) -> list[Draw]:
    """Return the draws of one kind of sets of classes."""
    names, y = list(examples.names), examples.y.numpy()
    fixed = {"apples": np.array([names.index(name) for name in APPLES]), "all 17": np.arange(len(names))}
    random = [np.random.default_rng(seed).choice(len(names), 5, replace=False) for seed in range(count)]
    return [draw(y, fixed.get(kind, random[seed]), shots, seed) for seed in range(count)]


def histogram(x: torch.Tensor) -> Array:
    """Return the shares of 8 x 4 x 4 colours in pictures ``(n, 3, h, w)`` of bytes."""
    values = hsv(x.double() / 255).flatten(2).permute(0, 2, 1).numpy()
    return np.stack([np.histogramdd(one, (8, 4, 4), [(0, 1)] * 3)[0].ravel() / len(one) for one in values])


def logistic() -> Any:
    """Return logistic regression on standardised features."""
    return make_pipeline(StandardScaler(), LogisticRegression(max_iter=500))


def nearest_centroid(x: Array, y: Array, query: Array) -> Array:
    """Return the label whose mean is nearest."""
    centres = np.stack([x[y == label].mean(0) for label in range(int(y.max()) + 1)])
    nearest: Array = ((centres**2).sum(1) - 2 * query @ centres.T).argmin(1)
    return nearest


def fitted(make: Callable[[], Any]) -> Classify:
    """Return how a classifier of scikit-learn is used."""
    return lambda x, y, query: make().fit(x, y).predict(query)


def baselines() -> dict[str, Method]:
    """Return what needs no meta-training."""
    raw = pictures(size=84, channels=3)
    pixels, colours = raw.x.flatten(1).numpy() / np.float32(255), histogram(raw.x)
    frozen = embedded(pictures(size=160, channels=3), "efficientnet_lite0").x.numpy()
    ridge = fitted(lambda: RidgeClassifierCV(np.logspace(-1, 5, 13)))
    return {
        "pixels, nearest centroid": Method(pixels, nearest_centroid),
        "pixels, ridge": Method(pixels, ridge),
        "HSV histogram, nearest centroid": Method(colours, nearest_centroid),
        "HSV histogram, logistic regression": Method(colours, fitted(logistic)),
        "frozen backbone, ridge": Method(frozen, ridge),
        "frozen backbone, logistic regression": Method(frozen, fitted(logistic)),
    }


def ours(place: str) -> Method:
    """Return what ``rbml adapt`` and ``rbml predict`` do with a run or a backbone."""
    found = learned.load(place)
    modality = found.setting.modality
    inner = modality.inner if isinstance(modality, Embedded) else modality
    examples = pictures(**inner.spec())
    if isinstance(modality, Embedded):
        examples = embedded(examples, modality.backbone)

    def classify(x: Array, y: Array, query: Array) -> Array:
        ready = [modality.ready(torch.from_numpy(part)) for part in (x, query)]
        adapted = found.learner.adapt(ready[0], torch.from_numpy(y), ways=int(y.max()) + 1)
        with torch.no_grad():
            output: Array = adapted(ready[1]).argmax(1).numpy()
        return output

    return Method(examples.x.numpy(), classify)


def accuracy(method: Method, one: Draw) -> float:
    """Return the share of recognised pictures, in %."""
    found = method.classify(method.x[one.support], one.labels[one.support], method.x[one.query])
    return 100 * float((found == one.labels[one.query]).mean())


def interval(values: list[float]) -> str:
    """Return the mean and the half width of its 95 % interval."""
    half = float(student.ppf(0.975, len(values) - 1)) * statistics.stdev(values) / math.sqrt(len(values))
    return f"{statistics.mean(values):.1f} ± {half:.1f}"


def table(title: str, columns: list[str], rows: dict[str, list[str]]) -> None:
    """Print a table in Markdown."""
    print(f"| {title} | {' | '.join(columns)} |\n| --- |{' ---: |' * len(columns)}")
    for name, cells in rows.items():
        print(f"| {name} | {' | '.join(cells)} |")
    print(flush=True)


def main() -> None:
    """Measure, and print both tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("subjects", nargs="*", default=[OURS], help="run folders, or backbone:NAME")
    parser.add_argument("--draws", type=int, default=20, help="of random sets; the other kinds have half as many")
    args = parser.parse_args()
    torch.set_num_threads(1)
    examples = pictures(size=84, channels=3)
    plain, subjects = baselines(), {place: ours(place) for place in args.subjects}
    count = {"random five": args.draws, "apples": max(2, args.draws // 2), "all 17": max(2, args.draws // 2)}
    columns = [(kind, shots) for kind in count for shots in SHOTS]
    titles = [f"{kind}, {shots}" for kind, shots in columns]
    found: dict[str, list[list[float]]] = {name: [] for name in plain | subjects}
    for kind, shots in columns:
        chosen = draws(examples, kind, count[kind], shots)
        for name, method in (plain | subjects).items():
            found[name].append([accuracy(method, one) for one in chosen])
    table("accuracy, %", titles, {name: [interval(cell) for cell in cells] for name, cells in found.items()})
    for place in subjects:
        gains = {
            f"over {name}": [
                interval([a - b for a, b in zip(mine, its, strict=True)])
                for mine, its in zip(found[place], found[name], strict=True)
            ]
            for name in plain
        }
        table(f"{place}: difference", titles, gains)


if __name__ == "__main__":
    main()
