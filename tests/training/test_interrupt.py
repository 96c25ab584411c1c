"""Signals ask once, and insist the second time."""

from __future__ import annotations

import signal
import threading

import pytest

from rbml.training import Interrupt


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_first_signal_asks_and_the_second_insists(
    number: signal.Signals, capfd: pytest.CaptureFixture[str]
) -> None:
    before = [signal.getsignal(one) for one in (signal.SIGINT, signal.SIGTERM)]
    with Interrupt("please wait") as interrupt:
        assert interrupt.asked is None
        signal.raise_signal(number)
        assert interrupt.asked == number
        assert capfd.readouterr().err == "\nplease wait\n"
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
        assert interrupt.asked == number
    assert [signal.getsignal(one) for one in (signal.SIGINT, signal.SIGTERM)] == before


def test_outside_the_main_thread_it_is_never_asked() -> None:
    asked = []

    def work() -> None:
        with Interrupt() as interrupt:
            asked.append(interrupt.asked)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert asked == [None]
