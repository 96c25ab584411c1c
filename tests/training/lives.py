"""Run one ``rbml train`` in many lives, most of them ended by SIGKILL; for ``test_killed.py``.

Starting Python and PyTorch takes seconds, so that is done once: each life is a fork of this process, which has
imported everything, some of it by taking one gradient. What a life does from there on is what the command does.

``python lives.py FOLDER KILLS SEED ARGUMENT...`` prints what happened, as JSON.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import random
import signal
import sys
import time
from pathlib import Path
from typing import Any

import torch

INSTANTS = [("open", "after"), ("fsync", "before"), ("fsync", "after"), ("replace", "before"), ("replace", "after")]


def life(arguments: list[str], delay: float | None, instant: tuple[str, str, int] | None = None) -> int:
    """Run the command in a fork; kill it after ``delay`` seconds, or let it kill itself at an instant of its saving.

    Returns:
        The exit code, or the negative number of the signal.
    """
    child = os.fork()
    if child == 0:
        quiet = os.open(os.devnull, os.O_WRONLY)
        os.dup2(quiet, 1)
        os.dup2(quiet, 2)
        torch.seed()  # every process has another global random state
        if instant:
            deadly(*instant)
        try:
            cli(arguments)
        except SystemExit as end:
            os._exit(int(end.code or 0))
        os._exit(99)
    if delay is not None:
        time.sleep(delay)
        os.kill(child, signal.SIGKILL)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def deadly(name: str, when: str, nth: int) -> None:
    """Make the n-th call of a function, which saving a file goes through, the last thing that this process does."""
    owner: Any = Path if name == "open" else os
    function: Any = getattr(owner, name)
    calls = iter(range(1, 1_000_000))

    def call(*arguments: Any, **options: Any) -> Any:
        counts = name != "open" or "wb" in arguments  # opening to write empties a file
        last = counts and next(calls) == nth
        if last and when == "before":
            os.kill(os.getpid(), signal.SIGKILL)
        result = function(*arguments, **options)
        if last:
            os.kill(os.getpid(), signal.SIGKILL)
        return result

    setattr(owner, name, call)


def main(folder: Path, kills: int, seed: int, arguments: list[str]) -> dict[str, Any]:
    """Train once in one life and once in many."""
    began = time.perf_counter()
    whole = life([*arguments, "--resume", str(folder / "whole")], None)
    once = time.perf_counter() - began

    cut = [*arguments, "--resume", str(folder / "cut")]
    source = random.Random(seed)
    codes, lines = [], []
    for number in range(kills):
        if number % 3 == 2:  # at an instant of saving
            codes.append(life(cut, None, (*INSTANTS[number // 3 % 5], source.randint(1, 6))))
        else:
            codes.append(life(cut, once / 6 * source.random() ** 2 if number else 0.02))
        journal = folder / "cut" / "journal.jsonl"
        lines.append(journal.read_text().count("\n") if journal.exists() else -1)
    return {"whole": whole, "codes": codes, "lines": lines, "end": life(cut, None)}


if __name__ == "__main__":
    with contextlib.suppress(ImportError):
        importlib.import_module("tensorboard.summary.writer.record_writer")
    import rbml.cli.train  # noqa: F401
    from rbml.cli.main import cli
    from rbml.recipe import Recipe, build
    from rbml.tasks import Batch, Episodes

    torch.set_num_threads(1)
    pictures = Batch(torch.zeros(1, 2, 1, 28, 28), torch.arange(2)[None])
    build.learner(Recipe.of(ways=2, filters=2)).backward(Episodes(pictures, pictures))
    print(json.dumps(main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), sys.argv[4:])))  # noqa: T201
