"""Which parameters are adapted, which are the head, and how the model is prepared for it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import nn

from rbml.autodiff import module as modules
from rbml.errors import UsageError
from rbml.learner.binding import head_layer
from rbml.learner.options import Initial
from rbml.tree import matching


@dataclass(frozen=True)
class Resolved:
    """An :class:`Initial` as names of one model's parameters.

    Attributes:
        adapted: what a task adapts.
        head: what has one row per class; empty where the model has no head.
        ways: for how many classes the head is; ``None`` without one.
        stepwise: what has a value for every step.
    """

    adapted: list[str]
    head: list[str]
    ways: int | None
    stepwise: list[str]


def prepare(model: nn.Module, initial: Initial, steps: int, made: bool) -> Resolved:
    """Resolve patterns to names, and give the model's parameters the shapes that the options ask for, in place.

    Args:
        model: an isolated copy (:mod:`rbml.autodiff.module`).
        initial: what is asked for.
        steps: T.
        made: whether the head is made from the support set, so that the model's own is not learned.

    Raises:
        UsageError: if a pattern matches no parameter, or there is no head where one is needed.
    """
    trained = [name for name, parameter in model.named_parameters() if parameter.requires_grad]
    pattern = head_pattern(model) if initial.head.pattern is None else initial.head.pattern
    rows = {name: _rows(model, name) for name in (_matching_tied(model, trained, pattern) if pattern else [])}
    head = list(rows) if len(set(rows.values())) == 1 else []
    ways = rows[head[0]] if head else None
    if initial.head.shared:
        _share_rows(model, head, pattern)
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


def head_pattern(model: nn.Module) -> str:
    """Return the pattern of the head's parameters: those of a layer ``head``, or else of the last linear layer.

    >>> head_pattern(nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2)))
    '2.*'
    """
    if any(name.startswith("head.") for name, _ in model.named_parameters()):
        return "head.*"
    linear = [name for name, layer in model.named_modules() if isinstance(layer, nn.Linear)]
    return f"{linear[-1]}.*" if linear and linear[-1] else "*" if linear else ""


def aliases(model: nn.Module) -> dict[str, str]:
    """Return, for every name of a parameter, the first name of the same parameter: tied layers share one."""
    first: dict[int, str] = {}
    return {name: first.setdefault(id(p), name) for name, p in model.named_parameters(remove_duplicate=False)}


def _matching_tied(model: nn.Module, names: list[str], pattern: str) -> list[str]:
    """Return the parameters that a pattern matches by any of their names, in the order of ``names``."""
    known = aliases(model)
    found = {known[name] for name in matching(known, pattern)}
    return [name for name in names if name in found]


def _named(model: nn.Module, names: list[str], pattern: str, option: str) -> list[str]:
    if found := _matching_tied(model, names, pattern):
        return found
    raise UsageError(f"{option}={pattern!r} matches no parameter of the model; it has {', '.join(names) or 'none'}")


def _adapted(model: nn.Module, trained: list[str], head: list[str], pattern: str) -> list[str]:
    if pattern not in ("head", "body"):
        return _named(model, trained, pattern, "adapt")
    if not head:
        raise UsageError(f"adapt={pattern!r} needs a head, and the model has no linear layer: name one with head=")
    found = head if pattern == "head" else [name for name in trained if name not in head]
    if not found:
        raise UsageError(f"adapt={pattern!r}: the model has no trained parameter but its head, {', '.join(head)}")
    return found


def _stepwise(model: nn.Module, trained: list[str], pattern: str) -> list[str]:
    if pattern != "norms":
        return _named(model, trained, pattern, "stepwise") if pattern else []
    found = set(norm_parameters(model))
    norms = [name for name in trained if name in found]
    if not norms:
        raise UsageError("stepwise='norms' finds no normalisation layer with a gain or shift: leave it out")
    return norms


def norm_parameters(model: nn.Module) -> Iterator[str]:
    """Yield the names of gains and shifts of normalisation layers, which are known by their type."""
    for name, layer in model.named_modules():
        if "norm" in type(layer).__name__.lower():
            yield from (f"{name}.{own}".lstrip(".") for own, _ in layer.named_parameters(recurse=False))


def head_layer_name(model: nn.Module, pattern: str | None = None) -> str:
    """Return the name of the layer that the head's parameters belong to; empty where there is none."""
    names = matching([name for name, _ in model.named_parameters()], pattern or head_pattern(model) or "!*")
    return names[0].rpartition(".")[0] if names else ""


def _rows(model: nn.Module, name: str) -> int:
    shape = model.get_parameter(name).shape
    return int(shape[0]) if shape else 0


def _share_rows(model: nn.Module, head: list[str], pattern: str) -> None:
    """Replace the head's rows by their mean: the one row from which every class starts."""
    if not head:
        raise UsageError(f"shared_head needs a head, and head={pattern!r} matches no parameter of the model")
    for name in head:
        rows = model.get_parameter(name).detach()
        modules.put(model, name, nn.Parameter(rows.mean(0, keepdim=True)))


def leave_head_to_support(model: nn.Module, head: list[str], adapted: list[str], adapt: str) -> None:
    """Leave the head to the support set: what the model has there is not used, and so not learned."""
    head_layer(model, head)
    if not set(head) <= set(adapted):
        raise UsageError(f"the head is made from the support set: adapt={adapt!r} must match {head[0]} too")
    for name in head:
        model.get_parameter(name).requires_grad_(False)
