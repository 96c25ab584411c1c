"""``--threads``, which every command that computes has."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click


def threads_option(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add ``--threads N``; the number is set before the command runs, and the command does not see it."""

    def use(context: click.Context, parameter: click.Parameter, value: int | None) -> None:
        if value is not None and not context.resilient_parsing:
            import torch

            torch.set_num_threads(value)

    return click.option(
        "--threads",
        type=click.IntRange(1),
        metavar="N",
        expose_value=False,
        callback=use,
        help="Threads to compute with.  [default: PyTorch's choice]",
    )(function)
