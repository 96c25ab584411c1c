from __future__ import annotations

import math

import pytest
import torch

from rbml.data import augment
from rbml.data.augment import Augmentation
from rbml.errors import UsageError
from rbml.tasks import generator

KEYS = torch.tensor([3, 2**61 + 5, -7])
PICTURES = torch.randint(256, (3, 4, 3, 12, 10), dtype=torch.uint8, generator=generator(1))


@pytest.mark.parametrize("name", augment.ALL)
def test_a_task_depends_on_its_own_key_alone_and_keeps_its_form(name: str) -> None:
    change = Augmentation((name,), 1.5)
    whole = change(PICTURES, KEYS)
    assert whole.shape == PICTURES.shape and whole.dtype == torch.uint8
    assert torch.equal(whole, change(PICTURES, KEYS))
    assert torch.equal(whole[1:2], change(PICTURES[1:2], KEYS[1:2]))
    assert not torch.equal(whole, PICTURES)
    assert not torch.equal(change(PICTURES, KEYS + 1), whole)
    same = PICTURES[:, :1].expand(-1, 4, -1, -1, -1)  # each picture of a task is changed by a draw of its own
    assert any(len(task.unique(dim=0)) > 1 for task in change(same, KEYS))


def test_floats_and_uint8_are_changed_alike() -> None:
    change = Augmentation(("affine", "colour"))
    floats = change(PICTURES.float() / 255, KEYS)
    assert floats.dtype == torch.float32 and floats.min() >= 0 and floats.max() <= 1
    assert torch.equal((floats * 255).round().to(torch.uint8), change(PICTURES, KEYS))


def test_flip_mirrors_or_leaves_a_picture_as_it_is() -> None:
    many = PICTURES[:1, :1].expand(1, 200, -1, -1, -1)
    changed = Augmentation(("flip",))(many, KEYS[:1])[0]
    mirrored = (changed == many[0].flip(-1)).flatten(1).all(1)
    kept = (changed == many[0]).flatten(1).all(1)
    assert bool((mirrored ^ kept).all()) and 70 < int(mirrored.sum()) < 130


def test_a_matrix_moves_a_picture_as_it_says() -> None:
    # a quarter turn and a shift by whole pixels need no interpolation
    picture = torch.rand(1, 1, 6, 6, generator=generator(0))
    shift = augment._matrix(*(torch.tensor([value]) for value in (1.0, 0.0, 2 / 6, 0.0, 1.0, 0.0)))
    quarter = augment._matrix(*(torch.tensor([value]) for value in (0.0, -1.0, 0.0, 1.0, 0.0, 0.0)))

    def moved(matrix: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.grid_sample(picture, augment._grid(matrix, 6, 6), align_corners=False)

    assert (
        torch.allclose(moved(shift)[..., :5], picture[..., 1:], atol=1e-5) and moved(shift)[..., 5].abs().max() < 1e-5
    )
    assert torch.allclose(moved(quarter), picture.rot90(-1, (-2, -1)), atol=1e-5) or torch.allclose(
        moved(quarter), picture.rot90(1, (-2, -1)), atol=1e-5
    )
    both = augment._after(quarter, shift)
    rows = torch.tensor([[0.0, 0.0, 1.0]])
    product = torch.cat([quarter[0], rows]) @ torch.cat([shift[0], rows])
    assert torch.allclose(both[0], product[:2])


def test_ranges_are_those_that_the_names_promise() -> None:
    draws = augment._Draws(torch.arange(50), "rotation", 20)
    turned = augment._rotation(draws, 1.0)
    angles = torch.rad2deg(torch.atan2(turned[:, 1, 0], turned[:, 0, 0]))
    assert angles.abs().max() <= 15 and angles.abs().max() > 14 and abs(angles.mean()) < 1
    crops = augment._crop(augment._Draws(torch.arange(50), "crop", 20), 1.0)
    area = crops[:, 0, 0] * crops[:, 1, 1]
    assert 0.44 < area.min() < 0.55 and area.max() <= 1
    reach = crops[:, :, 2].abs() + torch.stack([crops[:, 0, 0], crops[:, 1, 1]], 1)
    assert reach.max() <= 1 + 1e-9  # a crop lies within the picture
    white = torch.ones(1, 500, 1, 20, 20)
    lost = 1 - Augmentation(("zero",))(white, torch.tensor([5])).mean((2, 3, 4))
    assert lost.max() < 0.4 and math.isclose(lost.mean().item(), 0.15, abs_tol=0.02)


def test_what_cannot_be_changed_is_refused() -> None:
    with pytest.raises(UsageError, match=r"augmentation named .flop..*flip"):
        Augmentation.of("crop,flop", ())
    with pytest.raises(UsageError, match="strength"):
        Augmentation(("flip",), -1)
    with pytest.raises(UsageError, match=r"needs pictures.*\(5, 3\).*--augment none"):
        Augmentation(("flip",)).check(torch.zeros(5, 3))
    with pytest.raises(UsageError, match="colour needs colour pictures"):
        Augmentation(("colour",)).check(torch.zeros(5, 1, 4, 4))
    Augmentation(()).check({"ids": torch.zeros(5)})
    assert Augmentation.of("auto", ("flip",)).names == ("flip",) and Augmentation.of("none", ("flip",)).names == ()


def test_own_sampling_is_that_of_pytorch() -> None:
    source = generator(0)
    pictures = torch.rand(3, 2, 5, 7, generator=source, dtype=torch.float64)
    grid = 3 * torch.rand(3, 5, 7, 2, generator=source, dtype=torch.float64) - 1.5
    theirs = torch.nn.functional.grid_sample(pictures, grid, padding_mode="border", align_corners=False)
    assert torch.allclose(augment._sampled(pictures, grid), theirs, rtol=0, atol=1e-14)


def test_warped_pictures_have_the_derivative_of_a_central_difference_by_the_strength() -> None:
    pictures, key = torch.rand(4, 1, 6, 6, dtype=torch.float64), torch.tensor(5)
    strength = torch.tensor(0.7, dtype=torch.float64)
    assert torch.allclose(augment.warped(pictures, key, strength * 0), pictures, atol=1e-12)

    def total(strength: torch.Tensor) -> torch.Tensor:
        return augment.warped(pictures, key, strength).square().sum()

    _, along = torch.func.jvp(total, (strength,), (torch.ones_like(strength),))
    numerical = (total(strength + 1e-6) - total(strength - 1e-6)) / 2e-6
    assert float(along) == pytest.approx(float(numerical), rel=1e-6) and abs(float(along)) > 0.1
    assert float(torch.func.grad(total)(strength)) == pytest.approx(float(along), rel=1e-12)
