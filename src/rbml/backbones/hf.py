"""Encoders of the library transformers, from a folder or from the Hugging Face hub: ``hf:NAME``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rbml.backbones.base import Backbone
from rbml.backbones.sentence import Sentence, Tokenizer, exchanged_list, loaded_encoder, loaded_tokenizer
from rbml.errors import UsageError


def load(more: str) -> Backbone:
    """Any encoder of transformers: ``hf:NAME``, from a folder or the hub; features are the mean of its last states.

    Args:
        more: a folder with ``config.json``, ``model.safetensors`` and a tokenizer, or a name on the hub such as
            ``"sentence-transformers/all-MiniLM-L6-v2"``.

    Raises:
        UsageError: if transformers is not installed, or no model is named.
        DataError: if there is no such model, or it cannot be read.
    """
    encoder: Any = loaded_encoder(_named(more))
    body = Sentence(encoder, padding=encoder.config.pad_token_id or 0).eval()
    about = f"{more}, loaded by transformers"
    return Backbone(f"hf:{more}", body, encoder.config.hidden_size, "text", {"tokenizer": f"hf:{more}"}, about)


def tokenizer(more: str) -> Tokenizer:
    """Return the tokenizer that belongs to an encoder.

    Args:
        more: as in :func:`load`.

    Raises:
        UsageError: if transformers is not installed, or no model is named.
        DataError: if there is no such model, or it cannot be read.
    """
    made = loaded_tokenizer(_named(more))
    padding = made.pad_token_id or 0

    def encode(sentences: Sequence[str], longest: int) -> list[list[int]]:
        rows = made(list(sentences), truncation=True, max_length=longest)["input_ids"]
        return [exchanged_list(row, padding) for row in rows]

    return Tokenizer(encode, len(made))


def _named(more: str) -> str:
    if not more:
        raise UsageError("hf needs the name of a model: hf:FOLDER, or hf:NAME of the Hugging Face hub")
    return more
