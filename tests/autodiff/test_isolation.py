"""Which mode each layer runs in, and that a pass leaves a model as it was."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import pytest
import torch
from torch import Tensor, func, nn
from torch.nn.utils import parametrizations, spectral_norm

from rbml.autodiff.isolation import isolated
from rbml.autodiff.module import call, inputs_of, statistics_of
from rbml.errors import UsageError


class Habits(nn.Module):
    """A model that keeps what it computes, counts, and calls its layers by keyword."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.norm, self.head = nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2)
        self.history: list[Tensor] = []
        self.named: dict[str, Tensor] = {}
        self.register_buffer("calls", torch.zeros((), dtype=torch.int64))
        self.register_buffer("average", torch.zeros(4))
        self.register_buffer("constant", torch.ones(4, dtype=torch.bool))

    def forward(self, x: Tensor, scale: Tensor | None = None) -> Tensor:
        h = self.norm(input=self.body(input=x))
        self.cache = h
        self.history.append(h)
        self.named["h"] = h
        self.calls += 1
        self.average = 0.5 * self.average + 0.5 * h.detach().mean(0)
        output: Tensor = self.head(input=h * self.constant if scale is None else h * scale)
        return output


X = torch.randn(5, 3)
WRITES = pytest.warns(UserWarning, match=r"writes into its buffers .*\(calls, average\).*dropped")


def test_a_pass_leaves_the_model_as_it_was() -> None:
    own = isolated(Habits())
    before = {name: leaf.clone() for name, leaf in own.state_dict().items()}
    attributes = set(own.__dict__)
    with WRITES:
        func.vmap(func.grad(lambda x: call(own, {}, x).sum()))(torch.stack([X, X]))
    assert all(torch.equal(leaf, before[name]) for name, leaf in own.state_dict().items())
    assert set(own.__dict__) == attributes and own.history == [] and own.named == {}
    assert not own._forward_hooks
    copy.deepcopy(own), pickle.dumps(own)


def test_a_pass_that_fails_leaves_it_too() -> None:
    own = isolated(Habits())
    with pytest.raises(RuntimeError):
        call(own, {"head.weight": torch.zeros(2, 9)}, X)
    assert own.history == [] and "cache" not in own.__dict__ and not own._forward_hooks


def test_what_an_earlier_pass_left_does_not_stop_the_copy() -> None:
    model = Habits()
    model(X)
    assert not model.cache.is_leaf
    own = isolated(model)
    assert len(model.history) == 1, "the original is left untouched"
    with WRITES:
        assert torch.allclose(call(own, {}, X), model(X), atol=1e-6)


def test_a_tree_is_given_as_keyword_arguments() -> None:
    own, scale = isolated(Habits()), torch.rand(4)
    with WRITES:
        assert torch.equal(call(own, {}, {"x": X, "scale": torch.ones(4)}), call(own, {}, X))
        assert not torch.equal(call(own, {}, {"x": X, "scale": scale}), call(own, {}, X))


@pytest.mark.parametrize("x", [(X,), [[1.0]], X.numpy(), {}, {"x": X.numpy()}])
def test_other_inputs_are_refused(x: Any) -> None:
    with pytest.raises(UsageError, match="a tensor, or a dict of tensors"):
        call(isolated(nn.Linear(3, 2)), {}, x)


def test_layers_that_are_called_by_keyword_are_seen() -> None:
    own = isolated(Habits())
    with WRITES:
        h = inputs_of(own, {}, X, "head")
        seen = statistics_of(own, {}, X)
        assert torch.allclose(seen["norm.running_mean"], own.body(X).mean(0), atol=1e-6)
        assert torch.allclose(own.head(h), call(own, {}, X))
        gated = call(own, {}, X, gated=[("head", lambda h: 2 * h)])
        assert torch.allclose(gated, own.head(2 * h), atol=1e-6)


@pytest.mark.parametrize("shape", [(6, 4), (6, 4, 3), (6, 4, 2, 2)])
def test_a_mask_is_as_if_the_others_were_not_there(shape: tuple[int, ...]) -> None:
    layer = {2: nn.BatchNorm1d, 3: nn.BatchNorm1d, 4: nn.BatchNorm2d}[len(shape)](4).double()
    nn.init.normal_(layer.weight)
    own, mask = isolated(nn.Sequential(layer)), torch.tensor([1, 1, 0, 1, 0, 0]).bool()
    x, direction = torch.randn(shape).double(), torch.randn(shape).double()
    direction[~mask] = 0

    def slope(x: Tensor, mask: Tensor | None) -> Tensor:
        def value(x: Tensor) -> Tensor:
            found = torch.sin(call(own, {}, x, mask=mask))
            return (found if mask is None else found[mask]).sum()

        found: Tensor = func.grad(value)(x)
        return found

    alone, v = x[mask], direction[mask]
    assert torch.allclose(call(own, {}, x, mask=mask)[mask], call(own, {}, alone), rtol=1e-12)
    assert torch.allclose(slope(x, mask)[mask], slope(alone, None), rtol=1e-11)
    assert not bool(slope(x, mask)[~mask].any())
    for mode in (
        lambda f, x, v: func.jvp(f, (x,), (v,))[1],
        lambda f, x, v: func.vjp(f, x)[1](v)[0],
    ):
        found = mode(lambda x: slope(x, mask), x, direction)[mask]
        assert torch.allclose(found, mode(lambda x: slope(x, None), alone, v), rtol=1e-10, atol=1e-12)
    seen, truth = statistics_of(own, {}, x, mask), statistics_of(own, {}, alone)
    assert all(torch.allclose(seen[name], leaf, rtol=1e-12) for name, leaf in truth.items())


def test_a_mask_of_other_rows_is_refused() -> None:
    own = isolated(nn.Sequential(nn.Flatten(0, 1), nn.BatchNorm1d(3)))
    with pytest.raises(UsageError, match=r"sees \(10, 3\), and the mask is of 2 examples"):
        call(own, {}, torch.randn(2, 5, 3), mask=torch.ones(2).bool())


def test_every_layer_keeps_the_mode_it_came_in() -> None:
    class Mode(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x + float(self.training)

    model = nn.Sequential(Mode(), Mode().eval(), nn.Dropout(0.5).eval())
    own = isolated(model)
    for put in (own.train, own.eval):
        put()
        assert torch.equal(call(own, {}, X), X + 1)


def test_instance_norm_is_by_the_instance() -> None:
    x = torch.randn(4, 3, 7)
    model = nn.Sequential(nn.InstanceNorm1d(3, track_running_stats=True))
    own = isolated(model)
    assert torch.allclose(call(own, {}, x), nn.InstanceNorm1d(3)(x))
    assert torch.equal(own[0].running_mean, torch.zeros(3))


def test_dropout_inside_other_layers_is_switched_off_and_named() -> None:
    model = nn.Sequential(nn.LSTM(3, 4, 2, dropout=0.5), nn.TransformerEncoderLayer(4, 2))
    with pytest.warns(UserWarning, match=r"switched off \(0, 1.self_attn, 1.dropout, 1.dropout1, 1.dropout2\)"):
        isolated(model)
    isolated(model.eval())  # no warning: it is off


def hooked() -> nn.Module:
    layer = nn.Linear(3, 2)
    layer.register_full_backward_hook(lambda *_: None)
    return layer


class Listed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(3, 2)
        self.weights = [self.layer.weight]


@pytest.mark.parametrize(
    ("model", "text"),
    [
        (lambda: parametrizations.spectral_norm(nn.Linear(3, 2)), "spectral norm"),
        (lambda: spectral_norm(nn.Linear(3, 2)), r"call .eval\(\) on that layer"),
        (hooked, r"handle.remove\(\)"),
        (lambda: nn.LazyLinear(2), "run the model once"),
        (Listed, "attribute 'weights'.*nn.ParameterList"),
    ],
)
@pytest.mark.filterwarnings("ignore:Lazy modules")
def test_what_is_no_pure_function_is_refused(model: Any, text: str) -> None:
    with pytest.raises(UsageError, match=text):
        isolated(model())
