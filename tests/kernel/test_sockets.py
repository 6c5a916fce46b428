"""The resolver's sockets: port 53 of 127.0.0.11 is ours, over UDP and TCP, and the container does not notice."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tsunagu.kernel import link, netns, sockets
from tsunagu.kernel.netlink import Socket
from tsunagu.kernel.netns import Worker
from tsunagu.kernel.sockets import ResolverSockets
from tsunagu.model.errors import KernelFailure

pytestmark = pytest.mark.root

PATIENCE = 5.0


class Sandbox:
    """A namespace with a loopback interface only, the resolver's sockets, and sockets for the container's part."""

    def __init__(self, worker: Worker, pin: str) -> None:
        self._worker = worker
        self._descriptor = worker.submit(worker.create, pin).result()
        self._opened: list[socket.socket] = []
        self.resolver = worker.submit(self._prepare).result()

    def _prepare(self) -> ResolverSockets:
        with self._worker.inside(self._descriptor), Socket() as nl:
            link.set_up(nl, "lo")
            return sockets.open_resolver()

    def socket(self, kind: int) -> socket.socket:
        def job() -> socket.socket:
            with self._worker.inside(self._descriptor):
                return sockets.open_plain(1, kind)[0]

        made = self._worker.submit(job).result()
        self._opened.append(made)
        return made

    def close(self) -> None:
        for one in self._opened:
            one.close()
        self.resolver.close()
        os.close(self._descriptor)


@contextmanager
def sandbox(tmp_path: Path) -> Iterator[Sandbox]:
    worker = Worker("test")
    pin = str(tmp_path / "pin")
    try:
        made = Sandbox(worker, pin)
        try:
            yield made
        finally:
            made.close()
    finally:
        worker.close()
        netns.remove(pin)


def test_ports_are_random_and_sockets_ready_for_a_readiness_loop(tmp_path: Path) -> None:
    with sandbox(tmp_path) as it:
        for one in it.resolver:
            address, port = one.getsockname()
            assert address == "127.0.0.11"
            assert port not in {0, 53}
            assert not one.getblocking()
            assert not os.get_inheritable(one.fileno())
        assert it.resolver.udp.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF) >= 2 << 20


def test_udp_of_every_size(tmp_path: Path) -> None:
    async def body(it: Sandbox) -> None:
        loop = asyncio.get_running_loop()
        asker = it.socket(socket.SOCK_DGRAM)
        asker.connect(("127.0.0.11", 53))  # connected: an answer from another port would be thrown away
        for size in (0, 1, 512, 4000, 60000):
            asker.send(b"q" * size)
            async with asyncio.timeout(PATIENCE):
                question, origin = await loop.sock_recvfrom(it.resolver.udp, 65535)
                assert question == b"q" * size
                it.resolver.udp.sendto(b"a" * size, origin)
                assert await loop.sock_recv(asker, 65535) == b"a" * size

    with sandbox(tmp_path) as it:
        asyncio.run(body(it))


def test_a_burst_waits_instead_of_being_lost(tmp_path: Path) -> None:
    with sandbox(tmp_path) as it:
        asker = it.socket(socket.SOCK_DGRAM)
        asker.connect(("127.0.0.11", 53))
        for n in range(1000):
            asker.send(n.to_bytes(2, "big") * 20)
        assert [it.resolver.udp.recv(100)[:2] for _ in range(1000)] == [n.to_bytes(2, "big") for n in range(1000)]


def test_tcp_both_ways(tmp_path: Path) -> None:
    async def body(it: Sandbox) -> None:
        loop = asyncio.get_running_loop()
        client = it.socket(socket.SOCK_STREAM)
        async with asyncio.timeout(PATIENCE):
            await loop.sock_connect(client, ("127.0.0.11", 53))
            server, _ = await loop.sock_accept(it.resolver.tcp)
            await loop.sock_sendall(client, b"question")
            assert await loop.sock_recv(server, 100) == b"question"
            # long enough for segments that are cut late (offloads)
            sending = asyncio.ensure_future(loop.sock_sendall(server, b"x" * 300_000))
            received = 0
            while received < 300_000:
                received += len(await loop.sock_recv(client, 65536))
            await sending
        server.close()

    with sandbox(tmp_path) as it:
        asyncio.run(body(it))


@pytest.mark.parametrize("kind", [socket.SOCK_DGRAM, socket.SOCK_STREAM])
def test_the_container_may_have_its_own_server_on_port_53(tmp_path: Path, kind: int) -> None:
    async def body(it: Sandbox) -> None:
        loop = asyncio.get_running_loop()
        own, caller, asker = it.socket(kind), it.socket(kind), it.socket(socket.SOCK_DGRAM)
        own.bind(("0.0.0.0", 53))
        async with asyncio.timeout(PATIENCE):
            if kind == socket.SOCK_STREAM:
                own.listen()
                await loop.sock_connect(caller, ("127.0.0.5", 53))
                (await loop.sock_accept(own))[0].close()
            else:
                caller.connect(("127.0.0.5", 53))
                caller.send(b"for the container")
                assert await loop.sock_recv(own, 100) == b"for the container"
            asker.connect(("127.0.0.11", 53))
            asker.send(b"for the resolver")
            assert await loop.sock_recv(it.resolver.udp, 100) == b"for the resolver"

    with sandbox(tmp_path) as it:
        asyncio.run(body(it))


def test_nothing_stays_open_when_the_redirect_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[socket.socket] = []
    real = sockets._open

    def recording(*args: int) -> socket.socket:
        opened.append(real(*args))
        return opened[-1]

    monkeypatch.setattr(sockets, "_open", recording)
    monkeypatch.setattr(sockets, "_REDIRECT", "nonsense {address} {udp} {tcp}")
    with pytest.raises(KernelFailure, match="nftables refused"), sandbox(tmp_path):
        pass
    assert len(opened) == 2
    assert all(one.fileno() == -1 for one in opened)
