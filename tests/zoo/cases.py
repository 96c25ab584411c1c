"""The table of the zoo: layers, losses and habits of models, and what must come of each.

A case is either right, equal to a plain double backward, or refused by an error that says what to do.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrizations, spectral_norm, weight_norm
from torch.nn.utils.parametrize import register_parametrization
from torch.utils.checkpoint import checkpoint

N, WAYS, WIDTH = 6, 3, 4


class Net(nn.Module):
    """A model that is a function of itself and its inputs."""

    def __init__(self, forward: Callable[..., Tensor], **parts: Any) -> None:
        super().__init__()
        for name, part in parts.items():
            if isinstance(part, Tensor) and not isinstance(part, nn.Parameter):
                self.register_buffer(name, part)
            else:
                setattr(self, name, part)
        self._forward = forward

    def forward(self, *args: Any, **kwargs: Any) -> Tensor:
        return self._forward(self, *args, **kwargs)


def classes(n: int) -> Tensor:
    return torch.arange(n) % WAYS


def numbers(*shape: int) -> Callable[[int], Tensor]:
    return lambda n: torch.randn(n, *shape, dtype=torch.float64)


def ids(length: int = 3, kinds: int = 7) -> Callable[[int], Tensor]:
    return lambda n: torch.randint(kinds, (n, length))


@dataclass(frozen=True)
class Case:
    """One habit.

    Attributes:
        model: makes the model; it is given in the mode in which it is made.
        x: makes n inputs.
        y: makes n targets.
        loss: of one task.
        error: what the error must say that refuses the case; empty if it must be right.
        warns: what a warning must say; empty if there must be none.
        options: what is done to the model before it is given.
    """

    model: Callable[[], nn.Module]
    x: Callable[[int], Any] = numbers(WIDTH)
    y: Callable[[int], Tensor] = classes
    loss: Callable[[Tensor, Tensor], Tensor] = F.cross_entropy
    error: str = ""
    warns: str = ""
    options: dict[str, Any] = field(default_factory=dict)


def layer(make: Callable[[], nn.Module], shape: tuple[int, ...] = (WIDTH,), **rest: Any) -> Case:
    """Return a case: a layer on inputs ``(n, *shape)``, then a tanh and a linear head on all that comes out."""

    def model() -> nn.Module:
        own = make()
        with torch.no_grad():
            width = own(torch.zeros(2, *shape)).flatten(1).shape[1]
        return nn.Sequential(own, nn.Tanh(), nn.Flatten(), nn.Linear(width, WAYS))

    return Case(model, numbers(*shape), **rest)


def on_features(make: Callable[[], nn.Module], **rest: Any) -> Case:
    """Return a case: a layer between two linear ones, so that its inputs depend on what is adapted."""
    return Case(lambda: nn.Sequential(nn.Linear(WIDTH, WIDTH), make(), nn.Linear(WIDTH, WAYS)), **rest)


def habit(forward: Callable[..., Tensor], x: Callable[[int], Any] = numbers(WIDTH), **rest: Any) -> Case:
    """Return a case: two linear layers, ``a`` and ``b``, and a function of them."""
    options = {key: rest.pop(key) for key in ("y", "loss", "error", "warns", "options") if key in rest}
    return Case(
        lambda: Net(forward, a=nn.Linear(WIDTH, WIDTH), b=nn.Linear(WIDTH, WAYS), **{k: v() for k, v in rest.items()}),
        x,
        **options,
    )


def loss(
    function: Callable[[Tensor, Tensor], Tensor], y: Callable[[int], Tensor] = classes, outputs: int = WAYS, **rest: Any
) -> Case:
    """Return a case: a loss of a small smooth network."""
    return Case(
        lambda: nn.Sequential(nn.Linear(WIDTH, 5), nn.Tanh(), nn.Linear(5, outputs)), y=y, loss=function, **rest
    )


def embedded(make: Callable[[], nn.Module], x: Callable[[int], Any] = ids(), **rest: Any) -> Case:
    """Return a case: an embedding of seven kinds, and a head on the mean of what it finds."""
    return Case(
        lambda: Net(
            lambda own, x: own.head(torch.tanh(own.table(x)).flatten(1).unfold(1, WIDTH, WIDTH).sum(1)),
            table=make(),
            head=nn.Linear(WIDTH, WAYS),
        ),
        x,
        **rest,
    )


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


class OldFunction(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return x**2

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        return 2 * ctx.saved_tensors[0] * grad


class NoJvp(torch.autograd.Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor) -> Tensor:
        return x**2

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        return 2 * ctx.saved_tensors[0] * grad


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
        nn.TransformerEncoderLayer(WIDTH, 2, 5, batch_first=True, **({"dropout": 0.0} | options)), 2
    )


def on_sequences(forward: Callable[..., Tensor], make: Callable[[], nn.Module], **rest: Any) -> Case:
    return Case(lambda: Net(forward, core=make(), head=nn.Linear(WIDTH, WAYS)), numbers(5, WIDTH), **rest)


def attended(own: Any, x: Tensor) -> Tensor:
    return own.b(torch.tanh(own.a(x)))  # type: ignore[no-any-return]


def issue_case() -> Case:
    """The numbers of the report: a sigmoid under no_grad."""

    def forward(own: Any, x: Tensor) -> Tensor:
        with torch.no_grad():
            gate = torch.sigmoid(own.a)
        return x * (gate * own.b + own.a)  # type: ignore[no-any-return]

    return Case(
        lambda: Net(forward, a=nn.Parameter(torch.tensor([0.3, -0.2])), b=nn.Parameter(torch.tensor([0.5, 0.4]))),
        numbers(2),
        numbers(2),
        lambda p, y: ((p - y) ** 2).sum(),
    )


def in_place(own: Any, x: Tensor) -> Tensor:
    h = own.a(x)
    h = h.mul(1.0)
    h.tanh_().add_(1)
    h[:, 0] = h[:, 1] * h[:, 2]
    output: Tensor = own.b(h)
    return output


def in_place_without_grad(own: Any, x: Tensor) -> Tensor:
    h = torch.tanh(own.a(x))
    with torch.no_grad():
        h.mul_(0.5)
    output: Tensor = own.b(h + x)
    return output


def counts(own: Any, x: Tensor) -> Tensor:
    own.calls += 1
    output: Tensor = own.b(torch.tanh(own.a(x)))
    return output


def averages(own: Any, x: Tensor) -> Tensor:
    h = torch.tanh(own.a(x))
    own.average = 0.9 * own.average + 0.1 * h.detach().mean(0)
    output: Tensor = own.b(h - own.average)
    return output


def caches(own: Any, x: Tensor) -> Tensor:
    own.cache = torch.tanh(own.a(x))
    own.history.append(own.cache)
    output: Tensor = own.b(own.cache)
    return output


def looks(own: Any, x: Tensor) -> Tensor:
    h = torch.tanh(own.a(x))
    if h.requires_grad:
        h.register_hook(lambda grad: None)
    output: Tensor = own.b(h)
    return output


def changes_gradient(own: Any, x: Tensor) -> Tensor:
    h = torch.tanh(own.a(x))
    if h.requires_grad:
        h.register_hook(lambda grad: 2 * grad)
    output: Tensor = own.b(h)
    return output


def boolean_rows(own: Any, x: Tensor) -> Tensor:
    h = torch.tanh(own.a(x))
    keep = x[:, 0] > 0
    output: Tensor = own.b(h) + h[keep].sum()
    return output


def branches(own: Any, x: Tensor) -> Tensor:
    h = own.a(x)
    output: Tensor = own.b(torch.tanh(h) if bool(h.mean() > 0) else torch.sin(h))
    return output


def uses_item(own: Any, x: Tensor) -> Tensor:
    h = torch.tanh(own.a(x))
    output: Tensor = own.b(h * h.abs().max().item())
    return output


def uses_data(own: Any, x: Tensor) -> Tensor:
    h = own.a(x)
    output: Tensor = own.b(h * torch.sigmoid(h.data))
    return output


def uses_numpy(own: Any, x: Tensor) -> Tensor:
    h = torch.tanh(own.a(x))
    output: Tensor = own.b(h * torch.from_numpy(h.detach().numpy()))
    return output


def complex_numbers(own: Any, x: Tensor) -> Tensor:
    output: Tensor = own.b(torch.view_as_real(torch.fft.fft(torch.tanh(own.a(x)))).square().sum(-1))
    return output


def twice(own: Any, x: Tensor) -> Tensor:
    output: Tensor = own.b(own.inner(torch.tanh(own.inner(own.a(x)))))
    return output


def listed(own: Any, x: Tensor) -> Tensor:
    for scale in own.scales:
        x = torch.tanh(x * scale)
    output: Tensor = own.b(own.a(x))
    return output


def by_keyword(own: Any, x: Tensor) -> Tensor:
    output: Tensor = own.b(input=torch.tanh(own.a(input=x)))
    return output


def tied_autoencoder() -> nn.Module:
    own = Net(
        lambda own, x: own.head(own.out(torch.tanh(own.a(x)))),
        a=nn.Linear(WIDTH, WIDTH),
        out=nn.Linear(WIDTH, WIDTH),
        head=nn.Linear(WIDTH, WAYS),
    )
    own.out.weight = own.a.weight
    return own


def tied_language_model() -> nn.Module:
    own = Net(
        lambda own, x: own.out(torch.tanh(own.table(x).mean(1))), table=nn.Embedding(7, WIDTH), out=nn.Linear(WIDTH, 7)
    )
    own.out.weight = own.table.weight
    return own


def two_inputs(n: int) -> dict[str, Tensor]:
    return {"input_ids": torch.randint(7, (n, 3)), "attention_mask": torch.rand(n, 3).gt(0.3).double()}


def masked_mean(own: Any, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
    h = torch.tanh(own.table(input_ids)) * attention_mask[..., None]
    output: Tensor = own.head(h.sum(1) / attention_mask.sum(1, keepdim=True).clamp(min=1))
    return output


def bags(forward: Callable[..., Tensor], **options: Any) -> Case:
    return Case(lambda: Net(forward, table=nn.EmbeddingBag(7, WIDTH, **options), head=nn.Linear(WIDTH, WAYS)), ids(4))


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


def gaussian(p: Tensor, y: Tensor) -> Tensor:
    return F.gaussian_nll_loss(p[:, 0], y, F.softplus(p[:, 1]))


def ctc(p: Tensor, y: Tensor) -> Tensor:
    """Five frames of three symbols, and a target of two."""
    frames = p.view(len(p), 5, WAYS).transpose(0, 1).log_softmax(-1)
    n = len(p)
    return F.ctc_loss(frames, y.view(n, 2), torch.full((n,), 5), torch.full((n,), 2))


def signs(n: int) -> Tensor:
    return torch.randn(n, WAYS, dtype=torch.float64).sign()


def probabilities(n: int) -> Tensor:
    return torch.softmax(torch.randn(n, WAYS, dtype=torch.float64), 1)


def binary(n: int) -> Tensor:
    return (torch.rand(n, WAYS) > 0.5).double()


LINEAR: Callable[[], nn.Module] = lambda: nn.Linear(WIDTH, WIDTH)  # noqa: E731

CASES: dict[str, Case] = {
    # convolutions and resizing
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
    # pooling
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
    # norms
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
    "weight norm": on_features(lambda: parametrizations.weight_norm(LINEAR())),
    "weight norm, old": on_features(lambda: weight_norm(LINEAR())),  # type: ignore[no-untyped-call]
    "weight norm, old, after a pass": on_features(lambda: trained(weight_norm(LINEAR()))),  # type: ignore[no-untyped-call]
    "spectral norm": on_features(
        lambda: parametrizations.spectral_norm(LINEAR()), error="call .eval\\(\\) on that layer"
    ),
    "spectral norm, old": on_features(lambda: spectral_norm(LINEAR()), error="call .eval\\(\\) on that layer"),
    "spectral norm in eval": on_features(lambda: parametrizations.spectral_norm(LINEAR()).eval()),
    "spectral norm, old, in eval": on_features(lambda: trained(spectral_norm(LINEAR()))),
    "orthogonal": on_features(lambda: parametrizations.orthogonal(LINEAR(), orthogonal_map="cayley")),
    "a parametrization": on_features(lambda: register_symmetric()),
    # activations
    **{
        f"activation {make.__name__}": on_features(make)
        for make in (nn.ReLU, nn.GELU, nn.SiLU, nn.Mish, nn.ELU, nn.SELU, nn.CELU, nn.Softplus, nn.Softsign, nn.PReLU)
    },
    **{
        f"activation {make.__name__}": on_features(make)
        for make in (nn.LeakyReLU, nn.Hardswish, nn.Hardtanh, nn.LogSigmoid, nn.Tanhshrink, nn.Softmin, nn.ReLU6)
    },
    "GLU": Case(lambda: nn.Sequential(nn.Linear(WIDTH, 8), nn.GLU(), nn.Linear(WIDTH, WAYS))),
    "softmax inside": on_features(lambda: nn.Softmax(-1)),
    "RReLU": on_features(nn.RReLU, error="rrelu"),
    "RReLU in eval": on_features(lambda: nn.RReLU().eval()),
    # dropout
    "dropout": on_features(lambda: nn.Dropout(0.5).eval()),
    "dropout in training": on_features(lambda: nn.Dropout(0.5), warns="dropout is switched off"),
    "alpha dropout in training": on_features(lambda: nn.AlphaDropout(0.5), warns="dropout is switched off"),
    "hard-wired dropout": habit(lambda own, x: own.b(F.dropout(own.a(x), 0.5)), error="strategy.dropout"),
    "stochastic depth": on_features(StochasticDepth, error="model.eval\\(\\)"),
    "stochastic depth in eval": on_features(lambda: StochasticDepth().eval()),
    "noise": habit(lambda own, x: own.b(torch.tanh(own.a(x)) + torch.randn_like(x)), error="draws random numbers"),
    # embeddings
    "embedding": embedded(lambda: nn.Embedding(7, WIDTH)),
    "embedding with padding": embedded(lambda: nn.Embedding(7, WIDTH, padding_idx=2)),
    "sparse embedding": embedded(lambda: nn.Embedding(7, WIDTH, sparse=True)),
    "embedding with max_norm": embedded(lambda: nn.Embedding(7, WIDTH, max_norm=1.0), error="max_norm=None"),
    "embedding bag": bags(one_bag),
    "embedding bag, sum and padding": bags(one_bag, mode="sum", padding_idx=1),
    "embedding bag, max": bags(one_bag, mode="max"),
    "embedding bag with offsets": bags(flat_bags),
    "embedding bag with weights": bags(weighted_bags, mode="sum"),
    # sequences
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
    # losses
    "cross entropy, ignoring": loss(lambda p, y: F.cross_entropy(p, y, ignore_index=1)),
    "cross entropy, smoothed": loss(lambda p, y: F.cross_entropy(p, y, label_smoothing=0.1)),
    "cross entropy, weighted": loss(lambda p, y: F.cross_entropy(p, y, weight=torch.tensor([1.0, 2.0, 0.5]).double())),
    "cross entropy of probabilities": loss(F.cross_entropy, probabilities),
    "nll": loss(lambda p, y: F.nll_loss(p.log_softmax(1), y)),
    "multi margin": loss(lambda p, y: F.multi_margin_loss(p, y)),
    "mse": loss(F.mse_loss, numbers(WAYS)),
    "mse of a row and a column": loss(F.mse_loss, numbers(), 1, error="unsqueeze"),
    "l1": loss(F.l1_loss, numbers(WAYS)),
    "l1 of a row and a column": loss(F.l1_loss, numbers(), 1, error="unsqueeze"),
    "smooth l1": loss(F.smooth_l1_loss, numbers(WAYS)),
    "huber": loss(F.huber_loss, numbers(WAYS)),
    "huber of a row and a column": loss(F.huber_loss, numbers(), 1, error="unsqueeze"),
    "soft margin": loss(F.soft_margin_loss, signs),
    "multi-label soft margin": loss(F.multilabel_soft_margin_loss, binary),
    "binary cross entropy": loss(lambda p, y: F.binary_cross_entropy(torch.sigmoid(p), y), binary),
    "binary cross entropy with logits": loss(F.binary_cross_entropy_with_logits, binary),
    "kl": loss(lambda p, y: F.kl_div(p.log_softmax(1), y, reduction="batchmean"), probabilities),
    "poisson": loss(F.poisson_nll_loss, lambda n: torch.randint(5, (n, WAYS)).double()),
    "poisson of whole numbers": loss(F.poisson_nll_loss, lambda n: torch.randint(5, (n, WAYS))),
    "gaussian": loss(gaussian, numbers(), 2),
    "cosine embedding": loss(lambda p, y: F.cosine_embedding_loss(p, y, torch.ones(len(p))), numbers(WAYS)),
    "hinge embedding": loss(F.hinge_embedding_loss, signs),
    "triplet": loss(lambda p, y: F.triplet_margin_loss(p, y, -y), numbers(WAYS)),
    "log cosh": loss(lambda p, y: torch.log(torch.cosh(p - y)).mean(), numbers(WAYS)),
    "ctc": loss(ctc, lambda n: torch.randint(1, WAYS, (n, 2)), 15, error="ctc"),
    "tagging of tokens": Case(
        lambda: nn.Sequential(nn.Linear(WIDTH, WAYS), nn.Tanh()),
        numbers(5, WIDTH),
        lambda n: torch.randint(WAYS, (n, 5)),
        lambda p, y: F.cross_entropy(p.transpose(1, 2), y),
    ),
    # habits
    "no_grad": issue_case(),
    "in place under no_grad": habit(in_place_without_grad),
    "detach": habit(lambda own, x: own.b(own.a(x) * torch.sigmoid(own.a(x)).detach())),
    "tensor.data": habit(uses_data),
    "NumPy inside": habit(uses_numpy, error="NumPy"),
    "item": habit(uses_item),
    "a branch by value": habit(branches),
    "boolean indexing": habit(boolean_rows),
    "in place": habit(in_place),
    "a hook that looks": habit(looks),
    "a hook that changes a gradient": habit(changes_gradient, error="rbml.strategy.clip"),
    "a backward hook": habit(attended, error="handle.remove", options={"hook": True}),
    "a function without setup_context": habit(lambda own, x: own.b(OldFunction.apply(own.a(x))), error="setup_context"),
    "a function without jvp": habit(lambda own, x: own.b(NoJvp.apply(own.a(x))), error='hvp="reverse"'),
    "checkpointing": habit(
        lambda own, x: own.b(checkpoint(lambda h: torch.tanh(own.a(h)), x, use_reentrant=False)), error="checkpoint"
    ),
    "a counter": habit(counts, calls=lambda: torch.zeros((), dtype=torch.int64), warns="writes into its buffers"),
    "a moving average": habit(averages, average=lambda: torch.zeros(WIDTH), warns="writes into its buffers"),
    "a cache": habit(caches, history=list),
    "complex numbers": habit(complex_numbers),
    "cumsum": habit(lambda own, x: own.b(torch.cumsum(torch.tanh(own.a(x)), 1))),
    "cumprod": habit(lambda own, x: own.b(torch.cumprod(torch.tanh(own.a(x)), 1))),
    "sort": habit(lambda own, x: own.b(torch.sort(own.a(x), 1).values ** 2)),
    "topk": habit(lambda own, x: own.b(torch.topk(own.a(x), 4, 1).values ** 2)),
    "einsum": habit(lambda own, x: own.b(torch.einsum("ni,nj->nj", torch.tanh(own.a(x)), x))),
    "gather": habit(lambda own, x: own.b(torch.tanh(own.a(x)).gather(1, x.argsort(1)))),
    "logsumexp": habit(lambda own, x: own.b(torch.tanh(own.a(x)) + own.a(x).logsumexp(1, keepdim=True))),
    "norm": habit(lambda own, x: own.b(F.normalize(own.a(x), dim=1))),
    "distances": habit(lambda own, x: own.b(own.a(x)) + torch.cdist(own.a(x), own.a(x) + 1).mean()),
    "inverse": habit(lambda own, x: own.b(x @ torch.linalg.inv(own.a.weight @ own.a.weight.T + torch.eye(4).double()))),
    "grid sample": Case(
        lambda: Net(
            lambda own, x: own.b(F.grid_sample(x, torch.tanh(own.a).expand(len(x), 2, 2, 2)).flatten(1)),
            a=nn.Parameter(torch.rand(1, 2, 2, 2) * 0.5 + 0.1),
            b=nn.Linear(4, WAYS),
        ),
        numbers(1, 4, 4),
    ),
    "bilinear": Case(
        lambda: Net(
            lambda own, x: own.b(torch.tanh(own.pair(own.a(x), x))),
            a=nn.Linear(WIDTH, WIDTH),
            pair=nn.Bilinear(WIDTH, WIDTH, 3),
            b=nn.Linear(3, WAYS),
        ),
    ),
    "a module called twice": habit(twice, inner=LINEAR),
    "a list of parameters": habit(
        listed, scales=lambda: nn.ParameterList([nn.Parameter(torch.rand(WIDTH)) for _ in range(2)])
    ),
    "layers called by keyword": habit(by_keyword),
    "tied weights": Case(tied_autoencoder),
    "tied embedding": Case(tied_language_model, ids()),
    "a dict": Case(
        lambda: Net(masked_mean, table=nn.Embedding(7, WIDTH, padding_idx=0), head=nn.Linear(WIDTH, WAYS)), two_inputs
    ),
    "a tuple": habit(attended, x=lambda n: (torch.randn(n, WIDTH),), error="a tensor, or a dict of tensors"),
    "a list": habit(attended, x=lambda n: [[0.0] * WIDTH] * n, error="a tensor, or a dict of tensors"),
    "NumPy": habit(
        attended, x=lambda n: torch.randn(n, WIDTH).double().numpy(), error="a tensor, or a dict of tensors"
    ),
}


def register_symmetric() -> nn.Module:
    own = nn.Linear(WIDTH, WIDTH)
    register_parametrization(own, "weight", Symmetric())
    return own
