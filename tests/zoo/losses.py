"""Losses of the zoo."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from tests.zoo.case import WAYS, WIDTH, Case, loss, numbers
from torch import Tensor, nn


def gaussian(p: Tensor, y: Tensor) -> Tensor:
    return F.gaussian_nll_loss(p[:, 0], y, F.softplus(p[:, 1]))


def ctc(p: Tensor, y: Tensor) -> Tensor:
    """Five frames of three symbols, and a target of two."""
    frames = p.view(len(p), 5, WAYS).transpose(0, 1).log_softmax(-1)
    n = len(p)
    return F.ctc_loss(frames, y.view(n, 2), torch.full((n,), 5), torch.full((n,), 2))


def signs(n: int) -> Tensor:
    return torch.randn(n, WAYS, dtype=torch.float64).sign()


def probabilities(n: int) -> Tensor:
    return torch.softmax(torch.randn(n, WAYS, dtype=torch.float64), 1)


def binary(n: int) -> Tensor:
    return (torch.rand(n, WAYS) > 0.5).double()


LOSSES: dict[str, Case] = {
    "cross entropy, ignoring": loss(lambda p, y: F.cross_entropy(p, y, ignore_index=1)),
    "cross entropy, smoothed": loss(lambda p, y: F.cross_entropy(p, y, label_smoothing=0.1)),
    "cross entropy, weighted": loss(lambda p, y: F.cross_entropy(p, y, weight=torch.tensor([1.0, 2.0, 0.5]).double())),
    "cross entropy of probabilities": loss(F.cross_entropy, probabilities),
    "nll": loss(lambda p, y: F.nll_loss(p.log_softmax(1), y)),
    "multi margin": loss(lambda p, y: F.multi_margin_loss(p, y), error="second derivative"),
    "mse": loss(F.mse_loss, numbers(WAYS)),
    "mse of a row and a column": loss(F.mse_loss, numbers(), 1, error="unsqueeze"),
    "l1": loss(F.l1_loss, numbers(WAYS)),
    "l1 of a row and a column": loss(F.l1_loss, numbers(), 1, error="unsqueeze"),
    "smooth l1": loss(F.smooth_l1_loss, numbers(WAYS)),
    "huber": loss(F.huber_loss, numbers(WAYS)),
    "huber of a row and a column": loss(F.huber_loss, numbers(), 1, error="unsqueeze"),
    "soft margin": loss(F.soft_margin_loss, signs),
    "multi-label soft margin": loss(F.multilabel_soft_margin_loss, binary),
    "binary cross entropy": loss(lambda p, y: F.binary_cross_entropy(torch.sigmoid(p), y), binary),
    "binary cross entropy with logits": loss(F.binary_cross_entropy_with_logits, binary),
    "kl": loss(lambda p, y: F.kl_div(p.log_softmax(1), y, reduction="batchmean"), probabilities),
    "poisson": loss(F.poisson_nll_loss, lambda n: torch.randint(5, (n, WAYS)).double()),
    "poisson of whole numbers": loss(F.poisson_nll_loss, lambda n: torch.randint(5, (n, WAYS))),
    "gaussian": loss(gaussian, numbers(), 2),
    "cosine embedding": loss(lambda p, y: F.cosine_embedding_loss(p, y, torch.ones(len(p))), numbers(WAYS)),
    "hinge embedding": loss(F.hinge_embedding_loss, signs),
    "triplet": loss(lambda p, y: F.triplet_margin_loss(p, y, -y), numbers(WAYS)),
    "log cosh": loss(lambda p, y: torch.log(torch.cosh(p - y)).mean(), numbers(WAYS)),
    "ctc": loss(
        ctc, lambda n: torch.randint(1, WAYS, (n, 2)), 15, error="second derivative", options={"vectorise": False}
    ),
    "tagging of tokens": Case(
        lambda: nn.Sequential(nn.Linear(WIDTH, WAYS), nn.Tanh()),
        numbers(5, WIDTH),
        lambda n: torch.randint(WAYS, (n, 5)),
        lambda p, y: F.cross_entropy(p.transpose(1, 2), y),
    ),
}
