"""TF-IDF with weights that can be learned."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from rbml.backbones import tokens


class TfIdf(nn.Module):
    r"""Counts of words and n-grams, weighted and of unit norm, and a linear ``head``; the weights begin as IDF.

    .. math:: f_j \propto n_j \exp(w_j), \qquad \exp(w_j) = \ln \frac{1 + N}{1 + N_j} + 1 \text{ at the start}

    where :math:`n_j` is how often a sentence has the id j, and :math:`N_j` of N training sentences have it. Untrained
    it is the TF-IDF of scikit-learn's ``TfidfVectorizer`` (Salton, Buckley 1988), of words that may be hashed
    (Weinberger et al. 2009, arXiv:0902.2206). Inputs are ids ``(n, length)``, 0 for padding; outputs are
    ``(n, outputs)``.

    Memory: a batch has ``n * vocabulary`` numbers.

    Args:
        outputs: the number of classes.
        vocabulary: how many ids there are.
        frequencies: how often each id occurs in training, packed by :func:`rbml.backbones.tokens.packed`; without
            them all weights begin at one.
    """

    def __init__(self, outputs: int, vocabulary: int = 16384, frequencies: str = "") -> None:
        """Take the weights from the frequencies."""
        super().__init__()
        self.vocabulary = vocabulary
        self.log_weight = nn.Parameter(tokens.idf(frequencies, vocabulary).log())
        self.head = nn.Linear(vocabulary, outputs)

    def forward(self, ids: Tensor) -> Tensor:
        """Map ids ``(n, length)`` to ``(n, outputs)``."""
        # Of ids that occur twice the weights are added: that is the count times the weight.
        weights = F.embedding(ids, self.log_weight[:, None])[..., 0].exp() * (ids != 0)
        counts = weights.new_zeros(len(ids), self.vocabulary).scatter_add(1, ids, weights)
        output: Tensor = self.head(F.normalize(counts, dim=1))
        return output
