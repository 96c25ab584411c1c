"""``--device`` and ``--precision``, which every command that computes has."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    import torch

_META = "rbml.device"


def with_device(command: click.Command) -> click.Command:
    """Return a command with ``--device`` and ``--precision``; one that has them already is left as it is.

    The command does not see the values: it calls :func:`chosen_device`.
    """
    if not any("--device" in parameter.opts for parameter in command.params):
        command.params += [
            click.Option(
                ["--device"],
                metavar="auto|cpu|cuda|mps",
                default="auto",
                expose_value=False,
                callback=_keep,
                help="What computes: cpu is the processor, cuda an NVIDIA GPU, mps the GPU of a Mac; auto takes cuda "
                "where it is there, else cpu. Another device gives the same results but for rounding.  [default: auto]",
            ),
            click.Option(
                ["--precision"],
                metavar="float32|tf32|bfloat16",
                default="float32",
                expose_value=False,
                callback=_keep,
                help="tf32 (cuda only) rounds the factors of products to three digits, bfloat16 those of large ones to "
                "two: faster, for large networks. It is not kept with a run.  [default: float32]",
            ),
        ]
    return command


def _keep(context: click.Context, parameter: click.Parameter, value: str) -> None:
    context.meta.setdefault(_META, {})[parameter.name] = value


def chosen_device(float64: bool = False) -> torch.device:
    """Return the device of the command that runs now, and compute on it from here on.

    Outside of a command that has the option it is the processor.

    Args:
        float64: whether the command computes in double precision, so that mps is refused.

    Raises:
        UsageError: if the device is not there, or has no such precision.
    """
    from rbml.data.inputs.embedded import computed_on
    from rbml.devices import CPU, computing, described, find, slow_in

    context = click.get_current_context(silent=True)
    wanted: dict[str, Any] | None = None if context is None else context.meta.get(_META)
    if context is None or wanted is None:
        return CPU
    if "found" not in wanted:  # now and not before: PyTorch takes seconds to load, and an error in another option none
        found = wanted["found"] = find(wanted["device"], float64)
        context.with_resource(computing(wanted["precision"], found))
        context.with_resource(computed_on(found))
        if found.type != "cpu":
            click.echo(f"computing on {described(found)}", err=True)
        if reason := slow_in(wanted["precision"], found):
            click.echo(f"--precision {wanted['precision']}: {reason}", err=True)
    device: torch.device = wanted["found"]
    return device
