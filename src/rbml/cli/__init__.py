"""The command line: one thin file per command. Nothing heavy is imported before a command runs."""

from __future__ import annotations

import io
import os
import sys


def main() -> None:
    """Run the command line."""
    # Waiting threads should sleep, not spin: on a shared machine, spinning was ten times slower (docs/facts.md).
    # OpenMP reads this once, when PyTorch is loaded.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(
                errors="backslashreplace"
            )  # so that ± and file names never fail, whatever the terminal's encoding
    try:
        from rbml.cli.main import cli
    except ImportError as error:
        if error.name not in ("click", "rich"):
            raise
        sys.exit(f"rbml: the command line needs {error.name}: pip install 'rbml[cli]'")
    cli()


__all__ = ["main"]
