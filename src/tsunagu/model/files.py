"""Files of containers as values: what `cp` says of one, and what `diff` says of many."""

from __future__ import annotations

from typing import NamedTuple

MODIFIED, ADDED, DELETED = 0, 1, 2  # Docker's numbers for kinds of changes


class Stat(NamedTuple):
    """A file. `mode` is st_mode; `target` is where a symbolic link ends, as a path of the container, else ""."""

    mode: int
    size: int
    mtime_ns: int
    target: str


class Change(NamedTuple):
    """A path of a container that is not as in its image."""

    kind: int
    path: str
