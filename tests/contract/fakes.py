"""Small services for the API's contract tests: real values, a real engine (world, store, events), no kernel."""

from __future__ import annotations

import asyncio
import inspect
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
from msgspec.structs import replace

from tsunagu.api.app import App
from tsunagu.kernel.volumes import VolumeFiles
from tsunagu.model.container import Config, Container, HostConfig, State, Status
from tsunagu.model.errors import Conflict, InvalidParameter, KernelFailure, NotFound, NotModified, Unavailable
from tsunagu.model.image import Image, Reference, parse_reference
from tsunagu.model.instance import Instance
from tsunagu.model.network import Endpoint, EndpointConfig, Network, Subnet
from tsunagu.model.settings import Pool
from tsunagu.model.world import (
    ContainerCreated,
    ContainerRemoved,
    ContainerStateChanged,
    NetworkCreated,
    NetworkRemoved,
)
from tsunagu.services.duplex import Duplex
from tsunagu.services.engine import Engine
from tsunagu.services.volumes import Volumes
from tsunagu.store.db import Database

IMAGE_ID = "sha256:" + "1a" * 32


class ExecRecord(msgspec.Struct, kw_only=True):
    """The fields of `services.execs.ExecRecord` that the API reads."""

    id: str
    container_id: str
    cmd: tuple[str, ...]
    user: str = ""
    has_tty: bool = False
    attaches_stdin: bool = False
    attaches_stdout: bool = True
    attaches_stderr: bool = True
    is_privileged: bool = False
    detach_keys: str = ""
    is_running: bool = False
    exit_code: int | None = None
    pid: int = 0


class FakeImages:
    def __init__(self) -> None:
        config = {
            "created": "2026-11-23T19:52:20.608479027Z",
            "architecture": "amd64",
            "os": "linux",
            "config": {"Cmd": ["sh"], "Env": ["PATH=/bin"], "Labels": {"kind": "test"}},
        }
        self.image = Image(id=IMAGE_ID, config=config, diff_ids=("sha256:aa",), size=1234, tags=("tiny:latest",))
        self.received = 0
        self.is_uploaded = asyncio.Event()
        self.upload_failed: BaseException | None = None

    def find(self, word: str) -> Image:
        if word in (IMAGE_ID, IMAGE_ID[7:19], "tiny", "tiny:latest"):
            return self.image
        raise NotFound(f"No such image: {parse_reference(word)}")

    def all(self) -> list[Image]:
        return [self.image]

    async def load(self, chunks: AsyncIterator[bytes]) -> AsyncIterator[str]:
        try:
            async for chunk in chunks:
                if not self.received and chunk.startswith(b"bad"):
                    raise InvalidParameter("this is no image archive")
                self.received += len(chunk)
        except BaseException as error:
            self.upload_failed = error
            raise
        self.is_uploaded.set()
        yield "Loaded image: tiny:latest\n"
        yield "Loaded image: other:latest\n"

    async def save(self, words: list[str]) -> AsyncIterator[bytes]:
        for word in words:
            self.find(word)
        for _ in range(400):
            yield b"x" * 65536

    async def pull(self, reference: Reference, platform: str, auth: str) -> AsyncIterator[dict[str, object]]:
        """A registry that breaks off in the middle, and one that knows nothing."""
        if reference.path != "library/breaks":
            raise NotFound(f"manifest for {reference} not found: manifest unknown: manifest unknown")
        yield {"status": f"Pulling from {reference.path}", "id": reference.tag}
        raise Unavailable("unexpected EOF")


class FakeContainers:
    def __init__(self, engine: Engine, images: FakeImages) -> None:
        self.engine = engine
        self.images = images
        self.created: list[tuple[str, Config, HostConfig, tuple[EndpointConfig, ...]]] = []
        self.gate: asyncio.Event | None = None  # create waits for it when set
        self.waiters: list[asyncio.Future[tuple[int, str]]] = []

    async def create(
        self, name: str, config: Config, host: HostConfig, endpoints: tuple[EndpointConfig, ...]
    ) -> tuple[Container, list[str]]:
        if self.gate is not None:
            await self.gate.wait()
        self.created.append((name, config, host, endpoints))
        image = self.images.find(config.image)
        if holder := self.engine.world.container_ids.get(name):
            raise Conflict(f'Conflict. The container name "/{name}" is already in use by container "{holder}".')
        network = self.engine.world.network("bridge")
        container = Container(
            id=self.engine.new_id(),
            name=name or "quiet_lake",
            created=time.time_ns(),
            image_id=image.id,
            path=(config.cmd or ("sh",))[0],
            args=(config.cmd or ("sh",))[1:],
            config=config,
            host=host,
            endpoints=(
                Endpoint(config=EndpointConfig(network="bridge"), network_id=network.id, network_name="bridge"),
            ),
        )
        self.engine.commit(ContainerCreated(container))
        self.engine.emit("container", "create", container.id, {"name": container.name, "image": config.image})
        return container, ["mind the gap"]

    async def start(self, word: str, *, detach_keys: str = "") -> None:
        container = self.engine.world.container(word)
        if container.is_running:
            raise NotModified("already running")
        if container.path == "nosuchcmd":
            error = KernelFailure('exec: "nosuchcmd": executable file not found in $PATH')
            error.exit_code = 127  # type: ignore[attr-defined]
            raise error
        state = State(status=Status.RUNNING, pid=4242, started_at=time.time_ns())
        self.engine.commit(ContainerStateChanged(container.id, state))
        self.engine.emit("container", "start", container.id, {"name": container.name})

    async def remove(self, word: str, *, force: bool = False, volumes: bool = False, link: bool = False) -> None:
        container = self.engine.world.container(word)
        if container.is_running and not force:
            raise Conflict(
                f'cannot remove container "{container.name}": container is running: '
                "stop the container before removing or force remove"
            )
        self.engine.commit(ContainerRemoved(container.id))

    def waiter(self, word: str, condition: str) -> asyncio.Future[tuple[int, str]]:
        self.engine.world.container(word)
        future: asyncio.Future[tuple[int, str]] = asyncio.get_running_loop().create_future()
        self.waiters.append(future)
        return future

    def finish(self, word: str, code: int) -> None:
        """Let a container end (called on the loop)."""
        container = self.engine.world.container(word)
        state = replace(container.state, status=Status.EXITED, exit_code=code, finished_at=time.time_ns())
        self.engine.commit(ContainerStateChanged(container.id, state))
        for future in self.waiters:
            if not future.done():
                future.set_result((code, ""))

    async def sizes(self, container_id: str) -> tuple[int, int]:
        return 10, 1244

    def log_path(self, container_id: str) -> str:
        return f"/log/{container_id}"

    async def rename(self, word: str, new_name: str) -> None:
        raise RuntimeError("a bug that nobody has thought of")


class FakeSessions:
    """Attach echoes what it reads and ends when the client has half-closed."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.is_cancelled = asyncio.Event()
        self.is_following = asyncio.Event()
        self.written = 0

    def check_attach(self, word: str, detach_keys: str) -> Container:
        return self.engine.world.container(word)

    def check_logs(self, word: str) -> Container:
        return self.engine.world.container(word)

    async def attach(self, word: str, client: Duplex, **options: Any) -> None:
        try:
            while data := await client.read():
                await client.write(b"echo:" + data)
            await client.write(b"bye")
        except asyncio.CancelledError:
            self.is_cancelled.set()
            raise
        await client.close()

    async def logs(self, word: str, *, follow: bool, tail: int | None, **options: Any) -> AsyncIterator[Any]:
        yield "stdout", 1_700_000_000_000_000_000, b"out\n"
        yield "stderr", 1_700_000_000_500_000_000, b"err\n"
        try:
            if tail == 7777:  # an endless log, for the slow reader
                while True:
                    yield "stdout", 1, b"x" * 65536
                    self.written += 65536
            if follow:
                self.is_following.set()
                await asyncio.Event().wait()
        except asyncio.CancelledError:
            self.is_cancelled.set()
            raise

    async def resize(self, word: str, height: int, width: int) -> None:
        self.engine.world.container(word)

    async def top(self, word: str, ps_args: str) -> tuple[list[str], list[list[str]]]:
        return ["PID", "CMD"], [["1", f"sh {ps_args}"]]


class FakeExecs:
    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.records: dict[str, ExecRecord] = {}

    def of_container(self, container_id: str) -> list[str]:
        return []

    async def create(self, container_word: str, *, cmd: tuple[str, ...], tty: bool, **rest: Any) -> str:
        container = self.engine.world.container(container_word)
        if not cmd:
            raise InvalidParameter("No exec command specified")
        record = ExecRecord(id=self.engine.new_id(), container_id=container.id, cmd=cmd, has_tty=tty)
        self.records[record.id] = record
        return record.id

    def check_start(self, exec_id: str) -> ExecRecord:
        return self.inspect(exec_id)

    def inspect(self, exec_id: str) -> ExecRecord:
        if exec_id not in self.records:
            raise NotFound(f"No such exec instance: {exec_id}")
        return self.records[exec_id]

    async def start(self, exec_id: str, client: Duplex | None, **options: Any) -> None:
        record = self.records[exec_id]
        if client is not None:
            # docker-py loses what comes in one piece with the response head (it reads the raw socket behind a
            # buffered reader); a real process never is that fast.
            await asyncio.sleep(0.05)
            if record.cmd == ("block",):
                while await client.read():
                    pass
            text = " ".join(record.cmd).encode() + b"\n"
            await client.write(text if record.has_tty else b"\x01\0\0\0" + len(text).to_bytes(4, "big") + text)
            await client.close()
        record.exit_code = 3

    async def resize(self, exec_id: str, height: int, width: int) -> None:
        self.inspect(exec_id)


class FakeNetworks:
    def __init__(self, engine: Engine) -> None:
        self.engine = engine

    async def create(self, name: str, *, subnets: tuple[Subnet, ...], **rest: Any) -> Network:
        if name in self.engine.world.network_ids:
            raise Conflict(f"network with name {name} already exists")
        network = Network(
            id=self.engine.new_id(),
            name=name,
            created=time.time_ns(),
            subnets=subnets or (Subnet("10.9.0.0/24", "10.9.0.1"),),
            labels=rest["labels"],
            options=rest["options"],
        )
        self.engine.commit(NetworkCreated(network))
        return network

    async def remove(self, word: str) -> None:
        self.engine.commit(NetworkRemoved(self.engine.world.network(word).id))

    async def prune(self, filters: dict[str, list[str]]) -> list[str]:
        return []


class FakeConnections:
    def __init__(self) -> None:
        self.made: list[tuple[str, str, EndpointConfig]] = []

    async def connect(self, word: str, container_word: str, config: EndpointConfig) -> None:
        self.made.append((word, container_word, config))

    async def disconnect(self, word: str, container_word: str, *, force: bool = False) -> None:
        self.made = [m for m in self.made if m[:2] != (word, container_word)]


class FakeStorage:
    """No image: volumes that are made alone are never filled."""

    async def open_image(self, diff_ids: tuple[str, ...]) -> int:
        raise KernelFailure("there are no layers here")


class FakeSystem:
    def __init__(self, engine: Engine) -> None:
        self.engine = engine

    async def info(self) -> dict[str, Any]:
        return {
            "id": "f00d", "containers": len(self.engine.world.containers), "running": 0, "paused": 0, "stopped": 0,
            "images": 1, "networks": 1, "root": "/r", "run_dir": "/d", "host_name": "host", "kernel": "6.1.0",
            "os": "Debian", "architecture": "x86_64", "cpus": 2, "memory": 1 << 30, "cgroup_version": "1",
            "runtime": {"name": "runc", "path": "/usr/sbin/runc", "version": "1.1.5"}, "conmon": "2.1.6",
            "firewall": {"backend": "libnftables", "table": "tsunagu"}, "resolver": {"pid": 1}, "event_listeners": 0,
            "file_descriptors": 9, "tasks": 3, "version": "0.1.0", "python": "3.11.2", "started_at": 1, "now": 2,
            "pid": 7, "byte_order": "little", "pools": (Pool("10.0.0.0/16"),), "labels": (), "ip_forward": True,
        }  # fmt: skip


def make_app(directory: Path) -> App:
    """Build an app of fakes around a real engine with the predefined bridge."""
    instance = Instance(root=str(directory), run_dir=str(directory), socket=str(directory / "s"))
    engine = Engine(instance, Database(str(directory / "db")))
    engine.commit(NetworkCreated(Network(id=engine.new_id(), name="bridge", is_builtin=True, created=time.time_ns())))
    images = FakeImages()
    files = VolumeFiles(instance)
    files.open()
    storage: Any = FakeStorage()
    fakes: dict[str, Any] = {
        "engine": engine,
        "containers": FakeContainers(engine, images),
        "sessions": FakeSessions(engine),
        "networks": FakeNetworks(engine),
        "connections": FakeConnections(),
        "images": images,
        "execs": FakeExecs(engine),
        "system": FakeSystem(engine),
        "updating": None,  # changes real containers: tests/e2e/test_restarts.py
        "volumes": Volumes(engine, files, storage),
        "pausing": None,  # freezes real processes: tests/e2e/test_pausing.py
        "statistics": None,  # reads real cgroups: tests/e2e/test_stats.py
        "commits": None,  # makes layers of real files: tests/e2e/test_commit.py
        "archives": None,  # reads and writes real files: tests/e2e/test_cp.py
        "maps": None,  # draws the real world: tests/e2e
        "dns": None,  # asks inside real sandboxes: tests/e2e
        "doctor": None,  # the same: tests/e2e/test_doctor.py
        "why": None,  # asks the kernel for everything: tests/e2e/test_why.py
    }
    # A service that no test here asks for needs no fake.
    services = [name for name in inspect.signature(App).parameters if name not in fakes]
    return App(**fakes, **dict.fromkeys(services))
