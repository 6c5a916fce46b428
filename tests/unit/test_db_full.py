"""A disk that is full: a named failure, nothing half written, and writing goes on once there is space."""

from __future__ import annotations

from pathlib import Path

import pytest

from tsunagu.model.errors import KernelFailure
from tsunagu.store.db import Database


def test_full_and_free_again(tmp_path: Path) -> None:
    db = Database(str(tmp_path / "state.db"))
    db.put("kind", "first", b"1")
    pages = db._db.execute("PRAGMA page_count").fetchone()[0]
    db._db.execute(f"PRAGMA max_page_count={pages}")  # SQLite then answers as on a full disk
    with pytest.raises(KernelFailure, match="cannot be written"), db.transaction():
        db.put("kind", "small", b"2")
        db.put("kind", "large", b"x" * 100_000)
    assert db.all("kind") == [("first", b"1")]
    with pytest.raises(KernelFailure, match="cannot be written"):
        db.put("kind", "large", b"x" * 100_000)
    db._db.execute("PRAGMA max_page_count=100000")
    with db.transaction():
        db.put("kind", "large", b"x" * 100_000)
    db.close()
    again = Database(str(tmp_path / "state.db"))
    assert [name for name, _ in again.all("kind")] == ["first", "large"]
    again.close()
