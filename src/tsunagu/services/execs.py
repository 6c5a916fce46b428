"""Further processes in a running container (`docker exec`). Records live in memory, as in Docker."""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Sequence

import msgspec

from tsunagu.kernel.runtime import ExecSession, Runtime
from tsunagu.kernel.runtime_words import RuntimeFailed
from tsunagu.model.container import Container
from tsunagu.model.errors import Conflict, EngineError, InvalidParameter, NotFound
from tsunagu.rules import spec
from tsunagu.wire import stdcopy

from . import streams
from .bundles import Bundles
from .duplex import Duplex
from .engine import Engine
from .lifecycle import Lifecycle
from .tasks import spawn

log = logging.getLogger("tsunagu.execs")
KEPT_AFTER_END = 256  # ended records kept for inspect; Docker forgets them after five minutes


class ExecRecord(msgspec.Struct, kw_only=True):
    """One exec. The only mutable value here: it is no part of the world and of no interest after a restart."""

    id: str
    container_id: str
    cmd: tuple[str, ...]
    env: tuple[str, ...] = ()
    user: str = ""
    working_dir: str = ""
    has_tty: bool = False
    attaches_stdin: bool = False
    attaches_stdout: bool = False
    attaches_stderr: bool = False
    is_privileged: bool = False
    detach_keys: str = ""
    is_running: bool = False
    has_started: bool = False
    exit_code: int | None = None
    pid: int = 0


class Execs:
    def __init__(self, engine: Engine, runtime: Runtime, lifecycle: Lifecycle, bundles: Bundles) -> None:
        self._engine = engine
        self._runtime = runtime
        self._lifecycle = lifecycle
        self._bundles = bundles
        self._records: OrderedDict[str, ExecRecord] = OrderedDict()

    async def create(
        self,
        container_word: str,
        *,
        cmd: Sequence[str],
        env: Sequence[str] = (),
        user: str = "",
        working_dir: str = "",
        tty: bool = False,
        attach_stdin: bool = False,
        attach_stdout: bool = False,
        attach_stderr: bool = False,
        privileged: bool = False,
        detach_keys: str = "",
    ) -> str:
        """Prepare an exec and return its id; the container must run."""
        container = self._running(container_word)
        if not cmd:
            raise InvalidParameter("No exec command specified")
        spec.check_process(cmd, env, user, working_dir)
        streams.parse_detach_keys(detach_keys)
        record = ExecRecord(
            id=self._engine.new_id(),
            container_id=container.id,
            cmd=tuple(cmd),
            env=tuple(env),
            user=user,
            working_dir=working_dir,
            has_tty=tty,
            attaches_stdin=attach_stdin,
            attaches_stdout=attach_stdout,
            attaches_stderr=attach_stderr,
            is_privileged=privileged,
            detach_keys=detach_keys,
        )
        self._records[record.id] = record
        self._forget_oldest()
        self._lifecycle.emit(f"exec_create: {' '.join(cmd)}", container, execID=record.id)
        return record.id

    def inspect(self, exec_id: str) -> ExecRecord:
        """Return the record; raises NotFound."""
        record = self._records.get(exec_id)
        if record is None:
            raise NotFound(f"No such exec instance: {exec_id}")
        return record

    def of_container(self, container_id: str) -> list[str]:
        """Return the ids of a container's running execs (inspect's ExecIDs)."""
        return [r.id for r in self._records.values() if r.container_id == container_id and r.is_running]

    def check_start(self, exec_id: str) -> ExecRecord:
        """Refuse a start before its response head is sent; returns the record."""
        record = self.inspect(exec_id)
        if record.has_started:
            raise Conflict(f"exec process {exec_id} has already run", hint="create a new exec")
        self._running(record.container_id)
        return record

    async def start(
        self,
        exec_id: str,
        client: Duplex | None,
        *,
        tty: bool = False,
        detach: bool = False,
        console_size: tuple[int, int] | None = None,
    ) -> None:
        """Run an exec: attached to `client` until it ends, or on its own with `detach`.

        A program that cannot be run is told to the client in the output, with exit code 126 or 127, as Docker does.
        """
        record = self.check_start(exec_id)
        container = self._running(record.container_id)
        record.has_started = True
        is_attached = client is not None and not detach
        self._lifecycle.emit(f"exec_start: {' '.join(record.cmd)}", container, execID=record.id)
        try:
            session, ended = await self._launch(record, container, is_attached=is_attached, console_size=console_size)
        except EngineError as error:
            record.exit_code = error.exit_code if isinstance(error, RuntimeFailed) else 126
            if client is None or detach:
                raise
            await self._tell(client, record, str(error))
            return
        if client is None or session.connection is None:
            return
        try:
            end = await streams.attach(
                client,
                session.connection,
                is_multiplexed=not record.has_tty,
                wants_stdin=record.attaches_stdin,
                wants_stdout=record.attaches_stdout,
                wants_stderr=record.attaches_stderr,
                detach_keys=streams.parse_detach_keys(record.detach_keys),
                closes_stdin=True,
            )
            if end is streams.AttachEnd.ENDED:
                await ended  # the exit code is known before the client sees the end of the stream
        finally:
            await client.close()

    async def probe(
        self, container_id: str, words: Sequence[str], *, seconds: float, limit: int
    ) -> tuple[int | None, bytes]:
        """Run a health check: its exit code and the first `limit` bytes of its output.

        The code is None when it did not end within `seconds`; then it is killed with all that it started. Raises when
        the program cannot be run.
        """
        record = self.inspect(await self.create(container_id, cmd=words, attach_stdout=True, attach_stderr=True))
        record.has_started = True
        container = self._running(container_id)
        self._lifecycle.emit(f"exec_start: {' '.join(record.cmd)}", container, execID=record.id)
        printed = bytearray()
        session: ExecSession | None = None
        try:
            async with asyncio.timeout(seconds):
                session, ended = await self._launch(record, container, is_attached=True)
                if session.connection is not None:
                    await streams.collect(session.connection, printed, limit)
                await asyncio.shield(ended)
        except TimeoutError:
            return None, bytes(printed)
        except EngineError:
            record.exit_code = 126
            raise
        finally:
            if session is not None and record.is_running:
                self._runtime.end_exec(session.process)
        return record.exit_code, bytes(printed)

    async def _launch(
        self,
        record: ExecRecord,
        container: Container,
        *,
        is_attached: bool,
        console_size: tuple[int, int] | None = None,
    ) -> tuple[ExecSession, asyncio.Task[None]]:
        """Run an exec; returns its session and the task that ends once its exit code is known."""
        spec = await self._bundles.exec_spec(
            container,
            cmd=record.cmd,
            env=record.env,
            user=record.user,
            working_dir=record.working_dir,
            has_tty=record.has_tty,
            is_privileged=record.is_privileged,
            console_size=console_size,
        )
        session = await self._runtime.exec(
            container.id,
            record.id,
            spec,
            has_tty=record.has_tty,
            has_stdin=record.attaches_stdin,
            is_attached=is_attached,
        )
        record.is_running = True
        record.pid = session.process.pid
        return session, spawn(self._watch(record, container, session), name=f"exec {record.id[:12]}")

    async def resize(self, exec_id: str, height: int, width: int) -> None:
        """Set the size of an exec's terminal, in characters."""
        record = self.inspect(exec_id)
        if not record.is_running:
            raise Conflict(f"exec process {exec_id} is not running")
        await self._runtime.resize(record.id, height, width)

    def _running(self, word: str) -> Container:
        container = self._engine.world.container(word)
        if container.is_restarting:
            raise Conflict(f"Container {word} is restarting, wait until the container is running")
        if not container.is_running:
            raise Conflict(
                f"container {container.id} is not running", hint=f"start it first: docker start {container.name}"
            )
        if container.is_paused:
            raise Conflict(f"Container {word} is paused, unpause the container before exec")
        return container

    async def _watch(self, record: ExecRecord, container: Container, session: ExecSession) -> None:
        try:
            record.exit_code = await session.wait()
        finally:
            record.is_running = False
        self._lifecycle.emit("exec_die", container, execID=record.id, exitCode=str(record.exit_code))

    @staticmethod
    async def _tell(client: Duplex, record: ExecRecord, sentence: str) -> None:
        """Write a failure into the output, where Docker puts it (its client shows it on stdout)."""
        data = f"{sentence}\r\n".encode()
        try:
            await client.write(data if record.has_tty else stdcopy.frame(stdcopy.STDOUT, data))
        except ConnectionError:
            log.debug("client of exec %s has gone", record.id[:12])
        await client.close()

    def _forget_oldest(self) -> None:
        ended = [r.id for r in self._records.values() if r.exit_code is not None and not r.is_running]
        for identifier in ended[: max(0, len(ended) - KEPT_AFTER_END)]:
            del self._records[identifier]
