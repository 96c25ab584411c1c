"""Does learning through streams add to pretraining? Bodies learned in equal time, each with the same heads.

    python benchmarks/continual_learned.py --seconds 60 --seeds 0 --part val      # to choose
    python benchmarks/continual_learned.py --seconds 60 --seeds 0 1 2             # once

Bodies, all in the same seconds of processor time:

- *pretrained*: one classifier for all training classes;
- *through streams*: two thirds of that, then through the steps of OML with a cosine head that settles
  (``oml(cosine=True)``), judged on all classes of the stream and on others, which have rows of their own;
- *through class means*: two thirds of that, then through class means of 60 classes, which is what that head is close to.

Heads, on features of one length: plain gradient descent (*online*), the cosine head that settles (*cosine*), class
means, and streaming LDA. Rates are chosen on a stream of validation classes; streams are the same for all (paired).
"""

from __future__ import annotations

import argparse
from typing import Any

import torch
from continual import QUERIES, RATES, SHOTS, STREAMS, Body, UnitNorm, features, learned, load, net, paired, pretrained
from continual import show, summary
from torch import Tensor, nn

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


def through_streams(train: Any, body: Body, seconds: float, seed: int) -> Body:
    """Return the body, learned further through streams of single drawings."""
    source = Continual(train, 15, 5, 3, remember=20, labels="global")
    made = oml(net(train.classes, seed, body), Hyper(10.0, bounds=(0, None)), source.steps, cosine=True, verify=False)
    begin(made, body)
    found = learned(made, source, 4, seconds, seed, RATE)
    print("    " + ", ".join(f"{name} {float(leaf):.3f}" for name, leaf in found.phi.state_dict().items()))
    return {name: leaf for name, leaf in found.model.state_dict().items() if not name.startswith("head.")}


def begin(learner: Learner, body: Body) -> None:
    """Begin the rows of all classes at the means of their features: those that a stream does not have stay there."""
    x, y = features(body, "train", False)
    x, head = of_one_length(x), learner.model.head
    with torch.no_grad():
        head.weight.zero_().index_add_(0, y, x)
        head.weight.mul_(3 / head.weight.norm(dim=1, keepdim=True))


def through_means(train: Any, body: Body, seconds: float, seed: int) -> Body:
    """Return the body, learned further through class means of its features at one length."""
    head = prototype(Scalar(10.0, bounds=(0, None)))
    made = assemble(UnitNorm(net(60, seed, body)), chain(head, sgd(0.1)), 0, adapt="head", verify=False)
    state = learned(made, FewShot(train, 60, 5, 5), 1, seconds, seed, RATE).model.state_dict()
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
    val, test = (features(body, name, False) for name in ("val", part))
    val, test = (((of_one_length(x), y)) for x, y in (val, test))
    width, ways, seeds = val[0].shape[1], int(val[1].max()) + 1, task_seeds(STREAMS, generator(seed, 77))
    known = Continual(val, ways, SHOTS, QUERIES).draw(seeds[:1])
    streams = Continual(test, marks[-1], SHOTS, QUERIES).draw(seeds)
    found: dict[str, dict[str, Any]] = {}
    for name, make, grid in (("online", online(width), RATES), ("cosine", cosine(width), (1.0, 10.0, 100.0))):
        best = choose(lambda rate, make=make: follow(make(rate), known, (ways,)).retained().mean, grid)
        print(f"    {name}: rate {best.value:g}, on validation {100 * best.score:.1f}, inside: {best.inside}", flush=True)
        found[name] = summary(follow(make(best.value), streams, marks)) | {"rate": best.value}
    for name, head in (("class means", prototype()), ("streaming LDA", lda())):
        found[name] = summary(follow(made_of(head, width), streams, marks)) | {"rate": None}
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--part", choices=("val", "test"), default="test")
    parser.add_argument("--classes", type=int, nargs="+", default=[10, 50, 100, 200, 600])
    parser.add_argument("--bodies", nargs="*", default=[], help="parts of the names of bodies; all without it")
    parser.add_argument("--keep", help="a folder that keeps pretrained bodies, for other calls")
    given = parser.parse_args()
    torch.set_num_threads(1)
    train, rows = load("train"), {}
    marks = tuple(mark for mark in given.classes if given.part == "test" or mark <= load("val").classes)

    def after(learn: Any, seed: int) -> Body:
        start = pretrained(train, BEFORE * given.seconds, seed, given.keep)
        found: Body = learn(train, start, (1 - BEFORE) * given.seconds, seed)
        return found

    bodies = {
        "pretrained": lambda seed: pretrained(train, given.seconds, seed, given.keep),
        "through class means": lambda seed: after(through_means, seed),
        "through streams": lambda seed: after(through_streams, seed),
    }
    for seed in given.seeds:
        for name, make in bodies.items():
            if given.bodies and not any(wanted in name for wanted in given.bodies):
                continue
            print(f"{name}, seed {seed}", flush=True)
            for head, found in measured(make(seed), given.part, marks, seed).items():
                rows.setdefault(f"{name}, {head}", []).append(found)
            show({row: runs for row, runs in rows.items() if row.startswith(name)}, marks)
    print()
    show(rows, marks)
    for name in [name for name in rows if name.startswith("through")]:
        for other in ("online", name.rpartition(", ")[2]):
            paired(rows, name, f"pretrained, {other}")


if __name__ == "__main__":
    main()
