"""What each hypergradient engine would cost on a learner's own problem, and which one to take.

Two things are measured on the learner itself, for one inner step: the bytes that a derivative has to keep, and the
seconds that a gradient and a second derivative take. The rest is each engine's own arithmetic.
"""

from __future__ import annotations

import copy
import math
import os
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch

from rbml.autodiff import OverTasks
from rbml.autodiff.alone import gradient as gradient_of
from rbml.autodiff.products import Mode, grad_product
from rbml.devices import placed, wait
from rbml.errors import BlindError, RbmlError
from rbml.hypergrad import (
    Adjoint,
    Evolution,
    FirstOrder,
    Forward,
    Hypergradient,
    Implicit,
    Reptile,
    Sama,
    Unrolled,
    ValueFunction,
)
from rbml.inner import Carry, Inner
from rbml.learner import Learner, Phase
from rbml.learner.apart import apart
from rbml.learner.graphs import gradient as gradient_graph
from rbml.learner.graphs import kept_bytes
from rbml.tasks.base import count, one, part
from rbml.tree import Tree


@dataclass(frozen=True)
class Size:
    """What the costs depend on; bytes are those of one task.

    Attributes:
        meta: the number of meta-parameters.
        steps: T, inner steps.
        tasks: how many tasks an outer step has.
        chunk: how many of them run at once: side by side under ``vmap``, or on threads of their own.
        carry: bytes of theta and the rules' state.
        theta: bytes of theta, and so of an inner gradient.
        activations: bytes that one inner gradient keeps for its backward pass.
        graph: bytes that one step keeps where it will be differentiated itself.
        gradient: seconds of one inner gradient for one chunk.
        product: seconds of one second derivative for one chunk.
        exact: seconds of one step of ``Adjoint(store="reverse", exact=True)`` for one chunk; 0 if it cannot be used.
    """

    meta: int
    steps: int
    tasks: int
    chunk: int
    carry: int
    theta: int
    activations: int
    graph: int
    gradient: float
    product: float
    exact: float

    @property
    def chunks(self) -> int:
        """How many chunks an outer step has."""
        return math.ceil(self.tasks / self.chunk)


@dataclass(frozen=True)
class Row:
    """What one engine would cost for one outer step.

    Attributes:
        name: the engine as it is written in Python.
        engine: the engine.
        exact: whether its derivative is exact.
        memory: bytes that it keeps at its peak, besides the parameters.
        seconds: the expected duration.
        refusal: why it cannot be used on this learner; empty if it can.
    """

    name: str
    engine: Hypergradient
    exact: bool
    memory: float
    seconds: float
    refusal: str


@dataclass(frozen=True)
class Explanation:
    """What every engine would cost, and which one to take.

    Attributes:
        size: what the costs depend on.
        rows: one row per engine.
        budget: bytes that an engine may keep.
        chosen: the row to take.
        why: the reason for the choice.
    """

    size: Size
    rows: list[Row]
    budget: float
    chosen: Row
    why: str

    def __str__(self) -> str:
        """Return a readable table."""
        size = self.size
        width = max(len(row.name) for row in self.rows)
        lines = [
            f"{size.meta:,} meta-parameters, {size.steps} inner steps, {size.tasks} tasks in chunks of {size.chunk}; a "
            f"task keeps {amount(size.carry)} per carry and {amount(size.activations)} of activations per gradient",
            f"{'engine':{width}}  {'exact':5}  {'memory':>9}  {'seconds':>8}  note",
        ]
        for row in self.rows:
            note = "<- " + self.why if row is self.chosen else row.refusal
            note = note or ("over the budget" if row.memory > self.budget else "")
            exact = "yes" if row.exact else "no"
            lines.append(f"{row.name:{width}}  {exact:5}  {amount(row.memory):>9}  {row.seconds:8.2g}  {note}".rstrip())
        return "\n".join(lines)


def explain(learner: Learner, episodes: Any, memory: float | None = None) -> Explanation:
    """Estimate what every engine would cost for an outer step on ``episodes``, and choose one.

    The choice is the exact engine that is expected to be fastest among those that fit into the memory; of nearly equal
    ones (within 15 %) the one that keeps least. Approximate engines are shown but never chosen.

    Args:
        learner: the learner; ``learner.hypergradient = explain(...).chosen.engine`` uses the choice.
        episodes: the tasks of one outer step.
        memory: bytes that an engine may keep; ``None`` means half of the device's memory.
    """
    own = copy.deepcopy(learner)
    own.run(replace(own.execution, compile="no", verify=False))
    episodes = placed(episodes, own.device)
    if apart(own, episodes, own.predict(own.ways), own.ways):
        own.run(replace(own.execution, vectorise=False))
    own.over_tasks.one_of_many = count(episodes) > 1
    size = measure(own, episodes)
    budget = _half_of_memory(episodes.query.y.device) if memory is None else memory
    alone = part(episodes, 0, 1)
    rows = [
        Row(name, engine, exact, kept * size.chunk, seconds * size.chunks, _refusal(own, alone, engine))
        for name, engine, exact, kept, seconds in _costs(size)
    ]
    chosen, why = _choose(rows, budget)
    return Explanation(size, rows, budget, chosen, why)


def measure(learner: Learner, episodes: Any) -> Size:
    """Measure the memory and the time of one inner step of a learner."""
    tasks, separately = count(episodes), learner.execution.vectorise is False
    chunk = min(learner.execution.chunk, tasks)
    if separately:
        chunk = min(chunk, torch.get_num_threads() if learner.device.type == "cpu" else 1)
    m = {name: leaf.detach() for name, leaf in learner.named_parameters() if leaf.requires_grad}
    inner, carry = _of(learner, one(episodes, 0))
    t = 0
    activations = kept_bytes(lambda theta: inner.objective(theta, {}, t), carry.theta)
    graph = kept_bytes(lambda theta: gradient_graph(inner, theta, t), carry.theta)
    some = part(episodes, 0, chunk)
    over_tasks = OverTasks(chunk, learner.execution.vectorise)

    def gradient(task: Any) -> Tree:
        bound, at = _of(learner, task)
        return gradient_of(bound.objective, at.theta, {}, t)

    def product(mode: Mode, task: Any) -> Tree:
        bound, at = _of(learner, task)
        return grad_product(lambda theta, meta: bound.objective(theta, meta, t), at.theta, {}, at.theta, mode)[0]

    def timed(mode: Mode) -> float:
        return _seconds(lambda: over_tasks.each(partial(product, mode), some, separately), learner.device)

    carried = sum(leaf.nbytes for leaf in (*carry.theta.values(), *carry.state.values()))
    theta = sum(leaf.nbytes for leaf in carry.theta.values())
    seconds = _seconds(lambda: over_tasks.each(gradient, some, separately), learner.device)
    try:
        longer = timed("forward")
    except RuntimeError:  # an operator without a forward derivative; the row of Adjoint shows that
        longer = timed("reverse")
    meta = sum(leaf.numel() for leaf in m.values())
    exact = _seconds_a_step(learner, some, Adjoint(store="reverse", exact=True))
    return Size(meta, learner.steps, tasks, chunk, carried, theta, activations, graph, seconds, longer, exact)


def _costs(size: Size) -> list[tuple[str, Hypergradient, bool, float, float]]:
    """Return for every engine: name, engine, whether it is exact, bytes per task and seconds per chunk."""
    steps, root = size.steps, math.sqrt(max(size.steps, 1))
    once, second = steps * size.gradient, steps * size.product
    tangents = min(64, size.meta) * 2 * (size.carry + size.activations)
    pass_, all_ = 2 * size.activations, steps * (size.carry + size.theta)
    solver, pairs = 20, Evolution().pairs
    return [
        ("Unrolled()", Unrolled(), True, steps * (size.graph + size.carry), once + second),
        (
            "Adjoint(keep=1)",
            Adjoint(keep=1),
            True,
            all_ + max(pass_, size.graph),
            once + second - min(steps, 1) * size.gradient,
        ),
        ("Adjoint(keep=0)", Adjoint(keep=0), True, all_ + pass_, once + second),
        (
            "Adjoint(store='segments')",
            Adjoint(store="segments"),
            True,
            root * (2 * size.carry + size.theta) + max(pass_, size.graph),
            2 * once + second,
        ),
        (
            "Adjoint(store='reverse', exact=True)",
            Adjoint(store="reverse", exact=True),
            True,
            14 * size.carry + steps * size.theta / 100 + pass_,  # measured in docs/results.md
            max(steps * size.exact, 1.2 * (2 * once + second)),  # at least the passes that it certainly takes
        ),
        (
            "Adjoint(store='reverse')",
            Adjoint(store="reverse"),
            False,  # the recovered carries drift
            5 * size.carry + pass_,
            2 * once + second,
        ),
        ("Forward()", Forward(limit=max(size.meta, 1)), True, tangents, once + size.meta * second),
        ("FirstOrder()", FirstOrder(), False, all_ + size.activations, once),
        ("Implicit()", Implicit(), False, pass_ + 6 * size.theta, once + solver * size.product),
        ("Sama()", Sama(), False, pass_ + 5 * size.theta, once + 4 * size.gradient),
        ("ValueFunction()", ValueFunction(), False, pass_ + 6 * size.theta, once + 63 * size.gradient),
        ("Reptile()", Reptile(), False, 2 * size.carry + size.activations, once),
        ("Evolution()", Evolution(), False, 2 * pairs * (size.carry + size.activations), 2 * pairs * once),
    ]


def _choose(rows: list[Row], budget: float) -> tuple[Row, str]:
    able = [row for row in rows if row.exact and not row.refusal]
    fitting = [row for row in able if row.memory <= budget]
    if not fitting:
        least = min(able, key=lambda row: row.memory)
        return least, f"none fits into {amount(budget)}; this exact engine keeps least: lower the chunk"
    fastest = min(row.seconds for row in fitting)
    near = [row for row in fitting if row.seconds <= 1.15 * fastest]
    chosen = min(near, key=lambda row: row.memory)
    return chosen, f"exact, within {amount(budget)}, fastest, and of the equally fast the one that keeps least"


def _refusal(learner: Learner, episodes: Any, engine: Hypergradient) -> str:
    """Return why an engine cannot be used, found by trying it on a short inner loop."""
    short = copy.copy(learner)
    short.steps = min(learner.steps, 2)  # Adjoint differentiates one of them with a kept graph and one without
    if isinstance(engine, Forward | Evolution):
        return ""
    try:
        short.meta_gradient(episodes, phase=Phase(engine))
    except BlindError as error:
        count = len(error.parameters)
        few = ", ".join(error.parameters[:2])
        return f"blind to {few}" + (f" and {count - 2} more" if count > 2 else "")
    except (RbmlError, RuntimeError) as error:
        return str(error).splitlines()[0]
    return ""


def _seconds_a_step(learner: Learner, episodes: Any, engine: Hypergradient) -> float:
    """Return the seconds of one more step, or of the only one; 0 if the engine cannot be used."""
    if _refusal(learner, part(episodes, 0, 1), engine):
        return 0.0

    def whole(steps: int) -> float:
        short = copy.copy(learner)
        short.steps = steps
        return _seconds(lambda: short.meta_gradient(episodes, phase=Phase(engine)), learner.device)

    more = min(learner.steps, 3)
    return whole(more) if more < 2 else max(whole(more) - whole(1), 0.0) / (more - 1)


def _of(learner: Learner, task: Any) -> tuple[Inner, Carry]:
    key = torch.zeros((), dtype=torch.int64, device=task.query.y.device)
    inner = learner.bind(task, key=key).inner()
    return inner, inner.start({})


def _seconds(work: Callable[[], object], device: torch.device, times: int = 3) -> float:
    work()
    wait(device)
    found = []
    for _ in range(times):
        began = time.perf_counter()
        work()
        wait(device)
        found.append(time.perf_counter() - began)
    return sorted(found)[times // 2]


def _half_of_memory(device: torch.device) -> float:
    if device.type == "cuda":
        return torch.cuda.get_device_properties(device).total_memory / 2
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2
    except (ValueError, AttributeError, OSError):
        return 4 * 2**30


def amount(count: float) -> str:
    """Return a number of bytes with its unit.

    >>> amount(3 * 2**20)
    '3.0 MiB'
    """  # noqa: DOC501  the last line is never reached
    for unit in ("B", "KiB", "MiB", "GiB"):
        if count < 1024 or unit == "GiB":
            return f"{count:.0f} B" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    raise AssertionError
