"""Help by topic: the options to begin with first, then the others under a heading for each topic."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import click

FIRST = "Options to begin with"
OTHERS = "Other options"
COMPUTED = "How it is computed"

_COMPUTING = ("threads", "device", "precision")

Topics = Mapping[str, Sequence[str]]
"""By heading, the names of options (those of the function's arguments)."""


class TopicCommand(click.Command):
    """A command whose help has a heading for each topic.

    Args:
        topics: which options stand under which heading, in the order of the help; the rest is under :data:`OTHERS`, and
            what commands that compute have in common under :data:`COMPUTED`.
    """

    def __init__(self, *args: Any, topics: Topics, **extra: Any) -> None:
        """Remember the topics."""
        super().__init__(*args, **extra)
        self.topics = topics

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the sections."""
        write_topics(self, ctx, formatter, self.topics)


def write_topics(
    command: click.Command, ctx: click.Context, formatter: click.HelpFormatter, topics: Topics, rest: str = OTHERS
) -> None:
    """Write the options of a command under the heading of their topic, in the order in which a topic names them."""
    records = {}
    for parameter in command.get_params(ctx):
        record = parameter.get_help_record(ctx) if isinstance(parameter, click.Option) else None
        if record is not None:
            records[parameter.name or ""] = record
    placed = {name for names in topics.values() for name in names} | set(_COMPUTING)
    sections = {title: [name for name in names if name in records] for title, names in topics.items()}
    computing = [name for name in _COMPUTING if name in records]
    sections.setdefault(rest, [])
    sections[rest] += [name for name in records if name not in placed]
    sections[COMPUTED] = computing
    for title, names in sections.items():
        if names:
            with formatter.section(title):
                formatter.write_dl([records[name] for name in names])
