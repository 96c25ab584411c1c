"""Layers of the zoo."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from tests.zoo.case import LINEAR, WAYS, WIDTH, Case, Net, embedded, habit, ids, layer, numbers, on_features
from torch import Tensor, nn
from torch.nn.utils import parametrizations, spectral_norm, weight_norm
from torch.nn.utils.parametrize import register_parametrization


class OwnNorm(nn.Module):
    """Batch norm as people write it: by the batch in training, by moving averages otherwise."""

    def __init__(self) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.ones(WIDTH))
        self.register_buffer("average", torch.zeros(WIDTH))

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return self.gain * (x - self.average)
        with torch.no_grad():
            self.average.mul_(0.9).add_(0.1 * x.mean(0))
        return self.gain * (x - x.mean(0))


class StochasticDepth(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x * (torch.rand(len(x), 1, dtype=x.dtype) < 0.8) if self.training else x


class Symmetric(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return (x + x.T) / 2


def trained(module: nn.Module) -> nn.Module:
    """Return a layer after a pass in training, with what it keeps of it."""
    module(torch.randn(5, WIDTH))
    return module.eval()


def recurrent(make: Callable[..., nn.Module], **rest: Any) -> Case:
    return Case(
        lambda: Net(
            lambda own, x: own.head(own.core(x)[0][:, -1]),
            core=make(WIDTH, 3, batch_first=True),
            head=nn.Linear(3, WAYS),
        ),
        numbers(5, WIDTH),
        **rest,
    )


def cell(make: Callable[..., nn.Module]) -> Case:
    def forward(own: Any, x: Tensor) -> Tensor:
        state = None
        for step in x.unbind(1):
            state = own.core(step, state)
        output: Tensor = own.head(state[0] if isinstance(state, tuple) else state)
        return output

    return Case(lambda: Net(forward, core=make(WIDTH, 3), head=nn.Linear(3, WAYS)), numbers(5, WIDTH))


def attention(own: Any, x: Tensor) -> Tensor:
    found, _ = own.core(x, x, x, need_weights=False)
    output: Tensor = own.head(found.mean(1))
    return output


def padded_attention(own: Any, x: Tensor) -> Tensor:
    found, _ = own.core(x, x, x, key_padding_mask=x[..., 0] > 1.2, need_weights=True)
    output: Tensor = own.head(found.mean(1))
    return output


def transformer(own: Any, x: Tensor) -> Tensor:
    output: Tensor = own.head(own.core(x, src_key_padding_mask=x[..., 0] > 1.2).mean(1))
    return output


def encoder(**options: Any) -> nn.Module:
    return nn.TransformerEncoder(
        nn.TransformerEncoderLayer(WIDTH, 2, 5, batch_first=True, **({"dropout": 0.0} | options)),
        2,
        enable_nested_tensor=not options.get("norm_first", False),
    )


def on_sequences(forward: Callable[..., Tensor], make: Callable[[], nn.Module], **rest: Any) -> Case:
    return Case(lambda: Net(forward, core=make(), head=nn.Linear(WIDTH, WAYS)), numbers(5, WIDTH), **rest)


def bags(forward: Callable[..., Tensor], **options: Any) -> Case:
    return Case(
        lambda: Net(forward, table=nn.EmbeddingBag(7, WIDTH, **options), head=nn.Linear(WIDTH, WAYS)),
        ids(4),
        instead=BAGGED,
    )


def one_bag(own: Any, x: Tensor) -> Tensor:
    output: Tensor = own.head(torch.tanh(own.table(x)))
    return output


def flat_bags(own: Any, x: Tensor) -> Tensor:
    offsets = torch.arange(0, x.numel(), x.shape[1])
    output: Tensor = own.head(torch.tanh(own.table(x.flatten(), offsets)))
    return output


def weighted_bags(own: Any, x: Tensor) -> Tensor:
    weights = torch.softmax(own.head.weight.new_ones(x.shape) * x, 1)
    output: Tensor = own.head(torch.tanh(own.table(x, per_sample_weights=weights)))
    return output


def normed(v: Tensor, g: Tensor, dim: int = 0) -> Tensor:
    """PyTorch's own has a wrong second derivative (2.13): -0.163 where central differences say -0.115."""
    assert dim == 0
    return torch.stack([g[i] * row / row.norm() for i, row in enumerate(v)])


def bagged(x: Tensor, table: Tensor, offsets: Any = None, *_: Any, mode: str = "mean", **rest: Any) -> Tensor:
    """Embedding bags one by one."""
    x = x.view(len(offsets), -1) if offsets is not None else x
    found = []
    for i, row in enumerate(x):
        keep = [k for k in range(len(row)) if int(row[k]) != rest.get("padding_idx")]
        weights = rest.get("per_sample_weights")
        rows = [table[row[k]] * (1 if weights is None else weights[i, k]) for k in keep]
        rows = rows or [torch.zeros_like(table[0])]
        total = torch.stack(rows)
        found.append({"sum": total.sum(0), "mean": total.mean(0), "max": total.max(0).values}[mode])
    return torch.stack(found)


NORMED: dict[Any, Any] = {torch._weight_norm: normed}


BAGGED: dict[Any, Any] = {F.embedding_bag: bagged}


def register_symmetric() -> nn.Module:
    own = nn.Linear(WIDTH, WIDTH)
    register_parametrization(own, "weight", Symmetric())
    return own


LAYERS: dict[str, Case] = {
    "conv 1d": layer(lambda: nn.Conv1d(2, 3, 3, padding=1), (2, 5)),
    "conv 2d": layer(lambda: nn.Conv2d(1, 2, 3, stride=2, padding=1), (1, 5, 5)),
    "conv 2d in groups, dilated": layer(lambda: nn.Conv2d(2, 4, 3, groups=2, dilation=2, padding=2), (2, 5, 5)),
    "conv 2d, circular": layer(lambda: nn.Conv2d(1, 2, 3, padding=1, padding_mode="circular"), (1, 4, 4)),
    "conv 3d": layer(lambda: nn.Conv3d(1, 2, 2), (1, 3, 3, 3)),
    "transposed conv 1d": layer(lambda: nn.ConvTranspose1d(2, 3, 2, stride=2), (2, 3)),
    "transposed conv 2d": layer(lambda: nn.ConvTranspose2d(1, 2, 3, stride=2), (1, 3, 3)),
    "transposed conv 3d": layer(lambda: nn.ConvTranspose3d(1, 1, 2), (1, 2, 2, 2)),
    "pixel shuffle": layer(lambda: nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.PixelShuffle(2)), (1, 3, 3)),
    "unfold and fold": layer(lambda: nn.Sequential(nn.Conv2d(1, 2, 1), nn.Unfold(2), nn.Fold((4, 4), 2)), (1, 4, 4)),
    "upsampling": layer(lambda: nn.Sequential(nn.Conv2d(1, 2, 3), nn.Upsample(scale_factor=2)), (1, 4, 4)),
    "bilinear upsampling": layer(
        lambda: nn.Sequential(nn.Conv2d(1, 2, 3), nn.Upsample(scale_factor=2, mode="bilinear")), (1, 4, 4)
    ),
    "bicubic upsampling": layer(
        lambda: nn.Sequential(nn.Conv2d(1, 2, 3), nn.Upsample(scale_factor=2, mode="bicubic")), (1, 4, 4)
    ),
    "reflection padding": layer(lambda: nn.Sequential(nn.Conv2d(1, 2, 1), nn.ReflectionPad2d(1)), (1, 3, 3)),
    "max pooling": layer(lambda: nn.Sequential(nn.Conv2d(1, 2, 1), nn.MaxPool2d(2)), (1, 4, 4)),
    "max pooling that overlaps": layer(lambda: nn.Sequential(nn.Conv1d(1, 2, 1), nn.MaxPool1d(3, 1)), (1, 6)),
    "max pooling 3d": layer(lambda: nn.Sequential(nn.Conv3d(1, 2, 1), nn.MaxPool3d(2)), (1, 4, 2, 2)),
    "average pooling": layer(lambda: nn.Sequential(nn.Conv2d(1, 2, 1), nn.AvgPool2d(2)), (1, 4, 4)),
    "adaptive average pooling": layer(lambda: nn.Sequential(nn.Conv2d(1, 2, 1), nn.AdaptiveAvgPool2d(3)), (1, 4, 4)),
    "adaptive max pooling": layer(lambda: nn.Sequential(nn.Conv2d(1, 2, 1), nn.AdaptiveMaxPool2d(2)), (1, 4, 4)),
    "LP pooling": layer(lambda: nn.Sequential(nn.Conv1d(1, 2, 1), nn.Softplus(), nn.LPPool1d(2, 2)), (1, 4)),
    "fractional max pooling": layer(
        lambda: nn.Sequential(nn.Conv2d(1, 2, 1), nn.FractionalMaxPool2d(2, 2)), (1, 6, 6), error="draws random numbers"
    ),
    "batch norm": on_features(lambda: nn.BatchNorm1d(WIDTH)),
    "batch norm without statistics": on_features(lambda: nn.BatchNorm1d(WIDTH, track_running_stats=False)),
    "layer norm": on_features(lambda: nn.LayerNorm(WIDTH)),
    "RMS norm": on_features(lambda: nn.RMSNorm(WIDTH)),
    "group norm": layer(lambda: nn.Sequential(nn.Conv1d(1, 4, 1), nn.GroupNorm(2, 4)), (1, 5)),
    "instance norm": layer(lambda: nn.Sequential(nn.Conv1d(1, 4, 2), nn.InstanceNorm1d(4, affine=True)), (1, 5)),
    "instance norm that tracks": layer(
        lambda: nn.Sequential(nn.Conv1d(1, 4, 2), nn.InstanceNorm1d(4, affine=True, track_running_stats=True)), (1, 5)
    ),
    "local response norm": layer(lambda: nn.Sequential(nn.Conv1d(1, 4, 1), nn.LocalResponseNorm(2)), (1, 5)),
    "a norm of one's own": on_features(OwnNorm, warns="writes into its buffers"),
    "a norm of one's own, in eval": on_features(lambda: OwnNorm().eval()),
    "weight norm": on_features(lambda: parametrizations.weight_norm(LINEAR()), instead=NORMED),
    "weight norm, old": on_features(lambda: weight_norm(LINEAR()), instead=NORMED),
    "weight norm, old, after a pass": on_features(lambda: trained(weight_norm(LINEAR())), instead=NORMED),  # type: ignore[no-untyped-call]
    "spectral norm": on_features(
        lambda: parametrizations.spectral_norm(LINEAR()), error="call .eval\\(\\) on that layer"
    ),
    "spectral norm, old": on_features(lambda: spectral_norm(LINEAR()), error="call .eval\\(\\) on that layer"),
    "spectral norm in eval": on_features(lambda: parametrizations.spectral_norm(LINEAR()).eval()),
    "spectral norm, old, in eval": on_features(lambda: trained(spectral_norm(LINEAR()))),
    "orthogonal": on_features(lambda: parametrizations.orthogonal(LINEAR(), orthogonal_map="cayley")),
    "a parametrization": on_features(lambda: register_symmetric()),
    **{
        f"activation {make.__name__}": on_features(make)
        for make in (nn.ReLU, nn.GELU, nn.SiLU, nn.Mish, nn.ELU, nn.SELU, nn.CELU, nn.Softplus, nn.Softsign, nn.PReLU)
    },
    **{
        f"activation {make.__name__}": on_features(make)
        for make in (nn.LeakyReLU, nn.Hardswish, nn.Hardtanh, nn.LogSigmoid, nn.Tanhshrink, nn.ReLU6)
    },
    "GLU": Case(lambda: nn.Sequential(nn.Linear(WIDTH, 8), nn.GLU(), nn.Linear(WIDTH, WAYS))),
    "softmax inside": on_features(lambda: nn.Softmax(-1)),
    "RReLU": on_features(nn.RReLU, error="rrelu"),
    "RReLU in eval": on_features(lambda: nn.RReLU().eval()),
    "dropout": on_features(lambda: nn.Dropout(0.5).eval()),
    "dropout in training": on_features(lambda: nn.Dropout(0.5), warns="dropout is switched off"),
    "alpha dropout in training": on_features(lambda: nn.AlphaDropout(0.5), warns="dropout is switched off"),
    "hard-wired dropout": habit(lambda own, x: own.b(F.dropout(own.a(x), 0.5)), error="strategy.dropout"),
    "stochastic depth": on_features(StochasticDepth, error="model.eval\\(\\)"),
    "stochastic depth in eval": on_features(lambda: StochasticDepth().eval()),
    "noise": habit(lambda own, x: own.b(torch.tanh(own.a(x)) + torch.randn_like(x)), error="draws random numbers"),
    "embedding": embedded(lambda: nn.Embedding(7, WIDTH)),
    "embedding with padding": embedded(lambda: nn.Embedding(7, WIDTH, padding_idx=2)),
    "sparse embedding": embedded(lambda: nn.Embedding(7, WIDTH, sparse=True)),
    "embedding with max_norm": embedded(lambda: nn.Embedding(7, WIDTH, max_norm=1.0), error="max_norm=None"),
    "embedding bag": bags(one_bag),
    "embedding bag, sum and padding": bags(one_bag, mode="sum", padding_idx=1),
    "embedding bag, max": bags(one_bag, mode="max"),
    "embedding bag with offsets": bags(flat_bags),
    "embedding bag with weights": bags(weighted_bags, mode="sum"),
    "LSTM": recurrent(nn.LSTM),
    "LSTM of two layers": recurrent(lambda *a, **k: nn.LSTM(a[0], 3, 2, **k)),
    "LSTM with dropout": recurrent(
        lambda *a, **k: nn.LSTM(a[0], 3, 2, dropout=0.5, **k), warns="dropout is switched off"
    ),
    "GRU": recurrent(nn.GRU),
    "RNN": recurrent(nn.RNN),
    "LSTM cell": cell(nn.LSTMCell),
    "GRU cell": cell(nn.GRUCell),
    "RNN cell": cell(nn.RNNCell),
    "attention": on_sequences(attention, lambda: nn.MultiheadAttention(WIDTH, 2, batch_first=True)),
    "attention in eval": on_sequences(attention, lambda: nn.MultiheadAttention(WIDTH, 2, batch_first=True).eval()),
    "attention with padding": on_sequences(padded_attention, lambda: nn.MultiheadAttention(WIDTH, 2, batch_first=True)),
    "attention with dropout": on_sequences(
        attention,
        lambda: nn.MultiheadAttention(WIDTH, 2, dropout=0.1, batch_first=True),
        warns="dropout is switched off",
    ),
    "transformer": on_sequences(transformer, encoder),
    "transformer in eval": on_sequences(transformer, lambda: encoder().eval()),
    "transformer with dropout": on_sequences(
        transformer, lambda: encoder(dropout=0.1), warns="dropout is switched off"
    ),
    "transformer, norm first": on_sequences(transformer, lambda: encoder(norm_first=True, activation="gelu")),
    "attention by hand, masked": on_sequences(
        lambda own, x: own.head(F.scaled_dot_product_attention(own.core(x), x, x, x[:, None, :, 0] < 1.2).mean(1)),
        LINEAR,
    ),
    "attention by hand, dropout": on_sequences(
        lambda own, x: own.head(F.scaled_dot_product_attention(own.core(x), x, x, dropout_p=0.1).mean(1)),
        LINEAR,
        error="draws random numbers",
    ),
}
