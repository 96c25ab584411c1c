"""Which measurement a run folder keeps: a shorter one never replaces a longer one of the same thing."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rbml.training import files

CARRIED = ("baselines", "by_shots")
"""Parts of a measurement that cost extra, and that a new one without them takes over from the old one."""


def keep(path: Path, result: Mapping[str, Any]) -> str:
    """Write a measurement, unless a longer one of the same learner is there.

    Of the same learner means: at the same outer step (``trained``). A measurement that is written takes over what the
    old one has besides and which is still true: baselines, which do not depend on the learner, and for the same learner
    the metric by the number of examples.

    Args:
        path: of the file.
        result: what was measured; ``episodes`` says on how many tasks.

    Returns:
        Nothing, or one sentence if the old file was left as it is.

    Raises:
        RbmlError: if it cannot be written.
    """
    old = _read(path)
    same = old.get("trained") == result.get("trained")
    more = old.get("episodes", 0) > result["episodes"]
    if same and more:
        return (
            f"{path} has the same measured on {old['episodes']} tasks, more than these {result['episodes']}: remove "
            "that file to replace it"
        )
    carried = CARRIED if same else CARRIED[:1]
    found = {name: old[name] for name in carried if name in old and name not in result}
    files.write_json(path, valid_json({**found, **result}))
    return ""


def valid_json(value: Any) -> Any:
    """Return plain values with null for numbers that JSON does not have: a mean that diverged.

    >>> valid_json({"mean": float("nan"), "of": [1.5, float("inf")]})
    {'mean': None, 'of': [1.5, None]}
    """
    if isinstance(value, Mapping):
        return {name: valid_json(one) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return [valid_json(one) for one in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _read(path: Path) -> dict[str, Any]:
    """Return what a file holds; nothing where it is not there or damaged: it is then written anew."""
    try:
        content = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) and isinstance(content.get("episodes"), int) else {}
