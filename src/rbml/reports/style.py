"""One look for all figures: palette, sizes, and how a figure becomes a file. Nothing global is set."""

from __future__ import annotations

from collections.abc import Iterable
from io import BytesIO
from textwrap import wrap
from typing import TYPE_CHECKING, Any

from rbml.data.extras import require

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe and Ito (2008): colour-blind readers can distinguish these, too.
BLUE, RED, GREEN, PURPLE = "#0072B2", "#D55E00", "#009E73", "#CC79A7"
INK, MUTED, FAINT, GRID = "#262626", "#767676", "#C9CCD1", "#ECEDEF"
RIGHT, WRONG = BLUE, RED
START, LEARNED = "#9AA0A6", BLUE

TITLE, LABEL, SMALL = 10.0, 8.5, 7.5
"""Font sizes in points."""

DPI = 150

NARROW = 3.75
"""The width of a figure for a telephone, in inches: 360 pixels of a page, on which its text keeps its size."""

_LETTERS = {TITLE: 12.5, LABEL: 15.5}
"""How many letters of a size fit into an inch."""


def new_figure(width: float, height: float, title: str, subtitle: str = "", arrange: bool = True) -> Figure:
    """Return an empty figure, ``width`` by ``height`` inches, with its title on the left.

    With ``arrange`` matplotlib makes room for titles and labels; without it, the caller places the panels.
    """
    module = require("matplotlib.figure", "report", "drawing a report")
    figure: Figure = module.Figure(figsize=(width, height), dpi=DPI, facecolor="white")
    if arrange:
        figure.set_layout_engine("constrained", w_pad=0.08, h_pad=0.08, hspace=0.04, wspace=0.04)
    require("matplotlib.backends.backend_agg", "report", "drawing a report").FigureCanvasAgg(figure)
    title, subtitle = (
        "\n".join(wrap(text, int((width - 0.2) * _LETTERS[size]))) for text, size in ((title, TITLE), (subtitle, LABEL))
    )
    room = "\n" * len(subtitle.splitlines())
    look: dict[str, Any] = {"ha": "left", "fontsize": TITLE, "color": INK, "fontweight": "bold", "linespacing": 1.3}
    place = {} if arrange else {"y": 1 - 0.1 / height}
    head = figure.suptitle(title + room, x=0.1 / width, **look, **place)
    if subtitle:
        text = require("matplotlib.text", "report", "drawing a report")
        figure.add_artist(text.Annotation(subtitle, (0, 0), xycoords=head, va="bottom", fontsize=LABEL, color=MUTED,
                                           linespacing=1.45))  # fmt: skip
    return figure


def dress(axes: Axes, title: str = "", x: str = "", y: str = "", grid: str = "both") -> None:
    """Give a panel its title, its labels with units, a light grid (``"x"``, ``"y"``, ``"both"``, none) and no frame."""
    if title:
        axes.set_title(title, loc="left", fontsize=LABEL, color=INK, fontweight="bold")
    axes.set_xlabel(x, fontsize=LABEL, color=INK)
    axes.set_ylabel(y, fontsize=LABEL, color=INK)
    axes.tick_params(labelsize=SMALL, labelcolor=INK, color=FAINT, length=3, which="major")
    axes.tick_params(length=0, which="minor", labelsize=SMALL, labelcolor=INK)
    for side, spine in axes.spines.items():
        spine.set_visible(side in ("left", "bottom"))
        spine.set_color(FAINT)
    axes.set_axisbelow(True)
    if grid:
        axes.grid(True, axis=grid, color=GRID, linewidth=0.8)  # type: ignore[arg-type]


def legend(figure: Figure, handles: Iterable[Any], columns: int = 4) -> None:
    """Put a legend without a frame below all panels, where it covers nothing."""
    entries = list(handles)
    figure.legend(
        handles=entries,
        loc="outside lower center",
        ncols=min(columns, len(entries)),
        frameon=False,
        fontsize=SMALL,
        labelcolor=INK,
        handlelength=1.6,
        columnspacing=1.6,
    )


def axis_label(name: str, unit: str) -> str:
    """Return the label of an axis of a metric on queries; shares have their % at the ticks.

    >>> axis_label("accuracy", "%"), axis_label("MAE", "points")
    ('query accuracy', 'query MAE (points)')
    """
    return f"query {name}" + (f" ({unit})" if unit not in ("", "%") else "")


def in_unit(axes: Axes, unit: str) -> None:
    """Write the numbers of the y axis in a unit: shares as per cent, others as they are."""
    if unit == "%":
        axes.yaxis.set_major_formatter(lambda share, place: f"{100 * share:.4g} %")


def whole_numbers(axis: Any) -> None:
    """Put ticks at whole numbers only, in thousands separated by a thin space."""
    ticker = require("matplotlib.ticker", "report", "drawing a report")
    axis.set_major_locator(ticker.MaxNLocator(nbins="auto", steps=[1, 2, 5, 10], integer=True))
    axis.set_major_formatter(lambda value, place: count(value))


def count(number: float) -> str:
    """Return a count with thin spaces between the thousands.

    >>> count(64000).replace(chr(0x2009), "_")
    '64_000'
    """
    return f"{round(number):,}".replace(",", "\u2009")


def png(figure: Figure) -> bytes:
    """Return the figure as a PNG file."""
    buffer = BytesIO()
    figure.savefig(buffer, format="png", dpi=DPI, facecolor="white")
    return buffer.getvalue()


def svg(figure: Figure) -> bytes:
    """Return the figure as an SVG file whose text is drawn as paths: it needs no fonts."""
    buffer = BytesIO()
    with require("matplotlib", "report", "drawing a report").rc_context({"svg.hashsalt": "rbml"}):
        figure.savefig(buffer, format="svg", facecolor="white", metadata={"Date": None})
    return buffer.getvalue()
