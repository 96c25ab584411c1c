"""What a run was measured to be: the evaluations in its folder."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from rbml.errors import CheckpointError
from rbml.reports.wording import sentence
from rbml.training import RunFolder

_ENTRIES = {"tasks", "part", "ways", "shots", "episodes", "accuracy"}


def evaluations(run: RunFolder) -> tuple[dict[str, Any], list[str]]:
    """Return what the run was measured to be, by name, and a sentence for each file that cannot be read."""
    found: dict[str, Any] = {}
    problems = []
    for path in sorted(run.evaluation("any").parent.glob("*.json")):
        try:
            found[path.stem] = _evaluation(path)
        except CheckpointError as error:
            problems.append(f"{sentence(str(error))} Make it anew: `rbml evaluate {run.path}`.\n")
    return found, problems


def _evaluation(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path} is damaged: {error}") from error
    if not isinstance(content, dict) or not content.keys() >= _ENTRIES or not content["accuracy"]:
        raise CheckpointError(f"{path} is not an evaluation of rbml")
    return content
