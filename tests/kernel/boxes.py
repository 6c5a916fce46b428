"""Real containers for tests: a busybox root, an instance of the test's own, the runtime behind conmon. No network."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from tsunagu.kernel import accounts
from tsunagu.kernel.runtime import ExecSession, Exit, Process, Runtime
from tsunagu.model.container import Config, Container, HostConfig
from tsunagu.model.instance import Instance
from tsunagu.rules import mounts
from tsunagu.services import streams
from tsunagu.wire import oci, stdcopy

BUSYBOX = "/bin/busybox"


class Client:
    """A Duplex in memory that plays a hijacked connection."""

    def __init__(self) -> None:
        self.received = bytearray()
        self.input: asyncio.Queue[bytes] = asyncio.Queue()
        self._changed = asyncio.Event()

    async def read(self) -> bytes:
        return await self.input.get()

    async def write(self, data: bytes) -> None:
        self.received += data
        self._changed.set()

    async def close(self) -> None:
        """The caller of attach closes it; nothing to do in memory."""

    def type(self, data: bytes) -> None:
        self.input.put_nowait(data)

    async def sees(self, wanted: bytes) -> None:
        async with asyncio.timeout(20):
            while wanted not in self.received:
                self._changed.clear()
                await self._changed.wait()

    def streams(self) -> tuple[bytes, bytes]:
        """Return stdout and stderr of a multiplexed attachment."""
        decoder = stdcopy.Decoder()
        found = {1: b"", 2: b""}
        for stream, data in decoder.feed(bytes(self.received)):
            found[stream] += data
        assert decoder.is_between_frames
        return found[1], found[2]


class Boxes:
    """Makes containers in one instance."""

    def __init__(self, directory: str) -> None:
        self.directory = directory
        self.instance = Instance(root=f"{directory}/root", run_dir=f"{directory}/run", socket=f"{directory}/sock")
        os.makedirs(self.instance.run_dir)
        self.runtime = Runtime(self.instance)
        self.rootfs = f"{directory}/rootfs"
        for name in ("bin", "etc", "proc", "sys", "dev", "tmp", "root"):
            os.makedirs(f"{self.rootfs}/{name}")
        shutil.copy(BUSYBOX, f"{self.rootfs}/bin/busybox")
        applets = subprocess.run([BUSYBOX, "--list"], capture_output=True, text=True, check=True).stdout.split()
        for applet in applets:
            if applet != "busybox":
                os.symlink("busybox", f"{self.rootfs}/bin/{applet}")
        Path(f"{self.rootfs}/etc/passwd").write_text("root:x:0:0:root:/root:/bin/sh\napp:x:1000:1000::/home/app:\n")
        Path(f"{self.rootfs}/etc/group").write_text("root:x:0:\napp:x:1000:\naudio:x:29:app\n")

    def log_path(self, name: str) -> str:
        return f"{self.directory}/{name}.log"

    def log(self, name: str) -> str:
        """Return what a container wrote, without conmon's columns."""
        lines = Path(self.log_path(name)).read_text().splitlines()
        return "\n".join(line.split(" ", 3)[3] for line in lines)

    def container(self, name: str, *command: str, config: Mapping[str, Any], host: Mapping[str, Any]) -> Container:
        return Container(
            id=name, name=name, created=1, image_id="", path=command[0], args=command[1:],
            config=Config(**{"hostname": name, **config}), host=HostConfig(**host),
            mounts=tuple(mounts.parse(text) for text in host.get("binds", ())),
        )  # fmt: skip

    def bundle(self, container: Container, changes: Mapping[str, Any] | None = None) -> str:
        spec = oci.container_config(
            container,
            account=accounts.resolve_user(self.rootfs, container.config.user, container.host.group_add or ()),
            rootfs=self.rootfs,
            netns=None,
            cgroup_parent=self.instance.cgroup,
            facts=self.runtime.facts(),
        )
        spec["linux"]["namespaces"].append({"type": "network"})
        spec["linux"].update(changes or {})
        path = f"{self.instance.run_dir}/bundles/{container.id}"
        os.makedirs(path, exist_ok=True)
        Path(f"{path}/config.json").write_text(json.dumps(spec))
        return path

    async def create(
        self,
        name: str,
        *command: str,
        changes: Mapping[str, Any] | None = None,
        host: Mapping[str, Any] | None = None,
        **config: Any,
    ) -> Process:
        container = self.container(name, *command, config=config, host=host or {})
        return await self.runtime.create(
            name,
            self.bundle(container, changes),
            has_tty=container.config.tty,
            has_stdin=container.config.open_stdin,
            keeps_stdin=not container.config.stdin_once,
            log_path=self.log_path(name),
        )

    async def start(self, name: str, *command: str, **settings: Any) -> Process:
        process = await self.create(name, *command, **settings)
        await self.runtime.start(name)
        return process

    async def run(self, name: str, *command: str, **settings: Any) -> tuple[Exit, str]:
        """Run a container to its end, remove it, and return its exit and output."""
        process = await self.start(name, *command, **settings)
        async with asyncio.timeout(30):
            result = await self.runtime.wait(process, name)
        await self.runtime.delete(name)
        output = self.log(name) if os.path.exists(self.log_path(name)) else ""
        return result, output

    async def exec(self, name: str, exec_id: str, *command: str, tty: bool = False, **settings: Any) -> ExecSession:
        container = self.container(name, "sleep", config={}, host={})
        spec = oci.exec_process(
            container,
            cmd=command,
            account=accounts.resolve_user(self.rootfs, settings.pop("user", "")),
            facts=self.runtime.facts(),
            tty=tty,
            **{key: settings.pop(key) for key in list(settings) if key in ("env", "working_dir", "console_size")},
        )
        settings.setdefault("has_stdin", False)
        return await self.runtime.exec(name, exec_id, spec, has_tty=tty, **settings)

    async def output(self, session: ExecSession) -> tuple[int, bytes, bytes]:
        """Return exit code, stdout and stderr of an exec."""
        client = Client()
        assert session.connection is not None
        async with asyncio.timeout(30):
            await streams.attach(
                client, session.connection,
                is_multiplexed=True, wants_stdin=False, wants_stdout=True, wants_stderr=True,
            )  # fmt: skip
            code = await session.wait()
        return code, *client.streams()

    def leftovers(self) -> list[str]:
        """Return what deleted containers must not leave: cgroups, runtime state, process directories, processes."""
        found = [str(p) for p in Path("/sys/fs/cgroup").rglob(f"{self.instance.cgroup}/*") if p.is_dir()]
        for directory in ("runtime", "processes"):
            path = f"{self.instance.run_dir}/{directory}"
            found += [f"{path}/{name}" for name in os.listdir(path)] if os.path.exists(path) else []
        for entry in os.listdir("/proc"):
            try:
                line = Path(f"/proc/{entry}/cmdline").read_bytes() if entry.isdigit() else b""
            except OSError:
                continue
            if os.fsencode(self.directory) in line and int(entry) != os.getpid():
                found.append(f"process {entry}: {line!r}")
        return found


@asynccontextmanager
async def boxes(directory: str | None = None) -> AsyncIterator[Boxes]:
    """Make boxes, and at the end remove every container, the cgroup and the directory."""
    own = directory or tempfile.mkdtemp(prefix="tsunagu-box-")
    made = Boxes(own)
    try:
        yield made
    finally:
        for name in made.runtime.known():
            await made.runtime.delete(name)
        left = made.leftovers()
        made.runtime.remove_parent_cgroup()
        shutil.rmtree(own)
        assert left == []
        assert [str(p) for p in Path("/sys/fs/cgroup").rglob(made.instance.cgroup)] == []
