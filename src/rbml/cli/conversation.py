"""What ``rbml chat`` answers: intents with their probabilities, questions where it is unsure, and what it learns."""

from __future__ import annotations

import re
import time
from dataclasses import dataclass, replace
from difflib import get_close_matches
from typing import TYPE_CHECKING, Literal

from rbml.errors import DataError

if TYPE_CHECKING:
    from rbml.predictor import Predictor

Kind = Literal["intent", "unsure", "unknown", "learned", "told", "refused", "quit"]

SURE = 0.7
"""The probability from which an intent is named without asking back."""

HELP = (
    "Write a sentence: I say what is meant, and how sure I am. If I am wrong: no, that is NAME - I learn it at once; a "
    "new NAME adds an intent. yes confirms what I asked. /teach NAME: SENTENCE teaches another sentence, /intents "
    "lists what I know, /undo takes back what I learned last, /quit ends."
)

_LISTED = 12
_NO = r"(?:no|nope|wrong)\b[\s,.:;!-]*"
_IS = r"(?:(?:that|this|it)(?:['\u2019]s|\s+is|\s+was)|i\s+meant?)\s+"
_NAMES = re.compile(rf"(?P<no>{_NO})?(?P<is>{_IS})?(?P<name>.*?)[.!\s]*", re.IGNORECASE)
_YES = re.compile(r"(?:yes|yep|right|correct|exactly)[.!\s]*", re.IGNORECASE)
_TEACH = re.compile(r"/teach\s+(?P<name>[^:]+?)\s*:\s*(?P<sentence>.+)")


@dataclass(frozen=True)
class Answer:
    """What is said to one line.

    Attributes:
        kind: ``intent``, ``unsure``, ``unknown``, ``learned``, ``told`` (of commands), ``refused``, or ``quit``.
        text: in words, one line.
        intent: that was understood or learned; of ``unsure`` and ``unknown`` the likeliest one.
        probability: of the intent, where one was predicted.
    """

    kind: Kind
    text: str
    intent: str | None = None
    probability: float | None = None


@dataclass(frozen=True)
class Conversation:
    """A conversation so far; :meth:`hear` returns it one line later.

    Args:
        predictor: of sentences, with the examples that it learned from.
        sure: the probability from which it does not ask back.
        said: the last sentence that it was to understand.
        offer: what ``yes`` means: the intent that was named or asked for, or a new one.
        corrected: whether what it learned last was the last sentence, so that another correction replaces it.
        before: the predictors before each thing that was learned.
    """

    predictor: Predictor
    sure: float = SURE
    said: str = ""
    offer: str = ""
    corrected: bool = False
    before: tuple[Predictor, ...] = ()

    def hear(self, line: str) -> tuple[Conversation, Answer]:
        """Return the conversation after a line, and what is said to it."""
        line = " ".join(line.split())
        try:
            if line.startswith("/"):
                return self._command(line)
            if self.offer and _YES.fullmatch(line):
                return self._learn(self.offer, self.said)
            return self._corrected(line) or self._understand(line)
        except DataError as error:
            return self, Answer("refused", str(error))

    def counts(self) -> dict[str, int]:
        """Return how many sentences of each intent are known."""
        known = self.predictor.learned
        assert known is not None and known.file is not None and known.file.kept is not None
        counts = known.file.kept.counts()
        return {name: counts[place] if place < len(counts) else 0 for place, name in enumerate(self.predictor.names)}

    def _understand(self, line: str) -> tuple[Conversation, Answer]:
        (record,) = self.predictor([line]).records
        ranked = sorted(record["probabilities"].items(), key=lambda one: -one[1])
        (name, chance), (other, less) = ranked[:2]
        if record.get("unknown"):
            text = f"I have not understood that; the nearest intent is {name}. Teach me: that is NAME"
            found = Answer("unknown", text, name, chance)
        elif chance < self.sure:
            found = Answer("unsure", f"Do you mean {name} ({chance:.0%}) or {other} ({less:.0%})?", name, chance)
        else:
            found = Answer("intent", f"{name} ({chance:.0%})", name, chance)
        return replace(self, said=line, offer=name, corrected=False), found

    def _corrected(self, line: str) -> tuple[Conversation, Answer] | None:
        """Return what a correction comes to; ``None`` if the line is none."""
        match = _NAMES.fullmatch(line)
        assert match is not None  # every line fits, if only as a name
        explicit, name = bool(match["no"]), match["name"]
        known = self._known(name)
        if not self.said:
            return (self, Answer("refused", "There is no sentence to correct yet.")) if match["no"] and known else None
        if known:
            return self._learn(known, self.said)
        if explicit and not name:
            return replace(self, offer=""), Answer("told", f"What is it then? Say: that is NAME. {self._listed()}")
        if not match["is"] or len(name.split()) > 3:
            return None
        near = get_close_matches(_plain(name), [_plain(one) for one in self.predictor.names], 1, 0.75)
        if explicit and not near and " " not in name:
            return self._learn(name, self.said)
        like = f", but there is {self._known(near[0])}" if near else ""
        return replace(self, offer=name), Answer("told", f"There is no intent {name} yet{like}. Add it? (yes)", name)

    def _learn(self, name: str, sentence: str) -> tuple[Conversation, Answer]:
        began = time.perf_counter()
        again = self.corrected and sentence == self.said
        base = self.before[-1] if again else self.predictor
        better = base.with_examples([sentence], [name])
        before = self.before if again else (*self.before, base)
        after = replace(self, predictor=better, before=before, corrected=again or sentence == self.said, offer="")
        count = after.counts()[name]
        many = "the first sentence" if count == 1 else f"{count} sentences"
        seconds = time.perf_counter() - began
        return after, Answer("learned", f"Learned: that is {name}, {many} of it now ({seconds:.1f} s).", name)

    def _command(self, line: str) -> tuple[Conversation, Answer]:
        if match := _TEACH.fullmatch(line):
            return self._learn(self._known(match["name"]) or match["name"], match["sentence"])
        name = line.split()[0]
        if name == "/teach":
            return self, Answer("refused", "Write the intent, a colon and a sentence, such as /teach card_lost: ...")
        if name == "/intents":
            return self, Answer("told", ", ".join(f"{one} {count}" for one, count in self.counts().items()))
        if name == "/undo":
            if not self.before:
                return self, Answer("refused", "Nothing has been learned yet in this conversation.")
            past = replace(self, predictor=self.before[-1], before=self.before[:-1], corrected=False, offer="")
            return past, Answer("told", self._undone(past.counts()))
        if name == "/quit":
            return self, Answer("quit", "")
        if name == "/help":
            return self, Answer("told", HELP)
        return self, Answer("refused", f"{name} is no command: /help, /intents, /teach, /undo and /quit are.")

    def _undone(self, counts: dict[str, int]) -> str:
        (changed,) = [name for name, count in self.counts().items() if count != counts.get(name, 0)]
        if changed not in counts:
            return f"Undone: there is no intent {changed} any more."
        return f"Undone: {changed} has {counts[changed]} sentences again."

    def _known(self, name: str) -> str:
        """Return the intent that is called so, whether with spaces or underscores; empty if there is none."""
        return {_plain(one): one for one in self.predictor.names}.get(_plain(name), "")

    def _listed(self) -> str:
        names = list(self.predictor.names)
        more = f" and {len(names) - _LISTED} others" if len(names) > _LISTED else ""
        return f"I know {', '.join(names[:_LISTED])}{more}."


def _plain(name: str) -> str:
    """Return a name as it is compared.

    >>> _plain("Card lost") == _plain("card_lost")
    True
    """
    return re.sub(r"[\s_-]+", " ", name).strip().casefold()
