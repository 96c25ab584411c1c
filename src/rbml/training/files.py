"""Files that are written atomically (whole or not at all), and that contain no code."""

from __future__ import annotations

import contextlib
import copy
import errno
import hashlib
import io
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from rbml.errors import CheckpointError, RbmlError

FORMAT = 1

_MAKERS = {
    "checkpoint": "rbml train",
    "best": "rbml train",
    "adapted": "rbml adapt",
    "strategy": "rbml strategy export",
    "start": "rbml train",
    "tuning": "rbml tune",
    "background": "rbml adapt",
}
_INSTEAD = "restore it from a copy, or make it again"


def write_atomically(path: Path, content: bytes) -> None:
    """Write a file so that a reader, even after a crash, finds either the old file or the new one, never a part of it.

    Raises:
        RbmlError: if it cannot be written (a full disk, no permission); the old file is then still there.
    """
    # A fixed name per target: what a killed process leaves behind is overwritten by the next one, and does not pile up.
    temporary = path.with_name(f".{path.name}.partial")
    with writing(path):
        try:
            with temporary.open("wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
        except BaseException:  # also KeyboardInterrupt
            with contextlib.suppress(OSError):
                temporary.unlink()
            raise


@contextlib.contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn a failure to write a file into an error of one line that names what to do.

    Raises:
        RbmlError: if the operating system refuses.
    """
    try:
        yield
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
        way_out = "free some space and go on" if full else "choose another place, or make this one writable"
        reason = error.strerror or str(error)
        raise RbmlError(f"cannot write {path}: {reason}. What was saved before is intact: {way_out}.") from error


def write_json(path: Path, content: Any) -> None:
    """Write indented JSON, atomically."""
    write_atomically(path, (json.dumps(content, indent=2) + "\n").encode())


def save(path: Path, kind: str, content: dict[str, Any]) -> None:
    """Save tensors and plain values under a kind, with a digest, atomically.

    Raises:
        RbmlError: if it cannot be written.
    """
    content = _on_cpu(content)  # so that the file can be read where there is no such device
    buffer = io.BytesIO()
    torch.save({"rbml": kind, "format": FORMAT, "digest": _digest(content), "content": content}, buffer)
    write_atomically(path, buffer.getvalue())


def load(path: Path, kind: str) -> dict[str, Any]:
    """Load what :func:`save` saved, without executing any code that the file may contain.

    Raises:
        CheckpointError: if the file is not there, is damaged, or is of another kind.
    """
    if not path.is_file():
        raise CheckpointError(f"there is no file {path}: make it with {_MAKERS.get(kind, 'rbml')}")
    try:
        found = torch.load(path, map_location="cpu", weights_only=True)
        digest = _digest(found["content"]) if isinstance(found, dict) and "content" in found else ""
    except Exception as error:  # torch.load raises a dozen kinds for a damaged file
        raise CheckpointError(
            f"{path} is damaged, or not a file of rbml ({type(error).__name__}): {_INSTEAD}"
        ) from error
    if not isinstance(found, dict) or not {"rbml", "format", "digest", "content"} <= found.keys():
        raise CheckpointError(f"{path} is not a file of rbml: expected one made by {_MAKERS.get(kind, 'rbml')}")
    if found["rbml"] != kind:
        raise CheckpointError(
            f"{path} holds {found['rbml']!r}, expected {kind!r} as {_MAKERS.get(kind, 'rbml')} makes it"
        )
    if found["format"] != FORMAT:
        raise CheckpointError(
            f"{path} has format {found['format']}, this rbml reads {FORMAT}: use the rbml that wrote it"
        )
    if found["digest"] != digest:
        raise CheckpointError(f"{path} is damaged (its digest does not fit its content): {_INSTEAD}")
    content: dict[str, Any] = found["content"]
    return content


def _on_cpu(content: Any) -> Any:
    """Return plain containers with their tensors on the processor."""
    if isinstance(content, Tensor):
        return content.cpu()
    if isinstance(content, dict):
        moved = copy.copy(content)  # of the same kind: PyTorch's states of modules have attributes
        moved.update({key: _on_cpu(value) for key, value in content.items()})
        return moved
    return type(content)(map(_on_cpu, content)) if type(content) in (list, tuple) else content


def _digest(content: Any) -> str:
    """Return the SHA-256 of all values with their places."""
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
