"""What followed sandboxes ask and are told, for somebody who looks (`tsunagu dns log`).

Costs nothing while nobody does: a followed sandbox gets other handlers in place of its usual ones. And it holds up
nobody: entries wait in a short list for the next moment, more than so many in a second are only counted, and so are
those that the engine is too slow to take. Imports `wire` and the resolver's own modules.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from tsunagu.wire import control, dns, dnstext

from . import answers
from .forward import Request
from .loop import Loop

if TYPE_CHECKING:
    from .sandbox import Sandbox

_RATE = 2000  # entries in a second
_PIECE = 16  # entries in one message: each may have some 2,500 bytes, a message 60,000
_PAUSE = 0.02  # seconds for which entries are gathered
_MOST_ANSWERS, _LONGEST = 8, 200  # of one entry: answers, and characters of one


class Journal:
    """Gathers entries and hands them to `tell`, which refuses what it cannot take."""

    def __init__(self, loop: Loop) -> None:
        self.tell: Callable[[control.Seen], bool] = lambda _message: False
        self._loop = loop
        self._entries: list[control.Asked] = []
        self._lost = 0
        self._second, self._in_second = 0, 0
        self._is_waiting = False

    def add(self, entry: control.Asked) -> None:
        second = entry.time // 1_000_000_000
        if second != self._second:
            self._second, self._in_second = second, 0
        self._in_second += 1
        if self._in_second > _RATE:
            self._lost += 1
        else:
            self._entries.append(entry)
        if not self._is_waiting:
            self._is_waiting = True
            self._loop.later(_PAUSE, self._flush)

    def _flush(self) -> None:
        self._is_waiting = False
        entries, self._entries = self._entries, []
        for start in range(0, max(len(entries), 1), _PIECE):
            piece = entries[start : start + _PIECE]
            if self.tell(control.Seen(self._lost, piece)):
                self._lost = 0
            else:
                self._lost += len(piece)


class Followed:
    """The handlers of one sandbox while it is followed: what the usual ones do, one query at a time, and an entry for
    each."""

    def __init__(self, sandbox: Sandbox, journal: Journal, forward: Callable[[Sandbox, Request], None]) -> None:
        self._sandbox = sandbox
        self._journal = journal
        self._forward = forward
        self._asking: list[Request] = []  # what the query that is being resolved became, if it is forwarded

    def on_udp(self, _mask: int) -> None:
        """Answer the datagrams that are waiting."""
        sandbox = self._sandbox
        batch = sandbox.batch
        count = batch.receive(sandbox.udp.fileno())
        sandbox.queries += count
        # the buffers may be used again by what a query leads to
        for data, peer in [(batch.data(i), batch.peer(i)) for i in range(count)]:
            deliver = partial(sandbox.send, peer)
            reply = self._resolve(data, 0, deliver, peer)
            if reply is not None:
                deliver(reply)

    def resolve(self, data: bytes, tcp_limit: int, deliver: Callable[[bytes], None]) -> bytes | None:
        """Stand in for `Sandbox.resolve` towards connections."""
        return self._resolve(data, tcp_limit, deliver, ("", 0))

    def forward(self, sandbox: Sandbox, request: Request) -> None:
        """Stand in for the server's decision where to forward, to remember the request."""
        self._asking.append(request)
        self._forward(sandbox, request)

    def _resolve(
        self, data: bytes, tcp_limit: int, deliver: Callable[[bytes], None], peer: tuple[str, int]
    ) -> bytes | None:
        started = time.monotonic_ns()
        asking = self._asking = []

        def later(reply: bytes) -> None:
            self._note(data, peer, reply, bool(tcp_limit), started, asking[0].origin)
            deliver(reply)

        reply = self._sandbox.resolve(data, tcp_limit, later)
        if reply is not None:
            self._note(data, peer, reply, bool(tcp_limit), started, None)
        elif not asking:
            self._note(data, peer, b"", bool(tcp_limit), started, None)
        return reply

    def _note(
        self,
        data: bytes,
        peer: tuple[str, int],
        reply: bytes,
        is_tcp: bool,
        started: int,
        origin: tuple[str, str] | None,
    ) -> None:
        taken = (time.monotonic_ns() - started) // 1000
        name, qtype = "", 0
        try:
            query = dns.Query(data)
        except dns.Malformed:
            origin = "malformed", ""
        else:
            name, qtype = dnstext.name_text(query.name), query.qtype
            origin = origin or self._origin(query)
        try:
            shown = [record.text[:_LONGEST] for record in dnstext.records(reply)[:_MOST_ANSWERS]] if reply else []
        except dns.Malformed:
            shown = []
        rcode = reply[3] & 15 if len(reply) > 3 else -1
        self._journal.add(
            control.Asked(
                self._sandbox.name, time.time_ns(), peer[0], peer[1], is_tcp, name, qtype, rcode, shown, *origin, taken
            )
        )

    def _origin(self, query: dns.Query) -> tuple[str, str]:
        """Return where an answer of our own comes from."""
        sight = self._sandbox.sight
        place = answers.holder(query, sight.tables)
        if place < 0:
            return ("localhost" if query.name.endswith(b"\x09localhost\0") else "subnet"), ""
        network = sight.origins[place] if place < len(sight.origins) else ""
        return ("network", network) if network else ("link", "")
