"""Learn one weight decay per weight, more than 20,000 of them, by implicit differentiation, on real digits.

    python examples/weight_decay_each.py [--out decay.png]

Lorraine, Vicol, Duvenaud 2020 (arXiv:1911.02590, section 5.1). First the sanity check of the paper: with so many
numbers a small validation set can be overfitted through the decay alone. Then the real use: does it help on a test set,
compared with no decay and with the best single decay of a grid? The engine needs only the end of the run, and reports
how far that is from convergence.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from torch import nn
from torch.nn.functional import avg_pool2d

import rbml
from rbml import Batch, Episodes, Initial, Learner
from rbml.hypergrad import ConjugateGradient, Hypergradient, Implicit, Neumann
from rbml.models import MLP
from rbml.strategy import Hyper, chain, l2, momentum, sgd
from rbml.tasks import generator

GRID = (1e-4, 1e-3, 3e-3, 1e-2, 3e-2, 1e-1)
BOUNDS = (0, 10)  # of the decay; with rate 0.1 and momentum 0.9 a run with a decay above 38 diverges
ENGINES: dict[str, Hypergradient] = {
    "neumann": Implicit(Neumann(iterations=20, rate=0.05)),
    "cg": Implicit(ConjugateGradient(iterations=20)),
}


def split(sizes: tuple[int, ...], seed: int) -> list[Batch]:
    """Return digits as 14x14 images: a training set and a validation set of the given sizes, and the rest to test."""
    data = rbml.data.load("digits", "test")
    order = torch.randperm(len(data.y), generator=generator(seed))
    x = avg_pool2d(data.x / 255, 2)
    return [Batch(x[rows], data.y[rows]) for rows in torch.tensor_split(order, (sizes[0], sum(sizes)))]


def one_task(train: Batch, judge: Batch) -> Episodes:
    """Return a whole training run as one task."""
    return Episodes(Batch(train.x[None], train.y[None]), Batch(judge.x[None], judge.y[None]))


def run_of(decay: Hyper | float, steps: int, seed: int, engine: Hypergradient | None = None) -> Learner:
    """Return a training run of an MLP with fixed initial weights: only the decay is learned."""
    torch.manual_seed(seed)
    model = MLP(196, 10, hidden=(100,), activation=nn.Tanh)
    return Learner(
        model, chain(l2(decay), momentum(0.9), sgd(0.1)), steps, initial=Initial(reset="*"), hypergradient=engine
    )


def measured(learner: Learner, train: Batch, judge: Batch) -> tuple[float, float]:
    """Train, and return loss and error in % on the other set."""
    found = learner.evaluate(one_task(train, judge), each_step=False)
    assert found.accuracy is not None
    return found.loss.item(), 100 - 100 * found.accuracy.item()


def learn(learner: Learner, train: Batch, val: Batch, outer_steps: int, lr: float) -> str:
    """Learn the decay by the validation loss; return the engine's diagnostics at the last step."""
    optimizer = torch.optim.Adam(learner.parameters(), lr=lr)
    report = ""
    for _ in range(outer_steps):
        optimizer.zero_grad()
        info = learner.backward(one_task(train, val)).info
        optimizer.step()
        report = f"gap {info['gap'].item():.0e}, residual {info['residual'].item():.0e}"
    return report


def overfit(options: argparse.Namespace) -> None:
    """Overfit a small validation set through the decay of every weight."""
    train, val, test = split((options.few, options.few), seed=0)
    learner = run_of(Hyper(1e-3, per="element", bounds=BOUNDS), options.steps, 0, ENGINES[options.solver])
    count = sum(leaf.numel() for leaf in learner.phi.parameters())
    print(f"{count:,} numbers, {options.few} examples to train on and {options.few} to validate: loss and error in %")
    rounds = 3
    for part in range(rounds + 1):
        report = learn(learner, train, val, options.outer_steps // rounds, options.overfit_lr) if part else ""
        (loss, error), (_, test_error) = (measured(learner, train, judge) for judge in (val, test))
        step = part * (options.outer_steps // rounds)
        print(
            f"  outer step {step:4}: validation {loss:.4f} {error:5.1f}%  test {test_error:5.1f}%  {report}", flush=True
        )


def compare(options: argparse.Namespace, seed: int) -> Learner:
    """Print one row per way to choose the decay; return the learner with one decay per weight."""
    train, val, test = split(tuple(options.sizes), seed)
    tried = [(measured(run_of(decay, options.steps, seed), train, val)[0], decay) for decay in GRID]
    best = min(tried)[1]
    learned = run_of(Hyper(best, per="element", bounds=BOUNDS), options.steps, seed, ENGINES[options.solver])
    report = learn(learned, train, val, options.outer_steps, options.outer_lr)
    both = Batch(torch.cat([train.x, val.x]), torch.cat([train.y, val.y]))
    rows = {
        "no decay": (run_of(0.0, options.steps, seed), train),
        f"best single, {best}": (run_of(best, options.steps, seed), train),
        "one per weight": (learned, train),
        f"{best}, trained on val too": (run_of(best, options.steps, seed), both),
        "one per weight, trained on val too": (learned, both),
    }
    for name, (learner, on) in rows.items():
        (loss, error), (test_loss, test_error) = (measured(learner, on, judge) for judge in (val, test))
        note = report if name == "one per weight" else ""
        judged = f"{loss:8.4f} {error:5.1f}%" if on is train else f"{'-':>15}"
        print(f"{seed:4} {name:34} {judged}   {test_loss:8.4f} {test_error:5.1f}%  {note}", flush=True)
    return learned


def draw(learner: Learner, out: Path) -> None:
    """Save an image of the learned decay of the first layer: per pixel, the mean over the units."""
    import matplotlib.pyplot as plt  # noqa: PLC0415  needed only for a figure

    raw = next(leaf for name, leaf in learner.phi.named_parameters() if name.endswith("body.1.weight"))
    figure, axes = plt.subplots(figsize=(4, 3.5), layout="constrained")
    decay = Hyper(1.0, bounds=BOUNDS).valid(raw.detach())
    picture = axes.imshow(decay.log10().mean(0).view(14, 14).numpy())
    axes.set(title="decay per pixel, mean over 100 units", xticks=[], yticks=[])
    figure.colorbar(picture, label="log10 of the decay")
    figure.savefig(out)


def main(arguments: list[str] | None = None) -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=150, help="inner steps: the length of the training run")
    parser.add_argument("--outer-steps", type=int, default=30)
    parser.add_argument("--outer-lr", type=float, default=0.1)
    parser.add_argument("--overfit-lr", type=float, default=0.3)
    parser.add_argument("--few", type=int, default=50, help="examples per set in the sanity check")
    parser.add_argument("--sizes", type=int, nargs=2, default=(200, 400), help="examples to train on and to validate")
    parser.add_argument("--solver", choices=list(ENGINES), default="neumann")
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--out", type=Path, help="where to save a figure")
    options = parser.parse_args(arguments)

    overfit(options)
    print(f"\n{options.sizes[0]} examples to train on, {options.sizes[1]} to validate; loss and error in %")
    print(f"{'seed':4} {'decay':34} {'validation':>15}   {'test':>15}")
    learned = [compare(options, seed) for seed in range(options.seeds)]
    if options.out:
        draw(learned[0], options.out)


if __name__ == "__main__":
    main()
