from __future__ import annotations

import pytest
import torch

from rbml.errors import UsageError
from rbml.hypergrad import Adjoint, Unrolled, directional_difference
from rbml.inner import Carry, Inner


@pytest.mark.parametrize("engine", [Unrolled, Adjoint])
def test_a_negative_window_is_refused(engine: type) -> None:
    with pytest.raises(UsageError, match=r"at least 0, not -1"):
        engine(window=-1)


def test_unknown_names_are_refused() -> None:
    with pytest.raises(UsageError, match="there is no store named 'al': did you mean 'all'"):
        Adjoint(store="al")  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="there is no hvp mode named 'forwards': did you mean 'forward'"):
        Adjoint(hvp="forwards")  # type: ignore[arg-type]


def test_graphs_are_kept_only_where_they_can_be() -> None:
    with pytest.raises(UsageError, match="0 or more, not -1"):
        Adjoint(keep=-1)
    for options in ({"store": "reverse"}, {"hvp": "difference"}):
        with pytest.raises(UsageError, match=r"keep=2, but .* keep no graph: leave it out"):
            Adjoint(keep=2, **options)  # type: ignore[arg-type]
        Adjoint(keep=0, **options)  # type: ignore[arg-type]


def test_the_difference_of_fourth_order_is_exact_on_polynomials_of_fourth_degree() -> None:
    def outer(carry: Carry, m: dict[str, torch.Tensor]) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        return (m["a"] ** 4 + 2 * m["a"] ** 3).sum() + 5 * m["b"].sum(), {}

    inner = Inner(lambda m: Carry({}, {}), None, None, outer, steps=0)  # type: ignore[arg-type]
    m = {"a": torch.tensor([1.0, 2.0]).double(), "b": torch.tensor(3.0).double()}
    direction = torch.tensor([1.0, -0.5]).double()
    found = directional_difference(inner, m, {"a": direction}, step=0.5)
    assert torch.allclose(found, ((4 * m["a"] ** 3 + 6 * m["a"] ** 2) * direction).sum(), rtol=1e-13)
    assert torch.allclose(directional_difference(inner, m, {"b": torch.tensor(2.0)}), torch.tensor(10.0).double())
