"""Why A cannot reach B: first what the rules say (`rules.reach`), then what is really there, asked inside both of them.

The questions of the second kind are those that A would ask itself: the name server at 127.0.0.11, a connection. B's
listening sockets are read from its namespace. No tool inside the images is needed. May import kernel, rules and wire;
must never change anything.
"""

from __future__ import annotations

import asyncio
import errno
import os
import secrets
import socket
import struct
from collections.abc import Sequence
from contextlib import suppress
from ipaddress import ip_address

from msgspec.structs import replace

from tsunagu.kernel import probes
from tsunagu.kernel.network import NetworkKernel
from tsunagu.kernel.probes import Listener
from tsunagu.model.container import Container
from tsunagu.model.errors import InvalidParameter, KernelFailure, NotFound
from tsunagu.model.world import World
from tsunagu.rules import entrances, lookup, names, remedies
from tsunagu.rules.flows import NEIGHBOUR, OUTSIDE, Flow, Reach, Step, Unknown, source_of
from tsunagu.rules.policy import Reason
from tsunagu.rules.reach import reach
from tsunagu.rules.reasons import Fact
from tsunagu.rules.sandboxes import owner_of, sharers
from tsunagu.wire import dns
from tsunagu.wire.nft_listing import Count

from .asking import ask
from .bundles import Bundles
from .engine import Engine
from .firewall import Firewall
from .lifecycle import Lifecycle
from .listening import is_any, is_loopback, port_of, shown, takes
from .surroundings import host_of

CONNECT_SECONDS = 2.0
ASK_SECONDS = 2.0
PROTOCOLS = ("tcp", "udp", "icmp")
_COMPOSE_PROJECT = "com.docker.compose.project"
# A name without an address here is asked for elsewhere, by the name server and by way of the search list.
_NO_NAME_HERE = frozenset(
    {Fact.NAME_UNKNOWN, Fact.NAME_IN_OTHER_NETWORK, Fact.NOT_RUNNING, Fact.RESTARTING, Reason.NO_SHARED_NETWORK}
)


class Verdict(Reach, frozen=True, kw_only=True):
    """A `Reach` that was tried: `warnings` are true although the traffic arrives."""

    warnings: tuple[str, ...] = ()
    counter: Count | None = None  # of the rule that decided, None where none did


class _Wrong(Exception):
    """A probe found the cause."""

    def __init__(self, fact: Fact, hint: str = "", **words: object) -> None:
        super().__init__(fact.code)
        self.fact = fact
        self.hint = hint
        self.sentence = fact.sentence.format(**words)


class Why:
    """Answers `GET /tsunagu/why`."""

    def __init__(
        self, engine: Engine, kernel: NetworkKernel, lifecycle: Lifecycle, firewall: Firewall, bundles: Bundles
    ) -> None:
        self._bundles = bundles
        self._engine = engine
        self._kernel = kernel
        self._lifecycle = lifecycle
        self._firewall = firewall

    async def explain(self, source: str, target: str, *, protocol: str = "", port: int = 0) -> Verdict:
        """Return whether `source` reaches `target`, and the first cause if not.

        Without a port the way is judged and tried by an echo request. Raises NotFound for an unknown source,
        InvalidParameter for a protocol or a port that cannot be.
        """
        protocol = protocol or ("tcp" if port else "icmp")
        if protocol not in PROTOCOLS:
            raise InvalidParameter(f"invalid protocol: {protocol}", hint=f"one of {', '.join(PROTOCOLS)}")
        if not 0 <= port <= 65535:
            raise InvalidParameter(f"invalid port: {port}", hint="a number from 1 to 65535")
        if not target:
            raise InvalidParameter("nothing to reach was named")
        host = await host_of(self._kernel)
        world = self._engine.world
        flow = Flow(source=source, target=target, protocol=protocol, port=port)
        try:
            said = reach(world, flow, host)
        except Unknown as error:
            raise NotFound(str(error), hint=f"the containers there are: {remedies.PROGRAM} ps --all") from error
        probe = _Probe(self._kernel, self._lifecycle, world, flow)
        if said.reason is Fact.NAME_UNKNOWN and "." in target and (found := await probe.ask_outside()):
            said = reach(world, replace(flow, target=found[0]), host)
            note = Step(True, f"{target} is no container; its name server answers {', '.join(found)}")
            said = replace(said, steps=(note, *said.steps))
        elif said.reason in _NO_NAME_HERE and "." not in target and (caught := await probe.caught(self._bundles)):
            full, addresses = caught
            step = Step(True, said.sentence)
            said = _elsewhere(said, step, source=source, name=target, full=full, addresses=", ".join(addresses))
        verdict = await probe.complete(said)
        if said.rule is not None:
            with suppress(KernelFailure):  # it is for the eyes only
                verdict = replace(verdict, counter=await self._firewall.counter(said.rule))
        return verdict


class _Probe:
    """The living half of one answer."""

    def __init__(self, kernel: NetworkKernel, lifecycle: Lifecycle, world: World, flow: Flow) -> None:
        self._kernel = kernel
        self._lifecycle = lifecycle
        self._world = world
        self._flow = flow
        self._steps: list[Step] = []
        self._warnings: list[str] = []
        party = source_of(world, flow.source)
        self._is_host = party.is_host
        self._source = owner_of(world, party.container) if party.container is not None else None

    async def complete(self, said: Reach) -> Verdict:
        """Probe what `reach` allowed; what it refused stays as it is."""
        self._steps = list(said.steps)
        verdict = Verdict(
            allowed=said.allowed, reason=said.reason, sentence=said.sentence, steps=said.steps, hint=said.hint,
            addresses=said.addresses, holders=said.holders, rule=said.rule,
        )  # fmt: skip
        if not said.allowed:
            return verdict
        try:
            await self._ask(said)
            await self._sizes(said)
            self._listening(said)
            await self._try(said)
        except _Wrong as wrong:
            self._steps.append(Step(False, wrong.sentence, wrong.fact.code))
            verdict = replace(verdict, allowed=False, reason=wrong.fact, sentence=wrong.sentence, hint=wrong.hint)
        return replace(verdict, steps=tuple(self._steps), warnings=tuple(self._warnings))

    def _note(self, text: str) -> None:
        self._steps.append(Step(True, text))

    # ---- the name server

    async def ask_outside(self) -> list[str]:
        """Return what A's name server says about a name that is not ours; [] when it says nothing."""
        if self._source is None or self._is_host or not names.needs_resolver(self._world, self._source):
            return []
        with suppress(OSError, KernelFailure, dns.Malformed):
            return await self._question(self._flow.target, 4)
        return []

    async def caught(self, bundles: Bundles) -> tuple[str, list[str]] | None:
        """Return the full name and the addresses under which A finds a name that has none here: what its libc asks,
        the name itself and then the domains of its search list, asked until one answers."""
        asking = source_of(self._world, self._flow.source).container
        if self._source is None or asking is None or not asking.is_running:
            return None
        if self._is_host or not names.needs_resolver(self._world, self._source):
            return None
        name = self._flow.target
        if lookup.resolve(self._world, self._source, name).holders:
            return None
        with suppress(OSError, KernelFailure, dns.Malformed):  # a server that is silent catches nothing
            for domain in ("", *bundles.search_domains(self._source.id)):
                full = f"{name}.{domain.strip('.')}" if domain.strip(".") else name
                if found := await self._question(full, 4) or await self._question(full, 6):
                    return full, found
        return None

    async def _ask(self, said: Reach) -> None:
        """A's own name server must give the addresses that the tables hold."""
        name = self._flow.target
        if self._source is None or self._is_host or not said.holders or _is_address(name):
            return
        if not names.needs_resolver(self._world, self._source):
            return
        found = lookup.resolve(self._world, self._source, name)
        if not found.holders:
            return
        for family in (4, 6):
            wanted = {e.ipv4 if family == 4 else e.ipv6 for e in (h.endpoint for h in found.holders)} - {""}
            if not wanted:
                continue
            try:
                answered = await self._question(name, family)
            except (OSError, KernelFailure, dns.Malformed) as error:
                answer = "no answer" if isinstance(error, TimeoutError) else str(error)
                raise self._silent(name, answer) from error
            if set(answered) != wanted:
                raise self._silent(name, ", ".join(answered) or "no address")
            self._note(f"the name server in {self._source.name} answers {', '.join(answered)} for {name}")
        self._clash(found)

    def _silent(self, name: str, answer: str) -> _Wrong:
        assert self._source is not None
        hint = f"{remedies.PROGRAM} restart {self._source.name}"
        return _Wrong(Fact.DNS_SILENT, hint, source=self._source.name, name=name, answer=answer)

    def _clash(self, found: lookup.Lookup) -> None:
        if len(found.holders) < 2:
            return
        network = self._world.networks[found.network_id].name
        listed = ", ".join(h.container.name for h in found.holders)
        text = (
            f"{self._flow.target} is the name of {len(found.holders)} containers on {network} ({listed}): "
            "connections go to any of them"
        )
        self._warnings.append(text + _projects([h.container for h in found.holders]))

    async def _question(self, name: str, family: int) -> list[str]:
        """Ask 127.0.0.11 for addresses from inside A. Raises OSError, TimeoutError, KernelFailure."""
        (sock,) = await self._sockets(socket.SOCK_DGRAM, 4)
        return await ask(sock, name, family, ASK_SECONDS)

    async def _sockets(self, kind: int, family: int, protocol: int = 0) -> list[socket.socket]:
        """A socket of A's own: opened inside its sandbox."""
        number = socket.AF_INET6 if family == 6 else socket.AF_INET
        if self._source is None or self._is_host:
            return [socket.socket(number, kind | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC, protocol)]
        path = self._lifecycle.sandboxes.path(self._source.id)
        return await self._kernel.open_sandbox_sockets(path, 1, kind, number, protocol)

    # ---- packet sizes

    async def _sizes(self, said: Reach) -> None:
        """Two interfaces on one network with different packet sizes lose what is larger than the smaller one."""
        if self._source is None or self._is_host or said.landing:  # by way of the host: no network is shared
            return
        for holder in said.holders:
            target = self._world.containers[holder]
            if target.id == self._source.id or target.host.network_mode == "host":
                continue
            with suppress(KernelFailure):
                mine = await self._kernel.sandbox_mtus(self._lifecycle.sandboxes.path(self._source.id))
                yours = await self._kernel.sandbox_mtus(self._lifecycle.sandboxes.path(target.id))
                self._compare(target, mine, yours)

    def _compare(self, target: Container, mine: dict[str, int], yours: dict[str, int]) -> None:
        assert self._source is not None
        for endpoint in self._source.endpoints:
            other = target.endpoint_on(endpoint.network_id)
            if other is None or not endpoint.is_joined or not other.is_joined:
                continue
            sizes = mine.get(endpoint.ifname), yours.get(other.ifname)
            if None in sizes or sizes[0] == sizes[1]:
                continue
            words = {
                "source": self._source.name, "target": target.name, "source_mtu": sizes[0], "target_mtu": sizes[1],
            }  # fmt: skip
            if self._flow.protocol == "udp":  # TCP agrees on the smaller one, a datagram does not
                network = self._world.networks[endpoint.network_id].name
                odd = self._source if sizes[0] != self._world.networks[endpoint.network_id].mtu else target
                raise _Wrong(
                    Fact.MTU_MISMATCH,
                    f"{remedies.PROGRAM} network disconnect {network} {odd.name} && "
                    f"{remedies.PROGRAM} network connect {network} {odd.name}",
                    **words,
                )
            self._warnings.append(Fact.MTU_MISMATCH.sentence.format(**words))

    # ---- listening sockets

    def _listening(self, said: Reach) -> None:
        """Somebody must listen in every container that the name may lead to."""
        if not said.holders:
            if self._flow.port and self._is_for_host(said):
                self._listens_on_host(said)
            return
        wrong: dict[str, _Wrong] = {}
        for holder in said.holders:
            container = self._world.containers[holder]
            try:
                self._listens(container, said)
            except _Wrong as found:
                wrong[container.name] = found
        if not wrong:
            return
        first = next(iter(wrong.values()))
        if len(wrong) == len(said.holders):
            raise first
        holders = [self._world.containers[h].name for h in said.holders]
        listed = ", ".join(f"{name} ({wrong[name].sentence if name in wrong else 'listens'})" for name in holders)
        network = lookup.resolve(self._world, self._source, self._flow.target).network_id if self._source else ""
        hint = ""
        if network in self._world.networks:
            hint = f"{remedies.PROGRAM} network disconnect {self._world.networks[network].name} {next(iter(wrong))}"
        listed += _projects([self._world.containers[h] for h in said.holders])
        raise _Wrong(Fact.SHARED_NAME, hint, name=self._flow.target, holders=listed)

    def _listens(self, container: Container, said: Reach) -> None:
        try:
            found = probes.listeners(next((one.state.pid for one in sharers(self._world, container)), 0))
        except OSError:
            return  # it ended just now: the connection will tell
        if not self._flow.port:
            ports = sorted({f"{one.port}/{one.protocol}" for one in found if not is_loopback(one.address)}, key=port_of)
            if ports:
                self._note(f"{container.name} listens on {', '.join(ports)}")
            else:
                self._warnings.append(f"nothing in {container.name} listens on any port that others reach")
            return
        if said.landing:
            self._check(container.name, found, [said.landing], is_same=False, landing_port=said.landing_port)
            return
        addresses = [a for a in said.addresses if _owns(container, a)] or list(said.addresses)
        is_same = self._source is not None and self._source.id == owner_of(self._world, container).id
        self._check(container.name, found, addresses, is_same=is_same)

    def _is_for_host(self, said: Reach) -> bool:
        return said.reason is Fact.HOST_ADDRESS

    def _listens_on_host(self, said: Reach) -> None:
        with suppress(OSError):
            listening = probes.listeners(os.getpid())
            try:
                self._check("the host", listening, list(said.addresses), is_same=self._is_host)
            except _Wrong as wrong:
                found = entrances.on_loopback(self._world, self._flow.protocol, self._flow.port)
                if found is None:
                    raise
                container, port = found
                hint = entrances.loopback_remedy(self._world, self._flow, container, port)
                raise _Wrong(
                    Fact.PUBLISHED_ON_LOOPBACK, hint,
                    port=port.host_port, protocol=port.protocol, target=container.name, address=port.host_ip,
                ) from wrong  # fmt: skip

    def _check(
        self, name: str, found: Sequence[Listener], addresses: Sequence[str], *, is_same: bool, landing_port: int = 0
    ) -> None:
        """Raise unless one of `found` takes what is sent to the port at one of `addresses`; `landing_port` is the
        container's port when a published one leads there: asking for another port of the host is no remedy then."""
        port, protocol = landing_port or self._flow.port, self._flow.protocol
        here = [one for one in found if (one.protocol, one.port) == (protocol, port)]
        taking = [one for one in here if any(takes(one.address, a) for a in addresses)]
        if taking or (is_same and here):
            self._note(f"{name} listens on {shown(taking or here)}")
            return
        words = {"target": name, "port": port, "protocol": protocol}
        if here and all(is_loopback(one.address) for one in here):
            raise _Wrong(Fact.LOOPBACK_ONLY, self._logs(name), listeners=shown(here), **words)
        if here:
            addressed = ", ".join(dict.fromkeys(one.address for one in here))
            raise _Wrong(
                Fact.OTHER_ADDRESS,
                self._logs(name) if landing_port else self._elsewhere(here, name),
                listeners=addressed,
                address=", ".join(addresses),
                **words,
            )
        others = [one for one in found if any(takes(one.address, a) for a in addresses)]
        if other := next((one for one in others if one.port == port), None):
            again = self._logs(name) if landing_port else self._again(self._flow.target, port, other.protocol)
            raise _Wrong(Fact.OTHER_PROTOCOL, again, other=other.protocol, **words)
        same = [one for one in others if one.protocol == protocol]
        if same:
            again = self._again(self._flow.target, same[0].port, protocol)
            if landing_port:
                container = self._world.container(name)
                again = remedies.publish(self._world, container, protocol, same[0].port, self._flow.port)
                again = again or self._logs(name)
            raise _Wrong(Fact.OTHER_PORT, again, listeners=shown(same), **words)
        raise _Wrong(Fact.NOT_LISTENING, self._logs(name), **words)

    def _elsewhere(self, here: Sequence[Listener], name: str) -> str:
        """Ask again at an address that is listened on and reached, by name where any of a family will do."""
        for one in here:
            target = self._flow.target if is_any(one.address) and not _is_address(self._flow.target) else one.address
            target = name if is_any(target) else target
            if reach(self._world, replace(self._flow, target=target)).allowed:
                return self._again(target, one.port, one.protocol)
        return self._logs(name)

    def _again(self, target: str, port: int, protocol: str) -> str:
        target = f"[{target}]" if ":" in target else target
        return f"{remedies.PROGRAM} why {self._flow.source} {target}:{port}{'/udp' if protocol == 'udp' else ''}"

    @staticmethod
    def _logs(name: str) -> str:
        return f"{remedies.PROGRAM} logs {name}" if name != "the host" else ""

    # ---- the traffic itself

    async def _try(self, said: Reach) -> None:
        """Send what A would send, from inside A. Datagrams are not answered by rule, so nothing can be tried."""
        if self._flow.source in (OUTSIDE, NEIGHBOUR) and self._source is None:
            return
        if self._flow.target in (OUTSIDE, NEIGHBOUR):
            return  # stands for everybody there, and has no address of its own
        address = said.addresses[0]
        target = self._world.containers[said.holders[0]].name if said.holders else self._flow.target
        if self._flow.protocol == "tcp" and self._flow.port:
            await self._connect(address, target)
        elif self._flow.protocol == "icmp" or not self._flow.port:
            await self._echo(address)

    async def _connect(self, address: str, target: str) -> None:
        (sock,) = await self._sockets(socket.SOCK_STREAM, _family(address))
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(CONNECT_SECONDS):
                await loop.sock_connect(sock, (address, self._flow.port))
        except TimeoutError as error:
            raise _Wrong(Fact.UNANSWERED, "tsunagu doctor", address=address) from error
        except OSError as error:
            if error.errno == errno.ECONNREFUSED:
                raise _Wrong(Fact.REFUSED, self._logs(target), target=target) from error
            raise _Wrong(Fact.UNANSWERED, "tsunagu doctor", address=address) from error
        finally:
            sock.close()
        self._note(f"a connection to {address} port {self._flow.port} succeeds")

    async def _echo(self, address: str) -> None:
        family = _family(address)
        protocol = socket.IPPROTO_ICMPV6 if family == 6 else socket.IPPROTO_ICMP
        (sock,) = await self._sockets(socket.SOCK_RAW, family, protocol)
        loop = asyncio.get_running_loop()
        payload = secrets.token_bytes(16)
        try:
            async with asyncio.timeout(CONNECT_SECONDS):
                await loop.sock_sendto(sock, _echo_request(family, payload), (address, 0))
                while True:
                    data = await loop.sock_recv(sock, 256)
                    packet = data[(data[0] & 15) * 4 :] if family == 4 else data
                    if packet[0] == (0 if family == 4 else 129) and packet[8:] == payload:
                        break
        except (TimeoutError, OSError) as error:
            raise _Wrong(Fact.UNANSWERED, "tsunagu doctor", address=address) from error
        finally:
            sock.close()
        self._note(f"{address} answers an echo request")


# ---- pieces


def _elsewhere(said: Reach, step: Step, **words: str) -> Reach:
    """Return the answer for a name that has no address here, for the step `step`, and one elsewhere."""
    sentence = Fact.SEARCH_DOMAIN.sentence.format(**words)
    steps = (*said.steps[:-1], step, Step(False, sentence, Fact.SEARCH_DOMAIN.code))
    return replace(said, reason=Fact.SEARCH_DOMAIN, sentence=sentence, steps=steps)


def _projects(containers: Sequence[Container]) -> str:
    """Say that containers belong to different Compose projects, where they do."""
    found = sorted({p for c in containers if (p := c.config.labels.get(_COMPOSE_PROJECT, ""))})
    return f"; they belong to different Compose projects ({', '.join(found)})" if len(found) > 1 else ""


def _echo_request(family: int, payload: bytes) -> bytes:
    """An ICMP echo request (RFC 792, RFC 4443 4.1). The kernel fills in ICMPv6's checksum (RFC 3542 3.1)."""
    packet = struct.pack("!BBHHH", 128 if family == 6 else 8, 0, 0, 1, 1) + payload
    if family == 6:
        return packet
    total = sum(struct.unpack(f"!{len(packet) // 2}H", packet))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return packet[:2] + struct.pack("!H", ~total & 0xFFFF) + packet[4:]


def _owns(container: Container, address: str) -> bool:
    return any(address in (e.ipv4, e.ipv6) for e in container.endpoints)


def _is_address(text: str) -> bool:
    try:
        ip_address(text.strip("[]"))
    except ValueError:
        return False
    return True


def _family(address: str) -> int:
    return 6 if ":" in address else 4
