"""The file of a learned strategy, with which another run or another model can begin."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from rbml.errors import CheckpointError, DivergedError, UsageError
from rbml.learner import Learner
from rbml.strategy import Hyper, Scalar, Strategy
from rbml.strategy.base import Parameterised
from rbml.strategy.serialize import from_plain, plain
from rbml.strategy.settings import frozen
from rbml.training import files
from rbml.tree import Tree


@dataclass(frozen=True)
class LearnedStrategy:
    """A strategy with its learned phi, without the model.

    Attributes:
        strategy: its parts.
        steps: T, the inner steps it was learned for.
        phi: its raw leaves by name: ``sgd.lr/conv.0.*``.
        theta: the shapes of the parameters that were adapted, by name.
        about: descriptions of where it was learned.
    """

    strategy: Strategy
    steps: int
    phi: Tree
    theta: Mapping[str, tuple[int, ...]]
    about: Mapping[str, str] = field(default_factory=dict)

    @staticmethod
    def of(learner: Learner, about: Mapping[str, str] | None = None) -> LearnedStrategy:
        """Return the current strategy of a learner."""
        phi = {name: leaf.detach().clone() for name, leaf in learner.phi.state_dict().items()}
        parameters = dict(learner.model.named_parameters())
        theta = {name: tuple(parameters[name].shape) for name in learner.adapted}
        return LearnedStrategy(learner.strategy, learner.steps, phi, theta, about or {})

    def onto(self, learner: Learner, freeze: bool = False, strategy: Strategy | None = None) -> Learner:
        """Return a copy of a learner that has this strategy, with its learned values.

        It fits if the leaves of phi have the same names and shapes: one value for all parameters fits any model, values
        per layer or per tensor need the same names, and values per element also the same shapes. A head for more
        classes repeats the values of its rows; more inner steps than T repeat the values of the last one.

        Args:
            learner: the learner; its adapted parameters and its engine stay the same.
            freeze: whether to stop learning the strategy.
            strategy: this strategy with further parts, or with some of its numbers no longer learned.

        Raises:
            CheckpointError: if it was learned for other parameters; the first that differ are named.
            UsageError: if a number of ``strategy`` is of another kind than the learned one.
        """
        plan = self.strategy if strategy is None else strategy
        new = learner.with_strategy(frozen(plan) if freeze else plan)
        here = new.phi.state_dict()
        before = {f"{part.name}.{name}": one for part in self.strategy.parts for name, one in part.hypers.items()}
        for part in new.strategy.parts:
            for name, quantity in part.hypers.items():
                whole = f"{part.name}.{name}"
                if whole in before:
                    _check_same(whole, before[whole], quantity)
                    here |= self._leaves(whole, quantity, _of(here, whole), new)
        new.phi.load_state_dict(here)
        return new

    def _leaves(self, whole: str, quantity: Parameterised, here: Tree, learner: Learner) -> Tree:
        """Return the leaves of one quantity in the shapes that the learner needs."""
        there = _of(self.phi, whole)
        found: Tree = {}
        differ = [f"{name} is in the file only" for name in there if name not in here]
        for name, leaf in here.items():
            if name not in there:
                differ.append(f"{name} is not in the file")
                continue
            rows = name.partition("/")[2] in learner.head
            found[name] = _fitting(there[name], leaf, quantity, rows)
            if found[name].shape != leaf.shape:
                differ.append(f"{name} is {_size(there[name])} in the file and {_size(leaf)} here")
        if differ:
            more = f" and {len(differ) - 3} more" if len(differ) > 3 else ""
            raise CheckpointError(
                f"the strategy was learned for other parameters: {'; '.join(differ[:3])}{more}. "
                "Use it with a model of the same structure; numbers per layer, or one for all layers, fit more models"
            )
        return found


def export_strategy(learner: Learner, path: Path, about: Mapping[str, str] | None = None) -> None:
    """Write the strategy of a learner, with its learned values.

    Args:
        learner: the learner.
        path: the file.
        about: descriptions of where it was learned.

    Raises:
        UsageError: if a part was not made by a function of :data:`rbml.strategy.ALL`.
        DivergedError: if phi has numbers that are not finite.
        RbmlError: if it cannot be written.
    """
    learned = LearnedStrategy.of(learner, about)
    if bad := [name for name, leaf in learned.phi.items() if not torch.isfinite(leaf).all()]:
        raise DivergedError(f"{bad[0]} of the strategy is not finite: {path} is not written")
    content = {
        "strategy": plain(learned.strategy),
        "steps": learned.steps,
        "phi": learned.phi,
        "theta": {name: list(shape) for name, shape in learned.theta.items()},
        "about": dict(learned.about),
    }
    files.save(path, "strategy", content)


def load_strategy(path: Path) -> LearnedStrategy:
    """Return what :func:`export_strategy` wrote; :meth:`LearnedStrategy.onto` gives it to a learner.

    Raises:
        CheckpointError: if the file is damaged, is not a strategy, or has parts that this rbml does not know.
    """
    content = files.load(path, "strategy")
    try:
        strategy = from_plain(content["strategy"])
    except (UsageError, TypeError, KeyError) as error:
        raise CheckpointError(f"{path} holds a strategy that this rbml cannot make: {error}") from error
    theta = {name: tuple(shape) for name, shape in content["theta"].items()}
    return LearnedStrategy(strategy, content["steps"], content["phi"], theta, content["about"])


def _of(tree: Mapping[str, Tensor], whole: str) -> Tree:
    return {name: leaf for name, leaf in tree.items() if name == whole or name.startswith(f"{whole}/")}


def _check_same(whole: str, there: Parameterised, here: Parameterised) -> None:
    """Refuse to give learned values to a number of another kind, for which they would mean something else."""
    numbers: Any = (Hyper, Scalar)
    if not isinstance(there, numbers) and type(there) is type(here):
        return  # for tensors the shapes are compared
    if not isinstance(here, type(there)) or replace(here, learn=True) != replace(there, learn=True):  # type: ignore[type-var]
        raise UsageError(f"{whole} was learned as {there}, and is set to {here}: of it, set only {whole}.learn")


def _fitting(there: Tensor, here: Tensor, quantity: Parameterised, rows: bool) -> Tensor:
    """Return a leaf with as many steps, and for a head as many rows, as are needed here."""
    if isinstance(quantity, Hyper | Scalar) and quantity.per_step:
        there = there[torch.arange(len(here)).clamp(max=len(there) - 1)]
    if isinstance(quantity, Hyper) and quantity.per == "element" and rows:
        dim = int(quantity.per_step)
        there = there.index_select(dim, torch.arange(here.shape[dim]) % there.shape[dim])
    return there


def _size(leaf: Tensor) -> str:
    return " x ".join(map(str, leaf.shape)) or "one number"
