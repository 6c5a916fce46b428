"""What a client does with a container's terminal and output: attach, logs, resize, top."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing

from tsunagu.kernel import processes
from tsunagu.kernel.runtime import Runtime
from tsunagu.model.container import Container
from tsunagu.model.errors import Conflict, InvalidParameter, NotSupported
from tsunagu.wire import stdcopy

from . import logs as logfile
from . import streams
from .bundles import Bundles
from .duplex import Duplex
from .engine import Engine
from .lifecycle import Lifecycle

_STREAM = {"stdout": stdcopy.STDOUT, "stderr": stdcopy.STDERR}


class Sessions:
    def __init__(self, engine: Engine, runtime: Runtime, lifecycle: Lifecycle, bundles: Bundles) -> None:
        self._engine = engine
        self._runtime = runtime
        self._lifecycle = lifecycle
        self._bundles = bundles

    def check_attach(self, word: str, detach_keys: str) -> Container:
        """Refuse an attach before its response head is sent; returns the container."""
        container = self._engine.world.container(word)
        streams.parse_detach_keys(detach_keys)
        if container.is_restarting:
            raise Conflict(f"container {word} is restarting, wait until the container is running")
        if container.is_paused:
            raise Conflict(f"container {word} is paused, unpause the container before attach")
        return container

    async def attach(
        self,
        word: str,
        client: Duplex,
        *,
        logs: bool = False,
        stream: bool = True,
        stdin: bool = False,
        stdout: bool = True,
        stderr: bool = True,
        detach_keys: str = "",
    ) -> None:
        """Connect a client with a container's stdio until it ends, or the client detaches or goes away.

        May come before the start: the connection is then made just before the process runs, so no output is lost.
        """
        container = self._engine.world.container(word)
        try:
            early = None if container.is_running or not stream else self._lifecycle.early_attach(container.id)
            if logs:
                await self._replay(container, client, stdout=stdout, stderr=stderr)
            if not stream:
                return
            connected = None
            if early is not None:
                try:
                    connected = await early
                except asyncio.CancelledError:
                    if early.cancelled():  # the start failed: nothing will ever come
                        return
                    raise
            try:
                connection = await self._runtime.connect(container.id)
            finally:
                if connected is not None:
                    connected.set()
            if connection is None:  # it has ended meanwhile
                return
            self._lifecycle.emit("attach", container)
            end = await streams.attach(
                client,
                connection,
                is_multiplexed=not container.config.tty,
                wants_stdin=stdin and container.config.open_stdin,
                wants_stdout=stdout,
                wants_stderr=stderr,
                detach_keys=streams.parse_detach_keys(detach_keys),
                closes_stdin=container.config.stdin_once,
            )
            if end is streams.AttachEnd.DETACHED:
                self._lifecycle.emit("detach", container)
        finally:
            await client.close()

    async def _replay(self, container: Container, client: Duplex, *, stdout: bool, stderr: bool) -> None:
        lines = self.logs(container.id, stdout=stdout, stderr=stderr)
        async with aclosing(lines):
            async for stream, _, data in lines:
                await client.write(data if container.config.tty else stdcopy.frame(_STREAM[stream], data))

    def check_logs(self, word: str) -> Container:
        """Refuse to read a log that is not kept, before a response head is sent; returns the container."""
        container = self._engine.world.container(word)
        if container.host.log_config.type == "none":
            raise NotSupported("configured logging driver does not support reading")
        return container

    async def logs(
        self,
        word: str,
        *,
        stdout: bool = True,
        stderr: bool = True,
        since_ns: int | None = None,
        until_ns: int | None = None,
        tail: int | None = None,
        follow: bool = False,
    ) -> AsyncGenerator[tuple[str, int, bytes], None]:
        """Yield (stream, time in nanoseconds UTC, data with its newline) from a container's log.

        With `follow` the iteration goes on until the container ends.
        """
        container = self._engine.world.container(word)
        ended = self._lifecycle.end_event(container.id) if follow else None
        lines = logfile.read(
            self._bundles.log_path(container.id),
            stdout=stdout,
            stderr=stderr,
            since_ns=since_ns,
            until_ns=until_ns,
            tail=tail,
            ended=ended,
        )
        async with aclosing(lines):
            async for line in lines:
                yield line

    async def resize(self, word: str, height: int, width: int) -> None:
        """Set the size of a container's terminal, in characters."""
        container = self._engine.world.container(word)
        if not container.is_running:
            raise Conflict(f"container {container.id} is not running")
        await self._runtime.resize(container.id, height, width)

    async def top(self, word: str, ps_args: str = "-ef") -> tuple[list[str], list[list[str]]]:
        """Return titles and rows of the host's `ps` for the processes of a container."""
        container = self._engine.world.container(word)
        if container.is_restarting:
            raise Conflict(f"Container {container.id} is restarting, wait until the container is running")
        if not container.is_running:
            raise Conflict(f"container {container.id} is not running")
        arguments = ps_args.split() or ["-ef"]
        if any(not argument.isprintable() for argument in arguments):
            raise InvalidParameter("invalid ps arguments")
        pids = processes.cgroup_pids(container.state.pid)
        lines = (await processes.list_processes(arguments)).splitlines()
        titles = lines[0].split() if lines else []
        if "PID" not in titles:
            raise InvalidParameter("Couldn't find PID field in ps output")
        column = titles.index("PID")
        rows = []
        for line in lines[1:]:
            fields = line.split(None, len(titles) - 1)
            if len(fields) > column and fields[column].isdigit() and int(fields[column]) in pids:
                rows.append(fields)
        return titles, rows
