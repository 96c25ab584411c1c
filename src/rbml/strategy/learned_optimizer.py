r"""Learned optimizers: rules in which a small network computes the step of every element of theta separately.

Both rules add the network's output to plain descent, :math:`d \leftarrow \mathrm{lr}\, d + \mathrm{scale}\, o`, and
start with outputs of zero, that is, as ``sgd(lr)``. Such a nominal term keeps a learned optimizer stable (Harrison et
al. 2022, arXiv:2209.11208); ``lr=0.0`` removes it, as in the older papers. One network serves all elements of all
tensors. Rules earlier in the chain determine what it sees as the gradient.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from rbml.strategy.base import Parameterised, Rule, Values, part, stateless
from rbml.strategy.hyper import Hyper, as_hyper
from rbml.strategy.networks import check_hidden, check_widths, drawn, first, forward, perceptron
from rbml.strategy.views import StepInfo
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
    r"""Add to every element's direction the output of a perceptron that sees its gradient, value, momenta and the time.

    .. math:: d \leftarrow \mathrm{lr}\, d + \mathrm{scale} \cdot o_1 \exp(o_2 / 1000), \qquad
              o = \mathrm{MLP}(\mathrm{rms}(d),\, \mathrm{rms}(\theta),\, \mathrm{rms}(m_1) ..,\, \log|d|,\,
              \mathrm{sign}\, d,\, \mathrm{time})

    rms divides a feature by its root mean square over the tensor. The momenta are
    :math:`m_k \leftarrow \mathrm{decay}_k\, m_k + (1 - \mathrm{decay}_k)\, d`. The logarithm and the sign are computed
    as in :func:`learned_lstm`. The time features are t / T and :math:`\tanh(t / \tau - 1)` for nine values of tau from
    1 to 10,000.

    Source: Metz et al. 2019 (arXiv:1810.10180), for the features, the time and the form of the output; Metz et al. 2020
    (arXiv:2009.11243) for such optimizers at scale, whose additional networks per layer are left out. The units are
    tanh instead of ReLU.

    Cost: one copy of theta per decay as state, and one forward pass of the network per element and step.

    Args:
        lr: the learning rate of plain descent; 0 removes it.
        scale: the factor of the network's output.
        hidden: widths of the hidden layers.
        decays: the decays of the momenta.
        name: the name of the part in the strategy.

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
            # Without decays there is no state (see `init` below), hence `get`.
            kept = [decay * m + (1 - decay) * d for decay, m in zip(decays, state.get(key, ()), strict=True)]
            scaled = [_divided_by_rms(feature) for feature in (d, theta[key], *kept)]
            seen = torch.stack([*scaled, *preprocessed(d), *_time_features(at, d)], -1)
            # One network for all elements: a linear layer over the last dimension, (..., features) -> (..., 2).
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
    r"""Add to every element's direction the output of an LSTM that has seen all its gradients so far.

    .. math:: d \leftarrow \mathrm{lr}\, d + \mathrm{scale} \cdot o, \qquad (o, h') = \mathrm{LSTM}(\tilde d, h), \qquad
              \tilde d = \begin{cases} (\log|d| / p,\; \mathrm{sign}\, d) & |d| \ge e^{-p} \\
              (-1,\; e^p d) & \text{else} \end{cases}, \quad p = 10

    Source: Andrychowicz et al. 2016 (arXiv:1606.04474): two layers of 20 units, outputs times 0.1, without plain
    descent (``lr=0.0``). The paper treats the gradients of the optimizee as constants, as ``FirstOrder()`` does; exact
    engines differentiate them. Around zero the logarithm and the sign have slopes of up to ``exp(p)``, so that an exact
    hypergradient through several steps can be large.

    Cost: ``2 * layers * hidden`` copies of theta as state, and about ``4 * hidden**2 * (2 * layers - 1)``
    multiplications per element and step.

    Args:
        lr: the learning rate of plain descent; 0 removes it.
        scale: the factor of the network's output.
        hidden: units per layer.
        layers: the number of LSTM layers.
        name: the name of the part in the strategy.

    Raises:
        UsageError: if ``hidden`` or ``layers`` is below 1.
    """
    check_widths("hidden and layers", hidden, layers)

    def start(theta: Tree, steps: int, generator: torch.Generator | None) -> Tree:
        like, bound = first(theta), hidden**-0.5  # initialised as in nn.LSTM
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
        # h and c of every layer, (hidden, *shape): the units come first, so that a layer is one matrix product.
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
    """Return the next h and c of an LSTM layer, as ``nn.LSTMCell`` does.

    Written out because the fused form in PyTorch has no second derivative.

    Args:
        net: ``"0/input"`` ``(4 hidden, inputs)``, ``"0/hidden"`` ``(4 hidden, hidden)`` and ``"0/bias"``
            ``(4 hidden,)``: the rows of four gates, in the order in, forget, cell, out.
        layer: the number of the layer, from 0.
        x: the inputs ``(inputs, n)``.
        h: the hidden state ``(hidden, n)``.
        c: the cell state ``(hidden, n)``.
    """
    gates = net[f"{layer}/input"] @ x + net[f"{layer}/hidden"] @ h + net[f"{layer}/bias"][:, None]
    enter, forget, cell, leave = gates.chunk(4)
    c = torch.sigmoid(forget) * c + torch.sigmoid(enter) * torch.tanh(cell)
    return torch.sigmoid(leave) * torch.tanh(c), c


def preprocessed(gradient: Tensor, p: float = 10.0) -> tuple[Tensor, Tensor]:
    """Return the scaled logarithm and the sign of a gradient; for sizes below ``exp(-p)``, -1 and the scaled gradient.

    Source: Andrychowicz et al. 2016 (arXiv:1606.04474, appendix A). Values and derivatives are finite everywhere, also
    at zero.
    """
    size = gradient.abs()
    large = size >= math.exp(-p)
    logarithm = torch.where(large, torch.log(torch.where(large, size, 1.0)) / p, -1.0)
    return logarithm, torch.where(large, torch.sign(gradient), math.exp(p) * gradient)


def _divided_by_rms(feature: Tensor) -> Tensor:
    # 1e-5 inside the root keeps a tensor whose gradient is exactly zero from giving nan.
    return feature * torch.rsqrt(1e-5 + (feature**2).mean())


def _time_features(at: StepInfo, like: Tensor) -> list[Tensor]:
    if isinstance(at.time, float):
        numbers = [at.time / at.steps, *(math.tanh(at.time / time - 1) for time in _TIMES)]
        return [torch.full_like(like, number) for number in numbers]
    traced = [at.time / at.steps, *(torch.tanh(at.time / time - 1) for time in _TIMES)]
    return [number.to(like.dtype).expand_as(like) for number in traced]
