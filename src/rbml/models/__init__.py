"""Models from the literature; any other ``nn.Module`` works too. The last layer of each is named ``head``."""

from rbml.models.bayesian import BayesianLinear
from rbml.models.conv4 import Conv4
from rbml.models.mlp import MLP
from rbml.models.text_embedding import TextEmbedding
from rbml.models.tfidf import TfIdf
from rbml.models.warp import warped

ALL = {
    "mlp": MLP,
    "conv4": Conv4,
    "tfidf": TfIdf,
    "text_embedding": TextEmbedding,
}

__all__ = ["ALL", "MLP", "BayesianLinear", "Conv4", "TextEmbedding", "TfIdf", "warped"]
