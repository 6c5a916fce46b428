"""The resolver process behind 127.0.0.11:53 of real sandboxes: who it answers, what it may do,
and what it survives."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import stat
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import dns.message
import dns.rcode
import dns.rrset
import pytest

from tsunagu.kernel.network import NetworkKernel
from tsunagu.model.container import Config, Container, HostConfig, State, Status
from tsunagu.model.instance import Instance
from tsunagu.model.network import Endpoint, EndpointConfig, Network, SandboxPlan, Subnet
from tsunagu.model.world import (
    ContainerCreated,
    ContainerRemoved,
    ContainerRenamed,
    ContainerStateChanged,
    EndpointsChanged,
    Event,
    NetworkCreated,
    NetworkRemoved,
    World,
    apply,
)
from tsunagu.services import resolver_link
from tsunagu.services.resolver import Resolver
from tsunagu.testing.namespaces import on_private_host, private_instance

pytestmark = pytest.mark.root

PATIENCE = 10.0
RUNNING, EXITED = State(status=Status.RUNNING), State(status=Status.EXITED)


class Upstream(asyncio.DatagramProtocol):
    """The host's name server: answers 192.0.2.1 to everything and counts."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, tuple[str, int]]] = []

    def connection_made(self, transport: asyncio.DatagramTransport) -> None:  # type: ignore[override]
        self._transport = transport

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        query = dns.message.from_wire(data)
        self.asked.append((query.question[0].name.to_text(), addr))
        reply = dns.message.make_response(query)
        reply.answer.append(dns.rrset.from_text(query.question[0].name, 1, "IN", "A", "192.0.2.1"))
        self._transport.sendto(reply.to_wire(), addr)


class Scene:
    """An instance with a resolver; containers are namespaces without a process."""

    def __init__(self, instance: Instance, kernel: NetworkKernel) -> None:
        self.instance = instance
        self.kernel = kernel
        self.host_file = Path(instance.root).with_name("resolv.conf")
        self.host_file.write_text("nameserver 127.0.0.53\n")
        self.resolver = Resolver(instance, resolv_conf=str(self.host_file))
        self.world = World()
        self._clients: list[socket.socket] = []

    def commit(self, *events: Event) -> None:
        for event in events:
            before, self.world = self.world, apply(self.world, event)
            self.resolver.publish(before, event, self.world)

    def network(self, name: str, *, is_internal: bool = False) -> None:
        number = len(self.world.networks)
        subnet = Subnet(f"10.9.{number}.0/24", f"10.9.{number}.1")
        self.commit(NetworkCreated(Network(id=f"id-{name}", name=name, is_internal=is_internal, subnets=(subnet,))))

    def endpoint(self, network: str, number: int, **config: object) -> Endpoint:
        subnet = self.world.networks[f"id-{network}"].subnets[0].subnet
        return Endpoint(
            config=EndpointConfig(network=network, **config), network_id=f"id-{network}",  # type: ignore[arg-type]
            network_name=network, id=f"{network}-{number}", ipv4=subnet.replace("0/24", str(number)), ipv4_prefix=24,
        )  # fmt: skip

    def path(self, name: str) -> str:
        return f"{self.instance.run_dir}/netns/{name}"

    async def run(self, name: str, *networks: str, aliases: tuple[str, ...] = (), servers: tuple[str, ...] = ()) -> str:
        """Start a container as the engine does: sockets first, then the facts; returns its id."""
        number = len(self.world.containers) + 2
        identifier = f"c{number:011x}" + "0" * 52
        endpoints = tuple(self.endpoint(network, number, aliases=aliases) for network in networks)
        created = Container(
            id=identifier, name=name, created=number, image_id="", path="", args=(), config=Config(),
            host=HostConfig(dns=servers), endpoints=tuple(Endpoint(config=e.config) for e in endpoints),
        )  # fmt: skip
        self.commit(ContainerCreated(created))
        joined = EndpointsChanged(identifier, endpoints)
        sockets = await self.kernel.set_up_sandbox(SandboxPlan(path=self.path(name), has_resolver=True))
        assert sockets is not None
        inner: list[socket.socket] = []
        if servers:
            for kind in (socket.SOCK_DGRAM, socket.SOCK_STREAM):
                inner += await self.kernel.open_sandbox_sockets(self.path(name), 2, kind)
        await self.resolver.add_sandbox(apply(self.world, joined), identifier, sockets.udp, sockets.tcp, inner)
        self.commit(joined, ContainerStateChanged(identifier, RUNNING))
        await self.resolver.settle()
        return identifier

    async def client(self, name: str, kind: int = socket.SOCK_DGRAM) -> socket.socket:
        (made,) = await self.kernel.open_sandbox_sockets(self.path(name), 1, kind)
        self._clients.append(made)
        await asyncio.get_running_loop().sock_connect(made, ("127.0.0.11", 53))
        return made

    async def ask(self, asker: str, name: str, kind: str = "A", *, over_tcp: bool = False) -> list[str] | str:
        """Ask as a program in the container does; returns the records' texts, or the response code's name."""
        query = dns.message.make_query(name, kind)
        loop = asyncio.get_running_loop()
        made = await self.client(asker, socket.SOCK_STREAM if over_tcp else socket.SOCK_DGRAM)
        data = query.to_wire()
        await loop.sock_sendall(made, len(data).to_bytes(2, "big") + data if over_tcp else data)
        raw = await asyncio.wait_for(loop.sock_recv(made, 65535), PATIENCE)
        reply = dns.message.from_wire(raw[2:] if over_tcp else raw)
        assert query.is_response(reply)
        if reply.rcode():
            return dns.rcode.to_text(reply.rcode())
        return sorted(str(item) for rrset in reply.answer for item in rrset)

    @property
    def pid(self) -> int:
        return int(str(self.resolver.status["pid"]))

    def close(self) -> None:
        for client in self._clients:
            client.close()


@asynccontextmanager
async def scene() -> AsyncIterator[Scene]:
    instance, remove = private_instance()
    kernel = NetworkKernel(instance)
    await kernel.open()
    made = Scene(instance, kernel)
    try:
        await made.resolver.start(made.world)
        yield made
    finally:
        made.close()
        await made.resolver.close(stop_process=True)
        for path in await kernel.list_sandboxes():
            await kernel.tear_down_sandbox(made.path(os.path.basename(path)), [])
        await kernel.close()
        remove()


async def upstream(address: str = "127.0.0.53") -> Upstream:
    _, protocol = await asyncio.get_running_loop().create_datagram_endpoint(Upstream, local_addr=(address, 53))
    return protocol


async def until(condition: object, what: str) -> None:
    """Wait for something that has no event of its own to wait for; fails after PATIENCE."""
    end = time.monotonic() + PATIENCE
    while not await condition():  # type: ignore[operator]
        assert time.monotonic() < end, what
        await asyncio.sleep(0.005)


# ---- names


@on_private_host
async def test_names_come_and_go_with_their_containers() -> None:
    async with scene() as s:
        s.network("app")
        client = await s.run("client", "app")
        web = await s.run("web", "app", aliases=("backend",))
        await s.run("api", "app", aliases=("backend",))
        for over_tcp in (False, True):
            assert await s.ask("client", "web", over_tcp=over_tcp) == ["10.9.0.3"]
            assert await s.ask("client", "WEB.app", over_tcp=over_tcp) == ["10.9.0.3"]
            assert await s.ask("client", "backend", over_tcp=over_tcp) == ["10.9.0.3", "10.9.0.4"]
            assert await s.ask("client", web[:12], over_tcp=over_tcp) == ["10.9.0.3"]
            assert await s.ask("client", "3.0.9.10.in-addr.arpa", "PTR", over_tcp=over_tcp) == ["web.app."]
            assert await s.ask("client", "web", "AAAA", over_tcp=over_tcp) == []
        s.commit(ContainerRenamed(web, "www"))
        await s.resolver.settle()
        assert await s.ask("client", "www") == ["10.9.0.3"]
        assert await s.ask("client", "3.0.9.10.in-addr.arpa", "PTR") == ["www.app."]
        s.commit(ContainerStateChanged(web, EXITED))
        await s.resolver.settle()
        assert await s.ask("client", "backend") == ["10.9.0.3", "10.9.0.4"], "others may live on in its sandbox"
        s.commit(EndpointsChanged(web, ()))
        await s.resolver.settle()
        assert await s.ask("client", "backend") == ["10.9.0.4"]
        await s.resolver.remove_sandbox(web)
        s.commit(ContainerRemoved(web))
        s.commit(EndpointsChanged(client, ()))
        await s.resolver.settle()
        assert await s.ask("client", "api") == "NXDOMAIN"
        s.commit(NetworkRemoved("id-app"))
        await s.resolver.settle()
        await s.resolver.refresh()
        found = s.resolver.status
        assert (found["queries"], found["faults"], found["networks"], found["sandboxes"]) == (17, 0, 0, 2)


@on_private_host
async def test_a_starting_container_finds_itself_and_a_failed_one_is_forgotten() -> None:
    async with scene() as s:
        s.network("app")
        await s.run("client", "app")
        endpoint = s.endpoint("app", 9)
        container = Container(
            id="f" * 64, name="web", created=9, image_id="", path="", args=(), config=Config(), host=HostConfig(),
            endpoints=(Endpoint(config=endpoint.config),),
        )  # fmt: skip
        s.commit(ContainerCreated(container))
        future = apply(s.world, EndpointsChanged(container.id, (endpoint,)))
        sockets = await s.kernel.set_up_sandbox(SandboxPlan(path=s.path("web"), has_resolver=True))
        assert sockets is not None
        await s.resolver.add_sandbox(future, container.id, sockets.udp, sockets.tcp)
        await s.resolver.settle()
        assert await s.ask("web", "web") == await s.ask("client", "web") == ["10.9.0.9"]
        await s.resolver.remove_sandbox(container.id)
        await s.resolver.settle()
        assert await s.ask("client", "web") == "NXDOMAIN"


@on_private_host
async def test_the_socket_is_the_identity() -> None:
    async with scene() as s:
        s.network("one", is_internal=True)
        s.network("two", is_internal=True)
        await s.run("a", "one")
        await s.run("b", "two")
        assert await s.ask("a", "b") == await s.ask("b", "a") == "NXDOMAIN"
        assert await s.ask("a", "a") == ["10.9.0.2"]
        # Nothing listens in the host's own namespace.
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as outside:
            outside.connect(("127.0.0.11", 53))
            outside.send(dns.message.make_query("a", "A").to_wire())
            with pytest.raises(ConnectionRefusedError):
                outside.recv(100)


# ---- forwarding


@on_private_host
async def test_an_internal_container_reaches_no_server_of_the_host() -> None:
    """CVE-2024-29018, evaluated anew on every connect and disconnect."""
    async with scene() as s:
        server = await upstream()
        s.network("inside", is_internal=True)
        s.network("outside")
        db = await s.run("db", "inside")
        assert await s.ask("db", "www.example.com") == "SERVFAIL"
        assert await s.ask("db", "nosuch") == "NXDOMAIN"
        assert server.asked == []
        inside = s.world.containers[db].endpoints
        s.commit(EndpointsChanged(db, (*inside, s.endpoint("outside", 9))))
        await s.resolver.settle()
        assert await s.ask("db", "www.example.com") == ["192.0.2.1"]
        assert len(server.asked) == 1
        s.commit(EndpointsChanged(db, inside))
        await s.resolver.settle()
        assert await s.ask("db", "other.example.com") == "SERVFAIL"
        assert len(server.asked) == 1


@on_private_host
async def test_servers_of_the_user_are_asked_from_inside() -> None:
    async with scene() as s:
        host = await upstream()
        s.network("inside", is_internal=True)
        await s.run("db", "inside", servers=("127.0.0.1",))
        (sock,) = await s.kernel.open_sandbox_sockets(s.path("db"), 1, socket.SOCK_DGRAM)
        sock.bind(("127.0.0.1", 53))  # the container's own port 53 is free
        transport, inside = await asyncio.get_running_loop().create_datagram_endpoint(Upstream, sock=sock)
        for i in range(4):
            assert await s.ask("db", f"www{i}.example.com") == ["192.0.2.1"]
        assert host.asked == []
        assert len({peer[1] for _, peer in inside.asked}) > 1
        transport.close()


@on_private_host
async def test_the_hosts_file_is_followed() -> None:
    async with scene() as s:
        first, second = await upstream(), await upstream("127.0.0.54")
        s.network("app")
        await s.run("client", "app")
        assert await s.ask("client", "a.example.com") == ["192.0.2.1"]
        new = s.host_file.with_name("new")
        new.write_text("nameserver 127.0.0.54\n")
        new.rename(s.host_file)

        async def is_seen() -> bool:
            return s.resolver.status["servers"] == ["127.0.0.54"]

        await until(is_seen, "the change of resolv.conf was not seen")
        await s.resolver.settle()
        assert await s.ask("client", "b.example.com") == ["192.0.2.1"]
        assert [name for name, _ in first.asked] == ["a.example.com."]
        assert [name for name, _ in second.asked] == ["b.example.com."]


# ---- the process


def status_of(pid: int) -> dict[str, str]:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return {key: value.strip() for key, _, value in (line.partition(":") for line in lines)}


@on_private_host
async def test_the_process_may_do_next_to_nothing() -> None:
    async with scene() as s:
        s.network("app")
        await s.run("client", "app")
        found = status_of(s.pid)
        assert found["Uid"].split() == found["Gid"].split() == ["65534"] * 4
        assert found["Groups"] == ""
        assert {found[key] for key in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")} == {"0" * 16}
        assert found["NoNewPrivs"] == "1"
        assert found["Threads"] == "1"
        assert found["Seccomp"] == ("2" if os.uname().machine == "x86_64" else "0")
        assert os.listdir(f"/proc/{s.pid}/root") == []
        assert os.readlink(f"/proc/{s.pid}/cwd") == os.readlink(f"/proc/{s.pid}/root")
        assert os.getsid(s.pid) == s.pid, "a session of its own: no signal meant for the engine reaches it"
        targets = [os.readlink(f"/proc/{s.pid}/fd/{fd}") for fd in os.listdir(f"/proc/{s.pid}/fd")]
        files = {t for t in targets if not t.startswith(("socket:", "anon_inode:[eventpoll]"))}
        assert files == {"/dev/null", f"{s.instance.run_dir}/resolver/log"}
        control = os.stat(f"{s.instance.run_dir}/resolver/control.sock")
        assert (stat.S_IMODE(control.st_mode), control.st_uid) == (0o600, os.getuid())
        assert stat.S_IMODE(os.stat(f"{s.instance.run_dir}/resolver").st_mode) == 0o700


FORBIDDEN = """
import os, socket, mmap, ctypes, traceback
from tsunagu.resolver import privileges, seccomp
def fails(what, *arguments):
    try:
        what(*arguments)
    except (OSError, PermissionError):
        return
    raise SystemExit(f"{what} {arguments} went through")
libc = ctypes.CDLL(None)
assert privileges._prctl(38, 1) == 0
if seccomp.apply():
    socket.socket(socket.AF_INET, socket.SOCK_DGRAM).close()
    socket.socket(socket.AF_INET6, socket.SOCK_STREAM).close()
    bytes(64 << 20)
    try:
        raise ValueError("reported")
    except ValueError:
        assert "reported" in traceback.format_exc()
    for family in (socket.AF_UNIX, socket.AF_NETLINK, socket.AF_PACKET):
        fails(socket.socket, family, socket.SOCK_RAW)
    fails(os.open, "/proc/self/status", os.O_RDONLY)
    fails(os.fork)
    fails(os.execv, "/bin/true", ["true"])
    fails(os.kill, os.getpid(), 0)
    fails(mmap.mmap, -1, 4096, mmap.MAP_PRIVATE, mmap.PROT_READ | mmap.PROT_EXEC)
    fails(os.mkdir, "/tmp/x")
    fails(os.chroot, "/")
    assert libc.ptrace(0, 0, 0, 0) < 0 and libc.unshare(0) < 0
"""


def test_the_filter_refuses_what_a_resolver_does_not_need() -> None:
    subprocess.run([sys.executable, "-c", FORBIDDEN], check=True)


@on_private_host
async def test_another_user_cannot_speak_to_it() -> None:
    async with scene() as s:
        pid = os.fork()
        if pid == 0:  # a child that is nobody, given the way to the socket
            code = 1
            try:
                folder = os.open(f"{s.instance.run_dir}/resolver", os.O_PATH)
                os.chmod(f"/proc/self/fd/{folder}/control.sock", 0o666)
                os.setresuid(65534, 65534, 65534)
                with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as stranger:
                    stranger.settimeout(PATIENCE)
                    stranger.connect(f"/proc/self/fd/{folder}/control.sock")
                    code = 0 if stranger.recv(100) == b"" else 2
            except PermissionError:
                code = 0
            finally:
                os._exit(code)
        _, result = await asyncio.to_thread(os.waitpid, pid, 0)
        assert os.waitstatus_to_exitcode(result) == 0
        s.network("app")
        await s.run("client", "app")
        assert await s.ask("client", "client") == ["10.9.0.2"]


@on_private_host
async def test_a_killed_resolver_is_started_again_and_loses_no_query() -> None:
    async with scene() as s:
        s.network("app")
        await s.run("client", "app")
        for _ in range(3):
            old = s.pid
            os.kill(old, signal.SIGKILL)
            assert await s.ask("client", "client") == ["10.9.0.2"]
            assert await s.ask("client", "client", over_tcp=True) == ["10.9.0.2"]
            assert s.pid != old
            await s.run(f"more{old}", "app")
            assert len(await s.ask("client", f"more{old}")) == 1
        assert s.resolver.status["restarts"] == 3


@on_private_host
async def test_a_stopped_resolver_is_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resolver_link, "_DONE_TIMEOUT", 0.5)
    async with scene() as s:
        s.network("app")
        await s.run("client", "app")
        old = s.pid
        os.kill(old, signal.SIGSTOP)
        await s.run("web", "app")  # waits for an acknowledgement that does not come
        assert s.pid != old
        assert await s.ask("client", "web") == ["10.9.0.3"]
        assert not os.path.exists(f"/proc/{old}")


@on_private_host
async def test_it_answers_alone_and_is_found_again_by_the_next_engine() -> None:
    async with scene() as s:
        s.network("app")
        client = await s.run("client", "app")
        gone = await s.run("gone", "app")
        pid = s.pid
        await s.resolver.close(stop_process=False)
        assert await s.ask("client", "gone") == ["10.9.0.3"], "the engine is away"
        s.resolver = Resolver(s.instance, resolv_conf=str(s.host_file))
        s.world = apply(apply(s.world, EndpointsChanged(gone, ())), ContainerStateChanged(gone, EXITED))
        await s.resolver.start(s.world)
        assert s.pid == pid
        assert (s.resolver.holds(client), s.resolver.holds(gone)) == (True, False)
        assert await s.ask("client", "gone") == "NXDOMAIN"
        os.kill(pid, signal.SIGKILL)
        assert await s.ask("client", "client") == ["10.9.0.2"], "fed from the sockets that were handed back"


@on_private_host
async def test_when_both_are_gone_the_next_engine_knows_what_is_missing() -> None:
    async with scene() as s:
        s.network("app")
        client = await s.run("client", "app")
        pid = s.pid
        await s.resolver.close(stop_process=False)
        os.kill(pid, signal.SIGKILL)
        s.resolver = Resolver(s.instance, resolv_conf=str(s.host_file))
        await s.resolver.start(s.world)
        assert s.pid != pid
        assert not s.resolver.holds(client)


@on_private_host
async def test_a_flood_from_one_sandbox_leaves_the_others_their_turn() -> None:
    async with scene() as s:
        await upstream()
        s.network("app")
        await s.run("noisy", "app")
        await s.run("quiet", "app")
        flood = [await s.client("noisy") for _ in range(4)]
        queries = [dns.message.make_query(name, "A").to_wire() for name in ("noisy", "nosuch.example.com", "x" * 60)]
        stop = asyncio.Event()

        async def make_noise(sock: socket.socket) -> None:
            while not stop.is_set():
                for _ in range(50):
                    for query in queries:
                        with suppress(BlockingIOError):
                            sock.send(query)
                await asyncio.sleep(0)

        noise = [asyncio.ensure_future(make_noise(sock)) for sock in flood]
        try:
            for _ in range(20):
                assert await asyncio.wait_for(s.ask("quiet", "quiet"), 1.0) == ["10.9.0.3"]
        finally:
            stop.set()
            await asyncio.gather(*noise)
