"""`NetworkKernel` in a private host namespace: what it makes, what it repairs, what it leaves behind (nothing)."""

# ruff: noqa: ASYNC110, ASYNC221 (a test may block its own loop, and asks the kernel until it is so)
from __future__ import annotations

import asyncio
import contextlib
import errno
import json
import os
import socket
import struct
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from msgspec.structs import replace

from tsunagu.kernel import link, sysctl
from tsunagu.kernel.network import NetworkKernel
from tsunagu.model.errors import Conflict, KernelFailure
from tsunagu.model.instance import Instance
from tsunagu.model.network import BridgePlan, InterfacePlan, RoutePlan, SandboxPlan
from tsunagu.testing.namespaces import on_private_host, private_instance

pytestmark = pytest.mark.root

PATIENCE = 5.0
BRIDGE = "br-test"


@asynccontextmanager
async def opened() -> AsyncIterator[tuple[NetworkKernel, Instance]]:
    instance, remove = private_instance()
    kernel = NetworkKernel(instance)
    await kernel.open()
    try:
        yield kernel, instance
    finally:
        await kernel.close()
        remove()


def bridge(name: str = BRIDGE, *addresses: str, has_ipv6: bool = False, mtu: int = 1500) -> BridgePlan:
    return BridgePlan(name=name, mtu=mtu, addresses=addresses or ("10.1.0.1/24",), has_ipv6=has_ipv6)


def port(n: int, *, name: str = "eth0", host_name: str = "", has_ipv6: bool = False, mtu: int = 1500) -> InterfacePlan:
    return InterfacePlan(
        host_name=host_name or f"port{n}",
        name=name,
        bridge=BRIDGE,
        mac=f"02:00:00:00:00:{n:02x}",
        mtu=mtu,
        addresses=(f"10.1.0.{n}/24", *([f"fd00:1::{n:x}/64"] if has_ipv6 else [])),
        has_ipv6=has_ipv6,
    )


def sandbox(instance: Instance, n: int, **settings: Any) -> SandboxPlan:
    plan: dict[str, Any] = {
        "path": os.path.join(instance.run_dir, "netns", f"c{n}"),
        "interfaces": (port(n),),
        "routes": (RoutePlan(gateway="10.1.0.1", ifname="eth0"),),
    }
    return SandboxPlan(**(plan | settings))


def ip(*words: str, inside: str = "") -> Any:
    """What iproute2 sees, as JSON."""
    enter = ["nsenter", f"--net={inside}"] if inside else []
    done = subprocess.run([*enter, "ip", "-j", *words], capture_output=True, text=True, check=True)
    return json.loads(done.stdout or "[]")


def read_sysctl(name: str, inside: str = "") -> str:
    enter = ["nsenter", f"--net={inside}"] if inside else []
    return subprocess.run(
        [*enter, "cat", f"/proc/sys/{name}"], capture_output=True, text=True, check=True
    ).stdout.strip()


def addresses(name: str, inside: str = "") -> set[str]:
    (found,) = ip("addr", "show", "dev", name, inside=inside)
    return {f"{a['local']}/{a['prefixlen']}" for a in found["addr_info"]}


# ---- bridges


@on_private_host
async def test_bridge_of_an_ipv4_network() -> None:
    async with opened() as (kernel, instance):
        await kernel.ensure_bridge(bridge(mtu=1400))
        (found,) = ip("-d", "link", "show", "dev", BRIDGE)
        assert found["linkinfo"]["info_kind"] == "bridge"
        assert "UP" in found["flags"]
        assert found["mtu"] == 1400
        assert found["ifalias"] == instance.nft_table
        assert addresses(BRIDGE) == {"10.1.0.1/24"}
        assert read_sysctl(f"net/ipv6/conf/{BRIDGE}/disable_ipv6") == "1"
        assert read_sysctl(f"net/ipv6/conf/{BRIDGE}/accept_ra") == "0"
        await kernel.set_up_sandbox(sandbox(instance, 2))
        assert ip("link", "show", "dev", BRIDGE)[0]["address"] == found["address"]
        assert not [a for a in addresses("port2") if a.startswith("fe80")]
        assert await kernel.list_links() == {BRIDGE, "port2"}


@on_private_host
async def test_bridge_keeps_its_mtu_when_the_last_port_leaves() -> None:
    async with opened() as (kernel, instance):
        await kernel.ensure_bridge(bridge(mtu=1400))
        plan = sandbox(instance, 2)
        await kernel.set_up_sandbox(plan)
        await kernel.tear_down_sandbox(plan.path, ["port2"])
        assert await kernel.list_links() == {BRIDGE}
        assert ip("link", "show", "dev", BRIDGE)[0]["mtu"] == 1400


@on_private_host
async def test_bridge_of_a_dual_stack_network() -> None:
    async with opened() as (kernel, _):
        await kernel.ensure_bridge(bridge(BRIDGE, "10.1.0.1/24", "fd00:1::1/64", has_ipv6=True))
        assert {"10.1.0.1/24", "fd00:1::1/64"} <= addresses(BRIDGE)
        assert read_sysctl(f"net/ipv6/conf/{BRIDGE}/disable_ipv6") == "0"
        assert read_sysctl(f"net/ipv6/conf/{BRIDGE}/accept_ra") == "0"


@on_private_host
async def test_bridge_left_by_a_crash_is_repaired() -> None:
    async with opened() as (kernel, _):
        await kernel.ensure_bridge(bridge(BRIDGE, "10.1.0.1/24"))
        subprocess.run(["ip", "link", "set", BRIDGE, "down"], check=True)
        await kernel.ensure_bridge(bridge(BRIDGE, "10.2.0.1/24", mtu=1300))
        assert addresses(BRIDGE) == {"10.2.0.1/24"}
        (found,) = ip("link", "show", "dev", BRIDGE)
        assert "UP" in found["flags"]
        assert found["mtu"] == 1300


@on_private_host
async def test_bridge_of_somebody_else_is_used_and_kept() -> None:
    async with opened() as (kernel, _):
        subprocess.run(["ip", "link", "add", "theirs", "type", "bridge"], check=True)
        subprocess.run(["ip", "addr", "add", "10.9.0.1/24", "dev", "theirs"], check=True)
        await kernel.ensure_bridge(bridge("theirs", "10.1.0.1/24"))
        assert addresses("theirs") == {"10.9.0.1/24", "10.1.0.1/24"}
        assert await kernel.list_links() == set()
        await kernel.remove_bridge("theirs")
        assert "theirs" in {one["ifname"] for one in ip("link")}


@on_private_host
async def test_name_of_another_interface_is_refused() -> None:
    async with opened() as (kernel, _):
        with pytest.raises(Conflict, match="is not a bridge"):
            await kernel.ensure_bridge(bridge("lo"))


@on_private_host
async def test_remove_bridge_is_certain_and_idempotent() -> None:
    async with opened() as (kernel, _):
        await kernel.ensure_bridge(bridge())
        await kernel.remove_bridge(BRIDGE)
        assert BRIDGE not in {one["ifname"] for one in ip("link")}
        await kernel.remove_bridge(BRIDGE)
        await kernel.ensure_bridge(bridge())
        # thirty at once share their waits, and a name may be made again at once
        names = [f"br-{n}" for n in range(30)]
        for name in names:
            await kernel.ensure_bridge(bridge(name, "10.3.0.1/32"))
        removals = asyncio.gather(*(kernel.remove_bridge(name) for name in names))
        await asyncio.sleep(0)
        await kernel.ensure_bridge(bridge("br-3", "10.3.0.1/32"))
        await removals
        assert await kernel.list_links() <= {BRIDGE, "br-3"}


# ---- sandboxes


@on_private_host
async def test_sandbox_of_an_ipv4_network() -> None:
    async with opened() as (kernel, instance):
        await kernel.ensure_bridge(bridge())
        plan = sandbox(instance, 2)
        assert await kernel.set_up_sandbox(plan) is None
        assert await kernel.list_sandboxes() == {plan.path}
        assert addresses("lo", plan.path) == {"127.0.0.1/8", "::1/128"}
        assert addresses("eth0", plan.path) == {"10.1.0.2/24"}
        assert read_sysctl("net/ipv6/conf/eth0/disable_ipv6", plan.path) == "1"
        (found,) = ip("addr", "show", "dev", "eth0", inside=plan.path)
        assert found["address"] == "02:00:00:00:00:02"
        assert found["addr_info"][0]["broadcast"] == "10.1.0.255"
        routes = {(r["dst"], r.get("gateway")) for r in ip("route", inside=plan.path)}
        assert routes == {("default", "10.1.0.1"), ("10.1.0.0/24", None)}


@on_private_host
async def test_sandbox_of_several_networks_keeps_the_declared_order() -> None:
    async with opened() as (kernel, instance):
        await kernel.ensure_bridge(bridge())
        interfaces = tuple(port(n, name=f"eth{n}") for n in range(4))
        plan = sandbox(instance, 1, interfaces=interfaces, routes=(), sysctls={"net.ipv4.ip_forward": "1"})
        await kernel.set_up_sandbox(plan)
        names = [one["ifname"] for one in ip("link", inside=plan.path) if one["ifname"].startswith("eth")]
        assert names == ["eth0", "eth1", "eth2", "eth3"]
        assert read_sysctl("net/ipv4/ip_forward", plan.path) == "1"
        assert read_sysctl("net/ipv4/ip_forward") == "0"


@on_private_host
async def test_dual_stack_address_is_usable_at_once() -> None:
    async with opened() as (kernel, instance):
        await kernel.ensure_bridge(bridge(BRIDGE, "10.1.0.1/24", "fd00:1::1/64", has_ipv6=True))
        routes = (RoutePlan(gateway="10.1.0.1", ifname="eth0"), RoutePlan(gateway="fd00:1::1", ifname="eth0"))
        plan = sandbox(instance, 2, interfaces=(port(2, has_ipv6=True),), routes=routes)
        await kernel.set_up_sandbox(plan)
        (found,) = ip("addr", "show", "dev", "eth0", inside=plan.path)
        (address,) = [a for a in found["addr_info"] if a["family"] == "inet6" and a["scope"] == "global"]
        assert address["local"] == "fd00:1::2"
        assert not address.get("tentative")
        (udp,) = await kernel.open_sandbox_sockets(plan.path, 1, socket.SOCK_DGRAM, socket.AF_INET6)
        udp.bind(("fd00:1::2", 0))  # refused while the address is tentative
        udp.close()
        assert ip("-6", "route", "show", "default", inside=plan.path)[0]["gateway"] == "fd00:1::1"


@on_private_host
async def test_ping_between_two_sandboxes() -> None:
    async with opened() as (kernel, instance):
        await kernel.ensure_bridge(bridge())
        one, two = sandbox(instance, 2), sandbox(instance, 3)
        await kernel.set_up_sandbox(one)
        await kernel.set_up_sandbox(two)
        (ping,) = await kernel.open_sandbox_sockets(one.path, 1, socket.SOCK_RAW, socket.AF_INET, socket.IPPROTO_ICMP)
        body = struct.pack("!BBHHH", 8, 0, 0, 7, 1)
        checksum = 0xFFFF - sum(struct.unpack("!4H", body))  # small enough that nothing carries over
        ping.sendto(struct.pack("!BBHHH", 8, 0, checksum, 7, 1), ("10.1.0.3", 0))
        async with asyncio.timeout(PATIENCE):
            answer = await asyncio.get_running_loop().sock_recv(ping, 1500)
        assert answer[20] == 0  # echo reply
        assert socket.inet_ntoa(answer[12:16]) == "10.1.0.3"
        ping.close()


@on_private_host
async def test_failure_leaves_nothing_behind() -> None:
    async with opened() as (kernel, instance):
        await kernel.ensure_bridge(bridge())
        for settings in (
            {"interfaces": (port(2), InterfacePlan(**{**_fields(port(3)), "bridge": "nosuch"}))},
            {"interfaces": (port(2), port(3, name="eth0", host_name="port3"))},  # the same name twice
            {"routes": (RoutePlan(gateway="10.9.9.9", ifname="eth0"),)},
            {"sysctls": {"net.nosuch": "1"}},
            {"sysctls": {"kernel.hostname": "evil"}},
            {"has_resolver": True, "routes": (RoutePlan(gateway="bad", ifname="eth0"),)},
        ):
            with pytest.raises(KernelFailure):
                await kernel.set_up_sandbox(sandbox(instance, 2, **settings))
            await kernel.settle()
            assert await kernel.list_sandboxes() == set(), settings
            assert await kernel.list_links() == {BRIDGE}, settings
        await kernel.set_up_sandbox(sandbox(instance, 2))


def _fields(plan: InterfacePlan) -> dict[str, Any]:
    return {name: getattr(plan, name) for name in plan.__struct_fields__}


@on_private_host
async def test_leftovers_of_a_crash_are_replaced() -> None:
    async with opened() as (kernel, instance):
        await kernel.ensure_bridge(bridge())
        plan = sandbox(instance, 2, has_resolver=True)
        first = await kernel.set_up_sandbox(plan)
        second = await kernel.set_up_sandbox(plan)
        assert first is not None
        assert second is not None
        # only the pin is gone (a reboot of the run directory), or only the link
        subprocess.run(["umount", plan.path], check=True)
        third = await kernel.set_up_sandbox(plan)
        assert third is not None
        for made in (first, second, third):
            made.close()
        assert addresses("eth0", plan.path) == {"10.1.0.2/24"}
        await kernel.tear_down_sandbox(plan.path, ["port2"])
        assert await kernel.list_links() == {BRIDGE}


@on_private_host
async def test_tear_down_frees_the_addresses_at_once() -> None:
    """With waits=False the old interface still exists for a moment; it must be deaf and dumb by then."""
    async with opened() as (kernel, instance):
        await kernel.ensure_bridge(bridge())
        old = sandbox(instance, 2)
        await kernel.set_up_sandbox(old)
        (holder,) = await kernel.open_sandbox_sockets(old.path, 1, socket.SOCK_DGRAM)  # keeps the namespace alive
        holder.bind(("0.0.0.0", 9))
        await kernel.tear_down_sandbox(old.path, ["port2"], waits=False)
        new = sandbox(instance, 9, interfaces=(InterfacePlan(**{**_fields(port(9)), "addresses": ("10.1.0.2/24",)}),))
        await kernel.set_up_sandbox(new)
        (receiver,) = await kernel.open_sandbox_sockets(new.path, 1, socket.SOCK_DGRAM)
        receiver.bind(("0.0.0.0", 9))
        sender = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        sender.sendto(b"for the new one", ("10.1.0.2", 9))
        async with asyncio.timeout(PATIENCE):
            assert await asyncio.get_running_loop().sock_recv(receiver, 100) == b"for the new one"
        with pytest.raises(BlockingIOError):
            holder.recv(100)
        await kernel.settle()
        assert await kernel.list_links() == {BRIDGE, "port9"}
        await kernel.tear_down_sandbox(new.path, ["port9"])
        await kernel.tear_down_sandbox(new.path, ["port9"])
        assert await kernel.list_sandboxes() == set()
        assert await kernel.list_links() == {BRIDGE}
        for one in (holder, receiver, sender):
            one.close()


@on_private_host
async def test_neighbours_learn_a_reused_address_at_once() -> None:
    """moby#36069: without a gratuitous ARP the host would send to the old MAC until its entry goes stale."""
    async with opened() as (kernel, instance):
        await kernel.ensure_bridge(bridge(BRIDGE, "10.1.0.1/24", "fd00:1::1/64", has_ipv6=True))
        for address in ("10.1.0.2", "fd00:1::2"):
            subprocess.run(
                ["ip", "neigh", "replace", address, "lladdr", "02:11:11:11:11:11", "dev", BRIDGE, "nud", "reachable"],
                check=True,
            )
        # nobody else is on the bridge: what changes the entries is what the new sandbox says by itself
        await kernel.set_up_sandbox(sandbox(instance, 2, interfaces=(port(2, has_ipv6=True),)))

        async def learned() -> bool:
            return all(
                one["lladdr"] == "02:00:00:00:00:02"
                for one in ip("neigh", "show", "dev", BRIDGE)
                if one["dst"] in {"10.1.0.2", "fd00:1::2"}
            )

        async with asyncio.timeout(PATIENCE):
            while not await learned():
                await asyncio.sleep(0.005)


def test_announcement_waits_for_the_carrier(monkeypatch: pytest.MonkeyPatch) -> None:
    """Kernels before 6.8 report the interface as down for some milliseconds more."""
    asked: list[str] = []
    real = link.is_running

    def slow(nl: Any, name: str) -> bool:
        asked.append(name)
        return len(asked) > 3 and real(nl, name)

    async def body() -> None:
        async with opened() as (kernel, instance):
            await kernel.ensure_bridge(bridge())
            words = f"neigh replace 10.1.0.2 lladdr 02:11:11:11:11:11 dev {BRIDGE} nud reachable".split()
            subprocess.run(["ip", *words], check=True)
            await kernel.set_up_sandbox(sandbox(instance, 2))
            async with asyncio.timeout(PATIENCE):
                while len(asked) <= 3 or ip("neigh", "show", "dev", BRIDGE)[0]["lladdr"] != "02:00:00:00:00:02":
                    await asyncio.sleep(0.005)

    monkeypatch.setattr(link, "is_running", slow)
    on_private_host(body)()


@on_private_host
async def test_announcements_are_as_many_as_asked_for() -> None:
    async with opened() as (kernel, instance):
        await kernel.ensure_bridge(bridge())
        with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(0x0806)) as listener:
            listener.bind((BRIDGE, 0x0806))
            listener.setblocking(False)
            heard: list[int] = []
            for n, count in ((2, 0), (3, 1), (4, 3)):
                plan = replace(port(n), announcements=count, announce_interval=0.1)
                await kernel.set_up_sandbox(sandbox(instance, n, interfaces=(plan,)))
                await asyncio.sleep(0.6)  # the whole of the time in which more could come
                frames = []
                with contextlib.suppress(BlockingIOError):
                    while True:
                        frames.append(listener.recv(100))
                # the sender asks for its own address (RFC 5227)
                heard.append(sum(frame[28:32] == frame[38:42] == bytes([10, 1, 0, n]) for frame in frames))
            assert heard[0] == 0
            assert heard[2] == heard[1] + 2 >= 3


@on_private_host
async def test_on_a_silent_bridge_the_host_has_no_address_at_all() -> None:
    """A container that makes a route of its own, or sends past all routes, finds nobody at the host's addresses."""
    async with opened() as (kernel, instance):
        await kernel.ensure_bridge(bridge("up0", "10.9.0.1/24"))
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
            server.bind(("10.9.0.1", 0))
            for is_silent, n in ((False, 2), (True, 3)):
                plan = BridgePlan(name=BRIDGE, mtu=1500, is_silent=is_silent)
                await kernel.ensure_bridge(plan)
                made = sandbox(instance, n, interfaces=(port(n),), routes=())
                await kernel.set_up_sandbox(made)
                (sender,) = await kernel.open_sandbox_sockets(made.path, 1, socket.SOCK_DGRAM)
                with sender:
                    sender.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, b"eth0")
                    server.settimeout(0.5 if is_silent else PATIENCE)
                    sender.sendto(b"x", server.getsockname())
                    if is_silent:
                        with pytest.raises(TimeoutError):
                            server.recv(9)
                    else:
                        assert server.recv(9) == b"x"


@on_private_host
async def test_thirty_at_once() -> None:
    async with opened() as (kernel, instance):
        await kernel.ensure_bridge(bridge())
        plans = [sandbox(instance, n, has_resolver=True) for n in range(2, 32)]
        made = await asyncio.gather(*(kernel.set_up_sandbox(plan) for plan in plans))
        assert len(await kernel.list_sandboxes()) == 30
        assert {next(iter(addresses("eth0", plan.path))) for plan in plans} == {f"10.1.0.{n}/24" for n in range(2, 32)}
        for one in made:
            assert one is not None
            one.close()
        await asyncio.gather(*(kernel.tear_down_sandbox(plan.path, [plan.interfaces[0].host_name]) for plan in plans))
        assert await kernel.list_links() == {BRIDGE}
        assert await kernel.list_sandboxes() == set()


@on_private_host
async def test_a_cancelled_start_leaves_nothing_behind() -> None:
    async with opened() as (kernel, instance):
        await kernel.ensure_bridge(bridge())
        for turns in range(6):
            task = asyncio.ensure_future(kernel.set_up_sandbox(sandbox(instance, 2, has_resolver=True)))
            for _ in range(turns):
                await asyncio.sleep(0)
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
            await kernel.default_mtu()  # the queue of the namespace thread has run
            await kernel.settle()
            assert await kernel.list_sandboxes() == set()
            assert await kernel.list_links() == {BRIDGE}


# ---- interfaces and routes of a running sandbox


@on_private_host
async def test_connect_and_disconnect_while_running() -> None:
    async with opened() as (kernel, instance):
        await kernel.ensure_bridge(bridge())
        plan = sandbox(instance, 2)
        await kernel.set_up_sandbox(plan)
        await kernel.ensure_bridge(bridge("br-two", "10.2.0.1/24"))
        second = InterfacePlan(
            host_name="second",
            name="eth1",
            bridge="br-two",
            mac="02:00:00:00:02:02",
            mtu=1400,
            addresses=("10.2.0.2/24",),
        )
        await kernel.add_interface(plan.path, second)
        assert addresses("eth1", plan.path) == {"10.2.0.2/24"}
        await kernel.set_default_routes(plan.path, (RoutePlan(gateway="10.2.0.1", ifname="eth1"),))
        (default,) = ip("route", "show", "default", inside=plan.path)
        assert (default["gateway"], default["dev"]) == ("10.2.0.1", "eth1")
        await kernel.remove_interface(plan.path, "port2")
        assert {one["ifname"] for one in ip("link", inside=plan.path)} >= {"lo", "eth1"}
        assert "eth0" not in {one["ifname"] for one in ip("link", inside=plan.path)}
        await kernel.set_default_routes(plan.path, ())
        assert ip("route", "show", "default", inside=plan.path) == []
        await kernel.remove_interface(plan.path, "port2")
        with pytest.raises(KernelFailure, match="nosuch"):
            await kernel.add_interface(plan.path, InterfacePlan(**{**_fields(second), "bridge": "nosuch"}))
        with pytest.raises(KernelFailure, match="No such file"):
            await kernel.add_interface(f"{plan.path}x", second)
        # a failed attempt takes away what is called as it would have been: that name is one endpoint's
        assert await kernel.list_links() == {BRIDGE, "br-two"}


# ---- the host


@on_private_host
async def test_host_prefixes_and_mtu() -> None:
    async with opened() as (kernel, _):
        assert await kernel.default_mtu() == 1500
        await kernel.ensure_bridge(bridge("up", "192.0.2.1/24", "fd00:9::1/64", has_ipv6=True, mtu=1380))
        for words in (
            "route add default via 192.0.2.254",
            "route add 0.0.0.0/1 via 192.0.2.253",
            "route add 10.44.0.0/16 via 192.0.2.254",
            "route add blackhole 10.55.0.0/16",
            "route add 10.66.0.0/16 via 192.0.2.254 table 77",
            "-6 route add fd55::/48 via fd00:9::2",
        ):
            subprocess.run(["ip", *words.split()], check=True)
        found = set(await kernel.host_prefixes())
        wanted = {"192.0.2.0/24", "10.44.0.0/16", "10.55.0.0/16", "10.66.0.0/16", "fd55::/48", "fd00:9::/64"}
        assert wanted <= found
        assert not [one for one in found if one.endswith(("/0", "/1")) or one.startswith(("fe80", "ff"))]
        assert await kernel.default_mtu() == 1380
        words = "route replace default via 192.0.2.252 mtu 1200"
        subprocess.run(["ip", *words.split()], check=True)
        assert await kernel.default_mtu() == 1200


@on_private_host
async def test_forwarding_is_switched_on_once() -> None:
    async with opened() as (kernel, _):
        before6 = read_sysctl("net/ipv6/conf/all/forwarding")
        assert await kernel.enable_forwarding()
        assert not await kernel.enable_forwarding()
        assert read_sysctl("net/ipv6/conf/all/forwarding") == before6
        assert await kernel.enable_forwarding(ipv6=True)
        assert (read_sysctl("net/ipv4/ip_forward"), read_sysctl("net/ipv6/conf/all/forwarding")) == ("1", "1")


@on_private_host
async def test_ipv6_that_cannot_be_shut_off_is_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    """CVE-2024-32473: fail closed, whatever the kernel's reason is."""

    def refuse(path: str, value: str) -> None:
        raise PermissionError(errno.EPERM, "Operation not permitted", path)

    monkeypatch.setattr(sysctl, "write", refuse)
    with pytest.raises(KernelFailure, match="cannot shut IPv6 off"):
        sysctl.write_ipv6("lo", has_ipv6=False)
    monkeypatch.undo()
    with pytest.raises(KernelFailure, match="cannot enable IPv6"):
        sysctl.write_ipv6("nosuch", has_ipv6=True)
