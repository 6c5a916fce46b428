"""A readiness loop on epoll with timers: the resolver's only clock and its only way to wait.

Plain on purpose: an asyncio datagram protocol reaches a quarter of its rate (DESIGN §6). An exception of a handler is
counted and logged, never leaves the loop. Standard library only.
"""

from __future__ import annotations

import heapq
import select
import sys
import time
import traceback
from collections.abc import Callable

READ, WRITE = select.EPOLLIN, select.EPOLLOUT
GONE = select.EPOLLHUP | select.EPOLLERR  # both directions are closed, or the peer has reset
Handler = Callable[[int], None]


class Timer:
    """A call at a time; `cancel` makes it a no-op."""

    __slots__ = ("action",)

    def __init__(self, action: Callable[[], None]) -> None:
        self.action: Callable[[], None] | None = action

    def cancel(self) -> None:
        self.action = None


class Loop:
    """Handlers by file descriptor, called with the epoll mask; timers by time. `faults` counts exceptions."""

    def __init__(self) -> None:
        self._poll = select.epoll()
        self._handlers: dict[int, Handler] = {}
        self._timers: list[tuple[float, int, Timer]] = []
        self._serial = 0
        self.is_running = True
        self.faults = 0

    def watch(self, fd: int, handler: Handler, mask: int = READ) -> None:
        """Call `handler` whenever `fd` is ready."""
        self._handlers[fd] = handler
        self._poll.register(fd, mask)

    def change(self, fd: int, mask: int) -> None:
        """Wait for something else on a watched descriptor."""
        self._poll.modify(fd, mask)

    def redirect(self, fd: int, handler: Handler) -> None:
        """Let another handler serve a watched descriptor."""
        self._handlers[fd] = handler

    def forget(self, fd: int) -> None:
        """Stop watching; to be called before the descriptor is closed, since a duplicate elsewhere keeps it in
        epoll."""
        if self._handlers.pop(fd, None) is not None:
            self._poll.unregister(fd)

    def later(self, delay: float, action: Callable[[], None]) -> Timer:
        """Call `action` once, `delay` seconds from now."""
        timer = Timer(action)
        self._serial += 1
        heapq.heappush(self._timers, (time.monotonic() + delay, self._serial, timer))
        return timer

    def run(self) -> None:
        """Serve until `is_running` is False."""
        handlers, poll, timers = self._handlers, self._poll.poll, self._timers
        while self.is_running:
            timeout = None
            if timers:
                timeout = max(0.0, timers[0][0] - time.monotonic())
            for fd, mask in poll(timeout):
                handler = handlers.get(fd)
                if handler is None:
                    continue
                try:
                    handler(mask)
                except Exception:
                    self._fault()
            if timers:
                self._run_timers()

    def _run_timers(self) -> None:
        now = time.monotonic()
        while self._timers and self._timers[0][0] <= now:
            action = heapq.heappop(self._timers)[2].action
            if action is not None:
                try:
                    action()
                except Exception:
                    self._fault()

    def _fault(self) -> None:
        """Report the exception being handled; after the first hundred only count,
        so that a log cannot fill a disk."""
        self.faults += 1
        if self.faults <= 100:
            sys.stderr.write(traceback.format_exc())
            sys.stderr.flush()
