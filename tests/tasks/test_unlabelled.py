from __future__ import annotations

import pytest
import torch

from rbml.data.examples import Labelled
from rbml.data.inputs import Pictures
from rbml.errors import DataError, UsageError
from rbml.tasks import aal, generator, task_seeds, umtra

PICTURES = torch.randint(256, (50, 1, 12, 12), dtype=torch.uint8, generator=generator(1))


def test_a_class_of_umtra_is_one_picture_and_changed_copies_of_it() -> None:
    tasks = umtra(PICTURES, ways=4, shots=2, queries=3, augment="shift", strength=0.2)
    seeds = task_seeds(6, generator(0))
    support, query = tasks.stored(seeds)
    assert support.x.shape == (6, 8, 1, 12, 12) and query.x.shape == (6, 12, 1, 12, 12)
    assert (
        support.y[0].tolist() == [0, 0, 1, 1, 2, 2, 3, 3]
        and query.y[0].tolist() == [0] * 3 + [1] * 3 + [2] * 3 + [3] * 3
    )
    for task, seed in enumerate(seeds):
        chosen = tasks.chosen(seed)
        assert len(set(chosen)) == 4
        assert torch.equal(support.x[task, ::2], PICTURES[chosen])
        assert not torch.equal(support.x[task, 1::2], PICTURES[chosen])
    still = umtra(PICTURES, 4, 2, 3, augment="zero", strength=0.01)  # hardly changed: which picture it is can be seen
    found = still.stored(seeds).query.x.view(6, 4, 3, -1).float()
    own = PICTURES[torch.tensor([still.chosen(seed) for seed in seeds])].view(6, 4, 1, -1).float()
    assert (found - own).abs().mean() < 2


def test_a_class_of_aal_is_random_pictures_all_different() -> None:
    tasks = aal(PICTURES, ways=3, shots=4, queries=6, augment="zero", strength=0.01)
    support, query = tasks.stored([5])
    assert len(support.x[0].flatten(1).unique(dim=0)) == 12
    pairs = query.x[0].view(3, 6, -1).float()
    originals = support.x[0].view(3, 4, -1).float()
    assert (pairs - originals[:, [0, 1, 2, 3, 0, 1]]).abs().mean() < 2


def test_a_task_depends_on_its_own_seed_alone() -> None:
    tasks = umtra(PICTURES, augment="affine,elastic,erase")
    seeds = task_seeds(5, generator(3))
    whole, alone = tasks.draw(seeds), tasks.draw(seeds[2:3])
    assert torch.equal(whole.query.x[2:3], alone.query.x) and torch.equal(whole.support.x[2:3], alone.support.x)
    assert whole.query.x.dtype == torch.float32 and whole.query.x.max() <= 1


def test_labels_are_ignored() -> None:
    one = Labelled(PICTURES, torch.zeros(50, dtype=torch.int64), ["a"], "noise", Pictures(12), ("shift",))
    other = one._replace(y=torch.arange(50), names=[str(place) for place in range(50)])
    assert torch.equal(umtra(one).draw([1, 2]).query.x, umtra(other).draw([1, 2]).query.x)
    assert "50 pictures without labels, queries changed by shift (strength 1.5); noise" in umtra(one).about


def test_what_cannot_be_is_explained() -> None:
    with pytest.raises(DataError, match="20 ways with 3 different pictures each need 60 pictures, but there are 50"):
        aal(PICTURES, ways=20, shots=3, augment="shift")
    with pytest.raises(UsageError, match="name at least one change"):
        umtra(PICTURES)  # a tensor says nothing of what is sensible
    with pytest.raises(UsageError, match=r"needs pictures"):
        umtra(torch.zeros(50, 3, 2), augment="shift")
    with pytest.raises(UsageError, match=r"features \(50, 3\).*--task cactus"):
        umtra(torch.zeros(50, 3), augment="shift")
    with pytest.raises(UsageError, match="queries must be at least 1"):
        umtra(PICTURES, queries=0, augment="shift")
