"""Features of a frozen backbone as a modality, with a small backbone in place of the pretrained ones."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from rbml import backbones
from rbml.backbones import Backbone
from rbml.data import Labelled
from rbml.data.inputs import Arrays, Embedded, Pictures, Text, made
from rbml.data.inputs import embedded as modality
from rbml.data.progress import watched
from rbml.data.setting import Setting
from rbml.data.targets import CLASSES
from rbml.errors import CheckpointError, DataError, UsageError

embedded_examples, embedding = modality.embedded, modality.embedding


class Body(nn.Module):
    """Return the mean of each channel, and the height."""

    calls = 0

    def __init__(self) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.tensor(2.0))

    def forward(self, x: Tensor) -> Tensor:
        Body.calls += 1
        return torch.cat([self.gain * x.mean((2, 3)), torch.full((len(x), 1), float(x.shape[-1]))], 1)


@pytest.fixture(autouse=True)
def tiny(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Backbone]:
    monkeypatch.setenv("RBML_CACHE", str(tmp_path / "cache"))
    found = Backbone("tiny", Body().eval(), 4, "pictures", {"size": 8, "channels": 3}, "for tests")
    monkeypatch.setitem(backbones.ALL, "tiny", lambda more: replace(found))
    modality._loaded.cache_clear()
    Body.calls = 0
    yield found
    modality._loaded.cache_clear()


def labelled(channels: int = 3, size: int = 8) -> Labelled:
    x = torch.randint(0, 256, (40, channels, size, size), dtype=torch.uint8)
    return Labelled(x, torch.arange(40) % 4, list("abcd"), "noise", Pictures(size, channels))


def test_features_are_those_of_the_backbone_on_what_the_inner_modality_made_ready() -> None:
    examples = labelled()
    found = embedded_examples(examples, "tiny")
    expected = torch.cat([2 * (examples.x.float() / 255).mean((2, 3)), torch.full((40, 1), 8.0)], 1)
    assert torch.allclose(found.x, expected, atol=1e-6) and found.x.dtype == torch.float32
    assert found.modality.ready(found.x) is found.x
    assert found.modality.facts() == {"inputs": 4}
    assert found.about == "noise; features of tiny"
    assert found.modality.show(found.x[:2]).values[0].keys() == {f"feature {place}" for place in range(4)}


def test_features_are_computed_once_for_the_same_inputs_and_weights(tiny: Backbone) -> None:
    examples, seen = labelled(), []
    with watched(lambda what, done, total: seen.append((done, total))):
        first = embedded_examples(examples, "tiny")
    assert seen == [(16, 40), (32, 40), (40, 40)] and Body.calls == 3
    assert torch.equal(embedded_examples(examples, "tiny").x, first.x) and Body.calls == 3
    embedded_examples(examples._replace(x=examples.x + 1), "tiny")
    assert Body.calls == 6, "other pictures"
    part = embedded_examples(examples._replace(x=torch.cat([examples.x[5:], examples.x[:3] + 2])), "tiny")
    assert Body.calls == 7, "three new ones"
    assert torch.equal(part.x[:35], first.x[5:])
    twice = embedded_examples(examples._replace(x=torch.cat([examples.x[:2] + 3, examples.x[:2] + 3])), "tiny")
    assert Body.calls == 8 and torch.equal(twice.x[:2], twice.x[2:])
    with torch.no_grad():
        tiny.body.gain += 1
    modality._loaded.cache_clear()
    assert not torch.equal(embedded_examples(examples, "tiny").x, first.x) and Body.calls == 11, "other weights"


def test_what_was_computed_before_an_interruption_is_kept() -> None:
    examples = labelled()

    def interrupted(what: str, done: int, total: int) -> None:
        if done == 32:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), watched(interrupted):
        embedded_examples(examples, "tiny")
    assert Body.calls == 2
    found = embedded_examples(examples, "tiny")
    assert Body.calls == 3
    assert torch.equal(found.x, found.modality.embed(examples.x))


def test_another_fold_of_sentences_computes_only_what_is_new(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []

    class Encoder(nn.Module):
        def forward(self, ids: Tensor) -> Tensor:
            seen.append(len(ids))
            return ids.float().sum(1, keepdim=True).expand(-1, 2)

    found = Backbone("said", Encoder(), 2, "text", {}, "for tests")
    monkeypatch.setitem(backbones.ALL, "said", lambda more: found)
    sentences = [f"word{place} again" for place in range(10)]

    def fold(some: list[str]) -> Labelled:
        inner = Text("words").fitted(some)  # the counts of words differ from fold to fold
        return Labelled(inner.read(some), torch.arange(len(some)) % 2, list("ab"), "said", inner)

    whole = embedded_examples(fold(sentences), "said").x
    part = embedded_examples(fold([*sentences[3:], "a word that is new"]), "said").x
    assert seen == [10, 1] and torch.equal(part[:7], whole[3:])


def test_files_are_read_and_saved_settings_read_them_in_the_same_way(tmp_path: Path) -> None:
    image = pytest.importorskip("PIL.Image")
    (tmp_path / "a").mkdir()
    pixels = np.random.default_rng(0).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    image.fromarray(pixels).save(tmp_path / "a" / "0.png")
    own = embedding(Pictures(8, 3), "tiny")
    again = Setting.from_json(Setting(own, CLASSES, 4).to_json()).modality
    assert again == own
    raw = again.find([tmp_path], labelled=True)
    assert raw.labels == ["a"]
    expected = [*(2 * pixels.mean((0, 1)) / 255), 8]
    assert again.read(raw.raw)[0].tolist() == pytest.approx(expected, abs=1e-4)
    assert again.read([]).shape == (0, 4)


def test_grey_and_small_pictures_are_brought_to_what_the_backbone_is_for() -> None:
    found = embedded_examples(labelled(1, 5), "tiny", size=12)
    assert isinstance(found.modality, Embedded) and found.modality.size == 12
    assert found.x[0, 3] == 12 and torch.allclose(found.x[:, 0], found.x[:, 1])
    assert embedding(Pictures(12, 3), "tiny", 12).size == 0, "nothing to do"


def test_other_weights_than_the_saved_ones_are_refused() -> None:
    spec = embedding(Pictures(8, 3), "tiny").spec() | {"fingerprint": "0" * 16}
    with pytest.raises(DataError, match=r"features of tiny with the weights 0000000000000000, but those .* are \w{16}"):
        made("embedded", spec).read([])


def test_a_backbone_reads_its_own_kind_of_inputs() -> None:
    with pytest.raises(UsageError, match="tiny is a backbone for pictures, and these are arrays"):
        embedding(Arrays(), "tiny")
    values = Setting(embedding(Pictures(8, 3), "tiny"), CLASSES, 4).to_json()
    values["inputs"]["spec"]["inner"]["kind"] = "smells"
    with pytest.raises(CheckpointError, match="smells"):
        Setting.from_json(values)


def test_standardised_features_are_kept_in_the_saved_setting() -> None:
    own = embedding(Pictures(8, 3), "tiny")
    stored = own.embed(torch.arange(2 * 3 * 64, dtype=torch.float32).view(2, 3, 8, 8).to(torch.uint8))
    made_so = own.standardised(stored)
    ready = made_so.ready(stored)
    assert isinstance(ready, Tensor)
    assert torch.allclose(ready[:, :3].mean(0), torch.zeros(3), atol=1e-6)
    assert torch.allclose(ready[:, :3].std(0, correction=0), torch.ones(3))
    assert torch.equal(ready[:, 3], torch.zeros(2))  # a constant feature
    again = Setting.from_json(Setting(made_so, CLASSES, 2).to_json()).modality
    assert again == made_so and torch.equal(again.ready(stored), ready)
    assert torch.equal(own.ready(stored), stored) and "mean" not in own.spec()
    with pytest.raises(UsageError, match="1 means and 0 deviations"):
        Embedded(Pictures(8, 3), "tiny", mean=[1.0])
