"""A learnable number of a strategy: its start, how finely it varies, and the map that keeps it within its bounds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor

from rbml.errors import UsageError, unknown
from rbml.tree import Step, Tree, row

Per = Literal["all", "layer", "tensor", "element"]
Bounds = tuple[float | None, float | None]


@dataclass(frozen=True)
class Hyper:
    r"""One named number of a rule, and what of it is learned.

    The learner keeps an unbounded parameter ``raw``; the rule sees ``value``:

    =================  =================================================
    bounds             value
    =================  =================================================
    ``(None, None)``   :math:`raw` (the default)
    ``(a, None)``      :math:`a + \exp(raw)`, always above a
    ``(None, b)``      :math:`b - \exp(raw)`, always below b
    ``(a, b)``         :math:`a + (b - a)\,\mathrm{sigmoid}(raw)`
    =================  =================================================

    Args:
        value: the start, or a pair (low, high) from which every entry is drawn uniformly.
        per: one value for ``"all"`` parameters, or one per ``"layer"`` (the module that owns the parameter), per
            ``"tensor"``, or per ``"element"``.
        per_step: whether each inner step has values of its own; steps beyond the last use the last.
        bounds: the open interval in which the value stays; ``None`` means no bound on that side.
        learn: whether it is a meta-parameter, or stays at its start.

    Raises:
        UsageError: if the start is not inside the bounds, or a name is unknown.

    >>> Hyper(0.1, per="layer", bounds=(0, None)).per
    'layer'
    """

    value: float | tuple[float, float]
    per: Per = "all"
    per_step: bool = False
    bounds: Bounds = (None, None)
    learn: bool = True

    def __post_init__(self) -> None:
        """Refuse wrong values at once, not only when they are learned."""
        if self.per not in get_args(Per):
            raise unknown("granularity", str(self.per), get_args(Per))
        low, high = self.range
        if low > high:
            raise UsageError(f"a range to draw from needs low <= high, not {self.value}")
        floor, ceiling = self.bounds
        if (floor is not None and low <= floor) or (ceiling is not None and high >= ceiling):
            raise UsageError(f"the start {self.value} must lie strictly inside the bounds {self.bounds}")

    @property
    def range(self) -> tuple[float, float]:
        """The lowest and the highest start."""
        return self.value if isinstance(self.value, tuple) else (self.value, self.value)

    def leaf(self, parameter: str) -> str:
        """Return the name of the leaf for ``parameter``: ``""``, ``"/conv.0.*"`` or ``"/conv.0.weight"``."""
        if self.per == "all":
            return ""
        if self.per == "layer":
            owner = parameter.rpartition(".")[0]
            return f"/{owner}.*" if owner else "/*"
        return f"/{parameter}"

    def initial(self, theta: Tree, steps: int, generator: torch.Generator | None) -> Tree:
        """Return the raw leaves for parameters like ``theta``: names as in :meth:`leaf`.

        Shapes: ``()`` or, per element, the parameter's; with ``per_step`` a leading T.
        """
        low, high = self.range
        leaves: Tree = {}
        for parameter, tensor in theta.items():
            name = self.leaf(parameter)
            if name in leaves:
                continue
            shape = tensor.shape if self.per == "element" else torch.Size()
            shape = torch.Size((max(steps, 1), *shape)) if self.per_step else shape
            # 0.999 in bfloat16 is 1.0.
            dtype = torch.promote_types(tensor.dtype, torch.float32)
            start = torch.full(shape, low, dtype=dtype)
            if high > low:
                start = start + (high - low) * torch.rand(shape, dtype=dtype, generator=generator)
            leaves[name] = self.raw(start).to(tensor.device)
        return leaves

    def raw(self, value: Tensor) -> Tensor:
        """Map a value inside the bounds to the unbounded parameter."""
        low, high = self.bounds
        if low is not None and high is not None:
            return torch.logit((value - low) / (high - low))
        if low is not None:
            return torch.log(value - low)
        return value if high is None else torch.log(high - value)

    def valid(self, raw: Tensor) -> Tensor:
        """Map the unbounded parameter to the value: the inverse of :meth:`raw`."""
        low, high = self.bounds
        if low is not None and high is not None:
            return low + (high - low) * torch.sigmoid(raw)
        if low is not None:
            return low + torch.exp(raw)
        return raw if high is None else high - torch.exp(raw)

    def at(self, leaves: Tree, parameters: Mapping[str, Tensor], t: Step) -> Tree:
        """Return the value of every parameter at step ``t``, each broadcastable to it.

        A head that was started for another number of classes repeats its rows, and so do their values here.
        """
        values: Tree = {}
        seen: Tree = {}
        for parameter, tensor in parameters.items():
            name = self.leaf(parameter)
            if name not in seen:
                raw = leaves[name]
                seen[name] = self.valid(row(raw, t) if self.per_step else raw)
            value = seen[name]
            fits = value.dim() == 0 or value.shape[0] == tensor.shape[0]
            values[parameter] = value if fits else value[torch.arange(len(tensor), device=value.device) % len(value)]
        return values


@dataclass(frozen=True)
class Scalar:
    """One number of a part that does not belong to a parameter of theta, such as a smoothing or the strength of a head.

    Args:
        value: the start.
        per_step: whether each inner step has its own.
        bounds: as in :class:`Hyper`.
        learn: whether it is a meta-parameter, or stays at its start.

    Raises:
        UsageError: if the start is not inside the bounds.
    """

    value: float
    per_step: bool = False
    bounds: Bounds = (None, None)
    learn: bool = True

    def __post_init__(self) -> None:
        """Refuse wrong values at once, not only when they are learned."""
        self._hyper()

    def initial(self, theta: Tree, steps: int, generator: torch.Generator | None) -> Tree:
        """Return the raw leaf, named ``""``: of shape ``()`` or, per step, ``(T,)``."""
        like = next(iter(theta.values()))
        return self._hyper().initial({"": like}, steps, generator)

    def at(self, leaves: Tree, theta: Mapping[str, Tensor], t: Step) -> Tree:
        """Return the value at step ``t``, named ``""``: a part reads it as ``values["strength"][""]``."""
        return self._hyper().at(leaves, {"": leaves[""]}, t)

    def _hyper(self) -> Hyper:
        return Hyper(self.value, "all", self.per_step, self.bounds, self.learn)


def as_scalar(value: float | Scalar) -> Scalar:
    """Return ``value`` as a Scalar: a plain number is fixed, a Scalar is returned unchanged."""
    return value if isinstance(value, Scalar) else Scalar(float(value), learn=False)


def as_hyper(value: float | Hyper) -> Hyper:
    """Return ``value`` as a Hyper: a plain number is fixed, a Hyper is returned unchanged."""
    return value if isinstance(value, Hyper) else Hyper(float(value), learn=False)
