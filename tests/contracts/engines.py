"""The engines that the contract holds for: a new member of ``hypergrad.ALL`` takes a place in one of the tables."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.contracts.problems import Problem

from rbml.hypergrad import Adjoint, FirstOrder, Forward, Hypergradient, Unrolled

EXACT: dict[str, list[Hypergradient]] = {
    "unrolled": [Unrolled()],
    "adjoint": [Adjoint(), Adjoint(keep=0), Adjoint(hvp="reverse", keep=0), Adjoint(store="segments", keep=2)],
    "forward": [Forward(chunk=2000, limit=4000)],
}
UNDOING: list[Hypergradient] = [Adjoint(store="reverse")]
"""Exact engines for the problems whose steps can be undone; tests/hypergrad/test_reverse.py has ``exact=True``."""
APPROXIMATE: dict[str, list[Hypergradient]] = {
    "first_order": [FirstOrder()],
    "adjoint": [
        Adjoint(window=1),
        Adjoint(window=1, keep=0),
        Adjoint(store="segments", window=2),
        Adjoint(hvp="difference"),
    ],
    "unrolled": [Unrolled(window=1)],
}
ELSEWHERE = Path(__file__).parent / "test_approximate_engines.py"
"""The table of the other approximate engines is there."""


def label(engine: Hypergradient) -> str:
    return repr(engine)


TABLES = (*EXACT.values(), UNDOING, *APPROXIMATE.values())
every = [pytest.param(one, id=label(one)) for row in TABLES for one in row]
exact = [pytest.param(one, id=label(one)) for row in EXACT.values() for one in row]


def exact_for(problem: Problem) -> list[list[Hypergradient]]:
    """Return the exact engines for a problem; Forward's many tangents through Conv4 would only take long."""
    few = problem.net == "mlp" or problem.steps == 5
    rows = [row for name, row in EXACT.items() if name != "forward" or few]
    return [*rows, UNDOING] if problem.undone else rows
