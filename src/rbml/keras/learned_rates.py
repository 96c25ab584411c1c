"""What a learner has learned about the variables of a Keras model, by their Keras paths."""

from __future__ import annotations

from typing import Any

import numpy as np

from rbml.errors import UsageError, unknown
from rbml.keras.convert import KerasModule
from rbml.learner import Learner
from rbml.tree import pick


def rates(learner: Learner, step: int = 0, of: str = "sgd.lr") -> dict[str, np.ndarray[Any, Any]]:
    """Return the learning rate of each variable that a task adapts, by its path in the Keras model.

    Args:
        learner: a learner whose model is from :func:`rbml.keras.from_keras`.
        step: the inner step, for rates of which every step has its own.
        of: another number of the strategy, such as ``"momentum.decay"``.

    Returns:
        By path, one number ``()``, or one per element in the shape of the Keras variable.

    Raises:
        UsageError: if the model is not from Keras, or the strategy has no such number.
    """  # noqa: DOC501  `unknown` returns the UsageError
    module = learner.model
    if not isinstance(module, KerasModule):
        raise UsageError(f"rates is given a learner of a model from from_keras, not of a {type(module).__name__}")
    numbers = {f"{part.name}.{name}": part for part in learner.strategy.parts for name in part.hypers}
    if of not in numbers:
        raise unknown("number of the strategy", of, numbers)
    phi = dict(learner.phi.named_parameters()) | dict(learner.phi.named_buffers())
    theta = pick(dict(module.named_parameters()), learner.adapted)
    found = learner.strategy.values(numbers[of], phi, theta, step)[of.rpartition(".")[2]]
    leaves = module.leaves()
    return {
        leaves[name].path: (leaves[name].to_keras(value) if value.dim() else value).detach().cpu().numpy()
        for name, value in found.items()
        if name in leaves
    }
