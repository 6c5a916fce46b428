"""Real packets from any namespace to any address: which of many flows arrive, answers included.

Every party listens on TCP and echoes UDP; the kernel answers ICMP echo itself. All flows are under way at once. One
that is expected to arrive is given all the patience asked for; the others are sent again when those are done, on links
that are known to work by then, and get WINDOW to prove the expectation wrong.
"""

from __future__ import annotations

import select
import socket
import struct
import time
from collections.abc import Collection, Sequence
from contextlib import suppress
from typing import NamedTuple

from random_worlds import PORT, Built

WINDOW = 0.08  # seconds
AGAIN = 0.25  # datagrams that were expected are sent again after this
_ECHO_REQUEST = {4: 8, 6: 128}
_ECHO_REPLY = {4: 0, 6: 129}
_KINDS = {"tcp": socket.SOCK_STREAM, "udp": socket.SOCK_DGRAM, "icmp": socket.SOCK_RAW}


class Probe(NamedTuple):
    """One flow: from a party by its word, to an address."""

    source: str
    address: str
    protocol: str
    port: int = PORT

    @property
    def family(self) -> int:
        return 6 if ":" in self.address else 4


class Exchange:
    """Sends probes and listens for all that arrives."""

    def __init__(self, built: Built) -> None:
        self._built = built
        self._poll = select.epoll()
        self._servers: dict[int, tuple[str, socket.socket]] = {}
        self._senders: dict[tuple[str, str, int], socket.socket] = {}
        self._replies: dict[int, tuple[str, int, socket.socket]] = {}
        self._calls: dict[int, tuple[int, socket.socket]] = {}  # TCP connections that are being made: flow, socket
        self._probes: Sequence[Probe] = ()
        self._reached: set[int] = set()

    async def open(self) -> None:
        """Open the listening and the sending sockets of every party."""
        for word in self._built.paths:
            addresses = self._built.addresses(word)
            for family in (4, 6):
                listener = (await self._sockets(word, "tcp", family, 1))[0]
                if family == 6:
                    listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
                listener.bind(("::" if family == 6 else "0.0.0.0", PORT))
                listener.listen(512)
                self._serve("tcp", listener)
                own = [a for a in addresses if (":" in a) == (family == 6)]
                # one for each address, so that the echo comes from where the question went
                for address, server in zip(own, await self._sockets(word, "udp", family, len(own)), strict=True):
                    server.bind((address, PORT))
                    self._serve("udp", server)
                for protocol in ("udp", "icmp"):
                    sender = (await self._sockets(word, protocol, family, 1))[0]
                    self._senders[word, protocol, family] = sender
                    self._replies[sender.fileno()] = (protocol, family, sender)
                    self._poll.register(sender, select.EPOLLIN)

    async def _sockets(self, word: str, protocol: str, family: int, count: int) -> list[socket.socket]:
        number = socket.AF_INET6 if family == 6 else socket.AF_INET
        special = 0
        if protocol == "icmp":
            special = socket.IPPROTO_ICMPV6 if family == 6 else socket.IPPROTO_ICMP
        path = self._built.paths[word]
        if path is None:
            kind = _KINDS[protocol] | socket.SOCK_NONBLOCK
            return [socket.socket(number, kind, special) for _ in range(count)]
        return await self._built.kernel.open_sandbox_sockets(path, count, _KINDS[protocol], number, special)

    def _serve(self, protocol: str, server: socket.socket) -> None:
        self._servers[server.fileno()] = (protocol, server)
        self._poll.register(server, select.EPOLLIN)

    async def run(self, probes: Sequence[Probe], expected: Collection[int], patience: float) -> set[int]:
        """Return the indexes of the probes that arrived and were answered; those of `expected` are waited for, up to
        `patience` seconds."""
        while self._calls:  # what an earlier run gave up would go on trying
            self._calls.popitem()[1][1].close()
        while self._receive(0):  # and what arrived after its end belongs to it
            pass
        self._probes, self._reached = probes, set()
        wanted = set(expected)
        await self._send(range(len(probes)))
        deadline, again = time.monotonic() + patience, time.monotonic() + AGAIN
        while not wanted <= self._reached and time.monotonic() < deadline:
            self._receive(0.02)
            if time.monotonic() > again:
                missing = sorted(wanted - self._reached)
                await self._send([i for i in missing if probes[i].protocol != "tcp"])
                again = time.monotonic() + AGAIN
        await self._send([i for i in range(len(probes)) if i not in wanted])
        deadline = time.monotonic() + WINDOW
        while (left := deadline - time.monotonic()) > 0:
            self._receive(left)
        return self._reached

    async def _send(self, indexes: Collection[int]) -> None:
        calls: dict[tuple[str, int], list[int]] = {}
        for i in indexes:
            probe = self._probes[i]
            if probe.protocol == "tcp":
                calls.setdefault((probe.source, probe.family), []).append(i)
                continue
            data = b"%d" % i
            if probe.protocol == "icmp":
                data = _echo(probe.family, i)
            with suppress(OSError):  # no route, unreachable: it did not arrive
                sender = self._senders[probe.source, probe.protocol, probe.family]
                sender.sendto(data, (probe.address, probe.port if probe.protocol == "udp" else 0))
        for (word, family), group in calls.items():
            for i, sock in zip(group, await self._sockets(word, "tcp", family, len(group)), strict=True):
                with suppress(BlockingIOError):
                    try:
                        sock.connect((self._probes[i].address, self._probes[i].port))
                    except BlockingIOError:
                        self._calls[sock.fileno()] = (i, sock)
                        self._poll.register(sock, select.EPOLLOUT)
                        raise
                    except OSError:
                        sock.close()
                        continue
                    self._reached.add(i)
                    sock.close()
            self._receive(0)

    def _receive(self, timeout: float) -> bool:
        """Take what arrives within `timeout` seconds; False when nothing did."""
        ready = self._poll.poll(timeout)
        for descriptor, _ in ready:
            if descriptor in self._servers:
                self._answer(*self._servers[descriptor])
            elif descriptor in self._calls:
                i, sock = self._calls.pop(descriptor)
                self._poll.unregister(sock)
                if sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == 0:
                    self._reached.add(i)
                sock.close()
            else:
                self._collect(*self._replies[descriptor])
        return bool(ready)

    def _answer(self, protocol: str, server: socket.socket) -> None:
        with suppress(OSError):
            while True:
                if protocol == "tcp":
                    server.accept()[0].close()
                else:
                    data, peer = server.recvfrom(64)
                    server.sendto(data, peer)

    def _collect(self, protocol: str, family: int, sender: socket.socket) -> None:
        while True:
            try:
                data, peer = sender.recvfrom(256)
            except BlockingIOError:
                return
            except OSError:  # an ICMP error for something sent earlier
                continue
            if protocol == "udp":
                if peer[0] == self._probes[int(data)].address:  # an answer from elsewhere is none
                    self._reached.add(int(data))
                continue
            packet = data[(data[0] & 15) * 4 :] if family == 4 else data
            if packet[0] == _ECHO_REPLY[family]:
                self._reached.add(struct.unpack_from("!HH", packet, 4)[1])

    def close(self) -> None:
        for _, server in self._servers.values():
            server.close()
        for sender in self._senders.values():
            sender.close()
        for _, sock in self._calls.values():
            sock.close()
        self._poll.close()


def _echo(family: int, number: int) -> bytes:
    """An echo request with `number` as its sequence; the kernel fills in ICMPv6's checksum (RFC 3542 3.1)."""
    head = struct.pack("!BBHHH", _ECHO_REQUEST[family], 0, 0, 0x7473, number)
    if family == 6:
        return head
    total = sum(struct.unpack("!4H", head))
    total = (total & 0xFFFF) + (total >> 16)
    return head[:2] + struct.pack("!H", ~total & 0xFFFF) + head[4:]
