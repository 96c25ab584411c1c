"""Strings as whole numbers: words and character n-grams by their hash, and how many texts each occurs in."""

from __future__ import annotations

import base64
import re
import zlib
from collections.abc import Iterable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rbml.errors import UsageError

GRAMS = (2, 3, 4)
"""The lengths of the character n-grams."""

_WORD = re.compile(r"\w+|[^\w\s]")


def words(text: str) -> list[str]:
    """Return the words and the punctuation marks of a text, in lower case.

    >>> words("Where's my card?")
    ['where', "'", 's', 'my', 'card', '?']
    """
    return _WORD.findall(text.lower())


def word_ids(text: str, buckets: int) -> list[int]:
    """Return the number of every word, ``1 .. buckets - 1``: 0 is padding."""
    return [1 + zlib.crc32(word.encode()) % (buckets - 1) for word in words(text)]


def ngram_ids(text: str, buckets: int) -> list[int]:
    """Return the numbers of all words, and then of all character n-grams inside of words.

    A word is padded with a space on both sides, so that its beginning and end are seen. Each length has a range of
    numbers of its own, and words have one too; a number is a place in that range, chosen by the CRC-32 of the text.

    Args:
        text: a sentence.
        buckets: how many numbers there are; 0 is padding.
    """
    size = range_size(buckets)
    found = [words(text)]
    padded = [f" {word} " for word in found[0]]
    for length in GRAMS:
        found.append([word[at : at + length] for word in padded for at in range(len(word) - length + 1)])
    return [1 + place * size + zlib.crc32(gram.encode()) % size for place, grams in enumerate(found) for gram in grams]


def range_size(buckets: int) -> int:
    """Return how many numbers words, and the n-grams of each length, have.

    Raises:
        UsageError: if that is none.
    """
    size = (buckets - 1) // (1 + len(GRAMS))
    if size < 1:
        raise UsageError(f"buckets must be above {1 + len(GRAMS)}, not {buckets}: the usual number is 16384")
    return size


def frequencies(rows: Iterable[Sequence[int]], buckets: int) -> NDArray[np.int64]:
    """Return in how many rows each number occurs, ``(buckets,)``; place 0, which is padding, has the number of rows."""
    found = np.zeros(buckets, np.int64)
    for row in rows:
        found[np.unique(np.asarray(row, np.int64))] += 1
        found[0] += 1
    return found


def packed(counts: NDArray[np.int64]) -> str:
    """Return counts as a short string.

    >>> unpacked(packed(np.array([3, 0, 2]))).tolist()
    [3, 0, 2]
    """
    return base64.b64encode(zlib.compress(counts.astype("<u4").tobytes(), 9)).decode()


def unpacked(text: str) -> NDArray[np.int64]:
    """Return the counts that :func:`packed` made a string of.

    Raises:
        UsageError: if it is no such string.
    """
    try:
        return np.frombuffer(zlib.decompress(base64.b64decode(text)), "<u4").astype(np.int64)
    except (ValueError, zlib.error) as error:
        raise UsageError(f"the frequencies of a text modality are damaged ({error}): restore the file") from None


def idf(text: str, size: int) -> Tensor:
    r"""Return the inverse document frequency of every id, ``(size,)``; ones where no frequencies are known.

    .. math:: \mathrm{idf}_j = \ln \frac{1 + N}{1 + N_j} + 1

    where :math:`N_j` of N training texts have id j, as in scikit-learn; an id that none has counts most.

    Args:
        text: what :func:`packed` returned; may be empty.
        size: how many ids there are.

    Raises:
        UsageError: if the frequencies are of another number of ids, or damaged.
    """
    if not text:
        return torch.ones(size)
    counts = torch.from_numpy(unpacked(text))
    if len(counts) != size:
        raise UsageError(f"there are frequencies of {len(counts)} ids, but the vocabulary has {size}")
    return (torch.log((1 + counts[0]) / (1 + counts).double()) + 1).float()
