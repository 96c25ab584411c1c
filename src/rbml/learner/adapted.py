"""The model that a learner returns after it has adapted to one task."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from rbml.autodiff import module
from rbml.data.batch import Batch
from rbml.devices import placed
from rbml.inner import roll
from rbml.learner.binding import Statistics
from rbml.learner.checks import check_batch, explained
from rbml.learner.frozen import FrozenBody, frozen_body
from rbml.tasks import Episode
from rbml.tree import Tree

if TYPE_CHECKING:
    from rbml.learner.learner import Learner


class Adapted(nn.Module):
    """A model that has been adapted to one task: call it on queries ``(n, ...)``. It is an independent module."""

    def __init__(self, model: nn.Module, parameters: Tree, statistics: Tree | None) -> None:
        """Copy the model, with the adapted parameters and the statistics that batch norm uses."""
        super().__init__()
        self.model = copy.deepcopy(model)
        self.transductive = statistics is None
        for name, leaf in parameters.items():
            own = self.model.get_parameter(name)
            if own.shape == leaf.shape:
                own.data.copy_(leaf)  # in place: a tied parameter stays tied
            else:
                module.put(self.model, name, nn.Parameter(leaf.detach().to(own.device, copy=True)))
        for name, leaf in (statistics or {}).items():
            self.model.get_buffer(name).copy_(leaf.detach())

    def forward(self, x: Any) -> Tensor:
        """Return the prediction for ``x``, a tensor or a tree of them, on the device of the model."""
        statistics = None if self.transductive else module.running_statistics(self.model)
        return module.call(self.model, {}, self.placed(x), statistics)

    def placed(self, x: Any) -> Any:
        """Return inputs on the device of the model."""
        return placed(x, next(self.model.parameters()).device)


def adapt(learner: Learner, support: Batch, statistics: Statistics | None, ways: int | None) -> Adapted:
    """Learn one task; arguments as of :meth:`rbml.Learner.adapt`."""
    if statistics is None:
        statistics = "running" if learner.statistics == "running" else "inductive"
    support = placed(support, learner.device)
    y = support.y
    if ways is None and learner.ways is not None and isinstance(y, Tensor) and y.numel() and y.dtype == torch.int64:
        ways = max(learner.ways, int(y.max()) + 1)
    predict = learner.predict(ways)
    check_batch(support, ways, learner.dtype, predict)
    key = torch.zeros((), dtype=torch.int64, device=y.device)
    bound = learner.bind(Episode(support, support), statistics, ways, key=key)
    with explained(predict, learner.loss, (support,)), torch.no_grad():
        layer = frozen_body(bound, None, learner.tried)
        body = None if layer is None else FrozenBody(bound, layer)
        works = bound if body is None else body.on(body.features({}))
        carry = roll(works.inner(), works.start({}), {})
        whole = bound.whole(carry.theta, {}, learner.steps)
        used = bound.fitted_statistics(whole)
    return Adapted(learner.model, whole, used)
