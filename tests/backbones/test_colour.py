"""Colours beside the features of a network, against the standard library and NumPy."""

from __future__ import annotations

import colorsys

import numpy as np
import torch
from torch import nn

from rbml.backbones.colour import COUNT, Coloured, colours, hsv


def pictures(count: int, size: int = 8) -> torch.Tensor:
    return torch.rand(count, 3, size, size, generator=torch.Generator().manual_seed(0)).double()


def test_hsv_is_that_of_the_standard_library() -> None:
    x = torch.cat([pictures(2), pictures(1).mean(1, keepdim=True).expand(-1, 3, -1, -1), torch.zeros(1, 3, 8, 8)])
    rows = x.permute(0, 2, 3, 1).reshape(-1, 3).tolist()
    truth = torch.tensor([colorsys.rgb_to_hsv(*row) for row in rows], dtype=torch.float64)
    assert torch.allclose(hsv(x).permute(0, 2, 3, 1).reshape(-1, 3), truth, rtol=1e-9, atol=1e-12)


def test_shares_are_a_histogram() -> None:
    x = pictures(3)
    for own, picture in zip(colours(x), hsv(x), strict=True):
        truth, _ = np.histogramdd(picture.reshape(3, -1).T.numpy(), (16, 4, 4), [(0, 1)] * 3)
        assert np.allclose(own.numpy(), truth.ravel() / truth.sum())


def test_every_block_has_its_length_and_pictures_do_not_see_one_another() -> None:
    body = nn.Sequential(nn.AdaptiveAvgPool2d(2), nn.Flatten())
    model, x = Coloured(body, 0.5), pictures(3, 10)
    found = model(x)
    assert found.shape == (3, 12 + COUNT)
    lengths = [block.norm(dim=1) for block in found.split([12, COUNT // 2, COUNT // 2], 1)]
    assert all(
        torch.allclose(length, torch.tensor(s).double()) for length, s in zip(lengths, (1, 0.5, 0.5), strict=True)
    )
    assert torch.equal(model(x[1:2])[0], found[1])
    assert torch.allclose(found[:, -COUNT // 2 :], 0.5 * colours(x[..., 2:8, 2:8]).sqrt())
