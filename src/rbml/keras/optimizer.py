"""Gradient descent in plain Keras with the numbers that a learner has learned; runs on every backend."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import keras
import numpy as np

from rbml.errors import UsageError

PerVariable = Mapping[str, Any]
"""By the path of a variable, a number or an array of its shape."""
PerStep = PerVariable | Sequence[PerVariable]
"""The same for all steps, or one for each step; later steps use the last."""


@keras.saving.register_keras_serializable(package="rbml")
class PerVariableSGD(keras.optimizers.Optimizer):  # type: ignore[misc]  # Keras has no types
    r"""Gradient descent with a learning rate (and a momentum and weight decay) for each variable.

    .. math:: d = g + \mathrm{decay}\, \theta, \qquad b \leftarrow \mathrm{momentum} \cdot b + d, \qquad
              \theta \leftarrow \theta - \mathrm{learning\_rate} \cdot \mathrm{rate}\, b

    It takes the steps of ``chain(weight_decay(...), momentum(...), sgd(...))``. Layers without rates
    must not be trainable.

    >>> PerVariableSGD(rates(learner))  # doctest: +SKIP
    >>> PerVariableSGD([rates(learner, step) for step in range(5)])  # doctest: +SKIP

    Args:
        rates: learning rates by variable path, as :func:`rbml.keras.rates` returns them, or a list of one per step.
        momentum: one number, or by path.
        decay: the weight decay, one number, or by path.
        learning_rate: a factor of all rates.
        name: the name of the optimizer.
        **kwargs: those of ``keras.optimizers.Optimizer``.

    Raises:
        UsageError: if there are no rates.
    """

    def __init__(
        self,
        rates: PerStep,
        momentum: float | PerVariable = 0.0,
        decay: float | PerVariable = 0.0,
        learning_rate: Any = 1.0,
        name: str = "per_variable_sgd",
        **kwargs: Any,
    ) -> None:
        """Keep the numbers as arrays."""
        super().__init__(learning_rate=learning_rate, name=name, **kwargs)
        steps = [rates] if isinstance(rates, Mapping) else list(rates)
        if not steps or not steps[0]:
            raise UsageError("PerVariableSGD is given a rate for each variable, by its path, and there is none")
        self.rates = {path: np.stack([np.asarray(step[path]) for step in steps]) for path in steps[0]}
        self.momentum, self.decay = _by_path(momentum, self.rates), _by_path(decay, self.rates)

    def build(self, variables: Any) -> None:
        """Make the running sums.

        Raises:
            UsageError: if a variable has no rate.
        """
        if self.built:
            return
        if missing := [variable.path for variable in variables if variable.path not in self.rates]:
            raise UsageError(
                f"there is no rate for {', '.join(missing)} (there is one for {', '.join(self.rates)}): set "
                "trainable=False on the layers that are not adapted"
            )
        super().build(variables)
        self.sums = self.add_optimizer_variables(variables, "sum")

    def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
        """Change one variable."""
        ops, path, dtype = keras.ops, variable.path, variable.dtype
        rates = ops.convert_to_tensor(self.rates[path], dtype=dtype)
        row = ops.minimum(ops.cast(self.iterations, "int32"), len(self.rates[path]) - 1)
        rate = ops.take(rates, row, axis=0) * ops.cast(learning_rate, dtype)
        decay, momentum = (ops.convert_to_tensor(one[path], dtype=dtype) for one in (self.decay, self.momentum))
        running = self.sums[self._get_variable_index(variable)]
        self.assign(running, momentum * running + ops.cast(gradient, dtype) + decay * variable)
        self.assign_sub(variable, rate * running)

    def get_config(self) -> dict[str, Any]:
        """Return what makes this optimizer again."""
        steps = len(next(iter(self.rates.values())))
        own = {
            "rates": [{path: value[t].tolist() for path, value in self.rates.items()} for t in range(steps)],
            "momentum": {path: value.tolist() for path, value in self.momentum.items()},
            "decay": {path: value.tolist() for path, value in self.decay.items()},
        }
        return {**super().get_config(), **own}


def _by_path(given: float | PerVariable, paths: Mapping[str, Any]) -> dict[str, np.ndarray[Any, Any]]:
    return {path: np.asarray(given[path] if isinstance(given, Mapping) else given) for path in paths}
