"""The words and tables of a report, in Markdown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rbml.errors import RbmlError
from rbml.learner import Learner
from rbml.recipe import Recipe
from rbml.reports import style
from rbml.reports.curves import best_validation, journal
from rbml.reports.phi import PhiRow, Summary, TensorRow
from rbml.strategy.serialize import in_words
from rbml.training import RunFolder


def recipe_in_words(run: RunFolder) -> list[str]:
    """Return what the run does and how far it has come, a list item each.

    Raises:
        CheckpointError: if the folder is not that of a run.
    """
    config, recipe = run.read_config(), run.recipe()
    learner = run.fresh()
    sizes = {name: leaf.numel() for name, leaf in learner.named_parameters()}
    theta = sum(size for name, size in sizes.items() if name.startswith("model."))
    adapted = sum(sizes[f"model.{name}"] for name in learner.adapted)
    options = ", ".join(f"{name}: {value}" for name, value in recipe.model.options.items())
    shape = f" ({options})" if options else ""
    part = "" if adapted == theta else f", of which a task adapts {style.count(adapted)}"
    phi = sum(sizes.values()) - theta
    clip = f", gradients clipped at norm {recipe.outer.clip:g}" if recipe.outer.clip else ""
    about = "; ".join(f"{part}: {text}" for part, text in config.get("about", {}).items())
    engine = type(learner.hypergradient).__name__
    lines = {
        "Tasks": f"{recipe.tasks.ways}-way {recipe.tasks.shots}-shot, {recipe.tasks.queries} queries a class, "
        f"from {recipe.data[0].source}"
        + (f" ({about})" if about else ""),
        "Learner": f"{recipe.algorithm.name}, {learner.steps} inner step{'s' * (learner.steps != 1)}, "
        f"hypergradient: {engine}, batch-norm statistics while training: {learner.statistics}",
        "Strategy": _strategy(recipe, learner),
        "Model": f"{recipe.model.name}{shape}, theta0 of {style.count(theta)} parameters{part}; "
        f"phi of {style.count(phi)}",
        "Outer loop": f"Adam, rate {recipe.outer.lr:g} falling to zero along a cosine over "
        f"{style.count(recipe.outer.meta_steps)} steps of {recipe.outer.tasks} tasks{clip}",
        "Seed": str(recipe.outer.seed),
        "Versions": ", ".join(f"{name} {version}" for name, version in config.get("versions", {}).items()),
        "Progress": _progress(run),
    }
    return [f"- **{name}:** {text}" for name, text in lines.items()]


def _strategy(recipe: Recipe, learner: Learner) -> str:
    text = in_words(learner.strategy)
    if recipe.strategy.file is not None:
        text += ", beginning with what another run has learned"
    return text + (", frozen" if recipe.strategy.freeze else "")


def _progress(run: RunFolder) -> str:
    recipe = run.recipe()
    try:
        entries = journal(run)
    except RbmlError as error:
        return sentence(str(error))
    last = entries[-1]["step"]
    seconds = sum(entry.get("seconds", 0.0) for entry in entries)
    text = f"{style.count(last)} of {style.count(recipe.outer.meta_steps)} outer steps, {duration(seconds)}"
    if best := best_validation(entries):
        text += f"; best validation {100 * best['validation']:.1f} % at step {style.count(best['step'])}"
    if last < recipe.outer.meta_steps:
        text += f". Not finished: go on with `rbml train --resume {run.path}`"
    shown = "best validation" if run.best.is_file() else "last checkpoint"
    return f"{text}. What follows is of the {shown}"


def evaluation_table(evaluations: Mapping[str, Any]) -> str:
    """Return a row for every evaluation: accuracy before and after adaptation, mean ± 95 % interval in per cent."""
    kinds = list(dict.fromkeys(which for one in evaluations.values() for which in one["accuracy"]))
    rows = []
    for one in evaluations.values():
        setting = [one["tasks"], one["part"], f"{one['ways']}-way {one['shots']}-shot", style.count(one["episodes"])]
        scores = [one["accuracy"].get(which) for which in kinds]
        first = next(column for column in scores if column)
        cells = [score(column[-1]) if column else "" for column in scores]
        rows.append([*setting, str(len(first) - 1), score(first[0]), *cells])
    head = ["source", "part", "tasks", "episodes", "inner steps", f"before ({kinds[0]})", *kinds]
    return "Accuracy in %, mean ± 95 % interval over tasks.\n\n" + table(head, rows)


def phi_in_words(rows: Sequence[PhiRow], tensors: Sequence[TensorRow] = ()) -> str:
    """Return the tables of phi; or that nothing of it is learned."""
    if not rows and not tensors:
        return "Nothing of the strategy is learned: its numbers stay as the recipe sets them.\n"
    numbers = "Mean (lowest to highest), in real values.\n\n" + table(*phi_cells(rows)) if rows else ""
    norms = "Tensors, by their norm: at the start, now, and of the difference.\n\n" + table(*tensor_cells(tensors))
    return "\n".join([numbers] * bool(rows) + [norms] * bool(tensors))


def phi_cells(rows: Sequence[PhiRow], start: bool = True) -> tuple[list[str], list[list[str]]]:
    """Return head and rows of the table of learned numbers, with or without where they started."""
    head = ["number", "layer", "one value", "values", *(["start"] * start), "learned", "std", "below 0", "unit"]
    cells = []
    for row in rows:
        below = f"{100 * row.learned.negative:.3g} %"
        what = [f"`{row.name}`", row.layer, row.granularity, style.count(row.values)]
        before = [spread(row.start)] * start
        cells.append([*what, *before, spread(row.learned), f"{row.learned.std:.3g}", below, row.unit])
    return head, cells


def tensor_cells(rows: Sequence[TensorRow], start: bool = True) -> tuple[list[str], list[list[str]]]:
    """Return head and rows of the table of learned tensors, with or without where they started."""
    head = ["tensors", "tensor", "shape", *(["start"] * start), "learned", *(["moved"] * start), "from the identity"]
    cells = []
    for row in rows:
        what = [f"`{row.name}`", row.tensor, " x ".join(map(str, row.shape)) or "1"]
        far = "" if row.identity is None else f"{row.identity[0]:.3g} to {row.identity[1]:.3g}"
        far = far if start or row.identity is None else f"{row.identity[1]:.3g}"
        moved = [f"{row.moved:.3g}" + (f" ({100 * row.moved / row.start:.3g} %)" if row.start else "")] * start
        cells.append([*what, *([f"{row.start:.3g}"] * start), f"{row.learned:.3g}", *moved, far])
    return head, cells


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    r"""Return a Markdown table.

    >>> print(table(["a", "b"], [["1", "x|y"]]))
    | a | b |
    | --- | --- |
    | 1 | x\|y |
    <BLANKLINE>
    """
    lines = [head, ["---"] * len(head), *rows]
    return "".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |\n" for line in lines)


def score(one: Mapping[str, Any]) -> str:
    """Return an accuracy with its interval, in per cent."""
    return f"{100 * one['mean']:.1f} ± {100 * one['interval']:.1f}"


def spread(summary: Summary) -> str:
    """Return a mean with its extremes, or the value alone where they are one."""
    if summary.min == summary.max:
        return f"{summary.mean:.3g}"
    return f"{summary.mean:.3g} ({summary.min:.3g} to {summary.max:.3g})"


def duration(seconds: float) -> str:
    """Return a time as a person writes it.

    >>> duration(42.4), duration(754), duration(7320)
    ('42 s', '13 min', '2 h 2 min')
    """
    if seconds < 100:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 100 else f"{minutes // 60} h {minutes % 60} min"


def sentence(text: str) -> str:
    """Return an error's message as a sentence."""
    return text[:1].upper() + text[1:].rstrip(".") + "."
