"""``rbml adapt``."""

from __future__ import annotations

import shlex
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from rbml.errors import UsageError

if TYPE_CHECKING:
    from rbml.data.batch import Batch
    from rbml.data.setting import Setting
    from rbml.learner import Learner

NOUNS = {"pictures": "picture", "table": "row", "text": "sentence"}
"""The word for one example, by modality."""

_NEXT = {"picture": "IMAGE", "sentence": '"a new sentence"'}
"""What `rbml predict` takes."""

_LISTED = 12  # the largest number of classes that are named one by one
_ONE_BY_ONE = 40  # the largest number of examples that are left out one by one


@click.command("adapt")
@click.argument("run", type=click.Path(path_type=Path))
@click.option(
    "--support",
    type=click.Path(path_type=Path),
    required=True,
    help="Labelled examples: a folder with one folder of pictures per class; for a run on a table, a CSV file.",
)
@click.option("--out", type=click.Path(path_type=Path), required=True, help="The file to write.")
def command(run: Path, support: Path, out: Path) -> None:
    """Adapt the learner of RUN to your own task: any number of classes, any number of examples.

    \b
    rbml adapt runs/glyphs-5w1s-maml --support my_pictures --out mine.rbml
    rbml predict mine.rbml new1.png new2.jpg
    """  # noqa: D301  \b is click's
    import torch

    from rbml.cli.show import console
    from rbml.data.batch import Batch
    from rbml.training import RunFolder
    from rbml.training.adapted_file import save_adapted

    folder = RunFolder(run)
    learner, setting = folder.learner(), folder.setting()
    found = setting.modality.find([support], labelled=True)
    stored = setting.modality.read(found.raw)
    y, names = setting.target.read(found.labels or [], found.targets)
    classes = not y.is_floating_point()
    if classes and len(names) < 2:
        raise UsageError(f"{support} has only one class ({names[0]}): add another one")
    began = time.perf_counter()
    examples = Batch(setting.modality.ready(stored), y)
    adapted = learner.adapt(*examples, ways=len(names) if classes else None)
    with torch.no_grad():
        setting.target.check(adapted(examples.x), examples)
    save_adapted(out, adapted, folder.recipe(), setting, names)
    seconds = time.perf_counter() - began
    noun = NOUNS.get(setting.modality.kind, "example")
    what, each = (f"{len(names)} classes", f": {_counts(y.tolist(), names)}") if classes else (", ".join(names), "")
    console.print(f"Learned {what} from {len(y)} {noun}s in {seconds:.1f} s{each}")
    if len(y) > 1:
        _estimate(learner, examples, setting, len(names) if classes else None, noun)
    if classes and len(names) > setting.outputs and learner.strategy.start is None:
        console.print(
            f"The run was meta-trained with {setting.outputs} ways; for {len(names)} classes a run with "
            f"--ways {len(names)}, or one that makes its head from the support set (--algorithm protomaml), is better."
        )
    console.print(f"Next: rbml predict {shlex.quote(str(out))} {_NEXT.get(noun, 'FILE')}...")


def _counts(labels: Sequence[int], names: Sequence[str]) -> str:
    """Return how many examples each class has."""
    found = Counter(labels)
    counts = [found[label] for label in range(len(names))]
    if len(names) > _LISTED:
        return f"{min(counts)} to {max(counts)} each" if min(counts) < max(counts) else f"{counts[0]} each"
    return ", ".join(f"{name} {count}" for name, count in zip(names, counts, strict=True))


def _estimate(learner: Learner, examples: Batch, setting: Setting, ways: int | None, noun: str) -> None:
    """Say how well examples are predicted that were left out, beside the target's baselines on the same examples."""
    from rbml.cli.show import bar, console
    from rbml.training.evaluator import leave_out, left_out

    groups, what = (None, f"one {noun}") if examples.size <= _ONE_BY_ONE else (10, f"a tenth of the {noun}s")
    metric = setting.target.metrics[0]
    with bar(examples.size, what="checking") as progress:
        score = leave_out(
            learner, examples, setting.target, ways, groups,
            lambda count: progress.advance(progress.task_ids[0], count),
        )  # fmt: skip
    if score is None:
        return
    console.print(
        f"Leaving out {what} at a time, {metric.name} was {metric.shown(score.mean)} over {score.tasks} {noun}s."
    )
    others = {name: left_out(one, examples, metric, groups) for name, one in setting.target.baselines.items()}
    named = {name: one.mean for name, one in others.items() if one is not None}
    listed = ", ".join(f"{name} {metric.shown(value)}" for name, value in named.items())
    console.print(f"On the same examples, what needs no training: {listed}.")
    if ahead := [name for name, value in named.items() if metric.improves(value, score.mean)]:
        console.print(
            f"{' and '.join(ahead)} did better. With so few examples that can be chance; but there is no sign that the "
            "learner helps with this task."
        )
