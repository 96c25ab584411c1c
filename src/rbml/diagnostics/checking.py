"""Check a learner's hypergradient against every exact engine and against central differences."""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any, Literal

import torch
from torch import Tensor

from rbml.devices import CPU
from rbml.errors import BlindError, RbmlError, UsageError
from rbml.hypergrad import Adjoint, Hypergradient, Unrolled, directional_difference
from rbml.learner import Learner, Phase
from rbml.tasks import generator
from rbml.tasks.base import count, moved, part
from rbml.tree import Tree, norm

Kind = Literal["agrees", "approximate", "differs", "no effect", "blind", "not smooth", "not differentiable"]

GOOD: tuple[Kind, ...] = ("agrees", "no effect", "not smooth")
MEANING: dict[Kind, str] = {
    "agrees": "all exact engines and central differences agree",
    "approximate": "the learner's engine is an approximation, this far from the exact derivative",
    "differs": "the engines disagree, or central differences disagree with them: do not trust it",
    "no effect": "the derivative is zero, up to rounding of the whole gradient: the loss does not depend on it",
    "blind": "the learner's engine cannot compute this derivative",
    "not smooth": "the exact engines agree; central differences do not converge, as with ReLU, so they prove nothing",
    "not differentiable": "no derivative could be computed",
}
_STEPS = (1e-4, 1e-5, 1e-3, 1e-6)
"""The steps of central differences: the best one first; the others are tried if it does not agree."""
_ZERO, _SMALL = 1e-12, 1e-7
"""Relative to the norm of the whole gradient: what counts as rounding, and the least scale for one parameter."""
_EXACT: dict[str, Hypergradient] = {
    "Adjoint(keep=1)": Adjoint(keep=1),
    "Adjoint(keep=0)": Adjoint(keep=0),
    "Adjoint(hvp='reverse')": Adjoint(hvp="reverse", keep=0),
    "Adjoint(store='segments')": Adjoint(store="segments"),
}


@dataclass(frozen=True)
class Finding:
    """The result for one parameter of the learner.

    Distances are relative to the parameter's derivative, or to 1e-7 of the whole gradient if that is larger.

    Attributes:
        parameter: its name.
        numbers: how many numbers it has.
        verdict: see :data:`MEANING`.
        engine: distance of the learner's engine from ``Unrolled``; NaN if there is no derivative.
        difference: distance of the derivative along a random direction from the best central difference.
    """

    parameter: str
    numbers: int
    verdict: Kind
    engine: float
    difference: float


@dataclass(frozen=True)
class Verdict:
    """The result for a learner.

    Attributes:
        findings: one per parameter.
        engines: for every other exact engine, its largest relative distance from ``Unrolled``, or why it has none.
        own: the learner's engine.
    """

    findings: list[Finding]
    engines: dict[str, float | str]
    own: str

    @property
    def passed(self) -> bool:
        """Whether every derivative can be trusted as exact."""
        return all(finding.verdict in GOOD for finding in self.findings)

    def __str__(self) -> str:
        """Return a readable table."""
        width = max(len(finding.parameter) for finding in self.findings)
        lines = [f"{'parameter':{width}}  {'numbers':>8}  {'engine':>8}  {'difference':>10}  verdict"]
        for finding in self.findings:
            errors = f"{short(finding.engine):>8}  {short(finding.difference):>10}"
            lines.append(f"{finding.parameter:{width}}  {finding.numbers:8}  {errors}  {finding.verdict}")
        kinds = sorted({finding.verdict for finding in self.findings})
        lines += [f"{kind}: {MEANING[kind]}" for kind in kinds]
        others = (f"{name}: {short(far) if isinstance(far, float) else far}" for name, far in self.engines.items())
        return "\n".join([*lines, f"engine: {self.own}, against Unrolled()", *others])


def check(learner: Learner, episodes: Any, tasks: int = 2, tolerance: float = 1e-6) -> Verdict:
    """Check a hypergradient against exact engines and finite differences, per parameter, in float64.

    The learner's own engine is compared with ``Unrolled``, the reference, which is itself compared with the other exact
    engines and, along one random direction per parameter, with central differences. Costs about one meta-gradient
    per engine and, per parameter, four inner loops, or sixteen where the first difference does not agree.

    Args:
        learner: the learner; it is copied. It is checked on its own device, or on the processor where that is mps,
            which has no float64.
        episodes: tasks of any kind, like those of its training.
        tasks: how many of them are used.
        tolerance: the relative distance that still counts as equal; for central differences 100 times as much.

    Raises:
        UsageError: if the learner has nothing to learn, or the tasks do not fit it.
    """
    device = CPU if learner.device.type == "mps" else learner.device
    own = copy.deepcopy(learner).to(device).double()
    own.run(replace(own.execution, compile="no", verify=False))
    few = moved(moved(part(episodes, 0, tasks), device), torch.float64)
    m = {name: leaf.detach() for name, leaf in own.named_parameters() if leaf.requires_grad}
    if not m:
        raise UsageError("the learner has no parameter that is learned: there is nothing to check")
    truth = _gradient(own, few, Unrolled())
    if isinstance(truth, str):
        findings = [Finding(name, leaf.numel(), "not differentiable", math.nan, math.nan) for name, leaf in m.items()]
        return Verdict(findings, {"Unrolled()": truth}, repr(learner.hypergradient))
    whole = float(norm(truth))
    engines = {name: _distance(_gradient(own, few, engine), truth, whole) for name, engine in _EXACT.items()}
    found, blind, note = _own_gradient(own, few, learner.hypergradient)
    exact = _is_exact(learner.hypergradient)
    findings = []
    for name, leaf in m.items():
        far = _relative(found[name], truth[name], whole) if name in found else math.nan
        difference, settles = _against_differences(own, few, m, name, truth[name], whole, 100 * tolerance)
        zero = float(truth[name].norm()) <= _ZERO * whole
        kind: Kind = "blind" if name in blind else _kind(far, difference, settles, exact, zero, tolerance)
        findings.append(Finding(name, leaf.numel(), kind, far, difference))
    return Verdict(findings, engines, f"{learner.hypergradient!r}{note}")


def _kind(far: float, difference: float, settles: bool, exact: bool, zero: bool, tolerance: float) -> Kind:
    if math.isnan(far):
        return "not differentiable"
    if far > tolerance:
        return "differs" if exact else "approximate"
    if difference <= 100 * tolerance:
        return "no effect" if zero else "agrees"
    return "differs" if settles or zero else "not smooth"


def _is_exact(engine: Hypergradient) -> bool:
    whole = getattr(engine, "window", None) is None and getattr(engine, "hvp", "") != "difference"
    return whole and not getattr(engine, "approximate", False)


def _gradient(learner: Learner, episodes: Any, engine: Hypergradient) -> Tree | str:
    """Return the meta-gradient, or the reason why there is none."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)  # every engine gets the same random numbers
        try:
            return learner.meta_gradient(episodes, phase=Phase(engine)).grads
        except (RbmlError, RuntimeError) as error:
            return str(error).splitlines()[0]


def _own_gradient(learner: Learner, episodes: Any, engine: Hypergradient) -> tuple[Tree, tuple[str, ...], str]:
    """Return the meta-gradient without the parameters that an engine is blind to, their names, and its message."""
    blind: tuple[str, ...] = ()
    note, seeing = "", learner
    try:
        learner.meta_gradient(part(episodes, 0, 1), phase=Phase(engine))
    except BlindError as error:
        blind, note, seeing = error.parameters, f" ({error})", copy.deepcopy(learner)
        for name in blind:
            seeing.get_parameter(name).requires_grad_(False)
    except (RbmlError, RuntimeError):
        pass  # reported below
    found = _gradient(seeing, episodes, engine)
    return ({}, blind, f" ({found})") if isinstance(found, str) else (found, blind, note)


def _distance(found: Tree | str, truth: Tree, whole: float) -> float | str:
    if isinstance(found, str):
        return found
    return max(_relative(found[name], leaf, whole) for name, leaf in truth.items())


def _relative(found: Tensor, truth: Tensor, whole: float) -> float:
    size = max(float(truth.norm()), float(found.norm()), _SMALL * whole)
    return float((found - truth).norm()) / size if size else 0.0


def _against_differences(
    learner: Learner, tasks: Any, m: Tree, name: str, grad: Tensor, whole: float, enough: float
) -> tuple[float, bool]:
    """Return how far the best central difference is from the derivative, and whether differences converge at all."""
    noise = torch.randn(grad.shape, dtype=grad.dtype, generator=generator(0, len(name))).to(grad.device)
    direction = noise / noise.norm() * (m[name].norm() if bool(m[name].any()) else 1.0)
    slope = float((grad * direction).sum())
    least = _SMALL * whole * float(direction.norm())
    measured: list[float] = []
    errors: list[float] = []
    for step in _STEPS:
        value = _difference(learner, tasks, m, {name: direction}, step)
        size = max(abs(value), abs(slope), least)
        measured.append(value)
        errors.append(abs(value - slope) / size if size else 0.0)
        if errors[-1] <= enough:
            return errors[-1], True
    ordered = [value for _, value in sorted(zip(_STEPS, measured, strict=True))]
    among = [abs(a - b) / max(abs(a), abs(b), least, 1e-300) for a, b in pairwise(ordered)]
    return min(errors), min(among) < 1e-5


def _difference(learner: Learner, tasks: Any, m: Tree, direction: Tree, step: float) -> float:
    """Return the central difference of the mean over the tasks."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        keys = torch.randint(2**62, (count(tasks),)).to(learner.device)  # as the meta-gradient draws them

    def single(given: dict[str, Any]) -> Tensor:
        return directional_difference(learner.inner(given["task"], key=given["key"]), m, direction, step)

    measured: Tensor = learner.over_tasks.each(single, {"task": tasks, "key": keys})
    return float(measured.mean())


def short(error: float) -> str:
    """Return a relative distance as a short text."""
    return "-" if math.isnan(error) else f"{error:.0e}" if error else "0"
