"""What the benchmark of sentences compares: features of sentences, and classifiers made from a few of them."""

from __future__ import annotations

import copy
from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rbml import algorithms, data, models
from rbml.data import Labelled
from rbml.data.extras import require
from rbml.data.inputs import Text
from rbml.learner import Learner
from rbml.models.discriminant_adaptor import discriminant_of
from rbml.recipe import build
from rbml.recipe.protocol import recipe_of
from rbml.strategy import Scalar
from rbml.tasks import FewShot, TaskSource, generator, task_seeds

Head = Callable[[Tensor, Tensor], Tensor]
"""From support ``(B, ways, shots, d)`` and queries ``(B, n, d)`` of B tasks to scores ``(B, n, ways)``."""


def centroid(support: Tensor, queries: Tensor) -> Tensor:
    """Cosine to the mean of each class."""
    return F.normalize(queries, dim=-1) @ F.normalize(support.mean(2), dim=-1).mT


def ridge(support: Tensor, queries: Tensor) -> Tensor:
    """Ridge regression to one-hot labels, of strength 1, on features of unit norm."""
    _, ways, shots, _ = support.shape
    x, y = support.flatten(1, 2), torch.eye(ways).repeat_interleave(shots, 0)
    of_examples: Tensor = torch.linalg.solve(x @ x.mT + torch.eye(ways * shots), y.expand(len(x), -1, -1))
    return queries @ x.mT @ of_examples


def logistic(support: Tensor, queries: Tensor) -> Tensor:
    """scikit-learn's logistic regression, C = 10."""
    made = require("sklearn.linear_model", "sklearn", "logistic regression").LogisticRegression(C=10, max_iter=300)
    labels = np.arange(support.shape[1]).repeat(support.shape[2])
    found = []
    for known, asked in zip(support.flatten(1, 2), queries, strict=True):
        # Of sentences with some thousand n-grams only few occur in a task; the others have the weight zero.
        used = (known != 0).any(0)
        made.fit(known[:, used].numpy(), labels)
        found.append(torch.from_numpy(made.decision_function(asked[:, used].numpy())))
    return torch.stack(found)


def transductive(support: Tensor, queries: Tensor, scale: float = 5.0, rounds: int = 10) -> Tensor:
    """Soft k-means (Ren et al. 2018, arXiv:1803.00676) from the support set on, with all queries of a task at once.

    Not what a single sentence can be given: the queries are 25 sentences without labels, five of each class. ``scale``
    was chosen on validation intents.
    """
    known, asked = F.normalize(support, dim=-1), F.normalize(queries, dim=-1)
    means = F.normalize(known.mean(2), dim=-1)
    for _ in range(rounds):
        shares = torch.softmax(scale * asked @ means.mT, -1)
        means = F.normalize(known.sum(2) + shares.mT @ asked, dim=-1)
    scores: Tensor = asked @ means.mT
    return scores


HEADS: dict[str, Head] = {
    "centroid": centroid,
    "ridge": ridge,
    "logistic": logistic,
    "all queries at once": transductive,
}


def vectors(examples: Labelled) -> Tensor:
    """Return the TF-IDF weights of all sentences."""
    assert isinstance(examples.modality, Text)
    return examples.modality.features(examples.x)


def centred(x: Tensor, training: Tensor) -> Tensor:
    """Return features without the mean of the training features, of unit norm."""
    return F.normalize(x - training.mean(0), dim=1)


def whitened(x: Tensor, training: Tensor) -> Tensor:
    """Return features with the covariance of the training features removed, of unit norm (Su et al. 2021)."""
    apart = training - training.mean(0)
    values, axes = torch.linalg.eigh(apart.T @ apart / len(apart))
    return F.normalize((x - training.mean(0)) @ axes / (values + 1e-4).sqrt(), dim=1)


def discriminant(x: Tensor, training: Labelled, shrink: float = 0.75, power: float = 0.15) -> Tensor:
    """Return features in which training intents lie apart, in closed form, of unit norm.

    ``shrink`` and ``power`` were chosen on the validation intents of the first two folds of BANKING77.
    """
    turned = discriminant_of(centred(training.x, training.x), training.y, shrink, power)
    return F.normalize(centred(x, training.x) @ turned.T, dim=1)


def adapted(
    training: Labelled,
    seed: int,
    steps: int = 400,
    lr: float = 1e-4,
    ways: int = 20,
    tasks: int = 4,
    beside: bool = False,
) -> Callable[[Tensor], Tensor]:
    """Return the features of an adaptor that a prototypical network has learned on tasks of the training intents.

    Steps, rate and the size of the tasks were chosen on validation intents of fold 1 of BANKING77.

    Args:
        training: features of the training sentences.
        seed: of training.
        steps: how many.
        lr: their rate, which falls as a cosine.
        ways: intents per task, with one sentence each, and five queries.
        tasks: per step.
        beside: whether it learns beside Fisher's discriminant.
    """
    torch.manual_seed(seed)
    width = training.x.shape[1]
    model = models.DiscriminantAdaptor(width, ways) if beside else models.Adaptor(width, ways, start="centred")
    model.begin(training.x, training.y)
    learner = algorithms.protonet(model)
    learned(learner, FewShot(training, ways, 1, 5), seed, steps, lr, tasks)
    own = copy.deepcopy(learner.model)
    own.head = nn.Identity()

    def features(x: Tensor) -> Tensor:
        with torch.no_grad():
            return F.normalize(own(x), dim=1)

    return features


def weighted(training: Labelled, seed: int, steps: int = 60, lr: float = 1e-2, shots: int = 5) -> Tensor:
    """Return the weights of words and n-grams that R2-D2 has learned on tasks of the training intents, ``(ids,)``."""
    torch.manual_seed(seed)
    facts = training.modality.facts()
    model = models.TfIdf(5, **facts)
    learner = algorithms.r2d2(model, strength=Scalar(1.0, bounds=(0, None)), scale=Scalar(10.0))
    learned(learner, FewShot(training, 5, shots, 5), seed, steps, lr, 4)
    own = learner.model
    assert isinstance(own, models.TfIdf)
    return own.log_weight.detach().exp()


def tuned(name: str, fold: int, root: str, seed: int, rank: int = 0, longest: int = 40) -> Tensor:
    """Return the features of the test sentences from MiniLM that ProtoNet has trained on 20-way training tasks.

    It is what this trains, but for the choice of a checkpoint on validation intents::

        rbml train NAME --split fold-FOLD --model minilm --ways 20 --seed SEED --set data.longest=40

    Args:
        name: the data set.
        fold: of ProtAugment.
        root: where data is looked for.
        seed: of the run.
        rank: of LoRA; 0 trains all weights.
        longest: how many subwords of a training sentence are used: few sentences have more, and these cost most.
    """
    given = {"split": f"fold-{fold}", "model": "minilm", "ways": 20, "seed": seed, "data_options": {"longest": longest}}
    recipe = recipe_of(name, given | ({"model_options": {"rank": rank}} if rank else {}))
    tasks = build.tasks(recipe, "train", root)
    learner = build.learner(recipe, build.setting(recipe, tasks))
    learned(learner, tasks, seed, recipe.outer.meta_steps, recipe.outer.lr, recipe.outer.tasks)
    test = data.load(name, "test", root, f"fold-{fold}", tokenizer="minilm")
    assert isinstance(test, Labelled) and isinstance(test.x, dict)
    body, found = learner.model.get_submodule("body"), []
    with torch.no_grad():
        for part in torch.split(test.x["ids"], 256):
            found.append(body(**test.modality.ready({"ids": part})))  # type: ignore[arg-type]
    return torch.cat(found)


def learned(learner: Learner, tasks: TaskSource, seed: int, steps: int, lr: float, count: int) -> None:
    """Train a learner across tasks with Adam and a cosine, as ``rbml train`` does."""
    optimizer = torch.optim.Adam(learner.parameters(), lr=lr)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for step in range(steps):
        optimizer.zero_grad()
        learner.backward(tasks.draw(task_seeds(count, generator(seed, step))))
        optimizer.step()
        schedule.step()
