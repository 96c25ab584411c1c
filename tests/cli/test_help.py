"""The help of commands is for somebody who has read no paper: what to begin with comes first, each with an example."""

from __future__ import annotations

import re
from collections.abc import Callable

import click
import pytest

from rbml.cli.main import COMMANDS, cli
from rbml.cli.topics import FIRST, OTHERS, TopicCommand

SHORT = 5
"""Up to so many options need no topics."""


def command(name: str) -> click.Command:
    found = cli.get_command(click.Context(cli), name)
    assert found is not None
    return found


@pytest.mark.parametrize("name", COMMANDS)
def test_many_options_are_shown_by_topic_and_five_to_begin_with_come_first(name: str, rbml: Callable) -> None:
    options = [one for one in command(name).params if isinstance(one, click.Option)]
    text = rbml(name, "--help").out
    if len(options) <= SHORT:
        return
    headings = re.findall(r"^(\S.*):$", text, re.MULTILINE)
    assert headings[0] == FIRST and len(headings) > 2
    first = text[text.index(f"{FIRST}:") : text.index(f"\n{headings[1]}:")]
    assert 3 <= len(re.findall(r"^  --", first, re.MULTILINE)) <= SHORT
    for option in options:
        assert sum(option.opts[0] in line.split() for line in text.splitlines() if line.startswith("  -")) == 1, option


@pytest.mark.parametrize("name", [name for name in COMMANDS if name != "demo"])
def test_every_command_has_an_example(name: str, rbml: Callable) -> None:
    assert re.search(rf"^  rbml {name} \S", rbml(name, "--help").out, re.MULTILINE)


def test_topics_name_options_that_exist() -> None:
    for name in COMMANDS:
        one = command(name)
        if isinstance(one, TopicCommand):
            placed = [option for names in one.topics.values() for option in names]
            assert len(placed) == len(set(placed))
            assert set(placed) <= {parameter.name for parameter in one.params}


def test_an_option_without_a_topic_is_under_others() -> None:
    parameters = [click.Option(["--a"], help="A."), click.Option(["--b"], help="B.")]
    one = TopicCommand("one", params=parameters, topics={FIRST: ["b"]})
    text = one.get_help(click.Context(one))
    assert text.index(f"{FIRST}:") < text.index("--b") < text.index(f"{OTHERS}:") < text.index("--a")
