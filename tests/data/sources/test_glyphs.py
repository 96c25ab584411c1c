from __future__ import annotations

import pytest
import torch

from rbml.data.sources import glyphs, raster
from rbml.errors import UsageError


def test_parts_are_disjoint_and_of_the_promised_size() -> None:
    train, val, test = (set(glyphs.CLASSES[part]) for part in ("train", "val", "test"))
    assert (len(train), len(val), len(test)) == (1200, 100, 300)
    assert not (train & val or train & test or val & test)


def test_load_gives_bright_ink_on_zero() -> None:
    data = glyphs.load("val")
    assert data.x.shape == (2000, 1, 28, 28) and data.x.dtype == torch.uint8
    assert data.y.tolist() == [label for label in range(100) for _ in range(20)]
    assert data.names[0] == "glyph 1200" and data.classes == 100
    assert "seed 0" in data.about and "val" in data.about
    assert float((data.x == 0).float().mean()) > 0.7
    assert (data.x.flatten(1).amax(1) > 150).all()  # no drawing is blank or faint
    edge = torch.cat([data.x[..., 0, :], data.x[..., -1, :], data.x[..., 0], data.x[..., -1]], -1)
    assert int(edge.max()) == 0  # nor cut off


def test_load_is_the_same_from_the_cache() -> None:
    first, second = glyphs.load("val", seed=3), glyphs.load("val", seed=3)
    assert torch.equal(first.x, second.x)
    assert not torch.equal(first.x, glyphs.load("val", seed=4).x)


def test_a_class_looks_the_same_whatever_is_drawn_with_it(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = glyphs.render(0, range(40))
    assert torch.equal(glyphs.render(0, [7, 31, 2]), whole[[7, 31, 2]])
    monkeypatch.setattr(raster, "_CHUNK", 1)
    assert torch.equal(glyphs.render(0, range(5, 9)), whole[5:9])


def test_classes_differ_more_than_drawings() -> None:
    pictures = glyphs.render(0, range(60)).flatten(2).float()
    means = torch.nn.functional.avg_pool2d(pictures.view(60, 20, 28, 28), 4).flatten(2)
    within = (means - means.mean(1, keepdim=True)).pow(2).sum(-1).mean()
    between = torch.pdist(means.mean(1)).pow(2).mean()
    assert between > within


def test_a_split_that_does_not_exist() -> None:
    with pytest.raises(UsageError, match="split named 'lake'"):
        glyphs.load("val", split="lake")
