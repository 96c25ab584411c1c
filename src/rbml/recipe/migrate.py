"""The recipes that rbml 0.1.0 wrote, one flat table of 39 entries, as trees."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rbml.errors import unknown
from rbml.recipe import entries

_SAME = (
    "split", "ways", "shots", "queries", "algorithm", "lr", "steps", "strategy", "settings", "options",
    "strategy_file", "freeze_strategy", "engine", "engine_options", "model", "size", "channels", "context",
    "shared_head", "statistics", "meta_steps", "tasks", "outer_lr", "clip", "seed", "chunk", "compile",
    "validate_every", "validate_tasks", "save_every",
)  # fmt: skip
_OF_CONV4 = ("filters", "norm", "pool")
_HIDDEN = [256, 128, 64, 64]  # the only MLP in 0.1.0


def is_flat(values: Mapping[str, Any]) -> bool:
    """Return whether plain values are of the form that rbml 0.1.0 wrote."""
    return not any(isinstance(values.get(section), Mapping) for section in ("outer", "execution", "inputs"))


def migrated(flat: Mapping[str, Any]) -> dict[str, Any]:
    """Return the tree of a flat recipe; a field that is missing keeps its default.

    Args:
        flat: the entries as 0.1.0 wrote them.

    Raises:
        UsageError: for an entry that 0.1.0 did not have.
    """  # noqa: DOC501  `unknown` returns the UsageError
    known = ("data", *_OF_CONV4, *_SAME)
    for name in flat:
        if name not in known:
            raise unknown("entry of a recipe", name, known)
    source, _, path = str(flat.get("data", "glyphs")).partition(":")
    model = flat.get("model", "conv4")
    tree: dict[str, Any] = {"data": {"name": source, "path": path or None}, "model": {"name": model, "options": {}}}
    for name in (*_SAME, *(_OF_CONV4 if model == "conv4" else ())):
        where = entries.place(name)
        if where is not None and flat.get(name) not in (None, {}):
            entries.put(tree, where, flat[name])
    if model == "mlp":
        entries.put(tree, "model.options.hidden", _HIDDEN)
    if "algorithm" not in flat:
        entries.put(tree, "algorithm.name", "maml")
    return tree | {"data": [tree["data"]]}
