"""The text and tables of a report, in Markdown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rbml.errors import RbmlError
from rbml.learner import Learner
from rbml.reports import style
from rbml.reports.curves import best_validation, journal
from rbml.reports.evaluations import inner_steps, shown_metric, source_name
from rbml.reports.facts import Facts, facts
from rbml.reports.overfitting import stopped_early
from rbml.reports.phi import PhiRow, Summary, TensorRow
from rbml.reports.text import duration, sentence, table
from rbml.strategy.serialize import described
from rbml.training import RunFolder, Score
from rbml.training.evaluator import describe_sizes, describe_steps, normalises


def recipe_summary(run: RunFolder) -> list[str]:
    """Return a list, in Markdown, of what the run does and how far it has come.

    Raises:
        CheckpointError: if the folder is not a run folder.
    """
    config, told, learner = run.read_config(), facts(run), run.fresh()
    sizes = {name: leaf.numel() for name, leaf in learner.named_parameters()}
    theta = sum(size for name, size in sizes.items() if name.startswith("model."))
    adapted = sum(sizes[f"model.{name}"] for name in learner.adapted)
    part = "" if adapted == theta else f", of which a task adapts {style.count(adapted)}"
    phi = sum(sizes.values()) - theta
    clip = f", gradients clipped at norm {told.clip:g}" if told.clip else ""
    about = "; ".join(f"{part}: {text}" for part, text in config.get("about", {}).items())
    engine = type(learner.hypergradient).__name__
    lines = {
        "Tasks": f"{told.tasks}, from {told.source}" + (f" ({about})" if about else ""),
        "Learner": f"{told.algorithm}, {describe_steps(learner.steps)}, hypergradient: {engine}"
        + (f", batch-norm statistics while training: {learner.statistics}" if normalises(learner) else ""),
        "Strategy": _strategy(told, learner),
        "Model": f"{told.model}, theta0 of {style.count(theta)} parameters{part}; phi of {style.count(phi)}",
        "Outer loop": f"Adam, rate {told.outer_lr:g} falling to zero along a cosine over "
        f"{style.count(told.meta_steps)} steps of {told.tasks_per_step} tasks{clip}",
        "Seed": str(told.seed),
        "Versions": ", ".join(f"{name} {version}" for name, version in config.get("versions", {}).items()),
        "Progress": _progress(run),
    }
    return [f"- **{name}:** {text}" for name, text in lines.items()]


def _strategy(told: Facts, learner: Learner) -> str:
    text = described(learner.strategy)
    if told.begins_with_learned:
        text += ", beginning with the learned values of another run"
    return text + (", frozen" if told.frozen else "")


def _progress(run: RunFolder) -> str:
    told = facts(run)
    try:
        entries = journal(run)
    except RbmlError as error:
        return sentence(str(error))
    last = entries[-1]["step"]
    seconds = sum(entry.get("seconds", 0.0) for entry in entries)
    text = f"{style.count(last)} of {style.count(told.meta_steps)} outer steps, {duration(seconds)}"
    if best := best_validation(entries, told.metric):
        shown = told.metric.shown(best["validation"]).replace("%", " %")
        text += f"; best validation {shown} at step {style.count(best['step'])}"
    if stopped_early(entries, told):
        text += f". Ended early: {told.patience} validations in a row were not better"
    elif last < told.meta_steps:
        text += f". Not finished: go on with `rbml train --resume {run.path}`"
    shown = "best validation" if run.best.is_file() else "last checkpoint"
    return f"{text}. The rest of this page is about the {shown}"


def evaluation_table(evaluations: Mapping[str, Any]) -> str:
    """Return one table per metric, with one row per evaluation: before and after adaptation."""
    tables: dict[tuple[str, str], list[Mapping[str, Any]]] = {}
    for one in evaluations.values():
        metric = shown_metric(one)
        tables.setdefault((metric["name"], metric["unit"]), []).append(one)
    return "\n".join(_evaluations_of(name, unit, found) for (name, unit), found in tables.items())


def _evaluations_of(name: str, unit: str, evaluations: Sequence[Mapping[str, Any]]) -> str:
    kinds = list(dict.fromkeys(which for one in evaluations for which in one[name]))
    rows = []
    adapts = any(inner_steps(one) for one in evaluations)
    for one in evaluations:
        sizes = describe_sizes({key: one[key] for key in ("ways", "shots") if key in one})
        setting = [source_name(one["tasks"]), one["part"], sizes, style.count(one["episodes"])]
        scores = [one[name].get(which) for which in kinds]
        first = next(column for column in scores if column)
        cells = [Score(**column[-1]).shown(unit) if column else "" for column in scores]
        before = [str(len(first) - 1), Score(**first[0]).shown(unit)] if adapts else []
        rows.append([*setting, *before, *cells])
    named = kinds if len(kinds) > 1 else ["after" if adapts else name]  # without batch norm there is one kind
    before = ["inner steps", f"before ({kinds[0]})" if len(kinds) > 1 else "before"] if adapts else []
    title = f"{name[:1].upper()}{name[1:]}" + (f" in {unit}" if unit else "")
    groups = {column[-1].get("groups") for one in evaluations for column in one[name].values()} - {None}
    over = "the groups that the tasks come from" if groups else "tasks"
    head = ["source", "part", "tasks", "episodes", *before, *named]
    return f"{title}, mean ± 95 % interval over {over}.\n\n" + table(head, rows)


def phi_summary(rows: Sequence[PhiRow], tensors: Sequence[TensorRow] = ()) -> str:
    """Return the tables of phi, or a sentence if nothing of it is learned."""
    if not rows and not tensors:
        return "Nothing of the strategy is learned: its numbers stay as the recipe sets them.\n"
    numbers = "Mean (lowest to highest) of the values.\n\n" + table(*phi_cells(rows)) if rows else ""
    norms = "Norms of tensors: at the start, now, and of the difference.\n\n" + table(*tensor_cells(tensors))
    return "\n".join([numbers] * bool(rows) + [norms] * bool(tensors))


def phi_cells(rows: Sequence[PhiRow], start: bool = True) -> tuple[list[str], list[list[str]]]:
    """Return the head and the rows of the table of learned numbers, with or without their start."""
    head = ["number", "layer", "one value", "values", *(["start"] * start), "learned", "std", "below 0", "unit"]
    cells = []
    for row in rows:
        below = f"{100 * row.learned.negative:.3g} %"
        what = [f"`{row.name}`", row.layer, row.granularity, style.count(row.values)]
        before = [spread(row.start)] * start
        cells.append([*what, *before, spread(row.learned), f"{row.learned.std:.3g}", below, row.unit])
    return head, cells


def tensor_cells(rows: Sequence[TensorRow], start: bool = True) -> tuple[list[str], list[list[str]]]:
    """Return the head and the rows of the table of learned tensors, with or without their start."""
    head = ["tensors", "tensor", "shape", *(["start"] * start), "learned", *(["moved"] * start), "from the identity"]
    cells = []
    for row in rows:
        what = [f"`{row.name}`", row.tensor, " x ".join(map(str, row.shape)) or "1"]
        far = "" if row.identity is None else f"{row.identity[0]:.3g} to {row.identity[1]:.3g}"
        far = far if start or row.identity is None else f"{row.identity[1]:.3g}"
        moved = [f"{row.moved:.3g}" + (f" ({100 * row.moved / row.start:.3g} %)" if row.start else "")] * start
        cells.append([*what, *([f"{row.start:.3g}"] * start), f"{row.learned:.3g}", *moved, far])
    return head, cells


def spread(summary: Summary) -> str:
    """Return a mean with its extremes, or only the value if they are all equal."""
    if summary.min == summary.max:
        return f"{summary.mean:.3g}"
    return f"{summary.mean:.3g} ({summary.min:.3g} to {summary.max:.3g})"
