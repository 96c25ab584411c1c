"""Streams of Omniglot: 10 to 600 classes one after another, each example seen once; how much is known at the end.

    python benchmarks/continual.py compare --seconds 120 --seeds 0
    python benchmarks/continual.py compare --seconds 1800 --seeds 0 1 2 3 4 --classes 10 50 100 200 600   # hours
    python benchmarks/continual.py carry --seconds 120

``compare``: every method has the same seconds of processor time in all, pretraining included, and its rate of learning
chosen on streams of validation alphabets, inside its grid. ``carry``: strategies that are learned on streams of 90
steps and used on streams up to 30 times as long. Streams and their order are the same for all methods (paired).
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from rbml import data, models
from rbml.algorithms import oml, pretrain, streaming_lda
from rbml.algorithms.options import assemble
from rbml.learner import Learner
from rbml.strategy import Hyper, Part, Scalar, Strategy, chain, ewc, fresh_rows, inverse_time, prototype, sgd
from rbml.tasks import Continual, FewShot, Job, Replay, Supervised, generator, task_seeds
from rbml.training.continual import StreamScores, choose, follow

SHOTS, QUERIES, STREAMS = 15, 5, 2
RATES = (0.001, 0.01, 0.1)
Grown = Callable[[float], Learner]


def load(part: str) -> data.Labelled:
    return data.ALL["omniglot"](part, split="lake")  # type: ignore[return-value]


def net(outputs: int, seed: int) -> models.Conv4:
    torch.manual_seed(seed)
    return models.Conv4(outputs, norm="layer", filters=64)


def body(learner: Learner) -> dict[str, torch.Tensor]:
    state = learner.model.state_dict()
    return {name: leaf for name, leaf in state.items() if not name.startswith("head.")}


def warm(model: models.Conv4, from_body: dict[str, torch.Tensor] | None) -> models.Conv4:
    model.load_state_dict(model.state_dict() | (from_body or {}))
    return model


def learned(learner: Learner, source: Any, tasks: int, seconds: float, seed: int, lr: float = 2e-3) -> Learner:
    """Train across tasks for some seconds of processor time, with Adam along a cosine."""
    optimizer, began, step = torch.optim.Adam(learner.parameters(), lr=lr), time.process_time(), 0
    while (share := (time.process_time() - began) / seconds) < 1:
        for group in optimizer.param_groups:
            group["lr"] = lr * 0.5 * (1 + float(torch.cos(torch.tensor(3.14159265 * share))))
        optimizer.zero_grad()
        learner.backward(source.draw(task_seeds(tasks, generator(seed, step))))
        torch.nn.utils.clip_grad_norm_(learner.parameters(), 10.0)
        optimizer.step()
        step += 1
    print(f"    {step} outer steps", flush=True)
    return learner


class Streams:
    """The streams of validation and test, the same for every method."""

    def __init__(self, classes: list[int], seed: int) -> None:
        val, test = load("val"), load("test")
        self.val_ways, self.marks = val.classes, tuple(classes)
        own = task_seeds(STREAMS, generator(seed, 77))
        self.val = Continual(val, val.classes, SHOTS, QUERIES).draw(own[:1])
        self.test = Continual(test, classes[-1], SHOTS, QUERIES).draw(own)

    def validate(self, make: Grown) -> Callable[[float], float]:
        def score(rate: float) -> float:
            found = follow(make(rate), self.val, (self.val_ways,)).retained().mean
            print(f"    rate {rate:g}: {100 * found:.1f}", flush=True)
            return found

        return score


def fixed(learner: Learner) -> Grown:
    return lambda rate: learner


def head_online(model: Any, extra: tuple[Part | Strategy, ...] = ()) -> Grown:
    """Return the online gradient head on a body that stays as it is."""
    return lambda rate: assemble(model, chain(sgd(rate), *extra, fresh_rows()), 1, adapt="head", verify=False)


def methods(
    seconds: float, seed: int, wanted: list[str]
) -> dict[str, Callable[[], tuple[Grown, tuple[float, ...] | None]]]:
    """Return every method: a function that trains it, and returns a learner for each rate, with its grid of rates."""
    train = load("train")
    kept: dict[str, Any] = {}

    def pretrained(share: float) -> dict[str, torch.Tensor]:
        if str(share) not in kept:
            classes = Supervised(train, 256)
            made = pretrain(net(train.classes, seed), verify=False)
            kept[str(share)] = body(learned(made, classes, 1, share * seconds, seed, 4e-3))
        return kept[str(share)]  # type: ignore[no-any-return]

    def on_streams(start: dict[str, torch.Tensor] | None, share: float) -> models.Conv4:
        source = Continual(train, 15, 6, 2, remember=30, labels="global")
        made = oml(warm(net(train.classes, seed), start), Hyper(0.1, bounds=(0, None)), source.steps, verify=False)
        return learned(made, source, 4, share * seconds, seed).model  # type: ignore[return-value]

    def on_tasks(start: dict[str, torch.Tensor] | None, share: float) -> Learner:
        made = streaming_lda(warm(net(20, seed), start), verify=False)
        return learned(made, FewShot(train, 40, 5, 5), 1, share * seconds, seed)

    def plain(task: str, *rules: Any) -> tuple[Grown, tuple[float, ...]]:
        model = net(20, seed)
        return lambda rate: assemble(model, chain(*rules, sgd(rate), fresh_rows()), 1, verify=False), RATES

    whole = {
        "online, everything, from scratch": lambda: plain("stream"),
        "EWC, everything, from scratch": lambda: plain("stream", ewc(100.0, SHOTS)),
        "replay, everything, from scratch": lambda: plain("replay"),
        "pretrained + online head": lambda: (head_online(warm(net(20, seed), pretrained(1.0))), RATES),
        "pretrained + class means": lambda: (
            fixed(assemble(warm(net(20, seed), pretrained(1.0)), chain(prototype(), sgd(0.1)), 0, adapt="head")), None),
        "pretrained + streaming LDA": lambda: (fixed(streaming_lda(warm(net(20, seed), pretrained(1.0)))), None),
        "learned on streams + online head": lambda: (head_online(on_streams(None, 1.0)), RATES),
        "warm-started on streams + online head": lambda: (head_online(on_streams(pretrained(0.5), 0.5)), RATES),
        "learned with streaming LDA": lambda: (fixed(on_tasks(None, 1.0)), None),
        "warm-started with streaming LDA": lambda: (fixed(on_tasks(pretrained(0.5), 0.5)), None),
    }  # fmt: skip
    return {name: make for name, make in whole.items() if not wanted or any(one in name for one in wanted)}


def compare(arguments: argparse.Namespace) -> None:
    rows: dict[str, list[dict[str, Any]]] = {}
    for seed in arguments.seeds:
        streams = Streams(arguments.classes, seed)
        for name, train in methods(arguments.seconds, seed, arguments.methods).items():
            print(f"{name}, seed {seed}", flush=True)
            make, grid = train()
            chosen = None if grid is None else choose(streams.validate(make), grid)
            tasks = streams.test
            if name.startswith("replay"):
                tasks = Replay.of(tasks, 500, 10, list(range(STREAMS)))
            found = follow(make(0.0 if chosen is None else chosen.value), tasks, streams.marks)
            rows.setdefault(name, []).append(summary(found) | {"seed": seed, "rate": chosen and chosen.value})
            show({name: rows[name]}, streams.marks)
            if arguments.out:
                Path(arguments.out).write_text(json.dumps({"marks": streams.marks, "rows": rows}, indent=1))
    print()
    show(rows, tuple(arguments.classes))


def summary(found: StreamScores) -> dict[str, Any]:
    return {
        "accuracy": [score.mean for score in found.accuracy()],
        "learning": found.learning().mean,
        "backward": found.backward().mean,
    }


def show(rows: dict[str, list[dict[str, Any]]], marks: tuple[int, ...]) -> None:
    print(f"| | rate | {' | '.join(map(str, marks))} | just learned | backward transfer |")
    print("| --- |" + " --- |" * (len(marks) + 3))
    for name, runs in rows.items():
        columns = zip(*[[*run["accuracy"], run["learning"], run["backward"]] for run in runs], strict=True)
        numbers = " | ".join(f"{100 * sum(column) / len(column):.1f}" for column in columns)
        rate = ", ".join(f"{run['rate']:g}" for run in runs if run["rate"])
        print(f"| {name} | {rate or '-'} | {numbers} |", flush=True)


def carry(arguments: argparse.Namespace) -> None:
    """Learn strategies on streams of 90 steps on one pretrained body, and use them as they are on longer ones."""
    seed = arguments.seeds[0]
    streams, train = Streams(arguments.classes, seed), load("train")
    made = learned(
        pretrain(net(train.classes, seed), verify=False), Supervised(train, 256), 1, arguments.seconds, seed, 4e-3
    )
    model = warm(net(15, seed), body(made))
    for name, leaf in model.named_parameters():
        leaf.requires_grad_(name.startswith("head."))
    source = Continual(train, 15, 6, 2)
    positive = {"bounds": (0, None)}
    rate = Hyper(0.1, **positive)  # type: ignore[arg-type]
    strategies: dict[str, Any] = {
        "a rate": chain(sgd(rate), fresh_rows()),
        "a rate per step": chain(sgd(replace(rate, per_step=True)), fresh_rows()),
        "a rate that falls as 1 / (1 + a t)": chain(sgd(rate), inverse_time(rate), fresh_rows()),
        "class means, a scale": chain(prototype(Scalar(1.0, **positive)), sgd(0.1)),  # type: ignore[arg-type]
    }
    for name, strategy in strategies.items():
        print(name, flush=True)
        steps = 0 if strategy.start else source.steps
        learner = assemble(model, strategy, steps, adapt="head", verify=False)
        learned(learner, source if steps else FewShot(train, 15, 6, 2), 4, arguments.seconds / 4, seed, 0.05)
        print("   ", {key: float(leaf.mean()) for key, leaf in learner.phi.named_parameters()})
        found = follow(learner, streams.test, streams.marks)
        show({name: [summary(found) | {"rate": None}]}, streams.marks)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("compare", "carry"))
    parser.add_argument("--seconds", type=float, default=120)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--classes", type=int, nargs="+", default=[10, 50, 100, 200])
    parser.add_argument("--methods", nargs="*", default=[], help="parts of the names of methods; all without it")
    parser.add_argument("--out", help="a JSON file for the numbers")
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    {"compare": compare, "carry": carry}[chosen.what](chosen)


if __name__ == "__main__":
    main()
