"""What a converted Keras model costs beside the same ``nn.Module``: one meta-gradient, interleaved, one thread.

Times are processor time, so that other programs on the machine change them little.

KERAS_BACKEND=torch python benchmarks/keras_cost.py
"""

from __future__ import annotations

import os
import time
from statistics import median
from typing import Any

os.environ.setdefault("KERAS_BACKEND", "torch")

import keras
import torch
from keras import layers as L
from torch import nn

from rbml import Batch, Episodes, Learner
from rbml.keras import from_keras
from rbml.strategy import Hyper, sgd


def conv4(filters: int = 32) -> tuple[Any, nn.Module]:
    """Return Conv4 in Keras and in PyTorch."""
    ours: list[Any] = [L.Input((28, 28, 1))]
    theirs: list[nn.Module] = []
    for block in range(4):
        ours += [L.Conv2D(filters, 3, padding="same"), L.BatchNormalization(epsilon=1e-5), L.ReLU(), L.MaxPooling2D(2)]
        theirs += [nn.Conv2d(filters if block else 1, filters, 3, padding=1), nn.BatchNorm2d(filters)]
        theirs += [nn.ReLU(), nn.MaxPool2d(2)]
    return keras.Sequential([*ours, L.Flatten(), L.Dense(5)]), nn.Sequential(
        *theirs, nn.Flatten(), nn.Linear(filters, 5)
    )


def mlp() -> tuple[Any, nn.Module]:
    """Return a small MLP in Keras and in PyTorch."""
    ours = [L.Input((64,)), L.Dense(64, activation="relu"), L.Dense(64, activation="relu"), L.Dense(5)]
    return keras.Sequential(ours), nn.Sequential(
        nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 5)
    )


def ratios(models: tuple[Any, nn.Module], shape: tuple[int, ...], tasks: int, steps: int, repeats: int = 12) -> str:
    """Return the time with Keras over the time without: of the best and of the median repetition."""
    y = torch.arange(25 if len(shape) == 1 else 10).remainder(5).expand(tasks, -1)
    x = torch.rand(tasks, y.shape[1], *shape)
    moved = x if len(shape) == 1 else x.movedim(2, -1)
    learners = [Learner(model, sgd(Hyper(0.1)), steps) for model in (from_keras(models[0]), models[1])]
    stacks = [Episodes(Batch(inputs, y), Batch(inputs, y)) for inputs in (moved, x)]
    seconds: list[list[float]] = [[], []]
    for _ in range(repeats):
        for learner, stack, times in zip(learners, stacks, seconds, strict=True):
            began = time.process_time()
            learner.meta_gradient(stack)
            times.append(time.process_time() - began)
    ours, theirs = (times[2:] for times in seconds)
    return f"{min(ours) / min(theirs):.2f}   {median(ours) / median(theirs):.2f}"


def main() -> None:
    """Print the table."""
    torch.set_num_threads(1)
    print(f"{'Keras / nn.Module':36} best   median")
    print(f"{'MLP 64-64-64-5, 16 tasks, 5 steps':36} {ratios(mlp(), (64,), 16, 5)}")
    for steps in (1, 5):
        print(f"{f'Conv4-32, 8 tasks of 10, {steps} steps':36} {ratios(conv4(), (1, 28, 28), 8, steps)}")


if __name__ == "__main__":
    main()
