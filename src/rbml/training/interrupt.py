"""Stopping politely: the first SIGINT or SIGTERM asks, the second one insists."""

from __future__ import annotations

import os
import signal
from types import FrameType, TracebackType


class Interrupt:
    """While it is entered, a signal sets ``asked``; the loop finishes its step, saves and ends.

    A second signal raises ``KeyboardInterrupt`` wherever the program is. Outside the main thread, where Python allows
    no signal handlers, it is never asked.

    Args:
        notice: what to say on standard error when the first signal comes.
    """

    def __init__(self, notice: str = "") -> None:
        """Start unasked."""
        self.asked: int | None = None
        self.notice = notice
        self._before: dict[int, object] = {}

    def __enter__(self) -> Interrupt:
        """Take over the signals."""
        for number in (signal.SIGINT, signal.SIGTERM):
            try:
                self._before[number] = signal.signal(number, self._ask)
            except ValueError:  # not in the main thread
                break
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Give the signals back."""
        for number, before in self._before.items():
            signal.signal(number, before)  # type: ignore[arg-type]

    def _ask(self, number: int, frame: FrameType | None) -> None:
        if self.asked is not None:
            raise KeyboardInterrupt
        self.asked = number
        if self.notice:
            os.write(2, f"\n{self.notice}\n".encode())  # sys.stderr may be in the middle of a write
