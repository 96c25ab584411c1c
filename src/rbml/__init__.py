"""rbml: learn how to learn, by backpropagating through learning itself.

Nothing happens on import: submodules, and with them PyTorch, are loaded when one of their names is first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rbml import algorithms, data, hypergrad, models, strategy, tasks
    from rbml.diagnostics import check, explain
    from rbml.errors import BlindError, RbmlError, UnsoundError
    from rbml.learner import Adapted, Curriculum, Evaluation, Execution, Head, Initial, Learner, Phase
    from rbml.tasks import Batch, Episode, Episodes, Job, Stream
    from rbml.training.tune import Rated, Tuned, rate, tune

__version__ = "0.1.0"

__all__ = [
    "Adapted",
    "Batch",
    "BlindError",
    "Curriculum",
    "Episode",
    "Episodes",
    "Evaluation",
    "Execution",
    "Head",
    "Initial",
    "Job",
    "Learner",
    "Phase",
    "Rated",
    "RbmlError",
    "Stream",
    "Tuned",
    "UnsoundError",
    "algorithms",
    "check",
    "data",
    "explain",
    "hypergrad",
    "models",
    "rate",
    "strategy",
    "tasks",
    "tune",
]

_HOME = {
    "Tuned": "rbml.training.tune",
    "tune": "rbml.training.tune",
    "Rated": "rbml.training.tune",
    "rate": "rbml.training.tune",
    "UnsoundError": "rbml.errors",
    "Stream": "rbml.tasks",
    "Phase": "rbml.learner",
    "Job": "rbml.tasks",
    "Initial": "rbml.learner",
    "Head": "rbml.learner",
    "Execution": "rbml.learner",
    "Episode": "rbml.tasks",
    "Curriculum": "rbml.learner",
    "Adapted": "rbml.learner",
    "Batch": "rbml.tasks",
    "BlindError": "rbml.errors",
    "Episodes": "rbml.tasks",
    "Evaluation": "rbml.learner",
    "Learner": "rbml.learner",
    "RbmlError": "rbml.errors",
    "check": "rbml.diagnostics",
    "explain": "rbml.diagnostics",
}


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(importlib.import_module(_HOME[name]), name)
    if name in __all__:
        return importlib.import_module(f"rbml.{name}")
    raise AttributeError(f"module 'rbml' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])
