"""``rbml score``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from rbml.cli.predict import unknown_options
from rbml.cli.topics import FIRST, TopicCommand
from rbml.errors import DataError, RbmlError

if TYPE_CHECKING:
    from torch import Tensor

    from rbml.predictor import Predictor


@click.command("score", cls=TopicCommand, topics={FIRST: ("place", "as_json", "unknown_rate", "no_unknown")})
@click.argument("file", type=click.Path(path_type=Path))
@click.option(
    "--folder",
    "place",
    type=click.Path(path_type=Path),
    required=True,
    help="Labelled examples that it has not learned from: a folder with one folder of pictures per class; for a table "
    "or texts, a CSV file.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@unknown_options
def command(file: Path, place: Path, as_json: bool, unknown_rate: float, no_unknown: bool) -> None:
    """Measure FILE, which `rbml adapt` wrote, on labelled examples that it has not learned from.

    Of classes: how many are right, with a 95 % interval, class by class and confused with what; how far its
    probabilities are from how often they are right; and how many it calls unknown. Classes that it does not know count
    as unknown examples.

    \b
    rbml score mine.rbml --folder more_pictures
    rbml score scores.rbml --folder other_rows.csv --json
    """  # noqa: D301  \b is click's
    from rbml.cli.devices import chosen_device
    from rbml.predictor import Predictor

    predictor = Predictor.load(file, None if no_unknown else unknown_rate, chosen_device())
    found = predictor.modality.find([place], labelled=True)
    good: list[int] = []
    outputs, unknown, bad = [], [], []
    for index, raw in enumerate(found.raw):
        try:
            (record,), output = predictor([raw])
        except DataError as error:
            bad.append(error)
            continue
        good.append(index)
        outputs.append(output)
        unknown.append(bool(record.get("unknown")))
    if not good:
        raise bad[0] if bad else DataError(f"{place} has no examples")
    labels = [(found.labels or [])[index] for index in good]
    if predictor.target.kind == "classes":
        _score_classes(predictor, labels, outputs, unknown, as_json)
    else:
        _score_values(predictor, labels, outputs, as_json)
    _finish(bad)


def _score_classes(
    predictor: Predictor, labels: list[Any], outputs: list[Tensor], unknown: list[bool], as_json: bool
) -> None:
    import torch

    from rbml.cli.adapt import NOUNS
    from rbml.cli.show import console
    from rbml.cli.trust import show_confusion
    from rbml.training.calibration import calibration_error
    from rbml.training.concerns import plain
    from rbml.training.estimate import confusion, wilson

    noun, names = NOUNS.get(plain(predictor.modality).kind, "example"), list(predictor.names)
    known = [index for index, label in enumerate(labels) if str(label) in names]
    strange = [index for index in range(len(labels)) if index not in set(known)]
    if not known:
        raise DataError(f"no class of the examples is one of its own: {', '.join(names)}")
    logits = torch.cat([outputs[index] for index in known])
    y = torch.tensor([names.index(str(labels[index])) for index in known])
    right = int((logits.argmax(1) == y).sum())
    low, high = wilson(right, len(y))
    result: dict[str, Any] = {
        "examples": len(y),
        "accuracy": right / len(y),
        "interval": [low, high],
        "calibration_error": calibration_error(logits / predictor.trust.temperature, y),
        "confusion": confusion(logits.argmax(1), y, len(names)).tolist(),
        "classes": names,
    }
    if predictor.unknown_rate is not None:
        result["unknown"] = sum(unknown[index] for index in known) / len(y)
        if strange:
            result["of_other_classes"] = len(strange)
            result["other_classes_unknown"] = sum(unknown[index] for index in strange) / len(strange)
    if as_json:
        click.echo(json.dumps(result, indent=2))
        return
    console.print(f"accuracy {right / len(y):.1%} over {len(y)} {noun}s (95 % interval {low:.1%} to {high:.1%})")
    console.print(f"calibration error of its probabilities (ECE, 15 bins): {result['calibration_error']:.1%}")
    if "unknown" in result:
        console.print(f"called unknown although their class is known: {result['unknown']:.1%}")
    if "other_classes_unknown" in result:
        share = result["other_classes_unknown"]
        console.print(f"of {len(strange)} {noun}s of classes that it does not know, called unknown: {share:.1%}")
    show_confusion(torch.tensor(result["confusion"]), names, noun)


def _score_values(predictor: Predictor, labels: list[Any], outputs: list[Tensor], as_json: bool) -> None:
    import torch

    from rbml.cli.show import console
    from rbml.data.batch import Batch

    y, _ = predictor.target.read(labels, list(predictor.names))
    truth = Batch(torch.empty(len(y), 0), y)
    found = {metric.name: metric.of(torch.cat(outputs), truth).item() for metric in predictor.target.metrics}
    if as_json:
        click.echo(json.dumps({"examples": len(y)} | found, indent=2))
        return
    shown = ", ".join(f"{one.name} {one.shown(found[one.name])}" for one in predictor.target.metrics)
    console.print(f"{shown} over {len(y)} rows")


def _finish(bad: list[DataError]) -> None:
    """Name what could not be read: the command then fails, although it has measured the others."""
    from rbml.cli.show import errors

    for one in bad[1:]:
        errors.print(f"rbml: {one}")
    if bad:
        raise RbmlError(str(bad[0]))
