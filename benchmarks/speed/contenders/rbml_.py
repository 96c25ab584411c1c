"""rbml, with its defaults or with another engine or way to run."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from rbml.hypergrad import Hypergradient
from rbml.learner import Execution, Learner
from rbml.strategy import Hyper, sgd
from rbml.tasks import Batch, Episode
from speed.problem import NotPossible, Problem


def make(
    problem: Problem, dtype: torch.dtype, engine: Hypergradient | None = None, **execution: Any
) -> Callable[[], dict[str, Tensor]]:
    """Return the contender with an engine (``None``: the default) and options of ``Execution``."""
    if execution.get("compile") == "whole" and problem.steps > 5:
        raise NotPossible("one graph of all steps would compile for hours")
    learner = Learner(
        problem.module(dtype),
        sgd(Hyper(problem.rate)),
        problem.steps,
        problem.loss,
        hypergradient=engine,
        execution=Execution(**execution),
    )
    tasks = episodes(problem, dtype) if problem.ours is None else problem.ours(dtype)

    def run() -> dict[str, Tensor]:
        grads = learner.meta_gradient(tasks).grads
        return {name.removeprefix("model.") if name != "phi.sgd.lr" else "rate": g for name, g in grads.items()}

    return run


def episodes(problem: Problem, dtype: torch.dtype) -> Episode:
    x, y, qx, qy = problem.tensors(dtype)
    return Episode(Batch(x[:, 0], y[:, 0]), Batch(qx, qy))
