from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, Literal

import pytest

from rbml.errors import UsageError
from rbml.strategy import Hyper
from rbml.strategy.parsing import fitted, nested_away, parse


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("0.1", 0.1), ("-3", -3), ("1e-4", 1e-4), ("true", True), ("False", False), ("none", None), ("null", None),
        ("layer", "layer"), ("head.*", "head.*"), ("a, b", "a, b"), ("", ""), (" x ", "x"), ("'0.1'", "0.1"),
        ("[0, none]", [0, None]), ("(0.1, 0.2)", (0.1, 0.2)), ("[0, inf]", [0, math.inf]),
        ("__import__('os')", "__import__('os')"),
        ("1 + 2", "1 + 2"), ("{1", "{1"), ("b'x'", "b'x'"),
    ],
)  # fmt: skip
def test_a_text_is_read_as_the_value_that_it_means(text: str, value: Any) -> None:
    found = parse(text)
    assert found == value and type(found) is type(value)


def test_tables_within_tables_become_addresses() -> None:
    assert nested_away({"a": {"b": {"c": 1}, "d": {}}, "e.f": [2]}) == {"a.b.c": 1, "a.d": {}, "e.f": [2]}


@pytest.mark.parametrize(
    ("value", "hint", "result"),
    [
        (1, float, 1.0), (1, int, 1), (True, bool, True), ("x", str, "x"), (None, float | None, None),
        ("none", float | None, None), ([1, 2], tuple[float, float], (1.0, 2.0)),
        ([1, 2, 3], tuple[float, ...], (1.0, 2.0, 3.0)),
        ([1], Sequence[int], (1,)), ("a", Literal["a", "b"], "a"), ({"value": 2}, float | Hyper, Hyper(2.0)),
        ([0, None], tuple[float | None, float | None], (0.0, None)),
    ],
)  # fmt: skip
def test_a_value_fits_its_type(value: Any, hint: Any, result: Any) -> None:
    found = fitted(value, hint, "x")
    assert found == result and type(found) is type(result)


@pytest.mark.parametrize(
    ("value", "hint", "said"),
    [
        (True, float, "x must be a number, not True"), (1.5, int, "x must be a whole number"),
        ("1", float, "x must be a number"),
        (True, int, "a whole number"), (1, bool, "x must be true or false"), (3, str, "x must be text"),
        ([1], tuple[float, float], "x must be a list of 2"), (["a"], Sequence[int], "x must be a list of numbers"),
        ("c", Literal["abc", "b"], "no choice of x named 'c'"),
        (1, Callable[[], None], "which only a program can give"),
        ({"value": 1, "pre": 2}, float | Hyper, "no field of a learned number named 'pre': did you mean 'per'"),
        ({}, float | Hyper, "a table of value, per"),
    ],
)  # fmt: skip
def test_a_value_that_does_not_fit_is_refused_in_words(value: Any, hint: Any, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        fitted(value, hint, "x")
