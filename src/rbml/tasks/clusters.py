"""Few-shot tasks from examples without labels whose classes are clusters of features.

Shapes: M examples, d features, C clusters, P partitions.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from rbml import errors, random
from rbml.data.augment import Augmentation
from rbml.data.batch import Batch
from rbml.data.examples import Labelled
from rbml.data.extras import require
from rbml.data.targets import CLASSES, Target
from rbml.errors import DataError, UsageError
from rbml.tasks.base import Episodes, task_seeds
from rbml.tasks.few_shot import FewShot
from rbml.tasks.mixture import Mixture

Features = Literal["auto", "pixels", "edges", "stored"]
"""What examples are clustered by."""

_DIRECTIONS, _CELLS = 8, 6  # of the histograms of edges
_COMPONENTS = 64  # principal components that are kept


def cactus(
    pictures: Labelled,
    ways: int = 5,
    shots: int = 1,
    queries: int = 5,
    clusters: int = 500,
    partitions: int = 10,
    features: Features = "auto",
    augment: str = "none",
    strength: float = 1.0,
) -> ClusterTasks:
    """Tasks without labels: the classes are clusters of features, in several partitions of the data (CACTUs).

    Hsu, Levine and Finn 2019 (arXiv:1810.02334). Features are reduced to at most 64 principal components. For
    each partition they are scaled at random, dimension by dimension, and divided into clusters by k-means; a task comes
    from one partition. Clusters with fewer than K + Q members are left out. The same examples give the same tasks on
    one version of scikit-learn. The cost, once, is that of P runs of k-means over mini-batches.

    Args:
        pictures: a ``Labelled``, whose labels are ignored.
        ways: N, classes in a task.
        shots: K, support examples per class.
        queries: Q, query examples per class.
        clusters: C, clusters per partition; fewer where there are not enough examples.
        partitions: P.
        features: what is clustered: pixels, edges (histograms of their directions in parts of the picture), stored (the
            inputs as they are stored, such as the features of a frozen encoder), or auto: edges for pictures, else
            stored.
        augment: random changes of the pictures after that, as for few_shot.
        strength: how large these changes are.

    Raises:
        UsageError: for numbers below one, features that these inputs do not have, or if scikit-learn is not installed.
        DataError: for too few examples, or clusters that are too small for the tasks.
    """  # noqa: DOC501  `unknown` returns the UsageError
    for name, number in (("clusters", clusters), ("partitions", partitions)):
        if number < 1:
            raise UsageError(f"{name} must be at least 1, not {number}.")
    if features not in get_args(Features):
        raise errors.unknown("kind of features", features, get_args(Features))
    found = described(pictures.x, features)
    count = min(clusters, len(found) // (shots + queries))
    if count < ways:
        raise DataError(
            f"{ways} clusters with {shots} shots and {queries} queries each need {ways * (shots + queries)} examples, "
            f"but there are {len(found)}: add examples, or lower the ways or the queries"
        )
    rows = []
    for partition in range(partitions):
        members, labels = _large(_labels(found, count, partition), shots + queries)
        if (large := int(labels.max()) + 1 if len(labels) else 0) < ways:
            raise DataError(
                f"only {large} of {count} clusters have the {shots + queries} examples that {shots} shots and "
                f"{queries} queries need: lower the clusters or the queries, or add examples"
            )
        rows.append(FewShot((members, labels), ways, shots, queries))
    augmentation = Augmentation.of(augment, pictures.augment, strength)
    about = f"{partitions} partitions of {len(found)} examples without labels into {count} clusters; {pictures.about}"
    return ClusterTasks(pictures, Mixture(rows), augmentation, about)


class ClusterTasks:
    """Tasks of several partitions of the same examples, which are stored once.

    Args:
        pictures: the examples.
        rows: tasks whose inputs are places in these examples, one source per partition.
        augmentation: how pictures are changed after they are gathered.
        about: a sentence on what the tasks are.

    Raises:
        UsageError: for an augmentation that does not fit the examples.
    """

    def __init__(self, pictures: Labelled, rows: Mixture, augmentation: Augmentation, about: str) -> None:
        """Check the augmentation."""
        augmentation.check(pictures.x)
        self.x, self.modality, self.about = pictures.x, pictures.modality, about
        self.rows, self.augmentation = rows, augmentation
        first = rows.sources[0]
        assert isinstance(first, FewShot)
        self.target: Target = CLASSES
        self.outputs, self.ways, self.shots, self.queries = first.outputs, first.ways, first.shots, first.queries

    def __repr__(self) -> str:
        """Return a description of one line."""
        sizes = f"{self.ways} ways, shots={self.shots}, queries={self.queries}"
        return f"ClusterTasks({len(self.x)} examples, {len(self.rows.sources)} partitions, {sizes})"

    @property
    def names(self) -> list[str]:
        """A name for every example: a cluster has the name of its first one."""
        return [f"cluster of picture {place}" for place in range(len(self.x))]

    def chosen(self, seed: int) -> list[int]:
        """Return for each class of the task of ``seed`` its first support example."""
        first: list[int] = self.rows.stored([seed]).support.x[0, :: self.shots].tolist()
        return first

    def sample(self, count: int, generator: torch.Generator) -> Episodes:
        """Draw ``count`` tasks: support ``(B, N*K, ...)`` and query ``(B, N*Q, ...)``, targets int64 ``0 .. N-1``."""
        return self.draw(task_seeds(count, generator))

    def draw(self, seeds: Sequence[int]) -> Episodes:
        """Return the tasks of the given seeds: the same seed always gives the same task."""
        return Episodes(*(Batch(self.modality.ready(part.x), part.y) for part in self.stored(seeds)))

    def stored(self, seeds: Sequence[int]) -> Episodes:
        """Return the tasks of the given seeds with the inputs as they are stored, changes included."""
        keys = torch.tensor(list(seeds), device=self.x.device)
        parts = [
            Batch(self._gathered(part.x, random.fold(keys, place)), part.y.to(self.x.device))
            for place, part in enumerate(self.rows.stored(seeds))
        ]
        return Episodes(*parts)

    def _gathered(self, rows: Tensor, keys: Tensor) -> Tensor:
        taken: Tensor = self.x.index_select(0, rows.flatten().to(self.x.device)).view(*rows.shape, *self.x.shape[1:])
        return self.augmentation(taken, keys) if self.augmentation.names else taken


def described(x: object, features: Features) -> NDArray[np.float32]:
    """Return the features ``(M, d)`` of stored inputs.

    Args:
        x: the inputs: pictures ``(M, c, h, w)``, or features ``(M, d)``.
        features: which ones.

    Raises:
        UsageError: if the inputs do not have them.
        DataError: for a single example.
    """
    if not isinstance(x, Tensor) or x.dim() not in (2, 4):
        raise UsageError("clusters need pictures (M, c, h, w) or features (M, d), not inputs of another form.")
    pictures = x.dim() == 4
    kind = ("edges" if pictures else "stored") if features == "auto" else features
    if kind in ("pixels", "edges") and not pictures:
        raise UsageError(f"features={kind} need pictures, but the inputs are {tuple(x.shape)}: use features=stored")
    describe = _edges if kind == "edges" else _flat
    found = torch.cat([describe(part) for part in torch.split(x.cpu(), 1000)])
    if len(found) < 2:
        raise DataError("clusters need at least 2 examples.")
    decomposition = require("sklearn.decomposition", "sklearn", "clusters as classes")
    most = min(_COMPONENTS, *found.shape)
    reduced = decomposition.PCA(most, random_state=0).fit_transform(found.numpy())
    return np.asarray(reduced, dtype=np.float32)


def _flat(x: Tensor) -> Tensor:
    return x.flatten(1).float()


def _edges(pictures: Tensor) -> Tensor:
    """Return histograms of the directions of edges in 6 x 6 parts of pictures (Dalal and Triggs 2005): ``(m, 288)``."""
    grey = functional.pad(pictures.float().mean(1, keepdim=True) / 255, (1, 1, 1, 1), mode="replicate")
    across, down = grey[..., 1:-1, 2:] - grey[..., 1:-1, :-2], grey[..., 2:, 1:-1] - grey[..., :-2, 1:-1]
    length, angle = (across**2 + down**2).sqrt(), torch.atan2(down, across)
    place = (angle / (2 * torch.pi) % 1) * _DIRECTIONS
    centres = torch.arange(_DIRECTIONS).view(-1, 1, 1)
    distance = (place - centres + _DIRECTIONS / 2) % _DIRECTIONS - _DIRECTIONS / 2
    shares = (1 - distance.abs()).clamp(min=0) * length  # each edge belongs to the two nearest directions
    cells = functional.adaptive_avg_pool2d(shares, _CELLS).flatten(1)
    found: Tensor = (cells / cells.norm(dim=1, keepdim=True).clamp(min=1e-6)).sqrt()
    return found


def _labels(features: NDArray[np.float32], clusters: int, partition: int) -> Tensor:
    """Return the cluster of each example, ``(M,)``, in one partition."""
    scale = np.random.default_rng(partition).uniform(size=(1, features.shape[1])).astype(np.float32)
    k_means: Callable[..., object] = require("sklearn.cluster", "sklearn", "clusters as classes").MiniBatchKMeans
    size = max(1024, 4 * clusters)
    made = k_means(clusters, batch_size=size, max_iter=30, n_init=3, random_state=partition, compute_labels=True)
    labels = made.fit(features * scale).labels_  # type: ignore[attr-defined]
    return torch.from_numpy(np.asarray(labels, dtype=np.int64))


def _large(labels: Tensor, least: int) -> tuple[Tensor, Tensor]:
    """Return the places of the examples whose clusters have at least so many members, and these clusters anew."""
    counts = torch.bincount(labels)
    kept = torch.nonzero(counts[labels] >= least).flatten()
    return kept, torch.searchsorted(torch.nonzero(counts >= least).flatten(), labels[kept])
