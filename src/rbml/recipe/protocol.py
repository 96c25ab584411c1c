"""The usual training protocol of a data source, where it differs from a recipe's defaults.

Each source file may have a constant ``PROTOCOL`` with such entries.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rbml import catalogue
from rbml.recipe.sections import Data, Recipe


def protocol(source: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the entries that a source's ``PROTOCOL`` sets, by short names.

    A protocol is a list of cases ``(condition, entries)``; a condition lists the values that an entry may have. Later
    cases take precedence.

    Args:
        source: such as ``"omniglot"`` or ``"folder:PATH"``.
        given: what the user has set, by short names.
    """
    own = {name: value for name, value in given.items() if value is not None}
    found: dict[str, Any] = {}
    for condition, values in catalogue.constant("data", Data.of(source).name, "PROTOCOL") or []:
        asked = {**Recipe().short(), **found, **own}  # a later case may ask for what an earlier one has set
        if all(asked.get(name) in allowed for name, allowed in condition.items()):
            found |= values
    return found


def facts(name: str) -> dict[str, Any]:
    """Return the size and channels of the pictures for which a pretrained backbone is; empty for other names.

    They are the constant ``FACTS`` in the backbone's file.

    Args:
        name: of an encoder or of a model, such as ``"efficientnet_lite0"`` or ``"timm:resnet18"``.

    >>> facts("efficientnet_lite0"), facts("conv4")
    ({'size': 160, 'channels': 3}, {})
    """
    return dict(catalogue.constant("backbones", name.partition(":")[0], "FACTS") or {})


def backbone_recipe(name: str, ways: int = 5) -> Recipe:
    """Return the recipe of a learner that needs no training: a frozen backbone, and a head from the support set.

    Args:
        name: of the backbone, such as ``"efficientnet_lite0"``.
        ways: the number of classes that its model has before it has seen any; the head is made for any number.

    Raises:
        UsageError: for an unknown backbone.
    """
    return Recipe.of(ways=ways, encoder=_BEST.get(name, name), **facts(name), **_FROZEN)


_FROZEN: dict[str, Any] = {
    "model": "mlp",
    "model_options": {"hidden": []},
    "algorithm": "ridge_cv",
    "options": {"scale": 10.0},
}
"""What is learned from a support set on frozen features: a ridge regression, and how strong its penalty must be."""

_BEST = {"efficientnet_lite0": "efficientnet_lite0:colour", "minilm": "minilm:weighted"}
"""The variant of a backbone from whose features most is learned from few examples."""

_ON_FEATURES: dict[str, Any] = {"model": "adaptor", "algorithm": "protonet"}
"""What learns on features of an encoder where nothing else is asked for."""

_ON_SENTENCES: dict[str, Any] = {"model": "discriminant_adaptor"}
"""What differs where these are features of sentences (docs/results.md)."""


_WHOLE: dict[str, Any] = {
    "algorithm": "protonet",
    "queries": 2,
    "tasks": 1,
    "meta_steps": 100,
    "outer_lr": 1e-4,
    "validate_every": 25,
    "validate_tasks": 20,
    "save_every": 25,
    "vectorise": "no",
}
"""What trains a whole encoder of sentences, or low-rank changes of it, where nothing else is asked for.

Its features have unit norm, so that distances need a scale; one step through the encoder takes seconds; and tasks that
do not run side by side need not be padded to the longest sentence of all. On validation intents of fold 1
of BANKING77 80 steps with a rate of 1e-4 did better than 30 with 5e-5; that is all that was tried.
"""

_ENCODERS = ("minilm", "hf")
"""Backbones of sentences."""

_SCALE = 16.0
"""Of the distances between features of unit norm."""


def recipe_of(source: str, given: Mapping[str, Any]) -> Recipe:
    """Return the recipe of a source's protocol; what was given takes precedence.

    Args:
        source: such as ``"omniglot"`` or ``"folder:PATH"``.
        given: entries by short names; ``None`` means not given.

    Raises:
        UsageError: for an unknown name, or a value that is not allowed.
    """
    chosen = {name: value for name, value in given.items() if value is not None}
    of_sentences = str(chosen.get("encoder", "")).partition(":")[0] in _ENCODERS
    if of_sentences:
        chosen["encoder"] = _BEST.get(chosen["encoder"], chosen["encoder"])
    backbone = chosen.get("encoder") or chosen.get("model") or ""
    whole = str(chosen.get("model", "")).partition(":")[0] in _ENCODERS
    on_features = _ON_FEATURES | (_ON_SENTENCES if of_sentences else {})
    more = on_features if chosen.get("encoder") else _WHOLE if whole else {}
    if whole and chosen.get("algorithm", "protonet") == "protonet":
        chosen["options"] = {"scale": _SCALE} | chosen.get("options", {})
    usual = protocol(source, given) | more | facts(backbone)
    return Recipe.of(**({"data": source} | usual | chosen))
