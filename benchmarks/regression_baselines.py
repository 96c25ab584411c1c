"""What needs no learning across tasks, for ``benchmarks/regression.py``: the patient's mean, a line, ridge regressions.

Every strength is chosen on the training patients. The grid of ridge from scratch has both limits as members: at zero
the least squares of smallest norm, at infinity the patient's mean (no slope is left). So the grid ends where ridge
regression itself ends, and where a limit is best it is chosen as such, by its name.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor, func

from rbml import Batch, Episodes
from rbml.data.examples import Grouped
from rbml.data.sources import parkinsons
from rbml.data.targets import REAL
from rbml.tasks import PerGroup
from rbml.tasks.grouped import Order

DRAWS, QUERIES = 20, 60
STRENGTHS = (0.0, *(10.0 ** (power / 2) for power in range(-16, 13)), math.inf)
LIMITS = {0.0: "least squares", math.inf: "the mean"}
POOLED_STRENGTHS = tuple(10.0 ** (power / 2) for power in range(-2, 21))
"""Of all recordings at once, whose sums are thousands of times as large."""

Predict = Callable[[Episodes], Tensor]
"""From a stack of tasks to predictions ``(B, Q, 1)``, or ``(B, Q, 2)`` with variances."""


class Part(NamedTuple):
    """The data of one fold in one setting: what is trained on, what is tested on, and how tasks are drawn."""

    train: Grouped
    test: Grouped
    order: Order

    def all_of(self, grouped: Grouped, shots: int) -> Episodes:
        """Return ``DRAWS`` tasks of every patient, one patient after another."""
        source = PerGroup(grouped, shots, QUERIES, self.order)
        stacks = [source.draw_of(group, range(DRAWS)) for group in range(len(grouped.names))]
        return joined(stacks)


def joined(stacks: list[Episodes]) -> Episodes:
    support, query = zip(*stacks, strict=True)
    return Episodes(
        *(Batch(torch.cat([b.x for b in each]), torch.cat([b.y for b in each])) for each in (support, query))
    )


def ridge(episodes: Episodes, strength: float) -> Tensor:
    """Predict by ridge regression on the inputs of the support set, the intercept not shrunk."""
    if math.isinf(strength):
        return episodes.support.y.mean(1, keepdim=True).expand_as(episodes.query.y)
    support_x, support_y, query_x = (leaf.double() for leaf in (*episodes.support[:2], episodes.query.x))
    centre_x, centre_y = support_x.mean(1, keepdim=True), support_y.mean(1, keepdim=True)
    x, y = support_x - centre_x, support_y - centre_y
    if strength == 0:
        weight = torch.linalg.pinv(x) @ y
    else:
        weight = x.mT @ torch.linalg.solve(x @ x.mT + strength * torch.eye(x.shape[1]).double(), y)
    prediction: Tensor = (query_x - centre_x) @ weight + centre_y
    return prediction.float()


def columns(episodes: Episodes, which: list[int]) -> Episodes:
    return Episodes(*(Batch(batch.x[..., which], batch.y) for batch in episodes))


def chosen_ridge(part: Part, shots: int) -> tuple[Predict, str]:
    """Return ridge from scratch with the strength that is best on the training patients."""
    known = part.all_of(part.train, shots)
    errors = [float((ridge(known, strength) - known.query.y).abs().mean()) for strength in STRENGTHS]
    return chosen(lambda strength: partial(ridge, strength=strength), errors)


def chosen(
    make: Callable[[float], Predict], errors: list[float], strengths: tuple[float, ...] = STRENGTHS
) -> tuple[Predict, str]:
    """Return the best, and its strength in words: that it is an end of the grid is said, unless it is the mean."""
    best = min(range(len(errors)), key=errors.__getitem__)
    if max(errors) - min(errors) < 1e-6:
        return make(strengths[best]), "any"
    edge = " at the edge of the grid" if best in (0, len(errors) - 1) else ""
    return make(strengths[best]), LIMITS.get(strengths[best], f"{strengths[best]:.2g}{edge}")


def pooled(part: Part, shots: int, offset: bool) -> tuple[Predict, str]:
    """Return one ridge regression on all recordings of the training patients; its strength by leaving patients out."""
    x, y, groups = part.train.modality.ready(part.train.x), part.train.y, part.train.groups
    assert isinstance(x, Tensor)
    errors = []
    for strength in POOLED_STRENGTHS:
        apart = []
        for fold in range(5):
            out = groups % 5 == fold
            predict = global_ridge(x[~out], y[~out], strength)
            apart.append((predict(x[out]) - y[out]).abs().mean())
        errors.append(float(torch.stack(apart).mean()))

    def make(strength: float) -> Predict:
        fitted = global_ridge(x, y, strength)

        def predict(episodes: Episodes) -> Tensor:
            left = (episodes.support.y - fitted(episodes.support.x)).mean(1, keepdim=True)
            return fitted(episodes.query.x) + (left if offset else 0)

        return predict

    return chosen(make, errors, POOLED_STRENGTHS)


def global_ridge(x: Tensor, y: Tensor, strength: float) -> Callable[[Tensor], Tensor]:
    centre_x, centre_y = x.mean(0), y.mean(0)
    shrunk = (x - centre_x).T @ (x - centre_x) + strength * torch.eye(x.shape[1])
    weight = torch.linalg.solve(shrunk, (x - centre_x).T @ (y - centre_y))
    return lambda new: (new - centre_x) @ weight + centre_y


def patient_mean(part: Part, shots: int) -> tuple[Predict, str]:
    return lambda episodes: func.vmap(REAL.baselines["support mean"])(*episodes), ""


def line(part: Part, shots: int) -> tuple[Predict, str]:
    """Return a straight line in time through the support set: least squares, of one recording its score."""
    at = [part.train.modality.spec()["columns"].index(parkinsons.TIME)]
    return lambda episodes: ridge(columns(episodes, at), 1e-6), ""


SIMPLE: dict[str, Callable[[Part, int], tuple[Predict, str]]] = {
    "patient mean": patient_mean,
    "line": line,
    "ridge": chosen_ridge,
    "pooled": partial(pooled, offset=False),
    "pooled + offset": partial(pooled, offset=True),
}
