"""Optional libraries: imported when they are needed, with a clear error if one is not installed."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from rbml.errors import UsageError

_NAMES = {"PIL": "Pillow", "sklearn": "scikit-learn"}


def require(module: str, extra: str, what: str) -> Any:
    """Import an optional library.

    Args:
        module: the module to import, ``"PIL.Image"``.
        extra: the extra of rbml that installs it, ``"images"``.
        what: what it is needed for, ``"reading pictures"``.

    Returns:
        The module.

    Raises:
        UsageError: if it is not installed, with the command that installs it.
        ModuleNotFoundError: if it is installed, but something that it imports itself is missing.

    >>> require("no_such_library", "images", "reading pictures")
    Traceback (most recent call last):
    rbml.errors.UsageError: reading pictures needs no_such_library: pip install 'rbml[images]'
    """
    try:
        return import_module(module)
    except ModuleNotFoundError as error:
        package = module.partition(".")[0]
        if (error.name or "").partition(".")[0] != package:
            raise  # the library is installed but broken: its own error says more
        raise UsageError(f"{what} needs {_NAMES.get(package, package)}: pip install 'rbml[{extra}]'") from None
