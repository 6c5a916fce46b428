"""Between conmon and a hijacked client: output one way, stdin the other, detach keys, half-close.

conmon writes to its clients with blocking writes: one that does not read stops conmon, and with it the container and
every other client. So this module always reads conmon and keeps up to `BUFFER_LIMIT` bytes for a slow client. Only then
it makes conmon wait, as a pipe would; a client that takes nothing for `STALL_LIMIT` seconds after that is cut off (its
output is in the log all the same). Known limit: conmon 2.1 turns in circles when a client writes to a container that
closed its stdin and lives on; nothing tells us that it did. May import kernel, wire and services.duplex.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import re
import socket
from collections import deque
from collections.abc import AsyncIterator
from enum import StrEnum

from tsunagu.kernel.conmon import STDIN_LIMIT
from tsunagu.model.errors import InvalidParameter
from tsunagu.wire import stdcopy

from .duplex import Duplex
from .tasks import spawn

BUFFER_LIMIT = 8 << 20  # bytes of output kept in memory for one slow client
WRITE_LIMIT = 256 << 10  # bytes handed to the client at once
STALL_LIMIT = 120.0  # seconds without progress while the buffer is full
DEFAULT_DETACH_KEYS = b"\x10\x11"  # ctrl-p, ctrl-q
DETACH_FLUSH = 1.0  # seconds for output that came before the detach keys
_PACKET = 64 << 10  # conmon's packets are smaller
_STREAMS = {2: stdcopy.STDOUT, 3: stdcopy.STDERR}  # conmon's number of a pipe -> stdcopy's
_CONTROL = re.compile(r"ctrl-([a-z@\[\]^_\\])")
log = logging.getLogger("tsunagu.streams")


class AttachEnd(StrEnum):
    """Why an attachment ended."""

    ENDED = "ended"  # the container's output ended and was delivered
    DETACHED = "detached"  # the client typed the detach keys
    GONE = "gone"  # the client went away, or was cut off


def parse_detach_keys(text: str) -> bytes:
    """Parse `ctrl-p,ctrl-q`: `ctrl-` with a letter or one of `@[\\]^_`, or single characters; "" is the default.

    Raises InvalidParameter in Docker's words.
    """
    if not text:
        return DEFAULT_DETACH_KEYS
    keys = bytearray()
    for word in text.split(","):
        control = _CONTROL.fullmatch(word)
        if control:
            keys.append(ord(control.group(1).upper()) & 0x1F)
        elif len(word) == 1 and word.isascii():
            keys.append(ord(word))
        else:
            raise InvalidParameter(
                f"Invalid detach keys ({text}) provided", hint=f"Unknown character: '{word}' (example: ctrl-x,a)"
            )
    return bytes(keys)


class DetachKeys:
    """Finds the detach keys in typed input; holds back no more than their beginning."""

    def __init__(self, keys: bytes) -> None:
        self._keys = keys
        self._held = b""

    def feed(self, data: bytes) -> tuple[bytes, bool]:
        """Return what to forward of `data` and what was held back before, and whether the keys were typed."""
        if not self._keys:
            return data, False
        forward = bytearray()
        for number in range(len(data)):
            self._held += data[number : number + 1]
            while not self._keys.startswith(self._held):
                forward += self._held[:1]
                self._held = self._held[1:]
            if self._held == self._keys:
                self._held = b""
                return bytes(forward), True
        return bytes(forward), False

    def flush(self) -> bytes:
        """Return what is held back: the input has ended."""
        held, self._held = self._held, b""
        return held


async def attach(
    client: Duplex,
    connection: socket.socket,
    *,
    is_multiplexed: bool,
    wants_stdin: bool,
    wants_stdout: bool,
    wants_stderr: bool,
    detach_keys: bytes = b"",
    closes_stdin: bool = False,
) -> AttachEnd:
    """Copy both ways until the container ends, the client detaches or goes away. Takes over and closes `connection`.

    `connection` comes from `Runtime.connect` or `ExecSession.connection`. `is_multiplexed`: frame the output (no tty);
    detach keys work on a tty only, as in Docker. `closes_stdin`: conmon closes the container's stdin when a client goes
    (Docker's StdinOnce); a client without stdin must not cause that. The client itself is not closed.
    """
    outbox = _Outbox(client)
    wanted = {number for number, wants in ((2, wants_stdout), (3, wants_stderr)) if wants}
    keys = DetachKeys(b"" if is_multiplexed else detach_keys)
    reader = spawn(_read_output(connection, outbox, wanted, is_multiplexed), name="attach output")
    writer = spawn(outbox.deliver(), name="attach delivery")
    typist = spawn(_copy_input(client, connection, keys), name="attach input") if wants_stdin else None
    tasks = [task for task in (reader, writer, typist) if task is not None]
    try:
        watched = set(tasks)
        while not writer.done() and not reader.done():
            done, watched = await asyncio.wait(watched, return_when=asyncio.FIRST_COMPLETED)
            if typist in done and typist is not None and typist.result():
                reader.cancel()
                await outbox.finish(timeout=DETACH_FLUSH)
                return AttachEnd.DETACHED
        if reader.done() and not reader.result():
            return AttachEnd.GONE  # cut off
        if not writer.done():
            await outbox.finish(timeout=None)  # holds nobody up any more: the client may take its time
        return AttachEnd.ENDED if reader.done() and outbox.is_delivered else AttachEnd.GONE
    finally:
        has_ended = reader.done() and not reader.cancelled() and reader.exception() is None and reader.result()
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
        if closes_stdin and not wants_stdin and not has_ended:
            spawn(_drain(connection), name="attach drain")
        else:
            connection.close()


async def collect(connection: socket.socket, kept: bytearray, limit: int) -> None:
    """Read an exec's output to its end, keeping the first `limit` bytes in `kept`. Closes `connection`."""
    try:
        async for packets in _packets(connection):
            for packet in packets:
                if packet[0] in _STREAMS:
                    kept += packet[1 : 1 + max(0, limit - len(kept))]
    finally:
        connection.close()


async def _read_output(connection: socket.socket, outbox: _Outbox, wanted: set[int], is_multiplexed: bool) -> bool:
    """Read conmon to the end; True when it came to the end, False when the client is too slow and must go."""
    async for packets in _packets(connection):
        parts = []
        for packet in packets:
            if packet[0] in wanted:
                parts.append(stdcopy.frame(_STREAMS[packet[0]], packet[1:]) if is_multiplexed else packet[1:])
        if parts and not await outbox.put(b"".join(parts)):
            log.warning("attached client cut off: it took nothing for %d seconds", STALL_LIMIT)
            return False
    return True


async def _packets(connection: socket.socket) -> AsyncIterator[list[bytes]]:
    """Yield batches of what conmon sent, until it closes."""
    loop = asyncio.get_running_loop()
    resets = 0
    while True:
        try:
            packets = [await loop.sock_recv(connection, _PACKET)]
        except ConnectionResetError:
            # conmon left with input of ours unread. The kernel tells this once, before what is still queued for us.
            resets += 1
            if resets > 1:
                return
            continue
        size = len(packets[0])
        while packets[-1] and size < WRITE_LIMIT:
            try:
                packets.append(connection.recv(_PACKET))
            except (BlockingIOError, ConnectionResetError):
                break
            size += len(packets[-1])
        has_ended = not packets[-1]
        if has_ended:
            packets.pop()
        if packets:
            yield packets
        if has_ended:
            return


async def _copy_input(client: Duplex, connection: socket.socket, keys: DetachKeys) -> bool:
    """Copy the client's input until it half-closes; True when it typed the detach keys."""
    loop = asyncio.get_running_loop()
    is_open = True
    while data := await client.read():
        forward, has_detached = keys.feed(data)
        if is_open:
            is_open = await _send(loop, connection, forward)
        if has_detached:
            return True
    if is_open and await _send(loop, connection, keys.flush()):
        with contextlib.suppress(OSError):  # conmon has ended meanwhile
            connection.shutdown(socket.SHUT_WR)
    return False


async def _send(loop: asyncio.AbstractEventLoop, connection: socket.socket, data: bytes) -> bool:
    """Send stdin to conmon in packets that it takes whole; False when it takes no more."""
    for start in range(0, len(data), STDIN_LIMIT):
        try:
            await loop.sock_sendall(connection, data[start : start + STDIN_LIMIT])
        except OSError:
            return False
    return True


async def _drain(connection: socket.socket) -> None:
    """Keep a connection that no client uses any more: closing it would close the container's stdin."""
    try:
        async for _ in _packets(connection):
            pass
    finally:
        connection.close()


class _Outbox:
    """Output on its way to one client: bounded, written in order by `deliver`."""

    def __init__(self, client: Duplex) -> None:
        self._client = client
        self._parts: deque[bytes] = deque()
        self._size = 0
        self._is_finished = False
        self._has_data = asyncio.Event()
        self._has_room = asyncio.Event()
        self._is_done = asyncio.Event()
        self.is_delivered = False

    async def put(self, data: bytes) -> bool:
        """Add output; waits while the buffer is full, and returns False when it stays so for too long."""
        while self._size >= BUFFER_LIMIT:
            self._has_room.clear()
            try:
                async with asyncio.timeout(STALL_LIMIT):
                    await self._has_room.wait()
            except TimeoutError:
                return False
        self._parts.append(data)
        self._size += len(data)
        self._has_data.set()
        return True

    async def finish(self, *, timeout: float | None) -> None:
        """Say that nothing more comes, and wait until all is delivered; `timeout` seconds without progress end it."""
        self._is_finished = True
        self._has_data.set()
        while not self._is_done.is_set():
            before = self._size
            try:
                async with asyncio.timeout(timeout):
                    await self._is_done.wait()
            except TimeoutError:
                if self._size == before:
                    return

    async def deliver(self) -> None:
        """Write to the client until all is written after `finish`, or the client has gone."""
        try:
            while True:
                await self._has_data.wait()
                if not self._parts:
                    if self._is_finished:
                        self.is_delivered = True
                        return
                    self._has_data.clear()
                    continue
                data = self._take()
                await self._client.write(data)
                self._size -= len(data)
                self._has_room.set()
        except ConnectionError:
            return  # the client has gone
        finally:
            self._is_done.set()

    def _take(self) -> bytes:
        parts = [self._parts.popleft()]
        size = len(parts[0])
        while self._parts and size < WRITE_LIMIT:
            parts.append(self._parts.popleft())
            size += len(parts[-1])
        return b"".join(parts)
