from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from matplotlib.colors import same_color

from rbml import algorithms
from rbml.data.examples import Grouped
from rbml.data.inputs import Arrays
from rbml.data.targets import REAL, real
from rbml.errors import UsageError
from rbml.models import MLP
from rbml.recipe import Recipe, build
from rbml.reports import gallery, style
from rbml.tasks import FewShot, PerGroup, Sinusoid, Supervised, generator
from rbml.training import RunFolder

Blobs = Callable[..., tuple[torch.Tensor, list[str]]]


def frames(axes: Any, colour: str) -> int:
    return sum(same_color(patch.get_edgecolor(), colour) for patch in axes.patches)


def test_every_query_is_framed_as_the_learner_judges_it(trained: RunFolder, blobs: Blobs) -> None:
    tasks = FewShot(blobs(24), ways=3, shots=2, queries=4)
    (axes,) = gallery(trained, tasks, seed=5).axes
    episodes = tasks.draw([5])
    with torch.no_grad():
        prediction = trained.learner().adapt(episodes.support.x[0], episodes.support.y[0])(episodes.query.x[0])
    right = int((prediction.argmax(1) == episodes.query.y[0]).sum())
    assert (frames(axes, style.RIGHT), frames(axes, style.WRONG)) == (right, 12 - right)

    names = [tasks.names[index] for index in tasks.chosen(5)]
    texts = [text.get_text() for text in axes.texts]
    probability, predicted = prediction.softmax(1).max(1)
    for index in range(12):
        caption = f"{names[predicted[index]]}, {100 * probability[index].item():.0f} %"
        wrong = "" if predicted[index] == index // 4 else f"\nis {names[index // 4]}"
        assert caption + wrong in texts


def test_the_pictures_are_those_of_the_task(trained: RunFolder, blobs: Blobs) -> None:
    tasks = FewShot(blobs(24), ways=3, shots=1, queries=2)
    (axes,) = gallery(trained, tasks, seed=1).axes
    episodes = tasks.draw([1])
    shown = [np.asarray(image.get_array()) for image in axes.images]
    assert len(shown) == 9
    assert np.array_equal(shown[3], episodes.support.x[0, 1, 0].numpy())  # each row: its support, then its queries
    assert np.array_equal(shown[4], episodes.query.x[0, 2, 0].numpy())
    assert axes.images[0].get_cmap().name == "gray_r"  # ink on dark, shown as ink on white


def test_twenty_ways_are_capped_and_it_is_said(trained: RunFolder, blobs: Blobs) -> None:
    tasks = FewShot(blobs(24, each=16), ways=20, shots=7, queries=9)
    figure = gallery(trained, tasks, seed=0)
    (axes,) = figure.axes
    assert len(axes.images) == 10 * (5 + 6)
    (words,) = [artist.get_text() for artist in figure.artists]
    assert words.endswith(
        "of 180 queries right; shown are 10 of 20 classes, 5 of 7 shots per class, 6 of 9 queries per class"
    )
    assert style.png(figure)


def test_colour_pictures_keep_their_colours(blobs: Blobs) -> None:
    x, names = blobs(8, channels=3)
    tasks = FewShot((x, names), ways=3, shots=1, queries=2)
    learner = build.learner(Recipe.of(filters=4, size=16, channels=3, ways=3))
    (axes,) = gallery(learner, tasks, seed=0).axes
    expected = tasks.draw([0]).support.x[0, 0].permute(1, 2, 0).numpy()
    assert np.array_equal(np.asarray(axes.images[0].get_array()), expected)


def test_photographs_in_grey_are_not_inverted(blobs: Blobs) -> None:
    x, names = blobs(8)
    tasks = FewShot((255 - x, names), ways=3, shots=1, queries=2)
    learner = build.learner(Recipe.of(filters=4, size=16, ways=3))
    assert gallery(learner, tasks, seed=0).axes[0].images[0].get_cmap().name == "gray"


def test_values_outside_0_to_1_are_scaled_into_it(blobs: Blobs) -> None:
    x, names = blobs(8)
    tasks = FewShot((x.float() / 50 - 2, names), ways=3, shots=1, queries=2)
    learner = build.learner(Recipe.of(filters=4, size=16, ways=3))
    both = np.stack([np.asarray(image.get_array()) for image in gallery(learner, tasks, seed=0).axes[0].images])
    assert both.min() == 0 and both.max() == 1


def test_long_names_stand_at_the_row_and_numbers_below_the_pictures(trained: RunFolder, blobs: Blobs) -> None:
    x, names = blobs(24)
    tasks = FewShot((x, [f"Japanese_(katakana)/{name}/rot090" for name in names]), ways=3, shots=1, queries=2)
    texts = [text.get_text() for text in gallery(trained, tasks, seed=0).axes[0].texts]
    first = tasks.names[tasks.chosen(0)[0]]
    (label,) = [text for text in texts if text.startswith("class 0\n")]
    assert label.removeprefix("class 0").replace("\n", "").replace(" ", "") == first.replace(" ", "")
    assert all(len(line) <= 18 for line in label.splitlines())
    assert sum(text.startswith("class") and "%" in text for text in texts) == 6


def test_what_is_no_picture_stands_as_text() -> None:
    x = torch.arange(80.0).reshape(40, 2)
    tasks = FewShot((x, torch.arange(40) // 10), ways=3, shots=1, queries=2)
    (axes,) = gallery(algorithms.maml(MLP(2, 3)), tasks, seed=0).axes
    texts = [text.get_text() for text in axes.texts]
    assert not axes.images and len(axes.patches) == 9
    for row in tasks.draw([0]).query.x[0].tolist():
        assert f"0 {row[0]:.4g}\n1 {row[1]:.4g}" in texts


def test_real_values_are_drawn_against_the_truth() -> None:
    tasks, learner = Sinusoid(shots=4, queries=6), algorithms.maml(MLP(1, 1), loss=REAL.loss)
    figure = gallery(learner, tasks, seed=3)
    panel, listed = figure.axes
    task = tasks.draw([3])
    with torch.no_grad():
        prediction = learner.adapt(task.support.x[0], task.support.y[0])(task.query.x[0])
    _, points = panel.lines
    assert np.allclose(points.get_xdata(), task.query.y[0, :, 0]) and np.allclose(points.get_ydata(), prediction[:, 0])
    error = float((prediction - task.query.y[0]).abs().mean())
    assert any(f"MAE {error:.3g} over 6 queries" in artist.get_text() for artist in figure.artists)
    texts = [text.get_text() for text in listed.texts]
    assert texts[:3] == ["query", "true", "predicted"] and f"{prediction[0, 0]:.4g}" in texts
    assert style.png(figure)


def test_scaled_values_are_drawn_in_the_units_of_the_data() -> None:
    y = 100 + 20 * torch.randn(30, 1, generator=generator(0))
    data = Grouped(torch.randn(30, 2, generator=generator(1)), y, torch.arange(30) // 10, ["a", "b", "c"], "rows",
                   Arrays(), target=real([100.0], [20.0]))  # fmt: skip
    tasks, learner = PerGroup(data, shots=4, queries=6), algorithms.alpaca(MLP(2, 1))
    panel, listed = gallery(learner, tasks, seed=3).axes
    truth = 100 + 20 * tasks.draw([3]).query.y[0, :, 0]
    assert np.allclose(panel.lines[1].get_xdata(), truth)
    assert [text.get_text() for text in listed.texts][4] == f"{float(truth[0]):.4g}"
    assert 20 < np.mean(panel.lines[1].get_ydata()) < 180


def test_a_target_that_no_gallery_can_show_is_said() -> None:
    tasks = Supervised((torch.randn(40, 2), torch.arange(40) // 10), batch=5)
    with pytest.raises(UsageError, match="a gallery shows few-shot classes and real values"):
        gallery(algorithms.maml(MLP(2, 4)), tasks, seed=0)
