from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from rbml.errors import UsageError
from rbml.models import Adaptor, DiscriminantAdaptor
from rbml.models.discriminant_adaptor import discriminant_of


def classes(spread: Tensor, count: int = 40, each: int = 30) -> tuple[Tensor, Tensor]:
    """Return examples of classes whose means differ as much in all directions, with this spread within each."""
    y = torch.arange(count * each) // each
    means = torch.randn(count, len(spread), dtype=torch.float64)
    return means[y] + spread * torch.randn(count * each, len(spread), dtype=torch.float64), y


def test_within_classes_directions_vary_alike_and_between_them_they_are_stretched_by_their_strength() -> None:
    x, y = classes(torch.tensor([3.0, 1.0, 0.3], dtype=torch.float64))
    turned = x @ discriminant_of(x, y, 1e-9, 0.0).T
    means = torch.stack([turned[y == label].mean(0) for label in range(40)])
    assert torch.allclose((turned - means[y]).T.cov(correction=0), torch.eye(3, dtype=torch.float64), atol=1e-6)
    between = means.T.cov(correction=0)
    assert torch.allclose(between, between.diagonal().diag(), atol=1e-6), "its axes are those of the class means"
    stretched = discriminant_of(x, y, 1e-9, 0.5)
    ratio = (1 + between.diagonal() / between.diagonal().mean()).sqrt()
    assert torch.allclose(stretched, ratio[:, None] * discriminant_of(x, y, 1e-9, 0.0))


def test_fully_shrunk_and_without_stretching_it_is_a_rotation() -> None:
    x, y = classes(torch.tensor([3.0, 1.0, 0.3], dtype=torch.float64))
    found = discriminant_of(x, y, 1.0, 0.0)
    assert torch.allclose(found @ found.T, found[0].square().sum() * torch.eye(3, dtype=torch.float64))


def test_labels_need_not_be_dense_and_a_direction_without_variance_stays_finite() -> None:
    x, y = classes(torch.tensor([1.0, 1.0, 1.0], dtype=torch.float64))
    x[:, 2] = 0
    assert torch.equal(discriminant_of(x, 7 * y + 3, 0.5, 0.2), discriminant_of(x, y, 0.5, 0.2))
    assert discriminant_of(x, y, 0.5, 0.2).isfinite().all()


def test_before_training_similarities_are_the_mean_of_those_of_both_views() -> None:
    x, y = classes(torch.tensor([3.0, 1.0, 0.3], dtype=torch.float64))
    model, alone = DiscriminantAdaptor(3, 6).double(), Adaptor(3, 3, scale=1.0, start="centred").double()
    model.begin(x, y)
    alone.begin(x, y)
    model.head, alone.head = torch.nn.Identity(), torch.nn.Identity()
    unit = F.normalize(x - x.mean(0), dim=1)
    turned = F.normalize(unit @ discriminant_of(unit, y, 0.75, 0.15).T, dim=1)
    expected = 16 * (alone(x) @ alone(x).T + turned @ turned.T) / 2
    assert torch.allclose(model(x) @ model(x).T, expected)


def test_real_targets_move_the_centre_alone() -> None:
    x, model = torch.randn(20, 4), DiscriminantAdaptor(4, 1)
    model.begin(x, torch.randn(20, 1))
    assert torch.equal(model.centre, x.mean(0))
    assert torch.equal(model.discriminant, torch.eye(4))


@pytest.mark.parametrize(("options", "expected"), [({"shrink": 0.0}, "above 0"), ({"power": -1.0}, "0 or more")])
def test_impossible_options_are_refused(options: dict[str, float], expected: str) -> None:
    with pytest.raises(UsageError, match=expected):
        DiscriminantAdaptor(4, 2, **options)
