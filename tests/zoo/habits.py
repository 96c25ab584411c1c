"""What models of the zoo do beside calling layers."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from tests.zoo.case import LINEAR, WAYS, WIDTH, Case, Net, habit, ids, numbers
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint


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
    h = torch.sin(h).add_(1).mul_(x)
    h[:, 0] = torch.tanh(x[:, 1])
    output: Tensor = own.b(h)
    return output


def in_place_without_grad(own: Any, x: Tensor) -> Tensor:
    h = torch.sin(own.a(x))
    with torch.no_grad():
        h.mul_(0.5)
    output: Tensor = own.b(h * x)
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


HABITS: dict[str, Case] = {
    "no_grad": issue_case(),
    "in place under no_grad": habit(in_place_without_grad),
    "detach": habit(lambda own, x: own.b(own.a(x) * torch.sigmoid(own.a(x)).detach())),
    "tensor.data": habit(uses_data),
    "NumPy inside": habit(uses_numpy, error="NumPy"),
    "item": habit(uses_item, options={"vectorise": False}),
    "a branch by value": habit(branches, options={"vectorise": False}),
    "boolean indexing": habit(boolean_rows, options={"vectorise": False}),
    "in place": habit(in_place),
    "a hook that looks": habit(looks),
    "a hook that changes a gradient": habit(changes_gradient, error="rbml.strategy.clip_norm"),
    "a backward hook": habit(
        attended,
        error="handle.remove",
        options={},
        ready=lambda model: model.register_full_backward_hook(lambda *_: None),
    ),
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
    "distances": habit(
        lambda own, x: own.b(own.a(x)) + torch.cdist(own.a(x), own.a(x) + 1).mean(), error="second derivative"
    ),
    "inverse": habit(lambda own, x: own.b(x @ torch.linalg.inv(own.a.weight @ own.a.weight.T + torch.eye(4).double()))),
    "grid sample": Case(
        lambda: Net(
            lambda own, x: own.b(
                F.grid_sample(x, torch.tanh(own.a).expand(len(x), 2, 2, 2), align_corners=False).flatten(1)
            ),
            a=nn.Parameter(torch.rand(1, 2, 2, 2) * 0.5 + 0.1),
            b=nn.Linear(4, WAYS),
        ),
        numbers(1, 4, 4),
        error='hvp="reverse"',
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
