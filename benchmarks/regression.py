"""Few-shot regression: the score of a Parkinson's patient from a few scored recordings, beside what needs no learning.

    python benchmarks/regression.py                     # patients 35 to 42, as the split has them
    python benchmarks/regression.py --rotate            # six folds of seven patients: every patient is tested once
    python benchmarks/regression.py --choose --stretch 0.5 --decay 10    # three folds of patients 1 to 34, to choose by

One task per patient; total UPDRS in points. Settings say whether the time of a recording is an input (``time/``) or not
(``voice/``), and whether support and queries are drawn at random from the same months (``random``) or the support is
the earliest recordings and the queries come after them (``ordered``). For each test patient 20 tasks of 60 queries are
averaged first; intervals (95 %, Student's t) are over patients, and so are differences from the patient's mean. The
share of targets inside 95 % intervals has an interval of its own, by resampling patients.

The learned methods train one learner for all numbers of shots. A random amount is added to all targets of a training
task (Rajendran, Irpan, Jang 2020, arXiv:2007.05549): the level of a new patient must be read from the support set, and
cannot be remembered from age and voice. For alpaca the changes of a task are also multiplied by a random factor around
one (``stretch``): a prior that is fitted to 35 patients is too sure about the next one, and its intervals too narrow.
This and the decay of the weights that mix the voice were chosen by the likelihood of patients who were not trained on
(``--choose``). Strengths of the ridge regressions are chosen on the training patients.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Mapping
from math import sqrt
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from regression_baselines import DRAWS, SIMPLE, Part
from torch import Tensor, func, nn

from rbml import Episodes, Learner, algorithms
from rbml.data.inputs.rows import Rows
from rbml.data.sources import parkinsons
from rbml.data.targets import REAL
from rbml.data.targets.real import coverage
from rbml.strategy import Hyper
from rbml.tasks import PerGroup, generator

SHOTS = (1, 3, 5, 10, 20)
TASKS, SHIFT = 30, 10.0
SETTINGS = ("time/random", "time/ordered", "voice/random", "voice/ordered")

STUDENT = {8: 2.365, 42: 2.020}
"""The 97.5 % quantile of Student's t for 8 and 42 patients."""


class Training(NamedTuple):
    """How a method is trained: its share of the outer steps, the stretch of its tasks, the decay of the voice."""

    share: float = 1.0
    stretch: float = 0.0
    decay: float = 1.0


LEARNED = {"ridge head": Training(), "alpaca": Training(stretch=0.5, decay=10.0), "maml": Training(share=1 / 3)}
"""The learned methods. A step of MAML's is the dearest."""


class Fold(NamedTuple):
    """Which patients are for what."""

    train: list[int]
    test: list[int]


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


def trained(name: str, part: Part, steps: int, how: Training, seed: int = 0) -> Learner:
    """Return a learner after meta-training on tasks of all numbers of shots in turn."""
    torch.manual_seed(seed)
    learner = learner_of(name, part)
    voice = [parameter for key, parameter in learner.named_parameters() if ".voice." in key]
    others = [p for key, p in learner.named_parameters() if ".voice." not in key and p.requires_grad]
    groups = [{"params": others, "weight_decay": 0.0}, {"params": voice, "weight_decay": how.decay}]
    optimizer = torch.optim.AdamW(groups, lr=1e-2)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    sources = [PerGroup(part.train, shots, 30, part.order, SHIFT, how.stretch) for shots in SHOTS]
    for step in range(steps):
        optimizer.zero_grad()
        learner.backward(sources[step % len(SHOTS)].sample(TASKS, generator(seed, step)))
        nn.utils.clip_grad_norm_([*voice, *others], 10.0, error_if_nonfinite=True)
        optimizer.step()
        schedule.step()
    return learner


# -------------------------------------------------------------------------------------------------------- measured


def measured(prediction: Tensor, episodes: Episodes) -> dict[str, Tensor]:
    """Return every metric per patient, ``(P,)``, averaged over that patient's tasks."""
    metrics = {metric.name: metric.of for metric in REAL.metrics}
    if prediction.shape[-1] == 2 * episodes.query.y.shape[-1]:
        metrics |= {"coverage": coverage, "NLL": lambda prediction, query: REAL.loss(prediction, query.y)}
    found = {name: func.vmap(of)(prediction, episodes.query) for name, of in metrics.items()}
    return {name: values.view(-1, DRAWS).mean(1) for name, values in found.items()}


def fold_results(
    part: Part, names: list[str], shots: list[int], steps: int, training: Mapping[str, Training]
) -> dict[tuple[str, int], dict[str, Tensor]]:
    found: dict[tuple[str, int], dict[str, Tensor]] = {}
    notes: list[str] = []
    for name in names:
        if name == "line" and parkinsons.TIME not in part.train.modality.spec()["columns"]:
            continue
        began = time.perf_counter()
        how = training.get(name)
        learner = trained(name, part, round(steps * how.share), how) if how else None
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


def folds(which: str) -> list[Fold]:
    if which == "split":
        return [Fold(list(range(1, 31)), list(range(35, 43)))]
    last, count = (34, 3) if which == "choose" else (parkinsons.PATIENTS, 6)
    everyone = range(1, last + 1)
    return [
        Fold([p for p in everyone if p % count != fold], [p for p in everyone if p % count == fold])
        for fold in range(count)
    ]


def setting(file: Rows, fold: Fold, name: str) -> Part:
    inputs, _, order = name.partition("/")
    train, test = (parkinsons.select(file, which, fold.train, "total", inputs == "time", "benchmark") for which in fold)
    train, test = train._replace(target=REAL), test._replace(target=REAL)  # in points: the methods scale for themselves
    return Part(train, test, "time" if order == "ordered" else "random")


def interval(values: Tensor) -> str:
    reach = STUDENT.get(len(values), 1.96) * float(values.std()) / sqrt(len(values))
    return f"{float(values.mean()):.2f} ± {reach:.2f}"


def resampled(values: Tensor, times: int = 10000) -> str:
    """Return the mean and its 95 % interval by resampling patients: a share near 100 % has no symmetric interval."""
    rows = torch.randint(len(values), (times, len(values)), generator=generator(0))
    low, high = values[rows].mean(1).quantile(torch.tensor([0.025, 0.975])).tolist()
    return f"{float(values.mean()):.1f} [{low:.1f}, {high:.1f}]"


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
    share = lambda method, k: resampled(100 * found[method, k]["coverage"])  # noqa: E731
    if sure:
        table(f"{name}: negative log likelihood of a target", sure, shots, of("NLL"))
        table(f"{name}: targets inside the 95 % intervals, % [resampling patients]", sure, shots, share)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rotate", action="store_const", dest="folds", const="rotate", default="split")
    parser.add_argument("--choose", action="store_const", dest="folds", const="choose")
    parser.add_argument("--stretch", type=float, help="of alpaca's training tasks")
    parser.add_argument("--decay", type=float, help="of the weights that mix alpaca's voice inputs")
    parser.add_argument("--only", nargs="*", default=[*SIMPLE, *LEARNED])
    parser.add_argument("--settings", nargs="*", default=list(SETTINGS))
    parser.add_argument("--shots", nargs="*", type=int, default=list(SHOTS))
    parser.add_argument("--steps", type=int, default=1200)
    parser.add_argument("--data-root")
    given = parser.parse_args()
    torch.set_num_threads(1)
    file = parkinsons.read(given.data_root)
    chosen = {key: getattr(given, key) for key in ("stretch", "decay") if getattr(given, key) is not None}
    training = LEARNED | {"alpaca": LEARNED["alpaca"]._replace(**chosen)}
    for name in given.settings:
        each = [
            fold_results(setting(file, fold, name), given.only, given.shots, given.steps, training)
            for fold in folds(given.folds)
        ]
        whole = {key: {m: torch.cat([one[key][m] for one in each]) for m in each[0][key]} for key in each[0]}
        report(name, whole, given.shots)


if __name__ == "__main__":
    main()
