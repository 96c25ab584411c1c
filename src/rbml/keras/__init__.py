"""Meta-learning for Keras models."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rbml.keras.meta_model import MetaModel

__all__ = ["MetaModel"]


def __getattr__(name: str) -> Any:
    if name == "MetaModel":
        return importlib.import_module("rbml.keras.meta_model").MetaModel
    raise AttributeError(f"module 'rbml.keras' has no attribute {name!r}")
