"""Train one run by one, two and three processes, and by many that are killed; for ``test_processes.py``.

As in ``lives.py``, each process is a fork of this one, which has imported everything; ``torchrun`` would start Python
and PyTorch anew each time. What they do from there on is what the command does.

``python together.py FOLDER KILLS SEED ARGUMENT...`` prints what happened, as JSON.
"""

from __future__ import annotations

import json
import os
import random
import signal
import socket
import sys
import time
from pathlib import Path
from typing import Any

import torch


def life(arguments: list[str], size: int, log: Path, kill: tuple[int, float] | None = None) -> list[int]:
    """Run the command in ``size`` processes; kill one of them after some seconds, if that is asked for.

    Returns:
        The exit code of each, or the negative number of the signal.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    children = [_begin(arguments, rank, size, port, log) for rank in range(size)]
    if kill is not None:
        time.sleep(kill[1])
        os.kill(children[kill[0]], signal.SIGKILL)
        time.sleep(0.2)
        for child in children:
            os.kill(child, signal.SIGTERM)  # as torchrun does
    return [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]


def _begin(arguments: list[str], rank: int, size: int, port: int, log: Path) -> int:
    child = os.fork()
    if child:
        return child
    os.environ |= {"RANK": str(rank), "WORLD_SIZE": str(size), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    os.environ["TORCHELASTIC_RUN_ID"] = "test"
    said = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    os.dup2(said, 2)
    torch.seed()  # every process has another global random state
    try:
        cli(arguments)
    except SystemExit as end:
        os._exit(int(end.code or 0))
    os._exit(99)


def main(folder: Path, kills: int, seed: int, arguments: list[str]) -> dict[str, Any]:
    """Train as said above."""
    codes = {}
    began = time.perf_counter()
    for size in (1, 2, 3):
        codes[size] = life([*arguments, "--resume", str(folder / f"by {size}")], size, folder / f"log {size}")
    once = (time.perf_counter() - began) / 3
    cut, source, killed = [*arguments, "--resume", str(folder / "cut")], random.Random(seed), []
    for number in range(kills):
        size = number % 3 + 1
        kill = source.randrange(size), once / 3 * source.random()
        killed.append(life(cut, size, folder / "log cut", kill))
    return {"codes": codes, "killed": killed, "end": life(cut, 2, folder / "log end")}


if __name__ == "__main__":
    import rbml.training.processes  # noqa: F401
    from rbml.cli.main import cli
    from rbml.recipe import Recipe, build
    from rbml.tasks import Batch, Episodes

    torch.set_num_threads(1)
    pictures = Batch(torch.zeros(1, 2, 1, 28, 28), torch.arange(2)[None])
    build.learner(Recipe.of(ways=2, filters=2)).backward(Episodes(pictures, pictures))
    print(json.dumps(main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), sys.argv[4:])))  # noqa: T201
