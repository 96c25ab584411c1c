"""Online heads on features that stay as they are: what learning across streams adds at equal total time.

    python benchmarks/continual_online.py --seconds 60 --seeds 0 --part val      # to choose
    python benchmarks/continual_online.py --seconds 60 --seeds 0 1 2             # once

A head is trained by one step per drawing along streams of Omniglot, 15 drawings of each class, rows zero at the start,
and its rate is chosen on streams of validation classes. Every method has the same seconds of processor time: all for
pretraining; or three quarters, and one quarter in which something is learned across tasks on the features of the
training classes, which are computed once:

- *phi*: the rate and how long rows learn, bounded (1 to 60 steps), on streams of 900 steps; used as it is;
- *map on streams*: a linear map of the features, with the rate, on streams of 300 steps;
- *map on first steps*: the same map on one step for all examples of 200 classes. To first order in the rate an online
  head does not depend on the order or the length of its stream, and is this step: so a task as long as the test costs
  one step, and what is learned carries over;
- *... of new classes*: the body was pretrained without a quarter of the classes, on which the map is learned, because
  features of classes that it was trained on are better than any in a test;
- *cosine head that settles* (``models.CosineHead``): rows of bounded length, which learn for about 15 steps after
  their class came, so that neither the age of a row nor the length of a stream counts.

Beside them: features whitened by the covariance within the training classes, for which nothing is learned across tasks.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from continual import QUERIES, RATES, SHOTS, STREAMS, Body, features, learned, load, paired, pretrained, show, summary
from torch import Tensor, nn

from rbml import models
from rbml.algorithms.options import assemble
from rbml.learner import Learner
from rbml.strategy import Hyper, Rule, chain, fresh_rows, lda, prototype, settle, sgd
from rbml.tasks import Continual, FewShot, generator, task_seeds
from rbml.training.continual import choose, follow

SHARE, MANY = 0.25, 200
HELD = 220
"""How many of the training classes are kept from pretraining, where that is done."""
Pair = tuple[Tensor, Tensor]


class Mapped(nn.Module):
    """Features, less a mean, through a linear map, brought to one length; then a head."""

    def __init__(self, mean: Tensor, start: Tensor, outputs: int, cosine: bool = False) -> None:
        super().__init__()
        self.body = nn.Linear(*start.T.shape)
        self.head = models.CosineHead(len(start), outputs, 1.0) if cosine else nn.Linear(len(start), outputs)
        with torch.no_grad():
            self.body.weight.copy_(start)
            self.body.bias.copy_(-start @ mean)

    def forward(self, x: Tensor) -> Tensor:
        mapped = self.body(x)
        prediction: Tensor = self.head(mapped / mapped.norm(dim=1, keepdim=True).clamp(min=1e-6))
        return prediction

    def of(self, outputs: int, cosine: bool = False) -> Mapped:
        """Return the same map with another head."""
        made = Mapped(torch.zeros(self.body.in_features), self.body.weight.detach(), outputs, cosine)
        made.body.bias.data.copy_(self.body.bias.detach())
        return made


class Known(NamedTuple):
    """The features of one body: of the classes that something is learned on, of validation and of what is measured."""

    train: Pair
    val: Pair
    test: Pair


def whitened(pair: Pair, shrink: float = 0.1) -> tuple[Tensor, Tensor]:
    """Return the mean of features and the map that makes their covariance within classes a multiple of the identity."""
    x, y = pair
    of_class = torch.zeros(int(y.max()) + 1, x.shape[1]).index_add(0, y, x) / torch.bincount(y)[:, None]
    apart = x - of_class[y]
    within = apart.T @ apart / len(x)
    within = (1 - shrink) * within + shrink * within.diagonal().mean() * torch.eye(len(within))
    values, vectors = torch.linalg.eigh(within)
    return x.mean(0), vectors @ torch.diag(values.rsqrt()) @ vectors.T * values.mean().sqrt()


def centred(pair: Pair) -> tuple[Tensor, Tensor]:
    return pair[0].mean(0), torch.eye(pair[0].shape[1])


def known(body: Body, part: str, held: bool) -> Known:
    train = features(body, "train", False)
    if held:
        own = train[1] >= int(train[1].max()) + 1 - HELD
        train = train[0][own], train[1][own] - int(train[1][own].min())
    return Known(train, features(body, "val", False), features(body, part, False))


def online(model: Mapped, *rules: Rule) -> Callable[[float], Learner]:
    """Return plain gradient descent of the head along a stream, for every rate."""
    return lambda rate: assemble(model.of(20), chain(*rules, sgd(rate), fresh_rows(when="start")), 1, adapt="head",
                                 verify=False)  # fmt: skip


def settling(model: Mapped) -> Callable[[float], Learner]:
    """Return the same with a cosine head, whose rows learn for as long as their class has drawings."""
    return lambda rate: assemble(
        model.of(20, cosine=True),
        chain(settle(float(SHOTS)), sgd(rate), fresh_rows(when="start")),
        1,
        adapt="head",
        head="head.weight",
        verify=False,
    )


def on_first_steps(model: Mapped, pair: Pair, seconds: float, seed: int) -> Mapped:
    ways = min(MANY, int(pair[1].max()) + 1)
    start = Hyper(10.0 * ways, bounds=(0, None))
    made = assemble(model.of(ways), chain(sgd(start), fresh_rows(when="start")), 1, adapt="head", verify=False)
    source = FewShot(pair, ways, SHOTS, QUERIES)
    return learned(made, source, 1, seconds, seed, 5e-3).model  # type: ignore[return-value]


def on_streams(model: Mapped, pair: Pair, seconds: float, seed: int) -> Mapped:
    source = Continual(pair, 50, 6, 2)
    rules = chain(sgd(Hyper(0.1, bounds=(0, None))), fresh_rows(when="start"))
    made = assemble(model.of(50), rules, source.steps, adapt="head", verify=False)
    return learned(made, source, 4, seconds, seed, 5e-3).model  # type: ignore[return-value]


def phi_alone(model: Mapped, pair: Pair, seconds: float, seed: int) -> Learner:
    source, fixed = Continual(pair, 60, SHOTS, QUERIES), model.of(60)
    fixed.body.requires_grad_(False)
    rules = chain(settle(Hyper(15.0, bounds=(1, 60))), sgd(Hyper(0.01, bounds=(0, None))), fresh_rows(when="start"))
    made = assemble(fixed, rules, source.steps, adapt="head", verify=False)
    learner = learned(made, source, 2, seconds, seed, 0.1)
    print("    " + ", ".join(f"{name} {float(leaf):.3f}" for name, leaf in learner.phi.state_dict().items()))
    return learner


def methods(seconds: float, seed: int, part: str, keep: str | None) -> dict[str, Callable[[], tuple[Any, Known]]]:
    """Return every method: a function that returns a learner (or one for every rate), and features for it."""

    def all_for_pretraining(make: Callable[[Known], Any]) -> tuple[Any, Known]:
        of = known(pretrained(load("train"), seconds, seed, keep), part, False)
        return make(of), of

    def across(make: Callable[[Known, float], Any], held: bool = False) -> tuple[Any, Known]:
        body = pretrained(load("train"), (1 - SHARE) * seconds, seed, keep, HELD if held else 0)
        began = time.process_time()
        features(body, "train", False)  # it counts; those of validation and test do not
        left = SHARE * seconds - (time.process_time() - began)
        of = known(body, part, held)
        return make(of, left), of

    def head(made: Any) -> Callable[[Known], Learner]:
        return lambda of: assemble(
            models.MLP(of.train[0].shape[1], 20, ()), chain(made, sgd(0.1)), 0, adapt="head", verify=False
        )

    def plain(of: Known) -> Mapped:
        return Mapped(*centred(of.train), 20)

    def white(of: Known) -> Mapped:
        return Mapped(*whitened(of.train), 20)

    return {
        "pretrained, class means": lambda: all_for_pretraining(head(prototype())),
        "pretrained, streaming LDA": lambda: all_for_pretraining(head(lda())),
        "pretrained, online head": lambda: all_for_pretraining(lambda of: online(plain(of))),
        "pretrained, online head, whitened": lambda: all_for_pretraining(lambda of: online(white(of))),
        "phi": lambda: across(lambda of, left: phi_alone(plain(of), of.train, left, seed)),
        "map on streams": lambda: across(lambda of, left: online(on_streams(plain(of), of.train, left, seed))),
        "map on first steps": lambda: across(
            lambda of, left: online(on_first_steps(plain(of), of.train, left, seed))
        ),
        "map on first steps of new classes": lambda: across(
            lambda of, left: online(on_first_steps(plain(of), of.train, left, seed)), held=True
        ),
        "pretrained, cosine head that settles": lambda: all_for_pretraining(lambda of: settling(plain(of))),
        "map on first steps, cosine head that settles": lambda: across(
            lambda of, left: settling(on_first_steps(plain(of), of.train, left, seed))
        ),
        "map on first steps of new classes, cosine head that settles": lambda: across(
            lambda of, left: settling(on_first_steps(plain(of), of.train, left, seed)), held=True
        ),
    }  # fmt: skip


def measured(make: Any, of: Known, marks: tuple[int, ...], seed: int) -> dict[str, Any]:
    """Choose the rate on a validation stream, and follow the streams of the test."""
    seeds, ways = task_seeds(STREAMS, generator(seed, 77)), int(of.val[1].max()) + 1
    val = Continual(of.val, ways, SHOTS, QUERIES).draw(seeds[:1])
    rate = None
    if not isinstance(make, Learner):
        grid = (1.0, 10.0, 100.0) if isinstance(make(1.0).model.head, models.CosineHead) else RATES
        found = choose(lambda rate: follow(make(rate), val, (ways,)).retained().mean, grid)
        print(f"    rate {found.value:g}, on validation {100 * found.score:.1f}, inside its grid: {found.inside}")
        rate, make = found.value, make(found.value)
    streams = Continual(of.test, marks[-1], SHOTS, QUERIES).draw(seeds)
    return summary(follow(make, streams, marks)) | {"rate": rate}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--part", choices=("val", "test"), default="test")
    parser.add_argument("--classes", type=int, nargs="+", default=[10, 50, 100, 200])
    parser.add_argument("--methods", nargs="*", default=[], help="parts of the names of methods; all without it")
    parser.add_argument("--keep", help="a folder that keeps pretrained bodies, for other calls")
    given = parser.parse_args()
    torch.set_num_threads(1)
    marks = tuple(mark for mark in given.classes if given.part == "test" or mark <= load("val").classes)
    rows: dict[str, list[dict[str, Any]]] = {}
    for seed in given.seeds:
        for name, make in methods(given.seconds, seed, given.part, given.keep).items():
            if given.methods and not any(wanted in name for wanted in given.methods):
                continue
            print(f"{name}, seed {seed}", flush=True)
            rows.setdefault(name, []).append(measured(*make(), marks, seed))
            show({name: rows[name]}, marks)
    print()
    show(rows, marks)
    for name in rows:
        paired(rows, name, "pretrained, cosine head that settles" if "cosine" in name else "pretrained, online head")


if __name__ == "__main__":
    main()
