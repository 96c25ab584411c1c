"""What a run says of itself while it trains: a line of JSON an outer step, and the same curves for TensorBoard."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from contextlib import ExitStack
from types import TracebackType
from typing import Any

from rbml.training.files import writing
from rbml.training.run_folder import RunFolder

_CURVES = ("loss", "accuracy", "validation", "grad_norm", "outer_lr")


class Log:
    """Appends to the journal of a run and, where TensorBoard is installed, to its curves.

    Args:
        run: the run.

    Raises:
        RbmlError: if a file cannot be written.
    """

    def __init__(self, run: RunFolder) -> None:
        """Note where to write; nothing is opened."""
        self.run = run
        self._open = ExitStack()

    def __enter__(self) -> Log:
        """Return the log; :meth:`begin` opens it."""
        return self

    def begin(self, step: int) -> None:
        """Open the files after ``step`` outer steps; what they say of later ones no longer holds."""
        self.run.trim_journal(step)
        with writing(self.run.journal):
            self.journal = self._open.enter_context(self.run.journal.open("a"))
        self.board = _board(self.run, step)
        if self.board is not None:
            self._open.callback(self.board.close)

    def __call__(self, entry: Mapping[str, Any]) -> None:
        """Write one entry; it needs a ``step``."""
        with writing(self.run.journal):
            self.journal.write(json.dumps(entry) + "\n")
        if self.board is not None:
            with writing(self.run.tensorboard):
                for name in _CURVES:
                    if name in entry:
                        self.board.add_scalar(name, entry[name], entry["step"])

    def flush(self) -> None:
        """Bring the journal to the disk: a checkpoint must not be ahead of it."""
        with writing(self.run.journal):
            self.journal.flush()
            os.fsync(self.journal.fileno())

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the files."""
        with writing(self.run.path):
            self._open.close()


def _board(run: RunFolder, step: int) -> Any:
    """Return TensorBoard's writer, or ``None`` where it is not installed."""
    try:
        from torch.utils.tensorboard import SummaryWriter  # noqa: PLC0415  optional
    except ImportError:
        return None
    with writing(run.tensorboard):
        return SummaryWriter(str(run.tensorboard), purge_step=step + 1)
