"""Several processes train a run to the bit as one does, also if they are killed and go on with another number."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed as dist

from rbml.autodiff import WHOLE, OverTasks
from rbml.errors import UsageError
from rbml.training import RunFolder
from rbml.training.processes import Dealt, Several

KILLS = 3


@pytest.mark.parametrize(("total", "chunk", "size"), [(8, 2, 3), (7, 2, 2), (5, 4, 3), (1, 1, 2), (200, 32, 4)])
def test_every_task_belongs_to_one_process_and_chunks_stay_whole(total: int, chunk: int, size: int) -> None:
    parts = [Dealt(total, chunk, rank, size) for rank in range(size)]
    places = [part.places(rank) for rank, part in enumerate(parts)]
    assert sorted(place for own in places for place in own) == list(range(total))
    for rank, part in enumerate(parts):
        starts = places[rank][::chunk]
        assert starts == [start for start in range(0, total, chunk) if start // chunk % size == rank]
        assert part.idle == (not places[rank]) and part.chunks(rank) == len(starts)
        assert part.own(list(range(total))) == (places[rank] or [0])
        assert part.own(torch.arange(total)).tolist() == (places[rank] or [0])


@pytest.fixture
def one_process(tmp_path: Path) -> Iterator[Several]:
    """The real thing with gloo, in a group of one."""
    dist.init_process_group("gloo", init_method=f"file://{tmp_path / 'meeting'}", rank=0, world_size=1)
    processes = Several(0, 1)
    yield processes
    processes.end()


def test_a_group_of_one_adds_and_joins_as_one_process_does(one_process: Several) -> None:
    x, m = torch.randn(7, 3), {"scale": torch.randn(3), "wide": torch.randn(2, dtype=torch.float64)}

    def single(m: dict[str, Any], row: torch.Tensor) -> Any:
        return row.sum(), {"scale": row * m["scale"], "wide": row.sum().double() * m["wide"]}, {"x": row}

    loss, grads, aux = OverTasks(2).mean(single, m, x)
    shard = one_process.shard(7, 2)
    loss_, grads_, aux_ = OverTasks(2).mean(single, m, shard.own(x), shard=shard)
    assert torch.equal(loss, loss_) and torch.equal(aux["x"], aux_["x"])
    assert list(grads) == list(grads_) and all(torch.equal(grads[name], grads_[name]) for name in grads)
    assert one_process.any(True) and not one_process.any(False)
    one_process.agree(torch.nn.Linear(2, 2))  # type: ignore[arg-type]


def test_what_draws_from_the_global_random_state_is_refused(one_process: Several) -> None:
    def single(m: dict[str, Any], row: torch.Tensor) -> Any:
        return row.sum() + torch.rand(()), {"a": row}, {}

    assert OverTasks(2, vectorise=False).mean(single, {}, torch.zeros(3, 2), shard=WHOLE)
    with pytest.raises(UsageError, match="global random state"):
        OverTasks(2, vectorise=False).mean(single, {}, torch.zeros(3, 2), shard=one_process.shard(3, 2))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_several_processes_end_as_one_does_also_if_they_are_killed(
    tmp_path: Path, same: Callable[[RunFolder, RunFolder], bool]
) -> None:
    image = pytest.importorskip("PIL.Image")
    source = np.random.default_rng(0)
    for name in range(12):
        folder = tmp_path / "pictures" / f"class {name}"
        folder.mkdir(parents=True)
        for number in range(3):
            image.fromarray(source.integers(0, 255, (8, 8), dtype=np.uint8)).save(folder / f"{number}.png")
    options = "--ways 2 --queries 2 --size 8 --filters 4 --tasks 5 --chunk 2 --meta-steps 6 --pretrain 2"
    more = "--validate-every 3 --validate-tasks 5 --save-every 2 --threads 1 --no-verify"
    arguments = ["train", f"folder:{tmp_path / 'pictures'}", *options.split(), *more.split()]
    script = Path(__file__).with_name("together.py")
    command = [sys.executable, str(script), str(tmp_path), str(KILLS), "0", *arguments]
    ran = subprocess.run(
        command, capture_output=True, text=True, timeout=180, env=os.environ | {"OMP_NUM_THREADS": "1"}
    )
    assert ran.returncode == 0, ran.stderr
    report = json.loads(ran.stdout)
    said = {path.name: path.read_text() for path in tmp_path.glob("log *")}
    assert report["codes"] == {"1": [0], "2": [0, 0], "3": [0, 0, 0]}, said
    assert report["end"] == [0, 0], said
    assert sum(-9 in codes for codes in report["killed"]) >= KILLS // 2
    assert all(set(codes) <= {-15, -9, 0, 1} for codes in report["killed"]), said
    whole, *others = (RunFolder(tmp_path / name) for name in ("by 1", "by 2", "by 3", "cut"))
    for other in others:
        assert same(whole, other), other.path
        assert {path.name for path in other.path.iterdir()} == {path.name for path in whole.path.iterdir()}
    errors = [line for line in said["log cut"].splitlines() if line.startswith(("rbml:", "process"))]
    assert all("another process of the run has ended" in line for line in errors), said


def test_torchrun_and_an_error_that_is_said_once(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "-m", "--", "rbml", "train"]
    arguments = ["glyphs", "--tasks", "8", "--run", "few"]
    ran = subprocess.run([*command, *arguments], capture_output=True, text=True, timeout=120, cwd=tmp_path)
    assert ran.returncode == 1
    assert [line for line in ran.stderr.splitlines() if line.startswith(("rbml: ", "process "))] == [
        "rbml: the 8 tasks of a step are 1 chunk of 8: of 2 processes only 1 would have work. Divide them with "
        "--chunk 4, or fewer processes"
    ]
