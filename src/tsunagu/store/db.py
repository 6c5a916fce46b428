"""State that survives a restart: objects as JSON rows in SQLite (WAL), one writer.

Rows are opaque bytes here; `services` decide what they mean. May import `model` only. Never called from two threads.
A commit in WAL mode with synchronous=NORMAL costs tens of microseconds and survives a crash of this process; after a
power cut the last commits may be missing, but the file is consistent (SQLite documentation, "WAL").
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager

from tsunagu.model.errors import KernelFailure

SCHEMA_VERSION = 1


class Database:
    """Open (and create) the database file at `path`; raises KernelFailure when it is damaged or too new."""

    def __init__(self, path: str) -> None:
        self.path = path
        try:
            self._db = sqlite3.connect(path, isolation_level=None)
            os.chmod(path, 0o600)
            self._db.execute("PRAGMA journal_mode=WAL")
            self._db.execute("PRAGMA synchronous=NORMAL")
            version = self._db.execute("PRAGMA user_version").fetchone()[0]
            if version > SCHEMA_VERSION:
                raise KernelFailure(
                    f"database {path} has schema {version}, this engine knows {SCHEMA_VERSION}",
                    hint="use the newer engine, or move the file away to start empty",
                )
            with self.transaction():
                self._db.execute(
                    "CREATE TABLE IF NOT EXISTS objects"
                    " (kind TEXT NOT NULL, id TEXT NOT NULL, value BLOB NOT NULL, PRIMARY KEY (kind, id)) WITHOUT ROWID"
                )
                self._db.execute(f"PRAGMA user_version={SCHEMA_VERSION}")
        except sqlite3.DatabaseError as error:
            raise KernelFailure(
                f"database {path} cannot be used: {error}",
                hint="restore it from a backup, or move it away to start empty",
            ) from error

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Make all writes inside one atomic commit; an exception rolls them back.

        Raises KernelFailure when the disk is full.
        """
        if self._db.in_transaction:
            yield
            return
        self._write("BEGIN IMMEDIATE")
        try:
            yield
            self._write("COMMIT")
        except BaseException:
            if self._db.in_transaction:  # SQLite has rolled back by itself after some failures
                self._db.execute("ROLLBACK")
            raise

    def _write(self, statement: str, values: tuple[object, ...] = ()) -> None:
        try:
            self._db.execute(statement, values)
        except sqlite3.OperationalError as error:
            raise KernelFailure(
                f"database {self.path} cannot be written: {error}", hint="is there space left on its disk?"
            ) from error

    def put(self, kind: str, identifier: str, value: bytes) -> None:
        """Insert or replace one row."""
        self._write("INSERT OR REPLACE INTO objects VALUES (?, ?, ?)", (kind, identifier, value))

    def delete(self, kind: str, identifier: str) -> None:
        """Remove one row if it is there."""
        self._write("DELETE FROM objects WHERE kind = ? AND id = ?", (kind, identifier))

    def get(self, kind: str, identifier: str) -> bytes | None:
        """Return one row's value, or None."""
        row = self._db.execute("SELECT value FROM objects WHERE kind = ? AND id = ?", (kind, identifier)).fetchone()
        return None if row is None else bytes(row[0])

    def all(self, kind: str) -> list[tuple[str, bytes]]:
        """Return every row of a kind, ordered by id."""
        rows = self._db.execute("SELECT id, value FROM objects WHERE kind = ? ORDER BY id", (kind,))
        return [(identifier, bytes(value)) for identifier, value in rows]

    def close(self) -> None:
        self._db.close()
