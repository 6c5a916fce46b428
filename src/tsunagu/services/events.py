"""The event bus behind `GET /events`: what happened, to whom, when. Bounded history, bounded readers.

A reader that does not keep up is cut off rather than allowed to hold memory: Docker's own bus drops silently, ours
ends the reader's stream so that the loss is visible.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator

import msgspec

HISTORY = 1024  # events kept for `--since`, as many as Docker keeps at least (256)
READER_LIMIT = 4096


class EngineEvent(msgspec.Struct, frozen=True, kw_only=True):
    """One line of `docker events`. `time_ns` is nanoseconds since the epoch, UTC."""

    type: str
    action: str
    id: str
    attributes: dict[str, str] = {}
    time_ns: int = 0


class Bus:
    """Publishes events to any number of readers. Used on the event loop only."""

    def __init__(self) -> None:
        self._history: deque[EngineEvent] = deque(maxlen=HISTORY)
        self._readers: set[asyncio.Queue[EngineEvent | None]] = set()

    @property
    def readers(self) -> int:
        return len(self._readers)

    def publish(self, event: EngineEvent) -> None:
        """Hand `event` to every reader and remember it."""
        self._history.append(event)
        for queue in list(self._readers):
            if queue.qsize() >= READER_LIMIT:
                self._readers.discard(queue)
                queue.put_nowait(None)
            else:
                queue.put_nowait(event)

    async def subscribe(self, since_ns: int | None = None, until_ns: int | None = None) -> AsyncIterator[EngineEvent]:
        """Yield remembered events from `since_ns` on, then new ones until `until_ns` (both nanoseconds, UTC).

        With `until_ns` in the past only remembered events come. Ends when the reader is too slow or the bus closes.
        """
        queue: asyncio.Queue[EngineEvent | None] = asyncio.Queue()
        past = [e for e in self._history if since_ns is not None and e.time_ns >= since_ns]
        self._readers.add(queue)
        try:
            for event in past:
                if until_ns is None or event.time_ns <= until_ns:
                    yield event
            while True:
                timeout = None if until_ns is None else until_ns / 1e9 - time.time()
                if timeout is not None and timeout <= 0:
                    return
                try:
                    event_or_end = await asyncio.wait_for(queue.get(), timeout)
                except TimeoutError:
                    return
                if event_or_end is None:
                    return
                yield event_or_end
        finally:
            self._readers.discard(queue)

    def close(self) -> None:
        """End every reader's stream."""
        for queue in self._readers:
            queue.put_nowait(None)
        self._readers.clear()
