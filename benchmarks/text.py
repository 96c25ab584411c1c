"""New intents from one or five sentences each: what needs no training, without and with a pretrained encoder.

    python benchmarks/text.py --data-root DATA                       # both data sets, five folds, 600 tasks each
    python benchmarks/text.py --data-root DATA --sets banking77 --folds 1 --episodes 100
    python benchmarks/text.py --data-root DATA --encoders none       # without MiniLM

5-way tasks with 5 queries per class on the test classes of ProtAugment's folds (Dopierre et al. 2021,
arXiv:2105.12995). All methods see the same tasks, so that differences are paired. The interval is over all tasks of all
folds.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from rbml import backbones, data
from rbml.data import store
from rbml.data.examples import Labelled
from rbml.data.extras import require
from rbml.data.inputs import Text
from rbml.tasks import FewShot

WAYS, QUERIES = 5, 5
_BLOCK = 64

Head = Callable[[Tensor, Tensor], Tensor]
"""From support ``(ways, shots, d)`` and queries ``(n, d)`` to scores ``(n, ways)``."""


def centroid(support: Tensor, queries: Tensor) -> Tensor:
    """Cosine to the mean of each class."""
    return F.normalize(queries, dim=1) @ F.normalize(support.mean(1), dim=1).T


def ridge(support: Tensor, queries: Tensor) -> Tensor:
    """Ridge regression to one-hot labels, of strength 1, on features of unit norm."""
    ways, shots, _ = support.shape
    x, y = support.flatten(0, 1), torch.eye(ways).repeat_interleave(shots, 0)
    of_examples: Tensor = torch.linalg.solve(x @ x.T + torch.eye(len(x)), y)
    return queries @ x.T @ of_examples


def logistic(support: Tensor, queries: Tensor) -> Tensor:
    """scikit-learn's logistic regression, C = 10."""
    made = require("sklearn.linear_model", "sklearn", "logistic regression").LogisticRegression(C=10, max_iter=300)
    labels = np.arange(support.shape[0]).repeat(support.shape[1])
    # Of sentences with some thousand n-grams only few occur in a task; the others have the weight zero.
    used = (support.flatten(0, 1) != 0).any(0)
    made.fit(support.flatten(0, 1)[:, used].numpy(), labels)
    return torch.from_numpy(made.decision_function(queries[:, used].numpy()))


HEADS: dict[str, Head] = {"centroid": centroid, "ridge": ridge, "logistic": logistic}


def encoded(examples: Labelled, encoder: str) -> Tensor:
    """Return the features of all sentences; they are kept in the cache."""
    modality, backbone, ids = examples.modality, backbones.load(encoder), examples.x["ids"]
    assert isinstance(modality, Text)
    order = (ids != 0).sum(1).argsort()  # sentences of one length together: less padding

    def build() -> dict[str, Any]:
        found = torch.empty(len(ids), backbone.width)
        for start in range(0, len(ids), _BLOCK):
            rows = order[start : start + _BLOCK]
            with torch.no_grad():
                found[rows] = backbone.body(**modality.ready({"ids": ids[rows]}))
        return {"features": found.numpy()}

    key = f"benchmark-text-{encoder}-{backbone.fingerprint()}-{examples.about}"
    return torch.from_numpy(store.cached_arrays(key, build)["features"])


def vectors(examples: Labelled) -> Tensor:
    """Return the TF-IDF weights of all sentences."""
    assert isinstance(examples.modality, Text)
    return examples.modality.features(examples.x)


def whitened(x: Tensor, training: Tensor) -> Tensor:
    """Return features with the covariance of the training features removed, of unit norm (Su et al. 2021)."""
    centred = training - training.mean(0)
    values, vectors = torch.linalg.eigh(centred.T @ centred / len(centred))
    return F.normalize((x - training.mean(0)) @ vectors / (values + 1e-4).sqrt(), dim=1)


def views(name: str, fold: str, root: str, encoders: list[str]) -> Iterator[tuple[str, Labelled, Tensor, list[str]]]:
    """Yield each kind of features of the test sentences, with the heads it is measured with."""
    test = data.load(name, "test", root, fold)
    yield "words and characters TF-IDF", test, vectors(test), list(HEADS)
    for encoder in encoders:
        training, test = (data.load(name, part, root, fold, tokenizer=encoder) for part in ("train", "test"))
        known, own = encoded(training, encoder), encoded(test, encoder)
        yield f"{encoder}, frozen", test, own, ["centroid", "ridge", "logistic"]
        yield f"{encoder}, centred", test, F.normalize(own - known.mean(0), dim=1), ["centroid", "ridge"]
        yield f"{encoder}, whitened", test, whitened(own, known), ["centroid", "ridge"]


def accuracies(x: Tensor, tasks: FewShot, head: Head, seeds: range) -> Tensor:
    """Return the accuracy on every task, ``(tasks,)``."""
    y = torch.arange(WAYS).repeat_interleave(QUERIES)
    found = []
    for support, query in zip(*tasks.indices(seeds), strict=True):
        scores = head(x[support].view(WAYS, -1, x.shape[1]), x[query])
        found.append((scores.argmax(1) == y).double().mean())
    return torch.stack(found)


def interval(values: Tensor) -> str:
    """Return mean and 95 % interval in per cent."""
    return f"{100 * values.mean():5.1f} ± {196 * values.std() / math.sqrt(len(values)):.1f}"


def main() -> None:
    """Print a table per data set."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-root", required=True)
    parser.add_argument("--sets", nargs="+", default=["banking77", "clinc150"])
    parser.add_argument("--folds", nargs="+", type=int, default=[1, 2, 3, 4, 5])
    parser.add_argument("--shots", nargs="+", type=int, default=[1, 5])
    parser.add_argument("--episodes", type=int, default=600)
    parser.add_argument("--encoders", nargs="+", default=["minilm"])
    given = parser.parse_args()
    encoders = [one for one in given.encoders if one != "none"]
    for name in given.sets:
        found: dict[tuple[str, int], list[Tensor]] = {}
        for fold in given.folds:
            for kind, test, x, heads in views(name, f"fold-{fold}", given.data_root, encoders):
                for shots in given.shots:
                    tasks = FewShot(test, WAYS, shots, QUERIES)
                    for head in heads:
                        values = accuracies(x, tasks, HEADS[head], range(given.episodes))
                        found.setdefault((f"{kind}, {head}", shots), []).append(values)
        show(name, {key: torch.cat(values) for key, values in found.items()}, given.shots)


def show(name: str, found: dict[tuple[str, int], Tensor], shots: list[int]) -> None:
    """Print the accuracy of every method, and its paired difference to the first one."""
    methods = list(dict.fromkeys(method for method, _ in found))
    print(f"\n{name}: accuracy in %, 5-way, mean ± 95 % interval; paired difference to the first line")
    for method in methods:
        cells = [
            f"{interval(found[method, k])} ({interval(found[method, k] - found[methods[0], k]).strip()})" for k in shots
        ]
        print(f"  {method:45s}" + "   ".join(f"{k}-shot {cell}" for k, cell in zip(shots, cells, strict=True)))


if __name__ == "__main__":
    main()
