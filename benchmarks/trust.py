"""What does an adapted model call unknown? AUROC for unseen classes, blank pages and foreign pictures; calibration.

    python benchmarks/trust.py runs/grocery-protonet --shots 5 --draws 20 --foreign glyphs
    python benchmarks/trust.py backbone:efficientnet_lite0 --tasks folder:groceries --foreign glyphs

Of each task, ``--ways`` test classes are learned from ``--shots`` pictures each. Known are new pictures of these
classes, unseen those of the other test classes, blank ones of one colour, foreign those of another source. AUROC: the
probability that a known picture seems more familiar than another one; 50 % is chance.
"""

from __future__ import annotations

import argparse
import statistics

import torch
from torch import Tensor

from rbml.data.batch import Batch
from rbml.data.examples import Labelled
from rbml.data.inputs import Pictures
from rbml.data.inputs.embedded import Embedded
from rbml.recipe import Data, build
from rbml.training import adapting, usual
from rbml.training.calibration import auroc, calibration_error
from rbml.training.concerns import plain
from rbml.training.learned import Learned, load


def parted(examples: Labelled, arguments: argparse.Namespace, seed: int) -> tuple[Batch, Batch, Tensor]:
    """Return a support set, new pictures of its classes, and the places of pictures of the other classes."""
    source = torch.Generator().manual_seed(seed)
    classes = torch.randperm(examples.classes, generator=source).tolist()
    support, known, others = [], [], []
    for place, label in enumerate(classes):
        members = torch.nonzero(examples.y == label).flatten()
        members = members[torch.randperm(len(members), generator=source)]
        if place < arguments.ways:
            support.append((place, members[: arguments.shots]))
            known.append((place, members[arguments.shots : arguments.shots + 20]))
        else:
            others.append(members[:20])

    def gathered(some: list[tuple[int, Tensor]]) -> Batch:
        y = torch.cat([torch.full((len(rows),), place) for place, rows in some])
        return Batch(examples.x[torch.cat([rows for _, rows in some])], y)

    return gathered(support), gathered(known), torch.cat(others)


def blanks(learned: Learned) -> Tensor:
    """Return pictures of one colour each, from black to white, as the modality stores them."""
    own = plain(learned.setting.modality)
    assert isinstance(own, Pictures)
    grey = torch.linspace(0, 255, 20).to(torch.uint8)
    return stored(learned, grey[:, None, None, None].expand(-1, own.channels, own.size, own.size).contiguous())


def stored(learned: Learned, pixels: Tensor) -> Tensor:
    """Return pictures as the modality stores them: with a backbone, its features."""
    modality = learned.setting.modality
    return modality.embed(pixels) if isinstance(modality, Embedded) else pixels


def foreign(learned: Learned, name: str) -> Tensor:
    """Return pictures of another source in the size and with the channels of this learner."""
    own = plain(learned.setting.modality)
    assert isinstance(own, Pictures)
    x = build.examples(learned.recipe.changed(data=name, encoder=None), Data.of(name), "test").x[::50][:60]
    x = x.expand(-1, own.channels, -1, -1) if x.shape[1] == 1 else x.float().mean(1, keepdim=True).to(torch.uint8)
    sized = torch.nn.functional.interpolate(x.float(), (own.size, own.size), mode="bilinear").to(torch.uint8)
    return stored(learned, sized)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("learners", nargs="+")
    parser.add_argument("--tasks")
    parser.add_argument("--shots", type=int, default=5)
    parser.add_argument("--ways", type=int, default=5)
    parser.add_argument("--draws", type=int, default=20)
    parser.add_argument("--foreign", default="glyphs")
    arguments = parser.parse_args()
    print("learner: AUROC unseen classes, blank, foreign; called unknown: known, unseen; ECE before, after; accuracy")
    for place in arguments.learners:
        learned = load(place)
        recipe = learned.recipe if arguments.tasks is None else learned.recipe.changed(data=arguments.tasks)
        root = None if learned.run is None else learned.run.read_config()["data_root"]
        examples = build.examples(recipe, recipe.data[0], "test", root)
        prior = None
        if learned.run is not None:
            prior = usual.prior_of(learned.run, learned.learner, arguments.ways, arguments.shots)
        others = (blanks(learned), foreign(learned, arguments.foreign))
        rows = [one_draw(learned, examples, prior, others, arguments, seed) for seed in range(arguments.draws)]
        print(
            f"{place}: " + " ".join(f"{statistics.fmean(column):.1%}" for column in zip(*rows, strict=True)), flush=True
        )


def one_draw(
    learned: Learned,
    examples: Labelled,
    prior: usual.Prior | None,
    others: tuple[Tensor, Tensor],
    arguments: argparse.Namespace,
    seed: int,
) -> list[float]:
    """Return the figures of one task, in the order of the heading."""
    support, known, unseen = parted(examples, arguments, seed)
    outcome = adapting.adapt(learned, support, [str(label) for label in range(arguments.ways)], prior, {})
    memory, ready = outcome.trust.memory, learned.setting.modality.ready
    assert memory is not None and outcome.trust.usual is not None
    scores = [memory.score(outcome.adapted, ready(x)) for x in (known.x, examples.x[unseen], *others)]
    limit = outcome.trust.usual.threshold()
    with torch.no_grad():
        logits = outcome.adapted(ready(known.x))
    figures = [auroc(-scores[0], -some) for some in scores[1:]]
    figures += [(some > limit).double().mean().item() for some in scores[:2]]
    figures += [calibration_error(logits / by, known.y) for by in (1.0, outcome.trust.temperature)]
    return [*figures, (logits.argmax(1) == known.y).double().mean().item()]


if __name__ == "__main__":
    main()
