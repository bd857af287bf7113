"""A cache and a working folder of its own for every test of data, and no data root."""

import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parent))  # for `forms`


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch) -> Path:
    """The empty cache folder."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("VITLAB_DATA", raising=False)
    return tmp_path / "cache" / "vitlab"


@pytest.fixture
def photos(tmp_path, monkeypatch) -> Path:
    """An empty folder `photos`, from beside which sets are opened."""
    (tmp_path / "photos").mkdir()
    monkeypatch.chdir(tmp_path)
    return tmp_path / "photos"
