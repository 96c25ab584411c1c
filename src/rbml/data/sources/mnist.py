"""MNIST: handwritten digits, the 10 000 pictures of its test part.

Y. LeCun, L. Bottou, Y. Bengio, P. Haffner, "Gradient-based learning applied to document recognition", Proc. IEEE
86(11), 1998 (CC BY-SA 3.0).
"""

from __future__ import annotations

import gzip
import zlib
from math import prod
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from rbml.data import store
from rbml.data.augment import DRAWINGS
from rbml.data.examples import Labelled, check_split, check_test_only
from rbml.data.inputs import Pictures
from rbml.errors import DataError

_PICTURES, _LABELS = "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"
_ORIGIN = "rbml does not download it: put the files of MNIST's test part, as published, into the folder mnist_t10k/."


def load(part: str, root: str | Path | None = None, *, split: str | None = None, seed: int = 0) -> Labelled:
    """Handwritten digits, 10 classes (test part of MNIST, LeCun et al., 1998): for testing only.

    Found under the data root only (``mnist_t10k/``, gzipped or not), not downloaded.

    Returns:
        ``x`` ``(10000, 1, 28, 28)`` uint8, 892 to 1135 pictures per class; names ``0`` to ``9``.

    Raises:
        UsageError: for a part other than ``"test"``, or a split that does not exist.
        DataError: if the files are not there, or cannot be read.
    """
    check_test_only(part, "mnist", 10)
    check_split(split, "t10k")
    path = _find(_PICTURES, root)
    x = torch.from_numpy(_idx(path, 3))[:, None]
    y = torch.from_numpy(_idx(_find(_LABELS, root), 1)).long()
    if len(x) != len(y) or (len(y) and int(y.max()) > 9):
        raise DataError(f"{path} holds {len(x)} pictures, which its {len(y)} labels do not fit: get both files again.")
    about = f"MNIST test part (t10k), part test: 10 classes, {len(x)} pictures, 28x28; {path}"
    return Labelled(x, y, [str(digit) for digit in range(10)], about, Pictures(), DRAWINGS)


def _find(name: str, root: str | Path | None) -> Path:
    plain = store.find(f"mnist_t10k/{name}", root)
    return plain or store.need(f"mnist_t10k/{name}.gz", root, _ORIGIN)


def _idx(path: Path, axes: int) -> NDArray[np.uint8]:
    """Read a file in the idx format: two zero bytes, 8 for uint8, the number of axes, their sizes, the numbers."""
    try:
        content = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path} cannot be read: {error}.") from None
    head = 4 + 4 * axes
    shape = [int.from_bytes(content[at : at + 4], "big") for at in range(4, head, 4)]
    if content[:4] != bytes([0, 0, 8, axes]) or len(content) != head + prod(shape):
        raise DataError(f"{path} is not an idx file of uint8 with {axes} axes, or it is cut short.")
    return np.frombuffer(content, np.uint8, offset=head).reshape(shape).copy()
