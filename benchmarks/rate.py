"""Find labels that were made wrong on purpose: ``rbml rate`` beside simpler ways and confident learning.

    pip install cleanlab  (optional)
    python benchmarks/rate.py [--data digits banking77 grocery cancer wine] [--rates 0.1 0.2 0.4] [--seeds 10 11]
        [--confused]

Of every data set the given share of labels, drawn at random, becomes another class, drawn at random; with --confused
each class is taken for one other class, some more often than others. In the table, F1 with precision and recall of what
each way calls wrong:

    cross-validation    another class is predicted in 5 folds by logistic regression (C = 0.1)
    cleanlab            confident learning (Northcutt et al. 2021) on the probabilities of the same folds
    halves              another class is predicted by linear models of the other half, without weights
    noise model         as halves, but judged by the model of wrong labels (rbml.training.tune.label_noise)
    weights             the learned weight is below one half
    rate                what ``rbml rate`` says: the model of wrong labels on models trained with the learned weights

Options of the method were chosen with the noise of seed 0 at 20 %; the seeds here are others.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import torch
from torch import Tensor
from tune import kept
from tune_data import ALL

from rbml.training.tune import rate
from rbml.training.tune.label_noise import LabelNoise


def flipped(y: Tensor, share: float, seed: int) -> Tensor:
    """Return labels of which a share is another class, drawn at random."""
    generator, classes = torch.Generator().manual_seed(seed), int(y.max()) + 1
    places = torch.randperm(len(y), generator=generator)[: round(share * len(y))]
    moved = y.clone()
    moved[places] = (y[places] + torch.randint(1, classes, (len(places),), generator=generator)) % classes
    return moved


def confused(y: Tensor, share: float, seed: int) -> Tensor:
    """Return labels of which about a share is wrong, always in the same way: each class is taken for one other class.

    How often differs from class to class: from never to twice the share, and to 45 % at most.
    """
    generator, classes = torch.Generator().manual_seed(seed), int(y.max()) + 1
    other = (torch.arange(classes) + torch.randint(1, classes, (classes,), generator=generator)) % classes
    often = torch.rand(classes, generator=generator)
    often = (often / often[y].mean() * share).clamp(max=0.45)
    return torch.where(torch.rand(len(y), generator=generator) < often[y], other[y], y)


def scores(called: Tensor, wrong: Tensor) -> tuple[float, float, float]:
    """Return F1, precision and recall."""
    hits = int((called & wrong).sum())
    precision, recall = hits / max(int(called.sum()), 1), hits / max(int(wrong.sum()), 1)
    return 2 * precision * recall / max(precision + recall, 1e-9), precision, recall


def folded(x: Tensor, y: Tensor) -> Tensor:
    """Return the probabilities of logistic regression in 5 folds, ``(N, C)``."""
    from sklearn.linear_model import LogisticRegression  # noqa: PLC0415  not a dependency of the package
    from sklearn.model_selection import cross_val_predict  # noqa: PLC0415

    x = (x - x.mean(0)) / x.std(0).clamp(min=1e-6)
    model = LogisticRegression(C=0.1, max_iter=100)
    return torch.tensor(cross_val_predict(model, x.numpy(), y.numpy(), cv=5, method="predict_proba"))


def confident(probabilities: Tensor, y: Tensor) -> Tensor | None:
    """Return what cleanlab calls wrong; ``None`` if it is not installed."""
    try:
        from cleanlab.filter import find_label_issues  # noqa: PLC0415  an optional rival
    except ImportError:
        return None
    return torch.tensor(find_label_issues(y.numpy(), probabilities.numpy(), n_jobs=1))


def compared(x: Tensor, y: Tensor, halvings: int | None) -> dict[str, Tensor]:
    """Return what each way calls wrong."""
    found = rate((x, y), halvings=halvings)
    probabilities = folded(x, y)
    ways = {"cross-validation": probabilities.argmax(1) != y}
    rival = confident(probabilities, y)
    if rival is not None:
        ways["cleanlab"] = rival
    plain = found.plain
    ways |= {"halves": found.disagrees, "noise model": LabelNoise.fitted(plain, y).right(plain, y) < 0.5}
    return ways | {"weights": found.weight < 0.5, "rate": found.wrong}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", nargs="+", default=["digits", "banking77", "grocery", "cancer", "wine"], choices=ALL)
    parser.add_argument("--rates", nargs="+", type=float, default=[0.1, 0.2, 0.4])
    parser.add_argument("--seeds", nargs="+", type=int, default=[10, 11])
    parser.add_argument("--halvings", type=int)
    parser.add_argument("--confused", action="store_true", help="wrong labels depend on the class, instead of random")
    parser.add_argument("--keep", type=Path, help="a folder for what was read, so that a later call reads it at once")
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    for name in chosen.data:
        examples = kept(name, chosen.keep)
        x, y = examples.x.flatten(1).float(), examples.y
        for share in chosen.rates:
            each: dict[str, list[tuple[float, float, float]]] = {}
            began = time.process_time()
            for seed in chosen.seeds:
                labels = (confused if chosen.confused else flipped)(y, share, seed)
                for way, called in compared(x, labels, chosen.halvings).items():
                    each.setdefault(way, []).append(scores(called, labels != y))
            used = (time.process_time() - began) / len(chosen.seeds)
            cells = []
            for way, found in each.items():
                f1, precision, recall = torch.tensor(found).mean(0).tolist()
                cells.append(f"{way} {f1:.3f} ({precision:.2f}, {recall:.2f})")
            print(f"| {name} | {share:.0%} | {' | '.join(cells)} | {used:.0f} s |", flush=True)


if __name__ == "__main__":
    main()
