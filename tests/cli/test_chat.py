"""``rbml chat``: what it answers from a pipe and on a real terminal, and that what it learns is in the file."""

from __future__ import annotations

import io
import json
import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from rbml.cli.conversation import Conversation
from rbml.data.batch import Batch
from rbml.data.inputs import Text
from rbml.data.setting import Setting
from rbml.data.targets import CLASSES
from rbml.predictor import Predictor
from rbml.recipe import Recipe, build
from rbml.training import adapting
from rbml.training.learned import Learned

SENTENCES = {
    "arrival": ["where is my card", "where is the card", "when does the card arrive", "is my card on its way"],
    "lost": ["i have lost my purse", "my purse is lost", "i lost it somewhere", "somebody found my lost purse"],
    "pin": ["i forgot the code", "what is the secret code", "set a new code", "change the code please"],
}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file of an adapted model that compares words, without any training; read only."""
    recipe = Recipe.of(model="tfidf", algorithm="ridge_cv", ways=3, model_options={"vocabulary": 4096})
    modality = Text("words", buckets=4096)
    setting = Setting(modality, CLASSES, 3)
    learned = Learned(build.learner(recipe, setting), recipe, setting, "words")
    texts = [text for some in SENTENCES.values() for text in some]
    labels = [name for name, some in SENTENCES.items() for _ in some]
    y, names = CLASSES.read(labels)
    path = tmp_path_factory.mktemp("bots") / "bot.rbml"
    adapting.adapt(learned, Batch(modality.read(texts), y), names).save(path)
    return path


@pytest.fixture
def bot(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copy(made, tmp_path / "bot.rbml"))


def heard(start: Conversation, *lines: str) -> tuple[Conversation, list[str]]:
    """Return the conversation after some lines, and the answers: their kinds and intents."""
    now, found = start, []
    for line in lines:
        now, answer = now.hear(line)
        found.append(f"{answer.kind} {answer.intent}" if answer.intent else answer.kind)
    return now, found


@pytest.fixture
def start(made: Path) -> Conversation:
    return Conversation(Predictor.load(made, None), sure=0.4)


def test_it_learns_from_corrections(start: Conversation) -> None:
    now, found = heard(start, "where is my card", "my parcel", "no, that is Arrival.", "my parcel")
    assert found[0] == "intent arrival" and found[2:] == ["learned arrival", "intent arrival"]
    assert now.counts() == {"arrival": 5, "lost": 4, "pin": 4}
    assert start.counts()["arrival"] == 4, "the conversation before is as it was"


def test_a_second_correction_replaces_the_first_and_undo_takes_it_back(start: Conversation) -> None:
    now, found = heard(start, "my parcel", "no, that is pin", "no, i meant lost")
    assert found[1:] == ["learned pin", "learned lost"] and now.counts() == {"arrival": 4, "lost": 5, "pin": 4}
    now, answer = now.hear("/undo")
    assert answer.text == "Undone: lost has 4 sentences again."
    assert now.counts() == start.counts() and heard(now, "/undo")[1] == ["refused"]


def test_new_intents(start: Conversation) -> None:
    now, found = heard(start, "tell me a joke", "no, that is joke", "another joke", "/teach hours: when do you open?")
    assert found[1:] == ["learned joke", "intent joke", "learned hours"]
    assert now.counts() == {"arrival": 4, "lost": 4, "pin": 4, "joke": 1, "hours": 1}
    assert now.hear("/undo")[1].text == "Undone: there is no intent hours any more."


def test_a_name_that_may_be_a_mistake_is_asked_for(start: Conversation) -> None:
    now, answer = heard(start, "my parcel")[0].hear("no, that is arival")
    assert answer.text == "There is no intent arival yet, but there is arrival. Add it? (yes)"
    assert now.counts() == start.counts()
    assert heard(now, "no, that is arrival")[1] == ["learned arrival"]
    assert heard(now, "yes")[1] == ["learned arival"]


def test_what_begins_like_a_correction_may_be_a_sentence(start: Conversation) -> None:
    assert heard(start, "my parcel", "no card has arrived, where is my card")[1][1] == "intent arrival"
    assert heard(start, "no, that is pin")[1] == ["refused"], "there is nothing to correct"
    assert heard(start, "yes")[1] != ["learned"]


def test_it_asks_back_and_says_what_it_does_not_understand(made: Path) -> None:
    unsure = Conversation(Predictor.load(made, None), sure=1.0)
    now, answer = unsure.hear("where is my purse")
    assert answer.kind == "unsure" and answer.text.startswith("Do you mean ") and answer.text.endswith("%)?")
    assert answer.intent is not None and heard(now, "yes")[1] == [f"learned {answer.intent}"]
    now, answer = now.hear("no")
    assert answer.text == "What is it then? Say: that is NAME. I know arrival, lost, pin."
    assert heard(now, "that is pin")[1] == ["learned pin"]
    strict = Conversation(Predictor.load(made, 0.4), sure=0.4)
    assert heard(strict, "tell me a joke")[1][0].startswith("unknown ")


def piped(rbml: Callable, monkeypatch: pytest.MonkeyPatch, text: str, *arguments: object) -> list[str]:
    monkeypatch.setattr(sys, "stdin", io.StringIO(text))
    result = rbml("chat", *arguments)
    assert (result.code, result.err) == (0, "")
    lines: list[str] = result.out.splitlines()
    return lines


def test_from_a_pipe(bot: Path, rbml: Callable, monkeypatch: pytest.MonkeyPatch) -> None:
    said = ("where is my card", "", "tell me a joke", "no, that is joke", "/intents", "/nothing", "/teach joke")
    text = "\n".join([*said, "/quit", "where is my card", ""])
    found = piped(rbml, monkeypatch, text, bot, "--no-unknown", "--sure", 0.4)
    assert len(found) == 6 and found[0].startswith("arrival (") and found[0].endswith("%)")
    assert found[2].startswith("Learned: that is joke, the first sentence of it now (")
    assert found[3] == "arrival 4, lost 4, pin 4, joke 1"
    assert found[4] == "/nothing is no command: /help, /intents, /teach, /undo and /quit are."
    assert found[5].startswith("Write the intent, a colon and a sentence")
    again = piped(rbml, monkeypatch, "/intents\nany joke", bot, "--json", "--no-unknown")
    assert [json.loads(line)["intent"] for line in again] == [None, "joke"], "it is in the file"


def test_files_of_something_else(trained: Path, fails: Callable[..., str], pictures: Path, rbml: Callable) -> None:
    few = pictures / "class 0"
    assert few.is_dir()
    assert rbml("adapt", trained, "--support", pictures, "--out", "p.rbml", "--no-estimate").code == 0
    line = fails(2, "chat", "p.rbml")
    assert (
        line == "rbml: p.rbml was made from pictures with classes, but one talks to what was made from sentences "
        "with labels"
    )


def test_on_a_terminal(bot: Path) -> None:
    pexpect = pytest.importorskip("pexpect")
    if os.name == "nt":
        pytest.skip("pexpect has no terminal there")
    command = f"-m rbml.cli chat {bot} --sure 0.4 --unknown-rate 1%"
    with pexpect.spawn(sys.executable, command.split(), timeout=60, encoding="utf-8", dimensions=(24, 160)) as talk:
        talk.expect("knows 3 intents: /intents lists them, /help says what you can say.")
        talk.expect("> ")
        for line, answer in (
            ("where is my card", r"arrival \(\d+%\)"),
            ("tell me a joke", r"\d+%|not understood"),
            ("no, that is joke", r"Learned: that is joke, the first sentence of it now"),
            ("another joke", r"joke \(\d+%\)"),
        ):
            talk.sendline(line)
            talk.expect(answer)
            talk.expect("> ")
        talk.sendeof()
        talk.expect(pexpect.EOF)
        talk.close()
        assert talk.exitstatus == 0
    assert Predictor.load(bot).names == ["arrival", "lost", "pin", "joke"]
