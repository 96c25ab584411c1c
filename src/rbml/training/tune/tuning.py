"""Learn the strategy of a training run of one's own by hypergradients, choose among candidates, and train with it."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from rbml.data.batch import Batch, rows
from rbml.data.targets import CLASSES, REAL, Target
from rbml.devices import placed
from rbml.diagnostics.smoothness import Smoothness
from rbml.errors import DivergedError, UsageError, unknown
from rbml.learner import Adapted, Execution, Initial, Learner
from rbml.strategy import Part, Strategy
from rbml.training.tune.progress import Progress, Search, Watch
from rbml.training.tune.runs import Runs, first_of, fitted, has_batch_norm
from rbml.training.tune.search import How
from rbml.training.tune.usual import usual_for
from rbml.tree import Tree

PARTS = (0.6, 0.2, 0.2)
"""The shares of the examples: to train on, to tune on, and to measure the result on."""

FRESH = 10**6
"""Seeds of runs from here on were never used for tuning."""


class Candidate(NamedTuple):
    """One setting of phi that was validated on fresh runs.

    Attributes:
        name: how it came about.
        phi: the numbers.
        losses: the validation loss of every fresh run.
    """

    name: str
    phi: Tree
    losses: list[float]

    @property
    def loss(self) -> float:
        """The mean; infinite if a run diverged."""
        mean = sum(self.losses) / len(self.losses)
        return mean if mean == mean else float("inf")


class Gain(NamedTuple):
    """By how much the loss on the third part is lower than with the usual settings.

    Attributes:
        mean: the difference of the losses; positive where tuning was better.
        interval: half the width of its 95 % interval; NaN for a single example.
    """

    mean: float
    interval: float

    @staticmethod
    def of(usual: Tensor, own: Tensor) -> Gain:
        r"""Return it from the losses ``(S, n)`` of the same n examples after the same S starts.

        With :math:`d_{si}` the differences, the variance of their mean is taken as that of the examples' means divided
        by n, plus that of the starts' means divided by S: others might have been drawn of both.
        """
        difference = (usual - own).cpu().double()
        variances = [means.var() / len(means) for means in (difference.mean(0), difference.mean(1)) if len(means) > 1]
        total = float(sum(variances)) if difference.shape[1] > 1 else float("nan")
        return Gain(float(difference.mean()), 1.96 * total**0.5)

    @property
    def clear(self) -> bool:
        """Whether the interval excludes zero."""
        return abs(self.mean) > self.interval


@dataclass(frozen=True)
class Tuned:
    """The result of :func:`tune`.

    Attributes:
        adapted: the final model, trained with the chosen numbers on the training and the validation examples.
        learner: the learner with the chosen numbers.
        test: loss and metrics on the third part of the examples, which nothing was tuned on, the mean of the starts.
        usual: the same for the settings at which tuning began, trained on the training and the validation examples.
        gain: by how much the loss of ``test`` is lower than that of ``usual``, paired by example and start.
        candidates: all that were validated; the first one was chosen: the best one whose final runs did not diverge.
        history: what happened.
        sizes: how many examples to train on, to tune on, and in the third part.
        how: ``"whole"`` or ``"online"``.
        smooth: how smooth the loss is along the hypergradient through a whole run, where tuning began; ``None`` where
            only a window was differentiated.
        stopped: whether it was interrupted before its time was used.
    """

    adapted: Adapted
    learner: Learner
    test: dict[str, float]
    usual: dict[str, float]
    gain: Gain
    candidates: list[Candidate]
    history: list[Progress]
    sizes: tuple[int, int, int]
    how: str = "whole"
    smooth: Smoothness | None = None
    stopped: bool = False


def split(examples: Batch, seed: int = 0, shares: Sequence[float] = PARTS) -> tuple[Batch, Batch, Batch]:
    """Return three parts of the examples, drawn at random: to train on, to tune on, and to measure the result on.

    Raises:
        UsageError: for fewer than 15 examples.
    """
    train, val, test = division(examples.size, seed, shares)
    return rows(examples, train), rows(examples, val), rows(examples, test)


def division(total: int, seed: int = 0, shares: Sequence[float] = PARTS) -> tuple[Tensor, Tensor, Tensor]:
    """Return the places of the three parts of :func:`split` among so many examples.

    Raises:
        UsageError: for fewer than 15 examples.
    """
    if total < 15:
        raise UsageError(
            f"{total} examples are too few to tune on: at least 15 are needed, in three parts (to train on, to tune "
            "on, and to measure the result on)"
        )
    order = torch.randperm(total, generator=torch.Generator().manual_seed(seed))
    first, second = max(1, round(shares[0] * total)), max(1, round(shares[1] * total))
    train, val, test = torch.tensor_split(order, (first, first + second))
    return train, val, test


def tune(
    model: nn.Module,
    examples: Batch | tuple[Any, Any],
    strategy: Strategy | Part | None = None,
    *,
    target: Target | None = None,
    seconds: float = 60.0,
    starts: int = 3,
    steps: int | None = None,
    size: int = 32,
    how: How = "auto",
    compile: bool | None = None,
    lr: float = 0.15,
    seed: int = 0,
    state: str | Path | None = None,
    watch: Watch | None = None,
    asked: Callable[[], bool] = lambda: False,
    clock: Callable[[], float] = time.perf_counter,
) -> Tuned:
    """Tune every learned number of a training run's strategy by hypergradients, then train the final model.

    The examples are divided into three parts. Some runs at other rates, and with a schedule that falls, find out where
    to begin. From there the validation loss (second part) after a run on the first part is differentiated through all
    of its mini-batch steps. Candidates are then validated on starts and orders that were not tuned on, beside the usual
    settings, which stay if nothing was better. The final model is trained on the first two parts; its loss on the third
    one, which nothing was tuned on, is the number to believe.

    Args:
        model: any module; its layers are drawn anew for every run by ``reset_parameters``. What it is on (cuda, for
            example) computes everything.
        examples: inputs ``(N, ...)`` and targets ``(N, ...)``: a :class:`rbml.Batch`, or a pair of tensors or arrays.
        strategy: of the run; whatever is learned in it is tuned. ``None`` tunes a rate, a decay and a schedule for
            every tensor, the momentum, and for classes the label smoothing; with at least 180 seconds also the dropout
            in front of every layer but the first, and with at least 900 how far raw pictures are warped.
        target: what is predicted; ``None``: classes for whole numbers, else real values.
        seconds: for tuning and validating the candidates; the final training comes on top.
        starts: how many runs, with other first weights and orders, each change of phi and each candidate sees.
        steps: of a run; ``None`` means 20 passes over the training examples, at least 100 and at most 2,000.
        size: examples per mini-batch.
        how: ``"whole"`` differentiates whole runs, ``"online"`` a window that moves along one run, which is cheaper and
            favours small rates; ``"auto"`` takes whole runs if there is time for at least eight changes.
        compile: whether one step is compiled, which takes some 20 seconds at first and makes steps several times
            faster; ``None`` does so with a C++ compiler and at least 60 seconds.
        lr: how far a number of phi moves in one change: 0.15 changes a rate by about 15 %.
        seed: of the division and of the runs.
        state: a file that is written after every change, and from which an interrupted call goes on.
        watch: called after every change.
        asked: asked after every change whether to stop; the best so far is then kept.
        clock: for ``seconds``.

    Raises:
        UsageError: for examples or options that cannot be used, or a strategy in which nothing is learned.
        DivergedError: if every candidate diverged.
    """  # noqa: DOC501  `unknown` returns the UsageError
    if how not in ("auto", "whole", "online"):
        raise unknown("way to tune", str(how), ("auto", "whole", "online"))
    if starts < 1 or seconds <= 0:
        raise UsageError(f"tune needs at least 1 start and more than 0 seconds, not {starts} and {seconds}")
    whole_batch = as_batch(examples)
    target = target or (REAL if whole_batch.y.is_floating_point() else CLASSES)
    device = next(model.parameters()).device
    train, val, test = (placed(part, device) for part in split(whole_batch, seed))
    parts = (train, val, test)
    if strategy is None:
        strategy = usual_for(model, target.kind == "classes", train.x, seconds)
    learner = learner_of(model, strategy, target, steps or usual_steps(parts[0].size, size), compile, seconds)
    runs = Runs(learner, model, parts[0], parts[1], size)
    if not runs.phi():
        raise UsageError("nothing in this strategy is learned: write for example sgd(Hyper(0.1, bounds=(0, None)))")
    search = Search(runs, seconds, starts, how, lr, seed, state, watch, asked, clock)
    history, way, stopped = search.run()
    smooth = _smoothness(runs, history[0].phi, seed) if way == "whole" else None
    fresh = range(FRESH + starts * seed, FRESH + starts * (seed + 1))
    candidates = validated(runs, history, fresh)
    if candidates[0].loss == float("inf"):
        raise DivergedError("every run diverged: start from a smaller rate, such as sgd(Hyper(0.01, bounds=(0, None)))")
    found = finished(runs, parts, candidates, history, target, fresh)
    return replace(found, how=way, smooth=smooth, stopped=stopped)


def _smoothness(runs: Runs, phi: Tree, seed: int) -> Smoothness:
    _, grads = runs.gradient(phi, [seed])
    return runs.smoothness(phi, grads, [seed])


def as_batch(examples: Batch | tuple[Any, Any]) -> Batch:
    """Return examples as a batch of tensors.

    Raises:
        UsageError: if inputs and targets are of different number.
    """
    x, y = examples[0], examples[1]
    x = x if isinstance(x, Tensor | dict) else torch.as_tensor(x).float()
    y = torch.as_tensor(y)
    y = y.float() if y.is_floating_point() else y.long()
    first = x if isinstance(x, Tensor) else next(iter(x.values()))
    if len(first) != len(y):
        raise UsageError(f"there are {len(first)} inputs and {len(y)} targets: give one target per input")
    return Batch(x, y[:, None] if y.is_floating_point() and y.dim() == 1 else y)


def usual_steps(train: int, size: int) -> int:
    """Return how many steps 20 passes over the examples take, within limits."""
    return min(max(20 * train // min(size, train), 100), 2000)


def learner_of(
    model: nn.Module,
    strategy: Strategy | Part,
    target: Target,
    steps: int,
    compile: bool | None,
    seconds: float,
) -> Learner:
    """Return the learner whose phi is tuned; arguments as of :func:`tune`."""
    if compile is None:
        compile = seconds >= 60 and any(shutil.which(name) for name in ("c++", "g++", "clang++"))
    return Learner(
        model,
        strategy,
        steps,
        target.loss,
        Initial(reset="*"),
        statistics="inductive" if has_batch_norm(model) else "transductive",
        execution=Execution(compile="step" if compile else "no", verify=False),
    )


def validated(runs: Runs, history: Sequence[Progress], fresh: Sequence[int]) -> list[Candidate]:
    """Return the candidates with the losses of runs that they were not tuned on, the best one first.

    They are the usual settings, the place that the first runs found, where tuning ended, the mean over its last third,
    and where the loss that it saw was least.
    """
    later = history[2 * len(history) // 3 :]
    mean = {name: torch.stack([one.phi[name] for one in later]).mean(0) for name in later[0].phi}
    least = min(history, key=lambda one: one.loss if one.loss == one.loss else float("inf"))
    named = {"start": history[0].phi}
    if history[0].changes == 0:  # the first change began elsewhere
        named["first place"] = history[1].phi
    named |= {"last": history[-1].phi, "mean of the last third": mean, "least loss": least.phi}
    found: list[Candidate] = []
    for name, phi in named.items():
        if any(all(torch.equal(one.phi[key], leaf) for key, leaf in phi.items()) for one in found):
            continue
        found.append(Candidate(name, phi, runs.judged(phi, fresh)["loss"].tolist()))
    return sorted(found, key=lambda one: one.loss)


def finished(
    runs: Runs,
    parts: tuple[Batch, Batch, Batch],
    candidates: list[Candidate],
    history: list[Progress],
    target: Target,
    fresh: Sequence[int],
) -> Tuned:
    """Train with the chosen numbers on the training and the validation examples, and measure on the third part.

    Weights of single examples belong to the training examples: with them, the final model is trained on these alone.
    Without them, settings that diverge on both parts give way to the next best (:func:`_settled`).
    """
    train, val, test = parts
    learner = runs.learner
    weighted = any(one.origin is not None and one.origin.by == "example_weights" for one in learner.strategy.parts)
    learned_from = train if weighted else joined(train, val)
    last = Runs(learner, runs.model, learned_from, test, runs.size)
    candidates = candidates if weighted else _settled(last, candidates, fresh)
    chosen = candidates[0].phi
    own = last.judged(chosen, fresh, target.metrics)
    usual = last.judged(history[0].phi, fresh, target.metrics)
    stack, ends = last.ends(chosen, fresh[:1])
    fitted(learner, chosen)
    given = {name: first_of(part) for name, part in stack.items()}
    bound = last.bound(given)
    with torch.no_grad():
        whole = bound.whole({name: leaf[0].detach() for name, leaf in ends.items()}, chosen, learner.steps)
        adapted = Adapted(learner.model, whole, bound.fitted_statistics(whole))
    sizes = (train.size, val.size, test.size)
    gain = Gain.of(usual.pop("each"), own.pop("each"))
    means = [{name: leaf.mean().item() for name, leaf in found.items()} for found in (own, usual)]
    return Tuned(adapted, learner, means[0], means[1], gain, candidates, history, sizes)


def _settled(last: Runs, candidates: list[Candidate], fresh: Sequence[int]) -> list[Candidate]:
    """Return the candidates with the first one in front none of whose final runs has diverged.

    Large rates are good until a run with another start diverges, which three validated runs may not show. Such a run
    fits its own examples worse than the usual settings do those that they have not seen. The third part has no say.
    """
    usual = next(one for one in candidates if one.name == "start")
    own = replace(last, judge=last.train)
    for place, one in enumerate(candidates):
        if one is usual or bool((own.judged(one.phi, fresh)["loss"] <= max(usual.losses)).all()):
            return [one, *candidates[:place], *candidates[place + 1 :]]
    return candidates


def joined(one: Batch, other: Batch) -> Batch:
    """Return the examples of both."""
    if isinstance(one.x, Tensor):
        return Batch(torch.cat([one.x, other.x]), torch.cat([one.y, other.y]))
    return Batch({name: torch.cat([leaf, other.x[name]]) for name, leaf in one.x.items()}, torch.cat([one.y, other.y]))
