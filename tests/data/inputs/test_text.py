"""Sentences: their ids, what is kept of them, and the files that they are found in, with every error's line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from rbml.backbones import tokens
from rbml.data.inputs import Text
from rbml.errors import DataError, UsageError

GOOD = 'text,label\nwhere is it?,arrival\n"it is gone,\nreally",lost\n\nstolen,lost\n'


def test_ngrams_of_a_word_have_ranges_of_their_own() -> None:
    ids, size = tokens.ngram_ids("My", 41), 10
    assert [(one - 1) // size for one in ids] == [0, 1, 1, 1, 2, 2, 3], "a word; ' m', 'my', 'y '; ' my', 'my '; ' my '"
    assert tokens.ngram_ids("my", 41) == ids, "case says nothing"


def test_ids_are_trimmed_together_and_zero_is_padding() -> None:
    text = Text("words", longest=20)
    stored = text.read(["a b c", " ".join("abcdefghi"), "x " * 50])
    assert stored["ids"].shape == (3, 20) and (stored["ids"] > 0).sum(1).tolist() == [3, 9, 20]
    assert text.ready({name: leaf[:2] for name, leaf in stored.items()})["ids"].shape == (2, 16)
    stacked = {name: leaf[[0, 1, 1, 0]].reshape(2, 2, -1) for name, leaf in stored.items()}
    assert text.ready(stacked)["ids"].shape == (2, 2, 16)
    assert text.ready(stored)["ids"].dtype == torch.int64


def test_the_beginning_of_a_sentence_is_kept_to_be_shown() -> None:
    text = Text("words", 8)
    shown = text.show(text.read(["Where is Zoë?", "é" * 150, "ok"]))
    assert shown.kind == "text" and list(shown.values) == ["Where is Zoë?", "é" * 100 + "…", "ok"]


def test_frequencies_are_saved_with_it() -> None:
    text = Text("words", 64).fitted(["my card", "my balance", "hello"])
    counts = tokens.unpacked(text.frequencies)
    assert counts[0] == 3 and counts[tokens.word_ids("my", 64)[0]] == 2
    assert Text(**json.loads(json.dumps(text.spec()))) == text
    with pytest.raises(UsageError, match="damaged"):
        tokens.unpacked("nothing")


def test_what_cannot_be_read() -> None:
    with pytest.raises(DataError, match="text 2 is '  ', which has no words"):
        Text().read(["yes", "  "])
    with pytest.raises(DataError, match="text 1 is of the type int"):
        Text().read([3])
    with pytest.raises(UsageError, match="buckets must be above 4, not 2"):
        Text(buckets=2)
    with pytest.raises(UsageError, match="tokenizer named 'wrds': did you mean"):
        Text("wrds").read(["a"])


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.csv", GOOD),
        ("a.csv", GOOD.replace("text,label", "Nr;text;intent".replace("Nr;", "")).replace(",arr", ";arr")
         .replace(",lost", ";lost")),
        ("a.tsv", 'query\tclass\nwhere is it?\tarrival\n"it is gone,\nreally"\tlost\nstolen\tlost\n'),
        ("a.jsonl", '{"text": "where is it?", "label": "arrival", "n": 1}\n\n'
         '{"text": "it is gone,\\nreally", "label": "lost"}\n{"text": "stolen", "label": "lost"}'),
    ],
)  # fmt: skip
def test_files_with_labels(tmp_path: Path, name: str, content: str) -> None:
    path = tmp_path / name
    path.write_text(content, encoding="utf-8-sig")
    found = Text().find([path], labelled=True)
    assert found.raw == ["where is it?", "it is gone,\nreally", "stolen"]
    assert found.labels == ["arrival", "lost", "lost"]


def test_what_is_no_file_is_a_sentence(tmp_path: Path) -> None:
    lines = tmp_path / "lines.txt"
    lines.write_text("first\n\nsecond line\n")
    unlabelled = tmp_path / "a.csv"
    unlabelled.write_text("id,utterance\n1,third\n")
    found = Text().find([lines, "where is a/b?", unlabelled], labelled=False)
    assert found.raw == ["first", "second line", "where is a/b?", "third"] and found.labels is None
    assert found.names == found.raw
    with pytest.raises(DataError, match=r"'bot.csv' does not exist"):
        Text().find(["bot.csv"], labelled=False)


def test_columns_can_be_named(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("label,said,what\n1,hello,greeting\n2,bye,parting\n")
    assert Text(text="said", label="what").find([path], True).labels == ["greeting", "parting"]
    with pytest.raises(
        DataError, match=r"a.csv:2 has no column 'text' \(or sentence, utterance, query\): it has label"
    ):
        Text().find([path], True)
    with pytest.raises(DataError, match=r"a.csv:2 has no column 'says'"):
        Text(text="says").find([path], True)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.csv", b"text,label\na,b\n ,c\n", r"a.csv:3 has nothing in the column 'text': write a text"),
        ("a.csv", b"text,label\na,\n", r"a.csv:2 has nothing in the column 'label': write a label"),
        ("a.csv", b"text,label\na,b\nmy card, please,c\n", r"a.csv:3 has 3 cells, but the header has 2: put a text"),
        ("a.csv", b"text,text\na,b\n", r"a.csv:1 names the column 'text' twice"),
        ("a.csv", b"text,label\nok,b\ncaf\xe9,b\n", r"a.csv:3 is not in UTF-8 \(byte 0xe9\)"),
        ("a.csv", "text,label\n".encode("utf-16"), r"is in UTF-16: save it in UTF-8"),
        ("a.csv", b"text,label\n", "has no sentences in it"),
        ("a.csv", b"", "has no sentences in it"),
        ("a.csv", b'text,label\na,b\n"' + b"x y\n" * 5000 + b'",c\n', r"a.csv:3 has a text of \d+ characters"),
        ("a.csv", b'text,label\na,b\n"' + b"x y\n" * 50000 + b'",c\n', r"a.csv:3 cannot be read .*quotation mark"),
        ("a.jsonl", b'{"text": "a", "label": "b"}\n{"text": \n', r"a.jsonl:2 is not JSON"),
        ("a.jsonl", b'["a", "b"]\n', r"a.jsonl:1 is \[\"a\", \"b\"\]: expected an object"),
        ("a.jsonl", b'{"text": ["a"], "label": "b"}\n', r"a.jsonl:1 has \[\"a\"\] in the column 'text'"),
        ("a.txt", b"a\n", r"cannot have labels: expected a file that ends in .csv"),
    ],
)  # fmt: skip
def test_lines_that_cannot_be_used_are_named(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=message):
        Text().find([tmp_path / name], labelled=True)


def test_places_that_are_no_files(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="is a folder"):
        Text().find([tmp_path], labelled=True)
    with pytest.raises(DataError, match="does not exist"):
        Text().find([tmp_path / "no.csv"], labelled=True)
    with pytest.raises(DataError, match="nothing was named"):
        Text().find([], labelled=False)
