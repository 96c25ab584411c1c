"""BANKING77: what customers ask their bank, 77 intents of a single domain.

I. Casanueva et al., "Efficient Intent Detection with Dual Sentence Encoders", NLP4ConvAI 2020; CC BY 4.0.
"""

from __future__ import annotations

from pathlib import Path

from rbml.data import store
from rbml.data.examples import Labelled, check_part, check_split
from rbml.data.inputs.text import Text
from rbml.data.inputs.text_files import read_sentences
from rbml.data.sources.intents import FOLDS, fold_classes, labelled
from rbml.data.sources.intents import PROTOCOL as PROTOCOL

_FOLDER = "banking77"
_ORIGIN = (
    "It cannot be downloaded by rbml: take train.csv and test.csv of github.com/PolyAI-LDN/task-specific-datasets (CC "
    "BY 4.0); protaugment_splits.json has the class lists of github.com/tdopierre/ProtAugment."
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
    """BANKING77: questions to a bank, 77 intents, 75 to 227 each (Casanueva et al., 2020).

    The splits ``fold-1`` to ``fold-5`` are those of ProtAugment (Dopierre et al. 2021, arXiv:2105.12995): 25/25/27
    intents; the published train and test files are pooled.

    Args:
        part: ``"train"``, ``"val"`` or ``"test"``: they share no intent.
        root: the folder to look for data in, instead of ``$RBML_DATA``.
        split: one of these; ``None`` for the first.
        seed: not used.
        tokenizer: ``ngrams``, ``words`` or a backbone of text, see :class:`rbml.data.inputs.Text`.
        buckets: how many numbers words and n-grams are hashed into.
        longest: how many ids of a sentence are used; 0 for the tokenizer's usual number.

    Returns:
        The ids of sentences; names are those of the intents.
    """
    check_part(part)
    split = check_split(split, *FOLDS)
    paths = [store.need(f"{_FOLDER}/{name}.csv", root, _ORIGIN) for name in ("train", "test")]
    rows = [row for path in paths for row in read_sentences(path, True, "text", "category")]
    classes = fold_classes(store.need(f"{_FOLDER}/protaugment_splits.json", root, _ORIGIN), split)
    return labelled(
        [(row.text, str(row.label)) for row in rows], classes[part], set(classes["train"]),
        Text(tokenizer, buckets, longest), f"BANKING77, split {split} of ProtAugment, part {part}",
    )  # fmt: skip
