"""What the tests of the data sources share: a cache of their own, no network, and the real data where it lies."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from rbml.data import store


@pytest.fixture(scope="session")
def session_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache folder for the whole run, so that large archives are decoded once."""
    return tmp_path_factory.mktemp("rbml-cache")


@pytest.fixture(autouse=True)
def hermetic(monkeypatch: pytest.MonkeyPatch, session_cache: Path) -> None:
    """Keep the user's folders out, and refuse every download."""

    def refuse(name: str, url: str, checksum: str) -> Path:
        raise AssertionError(f"a test wants to download {url}")

    monkeypatch.setenv("RBML_CACHE", str(session_cache))
    monkeypatch.delenv("RBML_DATA", raising=False)
    monkeypatch.setattr(store, "fetch", refuse)


def _real_root() -> Path:
    named = os.environ.get("RBML_DATA")
    return Path(named) if named else Path(__file__).parents[3] / "shared" / "data"


REAL_ROOT = _real_root()  # at import: the fixture above takes the variable away


@pytest.fixture
def data_root() -> Path:
    """The folder of the real data sets; tests that need it are skipped where it is absent."""
    if not REAL_ROOT.is_dir():
        pytest.skip(f"the data sets are not at {REAL_ROOT}: name their folder with $RBML_DATA")
    return REAL_ROOT
