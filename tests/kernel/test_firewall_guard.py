"""Somebody else flushes or edits our tables: they come back whole, soon, and not more often than is good."""

# ruff: noqa: ASYNC110 (a test may block its own loop, and asks the kernel until it is so)
from __future__ import annotations

import asyncio
import logging
import os
import socket
import subprocess
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from tsunagu.kernel import ruleset
from tsunagu.kernel.network import NetworkKernel
from tsunagu.model.errors import KernelFailure
from tsunagu.model.network import ICC, InterfacePlan, Network, RoutePlan, SandboxPlan, Subnet
from tsunagu.model.world import NetworkCreated
from tsunagu.services.engine import Engine
from tsunagu.services.firewall import Firewall
from tsunagu.services.networks import bridge_plan
from tsunagu.store.db import Database
from tsunagu.testing.namespaces import on_private_host, private_instance

pytestmark = pytest.mark.root

PATIENCE = 10.0
SILENCE = 0.6  # seconds after which nothing will come any more
PORT = 7777


class Lab:
    """A private host with an engine's world, its guarded firewall, and two networks 10.N.0.0/24."""

    def __init__(self, engine: Engine, kernel: NetworkKernel) -> None:
        self.engine = engine
        self.kernel = kernel
        self.firewall = Firewall(engine, kernel)
        self.table = engine.instance.nft_table
        self.servers: list[asyncio.Server] = []

    async def network(self, n: int, **options: str) -> Network:
        network = Network(
            id=f"{n:x}" * 64, name=f"net{n}", bridge=f"lab{n}", options=options,
            subnets=(Subnet(subnet=f"10.{n}.0.0/24", gateway=f"10.{n}.0.1"),),
        )  # fmt: skip
        await self.kernel.ensure_bridge(bridge_plan(network))
        self.engine.commit(NetworkCreated(network))
        await self.firewall.sync()
        return network

    async def sandbox(self, n: int, m: int) -> str:
        path = f"{self.engine.instance.run_dir}/netns/{n}-{m}"
        interface = InterfacePlan(
            host_name=f"port{n}-{m}", name="eth0", bridge=f"lab{n}", mac=f"02:00:00:00:{n:02x}:{m:02x}", mtu=1500,
            addresses=(f"10.{n}.0.{m}/24",),
        )  # fmt: skip
        routes = (RoutePlan(gateway=f"10.{n}.0.1", ifname="eth0"),)
        await self.kernel.set_up_sandbox(SandboxPlan(path=path, interfaces=(interface,), routes=routes))
        return path

    async def serve(self, path: str, port: int) -> None:
        """Echo whatever is sent to a TCP port in a sandbox."""
        (listener,) = await self.kernel.open_sandbox_sockets(path, 1, socket.SOCK_STREAM)
        listener.bind(("0.0.0.0", port))
        self.servers.append(await asyncio.start_server(_echo, sock=listener))

    async def connect(self, path: str | None, address: str) -> socket.socket:
        """Connect and exchange a word. Raises TimeoutError when nobody answers."""
        if path is None:
            client = socket.socket(socket.AF_INET, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        else:
            (client,) = await self.kernel.open_sandbox_sockets(path, 1, socket.SOCK_STREAM)
        try:
            async with asyncio.timeout(SILENCE):
                await asyncio.get_running_loop().sock_connect(client, (address, PORT))
        except BaseException:
            client.close()
            raise
        assert await self.echo(client)
        return client

    async def echo(self, client: socket.socket) -> bool:
        """Tell whether a connection still carries something there and back."""
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(SILENCE):
                await loop.sock_sendall(client, b"x")
                return await loop.sock_recv(client, 1) == b"x"
        except (TimeoutError, OSError):
            return False

    def listing(self) -> list[str]:
        """What nft shows of our tables, without counters; the order of chains does not matter."""
        shown = [
            subprocess.run(
                ["nft", "-s", "list", "table", family, self.table], capture_output=True, text=True, check=False
            ).stdout
            for family in ("inet", "bridge")
        ]
        return sorted("".join(shown).splitlines())

    @property
    def count(self) -> int:
        return self.firewall.last_disturbance.count if self.firewall.last_disturbance else 0

    async def settle(self, count: int) -> None:
        """Return when the table was restored `count` times."""
        async with asyncio.timeout(PATIENCE):
            while self.count < count:
                await asyncio.sleep(0.005)


async def _echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(100):
        writer.write(data)


@asynccontextmanager
async def lab() -> AsyncIterator[Lab]:
    instance, remove = private_instance()
    os.makedirs(instance.root)
    kernel = NetworkKernel(instance)
    await kernel.open()
    await kernel.enable_forwarding()
    engine = Engine(instance, Database(f"{instance.root}/state.db"))
    it = Lab(engine, kernel)
    try:
        await it.firewall.watch()
        await it.network(1)
        await it.network(2, **{ICC: "false"})
        yield it
    finally:
        for server in it.servers:
            server.close()
        await kernel.close()
        engine.db.close()
        remove()


def nft(line: str) -> None:
    subprocess.run(["nft", line], check=True)


@on_private_host
async def test_whatever_was_done_to_our_tables_is_undone() -> None:
    async with lab() as it:
        whole = it.listing()
        assert any("no-shared-network" in line for line in whole)
        chain = f"inet {it.table} entering_{'1' * 12}"
        deeds = [
            "flush ruleset",
            f"delete table inet {it.table}",
            f"delete table bridge {it.table}",
            f"flush chain {chain}",
            f"insert rule {chain} accept",
            f"add chain inet {it.table} mine",
            f"flush map inet {it.table} entering",
            f"delete element inet {it.table} bridges {{ lab1 }}",
            f"add set inet {it.table} mine {{ type ipv4_addr; }}",
        ]
        for number, deed in enumerate(deeds, 1):
            nft(deed)
            await it.settle(number)
            assert it.listing() == whole, deed
        assert it.firewall.last_disturbance is not None
        assert (it.firewall.last_disturbance.program, it.count) == ("nft", len(deeds))


@on_private_host
async def test_our_own_changes_and_other_tables_are_no_disturbance(caplog: pytest.LogCaptureFixture) -> None:
    async with lab() as it:
        for n in range(3, 30):
            await it.network(n)
        nft("add table inet theirs; add chain inet theirs c; add rule inet theirs c drop")
        nft("delete table inet theirs")
        # when this one is undone, everything before it has been looked at
        nft(f"add chain inet {it.table} mine")
        await it.settle(1)
        assert it.count == 1
        assert [r.message for r in caplog.records if r.levelno >= logging.WARNING] == [caplog.records[-1].message]
        assert "restored program=nft" in caplog.records[-1].message


@pytest.mark.skipif(
    os.stat("/proc/self/ns/pid").st_ino != 0xEFFFFFFC,
    reason="in a process namespace of our own the kernel's thread numbers cannot be compared with ours",
)
@on_private_host
async def test_others_who_change_tables_of_their_own_meanwhile_are_no_disturbance() -> None:
    """Another engine on the same host: its transactions come between ours, and touch nothing of ours."""
    async with lab() as it:
        deeds = "for i in $(seq 60); do nft add table inet theirs; nft delete table inet theirs; done"
        busy = await asyncio.create_subprocess_exec("sh", "-c", deeds)
        n = 2
        while busy.returncode is None:
            n += 1
            await it.network(n)
            if n > 60:
                break
        await busy.wait()
        assert n > 4, "some of ours were made meanwhile"
        nft(f"add chain inet {it.table} mine")
        await it.settle(1)
        assert it.count == 1


@on_private_host
async def test_a_change_in_the_middle_of_ours_is_not_taken_for_ours() -> None:
    """Where threads cannot be compared, ours are told by their numbers: with somebody else's between, it is unknown
    which is whose."""
    async with lab() as it:
        for _ in range(8):
            whole, count = it.listing(), it.count
            flush = await asyncio.create_subprocess_exec("nft", "flush", "ruleset")
            await asyncio.gather(flush.wait(), *(it.firewall.sync() for _ in range(5)))
            await it.settle(count + 1)
            async with asyncio.timeout(PATIENCE):
                while it.listing() != whole:
                    await asyncio.sleep(0.01)


@on_private_host
async def test_somebody_who_keeps_at_it_does_not_keep_us_busy() -> None:
    async with lab() as it:
        whole = it.listing()
        process = await asyncio.create_subprocess_exec(
            "sh", "-c", "i=0; while [ $i -lt 100 ]; do nft flush ruleset; i=$((i+1)); done"
        )
        began = time.monotonic()
        await process.wait()
        lasted = time.monotonic() - began
        # at once, then after 20, 40, 80 … 640 ms, then every second
        assert 1 <= it.count <= 8 + lasted
        async with asyncio.timeout(PATIENCE):
            while it.listing() != whole:
                await asyncio.sleep(0.01)


@on_private_host
async def test_more_than_the_kernel_can_tell_is_taken_for_a_change(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ruleset, "_RECEIVE_BUFFER", 2048)
    async with lab() as it:
        for n in range(3, 40):
            await it.network(n)
        whole = it.listing()
        await asyncio.sleep(0.1)
        assert it.count == 0  # what was lost were transactions of ours, all of them
        nft("flush ruleset")
        await it.settle(1)
        assert it.listing() == whole


@on_private_host
async def test_a_failure_to_restore_is_not_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    async with lab() as it:
        whole, apply, failures = it.listing(), it.kernel.apply_firewall, 3

        async def refuse(script: str) -> None:
            nonlocal failures
            if failures:
                failures -= 1
                raise KernelFailure("no memory")
            await apply(script)

        monkeypatch.setattr(it.kernel, "apply_firewall", refuse)
        nft("flush ruleset")
        await it.settle(1)
        assert (it.listing(), failures) == (whole, 0)


@on_private_host
async def test_what_was_withdrawn_stays_away() -> None:
    async with lab() as it:
        await it.firewall.withdraw()
        nft(f"add table inet {it.table}")
        nft(f"delete table inet {it.table}")
        await asyncio.sleep(0.2)
        assert (it.listing(), it.count) == ([], 0)


@on_private_host
async def test_how_long_a_flush_is_felt(capsys: pytest.CaptureFixture[str]) -> None:
    """Datagrams between two networks, one after the other: those that pass measure the time without rules."""
    async with lab() as it:
        a, b = await it.sandbox(1, 2), await it.sandbox(2, 2)
        (sender,) = await it.kernel.open_sandbox_sockets(a, 1, socket.SOCK_DGRAM)
        (receiver,) = await it.kernel.open_sandbox_sockets(b, 1, socket.SOCK_DGRAM)
        receiver.bind(("0.0.0.0", PORT))
        windows = []
        for number in range(1, 6):
            passed: list[float] = []
            flush = await asyncio.create_subprocess_exec("nft", "flush", "ruleset")
            end = time.monotonic() + 1.0
            while time.monotonic() < end and (it.count < number or time.monotonic() < end - 0.9):
                sender.sendto(b"x", ("10.2.0.2", PORT))
                await asyncio.sleep(0)
                try:
                    receiver.recv(10)
                except BlockingIOError:
                    continue
                passed.append(time.monotonic())
            await flush.wait()
            await it.settle(number)
            windows.append((passed[-1] - passed[0]) * 1000 if passed else 0.0)
            it.firewall._restored = 0.0  # each one is a first
        with capsys.disabled():
            print("\nmilliseconds without rules after a flush: " + ", ".join(f"{w:.1f}" for w in windows))
        assert sorted(windows)[2] < 500
        sender.close()
        receiver.close()


@pytest.mark.parametrize("is_tracked", [False, True], ids=["alone", "beside a tracking firewall"])
@on_private_host
async def test_what_came_in_meanwhile_is_cut_off_and_nothing_else(is_tracked: bool) -> None:
    async with lab() as it:
        a, b, c = await it.sandbox(1, 2), await it.sandbox(2, 2), await it.sandbox(1, 3)
        for path, port in ((b, PORT), (c, PORT)):
            await it.serve(path, port)
        before = [await it.connect(a, "10.1.0.3"), await it.connect(None, "10.2.0.2")]
        with pytest.raises(TimeoutError):
            await it.connect(a, "10.2.0.2")
        async with it.firewall._lock:  # keeps the guard waiting
            nft("flush ruleset")
            if is_tracked:
                nft("add table inet theirs; add chain inet theirs c { type filter hook forward priority 0; };"
                    "add rule inet theirs c ct state established accept")  # fmt: skip
            meanwhile = await it.connect(a, "10.2.0.2")
        await it.settle(1)
        await asyncio.sleep(0.05)
        for connection in before:
            assert await it.echo(connection)
        assert not await it.echo(meanwhile)
        for connection in (*before, meanwhile):
            connection.close()
