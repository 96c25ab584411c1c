"""The kinds of error that rbml raises on purpose.

Every message says what was expected, what came, and what to do. ``UsageError`` is for wrong use (the command line
exits with 2), every other ``RbmlError`` for a failure (exit code 1).
"""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches


class RbmlError(Exception):
    """The root of all errors that rbml raises on purpose."""


class UsageError(RbmlError):
    """A request that cannot be met as it was written: a wrong name, a wrong option, labels out of range."""


class DataError(RbmlError):
    """Data that cannot be read, or that is not enough for what was asked of it."""


class CheckpointError(RbmlError):
    """A file of rbml that is damaged, or that belongs to another model."""


class DivergedError(RbmlError):
    """A loss or a gradient that is not finite."""


class BlindError(UsageError):
    """A hypergradient was asked of an engine that cannot give it: it would have been a silent zero.

    Attributes:
        parameters: the meta-parameters that the engine is blind to.
    """

    def __init__(self, message: str, parameters: Iterable[str] = ()) -> None:
        """Keep the names beside the message."""
        super().__init__(message)
        self.parameters = tuple(parameters)


class UnsoundError(RbmlError):
    """A hypergradient that would have been wrong without a word.

    Attributes:
        parameters: the meta-parameters whose derivative cannot be trusted.
    """

    def __init__(self, message: str, parameters: Iterable[str] = ()) -> None:
        """Keep the names beside the message."""
        super().__init__(message)
        self.parameters = tuple(parameters)


def unknown(kind: str, name: str, known: Iterable[str]) -> UsageError:
    """Return the error for a name that is not in a table, with the nearest right one.

    >>> str(unknown("model", "conv5", ["mlp", "conv4"]))
    "there is no model named 'conv5': did you mean 'conv4'? (known: conv4, mlp)"
    """
    names = sorted(known)
    near = get_close_matches(name, names, n=1)
    hint = f": did you mean {near[0]!r}?" if near else "."
    return UsageError(f"there is no {kind} named {name!r}{hint} (known: {', '.join(names)})")
