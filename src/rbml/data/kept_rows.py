"""Rows of numbers kept in the cache folder, each by a key: what was computed for an example is there for the next set.

One SQLite file holds all rows of a name, and several programs may read and write it at the same time. What was added is
kept, whatever becomes of the program afterwards.
"""

from __future__ import annotations

import logging
import re
import sqlite3
import zlib
from collections.abc import Mapping, Sequence
from contextlib import closing

import numpy as np
from numpy.typing import NDArray

from rbml.data import store

Row = NDArray[np.float32]

_WAIT = 60.0
"""Seconds to wait for another program that is writing."""

_AT_ONCE = 500
"""Keys per question: SQLite allows a limited number."""

_log = logging.getLogger(__name__)


class KeptRows:
    """Rows of float32 numbers, all of one length.

    A damaged file is begun anew, and a damaged row counts as missing. If the cache folder cannot be used, a warning is
    logged, and nothing is kept.

    Args:
        name: names everything that the rows depend on besides their keys; becomes the name of the file.
        width: numbers per row.
    """

    def __init__(self, name: str, width: int) -> None:
        """Touch nothing yet."""
        self.path = store.cache_dir() / "rows" / (re.sub(r"[^\w.-]", "_", name) + ".sqlite")
        self.width = width
        self._usable = True

    def read(self, keys: Sequence[bytes]) -> dict[bytes, Row]:
        """Return the rows that are there, by key."""
        found: dict[bytes, Row] = {}
        if not self.path.is_file():
            return found
        try:
            with closing(self._opened()) as file:
                for start in range(0, len(keys), _AT_ONCE):
                    some = keys[start : start + _AT_ONCE]
                    marks = ", ".join("?" * len(some))
                    rows = file.execute(f"SELECT key, sum, numbers FROM rows WHERE key IN ({marks})", some)
                    for key, total, numbers in rows:
                        if len(numbers) == 4 * self.width and zlib.crc32(numbers) == total:
                            found[key] = np.frombuffer(numbers, np.float32)
        except (sqlite3.Error, OSError) as error:
            self._failed(error)
        return found

    def add(self, rows: Mapping[bytes, Row]) -> None:
        """Keep rows; those of keys that are there already are replaced."""
        if not self._usable:
            return
        content = ((key, zlib.crc32(data), data) for key, row in rows.items() for data in (row.tobytes(),))
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with closing(self._opened()) as file, file:
                file.executemany("INSERT OR REPLACE INTO rows (key, sum, numbers) VALUES (?, ?, ?)", content)
        except (sqlite3.Error, OSError) as error:
            self._failed(error)

    def _opened(self) -> sqlite3.Connection:
        file = sqlite3.connect(self.path, timeout=_WAIT)
        try:
            file.execute("CREATE TABLE IF NOT EXISTS rows (key BLOB PRIMARY KEY, sum INTEGER, numbers BLOB)")
        except sqlite3.Error:
            file.close()
            raise
        return file

    def _failed(self, error: Exception) -> None:
        """Begin a damaged file, or one of another form, anew; where the folder cannot be used, keep nothing.

        Two programs that find the damage together may each remove what the other has begun: its rows are then computed
        again, and nothing worse.
        """
        of_another_form = getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_ERROR  # such as other columns
        if of_another_form or not isinstance(error, sqlite3.OperationalError | OSError):
            _log.warning("%s cannot be read (%s): it is begun anew.", self.path, error)
            self.path.unlink(missing_ok=True)
            return
        _log.warning("%s cannot be used (%s): features are computed again next time.", self.path, error)
        self._usable = False
