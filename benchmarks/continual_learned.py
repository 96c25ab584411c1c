"""Does learning through streams add to pretraining? Bodies learned in equal time, each with the same heads.

    python benchmarks/continual_learned.py --seconds 60 --seeds 0 --part val      # to choose
    python benchmarks/continual_learned.py --seconds 60 --seeds 0 1 2             # once

Bodies, all in the same seconds of processor time:

- *pretrained*: one classifier for all training classes;
- *through streams*: two thirds of that, then through the steps of OML with a cosine head that settles
  (``oml(cosine=True)``), on streams of 100 classes that bring the three drawings of a class at once;
- *through class means*: two thirds of that, then through class means of 100 classes, which that head is close to.

Heads, on features of one length: plain gradient descent (*online*), the cosine head that settles (*cosine*), class
means, and streaming LDA. Rates were chosen on a stream of validation classes; streams are the same for all (paired).
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

import torch
from continual import (
    QUERIES,
    RATES,
    SHOTS,
    STREAMS,
    Body,
    UnitNorm,
    features,
    learned,
    load,
    net,
    paired,
    pretrained,
    show,
    summary,
)

from rbml import models
from rbml.algorithms import oml
from rbml.algorithms.options import assemble
from rbml.learner import Learner
from rbml.models.cosine_head import of_one_length
from rbml.strategy import Hyper, Scalar, chain, fresh_rows, lda, prototype, settle, sgd
from rbml.tasks import Continual, FewShot, generator, task_seeds
from rbml.training.continual import choose, follow

BEFORE = 2 / 3
"""The share of the time that is for pretraining where something else follows."""
ONLINE, COSINE = 1e-4, 1.0
"""Rates, chosen by ``--part val`` on seed 0 and the pretrained body; the same for all bodies."""


def through_streams(train: Any, body: Body, seconds: float, seed: int) -> Body:
    """Return the body, learned further through online steps of a cosine head that settles."""
    source = Continual(train, 100, 3, 3, batch=3)
    made = oml(net(100, seed, body), Hyper(2.0, bounds=(0, None)), source.steps, cosine=True, verify=False)
    found = learned(made, source, 1, seconds, seed)
    print("    " + ", ".join(f"{name} {float(leaf):.3f}" for name, leaf in found.phi.state_dict().items()))
    return {name: leaf for name, leaf in found.model.state_dict().items() if not name.startswith("head.")}


def through_means(train: Any, body: Body, seconds: float, seed: int) -> Body:
    """Return the body, learned further through class means of its features at one length."""
    head = prototype(Scalar(10.0, bounds=(0, None)))
    made = assemble(UnitNorm(net(100, seed, body)), chain(head, sgd(0.1)), 0, adapt="head", verify=False)
    state = learned(made, FewShot(train, 100, 3, 3), 1, seconds, seed).model.state_dict()
    return {name.removeprefix("body."): leaf for name, leaf in state.items() if name.startswith("body.")}


def online(width: int) -> Any:
    """Return a plain linear head that is learned by gradient descent along a stream, for every rate."""
    return lambda rate: assemble(
        models.MLP(width, 20, ()), chain(sgd(rate), fresh_rows()), 1, adapt="head", verify=False
    )


def cosine(width: int) -> Any:
    """Return the cosine head that settles, for every rate."""
    rules = (settle(float(SHOTS)), fresh_rows())
    head = models.with_cosine_head(models.MLP(width, 20, ()), "head", 1.0)
    return lambda rate: assemble(
        head, chain(*rules, sgd(rate)), 1, adapt="head.weight", head="head.weight", verify=False
    )


def made_of(head: Any, width: int) -> Learner:
    return assemble(models.MLP(width, 20, ()), chain(head, sgd(0.1)), 0, adapt="head", verify=False)


def measured(body: Body, part: str, marks: tuple[int, ...], seed: int) -> dict[str, dict[str, Any]]:
    """Return what every head on the features of a body knows of the streams of one seed."""
    x, y = features(body, part, False)
    x, width = of_one_length(x), x.shape[1]
    streams = Continual((x, y), marks[-1], SHOTS, QUERIES).draw(task_seeds(STREAMS, generator(seed, 77)))
    heads: dict[str, tuple[Learner, float | None]] = {
        "online": (online(width)(ONLINE), ONLINE),
        "cosine": (cosine(width)(COSINE), COSINE),
        "class means": (made_of(prototype(), width), None),
        "streaming LDA": (made_of(lda(), width), None),
    }
    return {name: summary(follow(made, streams, marks)) | {"rate": rate} for name, (made, rate) in heads.items()}


def rates(body: Body, seed: int) -> None:
    """Print the best rates of the heads that take steps, on a stream of the validation classes."""
    x, y = features(body, "val", False)
    ways, seeds = int(y.max()) + 1, task_seeds(STREAMS, generator(seed, 77))
    known = Continual((of_one_length(x), y), ways, SHOTS, QUERIES).draw(seeds[:1])
    for name, make, grid in (("online", online(x.shape[1]), RATES), ("cosine", cosine(x.shape[1]), (1.0, 10.0, 100.0))):
        best = choose(lambda rate, make=make: follow(make(rate), known, (ways,)).retained().mean, grid)  # type: ignore[misc]
        print(f"    {name}: rate {best.value:g}, {100 * best.score:.1f}, inside its grid: {best.inside}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--part", choices=("val", "test"), default="test")
    parser.add_argument("--classes", type=int, nargs="+", default=[10, 50, 100, 200])
    parser.add_argument("--bodies", nargs="*", default=[], help="parts of the names of bodies; all without it")
    parser.add_argument("--keep", help="a folder that keeps pretrained bodies, for other calls")
    given = parser.parse_args()
    torch.set_num_threads(1)
    train = load("train")
    rows: dict[str, list[dict[str, Any]]] = {}
    marks = tuple(mark for mark in given.classes if given.part == "test" or mark <= load("val").classes)

    def after(learn: Any, seed: int) -> Body:
        start = pretrained(train, BEFORE * given.seconds, seed, given.keep)
        found: Body = learn(train, start, (1 - BEFORE) * given.seconds, seed)
        return found

    bodies: dict[str, Callable[[int], Body]] = {
        "pretrained": lambda seed: pretrained(train, given.seconds, seed, given.keep),
        "through class means": lambda seed: after(through_means, seed),
        "through streams": lambda seed: after(through_streams, seed),
    }
    for seed in given.seeds:
        for name, make in bodies.items():
            if given.bodies and not any(wanted in name for wanted in given.bodies):
                continue
            print(f"{name}, seed {seed}", flush=True)
            body = make(seed)
            if given.part == "val":
                rates(body, seed)
            for head, found in measured(body, given.part, marks, seed).items():
                rows.setdefault(f"{name}, {head}", []).append(found)
            show({row: runs for row, runs in rows.items() if row.startswith(name)}, marks)
    print()
    show(rows, marks)
    for name in [name for name in rows if name.startswith("through")]:
        for other in dict.fromkeys(("online", name.rpartition(", ")[2])):
            paired(rows, name, f"pretrained, {other}")


if __name__ == "__main__":
    main()
