"""The short names of a recipe's entries: those of the command line, of TOML files and of the recipes of rbml 0.1.0."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

Group = Literal["Tasks", "Model", "Learner", "Strategy", "Training across tasks", "Execution"]


@dataclass(frozen=True)
class Entry:
    """One entry of a recipe that has a short name.

    Attributes:
        path: its place in the tree, with dots.
        kind: the type of its value.
        group: under which heading the help shows it.
        text: its description.
        default: what the help shows as default if the tree has no value.
        least: the smallest allowed number.
        family: the family of :mod:`rbml.catalogue` whose names are allowed.
        choices: the allowed words.
    """

    path: str
    kind: type
    group: Group
    text: str
    default: str = ""
    least: float | None = None
    family: str = ""
    choices: tuple[str, ...] = ()


ENTRIES: dict[str, Entry] = {
    "split": Entry("data.split", str, "Tasks", "how classes are divided into train, val and test", "the source's own"),
    "task": Entry("tasks.name", str, "Tasks", "the kind of task", "the one that fits the source", family="tasks"),
    "ways": Entry("tasks.ways", int, "Tasks", "classes of a task"),
    "shots": Entry("tasks.shots", int, "Tasks", "support examples per class, or per task where there are no classes"),
    "queries": Entry("tasks.queries", int, "Tasks", "query examples per class while training"),
    "labels": Entry("tasks.labels", str, "Tasks", "given, or none: tasks are made from the pictures alone, labels are "
                    "ignored; a folder may then be one pile of pictures (--task umtra, aal or cactus)", "given",
                    choices=("given", "none")),
    "augment": Entry("tasks.options.augment", str, "Tasks", "random changes of the training pictures: none, auto (what "
                     "is sensible for the source), or names such as crop,flip,colour", "none; auto without labels"),
    "order": Entry("tasks.options.order", str, "Tasks", "how support and queries are divided: random, or time"
                   " (the earliest are the support set); for data in groups", "random"),
    "group": Entry("data.options.group", str, "Tasks", "the column that names the group of each row: one group is one "
                   "task; for a table"),
    "target": Entry("data.options.target", str, "Tasks", "the column to predict; for a table"),
    "size": Entry("inputs.size", int, "Tasks", "height and width of the pictures in pixels", "28, or what "
                  "the source or backbone needs"),
    "channels": Entry("inputs.channels", int, "Tasks", "1 for grey pictures, 3 for colour", "1; 3 for a folder of "
                      "colour pictures"),
    "encoder": Entry("inputs.encoder", str, "Model", "a pretrained backbone, which stays as it is; the model learns on "
                     "its features", "none", family="backbones"),
    "algorithm": Entry("algorithm.name", str, "Learner", "the algorithm", family="algorithms"),
    "lr": Entry("algorithm.options.lr", float, "Learner", "the size of an inner step, or where it starts",
                "the algorithm's"),
    "steps": Entry("algorithm.options.steps", int, "Learner", "steps in which a task is learned (inner steps)",
                   "the algorithm's, or those of the strategy file", least=0),
    "shared_head": Entry("algorithm.options.shared_head", bool, "Learner",
                         "learn one row of the head from which every class starts", "no"),
    "statistics": Entry("algorithm.options.statistics", str, "Learner",
                        "which statistics batch norm uses on queries while training: transductive (their own) or "
                        "inductive (those of the support set)", "transductive",
                        choices=("transductive", "inductive")),
    "strategy": Entry("strategy.chain", str, "Strategy", "the parts of the strategy by name, in order"),
    "strategy_file": Entry("strategy.file", str, "Strategy",
                           "a file with a learned strategy to begin with, written by rbml strategy export", "none"),
    "freeze_strategy": Entry("strategy.freeze", bool, "Strategy", "learn nothing of the strategy"),
    "engine": Entry("engine.name", str, "Learner", "how the hypergradient is computed; auto: what rbml explain chooses",
                    "the algorithm's", family="engines"),
    "model": Entry("model.name", str, "Model", "the model", family="models"),
    "dropout": Entry("model.options.dropout", float, "Model", "the share of features that is dropped at random while "
                     "training across tasks, against overfitting; for conv4 and mlp", "0", least=0),
    "filters": Entry("model.options.filters", int, "Model", "filters of each block of conv4, or channels of each "
                     "convolution of oml and anml", "64; 256", least=1),
    "norm": Entry("model.options.norm", str, "Model", "the norm of conv4: batch, group, layer or none", "batch"),
    "pool": Entry("model.options.pool", str, "Model", "how conv4 halves the size of its maps: stride or max", "stride"),
    "context": Entry("model.options.context", int, "Model", "context parameters",
                     "100 for cavia, which adapts them, else 0", least=0),
    "start": Entry("outer.start", str, "Training across tasks", "the run whose theta0 this one begins with, and "
                   "whose phi if the strategy is the same; what is not set is as in that run", "none"),
    "meta_steps": Entry("outer.meta_steps", int, "Training across tasks", "outer steps"),
    "pretrain": Entry("outer.pretrain", int, "Training across tasks",
                      "supervised steps on all training classes at once, before the outer steps begin; the body's "
                      "weights go into the learner"),
    "tasks": Entry("outer.tasks", int, "Training across tasks", "tasks per outer step"),
    "outer_lr": Entry("outer.lr", float, "Training across tasks",
                      "the learning rate of Adam at the start; it falls to zero along a cosine"),
    "clip": Entry("outer.clip", float, "Training across tasks", "the largest norm of a meta-gradient; 0: no clipping"),
    "seed": Entry("outer.seed", int, "Training across tasks", "the seed of all random numbers"),
    "validate_every": Entry("outer.validate_every", int, "Training across tasks", "outer steps between validations"),
    "validate_tasks": Entry("outer.validate_tasks", int, "Training across tasks", "tasks per validation"),
    "patience": Entry("outer.patience", int, "Training across tasks", "end the run early after so many validations "
                      "without a better one; 0: never"),
    "keep_best": Entry("outer.keep_best", int, "Training across tasks", "how many of the best learners by validation "
                       "to keep, for rbml evaluate --ensemble"),
    "save_every": Entry("outer.save_every", int, "Training across tasks", "outer steps between checkpoints"),
    "chunk": Entry("execution.chunk", int, "Execution", "tasks that run side by side; fewer need less memory"),
    "compile": Entry("execution.compile", str, "Execution", "prepare the meta-gradient before training: trace (a list "
                     "of operators, after some seconds), whole (compiled: a minute or more, for few inner steps), step "
                     "(one inner step compiled: for many), or auto (what ends soonest, by measurement); whole and step "
                     "need a C++ compiler", choices=("no", "trace", "whole", "step", "auto")),
    "vectorise": Entry("execution.vectorise", str, "Execution", "compute an operator for all tasks in one call: yes, "
                       "no (each task by itself, several at the same time on the threads there are), or auto (yes if "
                       "the operators are small)", choices=("auto", "yes", "no")),
    "verify": Entry("execution.verify", bool, "Execution",
                    "check the first meta-gradient in a second way, once, before training on it"),
}  # fmt: skip
"""By short name, in the order of the help."""

WITHOUT_LABELS = ("umtra", "aal", "cactus")
"""The kinds of tasks that need no labels; the first is the usual one."""

TABLES = {
    "data": "data.options",
    "task": "tasks.options",
    "model": "model.options",
    "learner": "algorithm.options",
    "strategy": "strategy.settings",
    "engine": "engine.options",
}
"""The tables that ``--set TABLE.OPTION=VALUE`` and TOML files can set, with their place in the tree."""

RENAMED = {"settings": "strategy.settings", "options": "algorithm.options", "engine_options": "engine.options"} | {
    f"{table}_options": path for table, path in TABLES.items() if table in ("data", "task", "model")
}
"""Short names of whole tables of options."""

_CHANGED_WITH_NAME = ("model", "engine")


def place(name: str) -> str | None:
    """Return the place of a short name in the tree; ``None`` for an unknown name."""
    return ENTRIES[name].path if name in ENTRIES else RENAMED.get(name)


def short(path: Iterable[object]) -> str:
    """Return the short name of a place, or the place itself if it has none."""
    address = ".".join(str(one) for one in path)
    return next((name for name, entry in ENTRIES.items() if entry.path == address), address)


def put(tree: dict[str, Any], path: str, value: Any) -> None:
    """Set one place of a tree of plain values; ``None`` removes an option."""
    *above, last = path.split(".")
    for name in above:
        tree[name] = dict(tree.get(name) or {})
        tree = tree[name]
    if last == "name" and tree.get("name", value) != value:
        tree["options"] = {}  # they belong to the former model or engine
    if value is None and above[-1:] == ["options"]:
        tree.pop(last, None)
    elif isinstance(value, Mapping) and isinstance(tree.get(last), Mapping):
        tree[last] = {**tree[last], **value}
    else:
        tree[last] = value


def value_at(tree: Any, path: str) -> Any:
    """Return the value at a place of a tree of plain values; ``None`` if there is none."""
    for name in path.split("."):
        tree = tree.get(name) if isinstance(tree, Mapping) else None
    return tree
