"""Sources of sentences with intents: their parts, and what is said when they are missing."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from rbml import data
from rbml.backbones import tokens
from rbml.data.sources import clinc150
from rbml.errors import DataError, UsageError


@pytest.mark.parametrize(("name", "counts"), [("clinc150", [50, 50, 50]), ("banking77", [25, 25, 27])])
def test_folds_are_those_of_protaugment(name: str, counts: list[int], data_root: Path) -> None:
    parts = {part: data.load(name, part, data_root, "fold-3", tokenizer="words") for part in data.PARTS}
    assert [parts[part].classes for part in data.PARTS] == counts
    split = json.loads((data_root / name / "protaugment_splits.json").read_text())["03"]["labels"]
    assert set(parts["test"].names) == set(split["test"]) and set(parts["val"].names) == set(split["valid"])
    assert len({one.modality.frequencies for one in parts.values()}) == 1, "of the training part"
    assert tokens.unpacked(parts["test"].modality.frequencies)[0] == len(parts["train"].y)
    assert sum(len(one.y) for one in parts.values()) == {"clinc150": 22500, "banking77": 13083}[name]


def test_sentences_have_their_labels(data_root: Path) -> None:
    test = data.load("clinc150", "test", data_root, tokenizer="words")
    raw = json.loads((data_root / "clinc150" / "data_full.json").read_text())
    name = test.names[7]
    rows = (test.y == 7).nonzero().flatten()
    shown = test.modality.show({key: leaf[rows] for key, leaf in test.x.items()}).values
    truth = [text for part in ("train", "val", "test") for text, label in raw[part] if label == name]
    assert [one.removesuffix("…") for one in shown] == [one[: len(seen.removesuffix("…"))]
                                                        for one, seen in zip(truth, shown, strict=True)]  # fmt: skip
    assert torch.equal(test.modality.read(truth)["ids"], test.x["ids"][rows])


def test_whole_domains_are_kept_apart(data_root: Path) -> None:
    parts = [set(data.load("clinc150", part, data_root, "domains", tokenizer="words").names) for part in data.PARTS]
    assert [len(part) for part in parts] == [60, 45, 45] and len(set.union(*parts)) == 150
    assert "balance" in parts[2] and "credit_limit" in parts[2]
    assert len(clinc150.out_of_scope("test", data_root)) == 1000 and len(clinc150.out_of_scope("val", data_root)) == 100


def test_snips_is_for_testing(data_root: Path) -> None:
    test = data.load("snips", "test", data_root, tokenizer="words")
    assert test.classes == 7 and len(test.y) == 14484 and "PlayMusic" in test.names
    with pytest.raises(UsageError, match="snips has no part 'train'"):
        data.load("snips", "train", data_root)


def own(path: Path, classes: int = 6) -> Path:
    lines = [f"say {word} {kind},k{kind}" for kind in range(classes) for word in ("one", "two", "three")]
    path.write_text("\n".join(["utterance,intent", *lines]))
    return path


def test_a_file_of_ones_own(tmp_path: Path) -> None:
    path = own(tmp_path / "mine.csv")
    parts = [data.load(f"text:{path}", part) for part in data.PARTS]
    assert [part.classes for part in parts] == [4, 1, 1] and {len(part.y) for part in parts} == {12, 3}
    assert len({name for part in parts for name in part.names}) == 6
    named = data.load(f"text:{path}", "train", text="intent", label="utterance")
    assert named.classes > 6 and named.modality.text == "intent"
    with pytest.raises(
        DataError, match=r"has 4 classes, but at least 5 are needed .* is the label column the right one"
    ):
        data.load(f"text:{own(path, 4)}", "train")
    with pytest.raises(UsageError, match="text:FILE"):
        data.load("text", "train")


@pytest.mark.parametrize("name", ["clinc150", "banking77", "snips"])
def test_where_it_comes_from_is_said_when_it_is_missing(name: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"cannot be downloaded.*github.com.*--data-root"):
        data.load(name, "test", tmp_path)


def test_damaged_files_are_named(tmp_path: Path) -> None:
    (tmp_path / "clinc150").mkdir()
    whole = tmp_path / "clinc150" / "data_full.json"
    whole.write_text("{")
    with pytest.raises(DataError, match=r"data_full.json cannot be read"):
        data.load("clinc150", "train", tmp_path)
    whole.write_text(json.dumps({"train": [["a", "x"]], "val": [], "test": []}))
    (tmp_path / "clinc150" / "protaugment_splits.json").write_text(json.dumps({"01": {"labels": {"train": ["y"]}}}))
    with pytest.raises(DataError, match=r"protaugment_splits.json cannot be read as a class split"):
        data.load("clinc150", "train", tmp_path)
