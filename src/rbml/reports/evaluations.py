"""The evaluations in a run folder."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rbml.errors import CheckpointError
from rbml.reports.text import sentence
from rbml.training import RunFolder
from rbml.training.evaluator import describe_sizes

_ENTRIES = {"tasks", "part", "episodes"}
_OF_0_1 = [{"name": "accuracy", "better": "higher", "unit": "%"}]
"""The metric of rbml 0.1.0, which its files do not name."""


def evaluations(run: RunFolder) -> tuple[dict[str, Any], list[str]]:
    """Return the run's evaluations by name, and a sentence for each file that cannot be read."""
    found: dict[str, Any] = {}
    problems = []
    for path in sorted(run.evaluation("any").parent.glob("*.json")):
        try:
            found[path.stem] = _evaluation(path)
        except CheckpointError as error:
            problems.append(f"{sentence(str(error))} Make it again: `rbml evaluate {run.path}`.\n")
    return found, problems


def _evaluation(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(), object_hook=_numbers)
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path} is damaged: {error}") from error
    if not isinstance(content, dict) or not content.keys() >= _ENTRIES:
        raise CheckpointError(f"{path} is not an evaluation of rbml")
    metrics = content.setdefault("metrics", _OF_0_1)
    if not all(content.get(metric["name"]) for metric in metrics):
        raise CheckpointError(f"{path} is not an evaluation of rbml")
    return content


def _numbers(content: dict[str, Any]) -> dict[str, Any]:
    """Return a score with not-a-number where JSON has null: a learner or a baseline has diverged."""
    if not content.keys() >= {"mean", "interval"}:
        return content
    return content | {name: float("nan") for name in ("mean", "interval") if content[name] is None}


def labels(evaluations: Mapping[str, Mapping[str, Any]]) -> dict[str, tuple[str, str]]:
    """Return for each evaluation its title, and below it what was measured: also all in which it differs from others.

    >>> one = {"tasks": "glyphs", "ways": 5, "shots": 1, "queries": 15, "episodes": 600, "part": "test", "seed": 0}
    >>> labels({"a": one, "b": one | {"seed": 3}})["b"]
    ('glyphs, 5-way 1-shot', '600 test tasks, seed 3')
    """
    found = {}
    for name, one in evaluations.items():
        sizes = describe_sizes({key: one[key] for key in ("ways", "shots") if key in one})
        title = ", ".join(part for part in (_short(one["tasks"]), sizes) if part)
        parts = [f"{one['episodes']:,}".replace(",", "\u2009") + f" {one['part']} tasks"]
        for key, said in _DIFFERENCES.items():
            if len({str(other.get(key)) for other in evaluations.values()}) > 1 and one.get(key) is not None:
                parts.append(said.format(one[key]))
        found[name] = title, ", ".join(parts)
    return found


_DIFFERENCES = {
    "queries": "{} queries",
    "seed": "seed {}",
    "split": "split {}",
    "steps": "{} steps",
    "which": "{} checkpoint",
    "ensemble": "mean of {} learners",
    "with": "with {}",
}
"""What is said of an evaluation where evaluations differ in it."""


def _short(name: str) -> str:
    """Return a source's name, short enough for the head of a panel."""
    short = source_name(name)
    return short if len(short) <= 18 else f"{short[:17]}…"


def inner_steps(evaluation: Mapping[str, Any]) -> int:
    """Return how many inner steps were measured; 0 for a learner that makes its head in closed form."""
    return max(len(scores) for scores in evaluation[shown_metric(evaluation)["name"]].values()) - 1


def source_name(source: str) -> str:
    """Return what a source is called: of one that names a path, its last part alone.

    >>> source_name("omniglot"), source_name("table:/home/me/shop.csv")
    ('omniglot', 'shop.csv')
    """
    _, _, path = source.partition(":")
    return path.rstrip("/").rpartition("/")[2] or source


def shown_metric(evaluation: Mapping[str, Any]) -> Mapping[str, str]:
    """Return the metric of an evaluation that is shown (the first one): its name, its unit, and which way is better."""
    metric: Mapping[str, str] = evaluation.get("metrics", _OF_0_1)[0]
    return metric
