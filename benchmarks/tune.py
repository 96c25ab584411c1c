"""Tuning a training run by hypergradients, beside Optuna's TPE and random search, at equal processor time.

    pip install optuna
    python benchmarks/tune.py [--data digits cancer wine diabetes] [--seeds 5] [--seconds 20] [--out docs/tune.png]

Every method sees the same training runs (an MLP, mini-batches, several starts side by side, one compiled step) and the
same validation part; the best by validation on fresh starts is trained on the training and the validation part, and its
loss on the third part is what counts. TPE tunes 4 numbers (rate, decay, momentum, and the factor at the end of the
schedule), 5 (a factor in the middle), or all of them, each within a factor of e**3 of the usual one; random search all
of them. Compiling, which all share, is not counted. For tables gradient boosting stands beside. The figure has the
median of the seeds.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from tune_data import ALL

from rbml import Batch
from rbml.data.targets import CLASSES, real
from rbml.models import MLP
from rbml.training.tune import Progress, usual_strategy
from rbml.training.tune.progress import SHARE, Search
from rbml.training.tune.runs import Runs
from rbml.training.tune.tuning import FRESH, finished, learner_of, split, validated
from rbml.tree import Tree

STARTS, RANGE = 3, 3.0
History = list[Progress]


def kept(name: str, folder: Path | None) -> Batch:
    """Read a data set, or what an earlier call read."""
    if folder is None:
        return ALL[name]()
    file = folder / f"{name}.pt"
    if not file.exists():
        folder.mkdir(parents=True, exist_ok=True)
        torch.save(tuple(ALL[name]())[:2], file)
    return Batch(*torch.load(file))


def shifted(start: Tree, move: Callable[[str, Tensor], Tensor]) -> Tree:
    return {name: leaf + move(name, leaf) for name, leaf in start.items()}


def few(start: Tree, numbers: list[float]) -> Tree:
    """Return phi from 4 or 5 numbers that all tensors share."""
    rate, decay, momentum, end, *middle = numbers

    def move(name: str, leaf: Tensor) -> Tensor:
        for key, value in (("sgd", rate), ("l2", decay), ("momentum", momentum)):
            if name.startswith(f"phi.{key}"):
                return torch.full_like(leaf, value)
        if "knots" not in name:
            return torch.zeros_like(leaf)
        place = torch.linspace(0, 1, len(leaf))
        bent = (middle[0] if middle else end / 2) * 2 * torch.minimum(place, 1 - place)
        return bent + end * (2 * place - 1).clamp(min=0)

    return shifted(start, move)


def every(start: Tree, numbers: list[float]) -> Tree:
    rest = iter(numbers)
    return shifted(start, lambda _, leaf: torch.tensor([next(rest) for _ in range(leaf.numel())]).reshape(leaf.shape))


def searched(runs: Runs, seconds: float, seed: int, sampler: str, count: int) -> History:
    """Return the history of a search without derivatives: after each trial the best so far."""
    import optuna  # noqa: PLC0415  not a dependency of the package

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    made = optuna.samplers.TPESampler if sampler == "tpe" else optuna.samplers.RandomSampler
    study = optuna.create_study(sampler=made(seed=seed))
    start, began = runs.phi(), time.process_time()
    total = sum(leaf.numel() for leaf in start.values())
    study.enqueue_trial({f"n{place}": 0.0 for place in range(count or total)})
    history: History = []
    while time.process_time() - began < seconds or len(history) < 2:
        trial = study.ask()
        numbers = [trial.suggest_float(f"n{place}", -RANGE, RANGE) for place in range(count or total)]
        phi = few(start, numbers) if count else every(start, numbers)
        loss = runs.judged(phi, range(STARTS))["loss"].mean().nan_to_num(1e6).clamp(max=1e6).item()
        study.tell(trial, loss)
        history.append(Progress(time.process_time() - began, len(history) + 1, loss, phi))
    best = min(history, key=lambda one: one.loss)
    return [*history, best]


def by_hypergradient(runs: Runs, seconds: float, seed: int) -> History:
    search = Search(runs, seconds / SHARE, STARTS, "whole", 0.15, seed, None, None, lambda: False, time.process_time)
    return search.run()[0]


METHODS: dict[str, Callable[[Runs, float, int], History]] = {
    "hypergradient": by_hypergradient,
    "TPE, 4": lambda runs, seconds, seed: searched(runs, seconds, seed, "tpe", 4),
    "TPE, 5": lambda runs, seconds, seed: searched(runs, seconds, seed, "tpe", 5),
    "TPE, all": lambda runs, seconds, seed: searched(runs, seconds, seed, "tpe", 0),
    "random, all": lambda runs, seconds, seed: searched(runs, seconds, seed, "random", 0),
}


def boosted(parts: tuple[Batch, Batch, Batch], classes: bool) -> float:
    from sklearn import ensemble, metrics  # noqa: PLC0415

    (train, val, test), kind = parts, "Classifier" if classes else "Regressor"
    model = getattr(ensemble, f"HistGradientBoosting{kind}")(random_state=0)
    model.fit(torch.cat([train.x, val.x]).numpy(), torch.cat([train.y, val.y]).flatten().numpy())
    if classes:
        return float(metrics.log_loss(test.y.numpy(), model.predict_proba(test.x.numpy()), labels=model.classes_))
    return float(metrics.mean_squared_error(test.y.flatten().numpy(), model.predict(test.x.numpy())))


def best_so_far(runs: Runs, parts: Any, history: History, target: Any, marks: list[float]) -> list[float]:
    """Return the loss on the third part of what was best by validation at each of some moments."""
    found = []
    for mark in marks:
        seen = [one for one in history if one.seconds <= mark] or history[:1]
        best = min(seen, key=lambda one: one.loss)
        last = Runs(runs.learner, runs.model, parts[0], parts[2], runs.size)
        found.append(last.judged(best.phi, range(FRESH, FRESH + STARTS))["loss"].mean().item())
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", nargs="+", default=list(ALL), choices=list(ALL))
    parser.add_argument("--methods", nargs="+", default=list(METHODS), choices=list(METHODS))
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--no-compile", action="store_true")
    parser.add_argument("--keep", type=Path, help="a folder for what was read, so that a later call reads it at once")
    parser.add_argument("--out", type=Path, help="where to save the figure of best so far against processor time")
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    curves: dict[str, dict[str, list[list[float]]]] = {}
    marks = [chosen.seconds * share for share in (0.05, 0.1, 0.2, 0.35, 0.5, 0.75, 1.0)]
    print("| data | seed | method | changes | third part | the usual settings |\n" + "| --- " * 6 + "|")
    for name in chosen.data:
        examples = kept(name, chosen.keep)
        classes = not examples.y.is_floating_point()
        target = CLASSES if classes else real()
        outputs = int(examples.y.max()) + 1 if classes else 1
        model = MLP(examples.x.shape[1], outputs, (64, 32), nn.Tanh)
        differences: dict[str, list[float]] = {}
        for seed in range(chosen.seeds):
            parts = split(examples, seed)
            strategy = usual_strategy(classes)
            learner = learner_of(model, strategy, target, chosen.steps, not chosen.no_compile, 1.0)
            runs = Runs(learner, model, parts[0], parts[1], 32)
            runs.gradient(runs.phi(), range(STARTS))  # compiles
            runs.judged(runs.phi(), range(STARTS))
            results = {}
            for method in chosen.methods:
                history = METHODS[method](runs, chosen.seconds, seed)
                candidates = validated(runs, history, range(FRESH, FRESH + STARTS))
                found = finished(runs, parts, candidates, history, target, range(2 * FRESH, 2 * FRESH + STARTS))
                results[method] = found.test["loss"]
                if chosen.out:
                    line = best_so_far(runs, parts, history, target, marks)
                    curves.setdefault(name, {}).setdefault(method, []).append(line)
                print(f"| {name} | {seed} | {method} | {history[-1].changes} | {found.test['loss']:.4f} | "
                      f"{found.usual['loss']:.4f} |", flush=True)  # fmt: skip
                fresh = learner_of(model, strategy, target, chosen.steps, False, 1.0)
                learner.phi.load_state_dict(fresh.phi.state_dict())
            if chosen.out:
                draw(curves, marks, chosen.out)
            print(f"| {name} | {seed} | gradient boosting | | {boosted(parts, classes):.4f} | |", flush=True)
            for method, loss in results.items():
                differences.setdefault(method, []).append(loss - results[chosen.methods[0]])
        for method, each in differences.items():
            spread = statistics.stdev(each) / len(each) ** 0.5 if len(each) > 1 else 0.0
            print(
                f"{name}: {method} minus {chosen.methods[0]}: {statistics.mean(each):+.4f} +- {spread:.4f}", flush=True
            )


def draw(curves: dict[str, dict[str, list[list[float]]]], marks: list[float], out: Path) -> None:
    import matplotlib.pyplot as plt  # noqa: PLC0415  needed only for a figure

    figure, axes = plt.subplots(1, len(curves), figsize=(4 * len(curves), 3.2), layout="constrained", squeeze=False)
    for axis, (name, methods) in zip(axes[0], curves.items(), strict=True):
        for method, lines in methods.items():
            axis.plot(marks, torch.tensor(lines).median(0).values, ".-", label=method)  # a run may diverge
        axis.set(title=name, xlabel="processor time, s", ylabel="loss on the third part", yscale="log")
    axes[0][0].legend(fontsize="small")
    figure.savefig(out)


if __name__ == "__main__":
    main()
