"""Small pieces of text: tables in Markdown, times, sentences."""

from __future__ import annotations

from collections.abc import Sequence


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    r"""Return a Markdown table.

    >>> print(table(["a", "b"], [["1", "x|y"]]))
    | a | b |
    | --- | --- |
    | 1 | x\|y |
    <BLANKLINE>
    """
    lines = [head, ["---"] * len(head), *rows]
    return "".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |\n" for line in lines)


def duration(seconds: float) -> str:
    """Return a duration as text.

    >>> duration(42.4), duration(754), duration(7320)
    ('42 s', '13 min', '2 h 2 min')
    """
    if seconds < 100:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 100 else f"{minutes // 60} h {minutes % 60} min"


def sentence(text: str) -> str:
    """Return an error message as a sentence: with a capital letter and a full stop."""
    return text[:1].upper() + text[1:].rstrip(".") + "."
