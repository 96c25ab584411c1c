"""Which parameters are adapted, which are the head, and how the model is prepared for that."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import nn

from rbml.autodiff import layers
from rbml.autodiff import module as modules
from rbml.errors import UsageError
from rbml.learner.binding import head_layer
from rbml.learner.options import Initial
from rbml.tree import matching


class Resolved(NamedTuple):
    """The patterns of an :class:`Initial`, resolved to the parameter names of one model.

    Attributes:
        adapted: the parameters that a task adapts.
        head: the parameters that have one row per class; empty if the model has no head.
        ways: for how many classes the head is; ``None`` if there is no head.
        stepwise: the parameters that have one value per step.
    """

    adapted: list[str]
    head: list[str]
    ways: int | None
    stepwise: list[str]


def prepare(model: nn.Module, initial: Initial, steps: int, made: bool) -> Resolved:
    """Resolve patterns to names, and change the shapes of the model's parameters as the options ask, in place.

    Args:
        model: an isolated copy (:mod:`rbml.autodiff.module`).
        initial: the options.
        steps: T.
        made: whether the head is made from the support set, so that the model's own is not learned.

    Raises:
        UsageError: if a pattern matches no parameter, or there is no head where one is needed.
    """
    trained = [name for name, parameter in model.named_parameters() if parameter.requires_grad]
    rows = {name: _rows(model, name) for name in head_names(model, initial.head.pattern) if name in trained}
    head = list(rows) if len(set(rows.values())) == 1 else []
    ways = rows[head[0]] if head else None
    if initial.head.shared:
        _share_rows(model, head, initial.head.pattern)
    stepwise = _stepwise(model, trained, initial.stepwise)
    adapted = [name for name in _adapted(model, trained, head, initial.adapt) if name not in stepwise]
    if made:
        leave_head_to_support(model, head, adapted, initial.adapt)
    for name in _named(model, adapted, initial.reset, "reset") if initial.reset else []:
        model.get_parameter(name).requires_grad_(False)
    for name in stepwise:
        leaf = model.get_parameter(name).detach()
        modules.put(model, name, nn.Parameter(torch.stack([leaf] * (steps + 1))))
    return Resolved(adapted, head, ways, stepwise)


def head_names(model: nn.Module, pattern: str | None = None) -> list[str]:
    """Return the names of the head's parameters: what the pattern matches, a layer ``head``, or the last linear layer.

    >>> head_names(nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2)))
    ['2.weight', '2.bias']
    """
    names = [name for name, _ in model.named_parameters()]
    if pattern is None:
        return _matching_tied(model, names, "head.*") or layers.head_parameters(model)
    return _matching_tied(model, names, pattern) if pattern else []


def head_layer_name(model: nn.Module, pattern: str | None = None) -> str:
    """Return the name of the layer that the head's parameters belong to; empty if there is no head."""
    names = head_names(model, pattern)
    return names[0].rpartition(".")[0] if names else ""


def _matching_tied(model: nn.Module, names: list[str], pattern: str) -> list[str]:
    """Return the parameters that a pattern matches by any of their names, in the order of ``names``."""
    other_names = {name: group[0] for group in layers.tied(model) for name in group[1:]}
    found = {other_names.get(name, name) for name in matching([*names, *other_names], pattern)}
    return [name for name in names if name in found]


def _named(model: nn.Module, names: list[str], pattern: str, option: str) -> list[str]:
    if found := _matching_tied(model, names, pattern):
        return found
    raise UsageError(f"{option}={pattern!r} matches no parameter of the model; it has {', '.join(names) or 'none'}")


def _adapted(model: nn.Module, trained: list[str], head: list[str], pattern: str) -> list[str]:
    if pattern not in ("head", "body"):
        return _named(model, trained, pattern, "adapt")
    if not head:
        raise UsageError(f"adapt={pattern!r} needs a head, and the model has none by head=: name its parameters there")
    found = head if pattern == "head" else [name for name in trained if name not in head]
    if not found:
        raise UsageError(f"adapt={pattern!r}: the model has no trainable parameter except its head, {', '.join(head)}")
    return found


def _stepwise(model: nn.Module, trained: list[str], pattern: str) -> list[str]:
    if pattern != "norms":
        return _named(model, trained, pattern, "stepwise") if pattern else []
    found = set(layers.norm_parameters(model))
    norms = [name for name in trained if name in found]
    if not norms:
        raise UsageError("stepwise='norms' finds no normalisation layer with a gain or shift: leave stepwise out")
    return norms


def _rows(model: nn.Module, name: str) -> int:
    shape = model.get_parameter(name).shape
    return int(shape[0]) if shape else 0


def _share_rows(model: nn.Module, head: list[str], pattern: str | None) -> None:
    """Replace the head's rows by their mean: the one row from which every class starts."""
    if not head:
        raise UsageError(f"shared_head needs a head, and head={pattern!r} matches no parameters with a row per class")
    for name in head:
        rows = model.get_parameter(name).detach()
        modules.put(model, name, nn.Parameter(rows.mean(0, keepdim=True)))


def leave_head_to_support(model: nn.Module, head: list[str], adapted: list[str], adapt: str) -> None:
    """Stop learning the model's own head: each task makes its head from the support set, so this one is not used."""
    head_layer(model, head)
    if not set(head) <= set(adapted):
        raise UsageError(f"the head is made from the support set: adapt={adapt!r} must match {head[0]} too")
    for name in head:
        model.get_parameter(name).requires_grad_(False)
