"""Stop cleanly: the first SIGINT or SIGTERM ends the run after its step, a second one at once."""

from __future__ import annotations

import os
import signal
from types import FrameType, TracebackType


class Interrupt:
    """A context in which the first signal sets ``asked``, so that the loop can finish its step, save and end.

    A second signal raises ``KeyboardInterrupt`` at once, unless it is the launcher of several processes that sends it
    ``again``: it passes a signal on that they have all got. Outside the main thread Python allows no signal handlers,
    and ``asked`` stays false.

    Args:
        notice: what to print on standard error at the first signal.
        again: whether a second signal counts.
    """

    def __init__(self, notice: str = "", again: bool = True) -> None:
        """Begin with no signal received."""
        self.asked: int | None = None
        self.notice, self.again = notice, again
        self._before: dict[int, object] = {}

    def __enter__(self) -> Interrupt:
        """Install the signal handlers."""
        for number in (signal.SIGINT, signal.SIGTERM):
            try:
                self._before[number] = signal.signal(number, self._ask)
            except ValueError:  # not in the main thread
                break
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Restore the former signal handlers."""
        for number, before in self._before.items():
            signal.signal(number, before)  # type: ignore[arg-type]

    def _ask(self, number: int, frame: FrameType | None) -> None:
        if self.asked is not None:
            if self.again:
                raise KeyboardInterrupt
            return
        self.asked = number
        if self.notice:
            os.write(2, f"\n{self.notice}\n".encode())  # sys.stderr may be in the middle of a write
