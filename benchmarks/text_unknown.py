"""Does a bot know what it has not been told? Sentences out of scope and unseen intents; calibration.

    python benchmarks/text_unknown.py --data-root DATA                       # backbone:minilm, which needs no run
    python benchmarks/text_unknown.py --data-root DATA RUN --sets banking77 --shots 1

Per draw, ``--ways`` test intents of fold 1 of ProtAugment are learned from ``--shots`` sentences each. Known are 20
other sentences of each of them, unseen 20 of each other test intent, out of scope the 1000 of CLINC150. AUROC: the
probability that a known sentence seems more familiar than another one; 50 % is chance. What a run knows from its
validation intents (temperature, and how far known sentences usually are) is used, as ``rbml adapt`` does.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Sequence

import torch
from torch import Tensor

from rbml import data
from rbml.data import Labelled
from rbml.data.batch import Batch
from rbml.data.inputs import embedded
from rbml.data.inputs.embedded import Embedded
from rbml.data.sources.clinc150 import out_of_scope
from rbml.training import adapting
from rbml.training.calibration import auroc, calibration_error
from rbml.training.learned import Learned, load
from rbml.training.usual import Prior, prior_of

COLUMNS = (
    "AUROC unseen", "AUROC out of scope", "called unknown: known", "unseen", "out of scope", "accuracy",
    "ECE before", "ECE after",
)  # fmt: skip
EACH = 20


def features(learned: Learned, name: str, root: str) -> tuple[Labelled, Tensor]:
    """Return the test sentences and those out of scope, as the learner's modality stores them."""
    modality = learned.setting.modality
    assert isinstance(modality, Embedded), "a learner on features of an encoder is needed"
    tests = data.load(name, "test", root, "fold-1", tokenizer=modality.backbone.partition(":")[0])
    assert isinstance(tests, Labelled)
    sentences = out_of_scope("test", root)
    others = Labelled(tests.modality.read(sentences), torch.zeros(len(sentences), dtype=torch.int64), ["none"], "",
                      tests.modality)  # fmt: skip
    none = embedded.embedded(others, modality.backbone).x
    assert isinstance(none, Tensor)
    return embedded.embedded(tests, modality.backbone), none


def one_draw(
    learned: Learned, tests: Labelled, none: Tensor, ways: int, shots: int, seed: int, prior: Prior | None
) -> tuple[list[float], Tensor, float, Tensor]:
    """Return the figures of one draw but for calibration, and logits, temperature and true classes of known sentences.

    Calibration errors are of all draws together: that of a hundred predictions is several points too high by chance.
    """
    source = torch.Generator().manual_seed(seed)
    support, known, unseen = [], [], []
    for place, label in enumerate(torch.randperm(tests.classes, generator=source).tolist()):
        members = torch.nonzero(tests.y == label).flatten()
        members = members[torch.randperm(len(members), generator=source)]
        if place < ways:
            support.append(members[:shots])
            known.append(members[shots : shots + EACH])
        else:
            unseen.append(members[:EACH])
    assert isinstance(tests.x, Tensor)
    x, y = tests.x, torch.arange(ways)
    examples = Batch(x[torch.cat(support)], y.repeat_interleave(shots))
    outcome = adapting.adapt(learned, examples, [str(label) for label in range(ways)], prior, comparing=False)
    memory, usual, truth = outcome.trust.memory, outcome.trust.usual, y.repeat_interleave(EACH)
    assert memory is not None
    scores = [memory.score(outcome.adapted, some) for some in (x[torch.cat(known)], x[torch.cat(unseen)], none)]
    limit = float("inf") if usual is None else usual.threshold()
    with torch.no_grad():
        logits = outcome.adapted(x[torch.cat(known)])
    figures = [
        *(auroc(-scores[0], -some) for some in scores[1:]),
        *((some > limit).double().mean().item() for some in scores),
        (logits.argmax(1) == truth).double().mean().item(),
    ]
    return figures, logits, outcome.trust.temperature, truth


def errors(draws: Sequence[tuple[list[float], Tensor, float, Tensor]]) -> tuple[float, float]:
    """Return the calibration error over all draws, before and after dividing logits by each draw's temperature."""
    truth = torch.cat([draw[3] for draw in draws])
    before, after = (torch.cat([logits / (by if told else 1) for _, logits, by, _ in draws]) for told in (False, True))
    return calibration_error(before, truth), calibration_error(after, truth)


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("learner", nargs="?", default="backbone:minilm", help="a run, or backbone:NAME")
    parser.add_argument("--data-root", required=True)
    parser.add_argument("--sets", nargs="+", default=["clinc150", "banking77"])
    parser.add_argument("--ways", type=int, default=5)
    parser.add_argument("--shots", nargs="+", type=int, default=[1, 5])
    parser.add_argument("--draws", type=int, default=30)
    given = parser.parse_args()
    learned = load(given.learner)
    print(f"| {given.learner}, {given.draws} draws | {' | '.join(COLUMNS)} |\n| --- |{' ---: |' * len(COLUMNS)}")
    for name in given.sets:
        tests, none = features(learned, name, given.data_root)
        for shots in given.shots:
            prior = None if learned.run is None else prior_of(learned.run, learned.learner, given.ways, shots)
            draws = [one_draw(learned, tests, none, given.ways, shots, seed, prior) for seed in range(given.draws)]
            means = [statistics.fmean(column) for column in zip(*(draw[0] for draw in draws), strict=True)]
            cells = [f"{100 * value:.1f}" for value in (*means, *errors(draws))]
            print(f"| {name}, {given.ways}-way {shots}-shot, % | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
