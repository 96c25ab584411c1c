from __future__ import annotations

import pytest
import torch

from rbml.errors import UsageError
from rbml.strategy import Hyper
from rbml.strategy.hyper import as_hyper
from rbml.tree import Tree

BOUNDS = [(None, None), (0, None), (-2.0, None), (None, 1.0), (None, -3), (0, 1), (-1.5, 4)]


def theta() -> Tree:
    return {
        "conv.0.weight": torch.zeros(2, 3, dtype=torch.float64),
        "conv.0.bias": torch.zeros(2, dtype=torch.float64),
        "head.weight": torch.zeros(5, 2, dtype=torch.float64),
        "scale": torch.zeros((), dtype=torch.float64),
    }


@pytest.mark.parametrize("bounds", BOUNDS)
def test_raw_and_valid_are_inverses(bounds: tuple[float | None, float | None]) -> None:
    low, high = bounds
    floor = -20.0 if low is None else low
    ceiling = floor + 20 if high is None else high
    floor = ceiling - 20 if low is None else floor
    value = torch.linspace(floor, ceiling, 103, dtype=torch.float64)[1:-1]
    hyper = Hyper(float(value[50]), bounds=bounds)
    assert torch.allclose(hyper.valid(hyper.raw(value)), value, rtol=1e-13, atol=1e-13)
    raw = torch.linspace(-5, 5, 101, dtype=torch.float64)
    assert torch.allclose(hyper.raw(hyper.valid(raw)), raw, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("bounds", BOUNDS)
def test_whatever_the_raw_parameter_the_value_is_inside_and_grows_one_to_one(
    bounds: tuple[float | None, float | None],
) -> None:
    low, high = bounds
    values = Hyper(-3.5 if high == -3 else 0.5, bounds=bounds).valid(torch.linspace(-30, 30, 61, dtype=torch.float64))
    assert low is None or bool((values > low).all())
    assert high is None or bool((values < high).all())
    steps = values.diff()
    assert bool((steps > 0).all() or (steps < 0).all())


@pytest.mark.parametrize(
    ("per", "names"),
    [
        ("all", {"": ()}),
        ("layer", {"/conv.0.*": (), "/head.*": (), "/*": ()}),
        ("tensor", {"/conv.0.weight": (), "/conv.0.bias": (), "/head.weight": (), "/scale": ()}),
        ("element", {"/conv.0.weight": (2, 3), "/conv.0.bias": (2,), "/head.weight": (5, 2), "/scale": ()}),
    ],
)
@pytest.mark.parametrize("per_step", [False, True])
def test_granularity_gives_names_and_shapes(per: str, names: dict[str, tuple[int, ...]], per_step: bool) -> None:
    hyper = Hyper(0.25, per=per, per_step=per_step, bounds=(0, 1))
    leaves = hyper.initial(theta(), 4, None)
    lead = (4,) if per_step else ()
    assert {name: tuple(leaf.shape) for name, leaf in leaves.items()} == {n: lead + s for n, s in names.items()}
    for t in (0, 3, 4, 1000):
        values = hyper.at(leaves, theta(), t)
        for name, tensor in theta().items():
            assert torch.broadcast_shapes(values[name].shape, tensor.shape) == tensor.shape
            assert torch.allclose(values[name], torch.tensor(0.25, dtype=torch.float64), rtol=1e-14)


def test_each_step_has_its_own_value_and_steps_beyond_the_last_use_the_last() -> None:
    hyper = Hyper(1.0, per_step=True)
    leaves = {"": torch.tensor([10.0, 20.0, 30.0])}
    seen = [float(hyper.at(leaves, {"w": torch.zeros(3)}, t)["w"]) for t in range(6)]
    assert seen == [10, 20, 30, 30, 30, 30]


def test_a_bias_as_long_as_the_steps_is_not_taken_for_a_number_a_step() -> None:
    """FACTS 6: granularity is recorded, never guessed from a shape."""
    hyper = Hyper(1.0, per="element")
    leaves = {"/b": torch.tensor([1.0, 2.0, 3.0])}
    assert torch.equal(hyper.at(leaves, {"b": torch.zeros(3)}, 2)["b"], leaves["/b"])


def test_no_steps_still_have_a_value() -> None:
    assert Hyper(0.1, per_step=True).initial(theta(), 0, None)[""].shape == (1,)


def test_a_range_is_drawn_from_the_generator_and_lies_inside() -> None:
    hyper = Hyper((0.2, 0.3), per="element", bounds=(0, None))
    source = torch.Generator().manual_seed(3)
    big = {"w": torch.zeros(100, 100, dtype=torch.float64)}
    leaves = hyper.initial(big, 1, source)
    values = hyper.valid(leaves["/w"])
    assert bool(((values >= 0.2 - 1e-12) & (values <= 0.3 + 1e-12)).all())
    assert float(values.min()) < 0.2005 and float(values.max()) > 0.2995 and abs(float(values.mean()) - 0.25) < 2e-3
    again = hyper.initial(big, 1, torch.Generator().manual_seed(3))
    other = hyper.initial(big, 1, source)
    assert torch.equal(again["/w"], leaves["/w"]) and not torch.equal(other["/w"], leaves["/w"])


def test_without_a_generator_the_global_one_is_used() -> None:
    torch.manual_seed(11)
    first = Hyper((0, 1)).initial(theta(), 1, None)
    torch.manual_seed(11)
    assert torch.equal(first[""], Hyper((0, 1)).initial(theta(), 1, None)[""])


def test_a_head_for_another_number_of_classes_repeats_the_rows() -> None:
    hyper = Hyper(0.0, per="element")
    leaves = {"/head.weight": torch.tensor([[1.0, 2.0], [3.0, 6.0]])}
    values = hyper.at(leaves, {"head.weight": torch.zeros(3, 2)}, 0)["head.weight"]
    assert torch.equal(values, torch.tensor([[1.0, 2.0], [3.0, 6.0], [1.0, 2.0]]))
    assert torch.equal(
        hyper.at(leaves, {"head.weight": torch.zeros(1, 2)}, 0)["head.weight"], torch.tensor([[1.0, 2.0]])
    )


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"value": 0.1, "per": "layers"}, "there is no granularity named 'layers': did you mean 'layer'"),
        ({"value": 0.1, "per": None}, "there is no granularity named 'None'"),
        ({"value": (0.3, 0.1)}, "low <= high"),
        ({"value": 0.0, "bounds": (0, None)}, r"0.0 must lie strictly inside the bounds \(0, None\)"),
        ({"value": 1.0, "bounds": (None, 1)}, "strictly inside"),
        ({"value": (0.5, 1.0), "bounds": (0, 1)}, "strictly inside"),
        ({"value": (0.0, 0.5), "bounds": (0, 1)}, "strictly inside"),
        ({"value": 0.5, "bounds": (1, 0)}, "strictly inside"),
    ],
)
def test_wrong_use_is_refused_at_once(options: dict[str, object], text: str) -> None:
    with pytest.raises(UsageError, match=text):
        Hyper(**options)  # type: ignore[arg-type]


def test_as_hyper() -> None:
    own = Hyper(0.1)
    assert as_hyper(own) is own
    assert as_hyper(2) == Hyper(2.0, learn=False)
