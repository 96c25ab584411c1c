"""Sentences of your own: a CSV, TSV or JSONL file with a label for each."""

from __future__ import annotations

from pathlib import Path

from rbml.data.examples import Labelled, check_part, check_split
from rbml.data.inputs.text import Text
from rbml.data.inputs.text_files import read_sentences
from rbml.data.sources.intents import PROTOCOL as PROTOCOL
from rbml.data.sources.intents import labelled
from rbml.data.sources.table import divide
from rbml.errors import UsageError


def load(
    part: str,
    root: str | Path | None = None,
    *,
    split: str | None = None,
    seed: int = 0,
    text: str = "",
    label: str = "",
    tokenizer: str = "ngrams",
    buckets: int = 16384,
    longest: int = 0,
) -> Labelled:
    """Sentences of your own, one per row of a CSV, TSV or JSONL file: text:FILE.

    The classes are shuffled with ``seed`` and divided 64 : 16 : 20.

    Args:
        part: ``"train"``, ``"val"`` or ``"test"``: they share no class.
        root: the file.
        split: ``"classes"``, or ``None``.
        seed: for the division.
        text: the column of the sentences; by default ``text``, ``sentence``, ``utterance`` or ``query``.
        label: the column of the labels; by default ``label``, ``intent``, ``category`` or ``class``.
        tokenizer: ``ngrams``, ``words`` or a backbone of text, see :class:`rbml.data.inputs.Text`.
        buckets: how many numbers words and n-grams are hashed into.
        longest: how many ids of a sentence are used; 0 for the tokenizer's usual number.

    Returns:
        The ids of sentences; names are the labels.

    Raises:
        UsageError: if no file is named.
        DataError: if the file cannot be used, or has too few classes to divide; it names the line if there is one.
    """
    check_part(part)
    check_split(split, "classes")
    if root is None:
        raise UsageError("the source text needs a file: text:FILE.")
    path = Path(root).expanduser()
    rows = read_sentences(path, True, text, label)
    sentences = [(row.text, str(row.label)) for row in rows]
    classes = divide(sorted({name for _, name in sentences}), seed, str(path), ("class", "classes"), "label")
    origin = f"sentences of {path.resolve()}, part {part} (classes shuffled with seed {seed})"
    modality = Text(tokenizer, buckets, longest, "", text, label)
    return labelled(sentences, classes[part], set(classes["train"]), modality, origin)
