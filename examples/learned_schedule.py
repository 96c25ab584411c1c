"""Learn a learning rate and a momentum for every tensor and every step of a whole training run, on real digits.

    python examples/learned_schedule.py [--out schedule.png]

The experiment of Maclaurin, Duvenaud, Adams 2015 (arXiv:1502.03492, section 3.1). A training run of 100 steps is one
task: its support set is the training set, its query set the validation set. The run is not stored; its steps are undone
bit for bit on the way back. The learned schedule is compared with the best constant rate and the best cosine of a grid,
chosen by the same validation loss. The test set is used once, at the end.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d

import rbml
from rbml import Batch, Episodes, Initial, Learner, Phase
from rbml.models import MLP
from rbml.strategy import Hyper, Part, Strategy, chain, cosine, momentum, sgd
from rbml.tasks import generator

RATES = (0.1, 0.3, 0.5, 0.7, 1.0, 1.5)
DECAYS = (0.5, 0.8, 0.9)
START = (0.3, 0.8)  # rate and decay; at the best constant rate the run is nearly chaotic and derivatives are useless
BOUNDS = (0.3, 0.99)  # of the decay; the lower bound determines how many bits per step undoing must keep


def split(seed: int) -> list[Batch]:
    """Return three sets of 14x14 images for training, validation and testing, a third of the 1,797 digits each."""
    data = rbml.data.load("digits", "test")
    order = torch.randperm(len(data.y), generator=generator(seed))
    x = avg_pool2d(data.x / 255, 2)
    return [Batch(x[rows], data.y[rows]) for rows in torch.chunk(order, 3)]


def one_task(train: Batch, judge: Batch) -> Episodes:
    """Return a whole training run as one task."""
    return Episodes(Batch(train.x[None], train.y[None]), Batch(judge.x[None], judge.y[None]))


def run_of(strategy: Strategy | Part, steps: int, seed: int) -> Learner:
    """Return a training run of an MLP with fixed initial weights: only the strategy is learned."""
    torch.manual_seed(seed)
    model = MLP(196, 10, hidden=(50, 50), activation=nn.Tanh)
    engine = rbml.hypergrad.Adjoint(store="reverse", exact=True)
    return Learner(model, strategy, steps, initial=Initial(reset="*"), hypergradient=engine)


def measured(learner: Learner, train: Batch, judge: Batch) -> tuple[float, float]:
    """Train, and return loss and error in % on the other set."""
    found = learner.evaluate(one_task(train, judge), each_step=False)
    assert found.accuracy is not None
    return found.loss.item(), 100 - 100 * found.accuracy.item()


def best_of_grid(parts: list[Part], steps: int, seed: int, train: Batch, val: Batch) -> tuple[Learner, float, float]:
    """Return the run with the rate and decay of the lowest validation loss, and these two numbers."""
    tried = []
    for lr in RATES:
        for decay in DECAYS:
            learner = run_of(chain(momentum(decay), sgd(lr), *parts), steps, seed)
            tried.append((measured(learner, train, val)[0], lr, decay, learner))
    _, lr, decay, learner = min(tried, key=lambda one: one[0])
    return learner, lr, decay


def learn(learner: Learner, train: Batch, val: Batch, outer_steps: int, lr: float) -> Learner:
    """Learn the schedule by the validation loss; the learner ends with the best schedule seen."""
    optimizer = torch.optim.Adam(learner.parameters(), lr=lr)
    best, kept = float("inf"), learner.state_dict()
    for _ in range(outer_steps):
        optimizer.zero_grad()
        found = learner.backward(one_task(train, val))
        assert not found.info["wrong"].any(), "a bit was lost on the way back"
        if found.loss < best:
            best, kept = found.loss.item(), {name: leaf.clone() for name, leaf in learner.state_dict().items()}
        optimizer.step()
    learner.load_state_dict(kept)
    return learner


def ways_back(learner: Learner, task: Episodes) -> str:
    """Return a line on how far two ways to undo the run are from the derivative with stored carries."""
    adjoint, found = rbml.hypergrad.Adjoint, []
    for engine in (adjoint(), adjoint(store="reverse"), adjoint(store="reverse", exact=True)):
        result = learner.meta_gradient(task, phase=Phase(engine))
        found.append(torch.cat([grad.flatten() for grad in result.grads.values()]))
    plain, exact = (float((grad - found[0]).norm() / found[0].norm()) for grad in found[1:])
    bits = result.info["bits"].item()
    return f"hypergradient: undone in plain float32 {plain:.0e}, bit for bit {exact:.0e} with {bits:.1f} bits per value"


def schedules(learner: Learner) -> dict[str, dict[str, Tensor]]:
    """Return the learning rate and the decay of every tensor, each ``(T,)``."""
    rate, decay = Hyper(0.1, bounds=(0, None)), Hyper(0.5, bounds=BOUNDS)
    numbers = {name.removeprefix("phi."): leaf for name, leaf in learner.state_dict().items()}
    return {
        what: {name.partition("/")[2]: hyper.valid(leaf) for name, leaf in numbers.items() if name.startswith(key)}
        for what, key, hyper in (("learning rate", "sgd.lr", rate), ("momentum", "momentum.decay", decay))
    }


def draw(learner: Learner, out: Path) -> None:
    """Save a plot of the learned schedules, one line per tensor."""
    import matplotlib.pyplot as plt  # noqa: PLC0415  needed only for a figure

    figure, axes = plt.subplots(1, 2, figsize=(9, 3.5), layout="constrained")
    for axis, (what, lines) in zip(axes, schedules(learner).items(), strict=True):
        for name, line in lines.items():
            axis.plot(line, label=name)
        axis.set(xlabel="step", ylabel=what, yscale="log" if what == "learning rate" else "linear")
    axes[0].legend(fontsize="small")
    figure.savefig(out)


def main(arguments: list[str] | None = None) -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=100, help="inner steps: the length of the training run")
    parser.add_argument("--outer-steps", type=int, default=40)
    parser.add_argument("--outer-lr", type=float, default=0.04)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--out", type=Path, help="where to save a figure")
    options = parser.parse_args(arguments)

    print(f"an MLP of 196-50-50-10, {options.steps} full-batch steps with momentum; loss and error in %")
    for seed in range(options.seeds):
        train, val, test = split(seed)
        constant, lr, decay = best_of_grid([], options.steps, seed, train, val)
        falling, top, other = best_of_grid([cosine()], options.steps, seed, train, val)
        start = run_of(chain(momentum(START[1]), sgd(START[0])), options.steps, seed)
        rate = Hyper(START[0], per="tensor", per_step=True, bounds=(0, None))
        sums = momentum(Hyper(START[1], per="tensor", per_step=True, bounds=BOUNDS))
        learned = run_of(chain(sums, sgd(rate)), options.steps, seed)
        count = sum(leaf.numel() for leaf in learned.phi.parameters())
        if seed == 0:
            print(ways_back(learned, one_task(train, val)))
            print(f"{'seed':4} {'schedule':34} {'validation':>16} {'test':>16}", flush=True)
        learn(learned, train, val, options.outer_steps, options.outer_lr)
        rows = {
            f"constant {lr}, momentum {decay}": constant,
            f"cosine from {top}, momentum {other}": falling,
            f"constant {START[0]}, momentum {START[1]}": start,
            f"learned from it, {count:,} numbers": learned,
        }
        for name, learner in rows.items():
            (loss, error), (test_loss, test_error) = (measured(learner, train, judge) for judge in (val, test))
            print(f"{seed:4} {name:34} {loss:8.4f} {error:6.1f}% {test_loss:8.4f} {test_error:6.1f}%", flush=True)
    if options.out:
        draw(learned, options.out)


if __name__ == "__main__":
    main()
