"""New intents from one or five sentences each: what is learned across tasks, beside what needs no training.

    python benchmarks/text.py --data-root DATA                        # both data sets, five folds, 600 tasks each
    python benchmarks/text.py --data-root DATA --sets banking77 --folds 1 --episodes 100 --seeds 1
    python benchmarks/text.py --data-root DATA --tables words         # without pretrained weights alone
    python benchmarks/text.py --data-root DATA --tables across        # learned on one data set for the other

5-way tasks with 5 queries per class on the test intents of ProtAugment's folds (Dopierre et al. 2021,
arXiv:2105.12995). All methods see the same tasks, so that differences are paired. Two tables: without pretrained
weights, and on the frozen features of MiniLM. The interval is over all tasks of all folds (and training seeds, whose
accuracy on a task is averaged); tasks share sentences, so that it is for these intents, not for others. The classifier
"all queries at once" is transductive: it also uses the sentences that it is asked about, without their labels.

The table "trained" has the methods on MiniLM's features, and MiniLM trained on the training intents: by LoRA, and as a
whole, which takes some minutes per fold and seed. In the table "across" everything is learned on the training intents
of the other data set: BANKING77 is measured with what CLINC150 has taught, and the reverse.

What was measured lies in ``--keep``, and is not measured again.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import torch
from text_methods import HEADS, adapted, centred, discriminant, tuned, vectors, weighted, whitened
from torch import Tensor
from torch.nn.functional import normalize

from rbml import data
from rbml.data import Labelled
from rbml.data.inputs import embedded
from rbml.tasks import FewShot

WAYS, QUERIES = 5, 5
ENCODER, WEIGHTED = "minilm", "minilm:weighted"
_NUMBERS = 2**17
_TRANSDUCTIVE = "all queries at once"
_BOTH = ("centroid", "ridge", _TRANSDUCTIVE)

Method = tuple[str, tuple[str, ...], Callable[[], Tensor]]
"""A kind of features, the classifiers that it is measured with, and the features of all test sentences."""


def loaded(name: str, part: str, fold: int, root: str, encoder: str | None = None) -> Labelled:
    """Return the sentences of one part, or their features."""
    found = data.load(name, part, root, f"fold-{fold}", tokenizer=ENCODER if encoder else "ngrams")
    assert isinstance(found, Labelled)
    return found if encoder is None else embedded.embedded(found, encoder)


def words(name: str, fold: int, root: str, seeds: range) -> tuple[Labelled, list[Method]]:
    """Return the test sentences, and the methods without pretrained weights."""
    test = loaded(name, "test", fold, root)
    methods: list[Method] = [("words and characters, TF-IDF", ("centroid", "ridge", "logistic"), lambda: vectors(test))]

    def reweighted(seed: int) -> Tensor:
        assert isinstance(test.x, dict)
        weights = weighted(loaded(name, "train", fold, root), seed)
        ids = test.modality.ready(test.x)["ids"]  # type: ignore[index]
        counts = torch.zeros(len(ids), len(weights)).scatter_add_(1, ids, torch.ones(ids.shape))
        counts[:, 0] = 0
        return normalize(counts * weights, dim=1)

    for seed in seeds:
        methods.append((f"weights learned by R2-D2, seed {seed}", _BOTH, partial(reweighted, seed)))
    return test, methods


def encoded(name: str, fold: int, root: str, seeds: range) -> tuple[Labelled, list[Method]]:
    """Return the features of the test sentences, and the methods on features."""
    training, test = (loaded(name, part, fold, root, ENCODER) for part in ("train", "test"))
    x, known = test.x, training.x
    assert isinstance(x, Tensor) and isinstance(known, Tensor)
    methods: list[Method] = [
        ("frozen", (*_BOTH, "logistic"), lambda: x),
        ("frozen, centred", _BOTH, lambda: centred(x, known)),
        ("frozen, whitened", _BOTH, lambda: whitened(x, known)),
        ("discriminant of the training intents", _BOTH, lambda: discriminant(x, training)),
    ]
    return test, methods + learned_on((training, x), weighted_of(name, name, fold, root), seeds)


def weighted_of(taught: str, name: str, fold: int, root: str) -> tuple[Labelled, Tensor]:
    """Return features of training sentences of one data set and test sentences of another, rare words weighted."""
    return loaded(taught, "train", fold, root, WEIGHTED), loaded(name, "test", fold, root, WEIGHTED).x


def learned_on(
    plain: tuple[Labelled, Tensor], rare: tuple[Labelled, Tensor], seeds: range, where: str = ""
) -> list[Method]:
    """Return the adaptor, and what rare words that count more add, down to what ``rbml train`` learns on sentences.

    Args:
        plain: the training sentences, and features of the test sentences ``(n, width)``.
        rare: the same with features in which rare words count more.
        seeds: of training.
        where: what follows the name of each method.
    """

    def bent(given: tuple[Labelled, Tensor], seed: int, **options: Any) -> Tensor:
        return adapted(given[0], seed, **options)(given[1])

    adaptors: list[Method] = [
        (f"adaptor, ProtoNet{where}, seed {seed}", _BOTH, partial(bent, plain, seed)) for seed in seeds
    ]
    between: list[Method] = [
        (f"rare words weighted, centred{where}", _BOTH, lambda: centred(rare[1], rare[0].x)),
        (f"rare words weighted, discriminant{where}", _BOTH, lambda: discriminant(rare[1], rare[0])),
    ]
    best: list[Method] = [
        (f"rare words weighted, adaptor beside discriminant, ProtoNet{where}, seed {seed}", _BOTH,
         partial(bent, rare, seed, steps=300, beside=True))
        for seed in seeds
    ]  # fmt: skip
    return adaptors + between + best


def across(name: str, fold: int, root: str, seeds: range) -> tuple[Labelled, list[Method]]:
    """Return the features of the test sentences, and what the training intents of the other data set teach."""
    other = {"banking77": "clinc150", "clinc150": "banking77"}[name]
    training, test = loaded(other, "train", fold, root, ENCODER), loaded(name, "test", fold, root, ENCODER)
    x = test.x
    methods: list[Method] = [
        ("frozen", _BOTH, lambda: x),
        (f"frozen, centred, on {other}", _BOTH, lambda: centred(x, training.x)),
        (f"discriminant of the training intents, on {other}", _BOTH, lambda: discriminant(x, training)),
    ]
    return test, methods + learned_on((training, x), weighted_of(other, name, fold, root), seeds, f", on {other}")


def trained(name: str, fold: int, root: str, seeds: range) -> tuple[Labelled, list[Method]]:
    """Return the features of the test sentences, the methods on features, and encoders that are trained themselves."""
    test, methods = encoded(name, fold, root, seeds)
    for kind, rank in {"LoRA": 8, "whole encoder": 0}.items():
        for seed in seeds:
            features = partial(tuned, name, fold, root, seed, rank)
            methods.append((f"{kind}, ProtoNet, seed {seed}", _BOTH, features))
    return test, methods


TABLES = {"words": words, "encoder": encoded, "trained": trained, "across": across}


def accuracies(x: Tensor, drawn: tuple[Tensor, Tensor], head: str) -> Tensor:
    """Return the accuracy on every task, ``(tasks,)``; some at once, as many as fit into memory.

    Args:
        x: features of all sentences.
        drawn: the places of the support sets and queries of all tasks.
        head: a name of :data:`HEADS`.
    """
    y, found = torch.arange(WAYS).repeat_interleave(QUERIES), []
    for support, query in zip(*(torch.split(places, _NUMBERS // x.shape[1]) for places in drawn), strict=True):
        scores = HEADS[head](x[support].view(len(support), WAYS, -1, x.shape[1]), x[query])
        found.append((scores.argmax(-1) == y).double().mean(1))
    return torch.cat(found)


def measured(name: str, table: str, fold: int, given: argparse.Namespace) -> Iterator[tuple[str, int, Tensor]]:
    """Yield each method and number of shots with the accuracies on the tasks of a fold."""
    test, methods = TABLES[table](name, fold, given.data_root, range(given.seeds))
    drawn = {shots: FewShot(test, WAYS, shots, QUERIES).indices(range(given.episodes)) for shots in given.shots}
    for kind, heads, features in methods:
        if given.only and not any(part in kind for part in given.only):
            continue
        places = {
            (head, shots): Path(given.keep) / f"{name}-{fold}-{given.episodes}-{shots}-{kind}, {head}.pt"
            for head in heads
            for shots in given.shots
            if head not in given.without
        }
        x = None if all(place.exists() for place in places.values()) else features()
        for (head, shots), place in places.items():
            if not place.exists():
                assert x is not None
                partial_file = place.with_suffix(".partial")  # several processes may share the folder
                torch.save(accuracies(x, drawn[shots], head), partial_file)
                partial_file.replace(place)
            yield f"{kind}, {head}", shots, torch.load(place)


def main() -> None:
    """Print a table per data set, with and without pretrained weights."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-root", required=True)
    parser.add_argument("--sets", nargs="+", default=["banking77", "clinc150"])
    parser.add_argument("--tables", nargs="+", default=["words", "trained"], choices=list(TABLES))
    parser.add_argument("--folds", nargs="+", type=int, default=[1, 2, 3, 4, 5])
    parser.add_argument("--shots", nargs="+", type=int, default=[1, 5])
    parser.add_argument("--episodes", type=int, default=600)
    parser.add_argument("--seeds", type=int, default=3, help="of what is learned")
    parser.add_argument("--without", nargs="*", default=[], choices=list(HEADS), help="classifiers to leave out")
    parser.add_argument("--only", nargs="*", default=[], help="methods whose names contain one of these")
    parser.add_argument("--keep", default="text-benchmark", help="a folder")
    given = parser.parse_args()
    Path(given.keep).mkdir(parents=True, exist_ok=True)
    for name in given.sets:
        for table in given.tables:
            found: dict[tuple[str, int], list[list[Tensor]]] = {}
            for fold in given.folds:
                of_fold: dict[tuple[str, int], list[Tensor]] = {}
                for method, shots, values in measured(name, table, fold, given):
                    of_fold.setdefault((unseeded(method), shots), []).append(values)
                for key, some in of_fold.items():
                    found.setdefault(key, []).append(some)
                print(name, table, "fold", fold, {f"{key[0]} {key[1]}": f"{100 * torch.stack(some).mean():.1f}"
                      for key, some in of_fold.items()}, flush=True)  # fmt: skip
            flat = {key: torch.cat([torch.stack(some).mean(0) for some in folds]) for key, folds in found.items()}
            show(f"{name}, {table}", flat, given.shots)


def unseeded(method: str) -> str:
    """Return the name of a method without its seed.

    >>> unseeded("adaptor, ProtoNet, seed 2, ridge")
    'adaptor, ProtoNet, ridge'
    """
    return ", ".join(part for part in method.split(", ") if not part.startswith("seed "))


def interval(values: Tensor) -> str:
    """Return mean and 95 % interval in per cent."""
    return f"{100 * values.mean():.1f} ± {196 * values.std() / math.sqrt(len(values)):.1f}"


def show(title: str, found: dict[tuple[str, int], Tensor], shots: list[int]) -> None:
    """Print the accuracy of every method, and how much better the last one that sees one query at a time is."""
    methods = list(dict.fromkeys(method for method, _ in found))
    best = next(method for method in reversed(methods) if not method.endswith(_TRANSDUCTIVE))
    heads = [f"{k}-shot | {best} is better by" for k in shots]
    print(f"\n{title}: accuracy in %, 5-way, mean ± 95 % interval\n")
    print(f"| method | {' | '.join(heads)} |\n| --- |{' ---: |' * (2 * len(shots))}")
    for method in methods:
        cells = [f"{interval(found[method, k])} | {interval(found[best, k] - found[method, k])}" for k in shots]
        print(f"| {method} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
