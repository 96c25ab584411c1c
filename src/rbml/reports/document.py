"""A report as data, and its two forms: Markdown with pictures beside it, and one HTML file that holds everything."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from rbml.data.extras import require

TEMPLATE = "report.html.jinja"


@dataclass(frozen=True)
class Picture:
    """A figure in every form that a report needs.

    Attributes:
        name: the name of its file, without the ending.
        png: for the page in Markdown.
        wide: for a page on a screen, SVG.
        narrow: for a page on a telephone, SVG.
    """

    name: str
    png: bytes
    wide: bytes
    narrow: bytes


@dataclass(frozen=True)
class Part:
    """One section of a report: its title, its text in Markdown, and perhaps a picture below it."""

    title: str
    text: str
    picture: Picture | None = None


@dataclass(frozen=True)
class Report:
    """A report: its title, an introduction in Markdown, and its sections."""

    title: str
    head: str
    parts: Sequence[Part]


def as_markdown(report: Report) -> str:
    """Return the report as Markdown that shows the pictures in the files ``NAME.png``."""
    lines = [f"# {report.title}\n", report.head]
    for part in report.parts:
        lines += [f"\n## {part.title}\n", part.text]
        lines += [f"![{part.title}]({part.picture.name}.png)\n"] if part.picture else []
    return "\n".join(line for line in lines if line)


def as_html(report: Report) -> str:
    """Return the report as one HTML file without links to other files and without scripts.

    Raises:
        UsageError: if Jinja2 or markdown-it-py is not installed.
    """
    jinja2 = require("jinja2", "report", "writing a report")
    loader = jinja2.FileSystemLoader(Path(__file__).parent)
    environment = jinja2.Environment(loader=loader, autoescape=True, trim_blocks=True, lstrip_blocks=True)
    environment.filters |= {"markdown": lambda text: _safe(_markdown().render(text)), "uri": _uri}
    page: str = environment.get_template(TEMPLATE).render(report=report)
    return page


def _safe(text: str) -> Any:
    """Mark HTML that was made here as safe: a template writes it as it is."""
    return require("markupsafe", "report", "writing a report").Markup(text)


@cache
def _markdown() -> Any:
    """Return the renderer: without HTML in the text (names of classes may be anything), and with tables that scroll."""
    module = require("markdown_it", "report", "writing a report")
    renderer = module.MarkdownIt("commonmark", {"html": False}).enable("table")
    before, after = '<div class="scroll" tabindex="0" role="region" aria-label="table"><table>\n', "</table></div>\n"
    renderer.add_render_rule("table_open", lambda *_: before)
    renderer.add_render_rule("table_close", lambda *_: after)
    return renderer


def _uri(svg: bytes) -> str:
    return f"data:image/svg+xml;base64,{base64.b64encode(svg).decode()}"
