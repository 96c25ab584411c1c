"""``--threads``, which every command that computes has."""

from __future__ import annotations

import click


def with_threads(command: click.Command) -> click.Command:
    """Return a command with ``--threads N``; a command that has such an option already is left as it is.

    The number is set before the command runs, and the command does not see it.
    """
    if not any("--threads" in parameter.opts for parameter in command.params):
        command.params.append(
            click.Option(
                ["--threads"],
                type=click.IntRange(1),
                metavar="N",
                expose_value=False,
                callback=_use,
                help="Threads to compute with.  [default: PyTorch's choice]",
            )
        )
    return command


def _use(context: click.Context, parameter: click.Parameter, value: int | None) -> None:
    if value is not None and not context.resilient_parsing:
        import torch

        torch.set_num_threads(value)
