from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from rbml.errors import UsageError
from rbml.reports import metric_by_step
from rbml.reports.style import png

Origin = Callable[..., dict[str, Any]]


def test_the_points_and_intervals_are_those_of_the_evaluation(evaluation: Origin) -> None:
    one = evaluation()
    (axes,) = metric_by_step({"a": one}).axes
    for container, which in zip(axes.containers, ("transductive", "inductive"), strict=True):
        points, _, (bars,) = container.lines
        scores = one["accuracy"][which]
        assert points.get_label() != which and container.get_label() == which
        assert points.get_xdata().tolist() == [0, 1, 2]
        assert points.get_ydata().tolist() == [score["mean"] for score in scores]
        for segment, score in zip(bars.get_segments(), scores, strict=True):
            expected = [score["mean"] - score["interval"], score["mean"] + score["interval"]]
            assert np.allclose(segment[:, 1], expected)


def test_the_last_step_stands_in_numbers(evaluation: Origin) -> None:
    (axes,) = metric_by_step({"a": evaluation()}).axes
    texts = [text.get_text() for text in axes.texts]
    assert "50.0 ± 1.2 %" in texts and "45.0 ± 1.2 %" in texts and "600 test tasks" in texts


@pytest.mark.parametrize("count", [1, 2, 4])
def test_every_evaluation_has_a_panel(evaluation: Origin, count: int) -> None:
    figure = metric_by_step({str(index): evaluation(f"source {index}", ways=5 + index) for index in range(count)})
    shown = [axes for axes in figure.axes if axes.get_visible()]
    assert [axes.get_title("left") for axes in shown] == [f"source {i}, {5 + i}-way 1-shot" for i in range(count)]
    assert png(figure)[:4] == b"\x89PNG"


def test_nothing_overlaps_the_panels_neighbours(evaluation: Origin) -> None:
    figure = metric_by_step({str(index): evaluation(episodes=100_000, ways=20) for index in range(5)})
    figure.draw_without_rendering()
    boxes = [axes.get_tightbbox() for axes in figure.axes if axes.get_visible()]
    assert all(box is not None for box in boxes)
    pairs = [(a, b) for place, a in enumerate(boxes) for b in boxes[place + 1 :]]
    assert not any(a.overlaps(b) for a, b in pairs if a and b)


def test_a_folder_of_pictures_is_named_by_its_last_part(evaluation: Origin) -> None:
    titles = [
        metric_by_step({"a": evaluation(name)}).axes[0].get_title("left")
        for name in ("folder:/home/me/mushrooms/", "folder:a/pictures of all my mushrooms")
    ]
    assert titles == ["mushrooms, 5-way 1-shot", "pictures of all m…, 5-way 1-shot"]


def test_no_step_and_one_task_are_drawn_too(evaluation: Origin) -> None:
    one = evaluation(steps=0, episodes=1)
    one["accuracy"]["transductive"][0]["interval"] = float("nan")
    assert png(metric_by_step({"a": one}))


def test_nothing_to_draw_says_what_to_do() -> None:
    with pytest.raises(UsageError, match="rbml evaluate RUN"):
        metric_by_step({})


def test_other_metrics_have_their_own_axis_and_no_chance(evaluation: Origin) -> None:
    real = evaluation("parkinsons")
    del real["ways"]
    real["MAE"] = real.pop("accuracy")
    real["metrics"] = [{"name": "MAE", "better": "lower", "unit": "points"}]
    (axes,) = metric_by_step({"a": real}).axes
    assert axes.get_ylabel() == "query MAE (points)" and axes.get_title("left") == "parkinsons, 1-shot"
    assert "0.500 ± 0.012 points" in [text.get_text() for text in axes.texts]
    assert not [line for line in axes.lines if line.get_label() == "chance"]
    figure = metric_by_step({"a": real, "b": evaluation()})
    assert [axes.get_ylabel() for axes in figure.axes] == ["query MAE (points)", "query accuracy"]
    assert png(figure)
