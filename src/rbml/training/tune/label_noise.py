r"""How many labels are wrong, and which: a model of wrong labels on top of predictions that did not see them.

Shapes: N examples, C classes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from rbml.errors import UsageError

_LARGEST = 0.9
"""The largest noise rate that is considered: beyond it labels say next to nothing."""


_USUAL, _SPREAD = math.log(3.0), 0.4
"""The logarithm of the sharpness that is expected before labels are seen, and how far it usually is from that."""


@dataclass(frozen=True)
class LabelNoise:
    r"""Labels of which a share e is wrong, each of the other classes being as likely.

    .. math:: P(z \mid x) = (1 - e)\, q_z(x) + e\, \frac{1 - q_z(x)}{C - 1}, \qquad q = \mathrm{softmax}(\tau \log p)

    with p the probabilities of a model that has not seen the label z of x. The chance that a label is right is then
    :math:`(1 - e)\, q_z / P(z \mid x)`. Symmetric label noise, as in Natarajan et al. 2013 ("Learning with noisy
    labels", NeurIPS); the temperature makes up for a model that learned from wrong labels and is too timid (Guo et al.
    2017, arXiv:1706.04599). Confident learning (Northcutt et al. 2021, arXiv:1911.00068) estimates a rate for every
    pair of classes instead, which needs more examples.

    Attributes:
        rate: e, the share of wrong labels.
        sharpness: :math:`\tau`, one over the temperature.
    """

    rate: float
    sharpness: float

    @staticmethod
    def fitted(probabilities: Tensor, y: Tensor) -> LabelNoise:
        """Return the likeliest rate and sharpness, where a sharpness around 3 is expected.

        With few examples the labels alone hardly tell soft predictions of right labels from sharp ones of labels that
        are partly wrong (178 wines: shares of 2 % and 20 % may differ by four nats). The expectation, a normal one of
        the logarithm, weighs as much for any number of examples, so that it counts where the labels say little.

        Args:
            probabilities: p, ``(N, C)``.
            y: the labels z, ``(N,)``.

        Raises:
            UsageError: for a single class.
        """
        if probabilities.shape[1] < 2:
            raise UsageError("wrong labels can only be told apart with at least 2 classes")
        logs = probabilities.double().clamp(min=1e-12).log()
        raw = torch.tensor([_USUAL, -1.5], dtype=torch.float64, requires_grad=True)
        optimizer = torch.optim.LBFGS([raw], max_iter=100, line_search_fn="strong_wolfe")

        def loss() -> Tensor:
            optimizer.zero_grad()
            right, wrong = _parts(logs, y, raw[0].exp(), _LARGEST * raw[1].sigmoid())
            expected = ((raw[0] - _USUAL) / _SPREAD).square() / (2 * len(y))
            value = expected - (right + wrong).clamp(min=1e-12).log().mean()
            value.backward()  # type: ignore[no-untyped-call]
            return value

        optimizer.step(loss)  # type: ignore[no-untyped-call]
        sharpness, rate = raw.detach().exp()[0], _LARGEST * raw.detach().sigmoid()[1]
        return LabelNoise(float(rate), float(sharpness))

    def right(self, probabilities: Tensor, y: Tensor) -> Tensor:
        """Return the chance that each label is right, ``(N,)``; arguments as in :meth:`fitted`."""
        logs = probabilities.double().clamp(min=1e-12).log()
        right, wrong = _parts(logs, y, torch.tensor(self.sharpness), torch.tensor(self.rate))
        return (right / (right + wrong).clamp(min=1e-300)).to(probabilities.dtype)


def _parts(logs: Tensor, y: Tensor, sharpness: Tensor, rate: Tensor) -> tuple[Tensor, Tensor]:
    """Return the likelihood of every label through being right, and through being wrong, ``(N,)`` each."""
    q = (logs * sharpness).log_softmax(1).gather(1, y[:, None])[:, 0].exp()
    return (1 - rate) * q, rate * (1 - q) / (logs.shape[1] - 1)
