"""Find wrong labels: half of the training labels are wrong, and one weight per example is learned from clean data.

    python examples/hyper_cleaning.py [--data digits] [--out cleaning.png]

Data hyper-cleaning (Franceschi, Donini, Frasconi, Pontil 2017, arXiv:1703.01785, section 5.1). Training a linear model
is one task: its support set is the training set, its query set a clean validation set. The validation loss is
differentiated through the whole run with respect to the weight of every training example. An example whose weight falls
below its initial value is classified as wrong.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d

import rbml
from rbml import Batch, Episodes, Initial, Learner
from rbml.models import MLP
from rbml.strategy import Strategy, chain, example_weights, momentum, sgd
from rbml.tasks import generator


def split(data: str, seed: int) -> list[Batch]:
    """Return three sets of 14x14 images for training, validation and testing, a third of the data each."""
    source = rbml.data.load(data, "test")
    order = torch.randperm(len(source.y), generator=generator(seed))
    x = avg_pool2d(source.x / 255, 2)
    return [Batch(x[rows], source.y[rows]) for rows in torch.chunk(order, 3)]


def corrupt(train: Batch, seed: int) -> tuple[Batch, Tensor]:
    """Give half of the examples a wrong label; return the data and a mask of the wrong ones."""
    source, count = generator(seed, 1), len(train.y)
    wrong = torch.randperm(count, generator=source) < count // 2
    other = (train.y + torch.randint(1, 10, (count,), generator=source)) % 10
    return Batch(train.x, torch.where(wrong, other, train.y)), wrong


def run_of(strategy: Strategy, steps: int) -> Learner:
    """Return a training run of a linear model that starts at zero."""
    model = MLP(196, 10, hidden=())
    torch.nn.init.zeros_(model.head.weight)
    torch.nn.init.zeros_(model.head.bias)
    return Learner(model, strategy, steps, initial=Initial(reset="*"))


def one_task(train: Batch, judge: Batch) -> Episodes:
    """Return a whole training run as one task."""
    return Episodes(Batch(train.x[None], train.y[None]), Batch(judge.x[None], judge.y[None]))


def learn_weights(train: Batch, val: Batch, steps: int, outer_steps: int, lr: float, verbose: bool) -> Tensor:
    """Return the learned weight of every training example, ``(n,)``."""
    learner = run_of(chain(example_weights(len(train.y)), momentum(0.9), sgd(0.3)), steps)
    task = one_task(train, val)
    advice = rbml.explain(learner, task)
    if verbose:
        print(advice, end="\n\n")
    learner.hypergradient = advice.chosen.engine
    optimizer = torch.optim.Adam(learner.parameters(), lr=lr)
    for _ in range(outer_steps):
        optimizer.zero_grad()
        learner.backward(task)
        optimizer.step()
    (raw,) = learner.phi.parameters()
    return torch.sigmoid(raw.detach())


def f1(found: Tensor, truth: Tensor) -> float:
    """Return the harmonic mean of precision and recall."""
    both = (found & truth).sum().item()
    return 2 * both / max((found.sum() + truth.sum()).item(), 1)


def accuracy(train: Batch, test: Batch, steps: int) -> float:
    """Train on some examples with equal weights and return the test accuracy in %."""
    found = run_of(chain(momentum(0.9), sgd(0.3)), steps).evaluate(one_task(train, test), each_step=False)
    assert found.accuracy is not None
    return 100 * found.accuracy.item()


def part(batch: Batch, rows: Tensor, *more: Batch) -> Batch:
    """Return some of the examples, followed by others."""
    return Batch(torch.cat([batch.x[rows], *(b.x for b in more)]), torch.cat([batch.y[rows], *(b.y for b in more)]))


def draw(weights: Tensor, wrong: Tensor, out: Path) -> None:
    """Save a histogram of the learned weights of right and of wrong examples."""
    import matplotlib.pyplot as plt  # noqa: PLC0415  needed only for a figure

    figure, axes = plt.subplots(figsize=(5, 3.5), layout="constrained")
    axes.hist([weights[~wrong].numpy(), weights[wrong].numpy()], 30, range=(0, 1), label=["right label", "wrong label"])
    axes.axvline(0.5, color="black", linewidth=1)
    axes.set(xlabel="learned weight", ylabel="training examples")
    axes.legend()
    figure.savefig(out)


def main(arguments: list[str] | None = None) -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="digits", help="digits, or mnist (10,000 images under $RBML_DATA)")
    parser.add_argument("--steps", type=int, default=100, help="inner steps: the length of the training run")
    parser.add_argument("--outer-steps", type=int, default=30)
    parser.add_argument("--outer-lr", type=float, default=0.2)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--out", type=Path, help="where to save a figure")
    options = parser.parse_args(arguments)

    for seed in range(options.seeds):
        clean, val, test = split(options.data, seed)
        train, wrong = corrupt(clean, seed)
        weights = learn_weights(train, val, options.steps, options.outer_steps, options.outer_lr, verbose=seed == 0)
        called = weights < 0.5
        if seed == 0:
            print(f"{len(wrong)} training examples, half with a wrong label; test accuracy in %, trained on")
            print(f"{'seed':4} {'F1':>5} | {'all':>5} {'cleaned':>8} {'right':>6} | with the validation set: ", end="")
            print(f"{'alone':>6} {'+ all':>6} {'+ cleaned':>10} {'+ right':>8}")
        # Row sets: all examples, those not called wrong, and, as the ideal, those that are right.
        anything = torch.ones_like(wrong)
        by_itself = [accuracy(part(train, rows), test, options.steps) for rows in (anything, ~called, ~wrong)]
        rows = (~anything, anything, ~called, ~wrong)
        with_val = [accuracy(part(train, some, val), test, options.steps) for some in rows]
        cells = "{:5.1f} {:8.1f} {:6.1f} |                          {:6.1f} {:6.1f} {:10.1f} {:8.1f}"
        print(f"{seed:4} {f1(called, wrong):5.3f} | " + cells.format(*by_itself, *with_val), flush=True)
    if options.out:
        draw(weights, wrong, options.out)


if __name__ == "__main__":
    main()
