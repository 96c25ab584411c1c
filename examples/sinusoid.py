"""Learn to fit a sine wave from ten points (the regression tasks of Finn et al. 2017), with MAML and with Meta-SGD.

    python examples/sinusoid.py [outer steps]

The model can be any ``nn.Module`` and the loss any function; you write the outer loop yourself.
"""

from __future__ import annotations

import sys
from collections.abc import Callable

import torch
from torch.nn.functional import mse_loss

from rbml import Learner
from rbml.algorithms import maml, meta_sgd
from rbml.models import MLP
from rbml.tasks import Sinusoid, generator


def train(preset: Callable[..., Learner], lr: float, outer_steps: int) -> float:
    """Meta-train on sine waves, 25 tasks per outer step; return the error on 600 new waves after one inner step."""
    torch.manual_seed(0)
    tasks = Sinusoid(shots=10, queries=10)
    learner = preset(MLP(1, 1, hidden=(40, 40)), lr=lr, steps=1, loss=mse_loss)
    optimizer = torch.optim.Adam(learner.parameters(), lr=1e-3)
    for step in range(outer_steps):
        optimizer.zero_grad()
        learner.backward(tasks.sample(25, generator(0, step)))
        optimizer.step()
    return learner.evaluate(tasks.sample(600, generator(1))).loss[:, -1].mean().item()


def main(outer_steps: int) -> None:
    """Print the table."""
    print(f"mean squared error after 1 inner step on 10 points, {outer_steps} outer steps")
    for preset, lr in ((maml, 0.01), (meta_sgd, 0.01)):
        print(f"  {preset.__name__:10} {train(preset, lr, outer_steps):.3f}")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 2000)
