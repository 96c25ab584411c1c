"""What the next step needs is drawn while this step runs."""

from __future__ import annotations

import threading
import time

import pytest

from rbml.training.ahead import Ahead


def test_slow_draws_go_on_while_the_caller_computes() -> None:
    seen: list[tuple[int, bool]] = []

    def draw(step: int) -> int:
        time.sleep(0.02)
        seen.append((step, threading.current_thread() is threading.main_thread()))
        return 10 * step

    with Ahead(draw, 6) as ahead:
        found = []
        for step in range(6):
            found.append(ahead.of(step))
            time.sleep(0.03)
    assert found == [0, 10, 20, 30, 40, 50]
    assert [step for step, _ in seen] == list(range(6)), "each step once, none beyond the last one"
    assert [in_main for _, in_main in seen] == [True, True, False, False, False, False]


def test_quick_draws_stay_where_they_are() -> None:
    threads = set()
    with Ahead(lambda step: threads.add(threading.current_thread()), 4) as ahead:
        for step in range(4):
            ahead.of(step)
            time.sleep(0.05)
    assert threads == {threading.main_thread()}


def test_an_error_is_raised_at_its_step() -> None:
    def draw(step: int) -> int:
        time.sleep(0.01)
        if step == 3:
            raise ValueError("no more pictures")
        return step

    with Ahead(draw, 10) as ahead:
        assert [ahead.of(step) for step in range(3)] == [0, 1, 2]
        with pytest.raises(ValueError, match="no more pictures"):
            ahead.of(3)


def test_another_step_than_the_next_one_is_drawn_too() -> None:
    with Ahead(lambda step: time.sleep(0.01) or step, 100) as ahead:  # type: ignore[func-returns-value]
        assert [ahead.of(step) for step in (5, 6, 7, 2, 3, 9)] == [5, 6, 7, 2, 3, 9]
