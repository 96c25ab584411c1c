"""Few-shot regression: the score of a Parkinson's patient from a few scored recordings, beside what needs no learning.

    python benchmarks/regression.py                     # patients 35 to 42, as the split has them
    python benchmarks/regression.py --rotate            # six folds of seven patients: every patient is tested once

One task per patient; total UPDRS in points. Settings say whether the time of a recording is an input (``time/``) or not
(``voice/``), and whether support and queries are drawn at random from the same months (``random``) or the support is
the earliest recordings and the queries come after them (``ordered``). For each test patient 20 tasks of 60 queries are
averaged first; intervals (95 %, Student's t) are over patients, and so are differences from the patient's mean.

The learned methods train one learner for all numbers of shots. A random amount is added to all targets of a training
task (Rajendran, Irpan, Jang 2020, arXiv:2007.05549): the level of a new patient must be read from the support set, and
cannot be remembered from age and voice. Strengths of the ridge regressions are chosen on the training patients.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Mapping
from functools import partial
from math import sqrt
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, func, nn

from rbml import Batch, Episodes, Learner, algorithms
from rbml.data.examples import Grouped
from rbml.data.inputs.rows import Rows
from rbml.data.sources import parkinsons
from rbml.data.targets import REAL
from rbml.data.targets.real import coverage
from rbml.strategy import Hyper
from rbml.tasks import PerGroup, generator
from rbml.tasks.grouped import Order

SHOTS = (1, 3, 5, 10, 20)
DRAWS, QUERIES, TASKS, SHIFT, VOICE_DECAY = 20, 60, 30, 10.0, 1.0
SETTINGS = ("time/random", "time/ordered", "voice/random", "voice/ordered")
STRENGTHS = tuple(10.0 ** (power / 2) for power in range(-10, 11))
POOLED_STRENGTHS = tuple(10.0 ** (power / 2) for power in range(-2, 21))
"""Of all recordings at once, whose sums are thousands of times as large."""

STUDENT = {8: 2.365, 42: 2.020}
"""The 97.5 % quantile of Student's t for 8 and 42 patients."""

Predict = Callable[[Episodes], Tensor]
"""From a stack of tasks to predictions ``(B, Q, 1)``, or ``(B, Q, 2)`` with variances."""


class Fold(NamedTuple):
    """Which patients are for what."""

    train: list[int]
    test: list[int]


class Part(NamedTuple):
    """The data of one fold in one setting: what is trained on, what is tested on, and how tasks are drawn."""

    train: Grouped
    test: Grouped
    order: Order

    def all_of(self, grouped: Grouped, shots: int) -> Episodes:
        """Return ``DRAWS`` tasks of every patient, one patient after another."""
        source = PerGroup(grouped, shots, QUERIES, self.order)
        stacks = [source.draw_of(group, range(DRAWS)) for group in range(len(grouped.names))]
        return joined(stacks)


def joined(stacks: list[Episodes]) -> Episodes:
    support, query = zip(*stacks, strict=True)
    return Episodes(
        *(Batch(torch.cat([b.x for b in each]), torch.cat([b.y for b in each])) for each in (support, query))
    )


# ------------------------------------------------------------------------------------------------- without learning


def ridge(episodes: Episodes, strength: float) -> Tensor:
    """Predict by ridge regression on the inputs of the support set, the intercept not shrunk."""
    support_x, support_y, query_x = (leaf.double() for leaf in (*episodes.support[:2], episodes.query.x))
    centre_x, centre_y = support_x.mean(1, keepdim=True), support_y.mean(1, keepdim=True)
    x, y = support_x - centre_x, support_y - centre_y
    weight = x.mT @ torch.linalg.solve(x @ x.mT + strength * torch.eye(x.shape[1]).double(), y)
    prediction: Tensor = (query_x - centre_x) @ weight + centre_y
    return prediction.float()


def columns(episodes: Episodes, which: list[int]) -> Episodes:
    return Episodes(*(Batch(batch.x[..., which], batch.y) for batch in episodes))


def chosen_ridge(part: Part, shots: int) -> tuple[Predict, str]:
    """Return ridge from scratch with the strength that is best on the training patients."""
    known = part.all_of(part.train, shots)
    errors = [float((ridge(known, strength) - known.query.y).abs().mean()) for strength in STRENGTHS]
    return chosen(lambda strength: partial(ridge, strength=strength), errors)


def chosen(
    make: Callable[[float], Predict], errors: list[float], strengths: tuple[float, ...] = STRENGTHS
) -> tuple[Predict, str]:
    best = min(range(len(errors)), key=errors.__getitem__)
    edge = " at the edge of the grid" if best in (0, len(errors) - 1) and max(errors) > min(errors) else ""
    return make(strengths[best]), f"{strengths[best]:.2g}{edge}"


def pooled(part: Part, shots: int, offset: bool) -> tuple[Predict, str]:
    """Return one ridge regression on all recordings of the training patients; its strength by leaving patients out."""
    x, y, groups = part.train.modality.ready(part.train.x), part.train.y, part.train.groups
    assert isinstance(x, Tensor)
    errors = []
    for strength in POOLED_STRENGTHS:
        apart = []
        for fold in range(5):
            out = groups % 5 == fold
            predict = global_ridge(x[~out], y[~out], strength)
            apart.append((predict(x[out]) - y[out]).abs().mean())
        errors.append(float(torch.stack(apart).mean()))

    def make(strength: float) -> Predict:
        fitted = global_ridge(x, y, strength)

        def predict(episodes: Episodes) -> Tensor:
            left = (episodes.support.y - fitted(episodes.support.x)).mean(1, keepdim=True)
            return fitted(episodes.query.x) + (left if offset else 0)

        return predict

    return chosen(make, errors, POOLED_STRENGTHS)


def global_ridge(x: Tensor, y: Tensor, strength: float) -> Callable[[Tensor], Tensor]:
    centre_x, centre_y = x.mean(0), y.mean(0)
    shrunk = (x - centre_x).T @ (x - centre_x) + strength * torch.eye(x.shape[1])
    weight = torch.linalg.solve(shrunk, (x - centre_x).T @ (y - centre_y))
    return lambda new: (new - centre_x) @ weight + centre_y


def patient_mean(part: Part, shots: int) -> tuple[Predict, str]:
    return lambda episodes: func.vmap(REAL.baselines["support mean"])(*episodes), ""


def line(part: Part, shots: int) -> tuple[Predict, str]:
    """Return a straight line in time through the support set: least squares, of one recording its score."""
    at = [part.train.modality.spec()["columns"].index(parkinsons.TIME)]
    return lambda episodes: ridge(columns(episodes, at), 1e-6), ""


# --------------------------------------------------------------------------------------------------------- learned


class Recording(nn.Module):
    """Features of a recording: bent lines in time, and a few mixtures of all the other inputs.

    Args:
        inputs: how many inputs there are.
        at: which of them is the time; ``None`` is none.
        bends: how many bends a curve in time can have; where they are is learned.
    """

    def __init__(self, inputs: int, at: int | None, bends: int = 3) -> None:
        super().__init__()
        self.at = at
        self.others = [column for column in range(inputs) if column != at]
        self.voice = nn.Linear(len(self.others), 2)
        self.knots = nn.Parameter(torch.linspace(-1, 1, bends) if at is not None else torch.empty(0))
        self.curves = nn.Linear(1 + bends, 3) if at is not None else None
        self.head = nn.Linear(2 + 3 * (at is not None), 1)

    def forward(self, x: Tensor) -> Tensor:
        features = torch.tanh(self.voice(x[..., self.others]))
        if self.curves is not None:
            days = x[..., self.at : self.at + 1]  # type: ignore[operator]
            bent = F.softplus(8 * (days - self.knots)) / 8
            features = torch.cat([self.curves(torch.cat([days, bent], -1)), features], -1)
        output: Tensor = self.head(features)
        return output


class Scaled(nn.Module):
    """A model whose outputs are of size one, in points."""

    def __init__(self, model: nn.Module, offset: float, scale: float) -> None:
        super().__init__()
        self.model, self.offset, self.scale = model, offset, scale

    def forward(self, x: Tensor) -> Tensor:
        output: Tensor = self.offset + self.scale * self.model(x)
        return output


def learner_of(name: str, part: Part) -> Learner:
    names = part.train.modality.spec()["columns"]
    model = Recording(len(names), names.index(parkinsons.TIME) if parkinsons.TIME in names else None)
    mean, std = float(part.train.y.mean()), float(part.train.y.std())
    if name == "ridge head":
        return algorithms.ridge_regression(model)
    if name == "alpaca":
        return algorithms.alpaca(model, noise=2.0, precision=0.04, offset=mean)

    def loss(prediction: Tensor, y: Tensor) -> Tensor:
        return REAL.loss(prediction, y) / std**2

    return algorithms.maml(Scaled(model, mean, std), lr=Hyper(0.05, per="layer", bounds=(0, 0.15)), steps=5, loss=loss)


def trained(name: str, part: Part, steps: int, seed: int = 0) -> Learner:
    """Return a learner after meta-training on tasks of all numbers of shots in turn."""
    torch.manual_seed(seed)
    learner = learner_of(name, part)
    voice = [parameter for key, parameter in learner.named_parameters() if ".voice." in key]
    others = [p for key, p in learner.named_parameters() if ".voice." not in key and p.requires_grad]
    groups = [{"params": others, "weight_decay": 0.0}, {"params": voice, "weight_decay": VOICE_DECAY}]
    optimizer = torch.optim.AdamW(groups, lr=1e-2)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    sources = [PerGroup(part.train, shots, 30, part.order) for shots in SHOTS]
    for step in range(steps):
        episodes = sources[step % len(SHOTS)].sample(TASKS, generator(seed, step))
        shift = SHIFT * torch.randn(TASKS, 1, 1, generator=generator(seed, step, 1))
        optimizer.zero_grad()
        learner.backward(Episodes(*(Batch(batch.x, batch.y + shift) for batch in episodes)))
        nn.utils.clip_grad_norm_([*voice, *others], 10.0, error_if_nonfinite=True)
        optimizer.step()
        schedule.step()
    return learner


SIMPLE: dict[str, Callable[[Part, int], tuple[Predict, str]]] = {
    "patient mean": patient_mean,
    "line": line,
    "ridge": chosen_ridge,
    "pooled": partial(pooled, offset=False),
    "pooled + offset": partial(pooled, offset=True),
}
LEARNED = {"ridge head": 1.0, "alpaca": 1.0, "maml": 1 / 3}
"""The learned methods, and which share of the outer steps each takes: a step of MAML's is the dearest."""


# -------------------------------------------------------------------------------------------------------- measured


def measured(prediction: Tensor, episodes: Episodes) -> dict[str, Tensor]:
    """Return every metric per patient, ``(P,)``, averaged over that patient's tasks."""
    metrics = {metric.name: metric.of for metric in REAL.metrics}
    if prediction.shape[-1] == 2 * episodes.query.y.shape[-1]:
        metrics["coverage"] = coverage
    found = {name: func.vmap(of)(prediction, episodes.query) for name, of in metrics.items()}
    return {name: values.view(-1, DRAWS).mean(1) for name, values in found.items()}


def fold_results(
    part: Part, names: list[str], shots: list[int], steps: int
) -> dict[tuple[str, int], dict[str, Tensor]]:
    found: dict[tuple[str, int], dict[str, Tensor]] = {}
    notes: list[str] = []
    for name in names:
        if name == "line" and parkinsons.TIME not in part.train.modality.spec()["columns"]:
            continue
        began = time.perf_counter()
        learner = trained(name, part, round(steps * LEARNED[name])) if name in LEARNED else None
        strengths = []
        for k in shots:
            episodes = part.all_of(part.test, k)
            if learner is not None:
                prediction = learner.evaluate(episodes, each_step=False, metrics=()).prediction
            else:
                predict, note = SIMPLE[name](part, k)
                prediction = predict(episodes)
                strengths += [note] if note else []
            found[name, k] = measured(prediction, episodes)
        if learner is not None:
            notes.append(f"{name}: {time.perf_counter() - began:.0f} s")
        if strengths:
            notes.append(f"{name}: strengths {', '.join(strengths)}")
    print(f"  [{'; '.join(notes)}]", flush=True)
    return found


def folds(rotate: bool) -> list[Fold]:
    everyone = list(range(1, parkinsons.PATIENTS + 1))
    if not rotate:
        return [Fold(everyone[:30], everyone[34:])]
    return [Fold([p for p in everyone if p % 6 != fold], [p for p in everyone if p % 6 == fold]) for fold in range(6)]


def setting(file: Rows, fold: Fold, name: str) -> Part:
    inputs, _, order = name.partition("/")
    train, test = (parkinsons.select(file, which, fold.train, "total", inputs == "time", "benchmark") for which in fold)
    train, test = train._replace(target=REAL), test._replace(target=REAL)  # in points: the methods scale for themselves
    return Part(train, test, "time" if order == "ordered" else "random")


def interval(values: Tensor) -> str:
    reach = STUDENT.get(len(values), 1.96) * float(values.std()) / sqrt(len(values))
    return f"{float(values.mean()):.2f} ± {reach:.2f}"


def table(title: str, names: list[str], shots: list[int], cell: Callable[[str, int], str]) -> None:
    print(f"\n{title}\n| method | {' | '.join(map(str, shots))} |\n| --- |{' --- |' * len(shots)}")
    for name in names:
        print(f"| {name} | {' | '.join(cell(name, k) for k in shots)} |", flush=True)


def report(name: str, found: Mapping[tuple[str, int], dict[str, Tensor]], shots: list[int]) -> None:
    methods = list(dict.fromkeys(method for method, _ in found))

    def of(metric: str) -> Any:
        return lambda method, k: interval(found[method, k][metric])

    table(f"{name}: mean absolute error, points", methods, shots, of("MAE"))
    if "patient mean" in methods:
        others = [method for method in methods if method != "patient mean"]
        less = lambda method, k: interval(found[method, k]["MAE"] - found["patient mean", k]["MAE"])  # noqa: E731
        table(f"{name}: difference of the mean absolute error from the patient's mean, paired", others, shots, less)
    table(f"{name}: root mean squared error, points", methods, shots, of("RMSE"))
    table(f"{name}: R2, median over patients", methods, shots, lambda m, k: f"{float(found[m, k]['R2'].median()):.2f}")
    sure = [method for method in methods if "coverage" in found[method, shots[0]]]
    share = lambda method, k: interval(100 * found[method, k]["coverage"])  # noqa: E731
    if sure:
        table(f"{name}: targets inside the 95 % intervals, %", sure, shots, share)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rotate", action="store_true")
    parser.add_argument("--only", nargs="*", default=[*SIMPLE, *LEARNED])
    parser.add_argument("--settings", nargs="*", default=list(SETTINGS))
    parser.add_argument("--shots", nargs="*", type=int, default=list(SHOTS))
    parser.add_argument("--steps", type=int, default=1200)
    parser.add_argument("--data-root")
    given = parser.parse_args()
    torch.set_num_threads(1)
    file = parkinsons.read(given.data_root)
    for name in given.settings:
        each = [
            fold_results(setting(file, fold, name), given.only, given.shots, given.steps)
            for fold in folds(given.rotate)
        ]
        whole = {key: {m: torch.cat([one[key][m] for one in each]) for m in each[0][key]} for key in each[0]}
        report(name, whole, given.shots)


if __name__ == "__main__":
    main()
