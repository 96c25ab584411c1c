"""Sinusoid regression (Finn et al. 2017): a table of algorithms with 5 and 10 shots.

    python benchmarks/sinusoids.py                      # all of them, an hour on one core
    python benchmarks/sinusoids.py --only maml cavia --shots 10 --outer-steps 5000

The protocol of CAVIA (Zintgraf et al. 2019, arXiv:1810.03642, section 5.1, and its code): a 1-40-40-1 network with ReLU
and five additional inputs (learned and adapted like all parameters; cavia adapts only these, from zero), 25 tasks per
outer step, one inner step, as many query points as support points in training, 50,000 outer steps of Adam from 1e-3,
here with a cosine to zero (``CLIPPED`` has one exception). Each is measured on 1,000 new tasks with 100 query points:
mean squared error with a 95 % interval.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from typing import Any

import torch
from torch.nn.functional import mse_loss

from rbml import Learner, algorithms
from rbml.models import MLP
from rbml.strategy import Hyper
from rbml.tasks import Sinusoid, generator

POOL = 100_000
Build = Callable[[], Learner]


def net(context: int = 5) -> MLP:
    """Return the network of CAVIA's code: additional inputs, and initial weights scaled by a layer's outputs."""
    model = MLP(1, 1, hidden=(40, 40), context=context)
    for layer in (layer for layer in model.modules() if isinstance(layer, torch.nn.Linear)):
        bound = layer.out_features**-0.5
        for parameter in layer.parameters():
            torch.nn.init.uniform_(parameter, -bound, bound)
    return model


COMMON: dict[str, Any] = {"loss": mse_loss, "compile": True}
ALGORITHMS: dict[str, Build] = {
    "maml": lambda: algorithms.maml(net(), lr=0.1, **COMMON),
    "maml, a learned rate per layer": lambda: algorithms.maml(net(), lr=Hyper(0.1, per="layer"), **COMMON),
    "meta_sgd": lambda: algorithms.meta_sgd(net(), lr=0.1, **COMMON),
    "maml++ (5 steps)": lambda: algorithms.maml_plus_plus(net(), lr=0.05, steps=5, stepwise_norm=False, **COMMON),
    "meta_curvature": lambda: algorithms.ALL["meta_curvature"](net(), lr=0.1, steps=1, **COMMON),
    "alfa": lambda: algorithms.ALL["alfa"](net(), lr=0.1, steps=1, **COMMON),
    "cavia": lambda: algorithms.cavia(net(), lr=1.0, **COMMON),
}


CLIPPED = {"maml++ (5 steps)": 10.0}
"""The largest norm of the meta-gradient: occasionally five learned steps diverge on a batch (the norm was observed to
jump from 5 to 90, and to infinity within 50,000 outer steps). The others take one step and are not clipped, as in
CAVIA."""


def train(name: str, shots: int, outer_steps: int) -> Learner:
    """Meta-train one algorithm and return its learner."""
    torch.manual_seed(0)
    learner = ALGORITHMS[name]()
    pool = Sinusoid(shots=shots, queries=shots).sample(
        POOL, generator(0)
    )  # drawn once: drawing takes as long as a step
    optimizer = torch.optim.Adam(learner.parameters(), lr=1e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, outer_steps)
    for step in range(outer_steps):
        optimizer.zero_grad()
        at = 25 * step % (POOL - 24)
        learner.backward(pool.part(at, at + 25), phase=learner.phase(step / outer_steps))
        if name in CLIPPED:
            torch.nn.utils.clip_grad_norm_(learner.parameters(), CLIPPED[name], error_if_nonfinite=True)
        optimizer.step()
        schedule.step()
    return learner


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="*", default=list(ALGORITHMS))
    parser.add_argument("--shots", nargs="*", type=int, default=[5, 10])
    parser.add_argument("--outer-steps", type=int, default=50_000)
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    print(f"mean squared error on 1,000 tasks after the inner steps; {chosen.outer_steps} outer steps")
    print(f"{'algorithm':30} {'shots':>5} {'error':>16} {'seconds':>8}")
    for shots in chosen.shots:
        held_out = Sinusoid(shots=shots, queries=100).sample(1000, generator(1))
        for name in chosen.only:
            began = time.perf_counter()
            learner = train(name, shots, chosen.outer_steps)
            seconds = time.perf_counter() - began
            errors = learner.evaluate(held_out, each_step=False).loss[:, -1]
            error = f"{errors.mean():.3f} ± {1.96 * errors.std() / len(errors) ** 0.5:.3f}"
            print(f"{name:30} {shots:5} {error:>16} {seconds:8.0f}", flush=True)


if __name__ == "__main__":
    main()
