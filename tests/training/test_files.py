"""Files of rbml: whole or not there, damaged ones are noticed, and none runs code."""

from __future__ import annotations

import errno
import os
import pickle
import random
import resource
import stat
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch

from rbml.errors import CheckpointError, RbmlError
from rbml.training import files

Content = dict[str, Any]


@pytest.fixture
def content() -> Content:
    return {
        "learner": {"w": torch.randn(30, 7), "b": torch.tensor(1.5), "none": torch.empty(0), "n": torch.arange(5)},
        "optimizer": {"state": {0: {"step": torch.tensor(3.0)}}, "groups": [{"lr": 0.1, "betas": (0.9, 0.999)}]},
        "step": 12,
        "best": float("-inf"),
        "flags": [True, None, "text"],
        "half": torch.randn(3).bfloat16(),
        "turned": torch.randn(4, 3).T,
    }


def leaves(value: Any, place: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict):
        for key, part in value.items():
            yield from leaves(part, f"{place}/{key!r}")
    elif isinstance(value, list | tuple):
        for index, part in enumerate(value):
            yield from leaves(part, f"{place}/{index}")
    elif isinstance(value, torch.Tensor):
        yield place, (value.dtype, value.shape, value.contiguous().flatten().view(torch.uint8).tolist())
    else:
        yield place, (type(value), repr(value))


def test_what_is_saved_is_loaded(tmp_path: Path, content: Content) -> None:
    files.save(tmp_path / "x.pt", "checkpoint", content)
    assert list(leaves(files.load(tmp_path / "x.pt", "checkpoint"))) == list(leaves(content))
    assert [path.name for path in tmp_path.iterdir()] == ["x.pt"]


def test_files_have_the_rights_that_the_user_gives_new_files(tmp_path: Path) -> None:
    (tmp_path / "plain").touch()
    files.write_atomically(tmp_path / "ours", b"")
    assert stat.S_IMODE((tmp_path / "ours").stat().st_mode) == stat.S_IMODE((tmp_path / "plain").stat().st_mode)


@contextmanager
def at_most(size: int) -> Iterator[None]:
    """Let no file grow beyond ``size``, as on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def failing(error: BaseException) -> Callable[..., None]:
    def fail(*arguments: Any) -> None:
        raise error

    return fail


FULL = OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.parametrize("where", ["fsync", "replace", "limit"])
def test_a_write_that_fails_leaves_the_old_file(
    where: str, tmp_path: Path, content: Content, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "x.pt"
    files.save(path, "checkpoint", {"step": 1})
    with monkeypatch.context() as patch, at_most(500 if where == "limit" else -1):
        if where != "limit":
            patch.setattr(os, where, failing(FULL))
        with pytest.raises(RbmlError) as caught:
            files.save(path, "checkpoint", content)
    assert str(caught.value).startswith(f"cannot write {path}: ")
    assert "free some space" in str(caught.value)
    assert files.load(path, "checkpoint") == {"step": 1}
    assert [path.name for path in tmp_path.iterdir()] == ["x.pt"]


def test_a_signal_in_the_middle_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files.write_atomically(tmp_path / "x", b"old")
    monkeypatch.setattr(os, "fsync", failing(KeyboardInterrupt()))
    with pytest.raises(KeyboardInterrupt):
        files.write_atomically(tmp_path / "x", b"new")
    assert [(path.name, path.read_bytes()) for path in tmp_path.iterdir()] == [("x", b"old")]


def test_what_a_killed_process_left_is_no_hindrance_and_does_not_pile_up(tmp_path: Path) -> None:
    files.write_atomically(tmp_path / "x", b"old")
    seen = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "replace", lambda source, target: seen.append(Path(source)))  # it died before
        files.write_atomically(tmp_path / "x", b"half")
    assert seen[0].parent == tmp_path
    assert seen[0].name.startswith(".")
    files.write_atomically(tmp_path / "x", b"new")
    assert [(path.name, path.read_bytes()) for path in tmp_path.iterdir()] == [("x", b"new")]


def test_a_place_that_cannot_be_written_to_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for path in (tmp_path / "none" / "x", tmp_path / "file" / "x", tmp_path):
        with pytest.raises(RbmlError, match="choose another place") as caught:
            files.write_atomically(path, b"")
        assert str(caught.value).startswith(f"cannot write {path}: ")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


# ------------------------------------------------------------------------------------------------------ damaged files


@pytest.fixture
def saved(tmp_path: Path, content: Content) -> Path:
    files.save(tmp_path / "x.pt", "checkpoint", content)
    return tmp_path / "x.pt"


def refused(path: Path) -> str:
    with pytest.raises(CheckpointError) as caught:
        files.load(path, "checkpoint")
    message = str(caught.value)
    assert str(path) in message
    assert "\n" not in message
    return message


def test_a_truncated_file_is_refused(saved: Path) -> None:
    whole = saved.read_bytes()
    for size in (0, 1, 4, 100, len(whole) // 2, len(whole) - 100, len(whole) - 1):
        saved.write_bytes(whole[:size])
        assert "damaged" in refused(saved)


def test_no_flipped_bit_goes_unnoticed(saved: Path, content: Content) -> None:
    whole = saved.read_bytes()
    truth = list(leaves(content))
    source = random.Random(0)
    noticed = 0
    for _ in range(150):
        place, bit = source.randrange(len(whole)), source.randrange(8)
        saved.write_bytes(whole[:place] + bytes([whole[place] ^ 1 << bit]) + whole[place + 1 :])
        try:
            found = files.load(saved, "checkpoint")
        except CheckpointError as error:
            noticed += str(saved) in str(error)
        else:
            assert list(leaves(found)) == truth  # it fell between the entries of the archive
    assert noticed > 30


def test_a_flipped_bit_in_a_number_is_noticed_by_the_digest(saved: Path) -> None:
    found = torch.load(saved, weights_only=True)
    for spoil in (
        lambda content: content["learner"]["w"][3, 2].add_(1e-6),
        lambda content: content["turned"][0, 1].neg_(),
        lambda content: content.update(step=13),
        lambda content: content["optimizer"]["groups"][0].update(lr=0.1000001),
        lambda content: content["learner"].pop("n"),
    ):
        torch.save(found, saved)
        copy = torch.load(saved, weights_only=True)
        spoil(copy["content"])
        torch.save(copy, saved)
        assert "digest" in refused(saved)


@pytest.mark.parametrize("content", [b"no file of ours", b"PK\x03\x04", pickle.dumps({"a": 1}), b"\x80\x02."])
def test_something_else_is_refused(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "x.pt").write_bytes(content)
    refused(tmp_path / "x.pt")


def test_files_of_another_kind_or_format_or_maker_are_refused(
    saved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(CheckpointError, match="holds 'checkpoint', expected 'adapted' as rbml adapt makes it"):
        files.load(saved, "adapted")
    torch.save({"state_dict": {}}, tmp_path / "other.pt")
    assert "not a file of rbml" in refused(tmp_path / "other.pt")
    torch.save([torch.ones(2)], tmp_path / "other.pt")
    assert "not a file of rbml" in refused(tmp_path / "other.pt")
    assert "there is no file" in refused(tmp_path / "none.pt")
    assert "there is no file" in refused(tmp_path)
    monkeypatch.setattr(files, "FORMAT", files.FORMAT + 1)
    assert "use the rbml that wrote it" in refused(saved)


class Payload:
    """Makes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("form", ["archive", "legacy", "plain", "whole"])
def test_loading_executes_no_code(form: str, tmp_path: Path, content: Content) -> None:
    harm, path = tmp_path / "harm", tmp_path / "x.pt"
    evil = {"rbml": "checkpoint", "format": 1, "digest": "", "content": {"step": 1, "more": Payload(harm)}}
    if form == "plain":
        path.write_bytes(pickle.dumps(evil))
    elif form == "whole":  # one of ours, in which the pickle was exchanged
        files.save(path, "checkpoint", content)
        with zipfile.ZipFile(path) as archive:
            entries = {name: archive.read(name) for name in archive.namelist()}
        with zipfile.ZipFile(path, "w") as archive:
            for name, entry in entries.items():
                archive.writestr(name, pickle.dumps(evil, protocol=2) if name.endswith("data.pkl") else entry)
    else:
        torch.save(evil, path, _use_new_zipfile_serialization=form == "archive")
    refused(path)
    assert not harm.exists()


def test_the_payload_of_the_test_above_does_harm_where_it_is_run(tmp_path: Path) -> None:
    pickle.loads(pickle.dumps(Payload(tmp_path / "harm")))
    assert (tmp_path / "harm").exists()
