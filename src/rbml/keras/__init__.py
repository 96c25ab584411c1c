"""Keras models in rbml: convert them to PyTorch modules and back, or meta-learn them inside TensorFlow.

``from_keras``, ``to_keras`` and ``rates`` need Keras on the PyTorch backend, ``MetaModel`` needs Keras on TensorFlow,
and ``PerVariableSGD`` runs on every backend. Keras itself is loaded when one of these names is first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any, NamedTuple

from rbml.errors import UsageError

if TYPE_CHECKING:
    from rbml.keras.convert import from_keras
    from rbml.keras.export import to_keras
    from rbml.keras.learned_rates import rates
    from rbml.keras.meta_model import MetaModel
    from rbml.keras.optimizer import PerVariableSGD

__all__ = ["MetaModel", "PerVariableSGD", "from_keras", "rates", "to_keras"]


class _Home(NamedTuple):
    module: str
    backend: str | None
    otherwise: str


_INSTEAD = "for Keras on TensorFlow use rbml.keras.MetaModel"
_HOME = {
    "from_keras": _Home("rbml.keras.convert", "torch", _INSTEAD),
    "to_keras": _Home("rbml.keras.export", "torch", _INSTEAD),
    "rates": _Home("rbml.keras.learned_rates", "torch", _INSTEAD),
    "PerVariableSGD": _Home("rbml.keras.optimizer", None, ""),
    "MetaModel": _Home("rbml.keras.meta_model", "tensorflow", "for Keras on PyTorch use rbml.keras.from_keras"),
}
"""For each public name its module, the backend that it needs, and what to use with another backend."""


def _check_backend(name: str, needed: str | None, otherwise: str) -> None:
    """Refuse to go on without Keras, or on another backend than ``needed``.

    Raises:
        UsageError: saying what to install or to set.
    """
    before_keras = "before Keras is imported for the first time (a shell variable, or os.environ in the first line)"
    try:
        keras = importlib.import_module("keras")
    except ModuleNotFoundError as error:
        if error.name == "keras":
            raise UsageError(f"rbml.keras.{name} needs Keras 3: pip install 'rbml[keras]'") from error
        raise UsageError(
            f"Keras cannot load its backend, because {error.name} is not installed: set "
            f"KERAS_BACKEND={needed or 'torch'} {before_keras}"
        ) from error
    active = keras.backend.backend()
    if needed is not None and active != needed:
        raise UsageError(
            f"rbml.keras.{name} needs Keras on {needed}, and Keras runs on {active} here: set KERAS_BACKEND={needed} "
            f"{before_keras}; {otherwise}"
        )


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'rbml.keras' has no attribute {name!r}")
    home = _HOME[name]
    _check_backend(name, home.backend, home.otherwise)
    return getattr(importlib.import_module(home.module), name)


def __dir__() -> list[str]:
    return list(__all__)
