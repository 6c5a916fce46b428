"""What probes see of a real namespace: listening sockets, packet sizes, the host's routes."""

# ruff: noqa: ASYNC221 (a test may block its own loop)

from __future__ import annotations

import os
import socket
import threading

import pytest

from tsunagu.kernel import probes
from tsunagu.kernel.network import NetworkKernel
from tsunagu.kernel.probes import Listener
from tsunagu.model.network import BridgePlan, InterfacePlan, SandboxPlan
from tsunagu.testing.namespaces import on_private_host, private_instance

pytestmark = pytest.mark.root


@on_private_host
async def test_listeners_of_a_namespace() -> None:
    found = set()
    sockets = []
    for family, kind, address in (
        (socket.AF_INET, socket.SOCK_STREAM, "127.0.0.1"),
        (socket.AF_INET, socket.SOCK_STREAM, "0.0.0.0"),
        (socket.AF_INET6, socket.SOCK_STREAM, "::"),
        (socket.AF_INET6, socket.SOCK_STREAM, "::1"),
        (socket.AF_INET, socket.SOCK_DGRAM, "0.0.0.0"),
        (socket.AF_INET6, socket.SOCK_DGRAM, "::ffff:127.0.0.1"),
        (socket.AF_INET, socket.SOCK_DGRAM, "127.0.0.11"),  # the resolver's own, not shown
    ):
        one = socket.socket(family, kind)
        sockets.append(one)
        one.bind((address, 0))
        if kind == socket.SOCK_STREAM:
            one.listen()
        shown = address.removeprefix("::ffff:")
        if shown != "127.0.0.11":
            protocol = "tcp" if kind == socket.SOCK_STREAM else "udp"
            found.add(Listener(protocol, shown, one.getsockname()[1]))
    talking = socket.create_connection(("127.0.0.1", sockets[0].getsockname()[1]))
    bound = socket.socket()
    bound.bind(("127.0.0.1", 0))  # bound, but nobody can connect to it
    # the process's own thread is on the real host: this one has an entry of its own in /proc
    assert probes.listeners(threading.get_native_id()) == sorted(found)
    for one in (*sockets, talking, bound):
        one.close()
    assert probes.listeners(threading.get_native_id()) == []


def test_listeners_of_a_process_that_is_gone() -> None:
    pid = os.posix_spawn("/bin/true", ["true"], {})
    os.waitpid(pid, 0)
    with pytest.raises(FileNotFoundError):
        probes.listeners(pid)


@on_private_host
async def test_surroundings_and_packet_sizes() -> None:
    instance, remove = private_instance()
    kernel = NetworkKernel(instance)
    await kernel.open()
    try:
        empty = await kernel.surroundings()
        assert (empty.addresses, empty.outside) == ((), frozenset())
        assert 4 not in empty.forwards
        await kernel.enable_forwarding(ipv6=True)
        await kernel.ensure_bridge(
            BridgePlan(name="up0", mtu=1500, addresses=("198.18.0.1/24", "fd00:1::1/64"), has_ipv6=True)
        )
        found = await kernel.surroundings()
        assert found.addresses == ("198.18.0.1", "fd00:1::1")
        assert (found.forwards, found.outside) == (frozenset({4, 6}), frozenset())
        path = os.path.join(instance.run_dir, "netns", "box")
        interface = InterfacePlan(
            host_name="box0", name="eth0", bridge="up0", mac="02:00:00:00:00:02", mtu=1400,
            addresses=("198.18.0.2/24",),
        )  # fmt: skip
        await kernel.set_up_sandbox(SandboxPlan(path=path, interfaces=(interface,)))
        assert await kernel.sandbox_mtus(path) == {"eth0": 1400}
        os.system("ip route add default via 198.18.0.2")
        assert (await kernel.surroundings()).outside == frozenset({4})
    finally:
        await kernel.close()
        remove()
