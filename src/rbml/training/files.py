"""Files that are either whole or not there, and that carry no code."""

from __future__ import annotations

import hashlib
import io
import json
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from rbml.errors import CheckpointError, RbmlError

FORMAT = 1


def write_atomically(path: Path, content: bytes) -> None:
    """Write a file so that a reader, or a machine that fails, sees the old one or the new one and nothing between.

    Raises:
        RbmlError: if it cannot be written (a full disk, no permission); the old file is then still there.
    """
    temporary = None
    try:
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        if temporary is not None and os.path.exists(temporary):
            os.unlink(temporary)
        reason = error.strerror or str(error)
        raise RbmlError(
            f"cannot write {path}: {reason}. What was saved before is intact; make room and go on."
        ) from error


def write_json(path: Path, content: Any) -> None:
    """Write JSON that a person can read, atomically."""
    write_atomically(path, (json.dumps(content, indent=2) + "\n").encode())


def save(path: Path, kind: str, content: dict[str, Any]) -> None:
    """Save tensors and plain values under a kind, with a digest, atomically.

    Raises:
        RbmlError: if it cannot be written.
    """
    buffer = io.BytesIO()
    torch.save({"rbml": kind, "format": FORMAT, "digest": _digest(content), "content": content}, buffer)
    write_atomically(path, buffer.getvalue())


def load(path: Path, kind: str) -> dict[str, Any]:
    """Load what :func:`save` saved, executing no code that the file may carry.

    Raises:
        CheckpointError: if the file is not there, is damaged, or is of another kind.
    """
    if not path.is_file():
        raise CheckpointError(f"there is no file {path}")
    try:
        found = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch.load raises a dozen kinds for a damaged file
        raise CheckpointError(f"{path} is damaged or not a file of rbml ({type(error).__name__})") from error
    if not isinstance(found, dict) or not {"rbml", "format", "digest", "content"} <= found.keys():
        raise CheckpointError(f"{path} is not a file of rbml")
    if found["rbml"] != kind:
        raise CheckpointError(f"{path} is a file of kind {found['rbml']!r}, expected {kind!r}")
    if found["format"] != FORMAT:
        raise CheckpointError(
            f"{path} has format {found['format']}, this rbml reads {FORMAT}: use the rbml that wrote it"
        )
    if found["digest"] != _digest(found["content"]):
        raise CheckpointError(f"{path} is damaged: its digest does not fit its content")
    content: dict[str, Any] = found["content"]
    return content


def _digest(content: Any) -> str:
    """Return the SHA-256 over all values with their places."""
    total = hashlib.sha256()
    for place, leaf in _leaves(content, ""):
        total.update(place.encode())
        if isinstance(leaf, Tensor):
            total.update(str((leaf.dtype, tuple(leaf.shape))).encode())
            total.update(leaf.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
        else:
            total.update(repr(leaf).encode())
    return total.hexdigest()


def _leaves(content: Any, place: str) -> Iterator[tuple[str, Any]]:
    if isinstance(content, dict):
        for key, value in content.items():
            yield from _leaves(value, f"{place}/{key}")
    elif isinstance(content, list | tuple):
        for index, value in enumerate(content):
            yield from _leaves(value, f"{place}/{index}")
    else:
        yield place, content
