"""Numbers that are a function of a key: their law, and what they depend on."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, func
from torch.fx.experimental.proxy_tensor import make_fx

from rbml import random

KEY = torch.tensor(5)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_they_have_the_law_that_they_should(dtype: torch.dtype) -> None:
    many = torch.empty(200_000, dtype=dtype)
    flat = random.uniform(KEY, "a", many)
    assert flat.dtype == dtype and float(flat.min()) > 0 and float(flat.max()) < 1
    counts = torch.histc(flat.float(), 50, 0, 1)
    assert float(((counts - 4000) ** 2 / 4000).sum()) < 100, "chi squared with 49 degrees of freedom"
    bell = random.normal(KEY, "a", many).double()
    for power, moment in ((1, 0.0), (2, 1.0), (3, 0.0), (4, 3.0)):
        spread = math.sqrt({1: 1, 2: 2, 3: 15, 4: 96}[power] / len(many))
        assert abs(float((bell**power).mean()) - moment) < 4 * spread, power
    assert abs(float((bell[1:] * bell[:-1]).mean())) < 4 / math.sqrt(len(many)), "neighbours know nothing of each other"


def test_keys_and_names_make_other_numbers() -> None:
    like = torch.empty(20_000).double()
    draws = [random.normal(key, name, like) for key in (KEY, KEY + 1, *random.split(KEY, 2)) for name in ("a", "b")]
    product = torch.stack(draws) @ torch.stack(draws).T / len(like)
    assert float((product - torch.diag(product.diag())).abs().max()) < 4 / math.sqrt(len(like))
    assert torch.equal(random.normal(KEY, "a", like), draws[0])


def test_split_gives_keys_that_differ_from_those_of_neighbours() -> None:
    keys = torch.cat([random.split(torch.tensor(number), 100) for number in range(50)])
    assert len(set(keys.tolist())) == 5000


def test_a_digest_depends_on_every_bit_and_name_and_on_the_seed() -> None:
    tree = {"a": torch.tensor([1.0, 2.0]), "b": torch.tensor(3.0).double()}
    others = [
        tree | {"a": torch.tensor([2.0, 1.0])},
        tree | {"a": torch.tensor([1.0, torch.nextafter(torch.tensor(2.0), torch.tensor(3.0))])},
        {"a": tree["a"], "c": tree["b"]},
        tree | {"b": torch.tensor(3.0)},
        tree | {"a": torch.tensor([[1.0], [3.0]])},
    ]
    keys = [int(random.digest(one)) for one in (tree, *others)] + [int(random.digest(tree, seed=1))]
    assert len(set(keys)) == len(keys)
    assert int(random.digest({name: leaf.clone() for name, leaf in tree.items()})) == keys[0]
    random.digest({"half": torch.ones(3).half(), "whole": torch.arange(3), "flag": torch.tensor([True])})


def test_vectorised_and_traced_they_are_the_same() -> None:
    def draw(key: Tensor, x: Tensor) -> Tensor:
        return random.normal(random.split(key + random.digest({"x": x}), 2)[1], "a", x)

    keys, xs = torch.tensor([1, 2, 3]), torch.arange(6.0).reshape(3, 2)
    whole = func.vmap(draw)(keys, xs)
    traced = make_fx(func.vmap(draw))(keys + 1, xs + 1)(keys, xs)
    for index in range(3):
        assert torch.equal(whole[index], draw(keys[index], xs[index]))
        assert torch.equal(traced[index], whole[index])
