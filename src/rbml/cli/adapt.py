"""``rbml adapt``."""

from __future__ import annotations

import shlex
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from rbml.cli.topics import FIRST, TopicCommand
from rbml.errors import CheckpointError, RbmlError, UsageError

if TYPE_CHECKING:
    from rbml.data.batch import Batch, Inputs
    from rbml.data.inputs import RawExamples
    from rbml.training.adapting import Outcome
    from rbml.training.learned import Learned
    from rbml.training.usual import Prior

NOUNS = {"pictures": "picture", "table": "row", "text": "sentence"}
"""The word for one example, by modality."""

NEXT = {"picture": "IMAGE", "sentence": '"a new sentence"'}
"""What `rbml predict` takes."""

_LISTED = 12  # the largest number of classes that are named one by one


_TOPICS = {
    FIRST: ("support", "out", "estimating"),
    "More examples": ("unlabelled", "store"),
}


@click.command("adapt", cls=TopicCommand, topics=_TOPICS)
@click.argument("learner", metavar="RUN|backbone:NAME|FILE")
@click.option(
    "--support",
    type=click.Path(path_type=Path),
    required=True,
    help="Labelled examples: a folder with one folder of pictures per class; for a table or texts, a CSV file.",
)
@click.option("--out", type=click.Path(path_type=Path), required=True, help="The file to write.")
@click.option(
    "--unlabelled",
    type=click.Path(path_type=Path),
    help="More examples of your own, without labels: a folder of pictures, or a file of sentences. They are learned "
    "from as well, with the classes that are predicted for them, where that helps with labelled examples that are left "
    "out; with one of each class, where it helps on validation tasks of the run.",
)
@click.option(
    "--estimate/--no-estimate",
    "estimating",
    default=True,
    help="Whether to find out how well new examples will be predicted, by learning several times.  [default: yes]",
)
@click.option(
    "--store",
    type=click.Choice(["examples", "sums"]),
    help="What the file keeps, so that it can learn more later: your examples, or only sums of their features. From "
    "sums it goes on exactly, without the earlier examples, and says what that cost the earlier classes; this needs a "
    "run that was trained with --algorithm streaming_lda.  [default: as FILE; else examples]",
)
def command(
    learner: str, support: Path, out: Path, unlabelled: Path | None, estimating: bool, store: str | None
) -> None:
    """Learn your own task from a few labelled examples: any number of classes, any number of examples.

    The learner is that of a RUN, or a pretrained backbone, which needs no run of your own. A FILE that adapt wrote
    learns the new examples, and new classes, in addition to those that it knows. With --store sums it keeps no
    examples, and learns more without the earlier ones.

    \b
    rbml adapt runs/glyphs-5w1s-maml --support my_pictures --out mine.rbml
    rbml adapt backbone:efficientnet_lite0 --support my_photos --out mine.rbml
    rbml adapt runs/glyphs-5w1s-maml --support my_pictures --unlabelled more_pictures --out mine.rbml
    rbml adapt mine.rbml --support more_pictures --out new.rbml
    rbml adapt runs/glyphs-5w1s-streaming_lda --support my_pictures --store sums --out mine.rbml
    rbml predict mine.rbml new1.png new2.jpg
    """  # noqa: D301  \b is click's
    from rbml.cli import growing
    from rbml.cli.devices import chosen_device
    from rbml.cli.show import console
    from rbml.data.batch import Batch
    from rbml.training import adapting
    from rbml.training.concerns import plain
    from rbml.training.learned import load

    learned = load(learner, device=chosen_device())
    modality, target = learned.setting.modality, learned.setting.target
    found = modality.find([support], labelled=True)
    if _keeps_sums(learned, store, unlabelled):
        growing.command(learned, found, out, estimating)
        return
    stored = modality.read(found.raw)
    began = time.perf_counter()
    noun = NOUNS.get(plain(modality).kind, "example")
    if learned.file is None:
        y, names = target.read(found.labels or [], found.targets)
        if not y.is_floating_point() and len(names) < 2:
            raise UsageError(f"{support} has only one class ({names[0]}): add another one")
        examples = Batch(stored, y)
    elif learned.file.kept is None:
        raise CheckpointError(f"{learner} does not hold its examples: make it again from its run with rbml adapt")
    else:
        examples, names = adapting.joined(learned, stored, found.labels or [])
    warn(learned, found, stored, noun)
    beside = None if unlabelled is None else _beside(learned, unlabelled, examples, len(names), noun)
    prior, outcome = _adapted(learned, found, examples, names, estimating, beside)
    outcome.save(out)
    seconds = time.perf_counter() - began
    classes = not examples.y.is_floating_point()
    what, each = ", ".join(names), ""
    if classes:
        what, each = f"{len(names)} classes", f": {counted(Counter(examples.y.tolist()), names)}"
    console.print(f"Learned {what} from {examples.size} {noun}s in {seconds:.1f} s{each}")
    _say_estimate(outcome, prior, noun, estimating)
    if classes and len(names) > learned.setting.outputs and learned.learner.strategy.start is None:
        console.print(
            f"The run was meta-trained with {learned.setting.outputs} ways; for {len(names)} classes a run with "
            f"--ways {len(names)}, or one that makes its head from the support set (--algorithm protomaml), is better."
        )
    console.print(f"Next: rbml predict {shlex.quote(str(out))} {NEXT.get(noun, 'FILE')}...")


def _keeps_sums(learned: Learned, store: str | None, unlabelled: Path | None) -> bool:
    """Return whether the file is to keep sums in place of examples.

    Raises:
        UsageError: for what does not go together.
    """
    kept = None if learned.file is None else learned.file.kept
    only_sums = kept is not None and kept.examples is None
    if only_sums and store == "examples":
        raise UsageError(
            f"{learned.name} keeps sums and no examples, so that the new file cannot keep them: leave --store out, or "
            "start again from the run with all examples"
        )
    if (only_sums or store == "sums") and unlabelled is not None:
        raise UsageError("--unlabelled needs the labelled examples again and again: with --store sums leave it out")
    if store == "sums" and learned.file is not None and kept is None:
        raise CheckpointError(f"{learned.name} does not hold its examples: make it again from its run with rbml adapt")
    return only_sums or store == "sums"


def counted(found: Mapping[int, int], names: Sequence[str]) -> str:
    """Return how many examples each class has."""
    counts = [found[label] for label in range(len(names))]
    if len(names) > _LISTED:
        return f"{min(counts)} to {max(counts)} each" if min(counts) < max(counts) else f"{counts[0]} each"
    return ", ".join(f"{name} {count}" for name, count in zip(names, counts, strict=True))


def warn(learned: Learned, found: RawExamples, stored: Any, noun: str) -> None:
    """Say what was skipped, and what is odd about the examples."""
    from rbml.cli.show import console
    from rbml.training.concerns import concerns, listed
    from rbml.training.usual import look_of

    if found.skipped:
        console.print(f"Skipped, as they are no {noun}s: {listed(found.skipped)}")
    labels = found.labels if learned.setting.target.kind == "classes" else None
    modality = learned.setting.modality
    for sentence in concerns(modality, found.raw, found.names, labels):
        console.print(f"Warning: {sentence}.")
    look = None if learned.run is None else look_of(learned.run)
    ready = modality.ready(stored)
    if look is not None and not isinstance(ready, dict) and look.is_foreign(ready):
        console.print(f"Warning: the {noun}s look unlike those that the run was trained on: expect less of it.")


def _beside(learned: Learned, place: Path, examples: Batch, ways: int, noun: str) -> Inputs | None:
    """Return unlabelled examples, ready, if they help; say what was found.

    Raises:
        UsageError: if there are no classes to predict for them.
    """
    from rbml.cli.show import console
    from rbml.data.batch import Batch
    from rbml.training import usual
    from rbml.training.semi_supervised import trial, trial_on_tasks

    modality = learned.setting.modality
    if examples.y.is_floating_point():
        raise UsageError("--unlabelled is for classes, but these examples have real values: leave it out")
    raw = modality.find([place], labelled=False).raw
    x = modality.ready(modality.read(raw))
    found = trial(learned.learner, Batch(modality.ready(examples.x), examples.y), x, ways)
    if found is None and learned.run is not None:
        with suppress(RbmlError):  # without validation data it cannot be found out
            tasks = usual.fitting(learned.run, ways, 1, 2 * max(1, len(raw) // ways))
            found = trial_on_tasks(learned.learner, tasks, learned.run.recipe().outer.seed)
    told = found or f"with one labelled {noun} per class it cannot be found out whether they help; they are not used"
    console.print(f"{len(raw)} unlabelled {noun}s: {told}.")
    return x if found is not None and found.helps else None


def _adapted(
    learned: Learned,
    found: RawExamples,
    examples: Batch,
    names: Sequence[str],
    estimating: bool,
    unlabelled: Inputs | None,
) -> tuple[Prior | None, Outcome]:
    """Adapt with progress bars; also return what is known from the validation tasks of the run, if there is one."""
    from rbml.cli.show import bar
    from rbml.training import adapting
    from rbml.training.concerns import features
    from rbml.training.folds import passes

    prior = known_before(learned, examples, names)
    seen = features(learned.setting.modality, found.raw if learned.file is None else None, examples.x)
    with bar(examples.size * passes(examples.y), what="checking") as progress:
        outcome = adapting.adapt(
            learned, examples, names, prior, seen, estimating,
            lambda count: progress.advance(progress.task_ids[0], count), unlabelled,
        )  # fmt: skip
    return prior, outcome


def known_before(learned: Learned, examples: Batch, names: Sequence[str]) -> Prior | None:
    """Return what is known from the validation tasks of the run, or from the file; measure it with a progress bar."""
    from rbml.cli.show import bar
    from rbml.training import adapting, usual

    if learned.run is None or examples.y.is_floating_point():
        return None if learned.file is None else adapting.Trust.from_content(learned.file.trust).prior
    with bar(usual.TASKS, what="calibrating") as progress:
        return usual.prior_of(
            learned.run, learned.learner, len(names), adapting.typical(examples.y),
            lambda count: progress.advance(progress.task_ids[0], count),
        )  # fmt: skip


def _say_estimate(outcome: Outcome, prior: Prior | None, noun: str, estimating: bool) -> None:
    """Print the estimate, or why there is none."""
    from rbml.cli.show import console
    from rbml.cli.trust import show_estimate

    if outcome.learned.run is not None and prior is None and not outcome.examples.y.is_floating_point():
        console.print("No validation tasks with labels are at hand: probabilities are adjusted by your examples alone.")
    if outcome.estimate is not None:
        alone = outcome.learned.run is None and outcome.learned.file is None
        show_estimate(outcome.estimate, outcome.names, noun, alone)
        return
    if estimating and outcome.examples.size > 1:
        console.print(f"With one {noun} per class, how well new {noun}s are predicted cannot be found from them.")
        if prior is not None:
            console.print(
                f"On the validation tasks of the run ({prior.ways} classes, {prior.shots} {noun} each) the accuracy is "
                f"{prior.accuracy:.1%}; yours may be easier or harder."
            )
