from __future__ import annotations

import pytest
import torch
from torch import Tensor, func

from rbml.autodiff.products import Mode, grad_product
from rbml.tree import Tree

MODES: list[Mode] = ["forward", "reverse"]


def f(theta: Tree, m: Tree) -> Tensor:
    return (torch.sin(theta["a"]) @ m["p"] + theta["b"] ** 3 * m["q"]).sum() * torch.exp(theta["a"].mean())


def point() -> tuple[Tree, Tree, Tree]:
    def draw(*shape: int) -> Tensor:
        return torch.randn(shape, dtype=torch.float64)

    return {"a": draw(3), "b": draw(2)}, {"p": draw(3, 2), "q": draw(2)}, {"a": draw(3), "b": draw(2)}


@pytest.mark.parametrize("mode", MODES)
def test_one_pass_gives_the_hessian_product_and_the_mixed_term(mode: Mode) -> None:
    theta, m, v = point()
    along_theta, along_m = grad_product(f, theta, m, v, mode)
    hessian = func.hessian(f)(theta, m)
    mixed = func.jacrev(func.grad(f), argnums=1)(theta, m)
    for i in theta:
        truth = sum(torch.tensordot(v[j], hessian[j][i], v[j].dim()) for j in v)
        assert torch.allclose(along_theta[i], truth, rtol=1e-12, atol=1e-13), i
    for i in m:
        truth = sum(torch.tensordot(v[j], mixed[j][i], v[j].dim()) for j in v)
        assert torch.allclose(along_m[i], truth, rtol=1e-12, atol=1e-13), i


@pytest.mark.parametrize("mode", MODES)
def test_without_meta_parameters(mode: Mode) -> None:
    theta, m, v = point()
    alone = grad_product(lambda t, _: f(t, m), theta, {}, v, mode)
    assert alone[1] == {}
    assert all(torch.allclose(alone[0][k], grad_product(f, theta, m, v, mode)[0][k], rtol=1e-13) for k in theta)


@pytest.mark.parametrize("mode", MODES)
def test_a_parameter_that_is_one_row_repeated(mode: Mode) -> None:
    theta, m, v = point()
    row = {"a": theta["a"][:1].expand(3), "b": theta["b"]}
    copied = {name: leaf.clone() for name, leaf in row.items()}
    for one, same in zip(grad_product(f, row, m, v, mode), grad_product(f, copied, m, v, mode), strict=True):
        assert all(torch.equal(one[name], same[name]) for name in one)


@pytest.mark.parametrize(("dtype", "close"), [(torch.float64, 1e-8), (torch.float32, 2e-3)])
def test_the_difference_is_near_whatever_the_length_of_the_direction(dtype: torch.dtype, close: float) -> None:
    theta, m, v = ({name: leaf.to(dtype) for name, leaf in tree.items()} for tree in point())
    for length in (1e-6, 1.0, 1e4):
        way = {name: length * leaf for name, leaf in v.items()}
        near, truth = (grad_product(f, theta, m, way, mode) for mode in ("difference", "forward"))
        for one, other in zip(near, truth, strict=True):
            assert all((one[name] - leaf).norm() <= close * leaf.norm() for name, leaf in other.items())
        alone = grad_product(lambda t, _: f(t, m), theta, {}, way, "difference")
        assert alone[1] == {} and all(torch.equal(alone[0][name], near[0][name]) for name in near[0])


def test_the_difference_along_nothing_is_nothing() -> None:
    theta, m, v = point()
    for tree in grad_product(f, theta, m, {name: 0 * leaf for name, leaf in v.items()}, "difference"):
        assert all(torch.equal(leaf, torch.zeros_like(leaf)) for leaf in tree.values())
