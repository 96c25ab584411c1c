"""Models from the literature; any other ``nn.Module`` works too. The last layer of each is named ``head``."""

from rbml.models.adaptor import Adaptor
from rbml.models.bayesian import BayesianLinear
from rbml.models.conv4 import Conv4
from rbml.models.lora import lora
from rbml.models.mlp import MLP
from rbml.models.modulated import Modulated, modulated
from rbml.models.pretrained import Pretrained, efficientnet_lite0, timm
from rbml.models.resnet12 import ResNet12
from rbml.models.warp import warped

ALL = {
    "mlp": MLP,
    "conv4": Conv4,
    "resnet12": ResNet12,
    "adaptor": Adaptor,
    "efficientnet_lite0": efficientnet_lite0,
    "timm": timm,
}

__all__ = [
    "ALL",
    "MLP",
    "Adaptor",
    "BayesianLinear",
    "Conv4",
    "Modulated",
    "Pretrained",
    "ResNet12",
    "lora",
    "modulated",
    "warped",
]
