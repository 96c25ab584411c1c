from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from rbml.errors import CheckpointError
from rbml.reports import phi_figure, phi_table, tensor_table
from rbml.reports.learned import quantities_of
from rbml.reports.panels import density
from rbml.reports.phi import Summary
from rbml.reports.style import png
from rbml.strategy import Part, adam, chain, l1, momentum, sgd, weight_decay
from rbml.training import RunFolder, files


def saved(run: RunFolder) -> dict[str, Tensor]:
    state: dict[str, Tensor] = files.load(run.best, "best")["learner"]
    return state


def test_the_table_has_a_row_for_every_number_and_layer(trained: RunFolder) -> None:
    rows = phi_table(trained)
    counts = {name: sum(row.name == name for row in rows) for name in dict.fromkeys(row.name for row in rows)}
    assert counts == {"l2.strength": 14, "momentum.decay": 1, "sgd.lr": 9, "weight_decay.rate": 9}
    fine = {row.name: row.granularity for row in rows}
    assert list(fine.values()) == ["tensor", "all, each step", "element", "layer, each step"]
    assert {row.name: row.unit for row in rows}["sgd.lr"] == "step / gradient"


def test_the_table_is_what_a_hand_computes_from_the_checkpoint(trained: RunFolder) -> None:
    state, rows = saved(trained), {(row.name, row.layer): row for row in phi_table(trained)}

    strength = rows["l2.strength", "blocks.1.norm.bias"]
    assert strength.start.mean == pytest.approx(1e-3)
    assert strength.learned.mean == pytest.approx(math.exp(state["phi.l2.strength/blocks.1.norm.bias"].item()))

    decay = rows["momentum.decay", "all layers"]
    learned = [1 / (1 + math.exp(-raw)) for raw in state["phi.momentum.decay"].tolist()]
    assert (decay.start.min, decay.start.max, decay.values) == (0.5, 0.5, 2)
    assert decay.learned.mean == pytest.approx(sum(learned) / 2)
    assert (decay.learned.min, decay.learned.max) == (pytest.approx(min(learned)), pytest.approx(max(learned)))

    rates = rows["sgd.lr", "blocks.2.norm"]
    both = [state[f"phi.sgd.lr/blocks.2.norm.{leaf}"].double() for leaf in ("weight", "bias")]
    assert rates.values == 8
    assert rates.learned.mean == pytest.approx(torch.cat(both).mean().item())
    assert rates.learned.std == pytest.approx(torch.cat(both).std(unbiased=False).item())
    assert 0.005 <= rates.start.min < rates.start.max <= 0.1

    pull = rows["weight_decay.rate", "head"]
    assert pull.start.mean == pytest.approx(0.1)
    assert pull.learned.max == pytest.approx(state["phi.weight_decay.rate/head.*"].max().item())


def test_a_summary_counts_what_is_below_zero() -> None:
    assert Summary.of(torch.tensor([[-1.0, 0.0, 1.0, 4.0]])) == Summary(1.0, -1.0, 4.0, math.sqrt(3.5), 0.25)


def test_where_nothing_is_learned_there_is_no_row_and_no_figure(plain: RunFolder) -> None:
    assert phi_table(plain) == []
    assert phi_figure(plain) is None


def test_tensors_are_measured_from_their_start_and_from_the_identity(with_tensors: RunFolder) -> None:
    state, rows = saved(with_tensors), tensor_table(with_tensors)
    assert {row.name for row in rows} == {"kronecker.matrices"}
    for row in rows:
        leaf = state[f"phi.kronecker.matrices/{row.tensor}"].double()
        start = torch.eye(len(leaf), dtype=leaf.dtype) if leaf.dim() == 2 else torch.ones_like(leaf)
        assert row.shape == tuple(leaf.shape)
        assert row.start == pytest.approx(float(start.norm()))
        assert row.learned == pytest.approx(float(leaf.norm()))
        assert row.moved == pytest.approx(float((leaf - start).norm())) and row.moved > 0
        assert row.identity == (None if leaf.dim() < 2 else (0.0, row.moved))
    assert {row.tensor for row in rows} >= {"blocks.0.conv.weight/out", "head.weight/in", "head.bias/factor"}


def test_a_number_of_no_layer_is_a_row_of_its_own(with_tensors: RunFolder) -> None:
    (row,) = [row for row in phi_table(with_tensors) if row.name == "label_smoothing.rate"]
    learned = torch.sigmoid(saved(with_tensors)["phi.label_smoothing.rate"].double())
    assert (row.layer, row.values, row.unit) == ("no layer", 1, "share of the label")
    assert row.start.mean == pytest.approx(0.1) and row.learned.mean == pytest.approx(learned.item())


def test_tensors_are_drawn_as_their_norms(with_tensors: RunFolder) -> None:
    figure = phi_figure(with_tensors)
    assert figure is not None and png(figure)
    (panel,) = [axes for axes in figure.axes if axes.get_title(loc="left").startswith("kronecker")]
    starts, ends = (dots.get_offsets() for dots in panel.collections[1:])
    rows = tensor_table(with_tensors)
    assert starts[:, 0].tolist() == pytest.approx([row.start for row in rows])
    assert ends[:, 0].tolist() == pytest.approx([row.learned for row in rows])
    assert panel.texts[0].get_text().startswith(f"moved {rows[0].moved:.2g}")


def test_units_follow_the_rules_before(with_tensors: RunFolder) -> None:
    theta = {"w": torch.ones(2)}

    def units(*parts: Part) -> dict[str, str]:
        phi = chain(*parts).initial(theta, 1, None)[1]
        return {one.name: one.unit for one in quantities_of(chain(*parts), phi, phi)}

    assert units(momentum(), sgd())["sgd.lr"] == "step / gradient"
    adaptive = units(adam(), sgd(), weight_decay())
    assert adaptive["sgd.lr"] == "step" and adaptive["adam.beta1"] == "share kept per step"
    assert units(l1(), sgd(name="other"))["l1.strength"] == "loss / |weight|"
    assert units(sgd(name="other"))["other.lr"] == "step / gradient"


def test_without_a_checkpoint_the_way_on_is_said(copy: RunFolder) -> None:
    copy.best.unlink()
    copy.last.unlink()
    with pytest.raises(CheckpointError, match="no checkpoint yet"):
        phi_table(copy)


@pytest.fixture
def panels(trained: RunFolder) -> list[Any]:
    figure = phi_figure(trained)
    assert figure is not None and png(figure)
    return list(figure.axes)


def test_one_value_a_tensor_is_a_dot_from_its_start(trained: RunFolder, panels: list[Any]) -> None:
    starts, ends = (dots.get_offsets() for dots in panels[0].collections[1:])
    learned = [row.learned.mean for row in phi_table(trained) if row.name == "l2.strength"]
    assert np.allclose(starts[:, 0], 1e-3)
    assert ends[:, 0].tolist() == learned
    assert ends[:, 1].tolist() == list(range(14))


def test_one_value_a_step_is_a_line(trained: RunFolder, panels: list[Any]) -> None:
    start, learned = panels[1].lines
    assert start.get_ydata().tolist() == pytest.approx([0.5, 0.5])
    expected = torch.sigmoid(saved(trained)["phi.momentum.decay"].double())
    assert torch.as_tensor(learned.get_ydata()).tolist() == pytest.approx(expected.tolist())


def test_one_value_an_element_is_a_density_with_its_median(trained: RunFolder, panels: list[Any]) -> None:
    assert [label.get_text() for label in panels[2].get_yticklabels()][:2] == ["blocks.0.conv", "blocks.0.norm"]
    _, _, outline, median = panels[2].lines[:4]
    values = saved(trained)["phi.sgd.lr/blocks.0.conv.weight"].double()
    assert median.get_xdata()[0] == pytest.approx(values.median().item())
    assert (min(outline.get_xdata()), max(outline.get_xdata())) == (values.min().item(), values.max().item())


def test_one_value_a_layer_and_step_is_a_cell(trained: RunFolder, panels: list[Any]) -> None:
    start, learned = (mesh.get_array() for mesh in panels[3].collections)
    state = saved(trained)
    assert np.allclose(start, 0.1)
    names = [label.get_text() for label in panels[3].get_yticklabels()]
    for row, name in enumerate(names):
        assert np.allclose(learned[row], state[f"phi.weight_decay.rate/{name}.*"].numpy())
    assert len(panels[3].texts) == 9 * 3


def test_a_density_has_an_area_of_one_and_nothing_outside_its_values() -> None:
    values = torch.rand(5000, generator=torch.Generator().manual_seed(0)) * 2 + 1
    centres, heights = density(values)
    assert np.trapezoid(heights, centres) == pytest.approx(1, abs=0.01)
    assert centres[0] == pytest.approx(values.min().item()) and centres[-1] == pytest.approx(values.max().item())
    assert np.allclose(heights[20:-20], 0.5, atol=0.06)  # uniform over an interval of 2; the ends do not sag
    assert heights[3] == pytest.approx(0.5, abs=0.1)


def test_a_single_value_is_a_peak() -> None:
    centres, heights = density(torch.full((3,), 0.25))
    assert centres.tolist() == [0.25] * 3 and heights.argmax() == 1
