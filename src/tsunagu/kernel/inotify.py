"""Learn that a file has changed, by whatever means: written, replaced by rename, or its symlink pointed elsewhere.

inotify(7) by ctypes. Watches directories, not the file: an editor or a network manager puts a new file in its place.
May import nothing of ours. Must never read the file: what its content means is not the kernel's business.
"""

from __future__ import annotations

import ctypes
import os
import struct

_CLOSE_WRITE, _MOVED_FROM, _MOVED_TO, _CREATE, _DELETE = 0x8, 0x40, 0x80, 0x100, 0x200
_MASK = _CLOSE_WRITE | _MOVED_FROM | _MOVED_TO | _CREATE | _DELETE
_OVERFLOW = 0x4000
_EVENT = struct.Struct("iIII")  # struct inotify_event without its name
_MAX_LINKS = 40

_libc = ctypes.CDLL(None, use_errno=True)


class FileWatch:
    """Watches one path and every symlink on the way to its file. `descriptor` is readable when something happened."""

    def __init__(self, path: str) -> None:
        """Raises OSError when inotify has no instance left."""
        self._path = path
        self._names: dict[int, set[bytes]] = {}
        self.descriptor: int = _libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
        if self.descriptor < 0:
            raise OSError(ctypes.get_errno(), "inotify_init1")
        self._follow()

    def has_changed(self) -> bool:
        """Take the events that wait; True when one of them may be about the file."""
        changed = False
        while True:
            try:
                data = os.read(self.descriptor, 65536)
            except BlockingIOError:
                break
            at = 0
            while at < len(data):
                watch, mask, _, length = _EVENT.unpack_from(data, at)
                name = data[at + _EVENT.size : at + _EVENT.size + length].rstrip(b"\0")
                changed |= name in self._names.get(watch, ()) or bool(mask & _OVERFLOW)
                at += _EVENT.size + length
        if changed:
            self._follow()
        return changed

    def close(self) -> None:
        os.close(self.descriptor)

    def _follow(self) -> None:
        """Watch the directory of each name on the way; a directory that is not there is left out."""
        path = self._path
        for _ in range(_MAX_LINKS):
            folder, name = os.path.split(os.path.abspath(path))
            watch = _libc.inotify_add_watch(self.descriptor, os.fsencode(folder), ctypes.c_uint32(_MASK))
            if watch >= 0:
                self._names.setdefault(watch, set()).add(os.fsencode(name))
            try:
                path = os.path.join(folder, os.readlink(path))
            except OSError:
                return
