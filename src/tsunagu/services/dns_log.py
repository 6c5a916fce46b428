"""Who asks the name server what: entries from the resolver, handed to whoever follows. Bounded everywhere.

The resolver writes a journal only of sandboxes that somebody follows; a reader that does not keep up loses entries and
is told how many. May import wire. Must never hold anybody up.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator

from tsunagu.wire import control
from tsunagu.wire.control import Asked

from .resolver import Resolver

READER_LIMIT = 4096  # entries that wait for one reader


class Reader:
    """One follower: entries in order, and how many it has missed since it was last told."""

    def __init__(self, sandbox: str) -> None:
        self.sandbox = sandbox  # "" for everybody
        self._entries: deque[Asked] = deque()
        self._missed = 0
        self._wake = asyncio.Event()

    def offer(self, entries: list[Asked], lost: int) -> None:
        self._missed += lost
        for entry in entries:
            if self.sandbox in ("", entry.sandbox):
                if len(self._entries) >= READER_LIMIT:
                    self._missed += 1
                else:
                    self._entries.append(entry)
        if self._entries or self._missed:
            self._wake.set()

    async def next(self) -> Asked | int:
        """Return the next entry, or how many were missed before it."""
        while True:
            if self._missed and not self._entries:
                missed, self._missed = self._missed, 0
                return missed
            if self._entries:
                return self._entries.popleft()
            self._wake.clear()
            await self._wake.wait()


class DnsLog:
    """Readers, and what the resolver is told to follow for their sake."""

    def __init__(self, resolver: Resolver) -> None:
        self._resolver = resolver
        self._readers: set[Reader] = set()
        resolver.on_seen = self._seen

    async def open(self, sandbox: str = "") -> Reader:
        """Begin to follow a sandbox, or (with "") all of them; returns once it is in force. `close` must follow."""
        reader = Reader(sandbox)
        self._readers.add(reader)
        self._tell()
        try:
            await self._resolver.settle()
        except BaseException:
            self.close(reader)
            raise
        return reader

    def close(self, reader: Reader) -> None:
        """Stop following; the last reader's end takes the journal off the resolver's way again."""
        self._readers.discard(reader)
        self._tell()

    async def follow(self, sandbox: str = "") -> AsyncIterator[Asked | int]:
        """Yield entries for ever, and now and then the number of those that were missed."""
        reader = await self.open(sandbox)
        try:
            while True:
                yield await reader.next()
        finally:
            self.close(reader)

    def _tell(self) -> None:
        wanted = {reader.sandbox for reader in self._readers}
        self._resolver.follow(control.Follow("" in wanted, sorted(wanted - {""})))

    def _seen(self, seen: control.Seen) -> None:
        entries = [Asked(*one) for one in seen.asked]
        for reader in self._readers:
            reader.offer(entries, seen.lost)
