"""The model that a learner becomes on one task."""

from __future__ import annotations

import copy
from typing import Any

from torch import Tensor, nn

from rbml.autodiff import module
from rbml.tree import Tree


class Adapted(nn.Module):
    """A model that has learned one task: call it on queries ``(n, ...)``. It is a plain module of its own."""

    def __init__(self, model: nn.Module, parameters: Tree, statistics: Tree | None) -> None:
        """Copy the model, with the adapted parameters and the statistics that batch norm shall use."""
        super().__init__()
        self.model = copy.deepcopy(model)
        self.transductive = statistics is None
        for name, leaf in parameters.items():
            own = self.model.get_parameter(name)
            if own.shape == leaf.shape:
                own.data.copy_(leaf)  # in place: a tied parameter stays tied
            else:
                module.put(self.model, name, nn.Parameter(leaf.detach().clone()))
        for name, leaf in (statistics or {}).items():
            self.model.get_buffer(name).copy_(leaf.detach())

    def forward(self, x: Any) -> Tensor:
        """Return the prediction for ``x``, a tensor or a tree of them."""
        statistics = None if self.transductive else module.running_statistics(self.model)
        return module.call(self.model, {}, x, statistics)
