"""What a container changed in its files: its overlay's upper directory compared with the layers below.

Docker's rules (`docker diff`): a directory is changed when its own attributes are, or when something in it is; a file
that was written is changed; what is gone is named once, without what was in it. Names that the engine itself makes as
places for mounts are no change. May import kernel; must never run on the event loop's thread.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Sequence
from contextlib import ExitStack

from tsunagu.model.files import ADDED, DELETED, MODIFIED, Change

from .syscalls import open_in_root
from .unpack import OPAQUE, is_whiteout

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW
# What the runtime makes in the root to mount on. Docker keeps these in a layer of their own below the container's.
_PLACES = (
    "/proc", "/sys", "/dev", "/dev/pts", "/dev/shm", "/dev/mqueue", "/dev/console", "/etc/hosts", "/etc/hostname",
    "/etc/resolv.conf", "/etc/mtab", "/.dockerenv", "/sys/fs", "/sys/fs/cgroup", "/etc",
)  # fmt: skip


def placeholders(mounts: Iterable[str]) -> frozenset[bytes]:
    """Return the paths, relative to the root, that exist because something is mounted on them, with those above."""
    found = {os.fsencode(place.strip("/")) for place in _PLACES}
    for mount in mounts:
        parts = mount.strip("/").split("/")
        found.update(os.fsencode("/".join(parts[: n + 1])) for n in range(len(parts)))
    return frozenset(found)


def read(upper: str, lowers: Sequence[str], places: frozenset[bytes]) -> list[Change]:
    """Return the changes in `upper` against the directories `lowers` (topmost first), sorted by path."""
    with ExitStack() as stack:

        def opened(path: str) -> int:
            descriptor = os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
            stack.callback(os.close, descriptor)
            return descriptor

        comparison = _Comparison(opened(upper), [opened(path) for path in lowers], places)
        comparison.compare()
        return sorted(comparison.found, key=lambda change: change.path)


class _Comparison:
    def __init__(self, upper: int, lowers: Sequence[int], places: frozenset[bytes]) -> None:
        self._upper = upper
        self._lowers = lowers
        self._places = places
        self._visible: dict[bytes, list[int]] = {}  # by directory
        self.found: list[Change] = []

    def compare(self) -> None:
        """Fill `found`, unsorted."""
        waiting = [b""]
        changed: set[bytes] = set()  # directories in which something changed
        named: set[bytes] = set()
        while waiting:
            path = waiting.pop()
            directory = open_in_root(self._upper, path, _DIRECTORY)
            try:
                names = sorted(os.fsencode(name) for name in os.listdir(directory))
                present = set(names)
                entries = [(name, os.stat(name, dir_fd=directory, follow_symlinks=False)) for name in names]
                is_opaque = bool(path) and _has(directory, OPAQUE)
            finally:
                os.close(directory)
            if is_opaque:
                for name in sorted(self._names_below(path) - present):
                    self._tell(DELETED, _join(path, name), named, changed)
            for name, found in entries:
                here = _join(path, name)
                before = self._below(here)
                if is_whiteout(found):
                    if before is not None:
                        self._tell(DELETED, here, named, changed)
                    continue
                is_directory = stat.S_ISDIR(found.st_mode)
                if is_directory:
                    waiting.append(here)
                if before is None:
                    if not (here in self._places and self._is_empty_place(here, found)):
                        self._tell(ADDED, here, named, changed)
                elif _differs(before, found):
                    self._tell(MODIFIED, here, named, changed)
        for path in changed - named:
            if path:
                self.found.append(Change(MODIFIED, "/" + os.fsdecode(path)))

    def _tell(self, kind: int, path: bytes, named: set[bytes], changed: set[bytes]) -> None:
        self.found.append(Change(kind, "/" + os.fsdecode(path)))
        named.add(path)
        above = path.rpartition(b"/")[0]
        while above and above not in changed:
            changed.add(above)
            above = above.rpartition(b"/")[0]

    def _is_empty_place(self, path: bytes, found: os.stat_result) -> bool:
        """A mount's place is an empty file, or a directory with nothing but places in it."""
        if not stat.S_ISDIR(found.st_mode):
            return stat.S_ISREG(found.st_mode) and not found.st_size
        directory = open_in_root(self._upper, path, _DIRECTORY)
        try:
            for name in os.listdir(directory):
                here = _join(path, os.fsencode(name))
                inner = os.stat(name, dir_fd=directory, follow_symlinks=False)
                if here not in self._places or not self._is_empty_place(here, inner):
                    return False
        finally:
            os.close(directory)
        return True

    def _layers_of(self, path: bytes) -> list[int]:
        """The lower directories in which `path` is visible: those that no layer above them hides."""
        if not path:
            return list(self._lowers)
        above = path.rpartition(b"/")[0]
        if above not in self._visible:
            self._visible[above] = self._layers_of(above)
        kept: list[int] = []
        for lower in self._visible[above]:
            found = _look(lower, path)
            if found is None:
                continue
            if not stat.S_ISDIR(found.st_mode):
                if not kept and not is_whiteout(found):
                    kept.append(lower)
                break
            kept.append(lower)
            if _is_opaque_at(lower, path):
                break
        return kept

    def _below(self, path: bytes) -> os.stat_result | None:
        layers = self._layers_of(path)
        return _look(layers[0], path) if layers else None

    def _names_below(self, path: bytes) -> set[bytes]:
        names: set[bytes] = set()
        gone: set[bytes] = set()
        for lower in self._layers_of(path):
            found = _look(lower, path)
            if found is None or not stat.S_ISDIR(found.st_mode):
                break
            directory = open_in_root(lower, path, _DIRECTORY)
            try:
                for text in os.listdir(directory):
                    name = os.fsencode(text)
                    if name in names or name in gone:
                        continue
                    inner = os.stat(name, dir_fd=directory, follow_symlinks=False)
                    (gone if is_whiteout(inner) else names).add(name)
            finally:
                os.close(directory)
        return names


def _differs(before: os.stat_result, after: os.stat_result) -> bool:
    """Docker's comparison: mode, owner, device; for all but directories size and time as well."""
    if (before.st_mode, before.st_uid, before.st_gid, before.st_rdev) != (
        after.st_mode, after.st_uid, after.st_gid, after.st_rdev,
    ):  # fmt: skip
        return True
    return not stat.S_ISDIR(after.st_mode) and (
        before.st_size != after.st_size or before.st_mtime_ns != after.st_mtime_ns
    )


def _look(root: int, path: bytes) -> os.stat_result | None:
    try:
        handle = open_in_root(root, path, os.O_PATH | os.O_NOFOLLOW)
    except (FileNotFoundError, NotADirectoryError):
        return None
    try:
        return os.fstat(handle)
    finally:
        os.close(handle)


def _is_opaque_at(root: int, path: bytes) -> bool:
    handle = open_in_root(root, path, _DIRECTORY)
    try:
        return _has(handle, OPAQUE)
    finally:
        os.close(handle)


def _has(descriptor: int, name: str) -> bool:
    try:
        return os.getxattr(descriptor, name) == b"y"
    except OSError:
        return False


def _join(above: bytes, name: bytes) -> bytes:
    return above + b"/" + name if above else name
