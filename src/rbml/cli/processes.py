"""``torchrun -m rbml train``: several processes that train one run, of which one speaks.

The first process (rank 0) does what one process would do, and tells the others which run it is. An error is printed by
the process in which it happened, and by no other.
"""

from __future__ import annotations

import os
import sys
import warnings
from collections import deque
from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from rbml.recipe import Recipe
    from rbml.training.processes import Processes


_left: list[bool] = []


def several() -> bool:
    """Return whether ``torchrun`` has started this process as one of several."""
    return "TORCHELASTIC_RUN_ID" in os.environ and int(os.environ.get("WORLD_SIZE", "1")) > 1


def follows() -> bool:
    """Return whether this is one of several processes, and not the first one, which speaks."""
    return several() and int(os.environ["RANK"]) > 0


@contextmanager
def together() -> Iterator[Processes]:
    """Meet the other processes of the run, if there are others.

    Where processes fail, the first one to do so says why.

    Raises:
        SystemExit: with 1 if another process has said why, or with the code of an error that this one has printed.
    """
    from rbml.training.processes import ALONE, Several

    if not several():
        yield ALONE
        return
    processes = Several.begin()
    try:
        with warnings.catch_warnings():
            if processes.rank:
                warnings.simplefilter("ignore")  # the first process shows the same
            yield processes
    except (Exception, KeyboardInterrupt) as error:
        if not processes.first_to_fail():
            raise SystemExit(1) from None
        if not processes.rank:
            raise
        from rbml.cli.main import explained

        message, code = explained(error)
        click.echo(f"process {processes.rank}: {message}", err=True)
        raise SystemExit(code) from None
    finally:
        processes.end()
        _left.append(True)


def leave(code: int) -> None:
    """End this process at once if it was one of several.

    After PyTorch's processes have left one another, a thread of gloo may still run while Python ends, which aborts
    about one process in ten (PyTorch 2.13: "terminate called without an active exception"), and ``torchrun`` then
    reports a run that is complete as failed.

    Args:
        code: the exit code.
    """
    if _left:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def check_work(recipe: Recipe, processes: Processes, begins: bool) -> str:
    """Return a sentence if there are more processes than chunks of tasks, so that some have nothing to do.

    Raises:
        UsageError: if a run begins so, for which another chunk can still be chosen.
    """
    from rbml.errors import UsageError

    tasks, chunk, size = recipe.outer.tasks, recipe.execution.chunk, processes.world_size
    chunks = -(-tasks // chunk)
    if chunks >= size:
        return ""
    few = f"{chunks} chunk{'s' * (chunks > 1)} of {min(chunk, tasks)}"
    said = f"the {tasks} tasks of a step are {few}: of {size} processes only {chunks} would have work"
    if begins and tasks >= size:
        raise UsageError(f"{said}. Divide them with --chunk {-(-tasks // size)}, or fewer processes")
    return said


def take_part(processes: Any) -> None:
    """Train the run that the first process tells of, without a word.

    Raises:
        SystemExit: with 130 or 143 after a signal.
    """
    import signal

    import torch

    from rbml.cli.devices import chosen_device
    from rbml.cli.show import keep_memory
    from rbml.recipe import build
    from rbml.training import Interrupt, RunFolder, train

    keep_memory()
    told = processes.told()
    torch.set_num_threads(told["threads"])
    folder = RunFolder(told["run"])
    recipe, root, device = folder.recipe(), told["data_root"], chosen_device()
    training, validation = (build.tasks(recipe, part, root, device) for part in ("train", "val"))
    classes = build.supervised(recipe, root, device) if recipe.outer.pretrain else None
    with Interrupt(again=False) as interrupt:
        asked = lambda: interrupt.asked is not None  # noqa: E731
        steps = train(folder, recipe, training, validation, asked, classes, processes, device)
        with closing(steps):
            last = next(iter(deque(steps, maxlen=1)), None)
        stopped = processes.any(interrupt.asked is not None)
    if stopped and last is not None and last.step < recipe.outer.meta_steps:
        raise SystemExit(128 + (interrupt.asked or signal.SIGINT))
