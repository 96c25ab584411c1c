"""What a learner is compared with: what baselines look at."""

from __future__ import annotations

import pytest
import torch

from rbml import algorithms
from rbml.data.examples import Labelled
from rbml.data.inputs import Pictures, Text
from rbml.data.inputs.colour import colour_histogram
from rbml.tasks import FewShot, generator
from rbml.training.rivals import plain_baselines, views


def photographs(channels: int) -> FewShot:
    x = torch.randint(256, (40, channels, 6, 6), generator=generator(0), dtype=torch.uint8)
    names = ["a", "b", "c", "d"]
    modality = Pictures(size=6, channels=channels)
    return FewShot(Labelled(x, torch.arange(40) // 10, names, "test", modality), ways=3, shots=2, queries=3)


def test_the_colours_of_colour_pictures_are_looked_at() -> None:
    assert [view.where for view in views(photographs(1))] == ["raw inputs"]
    tasks = photographs(3)
    inputs, colours = views(tasks)
    assert (inputs.where, inputs.convert, colours.where) == ("raw inputs", None, "colours")
    assert colours.convert is not None
    found = colours.convert(tasks.draw([1, 2]))
    stored = tasks.stored([1, 2])
    assert torch.equal(found.query.x[1], colour_histogram(stored.query.x[1])), "of the pictures as they are stored"
    assert torch.equal(found.support.y, stored.support.y)


def test_the_words_of_sentences_are_looked_at() -> None:
    pytest.importorskip("sklearn")
    sentences = [f"{word} number {place}" for word in ("send money", "lost card", "new phone") for place in range(5)]
    modality = Text(buckets=64).fitted(sentences)
    labels = torch.arange(15) // 5
    examples = Labelled(modality.read(sentences), labels, ["a", "b", "c"], "test", modality)
    tasks = FewShot(examples, ways=3, shots=2, queries=2)
    (words,) = views(tasks)
    assert words.where == "words" and words.convert is not None
    part = tasks.draw([3, 4])
    found = words.convert(part)
    assert found.query.x.shape[:2] == (2, 6)
    assert torch.allclose(found.query.x.norm(dim=-1), torch.ones(2, 6)), "vectors of unit norm, as TF-IDF has them"
    methods = {method.name: method for method in plain_baselines(tasks)}
    centroid = methods["nearest centroid on words"].of(part, None)
    assert torch.equal(centroid, algorithms.nearest_centroid(found)) and float(centroid.mean()) > 0.9
