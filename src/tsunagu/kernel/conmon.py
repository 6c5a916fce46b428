"""Starting conmon, and reading what it says. conmon(8) holds a container's stdio, log and exit code for us.

conmon forks twice and leaves our session by itself, so that it and the container outlive the engine. It talks over
pipes whose numbers it finds in its environment: the sync pipe (one JSON line with the pid or an error, for an exec a
second line with the exit code), the start pipe (it waits for a byte) and the attach pipe (it tells that its attach
socket exists). May import model; must never wait for a container on the event loop's thread.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import socket
import subprocess
from collections.abc import Sequence

from tsunagu.model.errors import KernelFailure

from .backlog import Backlog

ACCEPT_LIMIT = 2.0  # seconds; conmon accepts at once unless it waits for a slow client
LINE_LIMIT = 64 << 10  # conmon reads at most 8 KiB of the runtime's stderr; escaped that is less than this
STDIN_LIMIT = 8 << 10  # conmon reads packets of stdin into a buffer of this size or more, and cuts off the rest
_ENVIRONMENT = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}


class Conversation:
    """Our ends of the pipes of one conmon, from its start until it has nothing more to say."""

    def __init__(
        self, process: subprocess.Popen[bytes], sync_fd: int, start_fd: int, attach_fd: int, error_path: str
    ) -> None:
        self._process = process
        self._sync = _Lines(sync_fd)
        self._start_fd = start_fd
        self._attach = _Lines(attach_fd) if attach_fd >= 0 else None
        self._error_path = error_path

    async def forked(self) -> None:
        """Wait until the process that we started has forked the real conmon; raises KernelFailure when it could not."""
        pidfd = os.pidfd_open(self._process.pid)  # it is our child and not reaped yet: no other can have its pid
        try:
            await readable(pidfd)
        finally:
            os.close(pidfd)
        if self._process.wait() != 0:
            raise KernelFailure(f"conmon did not start: {self.errors() or 'it said nothing'}")

    def errors(self) -> str:
        """Return what conmon wrote on its stderr before it went into the background."""
        try:
            with open(self._error_path, errors="replace") as file:
                return file.read(LINE_LIMIT).strip()
        except OSError:
            return ""

    async def attachable(self) -> bool:
        """Wait until conmon listens on its attach socket; False when it ended instead."""
        return self._attach is not None and await self._attach.next() is not None

    def proceed(self) -> None:
        """Let conmon go on: the first time to fork, the second time (exec only) to run the process."""
        with contextlib.suppress(BrokenPipeError):  # conmon has ended: the sync pipe tells
            os.write(self._start_fd, b"\0")

    async def report(self) -> tuple[int, str] | None:
        """Return the next number conmon sends (pid, negative: failed; or exit code) and its message; None at end."""
        line = await self._sync.next()
        if line is None:
            return None
        try:
            value = json.loads(line)
            return int(value["data"]), str(value.get("message", ""))
        except (ValueError, KeyError, TypeError):
            raise KernelFailure(f"conmon sent something else than a report: {line[:200]!r}") from None

    def close(self) -> None:
        """Close our ends. Safe to call twice."""
        self._sync.close()
        if self._attach is not None:
            self._attach.close()
        if self._start_fd >= 0:
            os.close(self._start_fd)
            self._start_fd = -1


def spawn(arguments: Sequence[str], *, directory: str, terminal_directory: str, is_exec: bool) -> Conversation:
    """Start conmon in `directory`; returns as soon as it was executed (about a millisecond, by vfork).

    For an exec it waits for `Conversation.proceed` before it forks. `terminal_directory` is where conmon makes the
    short-lived socket over which the runtime hands it a terminal; its path must be shorter than 80 bytes (sun_path).
    """
    sync_read, sync_write = os.pipe2(os.O_CLOEXEC)
    start_read, start_write = os.pipe2(os.O_CLOEXEC) if is_exec else (-1, -1)
    attach_read, attach_write = os.pipe2(os.O_CLOEXEC) if is_exec else (-1, -1)
    theirs = [fd for fd in (sync_write, start_read, attach_write) if fd >= 0]
    environment = {**_ENVIRONMENT, "TMPDIR": terminal_directory, "_OCI_SYNCPIPE": str(sync_write)}
    if is_exec:
        environment |= {"_OCI_STARTPIPE": str(start_read), "_OCI_ATTACHPIPE": str(attach_write)}
    error_path = f"{directory}/conmon.err"
    try:
        with open(error_path, "wb") as errors:
            process = subprocess.Popen(
                list(arguments),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=errors,
                cwd=directory,
                env=environment,
                pass_fds=theirs,
            )
    except OSError as error:
        for fd in (sync_read, start_write, attach_read):
            if fd >= 0:
                os.close(fd)
        raise KernelFailure(f"cannot run {arguments[0]}: {error.strerror}") from error
    finally:
        for fd in theirs:
            os.close(fd)
    return Conversation(process, sync_read, start_write, attach_read, error_path)


async def readable(*fds: int) -> None:
    """Wait until one of `fds` is readable: data, end of file, or for a pidfd the end of its process."""
    loop = asyncio.get_running_loop()
    event = asyncio.Event()
    for fd in fds:
        loop.add_reader(fd, event.set)
    try:
        await event.wait()
    finally:
        for fd in fds:
            loop.remove_reader(fd)


async def connect(directory: str, *, waits: bool) -> socket.socket:
    """Connect to the attach socket that conmon made in `directory` (of any length).

    With `waits` conmon has accepted on return. In one turn of its loop it accepts one connection and then reads the
    process, so that a second connection would miss what a quick process writes. An exec has one connection, and its
    conmon accepts only after it was told to go on: there nothing is waited for.
    Raises FileNotFoundError or ConnectionRefusedError when conmon has ended. Packets from conmon start with one byte,
    2 for stdout and 3 for stderr; packets to it are stdin and may hold `STDIN_LIMIT` bytes.
    """
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
    try:
        fd = os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        path = f"/proc/self/fd/{fd}/attach"
        try:
            while True:
                try:
                    connection.connect(path)
                    break
                except BlockingIOError:
                    # Ten others wait already for conmon to accept them (its backlog); no event tells when it has.
                    await asyncio.sleep(0.005)
            if waits:
                await _accepted(path)
            return connection
        finally:
            os.close(fd)
    except BaseException:
        connection.close()
        raise


async def _accepted(path: str) -> None:
    """Wait until conmon has accepted every connection; no event tells, so the kernel is asked again and again."""
    try:
        backlog = Backlog(path)
    except OSError:
        return  # conmon has ended, or this kernel has no unix_diag: then the connection is as good as it gets
    try:
        async with asyncio.timeout(ACCEPT_LIMIT):
            while backlog.waiting():  # noqa: ASYNC110 - the kernel has no event for this
                await asyncio.sleep(0.0005)
    except TimeoutError:
        pass  # conmon waits for a slow client, which may be this one
    finally:
        backlog.close()


class _Lines:
    """Lines from a pipe, bounded."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._buffer = b""
        os.set_blocking(fd, False)

    async def next(self) -> str | None:
        while b"\n" not in self._buffer:
            if self._fd < 0:
                return None
            try:
                data = os.read(self._fd, 8192)
            except BlockingIOError:
                await readable(self._fd)
                continue
            if not data or len(self._buffer) > LINE_LIMIT:
                return None
            self._buffer += data
        line, _, self._buffer = self._buffer.partition(b"\n")
        return line.decode(errors="replace")

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


# ---- processes named by pid and start time


def start_time(pid: int) -> int:
    """Return the start time of a process in clock ticks since boot, 0 when it is gone (a zombie counts as gone)."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            fields = file.read().rpartition(b")")[2].split()
    except OSError:
        return 0
    return 0 if fields[0] in (b"Z", b"X") else int(fields[19])


def open_process(pid: int, started: int) -> int | None:
    """Return a pidfd for the process that has this pid and start time; None when it is gone. The caller closes it."""
    if pid <= 0 or started <= 0:
        return None
    try:
        pidfd = os.pidfd_open(pid)
    except OSError:
        return None
    # Read after the open: a process that took over the pid before the open has another start time.
    if start_time(pid) != started:
        os.close(pidfd)
        return None
    return pidfd


def send_signal(pid: int, started: int, signum: int) -> bool:
    """Send a signal to exactly that process; False when it is gone."""
    pidfd = open_process(pid, started)
    if pidfd is None:
        return False
    try:
        signal.pidfd_send_signal(pidfd, signum)
    except ProcessLookupError:
        return False
    finally:
        os.close(pidfd)
    return True
