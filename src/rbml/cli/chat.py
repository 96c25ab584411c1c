"""``rbml chat``."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click

from rbml.cli.predict import unknown_options
from rbml.cli.topics import FIRST, TopicCommand
from rbml.errors import CheckpointError, UsageError

if TYPE_CHECKING:
    from rbml.predictor import Predictor


@click.command("chat", cls=TopicCommand, topics={FIRST: ("sure", "as_json", "unknown_rate", "no_unknown")})
@click.argument("file", type=click.Path(path_type=Path))
@click.option(
    "--sure",
    type=click.FloatRange(0, 1),
    default=0.7,
    show_default=True,
    metavar="P",
    help="The probability from which an intent is named without asking back.",
)
@click.option("--json", "as_json", is_flag=True, help="Answer in JSON, one object per line.")
@unknown_options
def command(file: Path, sure: float, as_json: bool, unknown_rate: float, no_unknown: bool) -> None:
    """Talk to FILE, which `rbml adapt` made from sentences: it names what is meant, and learns from corrections.

    It asks back where it is unsure, and says so where it has not understood. It takes a correction such as
    `no, that is card_lost`, also with a new name, learns it at once, and saves FILE. From a pipe it reads one
    sentence per line and writes one answer per line. `/help` lists what else can be said.

    \b
    rbml adapt backbone:minilm --support intents.csv --out bot.rbml
    rbml chat bot.rbml
    rbml chat bot.rbml < questions.txt
    """  # noqa: D301  \b is click's
    from rbml.cli.conversation import Conversation
    from rbml.cli.devices import chosen_device
    from rbml.predictor import Predictor
    from rbml.training.adapted_file import save_adapted

    predictor = Predictor.load(file, None if no_unknown else unknown_rate, chosen_device())
    _check(predictor, file)
    now = Conversation(predictor, sure)
    terminal = sys.stdin.isatty()
    if terminal:
        click.echo(f"{file} knows {len(predictor.names)} intents: /intents lists them, /help says what you can say.")
    for line in _lines(terminal):
        later, answer = now.hear(line)
        if answer.kind == "quit":
            break
        # Before the answer: whoever reads that something was learned finds it in the file.
        if later.predictor is not now.predictor:
            assert later.predictor.learned is not None and later.predictor.learned.file is not None
            save_adapted(file, *later.predictor.learned.file)
        now = later
        click.echo(json.dumps(vars(answer)) if as_json else answer.text)
        sys.stdout.flush()


def _check(predictor: Predictor, file: Path) -> None:
    from rbml.training.concerns import plain

    kind = plain(predictor.modality).kind
    if kind != "text" or predictor.target.kind != "classes":
        what = f"{kind} with {predictor.target.kind}"
        raise UsageError(f"{file} was made from {what}, but one talks to what was made from sentences with labels")
    if predictor.learned is None:
        raise CheckpointError(f"{file} does not hold its examples: make it again from its run with rbml adapt")


def _lines(terminal: bool) -> Iterator[str]:
    """Yield what the user writes, until the end; on a terminal with a prompt, and with the keys that edit a line."""
    if terminal:
        import readline  # noqa: F401  input() then knows the arrow keys

    while True:
        try:
            line = input("> ") if terminal else sys.stdin.readline()
        except (EOFError, KeyboardInterrupt):
            click.echo()
            return
        if not terminal and not line:
            return
        if line.strip():
            yield line
