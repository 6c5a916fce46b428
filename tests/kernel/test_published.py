"""Real packets to published ports: from where they are reached, from where not, and what is in force meanwhile."""

# ruff: noqa: ASYNC221 (a test may block its own loop)
from __future__ import annotations

import asyncio
import errno
import os
import socket
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import pytest
from msgspec.structs import replace

from tsunagu.kernel import conntrack, ports
from tsunagu.kernel.network import NetworkKernel
from tsunagu.model.container import Config, Container, HostConfig
from tsunagu.model.network import (
    ICC,
    BridgePlan,
    Endpoint,
    EndpointConfig,
    InterfacePlan,
    Network,
    PortPlan,
    PublishedPort,
    RoutePlan,
    SandboxPlan,
    Subnet,
)
from tsunagu.model.world import ContainerCreated, NetworkCreated, World, apply
from tsunagu.rules import policy
from tsunagu.testing.namespaces import on_private_host, private_instance
from tsunagu.wire import nft

pytestmark = pytest.mark.root

INNER, OUTER = 7000, 8000  # the container's port, the host's
PATIENCE = 5.0  # seconds for what must arrive
SILENCE = 0.4  # seconds after which a packet that is dropped counts as dropped
KINDS = {"tcp": socket.SOCK_STREAM, "udp": socket.SOCK_DGRAM}
EVERY = [(protocol, family) for protocol in KINDS for family in (4, 6)]


class Lab:
    """A private host with a LAN (10.9.0.0/24, fd00:9::/64; the host is .1) and networks 10.N.0.0/24, fd00:N::/64."""

    def __init__(self, kernel: NetworkKernel, directory: str, table: str) -> None:
        self.kernel = kernel
        self.directory = directory
        self.table = table
        self.world = World()
        self.holdings: list[ports.Holdings] = []

    async def network(self, n: int, *, is_ours: bool = True, options: dict[str, str] | None = None) -> Network:
        network = Network(
            id=f"{n:x}" * 64, name=f"net{n}", bridge=f"lab{n}", enable_ipv6=True, options=options or {},
            subnets=(Subnet(subnet=f"10.{n}.0.0/24", gateway=f"10.{n}.0.1"),
                     Subnet(subnet=f"fd00:{n}::/64", gateway=f"fd00:{n}::1")),
        )  # fmt: skip
        await self.kernel.ensure_bridge(
            BridgePlan(
                name=network.bridge, mtu=1500, addresses=(f"10.{n}.0.1/24", f"fd00:{n}::1/64"), has_ipv6=True,
                routes_loopback=is_ours,
            )
        )  # fmt: skip
        if is_ours:
            self.world = apply(self.world, NetworkCreated(network))
            await self.sync()
        return network

    async def sync(self) -> None:
        await self.kernel.apply_firewall(nft.script(policy.programme(self.world), self.table))

    async def sandbox(self, network: Network, m: int) -> str:
        n = int(network.name.removeprefix("net"))
        path = os.path.join(self.directory, f"{n}-{m}")
        interface = InterfacePlan(
            host_name=f"port{n}-{m}", name="eth0", bridge=network.bridge, mac=f"02:00:00:00:{n:02x}:{m:02x}",
            mtu=1500, addresses=(f"10.{n}.0.{m}/24", f"fd00:{n}::{m}/64"), has_ipv6=True, has_hairpin=True,
        )  # fmt: skip
        routes = (RoutePlan(gateway=f"10.{n}.0.1", ifname="eth0"), RoutePlan(gateway=f"fd00:{n}::1", ifname="eth0"))
        await self.kernel.set_up_sandbox(SandboxPlan(path=path, interfaces=(interface,), routes=routes))
        return path

    async def publish(self, network: Network, m: int, *host_ips: str, outer: int = OUTER) -> None:
        """Publish the container's port of both protocols at `host_ips`: sockets on the host, then rules."""
        n = int(network.name.removeprefix("net"))
        published: list[PublishedPort] = []
        for protocol in KINDS:
            plan = PortPlan(protocol=protocol, container_port=INNER, host_ips=host_ips, first=outer, last=outer)
            self.holdings.append(await self.kernel.reserve_ports([plan]))
            published += plan.at(outer)
        endpoint = Endpoint(
            config=EndpointConfig(network=network.name), id=f"{n}-{m}-{outer}", network_id=network.id,
            ipv4=f"10.{n}.0.{m}", ipv6=f"fd00:{n}::{m}", ports=tuple(published),
        )  # fmt: skip
        container = Container(
            id=f"{n}-{m}-{outer}", name=f"c{n}-{m}-{outer}", created=1, image_id="", path="x", args=(),
            config=Config(), host=HostConfig(), endpoints=(endpoint,),
        )  # fmt: skip
        self.world = apply(self.world, ContainerCreated(container))
        await self.sync()
        await self.kernel.forget_flows(published)

    async def withdraw(self) -> None:
        self.world = replace(self.world, containers={}, container_ids={})
        await self.sync()
        for one in self.holdings:
            await self.kernel.forget_flows(one)
            ports.release(one)
        self.holdings.clear()

    async def socket(self, path: str | None, protocol: str, family: int) -> socket.socket:
        number = socket.AF_INET6 if family == 6 else socket.AF_INET
        if path is None:
            return socket.socket(number, KINDS[protocol] | socket.SOCK_NONBLOCK)
        return (await self.kernel.open_sandbox_sockets(path, 1, KINDS[protocol], number))[0]

    @asynccontextmanager
    async def server(self, path: str, protocol: str, family: int) -> AsyncIterator[None]:
        """A server in a container that tells everybody his own address."""
        server = await self.socket(path, protocol, family)
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        server.bind(("::" if family == 6 else "0.0.0.0", INNER))
        if protocol == "tcp":
            server.listen()
        task = asyncio.ensure_future(_serve(server, protocol))
        try:
            yield
        finally:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task
            server.close()

    async def ask(
        self, path: str | None, protocol: str, family: int, address: str, port: int = OUTER, patience: float = PATIENCE
    ) -> str:
        """Ask the server from `path` (None: the host); the address that it saw. Raises OSError, TimeoutError."""
        loop = asyncio.get_running_loop()
        client = await self.socket(path, protocol, family)
        try:
            async with asyncio.timeout(patience):
                await loop.sock_connect(client, (address, port))
                await loop.sock_sendall(client, b"who am I?")
                return (await loop.sock_recv(client, 200)).decode()
        finally:
            client.close()

    async def is_unreachable(self, path: str | None, protocol: str, family: int, address: str, port: int) -> None:
        with pytest.raises((TimeoutError, ConnectionRefusedError, OSError)):
            await self.ask(path, protocol, family, address, port, SILENCE)


async def _serve(server: socket.socket, protocol: str) -> None:
    loop = asyncio.get_running_loop()
    while True:
        if protocol == "udp":
            _, peer = await loop.sock_recvfrom(server, 200)
            await loop.sock_sendto(server, peer[0].encode(), peer)
            continue
        accepted, peer = await loop.sock_accept(server)
        with accepted:
            accepted.setblocking(False)
            await loop.sock_recv(accepted, 200)
            await loop.sock_sendall(accepted, peer[0].encode())


@asynccontextmanager
async def lab() -> AsyncIterator[Lab]:
    instance, remove = private_instance()
    kernel = NetworkKernel(instance)
    await kernel.open()
    await kernel.enable_forwarding(ipv6=True)
    it = Lab(kernel, os.path.join(instance.run_dir, "netns"), instance.nft_table)
    try:
        yield it
    finally:
        for one in it.holdings:
            ports.release(one)
        await kernel.close()
        remove()


def set_bridge_netfilter(value: str) -> None:
    for name in ("iptables", "ip6tables", "arptables"):
        with open(f"/proc/sys/net/bridge/bridge-nf-call-{name}", "w") as file:
            file.write(value)


@pytest.mark.parametrize("bridge_netfilter", ["0", "1"])
@on_private_host
async def test_a_published_port_is_reached_from_everywhere(bridge_netfilter: str) -> None:
    """Relation × address of the host × protocol × family (needs.md N17, N28)."""
    set_bridge_netfilter(bridge_netfilter)
    async with lab() as it:
        lan, one, two = await it.network(9, is_ours=False), await it.network(1), await it.network(2)
        outside, a, b, c = (
            await it.sandbox(lan, 2), await it.sandbox(one, 2), await it.sandbox(one, 3), await it.sandbox(two, 2),
        )  # fmt: skip
        subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
        await it.publish(one, 2, "0.0.0.0", "::")
        for protocol, family in EVERY:
            prefix, gateway = ("10.{}.0.{}", "10.1.0.1") if family == 4 else ("fd00:{}::{}", "fd00:1::1")
            async with it.server(a, protocol, family):
                # a client on the LAN is seen with its own address (N27)
                assert await it.ask(outside, protocol, family, prefix.format(9, 1)) == prefix.format(9, 2)
                for source in (None, a, b, c):  # the host, itself, its neighbour, another network
                    for address in (prefix.format(9, 1), gateway, prefix.format(2, 1)):
                        seen = await it.ask(source, protocol, family, address)
                        assert seen in {prefix.format(n, 1) for n in (1, 2, 9)}
                if family == 4:
                    # never seen as loopback: programs trust that (CVE-2021-20199)
                    assert await it.ask(None, protocol, family, "127.0.0.1") == gateway
                    assert await it.ask(None, protocol, family, "127.8.9.10") == gateway
                elif protocol == "tcp":  # the kernel cannot do it: refused at once, so that `localhost` goes on to IPv4
                    with pytest.raises(ConnectionRefusedError):
                        await it.ask(None, protocol, family, "::1")
                # by its own address and port it is as closed as before
                await it.is_unreachable(outside, protocol, family, prefix.format(1, 2), INNER)
                await it.is_unreachable(c, protocol, family, prefix.format(1, 2), INNER)
                await it.is_unreachable(outside, protocol, family, prefix.format(9, 1), INNER)


@on_private_host
async def test_icc_off_does_not_close_published_ports_to_neighbours() -> None:
    # with bridge netfilter the kernel bridges such packets after translating them, and the bridge's own rule drops them
    set_bridge_netfilter("0")
    async with lab() as it:
        network = await it.network(1, options={ICC: "false"})
        a, b = await it.sandbox(network, 2), await it.sandbox(network, 3)
        await it.publish(network, 2, "0.0.0.0", "::")
        for protocol, family in EVERY:
            gateway, there = ("10.1.0.1", "10.1.0.2") if family == 4 else ("fd00:1::1", "fd00:1::2")
            async with it.server(a, protocol, family):
                assert await it.ask(b, protocol, family, gateway) == gateway
                await it.is_unreachable(b, protocol, family, there, INNER)


@on_private_host
async def test_a_loopback_binding_is_reached_from_the_host_only() -> None:
    """moby#45610, CVE-2025-54388: not even by a neighbour who routes 127.0.0.1 to the host."""
    async with lab() as it:
        lan, one, two = await it.network(9, is_ours=False), await it.network(1), await it.network(2)
        outside, a, b, c = (
            await it.sandbox(lan, 2), await it.sandbox(one, 2), await it.sandbox(one, 3), await it.sandbox(two, 2),
        )  # fmt: skip
        subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
        await it.publish(one, 2, "127.0.0.1")
        await it.publish(one, 2, "0.0.0.0", outer=OUTER + 1)
        # the LAN's host side trusts loopback addresses too, as kube-proxy has it
        for name in ("all", "lab9"):
            with open(f"/proc/sys/net/ipv4/conf/{name}/route_localnet", "w") as file:
                file.write("1")
        for path, gateway in ((outside, "10.9.0.1"), (b, "10.1.0.1"), (c, "10.2.0.1"), (a, "10.1.0.1")):
            for command in (
                "sysctl -qw net.ipv4.conf.all.route_localnet=1 net.ipv4.conf.eth0.route_localnet=1",
                "ip addr del 127.0.0.1/8 dev lo",
                f"ip route add 127.0.0.1/32 via {gateway} src {gateway[:-1]}{path[-1]}",
            ):
                subprocess.run(["nsenter", f"--net={path}", *command.split()], check=True)
        for protocol in KINDS:
            async with it.server(a, protocol, 4):
                assert await it.ask(None, protocol, 4, "127.0.0.1") == "10.1.0.1"
                await it.is_unreachable(None, protocol, 4, "10.9.0.1", OUTER)
                for source in (outside, a, b, c):
                    for address in ("127.0.0.1", "10.9.0.1", "10.1.0.1"):
                        await it.is_unreachable(source, protocol, 4, address, OUTER)
                for source in (a, b, c):
                    # containers do not see the host's loopback through ports published to everybody either
                    await it.is_unreachable(source, protocol, 4, "127.0.0.1", OUTER + 1)


@on_private_host
async def test_one_address_goes_before_all_addresses() -> None:
    async with lab() as it:
        lan, one = await it.network(9, is_ours=False), await it.network(1)
        outside, a = await it.sandbox(lan, 2), await it.sandbox(one, 2)
        await it.publish(one, 2, "10.9.0.1", "fd00:9::1")
        for protocol, family in EVERY:
            here, other, far = (
                ("10.9.0.1", "10.1.0.1", "10.9.0.2") if family == 4 else ("fd00:9::1", "fd00:1::1", "fd00:9::2")
            )
            async with it.server(a, protocol, family):
                assert await it.ask(outside, protocol, family, here) == far
                await it.is_unreachable(outside, protocol, family, other, OUTER)


@on_private_host
async def test_a_flushed_table_opens_nothing_and_comes_back() -> None:
    async with lab() as it:
        lan, one = await it.network(9, is_ours=False), await it.network(1)
        outside, a = await it.sandbox(lan, 2), await it.sandbox(one, 2)
        await it.publish(one, 2, "127.0.0.1")
        await it.publish(one, 2, "0.0.0.0", outer=OUTER + 1)
        subprocess.run(["nft", "flush", "ruleset"], check=True)
        async with it.server(a, "tcp", 4):
            await it.is_unreachable(outside, "tcp", 4, "10.9.0.1", OUTER)
            await it.is_unreachable(outside, "tcp", 4, "10.9.0.1", OUTER + 1)
            await it.sync()
            assert await it.ask(outside, "tcp", 4, "10.9.0.1", OUTER + 1) == "10.9.0.2"
            await it.is_unreachable(outside, "tcp", 4, "10.9.0.1", OUTER)


@on_private_host
async def test_a_udp_sender_that_never_pauses_follows_the_port() -> None:
    """moby#8795: without forgetting its flow, the packets would go where they went before, for ever."""
    async with lab() as it:
        lan, one = await it.network(9, is_ours=False), await it.network(1)
        outside, a, b = await it.sandbox(lan, 2), await it.sandbox(one, 2), await it.sandbox(one, 3)
        loop = asyncio.get_running_loop()
        for family, host in ((4, "10.9.0.1"), (6, "fd00:9::1")):
            sender = await it.socket(outside, "udp", family)
            before = await it.socket(None, "udp", family)
            before.bind((host, OUTER))
            sender.connect((host, OUTER))
            sender.send(b"to the host")
            async with asyncio.timeout(PATIENCE):
                assert await loop.sock_recv(before, 100) == b"to the host"
            before.close()
            for member, path in ((2, a), (3, b)):
                await it.publish(one, member, "0.0.0.0", "::")
                async with it.server(path, "udp", family), asyncio.timeout(PATIENCE):
                    answer = asyncio.ensure_future(loop.sock_recv(sender, 100))
                    while not answer.done():
                        sender.send(b"who am I?")
                        await asyncio.wait([answer], timeout=0.05)
                    assert await answer
                await it.withdraw()
            after = await it.socket(None, "udp", family)
            after.bind((host, OUTER))
            async with asyncio.timeout(PATIENCE):
                arrived = asyncio.ensure_future(loop.sock_recv(after, 100))
                while not arrived.done():
                    sender.send(b"to the host again")
                    await asyncio.wait([arrived], timeout=0.05)
                assert await arrived
            after.close()
            sender.close()


@on_private_host
async def test_flows_to_other_machines_are_left_alone() -> None:
    async with lab() as it:
        lan, one = await it.network(9, is_ours=False), await it.network(1)
        outside, a = await it.sandbox(lan, 2), await it.sandbox(one, 2)
        receiver = await it.socket(outside, "udp", 4)
        receiver.bind(("10.9.0.2", OUTER))
        sender = await it.socket(a, "udp", 4)
        sender.sendto(b"x", ("10.9.0.2", OUTER))
        async with asyncio.timeout(PATIENCE):
            await asyncio.get_running_loop().sock_recv(receiver, 10)
        assert conntrack.forget_udp({(4, OUTER)}, {"10.9.0.1", "10.1.0.1"}) == 0
        assert conntrack.forget_udp({(4, OUTER)}, {"10.9.0.2"}) == 1
        sender.close()
        receiver.close()


# ---- sockets that hold ports


def plan(*host_ips: str, first: int = 0, last: int = 0, protocol: str = "tcp") -> PortPlan:
    return PortPlan(protocol=protocol, container_port=80, host_ips=host_ips, first=first, last=last or first)


def listener(address: str, port: int, protocol: str = "tcp", *, reuses: bool = True) -> socket.socket:
    made = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, KINDS[protocol])
    try:
        if reuses:
            made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.bind((address, port))
        if protocol == "tcp":
            made.listen()
    except BaseException:
        made.close()
        raise
    return made


@on_private_host
async def test_a_held_port_is_nobody_elses_and_free_afterwards() -> None:
    for protocol in KINDS:
        held = ports.reserve([plan("0.0.0.0", "::", first=OUTER, protocol=protocol)])
        for address in ("0.0.0.0", "127.0.0.1", "::", "::1"):
            for reuses in (False, True) if protocol == "tcp" else (False,):
                with pytest.raises(OSError, match="in use"):
                    listener(address, OUTER, protocol, reuses=reuses)
        with pytest.raises(ports.PortTaken) as caught:
            ports.reserve([plan("127.0.0.1", first=OUTER, protocol=protocol)])
        assert (caught.value.number, caught.value.port.host_port) == (errno.EADDRINUSE, OUTER)
        ports.release(held)
        mine = listener("0.0.0.0", OUTER, protocol)
        with pytest.raises(ports.PortTaken) as caught:
            ports.reserve([plan("127.0.0.1", first=OUTER, protocol=protocol)])
        assert caught.value.holder.endswith(f"(pid {os.getpid()})")
        mine.close()
        listener("0.0.0.0", OUTER, protocol).close()


@on_private_host
async def test_connections_in_time_wait_do_not_hold_a_port() -> None:
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    server = listener("127.0.0.1", OUTER)
    client = socket.create_connection(("127.0.0.1", OUTER))
    accepted, _ = server.accept()
    accepted.close()  # closes first, so it is the one that waits
    assert client.recv(1) == b""
    client.close()
    server.close()
    held = ports.reserve([plan("0.0.0.0", first=OUTER)])
    for reuses in (False, True):
        with pytest.raises(OSError, match="in use"):
            listener("0.0.0.0", OUTER, reuses=reuses)
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", OUTER), timeout=PATIENCE)
    ports.release(held)


@on_private_host
async def test_ranges_take_the_first_free_port_and_free_choice_is_one_for_both_families() -> None:
    taken = listener("::", OUTER)
    held = ports.reserve([plan("0.0.0.0", "::", first=OUTER, last=OUTER + 3), plan("0.0.0.0", "::")])
    numbers = [port.host_port for port in held]
    assert numbers[:2] == [OUTER + 1] * 2
    assert numbers[2] == numbers[3] > 1024
    with pytest.raises(ports.PortTaken) as caught:
        ports.reserve([plan("0.0.0.0", first=9000), plan("0.0.0.0", first=OUTER, last=OUTER + 1)])
    assert caught.value.port.host_port == OUTER
    listener("0.0.0.0", 9000).close()  # all or nothing
    ports.release(held)
    taken.close()


@on_private_host
async def test_a_wildcard_of_the_same_owner_covers_one_address() -> None:
    """compose#12846: 0.0.0.0 and a specific address together."""
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    held = ports.reserve([plan("0.0.0.0", first=OUTER), plan("127.0.0.1", first=OUTER)])
    assert [(port.host_ip, one is None) for port, one in held.items()] == [("0.0.0.0", False), ("127.0.0.1", True)]
    ports.release(held)
    # and the same port on two loopback addresses (moby#52783)
    held = ports.reserve([plan("127.0.0.2", first=OUTER), plan("127.0.0.3", first=OUTER)])
    assert all(held.values())
    ports.release(held)


@on_private_host
async def test_an_address_the_host_lacks() -> None:
    with pytest.raises(ports.PortTaken) as caught:
        ports.reserve([plan("192.0.2.77", first=OUTER, last=OUTER + 5)])
    assert caught.value.words == "cannot assign requested address"
