"""Is the estimate of ``rbml adapt`` right? The accuracy that it expects, beside the accuracy on new pictures.

    python benchmarks/estimate.py runs/grocery-protonet runs/grocery-maml --shots 2,5,10 --draws 10

For each run (of any source of pictures with classes), tasks of its test classes are drawn as a user would bring them:
``--ways`` classes with so many pictures each. The estimate sees those alone; ``--new`` other pictures say what is true.
"""

from __future__ import annotations

import argparse
import statistics

import torch

from rbml.data.batch import Batch
from rbml.data.examples import Labelled
from rbml.recipe import build
from rbml.training import adapting, usual
from rbml.training.learned import Learned, load


def draw(examples: Labelled, ways: int, shots: int, new: int, seed: int) -> tuple[Batch, Batch]:
    """Return a support set and new pictures of some classes, inputs as they are stored."""
    source = torch.Generator().manual_seed(seed)
    classes = torch.randperm(examples.classes, generator=source)[:ways]
    parts: tuple[list[torch.Tensor], list[torch.Tensor]] = ([], [])
    for label in classes:
        members = torch.nonzero(examples.y == label).flatten()
        members = members[torch.randperm(len(members), generator=source)]
        parts[0].append(members[:shots])
        parts[1].append(members[shots : shots + new // ways])
    found = []
    for some in parts:
        y = torch.cat([torch.full((len(rows),), label) for label, rows in enumerate(some)])
        found.append(Batch(examples.x[torch.cat(some)], y))
    return found[0], found[1]


def measure(learned: Learned, shots: int, arguments: argparse.Namespace) -> dict[str, float]:
    """Return means over the draws: expected, true, without the correction; and how often the interval has the truth."""
    run = learned.run
    assert run is not None
    recipe = learned.recipe
    examples = build.examples(recipe, recipe.data[0], "test", run.read_config()["data_root"])
    prior = usual.prior_of(run, learned.learner, arguments.ways, shots)
    rows: list[tuple[float, float, float, bool, float]] = []
    for seed in range(arguments.draws):
        support, new = draw(examples, arguments.ways, shots, arguments.new, seed)
        names = [str(label) for label in range(arguments.ways)]
        outcome = adapting.adapt(learned, support, names, prior)
        found = outcome.estimate
        assert found is not None
        with torch.no_grad():
            logits = outcome.adapted(learned.setting.modality.ready(new.x))
        truth = (logits.argmax(1) == new.y).double().mean().item()
        rows.append((found.value, truth, found.measured, found.low <= truth <= found.high, found.high - found.low))
    columns = list(zip(*rows, strict=True))
    means = [statistics.fmean(column) for column in columns]
    return dict(zip(("expected", "true", "uncorrected", "inside", "width"), means, strict=True))


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("runs", nargs="+")
    parser.add_argument("--shots", default="2,5,10")
    parser.add_argument("--ways", type=int, default=5)
    parser.add_argument("--draws", type=int, default=10)
    parser.add_argument("--new", type=int, default=200)
    arguments = parser.parse_args()
    print("run, shots: expected, true, difference, without the correction, intervals that have the truth, their width")
    for place in arguments.runs:
        learned = load(place)
        for shots in map(int, arguments.shots.split(",")):
            one = measure(learned, shots, arguments)
            gap = 100 * (one["expected"] - one["true"])
            print(
                f"{place} {shots:3d}: {one['expected']:6.1%} {one['true']:6.1%} {gap:+5.1f} {one['uncorrected']:6.1%} "
                f"{one['inside']:4.0%} {one['width']:5.1%}",
                flush=True,
            )


if __name__ == "__main__":
    main()
