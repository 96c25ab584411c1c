from __future__ import annotations

import torch

from rbml.models import BayesianLinear


def test_means_and_log_variances_of_one_linear_layer() -> None:
    layer = BayesianLinear(3, 2).double()
    x = torch.randn(5, 3, dtype=torch.float64)
    rows = layer.rows(x)
    assert rows.shape == (5, 2 * 2 + 3 + 1)
    variance = rows[:, 2:4].exp() * (1 + (rows[:, 4:] ** 2).sum(1, keepdim=True))
    assert torch.allclose(layer(x), torch.cat([rows[:, :2], variance.log()], 1))
