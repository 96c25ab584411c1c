"""Is the hypergradient right? A learner's own engine against every exact engine and against central differences."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor

from rbml.errors import BlindError, RbmlError, UsageError
from rbml.hypergrad import Adjoint, Hypergradient, Unrolled, directional_difference
from rbml.inner import Inner
from rbml.learner import Learner, Phase
from rbml.tasks import Episodes, generator
from rbml.tasks.base import one
from rbml.tree import Tree

Kind = Literal["agrees", "approximate", "differs", "no effect", "blind", "not smooth", "not differentiable"]

GOOD: tuple[Kind, ...] = ("agrees", "no effect", "not smooth")
MEANING: dict[Kind, str] = {
    "agrees": "all exact engines and central differences say the same",
    "approximate": "the learner's engine is an approximation, and this far from the exact derivative",
    "differs": "the engines, or engine and central differences, say different things: do not trust it",
    "no effect": "the derivative is exactly zero: the loss does not depend on it",
    "blind": "the learner's engine cannot see it",
    "not smooth": "the exact engines agree; central differences do not settle, as with ReLU, so they prove nothing",
    "not differentiable": "no derivative could be taken",
}
_STEPS = (1e-3, 1e-4, 1e-5, 1e-6)
_EXACT: dict[str, Hypergradient] = {
    "Adjoint()": Adjoint(),
    "Adjoint(keep=0)": Adjoint(keep=0),
    "Adjoint(hvp='reverse')": Adjoint(hvp="reverse", keep=0),
    "Adjoint(store='segments')": Adjoint(store="segments"),
}


@dataclass(frozen=True)
class Finding:
    """What was found of one parameter of the learner.

    Attributes:
        parameter: its name.
        numbers: how many it holds.
        verdict: see :data:`MEANING`.
        engine: relative distance of the learner's engine from ``Unrolled``; not a number where there is none.
        difference: relative distance of the derivative along a random direction from the best central difference.
    """

    parameter: str
    numbers: int
    verdict: Kind
    engine: float
    difference: float


@dataclass(frozen=True)
class Verdict:
    """What was found of a learner.

    Attributes:
        findings: one a parameter.
        engines: of every other exact engine, its largest relative distance from ``Unrolled``, or why it cannot.
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


def check(learner: Learner, episodes: Episodes, tasks: int = 2, tolerance: float = 1e-6) -> Verdict:
    """Hold the hypergradient of a learner to the truth, parameter by parameter, in float64 on the CPU.

    The learner's own engine is compared with ``Unrolled``, the reference, which is itself compared with the other exact
    engines and, along one random direction a parameter, with central differences of four step sizes. Costs about two
    meta-gradients an engine and eight inner loops a parameter.

    Args:
        learner: the learner; it is copied.
        episodes: tasks such as it is trained on.
        tasks: how many of them are used.
        tolerance: the relative distance that still counts as the same; central differences may be 100 times as far.

    Raises:
        UsageError: if the episodes do not fit the learner.
    """
    own = copy.deepcopy(learner).double().cpu()
    own.run(replace(own.execution, compile="no", verify=False))
    few = episodes.part(0, tasks).to(torch.float64).to("cpu")
    m = {name: leaf.detach() for name, leaf in own.named_parameters() if leaf.requires_grad}
    if not m:
        raise UsageError("the learner has no parameter that is learned: there is nothing to check")
    truth = _gradient(own, few, Unrolled())
    if isinstance(truth, str):
        findings = [Finding(name, leaf.numel(), "not differentiable", math.nan, math.nan) for name, leaf in m.items()]
        return Verdict(findings, {"Unrolled()": truth}, repr(learner.hypergradient))
    engines = {name: _distance(_gradient(own, few, engine), truth) for name, engine in _EXACT.items()}
    found, blind, said = _own_gradient(own, few, learner.hypergradient)
    exact = _is_exact(learner.hypergradient)
    findings = []
    for name, leaf in m.items():
        far = _relative(found[name], truth[name]) if name in found else math.nan
        difference, settles = _against_differences(own, few, m, name, truth[name])
        kind: Kind = "blind" if name in blind else _kind(far, difference, settles, exact, truth[name], tolerance)
        findings.append(Finding(name, leaf.numel(), kind, far, difference))
    return Verdict(findings, engines, f"{learner.hypergradient!r}{said}")


def _kind(far: float, difference: float, settles: bool, exact: bool, truth: Tensor, tolerance: float) -> Kind:
    if math.isnan(far):
        return "not differentiable"
    if far > tolerance:
        return "differs" if exact else "approximate"
    if not bool(truth.any()):
        return "no effect" if difference == 0 else "differs"
    if difference <= 100 * tolerance:
        return "agrees"
    return "differs" if settles else "not smooth"


def _is_exact(engine: Hypergradient) -> bool:
    whole = getattr(engine, "window", None) is None and getattr(engine, "hvp", "") != "difference"
    return whole and not getattr(engine, "approximate", False)


def _gradient(learner: Learner, episodes: Episodes, engine: Hypergradient) -> Tree | str:
    """Return the meta-gradient, or why there is none."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)  # parts that draw random numbers draw the same ones for every engine
        try:
            return learner.meta_gradient(episodes, phase=Phase(engine)).grads
        except (RbmlError, RuntimeError, NotImplementedError) as error:
            return str(error).splitlines()[0]


def _own_gradient(learner: Learner, episodes: Episodes, engine: Hypergradient) -> tuple[Tree, tuple[str, ...], str]:
    """Return the meta-gradient of what an engine can see, what it is blind to, and what it says of the rest."""
    blind: tuple[str, ...] = ()
    said, seeing = "", learner
    try:
        learner.meta_gradient(episodes.part(0, 1), phase=Phase(engine))
    except BlindError as error:
        blind, said, seeing = error.parameters, f" ({error})", copy.deepcopy(learner)
        for name in blind:
            seeing.get_parameter(name).requires_grad_(False)
    except (RbmlError, RuntimeError, NotImplementedError):
        pass  # said below
    found = _gradient(seeing, episodes, engine)
    return ({}, blind, f" ({found})") if isinstance(found, str) else (found, blind, said)


def _distance(found: Tree | str, truth: Tree) -> float | str:
    return found if isinstance(found, str) else max(_relative(found[name], leaf) for name, leaf in truth.items())


def _relative(found: Tensor, truth: Tensor) -> float:
    size = max(float(truth.norm()), float(found.norm()))
    return float((found - truth).norm()) / size if size else 0.0


def _against_differences(learner: Learner, episodes: Episodes, m: Tree, name: str, grad: Tensor) -> tuple[float, bool]:
    """Return how far the best central difference is from the derivative, and whether differences settle at all."""
    noise = torch.randn(grad.shape, dtype=grad.dtype, generator=generator(0, len(name)))
    direction = noise / noise.norm() * (m[name].norm() if bool(m[name].any()) else 1.0)
    said = float((grad * direction).sum())
    inners = list(_inners(learner, episodes))
    measured = [
        float(torch.stack([directional_difference(inner, m, {name: direction}, h) for inner in inners]).mean())
        for h in _STEPS
    ]
    if not any(measured) and said == 0:
        return 0.0, True
    errors = [abs(value - said) / max(abs(value), abs(said)) for value in measured]
    among = [abs(a - b) / max(abs(a), abs(b), 1e-300) for a, b in pairwise(measured)]
    return min(errors), min(among) < 1e-5


def _inners(learner: Learner, episodes: Episodes) -> Iterator[Inner]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        keys = torch.randint(2**62, (episodes.tasks,))  # as the meta-gradient draws them
    for index, key in enumerate(keys):
        task = one(episodes, index)
        yield learner.inner(task, key=key)


def short(error: float) -> str:
    """Return a relative distance in a few letters."""
    return "-" if math.isnan(error) else f"{error:.0e}" if error else "0"
