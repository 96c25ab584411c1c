from __future__ import annotations

import colorsys

import pytest
import torch
from torch import Tensor, nn

from rbml.backbones.photographs import BINS, WithColours, _hsv, colours


def test_hue_saturation_and_value_are_those_of_the_standard_library() -> None:
    pixels = torch.rand(200, 3, dtype=torch.float64)
    pixels[:5] = torch.tensor([[0, 0, 0], [1, 1, 1], [0.5, 0.5, 0.5], [1, 0, 0], [0, 0.2, 0.2]])
    found = torch.stack(_hsv(pixels.T[None]), -1)[0]
    expected = [colorsys.rgb_to_hsv(*pixel) for pixel in pixels.tolist()]
    assert found.flatten().tolist() == pytest.approx([value for pixel in expected for value in pixel], abs=1e-7)


def test_the_histogram_counts_pixels() -> None:
    x = torch.zeros(2, 3, 2, 2)
    x[0, 1] = 1.0  # green
    x[1, :, 0] = 1.0  # half white, half black
    found = colours(x)
    assert found.shape == (2, BINS) and torch.allclose(found.sum(1), torch.ones(2))
    green = (8 // 3) * 16 + 3 * 4 + 3
    assert found[0, green] == 1.0
    assert found[1, 3] == 0.5 and found[1, 0] == 0.5


def test_features_and_colours_have_norms_of_their_own() -> None:
    class Net(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.mean((2, 3))

    found = WithColours(Net(), share=0.5)(torch.rand(4, 3, 5, 5))
    assert found.shape == (4, 3 + BINS)
    assert torch.allclose(found[:, :3].norm(dim=1), torch.ones(4))
    assert torch.allclose(found[:, 3:].norm(dim=1), torch.full((4,), 0.5))
