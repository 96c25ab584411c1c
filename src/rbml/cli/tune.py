"""``rbml tune``."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import click

from rbml.cli.topics import FIRST, TopicCommand

if TYPE_CHECKING:
    from rbml.training.tune import Tuned
    from rbml.training.tune.job_data import JobData
    from rbml.training.tune.tuning import Gain


TOPICS = {
    FIRST: ["out", "target", "classes", "seconds", "resume"],
    "The training runs": ["encoder", "steps", "batch", "starts"],
    "The tuning": ["how", "seed"],
    "Other options": ["data_root"],
}


@click.command("tune", cls=TopicCommand, topics=TOPICS)
@click.argument("place", metavar="TABLE.csv|FOLDER|TEXTS.csv|SOURCE")
@click.option("--out", type=click.Path(path_type=Path), required=True, help="The file of the final model to write.")
@click.option("--target", default="", help="Of a table: the column to predict.")
@click.option("--classes", is_flag=True, help="The target names classes, although it consists of numbers.")
@click.option("--encoder", default="", help="Of pictures or texts: the pretrained backbone on whose features to train.")
@click.option("--seconds", type=click.FloatRange(1), default=60.0, show_default=True, help="How long to tune.")
@click.option("--starts", type=click.IntRange(1), default=3, show_default=True, help="Runs that each candidate gets.")
@click.option("--steps", type=click.IntRange(1), help="Steps of a training run.  [default: 20 passes over the data]")
@click.option("--batch", type=click.IntRange(1), default=32, show_default=True, help="Examples per step.")
@click.option("--how", type=click.Choice(["auto", "whole", "online"]), default="auto", show_default=True,
    help="Differentiate whole runs, or a short window that moves along one run, which is cheaper.",
)  # fmt: skip
@click.option("--resume", is_flag=True, help="Go on with a call that was interrupted.")
@click.option("--seed", type=int, default=0, show_default=True, help="Of the division into three parts and the runs.")
@click.option("--data-root", metavar="FOLDER", help="Where a known source is looked for.  [default: $RBML_DATA]")
def command(
    place: str, out: Path, target: str, classes: bool, encoder: str, seconds: float, starts: int, steps: int | None,
    batch: int, how: Literal["auto", "whole", "online"], resume: bool, seed: int,
    data_root: str | None,
) -> None:  # fmt: skip
    """Train a model on your own data, and tune how it is trained: learning rates, weight decay, momentum, schedule.

    Besides: label smoothing, from --seconds 180 on dropout, and from 900 on how far grey pictures are warped. All these
    numbers, often more than 50, are tuned together: a few runs find out where to begin, and then the validation loss at
    the end of a training run is differentiated through all of its steps. Your data is divided into three parts: to
    train on, to tune on, and a third one that gives the numbers shown. Beside them stands the same model with the usual
    settings. Ctrl-C keeps the best so far. The data may also be a known source (rbml list data).

    \b
    rbml tune houses.csv --target price --out houses.rbml
    rbml tune my_photos --out photos.rbml --seconds 300
    rbml tune messages.csv --out messages.rbml
    rbml tune digits --out digits.rbml
    rbml predict houses.rbml new_houses.csv
    """  # noqa: D301  \b is click's
    from rbml.cli.devices import chosen_device
    from rbml.cli.reading import reading_shown
    from rbml.cli.show import bar, console, errors
    from rbml.training.adapted_file import save_adapted
    from rbml.training.interrupt import Interrupt
    from rbml.training.tune import Progress, tune
    from rbml.training.tune.job_data import read

    device = chosen_device()
    with reading_shown():
        data = read(place, target, classes, encoder, seed, data_root)
    state = out.with_name(f"{out.name}.tuning")
    if not resume:
        state.unlink(missing_ok=True)
    with Interrupt("stopping: validating the best so far") as interrupt, bar(int(seconds), what="tuning") as progress:

        def watch(now: Progress) -> None:
            shown = f"change {now.changes}, validation loss {now.loss:.4f}"
            progress.update(progress.task_ids[0], completed=min(int(now.seconds), int(seconds)), now=shown)
            if not errors.is_terminal and now.changes % 25 == 1:
                errors.print(f"{now.seconds:.0f} s: {shown}")

        found = tune(
            data.model().to(device), data.examples, target=data.setting.target, seconds=seconds, starts=starts,
            steps=steps, size=batch, how=how, seed=seed, state=state, watch=watch,
            asked=lambda: interrupt.asked is not None,
        )  # fmt: skip
    save_adapted(out, found.adapted, data.recipe, data.setting, data.names)
    if not found.stopped:
        state.unlink(missing_ok=True)
    _say(found, data)
    if found.stopped:
        console.print("Interrupted: the same command with --resume goes on.")
    console.print(f"Next: rbml predict {shlex.quote(str(out))} FILE...")


def _say(found: Tuned, data: JobData) -> None:
    """Print what was chosen, and the two rows of the third part."""
    from rbml.cli.show import console, table

    train, val, test = found.sizes
    numbers = sum(leaf.numel() for leaf in found.candidates[0].phi.values())
    console.print(
        f"{train} examples to train on, {val} to tune on, {test} in the third part; {numbers} numbers, "
        f"{found.history[-1].changes} changes by {'whole runs' if found.how == 'whole' else 'a window along a run'}."
    )
    metrics = {metric.name: metric for metric in data.setting.target.metrics}
    rows = []
    for name, values in (("tuned", found.test), ("the usual settings", found.usual)):
        cells = [metrics[key].shown(value) if key in metrics else f"{value:.4f}" for key, value in values.items()]
        rows.append([name, *cells])
    table("on the third part, trained on the other two; the mean of several starts", ["settings", *found.test], rows)
    if found.candidates[0].name == "start":
        console.print("Nothing was better than the usual settings on runs that were not tuned on: they are kept.")
    else:
        console.print(compared(found.gain))
    if found.smooth is not None and found.smooth.rough and not (found.gain.clear and found.gain.mean > 0):
        console.print(
            f"Note: {found.smooth.finding}. Fewer --steps, or --how online, which looks at a few steps only, may help."
        )


def compared(gain: Gain) -> str:
    """Return in words whether the two rows differ by more than chance."""
    by = f"by {abs(gain.mean):.3g} ± {gain.interval:.2g} (95 % interval, over examples and starts)"
    if gain.clear:
        return f"The tuned loss is {'lower' if gain.mean > 0 else 'higher'} {by}."
    return f"The losses differ {by}, which may be chance."
