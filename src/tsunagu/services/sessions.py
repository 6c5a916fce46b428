"""What a client does with a container's terminal and output: attach, logs, resize, top."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from tsunagu.kernel import processes
from tsunagu.kernel.runtime import Runtime
from tsunagu.model.container import Container
from tsunagu.model.errors import Conflict, InvalidParameter

from . import logs, streams
from .bundles import Bundles
from .duplex import Duplex
from .engine import Engine
from .lifecycle import Lifecycle


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
        is_multiplexed = not container.config.tty
        try:
            if logs:
                await self._replay(container, client, stdout=stdout, stderr=stderr, is_multiplexed=is_multiplexed)
            if not stream:
                return
            connection, connected = await self._connect(container)
            if connection is None:
                return
            if connected is not None:
                connected.set()
            self._lifecycle.emit("attach", container)
            end = await streams.attach(
                client,
                connection,
                is_multiplexed=is_multiplexed,
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
