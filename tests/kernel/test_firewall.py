"""Real packets against the rules: who reaches whom, over both families, with bridge netfilter on and off."""

# ruff: noqa: ASYNC110, ASYNC221 (a test may block its own loop, and asks the kernel until it is so)
from __future__ import annotations

import asyncio
import functools
import json
import os
import socket
import subprocess
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any

import pytest

from tsunagu.kernel import firewall
from tsunagu.kernel.network import NetworkKernel
from tsunagu.model.errors import KernelFailure
from tsunagu.model.network import (
    ICC,
    MASQUERADE,
    BridgePlan,
    InterfacePlan,
    Network,
    RoutePlan,
    SandboxPlan,
    Subnet,
)
from tsunagu.model.world import NetworkCreated, World, apply
from tsunagu.rules import policy
from tsunagu.testing.namespaces import on_private_host, private_instance
from tsunagu.wire import nft

pytestmark = pytest.mark.root

PORT = 7777
PATIENCE = 5.0
FAMILIES = (4, 6)


class Lab:
    """A private host. Network `n` has 10.N.0.0/24 and fd00:N::/64, its sandbox `m` has .M and ::M."""

    def __init__(self, kernel: NetworkKernel, directory: str, table: str) -> None:
        self.kernel = kernel
        self.directory = directory
        self.table = table
        self.world = World()

    async def network(self, n: int, *, is_ours: bool = True, **settings: Any) -> Network:
        network = Network(
            id=f"{n:x}" * 64,
            name=f"net{n}",
            bridge=f"lab{n}",
            enable_ipv6=True,
            subnets=(
                Subnet(subnet=f"10.{n}.0.0/24", gateway=f"10.{n}.0.1"),
                Subnet(subnet=f"fd00:{n}::/64", gateway=f"fd00:{n}::1"),
            ),
            **settings,
        )
        plan = BridgePlan(name=network.bridge, mtu=1500, addresses=(f"10.{n}.0.1/24", f"fd00:{n}::1/64"), has_ipv6=True)
        await self.kernel.ensure_bridge(plan)
        if is_ours:
            self.world = apply(self.world, NetworkCreated(network))
            await self.kernel.apply_firewall(nft.script(policy.programme(self.world), self.table))
        return network

    async def sandbox(self, network: Network, m: int, *, has_route: bool = True) -> str:
        n = int(network.name.removeprefix("net"))
        path = os.path.join(self.directory, f"{n}-{m}")
        interface = InterfacePlan(
            host_name=f"port{n}-{m}",
            name="eth0",
            bridge=network.bridge,
            mac=f"02:00:00:00:{n:02x}:{m:02x}",
            mtu=1500,
            addresses=(f"10.{n}.0.{m}/24", f"fd00:{n}::{m}/64"),
            has_ipv6=True,
        )
        routes = (
            (RoutePlan(gateway=f"10.{n}.0.1", ifname="eth0"), RoutePlan(gateway=f"fd00:{n}::1", ifname="eth0"))
            if has_route and not network.is_internal
            else ()
        )
        await self.kernel.set_up_sandbox(SandboxPlan(path=path, interfaces=(interface,), routes=routes))
        return path

    async def socket(self, path: str | None, kind: int, family: int) -> socket.socket:
        number = socket.AF_INET6 if family == 6 else socket.AF_INET
        if path is None:  # on the host itself
            return socket.socket(number, kind | socket.SOCK_NONBLOCK)
        return (await self.kernel.open_sandbox_sockets(path, 1, kind, number))[0]

    def dropped(self, reason: policy.Reason) -> int:
        """Packets that rules with this reason have counted."""
        answer = subprocess.run(["nft", "-j", "list", "ruleset"], capture_output=True, text=True, check=True).stdout
        return sum(
            part["counter"]["packets"]
            for item in json.loads(answer)["nftables"]
            if (rule := item.get("rule")) and rule["table"] == self.table and rule.get("comment") == reason.code
            for part in rule["expr"]
            if "counter" in part
        )

    async def send(self, source: str | None, target: str | None, family: int, address: str) -> socket.socket:
        """Send one datagram from `source` to `address`; return the socket at `target` that it is meant for."""
        receiver = await self.socket(target, socket.SOCK_DGRAM, family)
        receiver.bind(("::" if family == 6 else "0.0.0.0", PORT))
        sender = await self.socket(source, socket.SOCK_DGRAM, family)
        sender.sendto(b"hello", (address, PORT))
        sender.close()
        return receiver

    async def reaches(self, source: str | None, target: str | None, family: int, address: str) -> tuple[str, int]:
        """Demand that UDP arrives and TCP connects; return the address that the datagram came from."""
        loop = asyncio.get_running_loop()
        receiver = await self.send(source, target, family, address)
        async with asyncio.timeout(PATIENCE):
            data, origin = await loop.sock_recvfrom(receiver, 100)
        receiver.close()
        assert data == b"hello"
        listener = await self.socket(target, socket.SOCK_STREAM, family)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(("::" if family == 6 else "0.0.0.0", PORT))
        listener.listen()
        caller = await self.socket(source, socket.SOCK_STREAM, family)
        async with asyncio.timeout(PATIENCE):
            await loop.sock_connect(caller, (address, PORT))
            accepted, _ = await loop.sock_accept(listener)
            await loop.sock_sendall(accepted, b"x" * 100_000)
            accepted.close()
            received = 0
            while chunk := await loop.sock_recv(caller, 65536):
                received += len(chunk)
        assert received == 100_000
        caller.close()
        listener.close()
        return origin[0], origin[1]

    async def is_refused(
        self, source: str | None, target: str, family: int, address: str, reason: policy.Reason
    ) -> None:
        """Demand that a datagram is counted by a rule with `reason` and does not arrive."""
        before = self.dropped(reason)
        receiver = await self.send(source, target, family, address)
        async with asyncio.timeout(PATIENCE):
            while self.dropped(reason) == before:
                await asyncio.sleep(0.01)
        with pytest.raises(BlockingIOError):
            receiver.recv(100)
        receiver.close()


@asynccontextmanager
async def lab() -> AsyncIterator[Lab]:
    instance, remove = private_instance()
    kernel = NetworkKernel(instance)
    await kernel.open()
    await kernel.enable_forwarding(ipv6=True)
    try:
        yield Lab(kernel, os.path.join(instance.run_dir, "netns"), instance.nft_table)
    finally:
        await kernel.close()
        remove()


def with_bridge_netfilter(test: Callable[[str], Coroutine[Any, Any, None]]) -> Callable[[str], None]:
    """Run a test twice: bridged frames pass the IP hooks, and they do not (both are found on real hosts)."""

    @functools.wraps(test)
    async def run(bridge_netfilter: str) -> None:
        for name in ("iptables", "ip6tables", "arptables"):
            with open(f"/proc/sys/net/bridge/bridge-nf-call-{name}", "w") as file:
                file.write(bridge_netfilter)
        await test(bridge_netfilter)

    mark: Callable[..., Any] = pytest.mark.parametrize("bridge_netfilter", ["0", "1"])
    decorated: Callable[[str], None] = mark(on_private_host(run))
    return decorated


@with_bridge_netfilter
async def test_one_network_talks_and_the_host_with_it(bridge_netfilter: str) -> None:
    async with lab() as it:
        network = await it.network(1)
        a, b = await it.sandbox(network, 2), await it.sandbox(network, 3)
        for family, prefix in ((4, "10.1.0."), (6, "fd00:1::")):
            assert (await it.reaches(a, b, family, f"{prefix}3"))[0] == f"{prefix}2"
            await it.reaches(None, a, family, f"{prefix}2")
            await it.reaches(a, None, family, f"{prefix}1")


@with_bridge_netfilter
async def test_two_networks_are_apart_in_both_families(bridge_netfilter: str) -> None:
    async with lab() as it:
        one, two = await it.network(1), await it.network(2)
        a, b = await it.sandbox(one, 2), await it.sandbox(two, 2)
        for family, address in ((4, "10.2.0.2"), (6, "fd00:2::2")):
            await it.is_refused(a, b, family, address, policy.Reason.NO_SHARED_NETWORK)


@with_bridge_netfilter
async def test_internal_network_has_no_way_out_nor_in(bridge_netfilter: str) -> None:
    async with lab() as it:
        inner, other = await it.network(1, is_internal=True), await it.network(2)
        a, b, c = await it.sandbox(inner, 2), await it.sandbox(inner, 3), await it.sandbox(other, 2)
        outside = await it.sandbox(await it.network(3, is_ours=False), 2)
        for family, mine, neighbour, far in (
            (4, "10.1.0.2", "10.1.0.3", "10.3.0.2"),
            (6, "fd00:1::2", "fd00:1::3", "fd00:3::2"),
        ):
            await it.reaches(a, b, family, neighbour)
            await it.reaches(None, a, family, mine)
            with pytest.raises(OSError, match="unreachable"):
                await it.send(a, outside, family, far)
            await it.is_refused(c, a, family, mine, policy.Reason.INTERNAL_INGRESS)
        # a container that may set routes helps itself to one
        await it.kernel.set_default_routes(
            a, (RoutePlan(gateway="10.1.0.1", ifname="eth0"), RoutePlan(gateway="fd00:1::1", ifname="eth0"))
        )
        for family, there, far in ((4, "10.2.0.2", "10.3.0.2"), (6, "fd00:2::2", "fd00:3::2")):
            await it.is_refused(a, outside, family, far, policy.Reason.INTERNAL_EGRESS)
            await it.is_refused(a, c, family, there, policy.Reason.INTERNAL_EGRESS)


@with_bridge_netfilter
async def test_icc_off_keeps_neighbours_apart_but_not_from_host_and_outside(bridge_netfilter: str) -> None:
    async with lab() as it:
        network = await it.network(1, options={ICC: "false"})
        a, b = await it.sandbox(network, 2), await it.sandbox(network, 3)
        outside = await it.sandbox(await it.network(3, is_ours=False), 2)
        for family, host, neighbour, far in (
            (4, "10.1.0.1", "10.1.0.3", "10.3.0.2"),
            (6, "fd00:1::1", "fd00:1::3", "fd00:3::2"),
        ):
            await it.reaches(a, None, family, host)
            await it.reaches(a, outside, family, far)
            if family == 4:  # in IPv6 the neighbour solicitation is dropped already, and counted as well
                await it.is_refused(a, b, family, neighbour, policy.Reason.ICC_OFF)
            else:
                before = it.dropped(policy.Reason.ICC_OFF)
                receiver = await it.send(a, b, family, neighbour)
                async with asyncio.timeout(PATIENCE):
                    while it.dropped(policy.Reason.ICC_OFF) == before:
                        await asyncio.sleep(0.01)
                with pytest.raises(BlockingIOError):
                    receiver.recv(100)
                receiver.close()


@on_private_host
async def test_icc_off_holds_when_the_host_is_used_as_a_router() -> None:
    """The frame goes to the gateway's MAC, so the bridge does not see it as neighbour traffic; forward must."""
    async with lab() as it:
        network = await it.network(1, options={ICC: "false"})
        a, b = await it.sandbox(network, 2), await it.sandbox(network, 3)
        subprocess.run(["nsenter", f"--net={a}", "ip", "route", "add", "10.1.0.3/32", "via", "10.1.0.1"], check=True)
        await it.is_refused(a, b, 4, "10.1.0.3", policy.Reason.ICC_OFF)


@with_bridge_netfilter
async def test_outgoing_is_masqueraded_and_answers_come_back(bridge_netfilter: str) -> None:
    async with lab() as it:
        network = await it.network(1)
        plain = await it.network(2, options={MASQUERADE: "false"})
        a, p = await it.sandbox(network, 2), await it.sandbox(plain, 2)
        outside = await it.sandbox(await it.network(3, is_ours=False), 2)
        for family, far, hidden, shown in (
            (4, "10.3.0.2", "10.3.0.1", "10.2.0.2"),
            (6, "fd00:3::2", "fd00:3::1", "fd00:2::2"),
        ):
            assert (await it.reaches(a, outside, family, far))[0] == hidden
            assert (await it.reaches(p, outside, family, far))[0] == shown


@with_bridge_netfilter
async def test_a_neighbour_of_the_host_cannot_address_containers(bridge_netfilter: str) -> None:
    """moby#45610: somebody on the host's LAN sets a route to the container subnet by way of the host."""
    async with lab() as it:
        network = await it.network(1)
        a = await it.sandbox(network, 2)
        neighbour = await it.sandbox(await it.network(3, is_ours=False), 2)
        for family, address in ((4, "10.1.0.2"), (6, "fd00:1::2")):
            await it.is_refused(neighbour, a, family, address, policy.Reason.DIRECT_ROUTING)


@on_private_host
async def test_router_advertisements_of_a_container_go_nowhere() -> None:
    """CVE-2020-13401: neighbours and host keep their routes; the frame is dropped at the port."""
    async with lab() as it:
        network = await it.network(1)
        a = await it.sandbox(network, 2)
        await it.sandbox(network, 3)
        (sender,) = await it.kernel.open_sandbox_sockets(a, 1, socket.SOCK_RAW, socket.AF_INET6, socket.IPPROTO_ICMPV6)
        sender.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_HOPS, 255)
        sender.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, b"eth0")
        before = it.dropped(policy.Reason.ROUTER_ADVERTISEMENT)
        # type 134, code 0, checksum by the kernel, hop limit 64, lifetime 1800 s
        sender.sendto(bytes([134, 0, 0, 0, 64, 0, 7, 8]) + bytes(8), ("ff02::1", 0))
        async with asyncio.timeout(PATIENCE):
            while it.dropped(policy.Reason.ROUTER_ADVERTISEMENT) == before:
                await asyncio.sleep(0.01)
        sender.close()


@on_private_host
async def test_updates_lead_where_the_whole_script_leads() -> None:
    """Networks come and go one by one; the kernel's rules are the same as after one whole script."""

    def listing() -> str:
        return subprocess.run(["nft", "-s", "list", "ruleset"], capture_output=True, text=True, check=True).stdout

    async with lab() as it:
        one = await it.network(1)
        alone = listing()
        # from nothing: the update makes the tables itself
        firewall.apply(nft.script((), it.table))
        empty = listing()
        firewall.apply(nft.update((), policy.rules_of(one), it.table))
        assert sorted(listing().splitlines()) == sorted(alone.splitlines())
        changed = [
            Network(
                id="a" * 64, name="x", bridge="x", subnets=(Subnet(subnet="10.20.0.0/24"),), options={ICC: "false"}
            ),
            Network(id="b" * 64, name="y", bridge="y", subnets=(Subnet(subnet="10.21.0.0/24"),), is_internal=True),
        ]
        for network in changed:
            firewall.apply(nft.update((), policy.rules_of(network), it.table))
        world = it.world
        for network in changed:
            world = apply(world, NetworkCreated(network))
        updated = listing()
        firewall.apply(nft.script(policy.programme(world), it.table))
        assert sorted(updated.splitlines()) == sorted(listing().splitlines())
        for network in changed:
            firewall.apply(nft.update(policy.rules_of(network), (), it.table))
        assert sorted(listing().splitlines()) == sorted(alone.splitlines())
        firewall.apply(nft.update(policy.rules_of(one), (), it.table))
        kept = [line for line in listing().splitlines() if line not in empty.splitlines()]
        assert not [line for line in kept if "jump" in line or "comment" in line]


@on_private_host
async def test_a_refused_script_changes_nothing_and_says_why() -> None:
    async with lab() as it:
        await it.network(1)
        before = subprocess.run(["nft", "list", "ruleset"], capture_output=True, text=True, check=True).stdout
        with pytest.raises(KernelFailure, match="No such file or directory"):
            await it.kernel.apply_firewall(f"flush table inet {it.table}\nadd rule inet {it.table} nosuchchain drop\n")
        assert subprocess.run(["nft", "list", "ruleset"], capture_output=True, text=True, check=True).stdout == before


@on_private_host
async def test_foreign_tables_are_left_alone() -> None:
    async with lab() as it:
        subprocess.run(["nft", "add table inet theirs; add chain inet theirs c"], check=True)
        before = subprocess.run(["nft", "list table inet theirs"], capture_output=True, text=True, check=True).stdout
        await it.network(1, options={ICC: "false"})
        await it.kernel.apply_firewall(nft.script((), it.table))
        after = subprocess.run(["nft", "list table inet theirs"], capture_output=True, text=True, check=True).stdout
        assert after == before


@on_private_host
async def test_without_the_library_the_program_does_the_same() -> None:
    world = apply(
        World(), NetworkCreated(Network(id="a" * 64, name="x", bridge="x", subnets=(Subnet(subnet="10.9.0.0/24"),)))
    )
    script = nft.script(policy.programme(world), "tsunagu_test")
    firewall.apply(script)
    by_library = subprocess.run(["nft", "list ruleset"], capture_output=True, text=True, check=True).stdout
    firewall._spawn(script)
    by_program = subprocess.run(["nft", "list ruleset"], capture_output=True, text=True, check=True).stdout
    assert by_program == by_library
    with pytest.raises(KernelFailure, match="syntax error"):
        firewall._spawn("nonsense")


@pytest.mark.parametrize("family", FAMILIES)
def test_the_lab_is_real(family: int) -> None:
    """The helper above can fail: without a receiver nothing arrives (guards against tests that cannot fail)."""

    async def body() -> None:
        async with lab() as it:
            network = await it.network(1)
            a = await it.sandbox(network, 2)
            with pytest.raises((TimeoutError, OSError)):
                await asyncio.wait_for(
                    it.reaches(a, a, family, "10.1.0.99" if family == 4 else "fd00:1::99"), timeout=0.3
                )

    on_private_host(body)()
