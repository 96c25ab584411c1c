from __future__ import annotations

import inspect
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, func, nn

from rbml import models
from rbml.errors import UsageError

MEMBERS: dict[str, Callable[[], nn.Module]] = {
    "mlp": lambda: models.MLP(144, 5, (7,)),
    "conv4": lambda: models.Conv4(5, filters=4),
    "resnet12": lambda: models.ResNet12(5, 1, (4, 6), size=12),
    "oml": lambda: models.OMLNet(5, size=28, filters=3, width=7),
    "anml": lambda: models.anml_net(5, filters=3, gate_filters=2),
    "adaptor": lambda: models.Adaptor(144, 5),
    "discriminant_adaptor": lambda: models.DiscriminantAdaptor(144, 5),
    "tfidf": lambda: models.TfIdf(5, 30),
    "text_embedding": lambda: models.TextEmbedding(5, 30, width=8, pooling="attention"),
}
ELSEWHERE = {"efficientnet_lite0", "timm", "minilm", "hf", "keras"}
"""Tested in test_pretrained.py, test_pretrained_text.py and tests/keras."""


def inputs_of(name: str, count: int = 6) -> Tensor:
    """Return pictures, or the ids of every word of a vocabulary of 30 for a model of text."""
    if "text" in name or name == "tfidf":
        return torch.randperm(5 * count)[: 5 * count].reshape(count, 5) % 30
    size = 28 if name in ("oml", "anml") else 12
    return torch.randn(count, 1, size, size)


def test_every_member_is_tested_here() -> None:
    assert set(MEMBERS) | ELSEWHERE == set(models.ALL)


@pytest.mark.parametrize("name", sorted(MEMBERS))
def test_the_last_layer_is_a_head_with_a_row_a_class(name: str) -> None:
    model = MEMBERS[name]()
    assert model(inputs_of(name)).shape == (6, 5)
    heads = {key: leaf.shape[0] for key, leaf in model.named_parameters() if key.startswith("head.")}
    assert heads and set(heads.values()) == {5}
    assert list(dict(model.named_parameters()))[-len(heads) :] == list(heads), "it comes last"


@pytest.mark.parametrize("name", sorted(MEMBERS))
def test_every_parameter_matters(name: str) -> None:
    model = MEMBERS[name]().double()
    x = inputs_of(name)
    (model(x.double() if x.is_floating_point() else x) ** 3).sum().backward()
    for key, leaf in model.named_parameters():
        assert leaf.grad is not None and float(leaf.grad.norm()) > 1e-8, f"{key} is dead"


@pytest.mark.parametrize("name", sorted(models.ALL))
def test_it_says_what_it_is(name: str) -> None:
    text = str(inspect.getdoc(models.ALL[name]))
    assert ("arXiv" in text or name == "keras") and "Args:" in text  # Keras is a library, and no paper's
    for argument in list(inspect.signature(models.ALL[name]).parameters):
        assert f"{argument}: " in text, argument


def test_mlp() -> None:
    model = models.MLP(6, 2, (5, 4), nn.Tanh)
    shapes = {name: tuple(leaf.shape) for name, leaf in model.named_parameters()}
    assert list(shapes.values()) == [(5, 6), (5,), (4, 5), (4,), (2, 4), (2,)]
    x = torch.randn(3, 2, 3)
    h = x.flatten(1)
    for layer in ("body.1", "body.3"):
        own = model.get_submodule(layer)
        h = torch.tanh(h @ own.weight.T + own.bias)
    assert torch.allclose(model(x), h @ model.head.weight.T + model.head.bias, atol=1e-6)
    assert models.MLP(6, 2, ())(x).shape == (3, 2), "no hidden layer: a linear model"


def test_the_networks_of_oml_and_anml_are_those_of_the_papers() -> None:
    with torch.device("meta"):  # shapes alone
        oml, small, anml = models.OMLNet(1000), models.OMLNet(1000, size=28), models.anml_net(1000, channels=3)
        for size, model in ((84, oml), (28, small)):
            assert model.body(torch.empty(1, 1, size, size)).shape == (1, 2304)
            assert model(torch.empty(2, 1, size, size)).shape == (2, 1000)
        assert anml.body(torch.empty(1, 3, 28, 28)).shape == anml.modulation(torch.empty(1, 3, 28, 28)).shape
    shapes = {name: tuple(leaf.shape) for name, leaf in oml.named_parameters()}
    assert shapes["hidden.weight"] == (1024, 2304) and shapes["body.10.weight"] == (256, 256, 3, 3)
    assert [layer.stride[0] for layer in oml.body if isinstance(layer, nn.Conv2d)] == [2, 1, 2, 1, 2, 2]
    gates = {name: tuple(leaf.shape) for name, leaf in anml.named_parameters()}
    assert gates["modulation.12.weight"] == (2304, 1008) and gates["head.weight"] == (1000, 2304)
    for wrong in (models.OMLNet, models.anml_net):
        with pytest.raises(UsageError, match="pictures of size 16 are too small"):
            wrong(5, size=16)


def test_the_norm_of_anml_is_a_batch_norm_of_one_picture() -> None:
    model, x = models.anml_net(5, filters=3, gate_filters=2), torch.randn(4, 1, 28, 28)
    conv, norm = model.body[0], model.body[1]
    nn.init.normal_(norm.weight), nn.init.normal_(norm.bias)
    each = [nn.functional.batch_norm(conv(one[None]), None, None, norm.weight, norm.bias, True) for one in x]
    assert torch.allclose(norm(conv(x)), torch.cat(each), atol=1e-5)


@pytest.mark.parametrize(
    ("pool", "size"), [("stride", 12), ("stride", 28), ("stride", 84), ("max", 16), ("max", 28), ("max", 84)]
)
def test_conv4_at_every_size(pool: str, size: int) -> None:
    model = models.Conv4(3, channels=2, filters=4, pool=pool, size=size, norm="group")  # type: ignore[arg-type]
    assert model(torch.randn(2, 2, size, size)).shape == (2, 3)


@pytest.mark.parametrize("norm", ["batch", "group", "layer", "none"])
def test_norms(norm: str) -> None:
    """All but batch norm leave every picture to itself; there is a bias where no norm takes it away."""
    model = models.Conv4(3, filters=6, norm=norm)  # type: ignore[arg-type]
    x = torch.randn(4, 1, 28, 28)
    alone = torch.cat([model(one[None]) for one in x])
    assert torch.allclose(model(x), alone, atol=1e-6) == (norm != "batch")
    assert (model.blocks[0].conv.bias is None) == (norm == "batch")


def test_group_norm_fits_any_number_of_filters() -> None:
    for filters in (4, 6, 8, 20, 64):
        groups = models.Conv4(3, filters=filters, norm="group").blocks[0].norm.num_groups
        assert filters % groups == 0 and groups == max(g for g in (1, 2, 4, 8) if filters % g == 0)


def test_conv4_is_the_network_of_the_paper() -> None:
    """Omniglot, 64 filters, 5 ways: three-by-three kernels, no bias before batch norm, a head on 64 means."""
    model = models.Conv4(5)
    assert sum(leaf.numel() for leaf in model.parameters()) == 64 * 9 + 3 * 64 * 64 * 9 + 4 * 128 + 64 * 5 + 5
    assert model.blocks(torch.randn(2, 1, 28, 28)).shape == (2, 64, 2, 2)
    assert models.Conv4(5, pool="max").head.in_features == 64


@pytest.mark.parametrize("options", [{"norm": "bacth"}, {"pool": "strid"}])
def test_unknown_options(options: dict[str, str]) -> None:
    (word,) = options.values()
    with pytest.raises(UsageError, match=f"named '{word}': did you mean"):
        models.Conv4(5, **options)  # type: ignore[arg-type]


def test_pictures_too_small_to_halve_four_times() -> None:
    with pytest.raises(UsageError, match="pictures of size 15 are too small for pool='max'"):
        models.Conv4(5, pool="max", size=15)


@pytest.mark.parametrize("name", sorted(MEMBERS))
def test_one_gradient_a_task_under_vmap_equals_the_loop(name: str) -> None:
    model = MEMBERS[name]().double()
    own = {key: leaf.detach() for key, leaf in model.named_parameters()}
    for layer in model.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.track_running_stats, layer.running_mean, layer.running_var = False, None, None
    x = torch.stack([inputs_of(name, 4) for _ in range(3)])
    x = x.double() if x.is_floating_point() else x

    def one(rows: Tensor) -> dict[str, Tensor]:
        grads: dict[str, Tensor] = func.grad(lambda p: (func.functional_call(model, p, (rows,)) ** 3).sum())(own)
        return grads

    whole = func.vmap(one)(x)
    for index, rows in enumerate(x):
        assert all(torch.allclose(whole[key][index], leaf, rtol=1e-10, atol=1e-12) for key, leaf in one(rows).items())
