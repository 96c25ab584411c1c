"""The log of a training run: one line of JSON per outer step, and the same curves for TensorBoard."""

from __future__ import annotations

import json
import os
import platform
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol

from rbml.training import files
from rbml.training.files import writing
from rbml.training.run_folder import RunFolder

_NO_CURVES = ("step", "stage", "seconds")


class Records(Protocol):
    """What training writes into a run folder."""

    def begin(self, step: int) -> None:
        """Open the journal at ``step`` outer steps; entries of later steps are removed: they will be taken again."""
        ...

    def __call__(self, entry: Mapping[str, Any]) -> None:
        """Write one entry into the journal; it needs a ``step``."""
        ...

    def sync(self) -> None:
        """Flush the journal to the disk: a checkpoint must not be ahead of it."""
        ...

    def save(self, path: Path, kind: str, content: dict[str, Any]) -> None:
        """Write a file of the given kind."""
        ...

    def prune(self, folder: Path, kept: list[Path]) -> None:
        """Remove all files of a folder but some."""
        ...


class Silent:
    """Writes nothing: for a process that is not the first one of its run."""

    def begin(self, step: int) -> None:
        """Do nothing."""

    def __call__(self, entry: Mapping[str, Any]) -> None:
        """Do nothing."""

    def sync(self) -> None:
        """Do nothing."""

    def save(self, path: Path, kind: str, content: dict[str, Any]) -> None:
        """Do nothing."""

    def prune(self, folder: Path, kept: list[Path]) -> None:
        """Do nothing."""


@contextmanager
def recorded(run: RunFolder, rank: int) -> Iterator[Records]:
    """Open what the process of this rank writes; the first one locks the run meanwhile.

    Args:
        run: the run.
        rank: of the process.

    Yields:
        What writes, or does nothing.

    Raises:
        RbmlError: if another process is training the run, or a file cannot be written.
    """
    if rank:
        yield Silent()
        return
    with run.locked(), Log(run) as log:
        yield log


class Log:
    """Appends to the journal of a run and, if TensorBoard is installed, to its curves.

    Args:
        run: the run.

    Raises:
        RbmlError: if a file cannot be written.
    """

    def __init__(self, run: RunFolder) -> None:
        """Remember where to write; nothing is opened yet."""
        self.run = run
        self._open = ExitStack()

    def __enter__(self) -> Log:
        """Return the log; :meth:`begin` opens it."""
        return self

    def begin(self, step: int) -> None:
        """Open the files at ``step`` outer steps; entries of later steps are removed: they will be taken again."""
        self.run.trim_journal(step)
        with writing(self.run.journal):
            self.journal = self._open.enter_context(self.run.journal.open("a"))
        with writing(self.run.tensorboard):
            self.curves = _Curves.begin(self.run, step, self._open)

    def __call__(self, entry: Mapping[str, Any]) -> None:
        """Write one entry; it needs a ``step``."""
        with writing(self.run.journal):
            self.journal.write(json.dumps(entry) + "\n")
            self.journal.flush()
        if self.curves is not None:
            with writing(self.run.tensorboard):
                self.curves.add({name: value for name, value in entry.items() if name not in _NO_CURVES}, entry["step"])

    def sync(self) -> None:
        """Flush the journal to the disk: a checkpoint must not be ahead of it."""
        with writing(self.run.journal):
            os.fsync(self.journal.fileno())

    def save(self, path: Path, kind: str, content: dict[str, Any]) -> None:
        """Write a file of the given kind."""
        with writing(path):
            path.parent.mkdir(exist_ok=True)
        files.save(path, kind, content)

    def prune(self, folder: Path, kept: list[Path]) -> None:
        """Remove all files of a folder but some; a folder that is not there has none."""
        with writing(folder):
            for path in folder.iterdir() if folder.is_dir() else []:
                if path not in kept:
                    path.unlink()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the files."""
        with writing(self.run.path):
            self._open.close()


class _Curves:
    """An event file of TensorBoard, written directly: PyTorch's writer uses a thread, whose errors nobody sees."""

    def __init__(self, records: Any, event: Any) -> None:
        self.records, self.event = records, event

    @staticmethod
    def begin(run: RunFolder, step: int, stack: ExitStack) -> _Curves | None:
        """Open a new file, or return ``None`` if TensorBoard is not installed."""
        try:
            from tensorboard.compat.proto import event_pb2  # noqa: PLC0415  optional
            from tensorboard.summary.writer.record_writer import RecordWriter  # noqa: PLC0415
        except ImportError:
            return None
        run.tensorboard.mkdir(exist_ok=True)
        name = f"events.out.tfevents.{time.time_ns() // 10**9}.{platform.node()}.{os.getpid()}"
        file = stack.enter_context((run.tensorboard / name).open("ab"))
        curves = _Curves(RecordWriter(file), event_pb2.Event)
        curves.write(file_version="brain.Event:2")
        curves.write(
            step=step + 1, session_log={"status": event_pb2.SessionLog.START}
        )  # makes TensorBoard discard later steps of an earlier file
        return curves

    def add(self, values: Mapping[str, float], step: int) -> None:
        """Write the values of one outer step."""
        self.write(step=step, summary={"value": [{"tag": tag, "simple_value": value} for tag, value in values.items()]})

    def write(self, **content: Any) -> None:
        """Write one event."""
        self.records.write(self.event(wall_time=time.time(), **content).SerializeToString())
        self.records.flush()
