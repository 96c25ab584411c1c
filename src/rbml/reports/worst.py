"""A page of the pictures whose labels are probably wrong, the worst first."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from rbml.data.inputs import Shown
from rbml.reports import cells, style
from rbml.reports.document import Part, Picture, Report, as_html

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_ROW, _INCH = 1.35, 1.15
"""Pitch of the rows in cells, and the width of a cell in inches."""


def worst_page(title: str, head: str, shown: Shown, captions: Sequence[tuple[str, str]]) -> bytes:
    """Return a page of pictures as one HTML file.

    Args:
        title: of the page.
        head: an introduction in Markdown.
        shown: the pictures, the worst first.
        captions: of each picture the label and the label suggested.

    Raises:
        UsageError: if matplotlib, Jinja2 or markdown-it-py is not installed.
    """
    wide, narrow = _figure(shown, captions, 8), _figure(shown, captions, 3)
    picture = Picture("worst", style.png(wide), style.svg(wide), style.svg(narrow))
    text = "Below each picture: its rank, its label, and the label suggested."
    return as_html(Report(title, head, [Part("The pictures", text, picture)])).encode()


def _figure(shown: Shown, captions: Sequence[tuple[str, str]], columns: int) -> Figure:
    rows = -(-len(captions) // columns)
    wide, tall = columns * _INCH, rows * _ROW * _INCH + 0.55
    figure = style.new_figure(wide, tall, "Labels that are probably wrong", arrange=False)
    axes = figure.add_axes((0, 0, 1, rows * _ROW * _INCH / tall))
    axes.set(xlim=(0, columns), ylim=(rows * _ROW, 0), aspect="equal")
    axes.axis("off")
    look = cells.Look.of([shown])
    for place, (value, (label, suggested)) in enumerate(zip(shown.values, captions, strict=True)):
        left, top = place % columns, place // columns * _ROW
        cells.draw(axes, shown.kind, value, left, top, style.FAINT, 0.8, look)
        text = f"{place + 1}  {_cut(label)}\n→ {_cut(suggested)}"
        axes.text(left + 0.5, top + 1.0, text, ha="center", va="top", fontsize=6.8, color=style.INK, linespacing=1.15)
    return figure


def _cut(name: str, letters: int = 18) -> str:
    """Return a name that fits below a picture; names of classes are often one long word."""
    return name if len(name) <= letters else f"{name[: letters - 1]}…"
