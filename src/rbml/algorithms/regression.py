"""Algorithms for real values whose head is a regression in closed form on features that are learned across tasks."""

from __future__ import annotations

import copy
from typing import Any

from torch import nn

from rbml.algorithms.options import assemble
from rbml.data.targets import REAL
from rbml.errors import UsageError
from rbml.learner import Learner
from rbml.learner.initial import head_layer_name
from rbml.models import BayesianLinear
from rbml.strategy import Scalar, bayesian_linear, chain, ridge, sgd


def ridge_regression(
    model: nn.Module,
    strength: float | Scalar = Scalar(1.0, bounds=(0, None)),  # noqa: B008  frozen
    steps: int = 0,
    **options: Any,
) -> Learner:
    """Learn features, and how strongly to regularise, for a ridge regression in closed form to real values.

    The head of Bertinetto, Henriques, Torr, Vedaldi 2019 (R2-D2, arXiv:1805.08136) on real targets: centred, with an
    intercept that is not shrunk. The targets may be in any units.

    Args:
        model: the model, with an output per target; its own head is not used.
        strength: of the ridge.
        steps: gradient steps on the head after it is made.
        **options: any other of :func:`rbml.algorithms.options.assemble`; the loss is the mean squared error.
    """
    chosen: dict[str, Any] = {"adapt": "head", "loss": REAL.loss} | options
    return assemble(model, chain(ridge(strength), sgd(0.1)), steps, **chosen)


def alpaca(
    model: nn.Module,
    noise: float = 0.2,
    precision: float = 0.04,
    offset: float = 0.0,
    steps: int = 0,
    **options: Any,
) -> Learner:
    """Learn features and a prior, for a Bayesian linear regression to real values that says how sure it is.

    ALPaCA (Harrison, Sharma, Pavone 2018, arXiv:1807.08912): see :func:`rbml.strategy.bayesian_linear`. The model
    returns ``(n, 2d)``: means, and logarithms of variances. Sources of tables scale their targets
    (:func:`rbml.data.targets.real`) to a mean of zero and a deviation of one, which is where the defaults begin: a
    prior as wide as that, and a fifth of it as noise. With targets of your own that lie elsewhere, say so in ``noise``
    and ``offset``, or the prior takes long to get there.

    Args:
        model: the model, with an output per target; its head, an ``nn.Linear``, is replaced by a
            :class:`rbml.models.BayesianLinear`.
        noise: the standard deviation of the targets at the start, in the units that are learned.
        precision: of the prior of a weight at the start, in units of the noise: its deviation is
            ``noise / sqrt(precision)``.
        offset: where targets lie at the start.
        steps: gradient steps on the head after it was made.
        **options: any other of :func:`rbml.algorithms.options.assemble`; the loss is the negative log likelihood.

    Raises:
        UsageError: if the head is not an ``nn.Linear``, or is the whole model.
    """
    bayesian, layer = _with_bayesian_head(model, options.pop("head", None))
    chosen: dict[str, Any] = {"adapt": "head", "head": f"{layer}.rows.*", "loss": REAL.loss} | options
    return assemble(bayesian, chain(bayesian_linear(noise, precision, offset), sgd(0.1)), steps, **chosen)


def _with_bayesian_head(model: nn.Module, pattern: str | None) -> tuple[nn.Module, str]:
    """Return a copy of the model whose head is Bayesian, and the name of that layer."""
    name = head_layer_name(model, pattern)
    if name.endswith(".rows") and isinstance(model.get_submodule(name[: -len(".rows")]), BayesianLinear):
        return model, name[: -len(".rows")]
    head = model.get_submodule(name)
    if not name or not isinstance(head, nn.Linear):
        raise UsageError(f"alpaca replaces the head, an nn.Linear inside the model, but found {type(head).__name__}")
    copied = copy.deepcopy(model)
    above, _, own = name.rpartition(".")
    layer = BayesianLinear(head.in_features, head.out_features).to(head.weight)
    setattr(copied.get_submodule(above), own, layer)
    return copied, name
