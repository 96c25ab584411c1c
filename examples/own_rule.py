"""Write your own rule, check its hypergradient, and learn with it.

    python examples/own_rule.py [--outer-steps 1000] [--out rule.png]

The rule takes the softened sign of a running mean as its step. The width interpolates between the sign (width 0) and
the plain gradient (a large width). It is hard to choose by hand, so it is learned for every layer, together with the
decay of the mean and the learning rate.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from torch import nn
from torch.nn.functional import mse_loss

import rbml
from rbml import Learner
from rbml.models import MLP
from rbml.strategy import Hyper, Part, Rule, StepInfo, Strategy, Values, chain, part, sgd
from rbml.tasks import Sinusoid, generator
from rbml.tree import Tree, tmap, zeros_like


@part
def soft_sign(decay: Hyper, width: Hyper, name: str = "soft_sign") -> Rule:
    r"""Keep a running mean b of the direction d and return its softened sign.

    .. math:: b \leftarrow \mathrm{decay} \cdot b + (1 - \mathrm{decay})\, d, \qquad
              d \leftarrow b / \sqrt{b^2 + \mathrm{width}^2}
    """

    def update(direction: Tree, state: Tree, theta: Tree, values: Values, at: StepInfo) -> tuple[Tree, Tree]:
        mean = tmap(lambda d, b, decay: decay * b + (1 - decay) * d, direction, state, values["decay"])
        return tmap(lambda b, width: b / (b**2 + width**2).sqrt(), mean, values["width"]), mean

    return Rule(name, {"decay": decay, "width": width}, update, init=zeros_like)


def rate(start: float) -> Part:
    """Return a positive learning rate per layer and step."""
    return sgd(Hyper(start, per="layer", per_step=True, bounds=(0, None)))


def mine() -> Strategy:
    """Return the rule with all numbers learned per layer; the width starts large, close to plain gradients."""
    decay, width = Hyper(0.3, per="layer", bounds=(0, 1)), Hyper(1.0, per="layer", bounds=(0, None))
    return chain(soft_sign(decay, width), rate(0.05))


def train(strategy: Strategy | Part, outer_steps: int, seed: int) -> tuple[Learner, torch.Tensor]:
    """Meta-train on sine waves; return the learner and its error on 600 new waves before and after each inner step."""
    torch.manual_seed(seed)
    tasks = Sinusoid(shots=10, queries=10)
    learner = Learner(MLP(1, 1, activation=nn.Tanh), strategy, steps=3, loss=mse_loss)
    optimizer = torch.optim.Adam(learner.parameters(), lr=3e-3)
    for step in range(outer_steps):
        optimizer.zero_grad()
        learner.backward(tasks.sample(25, generator(seed, step)))
        optimizer.step()
    return learner, learner.evaluate(tasks.sample(600, generator(1000))).loss.mean(0)


def draw(errors: dict[str, torch.Tensor], out: Path) -> None:
    """Save a plot of the error after each inner step."""
    import matplotlib.pyplot as plt  # noqa: PLC0415  needed only for a figure

    figure, axes = plt.subplots(figsize=(5, 3.5), layout="constrained")
    for name, error in errors.items():
        axes.semilogy(error, "o-", label=name)
    axes.set(xlabel="inner step", ylabel="mean squared error, new tasks", xticks=range(4))
    axes.legend()
    figure.savefig(out)


def main(arguments: list[str] | None = None) -> None:
    """Check the hypergradient, meta-train, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--outer-steps", type=int, default=1000)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--out", type=Path, help="where to save a figure")
    options = parser.parse_args(arguments)

    small = Learner(MLP(1, 1, hidden=(8,), activation=nn.Tanh), mine(), steps=3, loss=mse_loss)
    print(rbml.check(small, Sinusoid(shots=10, queries=10).sample(2, generator(0))))

    print(f"\nmean squared error on new sine waves, {options.outer_steps} outer steps, {options.seeds} seeds")
    print(f"{'rule':10} {'start':>7} {'1 step':>7} {'2 steps':>7} {'3 steps':>7}")
    errors = {}
    for name, strategy in (("sgd", chain(rate(0.05))), ("soft_sign", mine())):
        runs = [train(strategy, options.outer_steps, seed) for seed in range(options.seeds)]
        errors[name] = torch.stack([error for _, error in runs]).mean(0)
        print(f"{name:10} " + " ".join(f"{error:7.3f}" for error in errors[name].tolist()))
    learner = runs[0][0]
    for leaf in (name for name in learner.state_dict() if "soft_sign" in name):
        kind, bounds = ("decay", (0.0, 1.0)) if "decay" in leaf else ("width", (0.0, None))
        value = Hyper(0.5, bounds=bounds).valid(learner.state_dict()[leaf])
        print(f"  learned {kind} of {leaf.rpartition('/')[2]:10} {value:.3f}")
    if options.out:
        draw(errors, options.out)


if __name__ == "__main__":
    main()
