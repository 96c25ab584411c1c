"""The arithmetic of a strategy in TensorFlow: the numbers of :class:`rbml.strategy.Hyper`, and the rules that use them.

What a strategy *is* (its parts, their numbers, what of them is learned, how finely they vary, where they start) is said
once, in :mod:`rbml.strategy`. Here is only how TensorFlow computes a step with it; the tests compare both in float64.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import tensorflow as tf

from rbml.errors import UsageError
from rbml.strategy import Hyper, Rule, Strategy
from rbml.tree import prefixed, under

Tensors = dict[str, Any]
"""A flat, named tree as in :mod:`rbml.tree`, of TensorFlow tensors."""

Values = Mapping[str, Tensors]
"""The numbers of one rule at one step: for each of them a tensor per parameter, broadcastable to it."""


def valid(number: Hyper, raw: Any) -> Any:
    """Map the unbounded numbers that are kept to the values that a rule sees, as :meth:`rbml.strategy.Hyper.valid`."""
    low, high = number.bounds
    if low is not None and high is not None:
        return low + (high - low) * tf.sigmoid(raw)
    if low is not None:
        return low + tf.exp(raw)
    return raw if high is None else high - tf.exp(raw)


def at(number: Hyper, leaves: Tensors, parameters: Tensors, t: Any) -> Tensors:
    """Return the value of every parameter at step ``t``, as :meth:`rbml.strategy.Hyper.at`.

    Args:
        number: the number.
        leaves: what is kept of it, named ``""``, ``"/dense.*"`` or ``"/dense.kernel"``.
        parameters: the adapted parameters.
        t: the step, an integer or an integer tensor ``()``.
    """
    values = {}
    for parameter in parameters:
        raw = leaves[number.leaf(parameter)]
        # Steps beyond the last use the numbers of the last one.
        raw = tf.gather(raw, tf.minimum(t, tf.shape(raw)[0] - 1)) if number.per_step else raw
        values[parameter] = valid(number, raw)
    return values


def _sgd(
    settings: Mapping[str, Any], direction: Tensors, state: Tensors, theta: Tensors, values: Values, t: Any
) -> tuple[Tensors, Tensors]:
    return {name: values["lr"][name] * d for name, d in direction.items()}, state


def _momentum(
    settings: Mapping[str, Any], direction: Tensors, state: Tensors, theta: Tensors, values: Values, t: Any
) -> tuple[Tensors, Tensors]:
    decay, buffer, ahead = values["decay"], {}, {}
    for name, d in direction.items():
        inflow = d
        if "dampening" in values:  # the first step is not dampened
            inflow = tf.where(tf.equal(t, 0), d, (1 - values["dampening"][name]) * d)
        buffer[name] = decay[name] * state[name] + inflow
        ahead[name] = d + decay[name] * buffer[name] if settings["nesterov"] else buffer[name]
    return ahead, buffer


def _weight_decay(
    settings: Mapping[str, Any], direction: Tensors, state: Tensors, theta: Tensors, values: Values, t: Any
) -> tuple[Tensors, Tensors]:
    return {name: d + values["rate"][name] * theta[name] for name, d in direction.items()}, state


RULES: dict[str, Callable[..., tuple[Tensors, Tensors]]] = {
    "sgd": _sgd,
    "momentum": _momentum,
    "weight_decay": _weight_decay,
}
"""By the function of :data:`rbml.strategy.ALL` that makes the rule:
``(settings, direction, state, theta, values, t) -> (direction, state)``."""


def check_rules(strategy: Strategy) -> None:
    """Refuse a strategy with a part that has no function here.

    Raises:
        UsageError: naming the part.
    """
    for part in strategy.parts:
        if part.origin is None or part.origin.by not in RULES:
            made_by = part.origin.by if part.origin else part.name
            raise UsageError(
                f"MetaModel cannot compute {made_by!r} in TensorFlow; it has {', '.join(RULES)}. All of rbml.strategy "
                "works for Keras models on the PyTorch backend: set KERAS_BACKEND=torch and use "
                "Learner(rbml.keras.from_keras(model), ...)"
            )


def start(strategy: Strategy, theta: Tensors) -> Tensors:
    """Return the state before the first step: one sum per adapted parameter for every momentum."""
    state: Tensors = {}
    for rule in strategy.rules:
        if _maker(rule) == "momentum":
            state |= {f"{rule.name}/{name}": tf.zeros_like(leaf) for name, leaf in theta.items()}
    return state


def update(
    strategy: Strategy, grads: Tensors, state: Tensors, theta: Tensors, phi: Tensors, t: Any
) -> tuple[Tensors, Tensors]:
    """Pass the gradient through all rules and return the next theta and the next state.

    Args:
        strategy: the strategy.
        grads: the gradient, named as theta.
        state: as :func:`start` returns it.
        theta: the adapted parameters.
        phi: the leaves of phi, learned and fixed, named ``sgd.lr/dense.kernel``.
        t: the step.
    """
    direction, after = grads, dict[str, Any]()
    for rule in strategy.rules:
        own = under(state, f"{rule.name}/")
        values = {name: _of(phi, f"{rule.name}.{name}", number, theta, t) for name, number in rule.hypers.items()}
        assert rule.origin is not None  # by `check_rules`
        direction, own = RULES[_maker(rule)](rule.origin.settings, direction, own, theta, values, t)
        after |= prefixed(own, f"{rule.name}/")
    return {name: leaf - direction[name] for name, leaf in theta.items()}, after


def _of(phi: Tensors, whole: str, number: Any, theta: Tensors, t: Any) -> Tensors:
    leaves = {name[len(whole) :]: leaf for name, leaf in phi.items() if name == whole or name.startswith(f"{whole}/")}
    return at(number, leaves, theta, t)


def _maker(rule: Rule) -> str:
    assert rule.origin is not None
    return rule.origin.by
