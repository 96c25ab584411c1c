"""From a recipe to tasks, a model and a learner: every choice is built by a call of its constructor.

The options of a choice are the arguments of that constructor, converted to the types of its signature: a new model,
source or algorithm needs no code here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import fields, is_dataclass
from inspect import Parameter, signature
from pathlib import Path
from typing import Any, get_type_hints

import torch
from torch import nn

from rbml import algorithms, backbones, data, hypergrad, models
from rbml import tasks as kinds
from rbml.algorithms.options import assemble
from rbml.data import inputs, targets
from rbml.data.inputs.embedded import embedded, embedding, reads
from rbml.data.setting import Setting
from rbml.data.sources.folder import read_classes
from rbml.devices import CPU
from rbml.errors import UsageError, unknown
from rbml.hypergrad import Hypergradient
from rbml.learner import Learner
from rbml.recipe import Choice, Data, Recipe
from rbml.recipe.entries import WITHOUT_LABELS
from rbml.recipe.streams import START
from rbml.strategy.parsing import fitted
from rbml.strategy.settings import changed, frozen
from rbml.tasks import Supervised, TaskSource, generator
from rbml.training.strategy_file import LearnedStrategy, load_strategy
from rbml.tree import Tree

_HIDDEN = (256, 128, 64, 64)
"""The hidden layers of an MLP for pictures, as on Omniglot (Finn et al. 2017, arXiv:1703.03400, appendix A.1)."""

_ELSEWHERE = ("model", "options", "loss", "strategy", "hypergradient", "curriculum", "generator", "return", "self")
"""Arguments of presets that are set by other entries of a recipe, or that only a program can set."""


def setting(recipe: Recipe, source: TaskSource | None = None) -> Setting:
    """Return the setting of a source of tasks; without a source, that of the recipe's pictures with classes."""
    if source is None:
        return Setting(_modality(recipe), targets.CLASSES, recipe.tasks.ways)
    return Setting(source.modality, source.target, source.outputs)


def _modality(recipe: Recipe) -> inputs.Modality:
    """Return the modality of a recipe that has no data: its pictures, or what its backbone reads."""
    pictures = {"size": recipe.inputs.size, "channels": recipe.inputs.channels}
    name = _backbone(recipe)
    kind, facts = reads(name) if name else ("pictures", {})
    inner = inputs.made(kind, pictures if kind == "pictures" else facts)
    return embedding(inner, name, recipe.inputs.size) if recipe.inputs.encoder else inner


def _backbone(recipe: Recipe) -> str:
    """Return the name of the pretrained backbone of a recipe, its encoder or its model; empty if there is none."""
    pretrained = recipe.model.name.partition(":")[0] in backbones.ALL
    return recipe.inputs.encoder or (recipe.model.name if pretrained else "")


def fitting(
    choice: Choice | Data, maker: Callable[..., Any], family: str, hints: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """Return the options of a choice, converted to the types of its constructor's arguments.

    Args:
        choice: what was chosen.
        maker: the constructor: a function or a class.
        family: what error messages call the choice.
        hints: the arguments and their types; ``None`` takes those of the constructor's signature.

    Raises:
        UsageError: if there is no such option (the nearest one is named), or a value does not fit.
    """  # noqa: DOC501  `unknown` returns the UsageError
    hints = _hints(maker) if hints is None else hints
    found = {}
    for name, value in choice.options.items():
        if name not in hints:
            raise unknown(f"option of {choice.name}", name, hints)
        found[name] = fitted(value, hints[name], f"{name} of {choice.name}" if family else name)
    return found


def _hints(maker: Callable[..., Any]) -> dict[str, Any]:
    """Return the arguments of a function or a class with their types."""
    if is_dataclass(maker):
        types = get_type_hints(maker)
        return {one.name: types[one.name] for one in fields(maker)}
    function: Any = vars(maker)["__init__"] if isinstance(maker, type) else maker
    types = get_type_hints(function)
    several = (Parameter.VAR_KEYWORD, Parameter.VAR_POSITIONAL)
    return {name: types.get(name, Any) for name, one in signature(maker).parameters.items() if one.kind not in several}


def _known(facts: Mapping[str, Any], maker: Callable[..., Any]) -> dict[str, Any]:
    """Return the facts for which a constructor has an argument."""
    return {name: value for name, value in facts.items() if name in _hints(maker)}


# ---------------------------------------------------------------------------------------------------- data and tasks


def examples(recipe: Recipe, choice: Data, part: str, root: str | None = None) -> Any:
    """Return the labelled examples of one part of a source.

    Args:
        recipe: the recipe, which decides how pictures are read.
        choice: the source.
        part: ``"train"``, ``"val"`` or ``"test"``; ``"all"`` for every class of a folder.
        root: where data is looked for.

    Raises:
        UsageError: for a part, a split or an option that does not exist.
        DataError: for data that is not there, or cannot be read.
    """
    pictures = {"size": recipe.inputs.size, "channels": recipe.inputs.channels}
    if part == "all" and choice.name == "folder":
        loaded: Any = read_classes(str(choice.path or root), **pictures)
    else:
        load, name = data.ALL[choice.name], _backbone(recipe)
        facts = {**reads(name)[1], **pictures} if name else pictures
        elsewhere = ("part", "root", "split", "seed", "labelled")
        hints = {name: hint for name, hint in _hints(load).items() if name not in elsewhere}
        facts = {**facts, "labelled": not unlabelled(recipe, "train")}
        options = _known(facts, load) | fitting(choice, load, "source", hints)
        place = root if choice.path is None else Path(choice.path).expanduser()
        loaded = load(part, place, split=choice.split, **options)
    if recipe.inputs.encoder:
        return embedded(loaded, recipe.inputs.encoder, recipe.inputs.size)
    return _fitted(loaded, inputs.Pictures(**pictures))


def _fitted(loaded: Any, own: inputs.Pictures) -> Any:
    """Return pictures so that they are made ready in the size and with the channels of the recipe."""
    if not isinstance(loaded.modality, inputs.Pictures) or loaded.modality == own:
        return loaded
    what = f"{own.size}x{own.size}, {'grey' if own.channels == 1 else 'three channels'}"
    return loaded._replace(modality=own, about=f"{loaded.about}; scaled to {what}")


def unlabelled(recipe: Recipe, part: str) -> bool:
    """Return whether the tasks of a part are made without labels: a run without labels has them only for its test."""
    without = recipe.tasks.labels == "none" or recipe.tasks.name in WITHOUT_LABELS
    return without and part in ("train", "val")


def tasks(recipe: Recipe, part: str, root: str | None = None, device: torch.device = CPU, **changes: Any) -> TaskSource:
    """Return the tasks of one part of the data; for several sources, a mixture.

    Args:
        recipe: the recipe.
        part: as in :func:`examples`.
        root: where data is looked for.
        device: where the examples are kept, if they fit (:func:`rbml.data.kept_on`).
        **changes: changes of the recipe by short names, such as another source or another number of queries.

    Raises:
        UsageError: if the tasks cannot be drawn from this data.
        DataError: for data that is not there, or not enough of it.
    """
    recipe = recipe.changed(**changes)
    sources = [_source(recipe, choice, part, root, device) for choice in recipe.data]
    return sources[0] if len(sources) == 1 else kinds.Mixture(sources)


def _source(recipe: Recipe, choice: Data, part: str, root: str | None, device: torch.device) -> TaskSource:
    loaded = data.kept_on(device, examples(recipe, choice, part, root))
    name, chosen = _kind(recipe, part, loaded)
    needs = data.Grouped if name == "per_group" else data.Labelled if name in ("few_shot", *WITHOUT_LABELS) else None
    if needs is not None and not isinstance(loaded, needs):
        has = "classes" if isinstance(loaded, data.Labelled) else "groups with real values"
        raise UsageError(f"{choice.source} has {has}, of which tasks of the kind {name} cannot be drawn")
    maker: Any = kinds.ALL[name]
    numbers = {"ways": recipe.tasks.ways, "shots": recipe.tasks.shots, "queries": recipe.tasks.queries} | choice.sizes
    if part == "val" and isinstance(loaded, data.Labelled) and name == "few_shot":
        numbers["ways"] = min(numbers["ways"], loaded.classes)  # more ways are often trained than validated with
    source: TaskSource = maker(loaded, **_known(numbers, maker), **fitting(chosen, maker, "tasks"))
    return source


def _kind(recipe: Recipe, part: str, loaded: Any) -> tuple[str, Choice]:
    """Return the kind of tasks of a part, and its options: those for training only are for no other part."""
    own, options = recipe.tasks.name, recipe.tasks.options
    usual = "few_shot" if isinstance(loaded, data.Labelled) else "per_group"
    if unlabelled(recipe, part):
        name = own or WITHOUT_LABELS[0]
    elif own in WITHOUT_LABELS or recipe.tasks.labels == "none":
        name, options = usual, {}
    else:
        name = own or usual
    only = getattr(kinds.ALL[name], "training_only", ()) if part != "train" else ()
    return name, Choice(name=name, options={option: value for option, value in options.items() if option not in only})


def supervised(recipe: Recipe, root: str | None = None, device: torch.device = CPU) -> Supervised:
    """Return all training classes at once, for pretraining; arguments as of :func:`tasks`.

    Raises:
        UsageError: if the examples have no classes.
        DataError: for data that is not there, or cannot be read.
    """
    choice, *others = recipe.data
    if unlabelled(recipe, "train"):
        raise UsageError("pretraining needs labels, which this recipe does not use: leave out --pretrain")
    if others:
        raise UsageError(f"pretraining works with one source of data, not {len(recipe.data)}: leave out --pretrain")
    loaded = examples(recipe, choice, "train", root)
    if not isinstance(loaded, data.Labelled):
        raise UsageError(f"pretraining needs classes, which {choice.source} does not have: leave out --pretrain")
    return Supervised(data.kept_on(device, loaded))


# ------------------------------------------------------------------------------------------------- model and learner


def model(recipe: Recipe, setting: Setting) -> nn.Module:
    """Return the model with its initial weights, drawn from PyTorch's global generator.

    Raises:
        UsageError: if the model has no such option, or an option does not fit.
    """
    kind, _, more = recipe.model.name.partition(":")
    maker: Any = models.ALL[kind]
    pictures = {"size": recipe.inputs.size, "channels": recipe.inputs.channels}
    facts: dict[str, Any] = {**pictures, "inputs": recipe.inputs.channels * recipe.inputs.size**2}
    facts |= {"context": 100 if recipe.algorithm.name == "cavia" else 0}
    facts |= {"hidden": _HIDDEN} if setting.modality.kind in ("pictures", "arrays") else {}
    by_data = {"outputs": setting.outputs, "name": more, "kind": setting.modality.kind}
    facts |= setting.modality.facts() | by_data
    hints = {name: hint for name, hint in _hints(maker).items() if name not in {*by_data, *pictures, "inputs"}}
    if setting.modality.kind == "embedded" and "inputs" not in _hints(maker):
        encoder = recipe.inputs.encoder
        raise UsageError(f"{kind} is not for features of {encoder}: use --model adaptor, discriminant_adaptor or mlp")
    if more and "name" not in _hints(maker):
        raise UsageError(f"{kind} has no variants: write {kind}, not {recipe.model.name}")
    made: nn.Module = maker(**(_known(facts, maker) | fitting(recipe.model, maker, "model", hints)))
    if setting.modality.kind == "text" and not {"ids", "named"} & set(signature(made.forward).parameters):
        raise UsageError(
            f"the model {recipe.model.name} does not read sentences: choose --model tfidf or text_embedding, or the "
            "features of an encoder, --encoder minilm"
        )
    return made


def learner(recipe: Recipe, decided: Setting | None = None, body: Tree | None = None) -> Learner:
    """Return the learner before training; the global random state is left unchanged.

    Args:
        recipe: the recipe.
        decided: the setting that follows from the data; ``None`` means the recipe's pictures with classes.
        body: pretrained weights of the model by name; the others start at random.

    Raises:
        UsageError: if the preset or the strategy has no such option.
        CheckpointError: if the strategy file cannot be read, or does not fit the model.
    """
    known = setting(recipe) if decided is None else decided
    algorithms.check_target(recipe.algorithm.name, known.target.kind)
    learned = None if recipe.strategy.file is None else load_strategy(Path(recipe.strategy.file))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(generator(recipe.outer.seed, START).initial_seed())
        start = model(recipe, known)
        start.load_state_dict(start.state_dict() | (body or {}))
        made = algorithms.ALL[recipe.algorithm.name](start, **_options(recipe, known, learned))
        made = _with_strategy(recipe, made, learned)
    if made.steps == 0 and made.strategy.start is None:
        raise UsageError(
            f"steps must be at least 1, not 0: without an inner step {recipe.algorithm.name} adapts nothing"
        )
    return made


def pretrainer(recipe: Recipe, setting: Setting) -> Learner:
    """Return the learner for pretraining: the recipe's model with an output per training class, without inner steps."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(generator(recipe.outer.seed, START).initial_seed())
        return algorithms.pretrain(model(recipe, setting), loss=setting.target.loss, **_execution(recipe))


def engine(choice: Choice) -> Hypergradient:
    """Return the engine that was chosen.

    Raises:
        UsageError: if it has no such option, or an option does not fit.
    """  # noqa: DOC501  `unknown` returns the UsageError
    maker = hypergrad.ALL[choice.name]
    options = dict(choice.options)
    solver = options.pop("solver", None) if "solver" in _hints(maker) else None
    made: dict[str, Any] = {}
    if solver is not None:  # the one option that is an object; it has a table of its own
        if solver not in hypergrad.SOLVERS:
            raise unknown("solver", str(solver), hypergrad.SOLVERS)
        made["solver"] = hypergrad.SOLVERS[solver]()
    chosen: Hypergradient = maker(**made, **fitting(Choice(name=choice.name, options=options), maker, "engine"))
    return chosen


def _execution(recipe: Recipe) -> dict[str, Any]:
    run = recipe.execution
    vectorise = {"auto": "auto", "yes": True, "no": False}[run.vectorise]
    return {
        "chunk": run.chunk,
        "compile": run.compile,
        "vectorise": vectorise,
        "verify": run.verify,
        "calls": max(recipe.outer.meta_steps, 1),
    }


def _options(recipe: Recipe, setting: Setting, learned: LearnedStrategy | None) -> dict[str, Any]:
    """Return the arguments of the preset, besides the model."""
    name, preset = recipe.algorithm.name, algorithms.ALL[recipe.algorithm.name]
    given = recipe.algorithm.options
    own, chosen = _hints(preset), _execution(recipe)
    hints = {one: hint for one, hint in (_hints(assemble) | own).items() if one not in (*_ELSEWHERE, *chosen)}
    if "lr" in given and "lr" not in own:
        raise UsageError(
            f"{name} has no learning rate (lr) to set, because it takes no gradient steps of that kind: leave --lr out "
            f"(rbml list algorithms {name} shows what can be set), or choose another --algorithm"
        )
    chosen |= fitting(recipe.algorithm, preset, "", hints)
    if "steps" not in given and learned is not None:
        chosen["steps"] = learned.steps
    if "loss" not in own:  # a preset with a loss of its own has it among its arguments
        chosen["loss"] = setting.target.loss
    if recipe.engine is not None and recipe.engine.name != "auto":
        chosen["hypergradient"] = engine(recipe.engine)
    return chosen


def _with_strategy(recipe: Recipe, learner: Learner, learned: LearnedStrategy | None) -> Learner:
    choice, lr = recipe.strategy, recipe.algorithm.options.get("lr")
    plan = own = learner.strategy if learned is None else learned.strategy
    if choice.chain is not None or choice.settings:
        plan = changed(own, choice.settings, choice.chain)
        lost = {part.name for part in own.parts if "lr" in part.hypers} - {part.name for part in plan.parts}
        if lr is not None and lost:
            raise UsageError(f"lr={lr} is that of {lost.pop()}, which is not in strategy={choice.chain!r}")
    if learned is not None:
        if lr is not None:
            raise UsageError(f"lr={lr} has no place: {choice.file} says what the strategy's numbers are")
        return learned.onto(learner, choice.freeze, plan)
    plan = frozen(plan) if choice.freeze else plan
    return learner if plan is own else learner.with_strategy(plan)
