"""Unlabelled examples of a user's own beside a few labelled ones: the confident predictions are learned from as well.

Shapes: n labelled examples, m unlabelled ones, C classes.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from rbml.data.batch import Batch, Inputs, each_input, rows
from rbml.devices import CPU, placed
from rbml.errors import UsageError
from rbml.learner import Adapted, Learner
from rbml.recipe.streams import VALIDATE
from rbml.tasks import FewShot, generator, task_seeds
from rbml.tree import Tree

ROUNDS = 3
"""In each round more of the unlabelled examples are taken; a third, two thirds, and in the last one all that may be."""

TASKS = 40
"""How many validation tasks say whether unlabelled examples help."""

_FOLDS = 5
_AT_ONCE = 200  # examples predicted at once


@dataclass(frozen=True)
class WithUnlabelled:
    """A learner that learns from the same unlabelled examples whatever the support set: it adapts as a learner does.

    Cross-validation with it is as honest as with the learner itself, because the labels of what is left out are not
    used.

    Args:
        learner: the learner.
        unlabelled: ready inputs ``(m, ...)``.
    """

    learner: Learner
    unlabelled: Inputs

    def adapt(self, x: Inputs, y: Tensor, mask: Tree | None = None, *, ways: int | None = None) -> Adapted:
        """Adapt to labelled examples and the unlabelled ones; arguments as of :meth:`rbml.Learner.adapt`."""
        classes = int(y.max()) + 1 if ways is None else ways
        larger = extended(self.learner, Batch(x, y, mask or {}), self.unlabelled, classes)
        return self.learner.adapt(*larger, ways=classes)


@dataclass(frozen=True)
class Trial:
    """What labelled examples that were left out say of the unlabelled ones.

    Attributes:
        tested: how many examples were left out and predicted.
        plain: the share predicted correctly without unlabelled examples.
        extended: the same with them.
        helps: whether they are worth using: the share is higher; or it is the same, and the loss is lower.
        where: what was predicted, in words.
    """

    tested: int
    plain: float
    extended: float
    helps: bool
    where: str = "left-out accuracy"

    def __str__(self) -> str:
        """Say it in a sentence."""
        found = f"{self.where} {100 * self.extended:.1f} % with them, {100 * self.plain:.1f} % without"
        close = " and a lower loss with them" if self.helps and self.extended == self.plain else ""
        return f"{found}{close} ({self.tested} examples): {'they are used' if self.helps else 'they are not used'}"


def extended(learner: Learner, support: Batch, unlabelled: Inputs, ways: int, rounds: int = ROUNDS) -> Batch:
    """Return the support set together with unlabelled examples and the classes that are predicted for them.

    Pseudo-labels (Lee 2013), taken from a class's most confident predictions, as many of each class if there are so
    many, and chosen anew in each round by a learner adapted to the last choice. For a learner with prototypes that is
    k-means that starts from the labelled examples, with hard assignments (Ren et al. 2018, arXiv:1803.00676, have soft
    ones). At most half of an equal share of the unlabelled examples is taken for each class, because not all of them
    need belong to any class. The cost is ``rounds`` adaptations and predictions.

    Args:
        learner: the learner.
        support: the labelled examples ``(n, ...)``, without a mask.
        unlabelled: ready inputs ``(m, ...)``.
        ways: C.
        rounds: how often the choice is made.

    Raises:
        UsageError: if there are no unlabelled examples.
    """
    count = len(unlabelled) if isinstance(unlabelled, Tensor) else len(next(iter(unlabelled.values())))
    if not count:
        raise UsageError("there are no unlabelled examples: name a folder that has some.")
    found = support
    most = max(1, count // (2 * ways))
    for turn in range(1, rounds + 1):
        probabilities = _predicted(learner, found, unlabelled, count, ways).softmax(1)
        places, labels = _confident(probabilities, max(1, most * turn // rounds))
        chosen = each_input(lambda leaf, places=places: leaf[places], unlabelled)  # type: ignore[misc]
        found = Batch(_joined(support.x, chosen), torch.cat([support.y, labels.to(support.y)]))
    return found


def trial(learner: Learner, support: Batch, unlabelled: Inputs, ways: int, folds: int = _FOLDS) -> Trial | None:
    """Leave out one labelled example of each class at a time and predict it, without and with unlabelled examples.

    Args:
        learner: the learner.
        support: the labelled examples ``(n, ...)``.
        unlabelled: ready inputs ``(m, ...)``.
        ways: C.
        folds: how often, at most.

    Returns:
        What came out, or ``None`` if a class has a single example: then none can be left out.
    """
    members = [torch.nonzero(support.y == label).flatten() for label in range(ways)]
    count = min(folds, *(len(own) for own in members))
    if count < 2:
        return None
    logits: dict[str, list[Tensor]] = {"plain": [], "extended": []}
    truth = []
    for fold in range(count):
        left = torch.stack([own[fold] for own in members])
        rest = torch.tensor([place for place in range(len(support.y)) if place not in set(left.tolist())])
        queries, smaller = rows(support, left), rows(support, rest)
        truth.append(queries.y)
        logits["plain"].append(_predicted(learner, smaller, queries.x, ways, ways))
        larger = extended(learner, smaller, unlabelled, ways)
        logits["extended"].append(_predicted(learner, larger, queries.x, ways, ways))
    y = torch.cat(truth)
    hits = {name: (torch.cat(parts).argmax(1) == y).double().mean().item() for name, parts in logits.items()}
    loss = {name: cross_entropy(torch.cat(parts), y).item() for name, parts in logits.items()}
    better = (hits["extended"], -loss["extended"]) > (hits["plain"], -loss["plain"])
    return Trial(len(y), hits["plain"], hits["extended"], better)


def trial_on_tasks(learner: Learner, tasks: FewShot, seed: int, count: int = TASKS) -> Trial | None:
    """Find out on other tasks whether unlabelled examples help where a class has a single labelled one.

    Half of a task's queries are its unlabelled examples, and the other half is predicted. All of them are of the task's
    classes, equally many of each, which is the best case.

    Args:
        learner: the learner.
        tasks: of validation classes; their queries are the unlabelled examples and those that are predicted.
        seed: by which the tasks are drawn.
        count: how many tasks.

    Returns:
        What came out; they help if the gain is larger than two standard errors over the tasks. ``None`` if a class has
        fewer than two queries.
    """
    if tasks.queries < 2:
        return None
    plain: list[Tensor] = []
    larger: list[Tensor] = []
    tested = 0
    for one in task_seeds(count, generator(seed, VALIDATE, 2)):
        drawn = placed(tasks.draw([one]), CPU)
        support, query = _first(drawn.support), _first(drawn.query)
        unlabelled = torch.arange(query.size) % tasks.queries < tasks.queries // 2
        asked = rows(query, torch.nonzero(~unlabelled).flatten())
        pile = each_input(lambda leaf, own=unlabelled: leaf[own], query.x)  # type: ignore[misc]
        for found, known in ((plain, support), (larger, extended(learner, support, pile, tasks.ways))):
            hits = _predicted(learner, known, asked.x, asked.size, tasks.ways).argmax(1) == asked.y
            found.append(hits.double().mean())
        tested += asked.size
    gains = torch.stack(larger) - torch.stack(plain)
    helps = bool(gains.mean() > 2 * gains.std() / count**0.5)
    return Trial(
        tested, torch.stack(plain).mean().item(), torch.stack(larger).mean().item(), helps,
        "with one labelled example per class, validation tasks of the run say: accuracy",
    )  # fmt: skip


def _first(batch: Batch) -> Batch:
    return Batch(each_input(lambda leaf: leaf[0], batch.x), batch.y[0])


def _predicted(learner: Learner, support: Batch, x: Inputs, count: int, ways: int) -> Tensor:
    """Return the logits ``(count, C)`` of a learner that has adapted to a support set."""
    adapted = learner.adapt(*support, ways=ways)
    starts = range(0, count, _AT_ONCE)
    with torch.no_grad():
        parts = [adapted(each_input(lambda leaf, at=at: leaf[at : at + _AT_ONCE], x)) for at in starts]  # type: ignore[misc]
    return torch.cat(parts).cpu()


def _confident(probabilities: Tensor, most: int) -> tuple[Tensor, Tensor]:
    """Return the places of the most confident predictions of each class, and these classes."""
    best, labels = probabilities.max(1)
    places = []
    for label in range(probabilities.shape[1]):
        own = torch.nonzero(labels == label).flatten()
        places.append(own[best[own].argsort(descending=True, stable=True)[:most]])
    chosen = torch.cat(places)
    return chosen, labels[chosen]


def _joined(first: Inputs, second: Inputs) -> Inputs:
    if isinstance(first, Tensor):
        assert isinstance(second, Tensor)
        return torch.cat([first, second])
    assert not isinstance(second, Tensor)
    return {name: torch.cat([leaf, second[name]]) for name, leaf in first.items()}
