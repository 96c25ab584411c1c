"""The group of commands: finds them lazily, and turns errors into one line and an exit code."""

from __future__ import annotations

import importlib
import os
import sys
import traceback
from typing import Any

import click

import rbml
from rbml.cli.devices import with_device
from rbml.cli.processes import follows, leave, several
from rbml.cli.threads import with_threads
from rbml.errors import RbmlError, UsageError, unknown

COMMANDS = {
    "demo": "Meta-train on drawn glyphs, then learn real handwritten digits from 1 and 5 examples.",
    "train": "Learn from many small tasks how to learn the next one: meta-train, into a run folder.",
    "evaluate": "Measure how well a run learns new tasks, from its own or another source.",
    "curve": "Measure how many labelled examples are needed, beside what needs no learning across tasks.",
    "transfer": "Train on some sources and test on others: a matrix of how well learning carries over.",
    "adapt": "Learn a task of your own from a few examples.",
    "predict": "Predict new examples with a model made by adapt.",
    "chat": "Talk to such a model made from sentences; it learns from corrections.",
    "score": "Measure such a model on labelled examples that it has not learned from.",
    "tune": "Train a model on your own data, and tune how it is trained.",
    "rate": "Find the examples of your own data whose labels are probably wrong.",
    "report": "Show how good a run is and what it has learned, on one page with figures.",
    "check": "Check the hypergradient of a run or a recipe against exact engines and finite differences.",
    "explain": "Show what every hypergradient engine would cost, and which one to use.",
    "strategy": "Export a learned strategy to a small file, or show one.",
    "list": "List algorithms, strategies, engines, models, data and tasks.",
}


class LazyGroup(click.Group):
    """Imports a command's module when the command is used."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names, in the order in which they are usually needed."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import and return one command."""
        if cmd_name not in COMMANDS:
            return None
        if several() and cmd_name != "train":
            raise UsageError(
                f"rbml {cmd_name} works in one process: start it without torchrun, which is for rbml train"
            )
        command: click.Command = importlib.import_module(f"rbml.cli.{cmd_name}").command
        if cmd_name in ("strategy", "list"):
            return command
        return with_threads(command) if cmd_name == "report" else with_device(with_threads(command))

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find a command, or suggest the nearest name."""
        if args and args[0] not in COMMANDS and not args[0].startswith("-"):
            raise unknown("command", args[0], COMMANDS)
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the commands without importing them."""
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))

    def main(self, *args: Any, **extra: Any) -> Any:
        """Run, and end with 2 for wrong use, 1 for failure, 0 for success."""
        arguments = list(args[0]) if args else sys.argv[1:]
        debug = "--debug" in arguments
        arguments = [argument for argument in arguments if argument != "--debug"]
        try:
            code = super().main(arguments, prog_name="rbml", standalone_mode=False)
            sys.stdout.flush()
        except BrokenPipeError:  # the reader has closed the pipe: rbml list | head
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            code = 1
        except (Exception, KeyboardInterrupt) as error:
            if debug:
                traceback.print_exception(error)
            message, code = explained(error)
            if not follows():  # the first process says it
                click.echo(message, err=True)
        code = code if isinstance(code, int) else 0
        leave(code)
        sys.exit(code)


def explained(error: BaseException) -> tuple[str, int]:
    """Return one line on an error, and the exit code."""
    if isinstance(error, click.exceptions.NoArgsIsHelpError):
        return error.format_message(), 2
    if isinstance(error, click.UsageError):
        command = error.ctx.command_path if error.ctx else "rbml"
        message, code = f"{error.format_message().rstrip('.')} ({command} --help)", 2
    elif isinstance(error, click.ClickException):
        message, code = error.format_message(), error.exit_code
    elif isinstance(error, click.Abort | KeyboardInterrupt):
        message, code = "interrupted", 130
    elif isinstance(error, RbmlError):
        message, code = str(error), 2 if isinstance(error, UsageError) else 1
    elif isinstance(error, ModuleNotFoundError) and error.name in ("rich", "pydantic"):
        message, code = f"the command line needs {error.name}: pip install 'rbml[cli]'", 1
    elif type(error).__name__ == "OutOfMemoryError":  # PyTorch's, of a device
        message, code = "the device has too little memory, even for one task: use --device cpu, or a smaller model", 1
    elif isinstance(error, MemoryError) or (isinstance(error, RuntimeError) and "allocate memory" in str(error)):
        message, code = "out of memory: use a smaller --chunk", 1
    elif isinstance(error, OSError):
        message, code = str(error), 1
    else:
        message, code = f"{type(error).__name__}: {error} (this is a bug of rbml; --debug shows where)", 1
    return f"rbml: {' '.join(message.split())}", code


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(rbml.__version__, prog_name="rbml")
def cli() -> None:
    """Learn how to learn: meta-train a model on many tasks, then adapt it to your own task from a few examples.

    Begin with `rbml demo`. Every command accepts --debug, which shows full tracebacks.
    """
