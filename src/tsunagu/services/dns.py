"""Names for those who look: the zone as a container sees it, and the answer that it would get, really asked for.

A question is asked through a socket opened inside the container's own sandbox, and the resolver's journal tells where
the answer came from. May import kernel, rules and wire; must never change anything.
"""

from __future__ import annotations

import asyncio
import secrets
import socket
import struct
import time
from collections.abc import AsyncIterator
from contextlib import suppress
from ipaddress import ip_address
from pathlib import Path

import msgspec

from tsunagu.kernel.network import NetworkKernel
from tsunagu.model.container import Container
from tsunagu.model.errors import Conflict, InvalidParameter, KernelFailure
from tsunagu.rules import names, zone
from tsunagu.rules.sandboxes import owner_of
from tsunagu.rules.zone import Entry
from tsunagu.wire import dns, dnstext
from tsunagu.wire.control import Asked

from .dns_log import DnsLog, Reader
from .engine import Engine
from .lifecycle import Lifecycle

ASK_SECONDS = 6.0  # the resolver's own budget for the outside is four
JOURNAL_SECONDS = 1.0  # until the journal must have told of a query that was answered


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """What a container's question brings. `origin` and `detail` are the words of `wire.control.Asked`; for a container
    without a name server of ours "resolv.conf" and the server that was asked. `rcode` is -1 when nobody answered.
    `hosts` are addresses in the container's /etc/hosts, which its libc reads before it asks anybody."""

    name: str
    qtype: int
    rcode: int = -1
    records: tuple[dnstext.Record, ...] = ()
    origin: str = "unanswered"
    detail: str = ""
    taken: int = 0  # microseconds, as the container sees it
    hosts: tuple[str, ...] = ()


class Dns:
    """Answers `GET /tsunagu/dns/…`."""

    def __init__(self, engine: Engine, kernel: NetworkKernel, lifecycle: Lifecycle, log: DnsLog) -> None:
        self._engine = engine
        self._kernel = kernel
        self._lifecycle = lifecycle
        self._log = log

    def zone(self, word: str = "") -> tuple[Entry, ...]:
        """Return the names that a container finds, or all there are. Raises NotFound, and Conflict for one without
        a name server of ours.
        """
        world = self._engine.world
        if not word:
            return zone.zone(world)
        container = world.container(word)
        self._check_running(container)
        if not names.needs_resolver(world, owner_of(world, container)):
            raise Conflict(
                f"{container.name} is on no network that has names",
                hint="connect it to a network of your own (network create, network connect)",
            )
        return zone.zone(world, container)

    def follow(self, word: str = "") -> AsyncIterator[Asked | int]:
        """Return what a container (or everybody) asks from now on. Raises NotFound."""
        world = self._engine.world
        return self._log.follow(owner_of(world, world.container(word)).id if word else "")

    async def ask(self, word: str, name: str, kind: str = "A") -> Answer:
        """Ask for a name as a process in the container would.

        Raises NotFound, InvalidParameter, Conflict, KernelFailure.
        """
        world = self._engine.world
        container = world.container(word)
        qtype, wire = dnstext.type_number(kind or "A"), _wire_name(name, kind)
        if qtype is None:
            raise InvalidParameter(f"invalid record type: {kind}", hint="for example A, AAAA, PTR, MX, TXT, TYPE257")
        if wire is None:
            raise InvalidParameter(f"invalid name: {name}")
        self._check_running(container)
        owner = owner_of(world, container)
        hosts = _hosts(container, name) if qtype in (dns.A, dns.AAAA, dnstext.TYPES["ANY"]) else ()
        blank = Answer(name=dnstext.name_text(wire), qtype=qtype, hosts=hosts)
        if not names.needs_resolver(world, owner):
            return await self._ask_others(container, owner, blank, wire)
        reader = await self._log.open(owner.id)
        try:
            return await self._ask_ours(owner, blank, wire, reader)
        finally:
            self._log.close(reader)

    # ---- asking

    async def _ask_ours(self, owner: Container, blank: Answer, wire: bytes, reader: Reader) -> Answer:
        started = time.monotonic()
        reply, port = await self._exchange(owner, names.RESOLVER_ADDRESS, wire, blank.qtype)
        taken = int((time.monotonic() - started) * 1e6)
        if not reply:
            return blank
        made = msgspec.structs.replace(blank, taken=taken, **_said(reply))
        with suppress(TimeoutError):
            async with asyncio.timeout(JOURNAL_SECONDS):
                while True:
                    entry = await reader.next()
                    if isinstance(entry, Asked) and (entry.port, entry.qtype) == (port, blank.qtype):
                        return msgspec.structs.replace(made, origin=entry.origin, detail=entry.detail)
        return msgspec.structs.replace(made, origin="", detail="")

    async def _ask_others(self, container: Container, owner: Container, blank: Answer, wire: bytes) -> Answer:
        """The container's libc asks the servers of its resolv.conf by itself; so the first one is asked here."""
        mode = owner.host.network_mode
        text = names.resolv_conf(_host_file(), container, is_default_bridge=mode != "host")
        servers = names.parse_resolv_conf(text).servers
        if not servers or mode == "none":
            return msgspec.structs.replace(blank, origin="no-server")
        started = time.monotonic()
        reply, _ = await self._exchange(owner, servers[0], wire, blank.qtype)
        taken = int((time.monotonic() - started) * 1e6)
        found = _said(reply) if reply else {}
        return msgspec.structs.replace(blank, origin="resolv.conf", detail=servers[0], taken=taken, **found)

    async def _exchange(self, owner: Container, server: str, wire: bytes, qtype: int) -> tuple[bytes, int]:
        """Return the reply (b"" for none) and the port that was asked from. Raises KernelFailure."""
        family = ip_address(server.partition("%")[0]).version
        number = socket.AF_INET6 if family == 6 else socket.AF_INET
        if owner.host.network_mode == "host":
            sock = socket.socket(number, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
        else:
            path = self._lifecycle.sandboxes.path(owner.id)
            (sock,) = await self._kernel.open_sandbox_sockets(path, 1, socket.SOCK_DGRAM, number, 0)
        asked = dns.question(wire, qtype)
        identifier = secrets.token_bytes(2)
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(ASK_SECONDS):
                await loop.sock_connect(sock, (server, 53))
                port = sock.getsockname()[1]
                await loop.sock_sendall(sock, identifier + struct.pack("!5H", 0x0100, 1, 0, 0, 0) + asked)
                while True:
                    reply = await loop.sock_recv(sock, 65535)
                    if dns.answers_question(reply, identifier, asked):
                        return reply, port
        except (TimeoutError, OSError):
            return b"", 0
        finally:
            sock.close()

    @staticmethod
    def _check_running(container: Container) -> None:
        if not container.is_running:
            raise Conflict(f"container {container.name} is not running", hint=f"tsunagu start {container.name}")


def _wire_name(name: str, kind: str) -> bytes | None:
    """Return the wire form of a name; for PTR an address will do."""
    if kind.upper() == "PTR":
        with suppress(ValueError):
            return dns.reverse_name(ip_address(name).packed)
    return dns.encode_name(name.removesuffix("."))


def _said(reply: bytes) -> dict[str, object]:
    try:
        found = dnstext.records(reply)
    except dns.Malformed as error:
        raise KernelFailure(f"the answer is malformed: {error}") from error
    return {"rcode": reply[3] & 15, "records": tuple(found)}


def _hosts(container: Container, name: str) -> tuple[str, ...]:
    """Return what the container's /etc/hosts has for a name, as far as the engine wrote it (`--add-host`)."""
    wanted = name.removesuffix(".").lower()
    entries = map(names.parse_extra_host, container.host.extra_hosts or ())
    return tuple(address for known, address in entries if known.lower() == wanted)


def _host_file() -> str:
    try:
        return Path("/etc/resolv.conf").read_text(errors="replace")
    except OSError:
        return ""
