"""Learn the learning rate of a training run of 1,000 steps by backpropagation, on real digits.

    python examples/learned_learning_rate.py [--out rate.png]

A dense network of 128 units; its learning rate is a trainable variable that starts at a random value. It cannot be
learned by the gradient of the training loss, in which it does not occur; it receives a gradient when the loss on a
validation set *after* the run is differentiated through all the steps of the run. That gradient is checked by a central
difference, and the learned rate is compared with fixed ones. The test set is used for the last column only.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from torch import nn
from torch.nn.functional import avg_pool2d

import rbml
from rbml import Batch, Execution, Initial, Job, Learner
from rbml.hypergrad import Adjoint, directional_difference
from rbml.models import MLP
from rbml.strategy import Hyper, sgd
from rbml.tasks import generator
from rbml.tasks.base import one

FIXED = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0)
RATE = Hyper((0.001, 0.1), bounds=(0, None))  # drawn at random, kept above zero


def split(seed: int) -> list[Batch]:
    """Return three sets of 14x14 images for training, validation and testing, a third of the 1,797 digits each."""
    data = rbml.data.load("digits", "test")
    order = torch.randperm(len(data.y), generator=generator(seed))
    x = avg_pool2d(data.x / 255, 2)
    return [Batch(x[rows], data.y[rows]) for rows in torch.chunk(order, 3)]


def run_of(rate: Hyper | float, steps: int, seed: int, compiled: bool = False) -> Learner:
    """Return a training run from fixed initial weights; only the rate can be learned."""
    torch.manual_seed(seed)
    model = MLP(196, 10, hidden=(128,), activation=nn.Tanh)
    engine = Adjoint(store="segments")  # memory grows with the root of the steps
    how = Execution(compile="step" if compiled else "no")  # compiled, one step serves all 1,000
    return Learner(model, sgd(rate), steps, initial=Initial(reset="*"), hypergradient=engine, execution=how)


def learn(learner: Learner, task: Job, outer_steps: int, lr: float) -> list[tuple[float, float]]:
    """Learn the rate; return it with the validation loss before every outer step."""
    (raw,) = learner.phi.parameters()  # the logarithm of the rate: its bounds keep it above zero
    optimizer = torch.optim.Adam([raw], lr=lr)
    seen = []
    for _ in range(outer_steps):
        optimizer.zero_grad()
        found = learner.backward(task)
        seen.append((raw.exp().item(), found.loss.item()))
        optimizer.step()
    return [*seen, (raw.exp().item(), measured(learner, task)[0])]


def measured(learner: Learner, task: Job) -> tuple[float, float]:
    """Train, and return loss and error in % on the queries."""
    found = learner.evaluate(task, each_step=False)
    assert found.accuracy is not None
    return found.loss.item(), 100 - 100 * found.accuracy.item()


def checked(steps: int, seed: int, task: Job) -> str:
    """Return the derivative of the validation loss by the logarithm of the rate, beside a central difference."""
    learner, task = (
        run_of(RATE, steps, seed).double(),
        task._replace(examples=_double(task.examples), query=_double(task.query)),
    )
    found = {name: leaf for name, leaf in learner.meta_gradient(task).grads.items() if name.startswith("phi.")}
    m = {name: leaf.detach() for name, leaf in learner.named_parameters()}
    along = {name: torch.ones_like(leaf) for name, leaf in found.items()}
    difference = directional_difference(learner.inner(one(task, 0)), m, along)
    (grad,) = found.values()
    return f"derivative by the logarithm of the rate {grad.item():.8f}, by a central difference {difference.item():.8f}"


def _double(batch: Batch) -> Batch:
    return batch._replace(x=batch.x.double())


def draw(seen: list[tuple[float, float]], fixed: list[tuple[float, float]], out: Path) -> None:
    """Save a plot of the validation loss of fixed rates, and the path of the learned one."""
    import matplotlib.pyplot as plt  # noqa: PLC0415  needed only for a figure

    figure, axes = plt.subplots(figsize=(5, 3.5), layout="constrained")
    axes.plot(*zip(*fixed, strict=True), "o-", color="grey", label="fixed rates")
    axes.plot(*zip(*seen, strict=True), ".-", label="the learned rate, from its random start")
    axes.set(xscale="log", xlabel="learning rate", ylabel="validation loss after the run")
    axes.legend(fontsize="small")
    figure.savefig(out)


def main(arguments: list[str] | None = None) -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=1000, help="inner steps: the length of the training run")
    parser.add_argument("--outer-steps", type=int, default=15)
    parser.add_argument("--outer-lr", type=float, default=0.4)
    parser.add_argument("--batch", type=int, default=32, help="examples per inner step")
    parser.add_argument("--no-compile", action="store_true", help="slower, but needs no C++ compiler")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, help="where to save a figure")
    options = parser.parse_args(arguments)

    train, val, test = split(options.seed)
    judging = {"validation": val, "test": test}
    tasks = {name: Job.of(train, query, options.batch, [options.seed]) for name, query in judging.items()}
    print(checked(min(options.steps, 100), options.seed, tasks["validation"]), flush=True)
    learned = run_of(RATE, options.steps, options.seed, not options.no_compile)
    seen = learn(learned, tasks["validation"], options.outer_steps, options.outer_lr)
    print(f"the learned rate, step by step: {', '.join(f'{rate:.3g}' for rate, _ in seen)}")
    runs = {f"fixed at {rate}": run_of(rate, options.steps, options.seed) for rate in FIXED}
    print(f"\n{'rate':22} {'validation':>16} {'test':>16}")
    fixed = []
    for name, learner in (runs | {f"learned: {seen[-1][0]:.3g}": learned}).items():
        loss, error = measured(learner, tasks["validation"])
        test_loss, test_error = measured(learner, tasks["test"])
        print(f"{name:22} {loss:8.4f} {error:6.1f}% {test_loss:8.4f} {test_error:6.1f}%", flush=True)
        fixed.append((float(name.split()[-1]), loss))
    if options.out:
        draw(seen, fixed[:-1], options.out)


if __name__ == "__main__":
    main()
