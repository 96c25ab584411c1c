"""Which examples hurt a training run: one learned weight per example, by the hypergradient through the run.

Shapes: N examples, M of them in the half that is trained on.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
from torch import Tensor, nn

from rbml.data.batch import Batch, rows
from rbml.data.targets import CLASSES, REAL, Target
from rbml.errors import UsageError
from rbml.strategy import chain, example_weights, l2, momentum, sgd
from rbml.training.tune.runs import Runs
from rbml.training.tune.search import Descent
from rbml.training.tune.tuning import as_batch, learner_of
from rbml.tree import detach


class Rating(NamedTuple):
    """What was found about every example.

    Attributes:
        weight: its learned weight, 0 to 1, ``(N,)``: one half at the start; the mean of both directions of the halves.
        hurts: whether its weight ended so low that the example makes the others' predictions worse, ``(N,)``.
    """

    weight: Tensor
    hurts: Tensor

    @property
    def worst(self) -> Tensor:
        """The places of all examples, the most harmful first, ``(N,)``."""
        return torch.argsort(self.weight)


def rate(
    model: nn.Module,
    examples: Batch | tuple[object, object],
    *,
    target: Target | None = None,
    rounds: int = 2,
    changes: int = 15,
    steps: int = 60,
    size: int = 64,
    lr: float = 0.1,
    compile: bool = False,
    seed: int = 0,
    watch: Callable[[int, int], None] = lambda done, total: None,
) -> Rating:
    r"""Learn a weight for every example, by how much it helps to predict examples that were not trained on.

    The examples are divided into two halves. A run trains on one, each example weighted by
    :math:`w_i = \mathrm{sigmoid}(r_i)`, and the loss on the other half after the run is differentiated by every
    :math:`r_i`; then the halves change places, and further rounds divide anew. No example needs to be known to be
    right: wrong labels of the other half disagree with one another, and their effect averages out.

    .. math:: \frac{d L_{other}(\theta_T(w))}{d r_i}, \qquad
              \theta_{t+1} = \theta_t - \eta \nabla \frac{\sum_i w_i \ell_i}{\sum_i w_i}

    Source: data hyper-cleaning, Franceschi et al. 2017 (arXiv:1703.01785), which needs a clean validation set.
    DataRater (Calian et al. 2025, arXiv:2505.17895) learns a network that scores examples, for more of them than can
    have a weight each.

    Args:
        model: small ones rate better: one that learns every example by heart finds no fault with any.
        examples: as in :func:`rbml.tune`.
        target: likewise.
        rounds: how often the examples are divided into halves.
        changes: of the weights for each half; each sees another start and another order.
        steps: of a run.
        size: examples per mini-batch.
        lr: how far a weight's r moves in one change.
        compile: whether one step is compiled.
        seed: of the divisions and the runs.
        watch: called with how many changes were made and how many there are.

    Raises:
        UsageError: for fewer than 20 examples.
    """
    batch = as_batch(examples)
    if batch.size < 20:
        raise UsageError(f"{batch.size} examples are too few to rate one another: at least 20 are needed")
    target = target or (REAL if batch.y.is_floating_point() else CLASSES)
    raw, done = torch.zeros(batch.size), 0
    for own, other, number in _halves(batch.size, rounds, seed):
        parts = example_weights(len(own)), l2(1e-3), momentum(0.9), sgd(0.05)
        learner = learner_of(model, chain(*parts), target, steps, compile, 1.0)
        runs = Runs(learner, model, rows(batch, own), rows(batch, other), size)
        descent = Descent(runs.phi(), lr)
        for change in range(changes):
            loss, grads = runs.gradient(detach(descent.leaves), [1000 * (2 * seed + number) + change])
            descent.change(loss.mean(), grads)
            done += 1
            watch(done, 2 * rounds * changes)
        (found,) = descent.leaves.values()
        raw[own] += found.detach() / rounds
    return Rating(torch.sigmoid(raw), raw < 0)


def _halves(total: int, rounds: int, seed: int) -> Iterator[tuple[Tensor, Tensor, int]]:
    for number in range(rounds):
        order = torch.randperm(total, generator=torch.Generator().manual_seed(1000 * seed + number))
        one, two = torch.tensor_split(order, 2)
        yield one, two, 2 * number
        yield two, one, 2 * number + 1
