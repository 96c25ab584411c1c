"""The inputs, targets and number of outputs of a model. Saved with every run and every adapted model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from rbml.data import inputs, targets
from rbml.data.inputs import Modality
from rbml.data.targets import Target
from rbml.errors import CheckpointError, UsageError


@dataclass(frozen=True)
class Setting:
    """What goes into a model and what comes out of it.

    Args:
        modality: how its inputs are read.
        target: what its outputs mean, and how they are scored.
        outputs: how many numbers the model returns per example: one per class or per real value.

    >>> Setting.from_json(Setting(inputs.Pictures(28), targets.CLASSES, 5).to_json()).modality
    Pictures(size=28, channels=1)
    """

    modality: Modality
    target: Target
    outputs: int

    def to_json(self) -> dict[str, Any]:
        """Return the setting as plain values."""
        how = {"kind": self.modality.kind, "spec": self.modality.spec()}
        scaled = {"target_spec": dict(self.target.spec)} if self.target.spec else {}
        return {"inputs": how, "target": self.target.kind, "outputs": self.outputs} | scaled

    @staticmethod
    def from_json(values: Mapping[str, Any]) -> Setting:
        """Return the setting that plain values describe.

        Raises:
            CheckpointError: for a modality or a target that this program does not know.
        """
        try:
            kind, spec = values["inputs"]["kind"], values["inputs"]["spec"]
            target = targets.ALL[values["target"]].with_spec(values.get("target_spec", {}))
            return Setting(inputs.ALL[kind](**spec), target, int(values["outputs"]))
        except (KeyError, TypeError, UsageError) as error:
            known = f"inputs {', '.join(inputs.ALL)}; targets {', '.join(targets.ALL)}"
            raise CheckpointError(
                f"the setting {dict(values)} cannot be used ({error}): this rbml knows {known}; kinds of your own are "
                "added to rbml.data.inputs.ALL and rbml.data.targets.ALL before a file is loaded"
            ) from error
