"""How the time of a meta-gradient grows when one of a problem's sizes is doubled: 2 is in proportion."""

from __future__ import annotations

import argparse
import inspect
import statistics

from speed import measure, problems

SIZES = ("tasks", "steps", "ways", "width")


def run(chosen: argparse.Namespace) -> None:
    around = measure.environment("default", chosen.threads)
    print("| doubled | " + " | ".join(chosen.contenders) + " |\n| --- |" + " --- |" * len(chosen.contenders))
    for row in chosen.rows:
        arguments = inspect.signature(problems.ALL[row]).parameters
        for size in (size for size in SIZES if size in arguments):
            at_first: int = arguments[size].default
            print(
                f"| {row}: {size} {at_first} to {2 * at_first} | "
                + " | ".join(_ratios(chosen, row, size, at_first, around))
                + " |",
                flush=True,
            )


def _ratios(chosen: argparse.Namespace, row: str, size: str, at_first: int, around: dict[str, str]) -> list[str]:
    """Return each contender's time for twice the size over that for the size, both taking turns."""
    cells = []
    for name in chosen.contenders:
        once, twice = (measure.Process(row, name, "float32", {size: many}, around) for many in (at_first, 2 * at_first))
        try:
            if why := once.begun.get("why") or twice.begun.get("why"):
                cells.append(why)
                continue
            calls = [max(1, round(measure.TURN / one.turn(1)["wall"])) for one in (once, twice)]
            found = []
            for _ in range(chosen.rounds):
                short, long = (one.turn(many)[chosen.clock] for one, many in zip((once, twice), calls, strict=True))
                found.append(long / short)
            cells.append(f"{statistics.median(found):.2f}")
        finally:
            once.close()
            twice.close()
    return cells
