"""CLINC150: what people ask of a voice assistant, 150 intents in 10 domains, and sentences that are none of them.

S. Larson et al., "An Evaluation Dataset for Intent Classification and Out-of-Scope Prediction", EMNLP 2019; CC BY 3.0.
"""

from __future__ import annotations

from pathlib import Path

from rbml.data import store
from rbml.data.examples import Labelled, check_part, check_split
from rbml.data.inputs.text import Text
from rbml.data.sources.intents import FOLDS, fold_classes, labelled, read_json
from rbml.data.sources.intents import PROTOCOL as PROTOCOL

_FOLDER = "clinc150"
_ORIGIN = (
    "It cannot be downloaded by rbml: take data_full.json and domains.json of github.com/clinc/oos-eval (CC BY 3.0); "
    "protaugment_splits.json has the class lists of github.com/tdopierre/ProtAugment."
)

DOMAINS = {
    "train": ("home", "kitchen_and_dining", "meta", "small_talk"),
    "val": ("auto_and_commute", "travel", "utility"),
    "test": ("banking", "credit_cards", "work"),
}
"""The split ``domains``: 60, 45 and 45 intents; the two domains that are close to BANKING77 are both in the test."""


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
    """CLINC150: requests to an assistant, 150 intents of 150 sentences (Larson et al., 2019).

    The splits ``fold-1`` to ``fold-5`` are those of ProtAugment (Dopierre et al. 2021, arXiv:2105.12995): 50/50/50
    intents of all domains. ``domains`` keeps whole domains apart: see :data:`DOMAINS`.

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
    split = check_split(split, *FOLDS, "domains")
    path = _need("data_full.json", root)
    sentences = [(str(text), str(name)) for key in ("train", "val", "test") for text, name in read_json(path, key)]
    if split == "domains":
        domains = read_json(_need("domains.json", root))
        classes = {key: sorted(name for domain in DOMAINS[key] for name in domains[domain]) for key in DOMAINS}
        what = f"split domains, part {part} ({', '.join(DOMAINS[part])})"
    else:
        classes = fold_classes(_need("protaugment_splits.json", root), split)
        what = f"split {split} of ProtAugment, part {part}"
    modality = Text(tokenizer, buckets, longest)
    return labelled(sentences, classes[part], set(classes["train"]), modality, f"CLINC150, {what}")


def out_of_scope(part: str = "test", root: str | Path | None = None) -> list[str]:
    """Return the sentences that are none of the 150 intents: 100, 100 and 1000 of train, val and test.

    Args:
        part: ``"train"``, ``"val"`` or ``"test"``.
        root: the folder to look for data in, instead of ``$RBML_DATA``.

    Raises:
        UsageError: for a part that does not exist.
        DataError: if the data is not there.
    """
    check_part(part)
    return [str(text) for text, _ in read_json(_need("data_full.json", root), f"oos_{part}")]


def _need(name: str, root: str | Path | None) -> Path:
    return store.need(f"{_FOLDER}/{name}", root, _ORIGIN)
