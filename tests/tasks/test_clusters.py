from __future__ import annotations

import pytest
import torch

from rbml.data.examples import Labelled
from rbml.data.inputs import Arrays, Pictures
from rbml.errors import DataError, UsageError
from rbml.tasks import cactus, generator

pytest.importorskip("sklearn")

CENTRES = 4 * torch.randn(8, 16, generator=generator(0))
TRUTH = torch.arange(240) % 8
POINTS = Labelled(
    CENTRES[TRUTH] + 0.1 * torch.randn(240, 16, generator=generator(1)),
    torch.zeros(240, dtype=torch.int64),
    ["point"],
    "points",
    Arrays(),
)


def test_classes_are_clusters() -> None:
    tasks = cactus(POINTS, ways=3, shots=2, queries=4, clusters=8, partitions=3)
    episodes = tasks.draw(range(30))
    for part in episodes:
        true = torch.cdist(part.x, CENTRES.expand(30, -1, -1)).argmin(-1)
        same = part.y[:, :, None] == part.y[:, None]
        agree = (true[:, :, None] == true[:, None])[same].double().mean()
        assert agree > 0.9  # k-means may divide a heap, and join two
    again = cactus(POINTS, 3, 2, 4, 8, 3).draw([4])
    assert torch.equal(again.query.x[0], episodes.query.x[4])
    assert "3 partitions of 240 examples without labels into 8 clusters; points" in tasks.about


def test_pictures_are_clustered_by_their_edges_and_stored_once() -> None:
    stripes = torch.zeros(60, 1, 12, 12, dtype=torch.uint8)
    stripes[:30, :, ::3] = 200
    stripes[30:, :, :, ::3] = 200
    stripes += torch.randint(20, stripes.shape, dtype=torch.uint8, generator=generator(2))
    pile = Labelled(stripes, torch.zeros(60, dtype=torch.int64), ["picture"], "stripes", Pictures(12), ("shift",))
    tasks = cactus(pile, ways=2, shots=1, queries=2, clusters=2, partitions=1)
    assert tasks.x is pile.x
    support, query = tasks.draw([0, 1])
    across = query.x.mean(-1).std(-1).squeeze(2) > 0.2  # brightness changes from row to row
    assert torch.equal(across, across[:, ::2].repeat_interleave(2, 1)) and support.x.max() <= 1
    assert not torch.equal(cactus(pile, 2, 1, 2, 2, 1, augment="auto").draw([0]).query.x, query.x[:1])


def test_what_cannot_be_is_explained() -> None:
    with pytest.raises(DataError, match=r"5 clusters with 20 shots and 40 queries each need 300 examples"):
        cactus(POINTS, 5, 20, 40)
    with pytest.raises(UsageError, match="features=edges need pictures"):
        cactus(POINTS, features="edges")
    with pytest.raises(UsageError, match="kind of features named 'edgse'"):
        cactus(POINTS, features="edgse")  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="partitions"):
        cactus(POINTS, partitions=0)
