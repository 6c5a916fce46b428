"""Reading a container's log, which conmon writes in the k8s-file format: `time stream F|P text`, one line per write.

`P` marks a piece of a line that goes on, `F` its end. Lines are joined again here, each stream for itself, and come out
in the order in which they were completed. Memory is bounded whatever the file holds. Following is driven by inotify(7),
never by polling. May import the standard library and `log_files`; never writes.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
import time
from collections.abc import AsyncGenerator, Iterator
from datetime import datetime

from .log_files import LogFiles

Line = tuple[str, int, bytes]  # "stdout" or "stderr"; nanoseconds since the epoch, UTC; data with its newline

BLOCK = 128 << 10  # bytes read at once
LINE_LIMIT = 1 << 20  # a longer line comes out in pieces without a newline
HEAD_SEARCH = 256 << 10  # how far before a tail the beginnings of its first lines are looked for
_IN_MODIFY, _IN_CREATE, _IN_MOVED_TO = 0x2, 0x100, 0x80
_libc = ctypes.CDLL(None, use_errno=True)


async def read(
    path: str,
    *,
    stdout: bool = True,
    stderr: bool = True,
    since_ns: int | None = None,
    until_ns: int | None = None,
    tail: int | None = None,
    ended: asyncio.Event | None = None,
) -> AsyncGenerator[Line, None]:
    """Yield the lines of the log at `path`; nothing when it is missing.

    `since_ns` and `until_ns` are inclusive bounds of time. `tail` takes the last lines of both streams together, before
    the other filters (Docker's order). With `ended` the log is followed until that event is set (no more will be
    written) and everything was read, or until `until_ns` has passed. A line that never got its end comes as it is.
    """
    wanted = {name for name, wants in (("stdout", stdout), ("stderr", stderr)) if wants}
    reader = _Reader(path)
    watch = _Watch(os.path.dirname(path)) if ended is not None else None
    try:
        reader.seek(tail, since_ns)
        while True:
            # Asked before reading: what is written before the end is then surely read.
            is_last = ended is None or ended.is_set()
            for stream, stamp, data in reader.lines(is_last=is_last):
                if until_ns is not None and stamp > until_ns:
                    return
                if stream in wanted and (since_ns is None or stamp >= since_ns):
                    yield stream, stamp, data
            if reader.has_more:
                await asyncio.sleep(0)  # let others run between blocks
            elif is_last or watch is None or ended is None or not await watch.changed(ended, until_ns):
                return
    finally:
        reader.close()
        if watch is not None:
            watch.close()


class _Reader:
    """Reads records forward from a position and joins them to lines."""

    def __init__(self, path: str) -> None:
        self._source = LogFiles(path)
        self._position = 0
        self._rest = b""  # the incomplete record at the end of the last block
        self._skip = 0  # lines to leave out before a tail begins
        self._lines: dict[str, tuple[int, bytearray]] = {}  # unfinished lines: time of the first piece, text
        self.has_more = False

    def close(self) -> None:
        self._source.close()

    def seek(self, tail: int | None, since_ns: int | None) -> None:
        """Choose where to start."""
        if tail is not None:
            self._position, self._skip = _find_tail(self._source, self._source.size(), tail)
        elif since_ns is not None:
            self._position = _find_time(self._source, self._source.size(), since_ns)

    def lines(self, *, is_last: bool) -> Iterator[Line]:
        """Yield the lines that the next block completes; sets `has_more`. With `is_last` also those without end."""
        self._source.follow(self._position)
        data = self._source.read(BLOCK, self._position)
        self._position += len(data)
        self.has_more = len(data) == BLOCK
        records = (self._rest + data).split(b"\n")
        self._rest = records.pop()
        if len(self._rest) > LINE_LIMIT:
            self._rest = b""  # nothing that conmon wrote
        for record in records:
            yield from self._join(record)
        if is_last and not self.has_more:
            unfinished, self._lines = self._lines, {}
            for stream, (stamp, text) in unfinished.items():
                if self._skip:
                    self._skip -= 1
                else:
                    yield stream, stamp, bytes(text)

    def _join(self, record: bytes) -> Iterator[Line]:
        parsed = parse_record(record)
        if parsed is None:
            return
        stream, stamp, is_partial, text = parsed
        if not is_partial and stream not in self._lines:
            yield from self._out(stream, stamp, text + b"\n")
            return
        started, line = self._lines.setdefault(stream, (stamp, bytearray()))
        line += text
        if not is_partial:
            line += b"\n"
        if not is_partial or len(line) > LINE_LIMIT:
            del self._lines[stream]
            yield from self._out(stream, started, bytes(line))

    def _out(self, stream: str, stamp: int, data: bytes) -> Iterator[Line]:
        if self._skip:
            self._skip -= data.endswith(b"\n")
        else:
            yield stream, stamp, data


def parse_record(record: bytes) -> tuple[str, int, bool, bytes] | None:
    """Return (stream, time in nanoseconds, is partial, text) of a record without its newline; None for other text."""
    parts = record.split(b" ", 3)
    if len(parts) != 4 or parts[2] not in (b"F", b"P") or parts[1] not in (b"stdout", b"stderr"):
        return None
    stamp = _parse_time(parts[0])
    return None if stamp is None else (parts[1].decode(), stamp, parts[2] == b"P", parts[3])


_last_second: tuple[bytes, int] = (b"", 0)  # many lines share one


def _parse_time(text: bytes) -> int | None:
    """Parse RFC 3339 with nanoseconds (`2026-11-23T21:54:29.854441754+00:00`, or `Z`)."""
    global _last_second
    fraction = text[20:29] if text[19:20] == b"." else b""
    zone = text[29:] if fraction else text[19:]
    key = text[:19] + (b"+00:00" if zone == b"Z" else zone)
    if _last_second[0] != key:
        try:
            moment = datetime.fromisoformat(key.decode("ascii"))
        except ValueError:
            return None
        if moment.tzinfo is None:
            return None
        _last_second = (key, int(moment.timestamp()) * 1_000_000_000)
    if fraction and not (len(fraction) == 9 and fraction.isdigit()):
        return None
    return _last_second[1] + int(fraction or 0)


def _find_tail(source: LogFiles, size: int, count: int) -> tuple[int, int]:
    """Return where to read from, and how many lines to leave out there, so that the last `count` lines come.

    Reads backwards. When the streams are mixed, the beginning of a wanted line may lie before the end of one that is
    not: so it goes on to a line's end in each stream, though not for ever (`HEAD_SEARCH`).
    """
    if count <= 0:
        return size, 0
    last = source.read(BLOCK, max(0, size - BLOCK))
    position = size - (len(last) - 1 - last.rfind(b"\n"))  # conmon may just be writing the record after it
    rest = b""
    total = 0  # lines that end, or would at the end of the file, from here on
    seen: set[bytes] = set()
    certain: set[bytes] = set()
    enough = -1  # where `count` lines were reached
    while position > 0 and len(rest) <= LINE_LIMIT:
        start = max(0, position - BLOCK)
        data = source.read(position - start, start) + rest
        records = data.split(b"\n")
        at = start + len(data) + 1
        for record in reversed(records[1:] if start else records):
            at -= len(record) + 1
            stream, flag = _kind(record)
            if not stream:
                continue
            if flag == b"F":
                if total >= count:
                    enough = at if enough < 0 else enough
                    certain.add(stream)
                total += 1
            elif stream not in seen:
                total += 1  # a line that has no end yet
            seen.add(stream)
            if enough >= 0 and (len(certain) == 2 or enough - at > HEAD_SEARCH):
                return at, max(0, total - count)
        rest = records[0] + b"\n"
        position = start
    return position, max(0, total - count)


def _kind(record: bytes) -> tuple[bytes, bytes]:
    parts = record.split(b" ", 3)
    return (parts[1], parts[2]) if parse_record(record[:64]) is not None else (b"", b"")


def _find_time(source: LogFiles, size: int, since_ns: int) -> int:
    """Return a position at or shortly before the first record of that time, by bisection: conmon writes in order."""
    low, high = 0, size
    while high - low > BLOCK:
        middle = (low + high) // 2
        data = source.read(BLOCK, middle)
        for record in data.split(b"\n")[1:-1]:  # the first one is cut, so may be the last
            parsed = parse_record(record)
            if parsed is not None:
                break
        else:
            return low
        if parsed[1] < since_ns:
            low = middle
        else:
            high = middle
    # `low` is inside a record that is too early: reading starts with the cut rest of it, which is no record.
    return low


class _Watch:
    """Tells when something was written in a directory."""

    def __init__(self, directory: str) -> None:
        self._fd = int(_libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC))
        if self._fd < 0:
            code = ctypes.get_errno()
            raise OSError(code, os.strerror(code), "inotify")
        mask = _IN_MODIFY | _IN_CREATE | _IN_MOVED_TO
        if _libc.inotify_add_watch(self._fd, os.fsencode(directory), ctypes.c_uint32(mask)) < 0:
            code = ctypes.get_errno()
            os.close(self._fd)
            raise OSError(code, os.strerror(code), directory)
        self._event = asyncio.Event()
        asyncio.get_running_loop().add_reader(self._fd, self._wake)

    def _wake(self) -> None:
        with contextlib.suppress(BlockingIOError):
            os.read(self._fd, 64 << 10)
        self._event.set()

    async def changed(self, ended: asyncio.Event, until_ns: int | None) -> bool:
        """Wait for a write or for `ended`; False when `until_ns` passed first."""
        timeout = None if until_ns is None else until_ns / 1e9 - time.time()
        if timeout is not None and timeout <= 0:
            return False
        waiters = {asyncio.ensure_future(self._event.wait()), asyncio.ensure_future(ended.wait())}
        try:
            done, _ = await asyncio.wait(waiters, timeout=timeout, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for waiter in waiters:
                waiter.cancel()
        self._event.clear()
        return bool(done)

    def close(self) -> None:
        asyncio.get_running_loop().remove_reader(self._fd)
        os.close(self._fd)
