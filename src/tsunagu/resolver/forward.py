"""Ask the outside: one flight per question, raced over the servers, shared by everybody who asks the same.

Next server after 300 ms of silence, at once after a refusal or an error; SERVFAIL and REFUSED try the next,
NXDOMAIN is
final (Docker). Bytes that do not answer our question are ignored until the deadline (CVE-2023-29483). The whole
budget is below the five seconds of a libc. Imports `wire` and the resolver's own modules.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator

from tsunagu.wire import dns

from . import answers
from .loop import READ, WRITE, Loop, Timer
from .upstream import TCP, UDP, Pool, Upstream, random_id

MAX_WAITING = 1024  # queries of one sandbox that wait for the outside
_MAX_FLIGHTS = 8192
_RACE = 0.3  # seconds of silence until the next server is asked as well
_AGAIN = 1.0  # until the first is asked again: a datagram may have been lost
_BUDGET = 4.0
_SHORT_BUDGET = 1.5  # for a single label, or while every server is silent
_REDIRECTED = (dns.FORMERR, dns.SERVFAIL, dns.NOTIMP, dns.REFUSED)


class Request:
    """One query of one client that was not ours to answer. `deliver` takes the reply, once: every request is
    finished."""

    __slots__ = ("_deliver", "data", "is_tcp", "limit", "origin", "query")

    def __init__(
        self, query: dns.Query, data: bytes, limit: int, deliver: Callable[[bytes], None], *, is_tcp: bool
    ) -> None:
        self.query = query
        self.data = data
        self.limit = limit
        self._deliver = deliver
        self.is_tcp = is_tcp
        self.origin = ("", "")  # of the answer, and its detail: the words of control.Asked

    def finish(self, reply: bytes) -> None:
        """Deliver a reply that was made for this very query."""
        self._deliver(reply)

    def relay(self, reply: bytes) -> None:
        """Deliver an upstream reply under our client's id and in its spelling, cut when it cannot take as much."""
        query = self.query
        if len(reply) > self.limit:
            self.finish(dns.reply(query, dns.NOERROR, (), self.limit, flags=dns.RA | dns.TC))
            return
        self.finish(query.id + reply[2 : dns.HEADER] + query.asked + reply[dns.HEADER + len(query.asked) :])


class Forwarder:
    """All flights. `counters` are totals."""

    def __init__(self, loop: Loop) -> None:
        self.loop = loop
        self.flights: dict[object, Flight] = {}
        self.counters = dict.fromkeys(("forwarded", "from_cache", "shared", "refused", "unanswered", "junk"), 0)

    def submit(self, pool: Pool, request: Request, waiting: int) -> None:
        """Answer `request` from what is kept, from a flight under way, or from a new one.

        `waiting` is the number of its sandbox's queries that wait already.
        """
        query = request.query
        rest = request.data[dns.HEADER + len(query.asked) :]
        key = (id(pool), request.is_tcp, request.data[2:12], query.key, rest)
        if (kept := pool.kept.get(key)) is not None:
            self.counters["from_cache"] += 1
            request.origin = ("cache", "")
            request.relay(kept)
            return
        if waiting >= MAX_WAITING or len(self.flights) >= _MAX_FLIGHTS:
            self.counters["refused"] += 1
            request.origin = ("refused", "")
            request.finish(dns.reply(query, dns.REFUSED, (), request.limit))
            return
        flight = self.flights.get(key)
        if flight is None:
            flight = self.flights[key] = Flight(self, pool, key, request)
            self.counters["forwarded"] += 1
            if flight.is_hopeless and query.is_single_label:
                # Every server is silent: the flight goes on as a probe, the client need not wait for it.
                request.origin = ("unanswered", "")
                request.finish(answers.refusal(query, request.limit))
                flight.start()
                return
            flight.requests.append(request)
            flight.start()
        else:
            self.counters["shared"] += 1
            flight.requests.append(request)

    def abandon(self, pool: Pool) -> None:
        """End every flight of a pool without an answer: its sandbox has gone."""
        for flight in [flight for flight in self.flights.values() if flight.pool is pool]:
            flight.end()


class Flight:
    """One question on its way to one or more servers, for one or more clients."""

    def __init__(self, forwarder: Forwarder, pool: Pool, key: object, first: Request) -> None:
        self.forwarder = forwarder
        self.pool = pool
        self.key = key
        self.requests: list[Request] = []
        self.query = first.query
        self.data = first.data
        self.kind = TCP if first.is_tcp else UDP
        # What may be kept: a reply to an EDNS query with options (a cookie) is for that client only.
        self._is_keepable = len(first.data) - dns.HEADER - len(first.query.asked) <= 11
        order = pool.preference()
        self.is_hopeless = all(server.has_failed for server in order)
        self._plan: Iterator[tuple[Upstream, float]] = iter(
            [(s, _AGAIN if s is order[-1] else _RACE) for s in order] + [(s, _AGAIN) for s in order]
        )
        self._attempts: list[Attempt] = []
        self._timers: list[Timer] = []
        self._next: Timer | None = None
        self._refused: bytes | None = None  # the last reply that made us try another server
        self._refuser = ""
        self._is_over = False

    def start(self) -> None:
        budget = _SHORT_BUDGET if self.is_hopeless or self.query.is_single_label else _BUDGET
        self._timers.append(self.forwarder.loop.later(budget, self._give_up))
        self.launch()

    def launch(self) -> None:
        """Ask the next server of the plan, and set the time for the one after it."""
        if self._next is not None:
            self._next.cancel()
            self._next = None
        while not self._is_over:
            step = next(self._plan, None)
            if step is None:
                if not self._attempts:
                    self._give_up()
                return
            server, patience = step
            attempt = Attempt(self, server)
            self._attempts.append(attempt)
            if attempt.open():
                self._next = self.forwarder.loop.later(patience, self.launch)
                return
            self._attempts.remove(attempt)
            server.failed()

    def replied(self, attempt: Attempt, data: bytes) -> None:
        """A server answered our question."""
        attempt.server.answered()
        try:
            scan = dns.Scan(data)
        except dns.Malformed:
            self.failed(attempt)
            return
        if scan.rcode in _REDIRECTED:
            self._refused, self._refuser = data, attempt.server.address
            self._leave(attempt)
            return
        # Whoever was asked before and has said nothing is slower than one that was asked later.
        for other in self._attempts[: self._attempts.index(attempt)]:
            other.server.failed()
        if self._is_keepable and scan.rcode in (dns.NOERROR, dns.NXDOMAIN):
            self.pool.kept.put(self.key, data, scan)
        requests = self.requests
        self.end()
        for request in requests:
            request.origin = ("server", attempt.server.address)
            request.relay(data)

    def failed(self, attempt: Attempt) -> None:
        """A server cannot be reached, or sends nonsense."""
        attempt.server.failed()
        self._leave(attempt)

    def _leave(self, attempt: Attempt) -> None:
        attempt.close()
        if attempt in self._attempts:
            self._attempts.remove(attempt)
        self.launch()

    def _give_up(self) -> None:
        if self._is_over:
            return
        for attempt in self._attempts:
            attempt.server.failed()
        if self._refused is None:
            self.forwarder.counters["unanswered"] += 1
        requests, refused = self.requests, self._refused
        self.end()
        for request in requests:
            request.origin = ("server", self._refuser) if refused is not None else ("unanswered", "")
            if refused is not None:
                request.relay(refused)
            elif self.query.is_single_label:
                request.finish(dns.reply(request.query, dns.NXDOMAIN, (), request.limit))
            else:
                request.finish(dns.reply(request.query, dns.SERVFAIL, (), request.limit))

    def end(self) -> None:
        """Forget the flight; closes what is open."""
        self._is_over = True
        self.requests = []
        self.forwarder.flights.pop(self.key, None)
        for timer in (*self._timers, *([self._next] if self._next else [])):
            timer.cancel()
        attempts, self._attempts = self._attempts, []
        for attempt in attempts:
            attempt.close()


class Attempt:
    """One question to one server over one socket, UDP or TCP."""

    def __init__(self, flight: Flight, server: Upstream) -> None:
        self.flight = flight
        self.server = server
        self._id = random_id()
        self._socket: socket.socket | None = None
        self._is_closed = False
        self._outgoing = b""
        self._incoming = b""

    def open(self) -> bool:
        """Send the question, or wait for a socket; False when the server cannot be reached."""
        pool, kind = self.flight.pool, self.flight.kind
        try:
            self._socket = pool.borrow(self.server, kind, self._resume)
        except OSError:
            return False
        return self._socket is None or self._begin(self._socket)

    def _resume(self) -> None:
        """A socket came back: take it, or pass it on when this attempt is over."""
        if self._is_closed:
            return
        if not self.open():
            self.flight.failed(self)

    def _begin(self, sock: socket.socket) -> bool:
        loop = self.flight.forwarder.loop
        message = self._id + self.flight.data[2:]
        try:
            if self.flight.kind == UDP:
                sock.connect(self.server.target)
                sock.send(message)
                loop.watch(sock.fileno(), self._on_udp)
            else:
                self._outgoing = len(message).to_bytes(2, "big") + message
                sock.connect_ex(self.server.target)  # its outcome is reported as readiness
                loop.watch(sock.fileno(), self._on_tcp, WRITE)
        except OSError:
            self.close()
            return False
        return True

    def _on_udp(self, _mask: int) -> None:
        sock = self._socket
        for _ in range(16):
            if sock is None or self._is_closed:
                return
            try:
                data = sock.recv(65535)
            except BlockingIOError:
                return
            except OSError:
                self.flight.failed(self)
                return
            if dns.answers_question(data, self._id, self.flight.query.asked):
                self.flight.replied(self, data)
                return
            self.flight.forwarder.counters["junk"] += 1

    def _on_tcp(self, _mask: int) -> None:
        sock = self._socket
        if sock is None or self._is_closed:
            return
        try:
            if self._outgoing:
                self._outgoing = self._outgoing[sock.send(self._outgoing) :]
                if not self._outgoing:
                    self.flight.forwarder.loop.change(sock.fileno(), READ)
                return
            data = sock.recv(65536)
        except BlockingIOError:
            return
        except OSError:
            self.flight.failed(self)
            return
        self._incoming += data
        length = int.from_bytes(self._incoming[:2], "big")
        if len(self._incoming) >= 2 + length and len(self._incoming) >= 2:
            reply = self._incoming[2 : 2 + length]
            if dns.answers_question(reply, self._id, self.flight.query.asked):
                self.flight.replied(self, reply)
            else:
                self.flight.failed(self)
        elif not data:
            self.flight.failed(self)

    def close(self) -> None:
        """Give the socket back. Safe to call twice."""
        self._is_closed = True
        sock, self._socket = self._socket, None
        if sock is not None:
            self.flight.forwarder.loop.forget(sock.fileno())
            self.flight.pool.give_back(sock)
