"""A log as one sequence of bytes, although it may be several files: `log`, and `log.1`, `log.2` … of before.

`rotate` makes room: names move up by one. Who reads meanwhile holds the files open, so nothing is lost to it. May
import the standard library only.
"""

from __future__ import annotations

import contextlib
import os


class LogFiles:
    """The files of one log, oldest first, open; positions count from the first byte of the oldest."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._files: list[tuple[int, int, int]] = []  # descriptor, inode, where it begins
        self._open()

    def _open(self) -> None:
        """Open the files that came after those that are open; the newest first: one that moves up meanwhile is met
        twice, not missed."""
        known = {inode for _, inode, _ in self._files[-1:]}
        found: list[tuple[int, int]] = []
        for number in range(1 << 16):
            try:
                descriptor = os.open(f"{self._path}.{number}" if number else self._path, os.O_RDONLY | os.O_CLOEXEC)
            except FileNotFoundError:
                if number:
                    break
                continue  # just being moved, or not there yet
            inode = os.fstat(descriptor).st_ino
            if inode in known:
                os.close(descriptor)
                known.clear()
                break
            if any(inode == other for _, other in found):
                os.close(descriptor)
            else:
                found.append((descriptor, inode))
        for descriptor, _ in found[1:] if known else ():
            os.close(descriptor)  # the file read last was replaced, not moved: these are older
        # Whoever writes has closed the old file before it made the new one: the sizes of all but the last are final.
        for descriptor, inode in reversed(found[:1] if known else found):
            self._files.append((descriptor, inode, self.size()))

    def close(self) -> None:
        for descriptor, _, _ in self._files:
            os.close(descriptor)
        self._files.clear()

    def size(self) -> int:
        """Bytes in all files."""
        if not self._files:
            return 0
        descriptor, _, begin = self._files[-1]
        return begin + os.fstat(descriptor).st_size

    def follow(self, position: int) -> None:
        """Notice that writing goes on in another file; let go of files that end before `position`."""
        with contextlib.suppress(FileNotFoundError):
            if not self._files or os.stat(self._path).st_ino != self._files[-1][1]:
                self._open()
        while len(self._files) > 1 and self._files[1][2] <= position:
            os.close(self._files.pop(0)[0])

    def read(self, count: int, position: int) -> bytes:
        """Return up to `count` bytes from `position` on; fewer only at the end."""
        parts: list[bytes] = []
        for index, (descriptor, _, begin) in enumerate(self._files):
            end = self._files[index + 1][2] if index + 1 < len(self._files) else None
            while count > 0 and position >= begin and (end is None or position < end):
                wanted = count if end is None else min(count, end - position)
                data = os.pread(descriptor, wanted, position - begin)
                if not data:
                    break
                parts.append(data)
                count -= len(data)
                position += len(data)
        return b"".join(parts)


def rotate(path: str, files: int) -> None:
    """Move `path` to `path.1` and so on, keeping `files` in all; whoever writes it is to open it anew."""
    for number in range(files - 1, 0, -1):
        with contextlib.suppress(FileNotFoundError):
            os.rename(f"{path}.{number - 1}" if number > 1 else path, f"{path}.{number}")
