"""``rbml adapt``."""

from __future__ import annotations

import shlex
import time
from pathlib import Path

import click
import torch

from rbml.cli.show import bar, console
from rbml.data.sources.folder import read_classes
from rbml.errors import UsageError
from rbml.training import RunFolder
from rbml.training.adapted_file import save_adapted
from rbml.training.evaluator import leave_out

_LISTED = 12  # classes that are named one by one
_ONE_BY_ONE = 40  # pictures that are left out one by one


@click.command("adapt")
@click.argument("run", type=click.Path(path_type=Path))
@click.option("--support", type=click.Path(path_type=Path), required=True, help="One folder of pictures a class.")
@click.option("--out", type=click.Path(path_type=Path), required=True, help="The file to write.")
def command(run: Path, support: Path, out: Path) -> None:
    """Learn your own classes with the learner of RUN: any number of them, any number of pictures each.

    \b
    rbml adapt runs/glyphs-5w1s-maml --support my_pictures --out mine.rbml
    rbml predict mine.rbml new1.png new2.jpg
    """  # noqa: D301  \b is click's
    folder = RunFolder(run)
    learner, recipe = folder.learner(), folder.recipe()
    found = read_classes(support, recipe.inputs.size, recipe.inputs.channels)
    if found.classes < 2:
        raise UsageError(f"{support} has one class folder ({found.names[0]}): add another one to tell it from")
    began = time.perf_counter()
    x = found.x.float() / 255
    adapted = learner.adapt(x, found.y, ways=found.classes)
    save_adapted(out, adapted, recipe, found.names)
    seconds = time.perf_counter() - began
    counts = torch.bincount(found.y, minlength=found.classes).tolist()
    each = ", ".join(f"{name} {count}" for name, count in zip(found.names, counts, strict=True))
    if found.classes > _LISTED:
        each = f"{min(counts)} to {max(counts)} each" if min(counts) < max(counts) else f"{counts[0]} each"
    console.print(f"Learned {found.classes} classes from {len(found.y)} pictures in {seconds:.1f} s: {each}")
    groups, what = (None, "one picture") if len(found.y) <= _ONE_BY_ONE else (10, "a tenth of the pictures")
    with bar(len(found.y), what="checking") as progress:
        right = leave_out(
            learner, x, found.y, found.classes, groups, lambda count: progress.advance(progress.task_ids[0], count)
        )
    if right is not None:
        console.print(f"Leaving out {what} at a time, {right.mean:.0%} of {right.tasks} were classified right.")
    if found.classes > recipe.tasks.ways and learner.strategy.start is None:
        console.print(
            f"The run was meta-trained with {recipe.tasks.ways} ways; for {found.classes} classes one that was "
            f"trained with --ways {found.classes}, or makes its head from the support set (--algorithm protomaml), will do better."
        )
    console.print(f"Next: rbml predict {shlex.quote(str(out))} IMAGE...")
