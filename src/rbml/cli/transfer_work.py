"""What ``rbml transfer`` does: trains the runs, measures every row on every target, and writes the matrix."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import click
import torch

from rbml.cli.devices import chosen_device
from rbml.cli.measuring import in_unit
from rbml.cli.show import bar, console, keep_memory, table
from rbml.cli.sources import checksum, tasks_for, usual_part
from rbml.cli.training import meta_train
from rbml.errors import UsageError
from rbml.recipe import Data, Recipe
from rbml.reports import style
from rbml.reports.transfer import cells, figure, sentences
from rbml.tasks import TaskSource
from rbml.training import Interrupt, RunFolder, files
from rbml.training.curve import Curve, Store, measure, result
from rbml.training.evaluator import describe_sizes, sizes_of
from rbml.training.learned import Learned, load
from rbml.training.rivals import learner_itself, plain_baselines


class Wanted(NamedTuple):
    """What was asked for.

    Attributes:
        recipes: of the runs to train, by source.
        runs: that exist already.
        targets: the sources to test on.
        sizes: the ways, shots and queries that were named.
        episodes: test tasks.
        out: the folder to write to.
        data_root: where data is looked for.
        threads: processor threads.
        again: the command, which goes on where it was stopped.
    """

    recipes: dict[str, Recipe]
    runs: list[Path]
    targets: list[str]
    sizes: dict[str, int]
    episodes: int
    out: Path
    data_root: str | None
    threads: int | None
    again: str


def written(wanted: Wanted) -> dict[str, Any]:
    """Do all of it, print and write the matrix, and return it.

    Raises:
        UsageError: for runs that do not fit together, or targets that do not fit them.
        SystemExit: with 130 or 143 after a signal; what is done is kept.
    """
    keep_memory()
    if wanted.threads:
        torch.set_num_threads(wanted.threads)
    folders = [_trained(name, recipe, wanted) for name, recipe in wanted.recipes.items()]
    rows = {
        name: load(str(folder), device=chosen_device()) for name, folder in zip(wanted.recipes, folders, strict=True)
    }
    rows |= {str(path): load(str(path), device=chosen_device()) for path in wanted.runs}
    first = next(iter(rows.values()))
    if any(one.setting.target.kind != first.setting.target.kind for one in rows.values()):
        raise UsageError("these runs predict different kinds of targets: compare runs of one kind")
    found = _matrix(rows, first, wanted)
    inputs = first.recipe.inputs
    colours = "grey" if inputs.channels == 1 else "colour"
    read = f", all pictures read as {inputs.size}x{inputs.size}, {colours}" if _pictures(first) else ""
    found |= {"subtitle": f"{found['sizes']}, {wanted.episodes} tasks each{read}", "said": sentences(found)}
    files.write_json(wanted.out / "transfer.json", found)
    metric = in_unit(found["metric"])
    table(f"{metric}, mean ± 95 % interval: {found['subtitle']}", ["trained on", *found["targets"]], cells(found))
    for one in ["* trained on other classes of the same source", *found["said"]]:
        console.print(one)
    try:
        drawn = figure(found, f"Learning carried over: {metric}", found["subtitle"])
        files.write_atomically(wanted.out / "transfer.png", style.png(drawn))
    except UsageError as error:  # matplotlib is an extra
        click.echo(f"rbml: no figure: {error}", err=True)
    console.print(f"Written: {wanted.out / 'transfer.png'}, {wanted.out / 'transfer.json'}")
    return found


def _pictures(one: Learned) -> bool:
    return one.setting.modality.kind == "pictures"


def _trained(name: str, recipe: Recipe, wanted: Wanted) -> Path:
    """Train a run to its end, unless that is done; return its folder."""
    folder = RunFolder(wanted.out / "runs" / re.sub(r"[^\w.+=-]+", "_", name).strip("_"))
    if folder.config.is_file() and recipe.engine is not None and recipe.engine.name == "auto":
        recipe = recipe.model_copy(update={"engine": folder.recipe().engine})  # as it was chosen at the beginning
    if folder.config.is_file() and folder.recipe() != recipe:
        raise UsageError(
            f"{folder.path} holds another run than the one asked for now: name another --out, or give it with --runs"
        )
    if folder.saved_step() < recipe.outer.meta_steps:
        meta_train(folder, recipe, wanted.data_root, wanted.threads, wanted.again)
    return folder.path


def _matrix(rows: dict[str, Learned], first: Learned, wanted: Wanted) -> dict[str, Any]:
    """Return the scores of all rows on all targets."""
    columns, total = [], len(wanted.targets) * wanted.episodes
    with Interrupt("Finishing these tasks. Press again to stop at once.") as interrupt, bar(total) as progress:
        for target in wanted.targets:
            progress.update(progress.task_ids[0], description=f"testing on {target}")
            curve, sizes = _curve(rows, first, target, wanted)
            store = Store(wanted.out, curve)
            for _, _, done in measure(curve, store, lambda: interrupt.asked is not None):
                progress.advance(progress.task_ids[0], done / len(curve.methods))
            if interrupt.asked is not None:
                console.print(f"Stopped; what was measured is kept. Go on with: {wanted.again}")
                raise SystemExit(128 + interrupt.asked)
            columns.append((target, curve, store))
    found: dict[str, Any] = {"targets": wanted.targets, "sizes": sizes, "episodes": wanted.episodes}
    names = [method.name for method in columns[0][1].methods]
    body: list[dict[str, Any]] = [{"name": name, "run": name in rows, "cells": []} for name in names]
    for target, curve, store in columns:
        runs = [method for method in curve.methods if method.name in rows]
        others = [method for method in curve.methods if method.name not in rows]
        whole = result(curve, store)
        found["metric"] = whole["metric"]
        scores = {one["name"]: one["by_shots"][0]["score"] for one in whole["methods"]}
        sign = 1 if whole["metric"]["better"] == "higher" else -1
        best = max(others, key=lambda method: sign * scores[method.name]["mean"])
        for row in body:
            cell = {"score": scores[row["name"]], "own": False, "ahead": None, "rival": best.name}
            if row["run"]:
                own = next(method for method in runs if method.name == row["name"])
                pair = result(curve._replace(methods=[own, best]), store)["methods"][1]
                cell["ahead"] = pair["by_shots"][0]["learner_better_by"]
                bare = [f"{one.name}:{one.path}" if one.path else one.name for one in rows[row["name"]].recipe.data]
                cell["own"] = Data.of(target).source in bare
            row["cells"].append(cell)
    return found | {"rows": body}


def _curve(rows: dict[str, Learned], first: Learned, target: str, wanted: Wanted) -> tuple[Curve, str]:
    """Return what is measured on one target, and the sizes of its tasks in words."""
    own = first.recipe.tasks
    sizes = {"ways": own.ways, "shots": own.shots, "queries": own.queries} | wanted.sizes
    if first.setting.target.kind != "classes":
        sizes.pop("ways")

    def tasks(one: Learned, name: str) -> TaskSource:
        part = usual_part(target, one.recipe.source)
        return tasks_for(one.recipe, one.setting, name, part, wanted.data_root, data=target, split=None, **sizes)

    methods = [replace(learner_itself(one.learner, tasks(one, name)), name=name) for name, one in rows.items()]
    plain = methods[0].tasks
    methods += [one for one in plain_baselines(plain) if "neighbour" not in one.name]
    identity = {
        "target": target, "tasks": plain.about, **sizes, "rows": {name: checksum(one) for name, one in rows.items()},
    }  # fmt: skip
    return Curve(methods, (sizes["shots"],), wanted.episodes, 0, identity), describe_sizes(sizes_of(plain))
