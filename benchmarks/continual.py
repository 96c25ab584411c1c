"""Streams of Omniglot: 10 to 600 classes one after another, each example seen once; how much is known at the end.

    python benchmarks/continual.py --seconds 120 --seeds 0
    python benchmarks/continual.py --seconds 1800 --seeds 0 1 2 3 4 --classes 10 50 100 200 600   # hours

Every method has the same seconds of processor time in all, pretraining included, and its rate of learning chosen on
streams of validation alphabets, inside its grid. Streams and their order are the same for all methods (paired).
Strategies that are learned on short streams: ``continual_carry.py``; online heads on fixed features:
``continual_online.py``.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import nn

from rbml import data, models
from rbml.algorithms import anml, oml, pretrain, streaming_lda
from rbml.algorithms.options import assemble
from rbml.learner import Learner
from rbml.strategy import Hyper, chain, ewc, fresh_rows, lda, prototype, running_mean, settle, sgd
from rbml.strategy.fresh_rows import When
from rbml.tasks import Continual, FewShot, Job, Replay, Stream, Supervised, generator, task_seeds
from rbml.tasks.base import one
from rbml.training import Score
from rbml.training.continual import StreamScores, choose, follow

SHOTS, QUERIES, STREAMS = 15, 5, 2
RATES = (0.001, 0.01, 0.1)
Body = dict[str, torch.Tensor]


class Method(NamedTuple):
    """A trained method: a learner for every rate, the rates to begin with (none to choose), and how it sees streams."""

    make: Callable[[float], Learner]
    rates: tuple[float, ...] | None = RATES
    seen: Callable[[Stream], Any] = lambda streams: streams


def load(part: str) -> data.Labelled:
    return data.ALL["omniglot"](part, split="lake")  # type: ignore[return-value]


def net(outputs: int, seed: int, start: Body | None = None) -> models.Conv4:
    torch.manual_seed(seed)
    made = models.Conv4(outputs, norm="group", filters=64)
    made.load_state_dict(made.state_dict() | (start or {}))
    return made


class UnitNorm(nn.Module):
    """A network whose features are centred and brought to one length: a rate means the same for every example."""

    def __init__(self, net: models.Conv4) -> None:
        super().__init__()
        self.body, self.head = net, nn.Linear(net.head.in_features, net.head.out_features)
        self.body.head = nn.Identity()  # type: ignore[assignment]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        features = self.body(x)
        features = features - features.mean(1, keepdim=True)
        prediction: torch.Tensor = self.head(features / features.norm(dim=1, keepdim=True).clamp(min=1e-6))
        return prediction


def learned(learner: Learner, source: Any, tasks: int, seconds: float, seed: int, lr: float = 2e-3) -> Learner:
    """Train across tasks for some seconds of processor time, with Adam along a cosine."""
    optimizer, began, step = torch.optim.Adam(learner.parameters(), lr=lr), time.process_time(), 0
    while (share := (time.process_time() - began) / seconds) < 1:
        optimizer.param_groups[0]["lr"] = lr * 0.5 * (1 + math.cos(math.pi * share))
        optimizer.zero_grad()
        learner.backward(source.draw(task_seeds(tasks, generator(seed, step))))
        torch.nn.utils.clip_grad_norm_(learner.parameters(), 10.0)
        optimizer.step()
        step += 1
    print(f"    {step} outer steps", flush=True)
    return learner


def pretrained(train: data.Labelled, seconds: float, seed: int, keep: str | None, without: int = 0) -> Body:
    """Return a body that was trained on all classes at once, for so many seconds; from a folder if it is there.

    Args:
        train: the classes.
        seconds: of processor time.
        seed: of the weights and batches.
        keep: the folder.
        without: how many classes, the last ones, are left out.
    """
    place = None if keep is None else Path(keep) / f"body-{seed}-{seconds:g}{f'-without-{without}' * (without > 0)}.pt"
    if place is not None and place.is_file():
        return torch.load(place)  # type: ignore[no-any-return]
    if without:
        own = train.y < train.classes - without
        train = train._replace(x=train.x[own], y=train.y[own], names=train.names[: train.classes - without])
    learner = pretrain(net(train.classes, seed), verify=False)
    state = learned(learner, Supervised(train, 128), 1, seconds, seed, 4e-3).model.state_dict()
    made = {name: leaf for name, leaf in state.items() if not name.startswith("head.")}
    if place is not None:
        place.parent.mkdir(parents=True, exist_ok=True)
        torch.save(made, place)
    return made


class Streams:
    """The streams of validation and test, the same for every method."""

    def __init__(self, classes: list[int], seed: int) -> None:
        val, test = load("val"), load("test")
        self.ways, self.marks = val.classes, tuple(classes)
        own = task_seeds(STREAMS, generator(seed, 77))
        self.val = Continual(val, val.classes, SHOTS, QUERIES).draw(own[:1])
        self.test = Continual(test, classes[-1], SHOTS, QUERIES).draw(own)

    def chosen(self, method: Method) -> float | None:
        """Return the rate that is best on validation streams, or nothing where there is none to choose."""
        if method.rates is None:
            return None

        def score(rate: float) -> float:
            found = follow(method.make(rate), method.seen(self.val), (self.ways,)).retained().mean
            print(f"    rate {rate:g}: {100 * found:.1f}", flush=True)
            return found

        found = choose(score, method.rates)
        if not found.inside:
            print(f"    the best rate, {found.value:g}, lies at the edge of {[rate for rate, _ in found.tried]}")
        return found.value


def online(model: nn.Module, *rules: Any, adapt: str = "head", when: When = "start") -> Method:
    """Return plain gradient descent along a stream."""
    rows = fresh_rows(when=when)
    return Method(lambda rate: assemble(model, chain(*rules, sgd(rate), rows), 1, adapt=adapt, verify=False))


def with_memory(streams: Stream) -> Replay:
    return Replay.of(streams, 500, 10, list(range(len(streams.query.y))))


def methods(seconds: float, seed: int, keep: str | None) -> dict[str, Callable[[], Method]]:
    """Return every method: a function that trains it."""
    train = load("train")

    def start(share: float) -> Body:
        return pretrained(train, share * seconds, seed, keep)

    def one_length(share: float) -> UnitNorm:
        return UnitNorm(net(20, seed, start(share)))

    def on_streams(begin: Body | None, share: float) -> nn.Module:
        source = Continual(train, 15, 6, 2, remember=30, labels="global")
        rate = Hyper(0.1, bounds=(0, None))
        made = oml(net(train.classes, seed, begin), rate, source.steps, verify=False)
        return learned(made, source, 4, share * seconds, seed).model

    def gated() -> nn.Module:
        source = Continual(train, 15, 6, 2, remember=30, labels="global")
        made = anml(net(train.classes, seed), Hyper(0.1, bounds=(0, None)), source.steps, adapt="head", verify=False)
        return learned(made, source, 4, seconds, seed).model

    def on_tasks(begin: Body | None, share: float) -> Method:
        made = streaming_lda(net(40, seed, begin), verify=False)
        learned(made, FewShot(train, 40, 5, 5), 1, share * seconds, seed)
        return Method(lambda rate: made, None)

    def made_head(head: Any) -> Method:
        made = assemble(net(20, seed, start(1.0)), chain(head, sgd(0.1)), 0, adapt="head")
        return Method(lambda rate: made, None)

    return {
        "from scratch, online": lambda: online(net(20, seed), adapt="*"),
        "from scratch, EWC": lambda: online(net(20, seed), ewc(100.0, SHOTS), adapt="*"),
        "from scratch, replay": lambda: online(net(20, seed), adapt="*")._replace(seen=with_memory),
        "pretrained, online head": lambda: online(net(20, seed, start(1.0))),
        "pretrained, online head, one length": lambda: online(one_length(1.0)),
        "pretrained, online head, one length, rows reset on arrival": lambda: online(one_length(1.0), when="arrival"),
        "pretrained, online head, one length, rows settle": lambda: online(one_length(1.0), settle(15.0)),
        "pretrained, online head, one length, rows as a running mean": lambda: online(one_length(1.0), running_mean()),
        "pretrained, online head, replay": lambda: online(net(20, seed, start(1.0)))._replace(seen=with_memory),
        "pretrained, class means": lambda: made_head(prototype()),
        "pretrained, streaming LDA": lambda: made_head(lda()),
        "OML": lambda: online(on_streams(None, 1.0)),
        "OML from pretrained": lambda: online(on_streams(start(0.5), 0.5)),
        "ANML, the head adapted": lambda: online(gated()),
        "learned for streaming LDA": lambda: on_tasks(None, 1.0),
        "learned for streaming LDA from pretrained": lambda: on_tasks(start(0.5), 0.5),
    }


def bound(streams: Streams, body: Body, seed: int) -> None:
    """Print what the last mark would be with the same examples in random order, ten times, for a pretrained body."""

    def accuracy(rate: float, tasks: Stream) -> float:
        ways, total = int(tasks.query.y.max()) + 1, tasks.steps.y.shape[1]
        steps = 10 * total // 32
        learner = assemble(net(ways, seed, body), chain(sgd(rate)), steps, adapt="head", verify=False)
        found = []
        for index in range(len(tasks.query.y)):
            single = one(tasks, index)
            job = Job.of(single.support, single.query, 32, [index])
            evaluation = learner.evaluate(job, steps=steps, each_step=False)
            assert evaluation.accuracy is not None
            found.append(float(evaluation.accuracy[0, -1]))
        return sum(found) / len(found)

    rate = choose(lambda rate: accuracy(rate, streams.val), (0.1, 1.0, 10.0)).value
    print(f"bound: pretrained, head on the same examples in random order, 10 epochs, rate {rate:g}: "
          f"{100 * accuracy(rate, streams.test):.1f}", flush=True)  # fmt: skip


def compare(arguments: argparse.Namespace) -> None:
    rows: dict[str, list[dict[str, Any]]] = {}
    for seed in arguments.seeds:
        streams = Streams(arguments.classes, seed)
        for name, train in methods(arguments.seconds, seed, arguments.keep).items():
            if arguments.methods and not any(wanted in name for wanted in arguments.methods):
                continue
            print(f"{name}, seed {seed}", flush=True)
            method = train()
            rate = streams.chosen(method)
            found = follow(method.make(rate or 0.0), method.seen(streams.test), streams.marks)
            rows.setdefault(name, []).append(summary(found) | {"rate": rate})
            show({name: rows[name]}, streams.marks)
            if arguments.out:
                Path(arguments.out).write_text(json.dumps({"marks": streams.marks, "rows": rows}, indent=1))
        if arguments.methods:
            continue
        bound(streams, pretrained(load("train"), arguments.seconds, seed, arguments.keep), seed)
    print()
    show(rows, tuple(arguments.classes))
    for ours, other in (
        ("OML from pretrained", "pretrained, online head"),
        ("learned for streaming LDA from pretrained", "pretrained, streaming LDA"),
    ):
        paired(rows, ours, other)


def paired(rows: dict[str, list[dict[str, Any]]], ours: str, other: str) -> None:
    """Print the difference of two methods at the last mark, over the same streams of the same seeds."""
    if ours in rows and other in rows:
        gaps = [
            a["each"][i] - b["each"][i] for a, b in zip(rows[ours], rows[other], strict=True) for i in range(STREAMS)
        ]
        print(f"{ours} - {other}, paired over streams: {Score.of(torch.tensor(gaps)).shown('%')}")


def summary(found: StreamScores) -> dict[str, Any]:
    return {
        "accuracy": [score.mean for score in found.accuracy()],
        "each": found.right[:, -1].double().mean(1).tolist(),
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


def features(body: Body, part: str, one_length: bool) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the features of all drawings of a part, and their classes."""
    examples, model = load(part), net(1, 0, body)
    model.head = nn.Identity()  # type: ignore[assignment]
    with torch.no_grad():
        found = torch.cat([model(examples.modality.ready(x)) for x in examples.x.split(500)])
    if one_length:
        found = found - found.mean(1, keepdim=True)
        found = found / found.norm(dim=1, keepdim=True).clamp(min=1e-6)
    return found, examples.y


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=120)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--classes", type=int, nargs="+", default=[10, 50, 100, 200])
    parser.add_argument("--methods", nargs="*", default=[], help="parts of the names of methods; all without it")
    parser.add_argument("--keep", help="a folder that keeps pretrained bodies, for other calls")
    parser.add_argument("--out", help="a JSON file for the numbers")
    torch.set_num_threads(1)
    compare(parser.parse_args())


if __name__ == "__main__":
    main()
