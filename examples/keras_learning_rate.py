"""A Keras network whose learning rate is a trainable variable, learned while it trains, on real digits.

    KERAS_BACKEND=torch python examples/keras_learning_rate.py [--seeds 3] [--seconds 60]

A dense network of 128 units (Keras on PyTorch) takes 1,000 mini-batch steps. The rate starts at a random value and
receives a gradient: that of the loss of the next mini-batch after a step. Beside it are fixed rates of SGD and Adam,
and a schedule that rbml.tune learns through whole runs. All are compared on test digits that nothing was chosen on.
"""

from __future__ import annotations

import argparse
import itertools
import os
import random
import time
from typing import Any

os.environ.setdefault("KERAS_BACKEND", "torch")

import keras
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

import rbml
from rbml import Batch, Episodes
from rbml.keras import from_keras, to_keras
from rbml.strategy import Hyper, sgd


def network(seed: int) -> keras.Model:
    """Return the network at its random start."""
    keras.utils.set_random_seed(seed)
    return keras.Sequential([keras.Input((64,)), keras.layers.Dense(128, activation="relu"), keras.layers.Dense(10)])


def learn_while_training(train: Batch, start: float, steps: int, seed: int) -> tuple[keras.Model, float]:
    """Train by SGD whose rate is learned; return the trained Keras model and the last rate."""
    learner = rbml.Learner(from_keras(network(seed)), sgd(Hyper(start, bounds=(0, None))), steps=1)
    optimizer = torch.optim.Adam(learner.phi.parameters(), lr=0.02)
    batches = mini_batches(train, steps + 1, seed)
    for now, then in itertools.pairwise(batches):
        optimizer.zero_grad()
        learner.backward(Episodes(Batch(now.x[None], now.y[None]), Batch(then.x[None], then.y[None])))
        adapted = learner.adapt(*now)  # the step itself, with the rate as it is
        optimizer.step()  # the rate follows its gradient
        learner.model.load_state_dict(adapted.model.state_dict())
    (raw,) = learner.phi.parameters()
    return to_keras(learner), float(raw.detach().exp())


def digits(seed: int) -> tuple[Batch, Batch]:
    """Return two thirds of the 1,797 digits (8x8) to train on, and one third to test on."""
    from sklearn.datasets import load_digits  # noqa: PLC0415  an extra

    x, y = (torch.as_tensor(part) for part in load_digits(return_X_y=True))
    rows = torch.randperm(len(y), generator=torch.Generator().manual_seed(seed))
    x = x.float() / 16
    return Batch(x[rows[:1198]], y[rows[:1198]]), Batch(x[rows[1198:]], y[rows[1198:]])


def mini_batches(train: Batch, steps: int, seed: int, size: int = 32) -> list[Batch]:
    """Return mini-batches of a training run."""
    source = torch.Generator().manual_seed(seed)
    rows = [torch.randint(len(train.y), (size,), generator=source) for _ in range(steps)]
    return [Batch(train.x[some], train.y[some]) for some in rows]


def train_fixed(optimizer: Any, train: Batch, steps: int, seed: int) -> keras.Model:
    """Train in plain Keras with a fixed rate."""
    model = network(seed)
    model.compile(optimizer, keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    for batch in mini_batches(train, steps, seed):
        model.train_on_batch(batch.x.numpy(), batch.y.numpy())
    return model


def tuned(train: Batch, seconds: float, steps: int, seed: int) -> keras.Model:
    """Learn a schedule for every tensor through whole runs of the network, then train it."""
    module = from_keras(network(seed))
    found = rbml.tune(module, train, seconds=seconds, steps=steps, seed=seed, clock=time.process_time)
    return to_keras(found.adapted)


def accuracy(model: keras.Model, test: Batch) -> float:
    """Return the accuracy in %."""
    with torch.no_grad():
        predicted: Tensor = model(test.x)
    return 100 * float((predicted.argmax(1) == test.y).float().mean())


def first_gradient(train: Batch, start: float, seed: int) -> float:
    """Return the gradient of the rate at the first step, which is not zero."""
    learner = rbml.Learner(from_keras(network(seed)), sgd(Hyper(start)), steps=1, loss=cross_entropy)
    now, then = mini_batches(train, 2, seed)
    found = learner.meta_gradient(Episodes(Batch(now.x[None], now.y[None]), Batch(then.x[None], then.y[None])))
    return float(found.grads["phi.sgd.lr"])


def main(arguments: list[str] | None = None) -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3, help="how many starts and divisions of the digits")
    parser.add_argument("--steps", type=int, default=1000, help="mini-batch steps of a run")
    parser.add_argument(
        "--seconds", type=float, default=0, help="of processor time, for tuning a schedule per seed; 0: no schedule"
    )
    given = parser.parse_args(arguments)
    rows: dict[str, list[float]] = {}
    for seed in range(given.seeds):
        train, test = digits(seed)
        drawn = 10 ** random.Random(seed).uniform(-3, -1)
        print(f"seed {seed}: rate {drawn:.3g} at random, its gradient at once {first_gradient(train, drawn, seed):.3g}")
        for what, start in (("SGD, rate learned from a random start", drawn), ("SGD, rate learned from 0.01", 0.01)):
            model, rate = learn_while_training(train, start, given.steps, seed)
            rows.setdefault(what, []).append(accuracy(model, test))
            print(f"  {what}: {start:.3g} -> {rate:.3g}, {rows[what][-1]:.1f} %")
        for rate in (0.01, 0.1, 1.0):
            model = train_fixed(keras.optimizers.SGD(rate), train, given.steps, seed)
            rows.setdefault(f"SGD({rate})", []).append(accuracy(model, test))
        for rate in (0.001, 0.01):
            model = train_fixed(keras.optimizers.Adam(rate), train, given.steps, seed)
            rows.setdefault(f"Adam({rate})", []).append(accuracy(model, test))
        if given.seconds:
            what = f"schedule by rbml.tune, {given.seconds:g} s"
            rows.setdefault(what, []).append(accuracy(tuned(train, given.seconds, given.steps, seed), test))
    for what, found in rows.items():
        print(f"{what:40}{sum(found) / len(found):6.1f} %   ({', '.join(f'{one:.1f}' for one in found)})")


if __name__ == "__main__":
    main()
