from __future__ import annotations

import gzip
from pathlib import Path

import pytest
import torch

from rbml.data.sources import mnist
from rbml.errors import DataError, UsageError

HEAD = bytes([0, 0, 8])


def write(root: Path, pictures: bytes, labels: bytes) -> None:
    (root / "mnist_t10k").mkdir()
    (root / "mnist_t10k" / "t10k-images-idx3-ubyte").write_bytes(pictures)
    (root / "mnist_t10k" / "t10k-labels-idx1-ubyte.gz").write_bytes(gzip.compress(labels))


def test_the_test_part_of_mnist(data_root: Path) -> None:
    data = mnist.load("test", data_root)
    assert data.x.shape == (10000, 1, 28, 28) and data.x.dtype == torch.uint8
    assert torch.bincount(data.y).tolist() == [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]
    assert data.y[:5].tolist() == [7, 2, 1, 0, 4]  # as everyone knows it
    assert float((data.x == 0).float().mean()) > 0.7


def test_pictures_and_labels_are_read_in_order(tmp_path: Path) -> None:
    write(tmp_path, HEAD + b"\3\0\0\0\2\0\0\0\1\0\0\0\2" + bytes([1, 2, 3, 4]), HEAD + b"\1\0\0\0\2" + bytes([7, 9]))
    data = mnist.load("test", tmp_path)
    assert data.x.tolist() == [[[[1, 2]]], [[[3, 4]]]] and data.y.tolist() == [7, 9]


@pytest.mark.parametrize(
    ("pictures", "labels", "message"),
    [
        (b"", b"", "not an idx file"),
        (HEAD + b"\3\0\0\0\2\0\0\0\1\0\0\0\2" + b"abc", b"", "cut short"),
        (HEAD + b"\3\0\0\0\1\0\0\0\1\0\0\0\1" + b"a", HEAD + b"\1\0\0\0\2" + b"\1\1", "2 labels do not fit"),
        (HEAD + b"\3\0\0\0\1\0\0\0\1\0\0\0\1" + b"a", HEAD + b"\1\0\0\0\1" + b"\12", "1 labels do not fit"),
    ],
)
def test_damaged_files(tmp_path: Path, pictures: bytes, labels: bytes, message: str) -> None:
    write(tmp_path, pictures, labels)
    with pytest.raises(DataError, match=message):
        mnist.load("test", tmp_path)


def test_missing_files_and_parts(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"t10k-images-idx3-ubyte.gz: not found.*mnist_t10k/"):
        mnist.load("test", tmp_path)
    with pytest.raises(UsageError, match="only 10 classes"):
        mnist.load("train", tmp_path)
