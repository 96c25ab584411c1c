r"""Rules that are a learned optimizer: a small network that acts on every element of theta by itself.

Both add the network's output to plain descent, :math:`d \leftarrow \mathrm{lr}\, d + \mathrm{scale}\, o`, and start
with outputs of zero, so that learning starts as ``sgd(lr)``: a nominal part keeps a learned optimizer stable (Harrison
et al. 2022, arXiv:2209.11208). With ``lr=0.0`` there is none, as in the older papers. The network is the same for all
elements, whatever tensors there are, and rules before it decide what it sees as the gradient.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from rbml.strategy.base import Parameterised, Rule, StepInfo, Values, part, stateless
from rbml.strategy.hyper import Hyper, as_hyper
from rbml.strategy.networks import check_hidden, check_widths, drawn, first, forward, perceptron
from rbml.strategy.weights import Weights
from rbml.tree import Tree

_TIMES = (1, 3, 10, 30, 100, 300, 1000, 3000, 10000)
_DECAYS = (0.1, 0.5, 0.9, 0.99, 0.999, 0.9999)


@part
def learned_optimizer(
    lr: float | Hyper = 0.1,
    scale: float | Hyper = 0.01,
    hidden: Sequence[int] = (32, 32),
    decays: Sequence[float] = _DECAYS,
    name: str = "learned_optimizer",
) -> Rule:
    r"""Add to the direction of every element what a perceptron makes of its gradient, value, momenta and of the time.

    .. math:: d \leftarrow \mathrm{lr}\, d + \mathrm{scale} \cdot o_1 \exp(o_2 / 1000), \qquad
              o = \mathrm{MLP}(\mathrm{rms}(d),\, \mathrm{rms}(\theta),\, \mathrm{rms}(m_1) ..,\, \log|d|,\,
              \mathrm{sign}\, d,\, \mathrm{time})

    rms divides a feature by the root of its mean square over the tensor; the momenta are
    :math:`m_k \leftarrow \mathrm{decay}_k\, m_k + (1 - \mathrm{decay}_k)\, d`; the logarithm and the sign are those of
    :func:`learned_lstm`; the time is t / T and :math:`\tanh(t / \tau - 1)` for nine times tau from 1 to 10,000.

    Source: Metz et al. 2019 (arXiv:1810.10180), whose features, time and form of the output it takes; Metz et al. 2020
    (arXiv:2009.11243) for such optimizers at scale (theirs has layer-wise networks besides, which are left out). tanh
    units in place of ReLU.

    Cost: as many copies of theta as there are decays as state, and a pass of the network an element and step.

    Args:
        lr: the learning rate of the plain part; 0 leaves it out.
        scale: what the network's output is multiplied by.
        hidden: widths of the hidden layers.
        decays: of the momenta.
        name: what it is filed under.

    Raises:
        UsageError: if a hidden width is below 1.
    """
    widths = (4 + len(decays) + 1 + len(_TIMES), *check_hidden(hidden), 2)

    def start(theta: Tree, steps: int, generator: torch.Generator | None) -> Tree:
        return perceptron(widths, first(theta), generator, last=0.0)

    def init(theta: Tree) -> Tree:
        return {key: torch.stack([torch.zeros_like(leaf)] * len(decays)) for key, leaf in theta.items()}

    def update(direction: Tree, state: Tree, theta: Tree, values: Values, at: StepInfo) -> tuple[Tree, Tree]:
        after: Tree = {}
        momenta: Tree = {}
        for key, d in direction.items():
            kept = [decay * m + (1 - decay) * d for decay, m in zip(decays, state.get(key, ()), strict=True)]
            scaled = [_rms(feature) for feature in (d, theta[key], *kept)]
            seen = torch.stack([*scaled, *preprocessed(d), *_time(at, d)], -1)
            way, size = forward(values["net"], seen, torch.tanh).unbind(-1)
            after[key] = values["lr"][key] * d + values["scale"][key] * way * torch.exp(size / 1000)
            if kept:
                momenta[key] = torch.stack(kept)
        return after, momenta

    numbers: dict[str, Parameterised] = {"lr": as_hyper(lr), "scale": as_hyper(scale), "net": Weights(start)}
    return Rule(name, numbers, update, init if decays else stateless)


@part
def learned_lstm(
    lr: float | Hyper = 0.1, scale: float | Hyper = 0.1, hidden: int = 20, layers: int = 2, name: str = "learned_lstm"
) -> Rule:
    r"""Add to the direction of every element what an LSTM makes of its gradients so far.

    .. math:: d \leftarrow \mathrm{lr}\, d + \mathrm{scale} \cdot o, \qquad (o, h') = \mathrm{LSTM}(\tilde d, h), \qquad
              \tilde d = \begin{cases} (\log|d| / p,\; \mathrm{sign}\, d) & |d| \ge e^{-p} \\
              (-1,\; e^p d) & \text{else} \end{cases}, \quad p = 10

    Source: Andrychowicz et al. 2016 (arXiv:1606.04474): two layers of 20 units, outputs times 0.1; theirs is without
    the plain part, ``lr=0.0``. They take the gradients of the optimizee as constants, which ``FirstOrder()`` does; any
    exact engine goes through them. Around zero the logarithm and the sign are steep, with slopes up to ``exp(p)``, so
    that an exact hypergradient through several steps can be large.

    Cost: ``2 * layers * hidden`` copies of theta as state, and about ``4 * hidden**2 * (2 * layers - 1)``
    multiplications an element and step.

    Args:
        lr: the learning rate of the plain part; 0 leaves it out.
        scale: what the network's output is multiplied by.
        hidden: units of a layer.
        layers: how many LSTM layers.
        name: what it is filed under.

    Raises:
        UsageError: if ``hidden`` or ``layers`` is below 1.
    """
    check_widths("hidden and layers", hidden, layers)

    def start(theta: Tree, steps: int, generator: torch.Generator | None) -> Tree:
        like, bound = first(theta), hidden**-0.5
        net: Tree = {}
        for layer in range(layers):
            inputs = hidden if layer else 2
            for kind, shape in (
                ("input", (4 * hidden, inputs)),
                ("hidden", (4 * hidden, hidden)),
                ("bias", (4 * hidden,)),
            ):
                net[f"{layer}/{kind}"] = drawn(shape, bound, like, generator)
        return net | {"out/weight": like.new_zeros(1, hidden), "out/bias": like.new_zeros(1)}

    def init(theta: Tree) -> Tree:
        names = [f"{kind}{layer}" for layer in range(layers) for kind in "hc"]
        return {
            f"{key}/{one}": torch.stack([torch.zeros_like(p)] * hidden) for key, p in theta.items() for one in names
        }

    def update(direction: Tree, state: Tree, theta: Tree, values: Values, at: StepInfo) -> tuple[Tree, Tree]:
        net = values["net"]
        after: Tree = {}
        kept: Tree = {}
        for key, d in direction.items():
            x = torch.stack(preprocessed(d)).reshape(2, -1)  # (features, elements)
            for layer in range(layers):
                names = [f"{key}/{kind}{layer}" for kind in "hc"]
                h, c = (state[one].reshape(hidden, -1) for one in names)
                x, c = lstm_cell(net, layer, x, h, c)
                kept |= {one: leaf.reshape(hidden, *d.shape) for one, leaf in zip(names, (x, c), strict=True)}
            output = (net["out/weight"] @ x + net["out/bias"][:, None]).reshape(d.shape)
            after[key] = values["lr"][key] * d + values["scale"][key] * output
        return after, kept

    return Rule(name, {"lr": as_hyper(lr), "scale": as_hyper(scale), "net": Weights(start)}, update, init)


def lstm_cell(net: Tree, layer: int, x: Tensor, h: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
    """Return the next h and c of an LSTM layer, as ``nn.LSTMCell`` does, whose fused form has no second derivative.

    Args:
        net: ``"0/input"`` ``(4 hidden, inputs)``, ``"0/hidden"`` ``(4 hidden, hidden)`` and ``"0/bias"``
            ``(4 hidden,)``: the rows of four gates, in the order in, forget, cell, out.
        layer: which.
        x: ``(inputs, n)``.
        h: ``(hidden, n)``.
        c: ``(hidden, n)``.
    """
    gates = net[f"{layer}/input"] @ x + net[f"{layer}/hidden"] @ h + net[f"{layer}/bias"][:, None]
    enter, forget, cell, leave = gates.chunk(4)
    c = torch.sigmoid(forget) * c + torch.sigmoid(enter) * torch.tanh(cell)
    return torch.sigmoid(leave) * torch.tanh(c), c


def preprocessed(gradient: Tensor, p: float = 10.0) -> tuple[Tensor, Tensor]:
    """Return logarithm and sign of a gradient, of its shape; below ``exp(-p)`` -1 and the gradient itself, scaled.

    Andrychowicz et al. 2016 (arXiv:1606.04474, appendix A). Values and derivatives are finite everywhere, at zero too.
    """
    size = gradient.abs()
    large = size >= math.exp(-p)
    logarithm = torch.where(large, torch.log(torch.where(large, size, 1.0)) / p, -1.0)
    return logarithm, torch.where(large, torch.sign(gradient), math.exp(p) * gradient)


def _rms(feature: Tensor) -> Tensor:
    return feature * torch.rsqrt(1e-5 + (feature**2).mean())


def _time(at: StepInfo, like: Tensor) -> list[Tensor]:
    if isinstance(at.time, float):
        numbers = [at.time / at.steps, *(math.tanh(at.time / time - 1) for time in _TIMES)]
        return [torch.full_like(like, number) for number in numbers]
    traced = [at.time / at.steps, *(torch.tanh(at.time / time - 1) for time in _TIMES)]
    return [number.to(like.dtype).expand_as(like) for number in traced]
