"""Encoders of sentences: a vector per sentence; and how the library transformers loads encoders and tokenizers."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from importlib import import_module
from importlib.util import find_spec
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch._C._functorch import TransformType, get_interpreter_stack
from torch.fx.experimental.proxy_tensor import get_proxy_mode

from rbml.errors import DataError, UsageError

_NEVER = -1e9  # added to the attention logits of padding

_TOGETHER = 16  # sentences of like length that go through the encoder at once


class Tokenizer(NamedTuple):
    """How an encoder's sentences become ids.

    Attributes:
        encode: from sentences and the largest length to the ids of each; 0 is never among them, it means padding.
        size: how many ids there are.
    """

    encode: Callable[[Sequence[str], int], list[list[int]]]
    size: int


class Sentence(nn.Module):
    r"""An encoder with the mean of its last hidden states over the words of a sentence, of unit norm.

    .. math:: f = \frac{m}{\|m\|}, \qquad m = \frac{\sum_i v_i h_i}{\sum_i v_i}, \qquad v_i = [x_i \ne 0]\, w_{x_i}

    Reimers, Gurevych 2019 (arXiv:1908.10084). Inputs are ids ``(n, length)``, 0 for padding; outputs are
    ``(n, width)``. Padding changes nothing: it gets no attention, and is not in the mean. The mask of the attention is
    additive and has four dimensions, because transformers looks at the values of one with two, which
    ``torch.func.vmap`` does not allow.

    Where lengths can be read, sentences of like length go through the encoder together. Most sentences are much shorter
    than the longest one, and padding costs as much as words: forty questions of BANKING77 take half the time.

    Args:
        encoder: :class:`rbml.backbones.bert.Bert`, or a model of transformers (:func:`differentiable`).
        padding: the encoder's own id of padding. It is exchanged with 0, here and in the tokenizer.
        importance: w, how much each id counts in the mean, ``(ids,)``; ``None``: all alike. It is no weight of the
            network: it is not learned, and not saved.
    """

    importance: Tensor | None

    def __init__(self, encoder: nn.Module, padding: int = 0, importance: Tensor | None = None) -> None:
        """Keep the encoder."""
        super().__init__()
        self.encoder, self.padding = encoder, padding
        self.register_buffer("importance", importance, persistent=False)

    def forward(self, ids: Tensor) -> Tensor:
        """Map ids ``(n, length)`` to ``(n, width)``."""
        if len(ids) <= _TOGETHER or not _can_be_read():
            return self._together(ids)
        ends = ((ids != 0) * torch.arange(1, ids.shape[1] + 1, device=ids.device)).amax(1)
        order = ends.argsort()
        found = [self._together(ids[rows, : max(1, int(ends[rows].max()))]) for rows in torch.split(order, _TOGETHER)]
        return torch.cat(found)[order.argsort()]

    def _together(self, ids: Tensor) -> Tensor:
        """Map ids of one length to features, padding included."""
        kept = (ids != 0).to(next(self.encoder.parameters()).dtype)
        # Expanded over the rows: transformers does not expand a mask that it is given.
        hide = ((1 - kept) * _NEVER)[:, None, None, :].expand(-1, 1, ids.shape[1], -1)
        found = self.encoder(input_ids=exchanged(ids, self.padding), attention_mask=hide).last_hidden_state
        counts = kept if self.importance is None else kept * self.importance[ids]
        mean = (found * counts[..., None]).sum(1) / counts.sum(1, keepdim=True).clamp(min=1)
        return F.normalize(mean, dim=1)


def _can_be_read() -> bool:
    """Return whether the program may depend on the values of ids: not under ``vmap``, and not in a graph for others."""
    if torch.compiler.is_compiling() or get_proxy_mode() is not None:
        return False
    return all(level.key() != TransformType.Vmap for level in get_interpreter_stack() or [])


def exchanged(ids: Tensor, padding: int) -> Tensor:
    """Return ids in which 0 and the encoder's id of padding have changed places; twice is the ids again."""
    if padding == 0:
        return ids
    return torch.where(ids == 0, padding, torch.where(ids == padding, 0, ids))


def exchanged_list(ids: Sequence[int], padding: int) -> list[int]:
    """Return the ids of a sentence as :func:`exchanged` does."""
    return [padding if one == 0 else 0 if one == padding else one for one in ids]


def differentiable(encoder: nn.Module) -> nn.Module:
    """Change a model of transformers in place: no dropout, and attention that has all derivatives; return it."""
    made: Any = encoder
    made.set_attn_implementation("eager")
    for layer in encoder.modules():
        if isinstance(layer, nn.Dropout):
            layer.p = 0.0
    return encoder


def loaded_encoder(place: str, **options: Any) -> nn.Module:
    """Return an encoder of transformers with its weights, whose output is a function of its inputs.

    Args:
        place: a folder, or the name of a model on the Hugging Face hub.
        **options: of ``from_pretrained``.

    Raises:
        UsageError: if transformers is not installed.
        DataError: if there is no such model, or it cannot be read.
    """
    found: nn.Module = _from_pretrained("AutoModel", place, **options)
    return differentiable(found)


def loaded_tokenizer(place: str, **options: Any) -> Any:
    """Return a tokenizer of transformers, as :func:`loaded_encoder` does."""
    return _from_pretrained("AutoTokenizer", place, **options)


def _from_pretrained(kind: str, place: str, **options: Any) -> Any:
    if find_spec("transformers") is None:
        raise UsageError(f"{place} is read with transformers: pip install 'rbml[text]'")
    # It shows a progress bar and a table of the weights that it has left out; the pooling layer always is one.
    logger = logging.getLogger("transformers")
    level, tqdm = logger.level, import_module("transformers.utils.logging")
    shown = tqdm.is_progress_bar_enabled()
    logger.setLevel(logging.ERROR)
    tqdm.disable_progress_bar()
    try:
        return getattr(import_module("transformers"), kind).from_pretrained(place, **options)
    except (OSError, ValueError) as error:
        first = str(error).strip().partition("\n")[0]
        raise DataError(
            f"{place!r} cannot be loaded by transformers ({first}): name a folder with config.json, model.safetensors "
            "and a tokenizer, or a model of the Hugging Face hub."
        ) from None
    finally:
        logger.setLevel(level)
        if shown:
            tqdm.enable_progress_bar()
