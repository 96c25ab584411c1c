"""Embeddings of words, n-grams or subwords, and their weighted mean."""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rbml.backbones import tokens
from rbml.errors import unknown

Pooling = Literal["mean", "attention"]


class TextEmbedding(nn.Module):
    r"""A vector and a weight per word, n-gram or subword, their weighted mean, and a linear ``head``.

    .. math:: f = \frac{m}{\|m\|}, \qquad m = \sum_i a_i\, e_{x_i}, \qquad
              a = \mathrm{softmax}_i(w_{x_i} + q \cdot e_{x_i})

    over the words :math:`x_i` of a sentence, padding left out. The weights :math:`w_j` begin as the logarithm of the
    inverse document frequency. ``mean`` has no query q; with ``attention`` it is learned, from zero. The vectors begin
    as a random projection, so that untrained distances are close to those of TF-IDF (Johnson, Lindenstrauss 1984). The
    mean is that of fastText (Joulin et al. 2016, arXiv:1607.01759), the
    attention that of Yang et al. 2016 (Hierarchical Attention Networks, NAACL) without a hidden layer.

    Inputs are ids ``(n, length)``, 0 for padding; outputs are ``(n, outputs)``.

    Args:
        outputs: the number of classes.
        vocabulary: how many ids there are.
        frequencies: how often each id occurs in training, packed by :func:`rbml.backbones.tokens.packed`; without
            them all weights begin at one.
        width: of the vectors.
        pooling: ``mean`` or ``attention``.

    Raises:
        UsageError: for another pooling.
    """

    def __init__(
        self, outputs: int, vocabulary: int = 16384, frequencies: str = "", width: int = 256, pooling: Pooling = "mean"
    ) -> None:
        """Draw the vectors; take the weights from the frequencies."""
        super().__init__()
        if pooling not in ("mean", "attention"):
            raise unknown("pooling", pooling, ["mean", "attention"])
        self.embedding = nn.Embedding(vocabulary, width)
        nn.init.normal_(self.embedding.weight, std=width**-0.5)
        self.log_weight = nn.Parameter(tokens.idf(frequencies, vocabulary).log())
        self.query = nn.Parameter(torch.zeros(width)) if pooling == "attention" else None
        self.head = nn.Linear(width, outputs)

    def forward(self, ids: Tensor) -> Tensor:
        """Map ids ``(n, length)`` to ``(n, outputs)``."""
        vectors = self.embedding(ids)
        scores = F.embedding(ids, self.log_weight[:, None])[..., 0]
        if self.query is not None:
            scores = scores + vectors @ self.query
        # A large negative number and not infinity: infinity would turn second derivatives into NaN.
        share = torch.softmax(torch.where(ids != 0, scores, -1e9), dim=1)
        output: Tensor = self.head(F.normalize((share[..., None] * vectors).sum(1), dim=1))
        return output
