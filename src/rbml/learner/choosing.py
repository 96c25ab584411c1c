"""``compile="auto"``: measure on the first tasks what is fastest, and take what pays within the run.

What is tried, in this order, each only if it can pay:

1. operator by operator;
2. traced, in chunks of :data:`CHUNKS` tasks: if the run takes more than :data:`LONG` seconds operator by operator;
3. compiled, if there is a C++ compiler, and the run is still expected to take :data:`SHARE` times as long as compiling
   (by the number of operators in the trace).

Tasks of large operators, which run apart (:mod:`rbml.learner.apart`), gain nothing from a trace: there the graph of one
task is compiled right away; where that has more than :data:`UNROLLED` steps, the graphs of one step and its adjoint.

A candidate pays if its remaining time is at most nine tenths of the best so far. The choice is kept in the cache folder
(:func:`rbml.data.store.cached_arrays`) for the same model, strategy, shapes, length, machine and version of PyTorch.
"""

from __future__ import annotations

import hashlib
import platform
import shutil
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from torch.utils._pytree import tree_leaves

from rbml.data.store import cached_arrays
from rbml.devices import placed, type_of_products, wait
from rbml.learner.apart import apart
from rbml.learner.options import Compile, Execution
from rbml.learner.steps import one_by_one
from rbml.strategy.serialize import described
from rbml.tasks import Task
from rbml.tasks.base import count

if TYPE_CHECKING:
    from rbml.learner.learner import Learner

CHUNKS = (4, 8)
"""How many tasks one thread runs at once; which is faster depends on the caches and the network."""

LONG = 60.0
"""Tracing takes some seconds: runs that end within so many seconds are left as they are."""

SHARE = 10
"""Compiling may take one tenth of what is left of a run."""

PER_OPERATOR = 0.06
"""Seconds of compiling per operator (Conv4, 1,400 operators: 66 to 90 s of processor time)."""

UNROLLED = 5
"""Up to how many steps of large operators are one graph: compiling takes longer than in proportion to the steps."""

PER_STEP = 800
"""About how many operators a step of a small network adds to the graph of one task (Conv4: 780 to 900)."""

COMPILERS = ("c++", "g++", "clang++")


class Choice(NamedTuple):
    """What was chosen.

    Attributes:
        execution: how the work is run.
        seconds: of one meta-gradient so run.
        plainly: of one meta-gradient operator by operator.
        why: the measurements in words; empty if the choice was made by an earlier run.
    """

    execution: Execution
    seconds: float
    plainly: float
    why: str

    def __str__(self) -> str:
        """Say it in one line."""
        how = {"no": "operator by operator", "trace": "traced", "whole": "compiled", "step": "one compiled step"}
        chosen = self.execution
        gain = self.plainly / self.seconds
        times = f", {gain:.1f} times as fast as operator by operator" if chosen.compile != "no" else ""
        known = f" ({self.why})" if self.why else " (measured by an earlier run)"
        expected = f"{self.seconds * chosen.calls:.0f} s for {chosen.calls} outer steps"
        return f"{how[chosen.compile]}, {chosen.chunk} tasks at once{times}; expect {expected}{known}"


def choose(learner: Learner, tasks: Task) -> Choice:
    """Return the way to run a learner that ends soonest; its execution has ``compile="auto"``.

    Args:
        learner: it is run on the tasks and left as it is.
        tasks: a stack of tasks like those of the run.
    """
    asked = learner.execution
    found: dict[str, str] = {}

    def measure() -> dict[str, Any]:
        with torch.random.fork_rng(devices=()):  # a run draws the same numbers whether it measures first or not
            return in_arrays()

    def in_arrays() -> dict[str, Any]:
        best, plainly, found["why"] = _measured(learner, tasks)
        return {"compile": np.array(best[0].compile), "chunk": np.array(best[0].chunk),
                "seconds": np.array([best[1], plainly])}  # fmt: skip

    try:
        kept = cached_arrays(f"execution-1-{_key(learner, tasks)}", measure)
    finally:
        learner.run(asked)
    mode: Compile = str(kept["compile"])  # type: ignore[assignment]
    seconds, plainly = (float(one) for one in kept["seconds"])
    return Choice(replace(asked, compile=mode, chunk=int(kept["chunk"])), seconds, plainly, found.get("why", ""))


def _measured(learner: Learner, tasks: Task) -> tuple[tuple[Execution, float], float, str]:
    """Return the best execution with its time, the time operator by operator, and all times in words."""
    asked, began = learner.execution, time.perf_counter()
    plain = replace(asked, compile="no")
    plainly, _ = _seconds(learner, plain, tasks)
    best, said = (plain, plainly), [f"operator by operator {plainly:.2g} s"]
    if plainly * asked.calls < LONG:
        return best, plainly, f"{said[0]}: too short a run to trace"
    large = apart(learner, placed(tasks, learner.device), learner.predict(learner.ways), learner.ways)
    stepwise = one_by_one("trace", learner.hypergradient, learner.steps) and not (large and learner.steps <= UNROLLED)
    operators = 0
    if large and (stepwise or learner.steps <= UNROLLED):
        operators = PER_STEP * (1 if stepwise else learner.steps)
    for chunk in () if large else sorted({min(size, asked.chunk, count(tasks)) for size in CHUNKS}):
        how = replace(asked, compile="trace", chunk=chunk)
        try:
            seconds, _ = _seconds(learner, how, tasks)
        except Exception as error:  # whatever the tracer meets in a model
            said.append(f"it cannot be traced: {_first_line(error)}")
            break
        said.append(f"traced, {chunk} at once {seconds:.2g} s")
        if seconds < 0.9 * best[1] or (best[0].compile == "trace" and seconds < best[1]):
            assert learner.compiled is not None
            best, operators = (how, seconds), learner.compiled.operators
    left = best[1] * asked.calls - (time.perf_counter() - began)
    if operators and left > SHARE * PER_OPERATOR * operators and any(map(shutil.which, COMPILERS)):
        how = replace(best[0], compile="step" if stepwise else "whole")
        try:
            seconds, first = _seconds(learner, how, tasks)
        except Exception as error:  # a graph that was not traced before may be one that cannot be
            said.append(f"it cannot be compiled: {_first_line(error)}")
        else:
            said.append(f"compiled {seconds:.2g} s after {first:.0f} s")
            if seconds < 0.9 * best[1]:
                best = how, seconds
    return best, plainly, ", ".join(said)


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0] or type(error).__name__


def _seconds(learner: Learner, how: Execution, tasks: Task) -> tuple[float, float]:
    """Return the seconds of a meta-gradient, the better of two, and those of the first one."""
    learner.run(replace(how, verify=False))
    times = []
    for _ in range(3):
        began = time.perf_counter()
        learner.meta_gradient(tasks)
        wait(learner.device)
        times.append(time.perf_counter() - began)
    return min(times[1:]), times[0]


def _key(learner: Learner, tasks: Task) -> str:
    """Return a digest of everything that the choice depends on."""
    shapes = [(tuple(leaf.shape), str(leaf.dtype), str(leaf.device)) for leaf in tree_leaves(tasks)]
    machine = platform.machine(), platform.processor(), torch.get_num_threads(), torch.__version__
    run = learner.execution
    facts = (learner.model, described(learner.strategy), learner.steps, learner.phase(1.0), learner.statistics,
             learner.adapted, shapes, machine, run, type_of_products())  # fmt: skip
    return hashlib.sha256(repr(facts).encode()).hexdigest()[:16]
