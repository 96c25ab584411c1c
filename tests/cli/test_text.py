"""Sentences at the command line: train, adapt, predict, evaluate and report know no picture."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

VERBS = {
    "arrival": "where is",
    "lost": "i have lost",
    "balance": "how much is on",
    "block": "please stop",
    "pin": "i forgot",
}
TINY = "--ways 2 --shots 2 --queries 2 --meta-steps 3 --tasks 2 --validate-every 2 --validate-tasks 2"
THINGS = ("my card", "the card", "our card", "a card", "that new card", "my old card")


def written(path: Path, verbs: dict[str, str]) -> Path:
    lines = [f"{verb} {thing},{label}" for label, verb in verbs.items() for thing in THINGS]
    path.write_text("\n".join(["text,label", *lines]))
    return path


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from tests.cli.conftest import run_command

    folder = tmp_path_factory.mktemp("text")
    kinds = {f"{name}{number}": f"{verb} {number}" for name, verb in VERBS.items() for number in ("one", "two")}
    data = written(folder / "many.csv", kinds)
    assert (
        run_command("train", f"text:{data}", *TINY.split(), "--run", folder / "run", "--set", "data.buckets=256") == 0
    )
    return folder / "run"


def test_a_bot_from_a_few_sentences(run: Path, rbml: Callable, tmp_path: Path) -> None:
    support = written(tmp_path / "intents.csv", {name: VERBS[name] for name in ("arrival", "lost", "balance")})
    bot = tmp_path / "bot.rbml"
    made = rbml("adapt", run, "--support", support, "--out", bot)
    assert made.code == 0 and "Learned 3 classes from 18 sentences" in made.out and "picture" not in made.out
    found = json.loads(rbml("predict", bot, "where is the money?", "How much is on it", "--json").out)
    assert [one["class"] for one in found] == ["arrival", "balance"]
    assert found[0]["text"] == "where is the money?"
    questions = tmp_path / "questions.txt"
    questions.write_text("i have lost it\n\nwhere is it\n")
    assert [one["class"] for one in json.loads(rbml("predict", bot, questions, "--json").out)] == ["lost", "arrival"]


def test_what_cannot_be_used(run: Path, fails: Callable[..., str], tmp_path: Path) -> None:
    bad = tmp_path / "bad.csv"
    bad.write_text("text,label\nwhere is it,arrival\n,lost\n")
    assert "bad.csv:3 has nothing in the column 'text'" in fails(1, "adapt", run, "--support", bad, "--out", "x")
    assert "'no.csv' does not exist" in fails(1, "adapt", run, "--support", "no.csv", "--out", "x")
    given = ["train", f"text:{run.parent / 'many.csv'}", *TINY.split()]
    assert "does not read sentences: choose --model tfidf" in fails(2, *given, "--model", "mlp")


def test_other_sentences_are_split_as_those_of_the_run(run: Path, rbml: Callable, tmp_path: Path) -> None:
    other = written(tmp_path / "other.csv", VERBS | {"again": "once more", "more": "and then"})
    given = ["evaluate", run, "--tasks", f"text:{other}", "--part", "train", "--episodes", 4, "--baselines"]
    result = rbml(*given)
    assert result.code == 0 and "nearest centroid" in result.out, "other buckets would be other ids"


def test_the_report_shows_sentences(run: Path, rbml: Callable) -> None:
    pytest.importorskip("matplotlib")
    assert rbml("report", run).code == 0
    page = (run / "plots" / "report.md").read_text()
    assert "picture" not in page and "pixel" not in page and "gallery.png" in page
