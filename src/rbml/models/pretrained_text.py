"""Pretrained encoders of text as models: adapted as a whole, by a pattern, by LoRA, or only their head."""

from __future__ import annotations

from torch import nn

from rbml import backbones
from rbml.models.pretrained import with_head


def minilm(outputs: int, rank: int = 0) -> nn.Module:
    """MiniLM, an encoder of English sentences, and a head (Wang et al. 2020, arXiv:2002.10957): from a package.

    Args:
        outputs: the number of classes, or of regression targets.
        rank: of LoRA (arXiv:2106.09685): only low-rank changes and the head are trained and adapted; 0 trains all.

    Raises:
        UsageError: if the package with the weights is not installed.
        DataError: if the weights are damaged.
    """
    return with_head(backbones.load("minilm"), outputs, rank)


def hf(outputs: int, name: str = "", rank: int = 0) -> nn.Module:
    """Any encoder of the library transformers, with a head, hf:NAME (Reimers, Gurevych 2019, arXiv:1908.10084).

    Args:
        outputs: the number of classes, or of regression targets.
        name: a folder, or the name of a model on the Hugging Face hub; it is written after a colon.
        rank: of LoRA (arXiv:2106.09685): only low-rank changes and the head are trained and adapted; 0 trains all.

    Raises:
        UsageError: if transformers is not installed.
        DataError: if there is no such model, or it cannot be read.
    """
    return with_head(backbones.load(f"hf:{name}"), outputs, rank)
