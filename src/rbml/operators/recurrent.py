r"""Recurrent layers as loops of ordinary operators.

PyTorch's own write into their state, which ``vmap`` refuses, and have no forward derivative in float32 on a CPU. Per
step, with :math:`a = W_i x + b_i` and :math:`c = W_h h + b_h` in as many parts as there are gates:

- LSTM: :math:`s \leftarrow \sigma(f) s + \sigma(i) \tanh(g), \; h \leftarrow \sigma(o) \tanh(s)` of
  :math:`(i, f, g, o) = a + c`, and :math:`h \leftarrow W_p h` with projections;
- GRU: :math:`h \leftarrow (1 - z) n + z h`, :math:`r, z = \sigma(a + c)`, :math:`n = \tanh(a_n + r c_n)`;
- RNN: :math:`h \leftarrow \tanh(a + c)`, or ReLU.

Shapes: T steps, n sequences, H numbers of a state, L layers times directions.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from rbml.operators.randomness import refuse

State = tuple[Tensor, ...]
"""h, or h and s, ``(n, H)`` each."""
Cell = Callable[[Tensor, Tensor, State], State]
"""From a, c and the state to the next state."""


def _lstm(a: Tensor, c: Tensor, state: State) -> State:
    i, f, g, o = (a + c).chunk(4, -1)
    s = torch.sigmoid(f) * state[1] + torch.sigmoid(i) * torch.tanh(g)
    return torch.sigmoid(o) * torch.tanh(s), s


def _gru(a: Tensor, c: Tensor, state: State) -> State:
    (a_r, a_z, a_n), (c_r, c_z, c_n) = a.chunk(3, -1), c.chunk(3, -1)
    n, z = torch.tanh(a_n + torch.sigmoid(a_r + c_r) * c_n), torch.sigmoid(a_z + c_z)
    return ((1 - z) * n + z * state[0],)


def _tanh(a: Tensor, c: Tensor, state: State) -> State:
    return (torch.tanh(a + c),)


def _relu(a: Tensor, c: Tensor, state: State) -> State:
    return (torch.relu(a + c),)


def _run(cell: Cell, x: Tensor, state: State, weights: Sequence[Tensor], has_biases: bool) -> tuple[Tensor, State]:
    """Run one layer in one direction over ``x``, ``(T, n, ...)``."""
    by_input, by_state, *rest = weights
    b_input, b_state = rest[:2] if has_biases else (None, None)
    projection = rest[2 if has_biases else 0 :]
    states = []
    for a in F.linear(x, by_input, b_input).unbind(0):
        state = cell(a, F.linear(state[0], by_state, b_state), state)
        if projection:
            state = (state[0] @ projection[0].mT, *state[1:])
        states.append(state[0])
    return torch.stack(states), state


def _layers(cell: Cell, native: Callable[..., Any]) -> Callable[..., Any]:
    """Return PyTorch's function ``native`` of several layers; packed sequences are left to PyTorch."""

    def run(*args: Any) -> Any:
        x, start, weights, has_biases, layers, dropout, train, both_ways, batch_first = args
        if not isinstance(has_biases, bool):
            return native(*args)  # the arguments of a packed sequence
        if train and dropout > 0:
            refuse(f"{native.__name__}(dropout={dropout})")
        starts: State = (start,) if isinstance(start, Tensor) else tuple(start)
        directions = 2 if both_ways else 1
        each = len(weights) // (layers * directions)
        x = x.transpose(0, 1) if batch_first else x
        ends: list[State] = []
        for layer in range(layers):
            found = []
            for direction in range(directions):
                at = layer * directions + direction
                own, state = weights[at * each : (at + 1) * each], tuple(part[at] for part in starts)
                output, end = _run(cell, x.flip(0) if direction else x, state, own, has_biases)
                found.append(output.flip(0) if direction else output)
                ends.append(end)
            x = torch.cat(found, -1)
        return x.transpose(0, 1) if batch_first else x, *(torch.stack(part) for part in zip(*ends, strict=True))

    return run


def _single(cell: Cell) -> Callable[..., Any]:
    """Return PyTorch's function of one step."""

    def run(x: Tensor, state: Any, by_input: Tensor, by_state: Tensor, b_input: Any = None, b_state: Any = None) -> Any:
        before: State = (state,) if isinstance(state, Tensor) else tuple(state)
        after = cell(F.linear(x, by_input, b_input), F.linear(before[0], by_state, b_state), before)
        return after[0] if isinstance(state, Tensor) else after

    return run


RECURRENT: Mapping[Callable[..., Any], Callable[..., Any]] = {
    torch.lstm: _layers(_lstm, torch.lstm),
    torch.gru: _layers(_gru, torch.gru),
    torch.rnn_tanh: _layers(_tanh, torch.rnn_tanh),
    torch.rnn_relu: _layers(_relu, torch.rnn_relu),
    torch.lstm_cell: _single(_lstm),
    torch.gru_cell: _single(_gru),
    torch.rnn_tanh_cell: _single(_tanh),
    torch.rnn_relu_cell: _single(_relu),
}
"""PyTorch's recurrent functions, with their replacements."""
