r"""Which examples hurt: a weight for every example, learned through the training runs that it takes part in.

Shapes: N examples with d inputs, C classes, B = 2 R tasks from R halvings, h = ceil(N / 2) examples in a half.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rbml.data.batch import Batch
from rbml.errors import UsageError
from rbml.hypergrad import Adjoint, Unrolled
from rbml.inner import Carry, roll
from rbml.learner import Execution, Learner
from rbml.strategy import chain, example_weights, l2, momentum, sgd
from rbml.tasks import Episode
from rbml.training.tune.label_noise import LabelNoise
from rbml.tree import Tree

FEWEST = 4
"""Examples of a class without which its labels cannot be judged: two in each half."""

HALVINGS, MANY = 3, 2000
"""How often the examples are halved, and how many examples are enough for a single time."""

RATES = tuple(0.1 * 2.0**power for power in range(12))
"""The learning rates of the inner loop that are tried, for inputs of norm 1."""

ROOM = 50_000_000
"""Up to so many logits of all steps of all runs they are kept for the derivative, which is three times as fast."""

LR = 0.2
"""How far Adam moves the logit of a weight in one change."""


class RateProgress(NamedTuple):
    """How far rating has come.

    Attributes:
        done: changes of the weights so far.
        total: how many there will be.
        loss: the loss on the trusted labels of the other halves, before the last change.
    """

    done: int
    total: int
    loss: float


@dataclass(frozen=True)
class Rated:
    """What :func:`rate` found.

    Attributes:
        weight: the learned weight of every example, 0 .. 1, from one half on; ``(N,)``.
        right: the chance that its label is right, ``(N,)``.
        suggested: the likeliest class where the label seems wrong, else the label, ``(N,)``.
        plain: the probabilities by models that were trained on the other half, without weights, ``(N, C)``.
        disagrees: whether the likeliest class of these is not the label, ``(N,)``: the simple way, to compare with.
        noise: the model of wrong labels, with the estimated share of them.
        lr: the learning rate of the inner loop.
        changes: how often the weights were changed.
        stopped: whether it was interrupted before the last change.
    """

    weight: Tensor
    right: Tensor
    suggested: Tensor
    plain: Tensor
    disagrees: Tensor
    noise: LabelNoise
    lr: float
    changes: int
    stopped: bool = False

    @property
    def wrong(self) -> Tensor:
        """Which labels are more likely wrong than right, ``(N,)``."""
        return self.right < 0.5

    def order(self) -> Tensor:
        """Return the places of all examples, the worst first, ``(N,)``."""
        return torch.argsort(self.right, stable=True)


class Halves(NamedTuple):
    """The examples in two halves, R times: each half is trained on once, and judged by the other once.

    Attributes:
        task: B training runs as one task: support ``(B h, ...)`` are the halves one after another, and the queries are
            the other halves in the same order.
        places: of the queries among all examples, ``(B, h)``.
        counts: which queries are no padding, ``(B, h)``.
    """

    task: Episode
    places: Tensor
    counts: Tensor


class SideBySide(nn.Module):
    """B linear models from d inputs to C classes, each of which sees its own part of the inputs; they start at zero.

    Args:
        models: B.
        inputs: d.
        classes: C.
    """

    def __init__(self, models: int, inputs: int, classes: int) -> None:
        """Make the models."""
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(models, inputs, classes))
        self.bias = nn.Parameter(torch.zeros(models, 1, classes))

    def forward(self, x: Tensor) -> Tensor:
        """Return ``(B h, C)`` for inputs ``(B h, d)``, the parts of the models one after another."""
        each = x.view(len(self.weight), -1, x.shape[-1])
        return torch.baddbmm(self.bias, each, self.weight).flatten(0, 1)


def cross_entropy(prediction: Tensor, y: Tensor) -> Tensor:
    """Return the cross entropy ``()``; unlike PyTorch's, it is taken apart fast under ``vmap``."""
    return -prediction.log_softmax(-1).gather(-1, y[..., None]).mean()


def rate(
    examples: Batch | tuple[Any, Any],
    *,
    halvings: int | None = None,
    steps: int = 50,
    changes: int = 30,
    seed: int = 0,
    watch: Callable[[RateProgress], None] | None = None,
    asked: Callable[[], bool] = lambda: False,
) -> Rated:
    r"""Find the examples whose labels are wrong, without any that are known to be right.

    .. math:: \min_w \sum_{j \in B} r_j\, \ell_j(\theta_T(w)) \Big/ \sum_{j \in B} r_j, \qquad \theta_{t+1} = \theta_t
              - \eta\, \nabla \Big(\frac{1}{|A|} \sum_{i \in A} w_i\, \ell_i(\theta_t)\Big) \quad \text{(with momentum
              and decay)}

    The examples are halved. A linear model is trained on one half A with a weight for every example, and the weights
    are changed by the derivative, through all T steps, of its loss on the labels of the other half B; of these, each
    counts by the chance :math:`r_j` that it is right, which plain models trained on A give (:class:`LabelNoise`).
    Models trained with the learned weights then judge the labels of the other half once more. All halvings share one
    set of weights.

    Weighting examples by a hypergradient: learning to reweight (Ren et al. 2018, arXiv:1803.09050), DataRater (Calian
    et al. 2025, arXiv:2505.17895) and data hyper-cleaning (Franceschi et al. 2017, arXiv:1703.01785), which need clean
    examples; here the halves stand in for them. The rate :math:`\eta` is the one with the least loss on the other half.
    Time: about 100 plain runs over all examples per halving. Memory: T times d C numbers per task.

    Errors must be random, among all classes or between pairs of them: what is wrong in the same way for all similar
    examples is what a model learns.

    Args:
        examples: inputs ``(N, d)`` of features (others are flattened), which are standardised here, and classes
            ``(N,)``, ``0 .. C-1``.
        halvings: R; ``None`` means 3, and 1 for more than 2,000 examples.
        steps: T, of a training run on half of the examples.
        changes: of the weights.
        seed: of the halvings.
        watch: called after every change.
        asked: asked after every change whether to stop; what was learned so far is then used.

    Raises:
        UsageError: for targets that are no classes, a single class, or a class with fewer than 4 examples.
    """
    x, y = _checked(examples)
    if min(steps, changes, 1 if halvings is None else halvings) < 1:
        raise UsageError(f"rate needs at least 1 halving, step and change, not {halvings}, {steps} and {changes}")
    count = halvings or (1 if len(y) > MANY else HALVINGS)
    halves = halved(x, y, count, seed)
    lr = _best_rate(halves if count == 1 else halved(x, y, 1, seed), y, steps)
    learner = learner_of(halves, y, steps, lr)
    m = {f"phi.{name}": leaf.detach().clone() for name, leaf in learner.phi.named_parameters() if leaf.requires_grad}
    plain = judged(learner, m, halves, y)
    trust = LabelNoise.fitted(plain, y).right(plain, y)
    leaves = {name: leaf.requires_grad_(True) for name, leaf in m.items()}
    optimizer = torch.optim.Adam(leaves.values(), lr=LR)
    done, stopped = 0, False
    while done < changes and not stopped:
        loss, grads = gradient(learner, {name: leaf.detach() for name, leaf in leaves.items()}, halves, trust)
        for name, leaf in leaves.items():
            leaf.grad = grads[name]
        optimizer.step()
        done += 1
        if watch is not None:
            watch(RateProgress(done, changes, float(loss)))
        stopped = done < changes and asked()
    m = {name: leaf.detach() for name, leaf in leaves.items()}
    found = judged(learner, m, halves, y)
    noise = LabelNoise.fitted(found, y)
    right = noise.right(found, y)
    others = found.scatter(1, y[:, None], -1.0).argmax(1)
    (raw,) = m.values()
    weight, suggested = torch.sigmoid(raw).float(), torch.where(right < 0.5, others, y)
    return Rated(weight, right, suggested, plain, plain.argmax(1) != y, noise, lr, done, stopped)


def _checked(examples: Batch | tuple[Any, Any]) -> tuple[Tensor, Tensor]:
    """Return inputs ``(N, d)``, standardised and of norm about 1, and classes ``(N,)``."""
    x, y = torch.as_tensor(examples[0]), torch.as_tensor(examples[1])
    if y.is_floating_point() or y.dim() != 1:
        raise UsageError(
            f"rate judges classes, one whole number per example, and these targets are {tuple(y.shape)} of {y.dtype}: "
            "for real values look at the residuals of a model instead"
        )
    if len(x) != len(y):
        raise UsageError(f"there are {len(x)} inputs and {len(y)} targets: give one target per input")
    y, sizes = y.long(), torch.bincount(y.long())
    if len(sizes) < 2:
        raise UsageError("there is only one class, so that no label can be wrong: add examples of another one")
    if int(sizes.min()) < FEWEST:
        few = [place for place, size in enumerate(sizes.tolist()) if size < FEWEST]
        shown = ", ".join(map(str, few[:5])) + (", ..." if len(few) > 5 else "")
        raise UsageError(
            f"class {shown} has fewer than {FEWEST} examples, too few to judge their labels: add some, or leave it out"
        )
    x = x.flatten(1) if x.is_floating_point() else x.flatten(1).float()
    x = (x - x.mean(0)) / torch.where(x.std(0) > 1e-6 * x.mean(0).abs().clamp(min=1e-6), x.std(0), 1.0)
    return x / x.shape[1] ** 0.5, y


def halved(x: Tensor, y: Tensor, count: int, seed: int) -> Halves:
    """Return the training runs on halves with the classes in equal shares; arguments as of :func:`rate`."""
    one, other, generator = [], [], torch.Generator().manual_seed(seed)
    for _ in range(count):
        order = torch.randperm(len(y), generator=generator)
        order = order[torch.argsort(y[order], stable=True)]  # class after class, at random within each
        one.append(order[::2])
        other.append(order[1::2])
    size = len(one[0])
    counts = [torch.arange(size) < len(half) for pair in zip(one, other, strict=True) for half in pair]
    places = [F.pad(half, (0, size - len(half))) for pair in zip(one, other, strict=True) for half in pair]
    trained, real = torch.stack(places), torch.stack(counts)
    judged_by = torch.arange(2 * count).view(-1, 2).flip(1).flatten()  # the other half of the same halving
    queries, real_queries = trained[judged_by], real[judged_by]
    mask = {"example": real.flatten(), "index": trained.flatten()}
    support = Batch(x[trained.flatten()], y[trained.flatten()], mask)
    query = Batch(x[queries.flatten()], y[queries.flatten()], {"example": real_queries.flatten()})
    return Halves(Episode(support, query), queries, real_queries)


def learner_of(halves: Halves, y: Tensor, steps: int, lr: float) -> Learner:
    """Return the learner whose phi is the weights."""
    x, models = halves.task.support.x, len(halves.places)
    model = SideBySide(models, x.shape[1], int(y.max()) + 1).to(x.dtype)
    lr *= models  # the loss is the mean over all models
    # Decay takes one thousandth of theta per step, whatever the rate.
    strategy = chain(example_weights(len(y), "examples"), l2(1e-3 / lr), momentum(0.9), sgd(lr))
    return Learner(model, strategy, steps, cross_entropy, execution=Execution(verify=False)).to(x.dtype)


def gradient(learner: Learner, m: Tree, halves: Halves, trust: Tensor) -> tuple[Tensor, Tree]:
    """Return the trusted loss on the other halves, and its derivative by the weights.

    Args:
        learner: of :func:`learner_of`.
        m: the logits of the weights, by their name in the learner.
        halves: the training runs.
        trust: how much each label counts, ``(N,)``.
    """
    y = halves.task.query.y
    shares = torch.where(halves.counts, trust[halves.places], 0).flatten().to(learner.dtype)
    engine: Any = Unrolled()
    if len(y) * learner.model.get_parameter("bias").shape[-1] * learner.steps > ROOM:
        engine = Adjoint(store="segments")
    inner = learner.bind(halves.task).inner()

    def outer(carry: Carry, m: Tree) -> tuple[Tensor, Tree]:
        _, aux = inner.outer(carry, m)
        each = -aux["prediction"].log_softmax(1).gather(1, y[:, None])[:, 0]
        return (shares * each).sum() / shares.sum(), {}

    loss, grads, _, _ = engine(replace(inner, outer=outer), m)
    return loss, grads


def judged(learner: Learner, m: Tree, halves: Halves, y: Tensor) -> Tensor:
    """Return the probabilities of every class by models that were trained on the other halves, ``(N, C)``, the mean."""
    bound = learner.bind(halves.task)
    inner = bound.inner()
    with torch.no_grad():
        _, prediction = bound.measure(roll(inner, inner.start(m), m).theta, m, learner.steps)
    each = prediction.detach().softmax(1)[halves.counts.flatten()]
    places = halves.places[halves.counts]
    total = each.new_zeros(len(y), each.shape[1]).index_add_(0, places, each)
    return total / torch.bincount(places, minlength=len(y))[:, None]


def _best_rate(halves: Halves, y: Tensor, steps: int) -> float:
    """Return the rate whose runs predict the labels of the other half best; rates beyond the best are not tried."""
    best, least = float(RATES[0]), float("inf")
    for lr in RATES:
        learner = learner_of(halves, y, steps, lr)
        m = {f"phi.{name}": leaf.detach() for name, leaf in learner.phi.named_parameters()}
        loss = float(F.nll_loss(judged(learner, m, halves, y).clamp(min=1e-9).log(), y))
        if loss < least:
            best, least = lr, loss
        elif loss > 1.1 * least:  # it rises: greater rates overshoot
            break
    return best
