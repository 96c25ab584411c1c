"""Models from the literature; any other ``nn.Module`` works too. The last layer of each is named ``head``."""

from rbml.models.adaptor import Adaptor
from rbml.models.anml_net import anml_net
from rbml.models.bayesian import BayesianLinear
from rbml.models.conv4 import Conv4
from rbml.models.cosine_head import CosineHead, OneLength, with_cosine_head, with_linear_head
from rbml.models.discriminant_adaptor import DiscriminantAdaptor
from rbml.models.keras_file import keras
from rbml.models.lora import lora
from rbml.models.mlp import MLP
from rbml.models.modulated import Modulated, modulated
from rbml.models.oml_net import OMLNet
from rbml.models.pretrained import Pretrained, efficientnet_lite0, timm
from rbml.models.pretrained_text import hf, minilm
from rbml.models.resnet12 import ResNet12
from rbml.models.text_embedding import TextEmbedding
from rbml.models.tfidf import TfIdf
from rbml.models.warp import warped

ALL = {
    "mlp": MLP,
    "conv4": Conv4,
    "resnet12": ResNet12,
    "oml": OMLNet,
    "anml": anml_net,
    "adaptor": Adaptor,
    "discriminant_adaptor": DiscriminantAdaptor,
    "efficientnet_lite0": efficientnet_lite0,
    "timm": timm,
    "keras": keras,
    "minilm": minilm,
    "hf": hf,
    "tfidf": TfIdf,
    "text_embedding": TextEmbedding,
}

__all__ = [
    "ALL",
    "MLP",
    "Adaptor",
    "BayesianLinear",
    "Conv4",
    "CosineHead",
    "DiscriminantAdaptor",
    "Modulated",
    "OMLNet",
    "OneLength",
    "Pretrained",
    "ResNet12",
    "TextEmbedding",
    "TfIdf",
    "anml_net",
    "efficientnet_lite0",
    "hf",
    "keras",
    "lora",
    "minilm",
    "modulated",
    "timm",
    "warped",
    "with_cosine_head",
    "with_linear_head",
]
