"""BERT's encoder in its plain form: every layer a module, every step an operator that has all derivatives."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

_EPSILON = 1e-12  # of the layer norms, as BERT has been trained


class States(NamedTuple):
    """What an encoder returns.

    Attributes:
        last_hidden_state: of every token, ``(n, length, width)``.
    """

    last_hidden_state: Tensor


class Bert(nn.Module):
    r"""A transformer encoder with the norm after each sum; Devlin et al. 2018 (arXiv:1810.04805).

    .. math:: h_0 = \mathrm{LN}(E_{x} + P + T_0), \qquad a = \mathrm{LN}(h + \mathrm{attention}(h)), \qquad
              h' = \mathrm{LN}(a + W_2\, \mathrm{GELU}(W_1 a))

    Weights have the names that transformers gives them, so that files of weights, and runs, are the same with both. The
    layer ``pooler`` is one of these: no result depends on it. There is no dropout, and all sentences are of one kind
    (token type 0). It does what transformers does, without three seconds of imports.

    Args:
        vocabulary: how many ids there are; 0 is padding, whose vector gets no gradient.
        width: of the states.
        layers: how many.
        heads: of the attention; they divide the width.
        hidden: units between the two linear layers.
        positions: the largest number of tokens.
    """

    def __init__(self, vocabulary: int, width: int, layers: int, heads: int, hidden: int, positions: int = 512) -> None:
        """Build the layers for weights that are loaded: the vectors of the embeddings are zero."""
        super().__init__()
        self.embeddings = nn.ModuleDict({
            "word_embeddings": _vectors(vocabulary, width, padding=0),
            "position_embeddings": _vectors(positions, width),
            "token_type_embeddings": _vectors(2, width),
            "LayerNorm": nn.LayerNorm(width, eps=_EPSILON),
        })  # fmt: skip
        self.encoder = nn.ModuleDict({"layer": nn.ModuleList(_Layer(width, heads, hidden) for _ in range(layers))})
        self.pooler = nn.ModuleDict({"dense": nn.Linear(width, width)})

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> States:
        """Return the last states of ids ``(n, length)``.

        Args:
            input_ids: the tokens.
            attention_mask: what is added to the attention logits, ``(n, 1, length, length)`` or what broadcasts to it.
        """
        table, places = self.embeddings, torch.arange(input_ids.shape[1], device=input_ids.device)
        kinds = table["token_type_embeddings"](torch.zeros_like(places))
        states = table["word_embeddings"](input_ids) + table["position_embeddings"](places) + kinds
        states = table["LayerNorm"](states)
        layers: Any = self.encoder["layer"]
        for layer in layers:
            states = layer(states, attention_mask)
        return States(states)


class _Layer(nn.Module):
    """Attention, and two linear layers, each added to what came in."""

    def __init__(self, width: int, heads: int, hidden: int) -> None:
        super().__init__()
        self.heads = heads
        inner = nn.ModuleDict({name: nn.Linear(width, width) for name in ("query", "key", "value")})
        self.attention = nn.ModuleDict({"self": inner, "output": _sum(width, width)})
        self.intermediate = nn.ModuleDict({"dense": nn.Linear(width, hidden)})
        self.output = _sum(hidden, width)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """Map states ``(n, length, width)`` to states of that shape."""
        of = {name: layer(x).unflatten(-1, (self.heads, -1)).transpose(1, 2)
              for name, layer in self.attention["self"].items()}  # type: ignore[operator]  # fmt: skip
        logits = of["query"] @ of["key"].mT / math.sqrt(of["key"].shape[-1]) + mask
        mixed = (torch.softmax(logits, -1) @ of["value"]).transpose(1, 2).flatten(-2)
        x = _summed(self.attention["output"], mixed, x)
        return _summed(self.output, F.gelu(self.intermediate["dense"](x)), x)


def _vectors(count: int, width: int, padding: int | None = None) -> nn.Embedding:
    """Return vectors of zeros: random ones on the device "meta" would import PyTorch's compiler, in two seconds."""
    made: Any = nn.Embedding
    found: nn.Embedding = made.from_pretrained(torch.zeros(count, width), freeze=False, padding_idx=padding)
    return found


def _sum(inputs: int, width: int) -> nn.ModuleDict:
    return nn.ModuleDict({"dense": nn.Linear(inputs, width), "LayerNorm": nn.LayerNorm(width, eps=_EPSILON)})


def _summed(layers: nn.Module, change: Tensor, x: Tensor) -> Tensor:
    """Return the norm of states and a change of them."""
    found: Tensor = layers["LayerNorm"](layers["dense"](change) + x)  # type: ignore[index]
    return found
