"""Strategies that are learned on streams of 90 steps, and used as they are on streams up to 30 times as long.

    python benchmarks/continual_carry.py --seconds 120 --methods "one length"

On one pretrained body, which stays as it is; beside them, a rate that was chosen on long streams of validation classes.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from typing import Any

import torch
from continual import QUERIES, RATES, SHOTS, STREAMS, features, learned, load, pretrained, show, summary

from rbml import models
from rbml.algorithms.options import assemble
from rbml.hypergrad import Windowed
from rbml.learner import Learner
from rbml.strategy import Hyper, Scalar, chain, fresh_rows, inverse_time, lda, prototype, settle, sgd
from rbml.tasks import Continual, FewShot, Stream, generator, task_seeds
from rbml.training.continual import choose, follow


def carry(arguments: argparse.Namespace) -> None:
    """Learn strategies on streams of 90 steps on one pretrained body, and use them as they are on longer ones."""
    seed, marks = arguments.seeds[0], tuple(arguments.classes)
    body = pretrained(load("train"), arguments.seconds, seed, arguments.keep)
    positive = (0.0, None)
    rate, scale = Hyper(0.1, bounds=positive), Scalar(1.0, bounds=positive)
    strategies: dict[str, tuple[Any, int]] = {
        "a rate": (chain(sgd(rate), fresh_rows()), 15),
        "a rate, on 360 steps by windows of 90": (chain(sgd(rate), fresh_rows()), 60),
        "a rate per step": (chain(sgd(replace(rate, per_step=True)), fresh_rows()), 15),
        "a rate that falls as 1 / (1 + a t)": (chain(sgd(rate), inverse_time(rate), fresh_rows()), 15),
        "a rate, and rows that settle": (
            chain(sgd(rate), settle(Hyper(15.0, bounds=positive)), fresh_rows()),
            15,
        ),
        "class means, a scale": (chain(prototype(scale), sgd(0.1)), 15),
        "LDA, its shrinkage and a scale": (chain(lda(Scalar(0.1, bounds=(0, 1)), scale), sgd(0.1)), 15),
    }
    for one_length in (False, True):
        train, val, test = (features(body, part, one_length) for part in ("train", "val", "test"))
        width, how = train[0].shape[1], ", features of one length" * one_length
        seeds = task_seeds(STREAMS, generator(seed, 77))
        streams = Continual(test, marks[-1], SHOTS, QUERIES).draw(seeds)
        known = Continual(val, int(val[1].max()) + 1, SHOTS, QUERIES).draw(seeds[:1])
        for name, (strategy, ways) in strategies.items():
            if arguments.methods and not any(wanted in name + how for wanted in arguments.methods):
                continue
            source = Continual(train, ways, 6, 2)
            grows = strategy.start is not None
            learner = assemble(
                models.MLP(width, ways, ()), strategy, 0 if grows else source.steps, adapt="head", verify=False,
                hypergradient=Windowed(90) if ways > 15 else None,
            )  # fmt: skip
            learned(learner, FewShot(train, ways, 6, 2) if grows else source, 4, arguments.seconds / 3, seed, 0.1)
            show({name + how: [summary(follow(learner, streams, marks)) | {"rate": value_of(learner)}]}, marks)

        def at(rate: float, width: int = width) -> Learner:
            return assemble(models.MLP(width, 15, ()), chain(sgd(rate), fresh_rows()), 1, adapt="head", verify=False)

        def score(rate: float, known: Stream = known, at: Any = at) -> float:
            return follow(at(rate), known, (int(known.query.y.max()) + 1,)).retained().mean

        best, ways = choose(score, RATES), int(known.query.y.max()) + 1
        found = summary(follow(at(best.value), streams, marks)) | {"rate": best.value}
        show({f"a rate, chosen on streams of {ways * SHOTS} steps{how}": [found]}, marks)


def value_of(learner: Learner) -> float | None:
    """Return the mean of the learned rates; nothing where there are none."""
    raw = learner.phi.state_dict().get("sgd.lr")
    return None if raw is None else float(raw.exp().mean())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=120)
    parser.add_argument("--seeds", type=int, nargs=1, default=[0])
    parser.add_argument("--classes", type=int, nargs="+", default=[10, 50, 100, 200])
    parser.add_argument("--methods", nargs="*", default=[], help="parts of the names of strategies; all without it")
    parser.add_argument("--keep", help="a folder that keeps pretrained bodies, for other calls")
    torch.set_num_threads(1)
    carry(parser.parse_args())


if __name__ == "__main__":
    main()
