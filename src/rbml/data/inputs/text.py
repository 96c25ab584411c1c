"""Sentences: as padded ids of words, character n-grams, or the subwords of a backbone's tokenizer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from rbml import backbones
from rbml.backbones import tokens
from rbml.data.batch import Inputs
from rbml.data.inputs.base import RawExamples, Shown
from rbml.data.inputs.text_files import Sentence, looks_like_a_file, read_sentences
from rbml.errors import DataError, UsageError
from rbml.tree import Tree

OWN = ("ngrams", "words")
"""The tokenizers that need no backbone."""

_LONGEST = {"ngrams": 512}
_USUAL = 128  # ids of any other tokenizer
_BYTES = 200  # of each sentence that are kept so that it can be shown
_STEP = 8  # lengths are trimmed to multiples of this, so that a compiled step meets few of them


@dataclass(frozen=True)
class Text:
    """Sentences as ids ``(n, length)``, 0 for padding.

    Stored are the ids as int32, at their full length, and the beginning of each sentence as UTF-8, so that reports can
    show it. What is made ready are the ids alone, as int64, without the columns that are padding in every row.

    ``ngrams`` and ``words`` are hashed into buckets (Weinberger et al. 2009, arXiv:0902.2206): no vocabulary is kept,
    and words that no training text has get a number too.

    Args:
        tokenizer: ``"ngrams"`` (words, and character n-grams inside of words), ``"words"``, or a backbone of text,
            whose subwords are used: ``"minilm"``, ``"hf:NAME"``.
        buckets: how many numbers words and n-grams are hashed into; a backbone has its own.
        longest: how many ids of a sentence are used, the first ones; 0 means 512 n-grams, or 128 of the others.
        frequencies: in how many training texts each id occurs, packed by :func:`rbml.backbones.tokens.packed`.
        text: the column of the sentences in a file; empty: ``text``, ``sentence``, ``utterance`` or ``query``.
        label: the column of the labels; empty: ``label``, ``intent``, ``category`` or ``class``.

    Raises:
        UsageError: for a number that is too small.

    >>> text = Text("words")
    >>> ids = text.ready(text.read(["where is my card?", "thanks"]))["ids"]
    >>> ids.shape, (ids > 0).sum(1)
    (torch.Size([2, 8]), tensor([5, 1]))
    """

    tokenizer: str = "ngrams"
    buckets: int = 16384
    longest: int = 0
    frequencies: str = ""
    text: str = ""
    label: str = ""

    kind = "text"

    def __post_init__(self) -> None:
        """Refuse numbers that leave no room for ids."""
        tokens.range_size(self.buckets)
        if self.longest < 0:
            raise UsageError(f"longest must be at least 1, or 0 for the usual length, not {self.longest}")

    @property
    def length(self) -> int:
        """How many ids of a sentence are used."""
        return self.longest or _LONGEST.get(self.tokenizer, _USUAL)

    def fitted(self, sentences: Sequence[str]) -> Text:
        """Return the same with the frequencies of training sentences."""
        rows = self._rows(sentences)
        counts = tokens.frequencies(rows, self._size())
        return Text(self.tokenizer, self.buckets, self.longest, tokens.packed(counts), self.text, self.label)

    def read(self, raw: Sequence[Any]) -> Tree:
        """Return sentences as ``ids`` ``(n, length)`` int32 and ``bytes`` ``(n, 200)`` uint8.

        Raises:
            DataError: for what is no text, or has no words.
        """
        sentences = [_checked(one, place) for place, one in enumerate(raw, 1)]
        ids = np.zeros((len(sentences), self.length), np.int32)
        for index, row in enumerate(self._rows(sentences)):
            ids[index, : len(row)] = row
        seen = np.zeros((len(sentences), _BYTES), np.uint8)
        for index, sentence in enumerate(sentences):
            start = sentence.encode()[:_BYTES]
            seen[index, : len(start)] = np.frombuffer(start, np.uint8)
        return {"ids": torch.from_numpy(ids), "bytes": torch.from_numpy(seen)}

    def ready(self, stored: Inputs) -> Tree:
        """Return ``ids`` ``(..., length)`` int64, as long as the longest sentence needs, in steps of 8."""
        assert isinstance(stored, dict)
        ids = stored["ids"]
        used = (ids != 0).flatten(0, -2).any(0).nonzero()
        needed = int(used.max()) + 1 if len(used) else 1
        return {"ids": ids[..., : min(-(-needed // _STEP) * _STEP, ids.shape[-1])].long()}

    def show(self, stored: Inputs) -> Shown:
        """Return the beginning of each sentence."""
        assert isinstance(stored, dict)
        return Shown("text", [_decoded(row) for row in stored["bytes"].cpu().numpy()])

    def features(self, stored: Inputs) -> Tensor:
        r"""Return TF-IDF weights of unit norm, ``(n, ids)``: sentences as vectors, for baselines.

        .. math:: f_{ij} \propto n_{ij} \left(\ln \frac{1 + N}{1 + N_j} + 1\right)

        with :math:`n_{ij}` the occurrences of id j in sentence i, :math:`N_j` of N training sentences having it.
        """
        ids = self.ready(stored)["ids"]
        counts = torch.zeros(len(ids), self._size()).scatter_add_(1, ids, torch.ones(ids.shape))
        counts[:, 0] = 0
        return torch.nn.functional.normalize(counts * tokens.idf(self.frequencies, self._size()), dim=1)

    def spec(self) -> dict[str, Any]:
        """Return the options as plain values."""
        names = ("tokenizer", "buckets", "longest", "frequencies", "text", "label")
        return {name: getattr(self, name) for name in names}

    def facts(self) -> dict[str, Any]:
        """Return how many ids there are, and how often each occurs in training."""
        return {"vocabulary": self._size(), "frequencies": self.frequencies}

    def find(self, places: Sequence[Path | str], labelled: bool) -> RawExamples:
        """Return the sentences of CSV, TSV, JSONL and text files; what is no file is itself a sentence to predict.

        Raises:
            DataError: naming the file and the line that cannot be used.
        """
        found: list[Sentence] = []
        for place in map(str, places):
            if labelled or looks_like_a_file(place) or _is_file(place):
                found += read_sentences(place, labelled, self.text, self.label)
            else:
                found.append(Sentence(_checked(place, 1), None, "the command line"))
        if not found:
            raise DataError("nothing was named: expected a file of sentences, or a sentence.")
        texts = [one.text for one in found]
        labels = [one.label for one in found] if labelled else None
        return RawExamples(texts, labels, texts, places=[one.place for one in found])

    def _size(self) -> int:
        return self.buckets if self.tokenizer in OWN else backbones.tokenizer(self.tokenizer).size

    def _rows(self, sentences: Sequence[str]) -> list[list[int]]:
        """Return the ids of every sentence, at most ``length`` of each."""
        if self.tokenizer in OWN:
            make = tokens.ngram_ids if self.tokenizer == "ngrams" else tokens.word_ids
            return [make(sentence, self.buckets)[: self.length] for sentence in sentences]
        return backbones.tokenizer(self.tokenizer).encode(sentences, self.length)


def _checked(one: Any, place: int) -> str:
    if not isinstance(one, str):
        raise DataError(f"text {place} is of the type {type(one).__name__}: expected a string.")
    if not tokens.words(one):
        raise DataError(f"text {place} is {one!r}, which has no words: write a sentence.")
    return one


def _is_file(place: str) -> bool:
    try:
        return Path(place).expanduser().exists()
    except (OSError, ValueError, RuntimeError):  # too long for a name, for example
        return False


def _decoded(row: np.ndarray[Any, Any]) -> str:
    text = row.tobytes().rstrip(b"\0")
    shown = text.decode(errors="ignore")
    return f"{shown}…" if len(text) == _BYTES else shown
