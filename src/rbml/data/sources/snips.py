"""SNIPS: what people ask of a voice assistant, seven intents; for testing only.

A. Coucke et al., "Snips Voice Platform: an embedded Spoken Language Understanding system for private-by-design voice
interfaces", 2018 (arXiv:1805.10190); CC0 1.0.
"""

from __future__ import annotations

from pathlib import Path

from rbml.data import store
from rbml.data.examples import Labelled, check_split, check_test_only
from rbml.data.inputs.text import Text
from rbml.data.inputs.text_files import read_sentences
from rbml.data.sources.intents import labelled

_FILE = "snips/snips.jsonl"
_ORIGIN = (
    "It cannot be downloaded by rbml: it was made of the folder 2017-06-custom-intent-engines of "
    'github.com/sonos/nlu-benchmark (CC0), with lines {"text": ..., "intent": ...}.'
)


def load(
    part: str,
    root: str | Path | None = None,
    *,
    split: str | None = None,
    seed: int = 0,
    tokenizer: str = "ngrams",
    buckets: int = 16384,
    longest: int = 0,
) -> Labelled:
    """SNIPS: requests to an assistant, 7 intents of about 2000 (Coucke et al., 2018); test only.

    Args:
        part: ``"test"``.
        root: the folder to look for data in, instead of ``$RBML_DATA``.
        split: ``"all"``, or ``None``.
        seed: not used.
        tokenizer: ``ngrams``, ``words`` or a backbone of text, see :class:`rbml.data.inputs.Text`.
        buckets: how many numbers words and n-grams are hashed into.
        longest: how many ids of a sentence are used; 0 for the tokenizer's usual number.

    Returns:
        The ids of sentences; names are those of the intents.
    """
    check_split(split, "all")
    check_test_only(part, "snips", 7)
    rows = read_sentences(store.need(_FILE, root, _ORIGIN), True, "text", "intent")
    sentences = [(row.text, str(row.label)) for row in rows]
    names = sorted({name for _, name in sentences})
    return labelled(sentences, names, (), Text(tokenizer, buckets, longest), "SNIPS, all sentences")
