"""A connection that has left HTTP: the raw byte stream behind `attach` and `exec start`.

Fulfils `services.duplex.Duplex`. The client's half-close is seen as b"" from `read` while writing goes on, which is how
`echo data | docker run -i` works. May import asyncio only.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable

READ_LIMIT = 256 << 10  # bytes from the client kept for a slow reader before reading stops


class Hijacked:
    """Both directions of a hijacked connection. Made by `Connection.hijack`."""

    def __init__(
        self,
        send: Callable[[bytes], Awaitable[None]],
        pause: Callable[[], None],
        resume: Callable[[], None],
        linger: Callable[[], None],
    ) -> None:
        self._send = send
        self._pause = pause
        self._resume = resume
        self._linger = linger
        self._input: deque[bytes] = deque()
        self._size = 0
        self._has_ended = False
        self._is_closed = False
        self._wake: asyncio.Future[None] | None = None

    def feed(self, data: bytes) -> None:
        """Take bytes from the client (called by the connection)."""
        self._input.append(data)
        self._size += len(data)
        if self._size >= READ_LIMIT:
            self._pause()
        self._notify()

    def feed_end(self) -> None:
        """The client has half-closed or gone away (called by the connection)."""
        self._has_ended = True
        self._notify()

    def _notify(self) -> None:
        if self._wake is not None and not self._wake.done():
            self._wake.set_result(None)

    async def read(self) -> bytes:
        """Return the next bytes from the client; b"" once it has half-closed or gone away, or after `close`."""
        while not self._input:
            if self._has_ended or self._is_closed:
                return b""
            self._wake = asyncio.get_running_loop().create_future()
            await self._wake
        data = self._input.popleft()
        self._size -= len(data)
        if self._size < READ_LIMIT:
            self._resume()
        return data

    async def write(self, data: bytes) -> None:
        """Send bytes, waiting while the client is slow; raises ConnectionError once it has gone away."""
        if self._is_closed:
            raise ConnectionResetError("the stream is closed")
        await self._send(data)

    async def close(self) -> None:
        """Flush what was written and close both directions. Safe to call twice."""
        self.finish()

    def finish(self) -> None:
        """Close; the transport sends what is still buffered in the background."""
        if not self._is_closed:
            self._is_closed = True
            self._notify()
            self._linger()
