"""Containers and execs as processes: the OCI runtime behind conmon. Create, start, wait, signal, delete, exec, resize.

Everything this module knows about a container lies under `<run_dir>/processes/<id>` (its execs in `execs/` below), so
that an engine that starts again finds it. May import model and its kernel neighbours; must never signal a bare pid, and
never wait for a process on the event loop's thread.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import re
import signal
import socket
import subprocess
from collections import Counter, defaultdict
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, TypeVar
from weakref import WeakSet

import msgspec

from tsunagu.model.errors import Conflict, InvalidParameter, KernelFailure, NotFound
from tsunagu.model.instance import Instance
from tsunagu.model.process import Exit, HostFacts, Process, RuntimeInfo

from . import cgroups, conmon, host, processes
from . import process_files as files
from .runtime_words import RuntimeFailed, create_sentence, exec_sentence

__all__ = ["ExecSession", "Exit", "Process", "Runtime", "RuntimeFailed", "RuntimeInfo"]

DRAIN_SECONDS = 2.0  # in which attached clients read the last output of a container, as with Docker
CREATE_TIMEOUT = 120.0  # seconds for the runtime to make a container or exec; only a hanging kernel needs this long
_ID = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]*")
T = TypeVar("T")
_ENDED_EARLY = "container's first process ended before it was started"


class Runtime:
    """Runs containers of one instance. Methods that wait are coroutines; the others return at once."""

    def __init__(self, instance: Instance) -> None:
        self._cgroup = instance.cgroup
        self._run_dir = instance.run_dir
        self._processes = f"{instance.run_dir}/processes"
        self._state = f"{instance.run_dir}/runtime"
        self._info: RuntimeInfo | None = None
        self._facts: HostFacts | None = None
        self._starting_execs: dict[str, set[asyncio.Future[None]]] = defaultdict(set)  # by container
        self._deleting: Counter[str] = Counter()
        self._attached: dict[str, WeakSet[socket.socket]] = {}  # by container
        self._execs: dict[str, str] = {}  # directories of execs that run; they are of no use to a later engine

    # ---- what there is

    def detect(self) -> RuntimeInfo:
        """Return the OCI runtime: crun where it works, else runc. Raises Unavailable naming the Debian packages."""
        if self._info is None:
            self._info = host.detect()
        return self._info

    def facts(self) -> HostFacts:
        """Return what a container's configuration depends on; Unavailable when the seccomp profile is missing."""
        if self._facts is None:
            self._facts = host.facts()
        return self._facts

    def known(self) -> set[str]:
        """Return the ids of containers that have a process directory or runtime state (running, or left by a crash)."""
        found: set[str] = set()
        for directory in (self._processes, self._state):
            with contextlib.suppress(FileNotFoundError):
                found.update(os.listdir(directory))
        return found

    # ---- life of a container

    async def create(
        self,
        container_id: str,
        bundle: str,
        *,
        has_tty: bool,
        has_stdin: bool,
        keeps_stdin: bool,
        log_path: str,
        log_limit: int = 0,
    ) -> Process:
        """Make the container's namespaces and its first process, which waits for `start`.

        `bundle` holds config.json. `keeps_stdin`: the container's stdin stays open when a client half-closes (without:
        Docker's StdinOnce); a terminal always stays open. `log_path` "" keeps no log; `log_limit` are the bytes after
        which conmon begins it anew, 0 for never. Raises RuntimeFailed in Docker's words.
        """
        if ":" in log_path:
            raise InvalidParameter(f"the log path {log_path} contains ':'", hint="choose a data root without ':'")
        directory = self._directory(container_id)
        if os.path.exists(directory) or os.path.exists(f"{self._state}/{container_id}"):
            self._check_ended(container_id)
            await self.delete(container_id)  # an earlier run, or what a crash left of it
        for parent in (self._state, self._processes):  # each by itself: makedirs gives its mode to the last one only
            os.makedirs(parent, mode=0o700, exist_ok=True)
        for path in (directory, f"{directory}/execs"):
            os.mkdir(path, mode=0o700)
        os.symlink(bundle, f"{directory}/bundle")
        arguments = self._arguments(container_id, container_id, directory)
        arguments += ["-b", bundle, "-l", f"k8s-file:{log_path}" if log_path else "none", "--no-sync-log"]
        if log_path and log_limit:
            arguments += ["--log-size-max", str(log_limit)]
        if has_tty:
            arguments.append("-t")
        if has_stdin:
            arguments.append("-i")
        if has_tty or keeps_stdin:
            arguments.append("--leave-stdin-open")
        return await _to_the_end(self._create(arguments, directory))

    async def _create(self, arguments: Sequence[str], directory: str) -> Process:
        conversation = conmon.spawn(
            arguments, directory=directory, terminal_directory=self._terminal_directory(), is_exec=False
        )
        try:
            async with asyncio.timeout(CREATE_TIMEOUT):
                await conversation.forked()
                report = await conversation.report()
        except TimeoutError:
            raise KernelFailure(f"the runtime made no container within {CREATE_TIMEOUT:.0f} seconds") from None
        finally:
            conversation.close()
        if report is None or report[0] <= 0:
            raise RuntimeFailed(create_sentence(files.said(report, directory)))
        process = files.identify(report[0], directory)
        files.write(f"{directory}/process.json", msgspec.json.encode(process))
        return process

    async def start(self, container_id: str) -> None:
        """Let the created process execute its program. Raises RuntimeFailed when it has ended."""
        # runc's own `start` does no more than this (its process waits in the open of a fifo), at the price of a Go
        # program's start. crun reverses the direction of its fifo, and an unknown layout means an unknown version.
        fifo = f"{self._state}/{container_id}/exec.fifo"
        process = files.recorded(f"{self._directory(container_id)}/process.json")
        if self.detect().name != "runc" or process is None or not files.is_fifo(fifo):
            await self._run_runtime("start", container_id)
            return
        pidfd = conmon.open_process(process.pid, process.pid_started)
        if pidfd is None:
            raise RuntimeFailed(create_sentence(_ENDED_EARLY))
        fd = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            await conmon.readable(fd, pidfd)
            try:
                word = os.read(fd, 1)
            except BlockingIOError:
                word = b""
            if not word:
                raise RuntimeFailed(create_sentence(_ENDED_EARLY))
            os.unlink(fifo)  # from now on the runtime calls the container running
        finally:
            os.close(fd)
            os.close(pidfd)

    async def wait(self, process: Process, container_id: str) -> Exit:
        """Wait for the end of a container; works for one that an earlier engine started, and after its end.

        The exit code is what conmon saw. If conmon was killed, the process itself is awaited, and the code is 255.
        """
        directory = self._directory(container_id)
        fds = [
            conmon.open_process(process.conmon_pid, process.conmon_started),
            conmon.open_process(process.pid, process.pid_started),
        ]
        try:
            conmon_fd, init_fd = fds
            if conmon_fd is not None:
                await self._conmon_ended(conmon_fd, init_fd, container_id)
            code = files.exit_code(directory)
            if code is None and init_fd is not None:  # conmon died first
                await conmon.readable(init_fd)
                code = files.exit_code(directory)
        finally:
            for fd in fds:
                if fd is not None:
                    os.close(fd)
        return Exit(files.UNKNOWN_EXIT if code is None else code, os.path.exists(f"{directory}/oom"))

    async def _conmon_ended(self, conmon_fd: int, init_fd: int | None, container_id: str) -> None:
        """Wait for the end of conmon, which follows that of the container's process.

        Not if it is stuck in writing to an attached client that does not read: that connection is cut then.
        """
        if init_fd is not None:
            await conmon.readable(conmon_fd, init_fd)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(DRAIN_SECONDS):
                    await conmon.readable(conmon_fd)
                return
            for connection in self._attached.pop(container_id, ()):
                with contextlib.suppress(OSError):  # its reader has closed it
                    connection.shutdown(socket.SHUT_RDWR)
        await conmon.readable(conmon_fd)

    def signal(self, process: Process, signum: int) -> None:
        """Send a signal to the container's first process; nothing happens when it has ended."""
        conmon.send_signal(process.pid, process.pid_started, signum)

    async def freeze(self, container_id: str) -> None:
        """Stop every process of a container where it is; returns when all stand still. Raises KernelFailure."""
        await asyncio.to_thread(cgroups.freeze, f"{self._cgroup}/{container_id}")

    def thaw(self, container_id: str) -> None:
        """Let a frozen container go on. One write that does not wait; nothing happens when it is not frozen."""
        cgroups.thaw(f"{self._cgroup}/{container_id}")

    def is_frozen(self, container_id: str) -> bool:
        """Tell whether a container is frozen, whoever did it."""
        return cgroups.is_frozen(f"{self._cgroup}/{container_id}")

    async def update(self, container_id: str, resources: dict[str, Any]) -> None:
        """Change the limits of a running container. `resources` is OCI's `linux.resources`; what it lacks stays.

        Raises RuntimeFailed with what the runtime said.
        """
        await self._run_runtime("update", "--resources", "-", container_id, data=msgspec.json.encode(resources))

    def is_alive(self, process: Process) -> bool:
        """Tell whether the container's first process still runs."""
        return process.pid > 0 and conmon.start_time(process.pid) == process.pid_started

    async def delete(self, container_id: str) -> None:
        """Kill what is left of a container and remove its cgroups, runtime state and process directory.

        No error when there is nothing. Also undoes a `create` that failed or was cancelled half-way.
        """
        self._deleting[container_id] += 1
        try:
            await self._delete(container_id, self._directory(container_id))
        finally:
            self._deleting -= Counter([container_id])

    async def _delete(self, container_id: str, directory: str) -> None:
        self._attached.pop(container_id, None)
        await asyncio.to_thread(cgroups.remove, f"{self._cgroup}/{container_id}")
        if execs := self._starting_execs.get(container_id):
            await asyncio.wait(execs)  # they fail now, and write into the directory until then
            await asyncio.to_thread(cgroups.remove, f"{self._cgroup}/{container_id}")
        if not os.path.exists(f"{directory}/process.json"):
            # conmon may just be letting the runtime make the container: end both before the cgroup is there again.
            await files.end_conmon(directory, grace=0.1)
            await asyncio.to_thread(cgroups.remove, f"{self._cgroup}/{container_id}")
        await self._clear(directory)
        await asyncio.to_thread(files.remove_tree, f"{self._state}/{container_id}")

    def remove_parent_cgroup(self) -> None:
        """Remove the instance's own cgroup; stays where a container is still in it."""
        cgroups.remove_if_empty(self._cgroup)

    # ---- exec

    async def exec(
        self,
        container_id: str,
        exec_id: str,
        process_spec: dict[str, Any],
        *,
        has_tty: bool,
        has_stdin: bool,
        is_attached: bool = True,
    ) -> ExecSession:
        """Run a further process in a running container; returns once it runs.

        With `is_attached` the session's `connection` was made before, so that no output is lost; it must be read or
        closed. `process_spec` is an OCI process (wire.oci.exec_process). Raises RuntimeFailed in Docker's words.
        """
        directory = f"{self._directory(container_id)}/execs/{exec_id}"
        if not _ID.fullmatch(exec_id):
            raise InvalidParameter(f"invalid id {exec_id!r}")
        if self._deleting[container_id] or not os.path.isdir(os.path.dirname(directory)):
            raise Conflict(f"container {container_id} is not running")
        done = asyncio.get_running_loop().create_future()
        self._starting_execs[container_id].add(done)
        try:
            return await self._start_exec(
                container_id, exec_id, directory, process_spec, has_tty=has_tty, has_stdin=has_stdin,
                is_attached=is_attached,
            )  # fmt: skip
        finally:
            done.set_result(None)
            self._starting_execs[container_id].discard(done)
            if not self._starting_execs[container_id]:
                del self._starting_execs[container_id]

    async def _start_exec(
        self,
        container_id: str,
        exec_id: str,
        directory: str,
        process_spec: dict[str, Any],
        *,
        has_tty: bool,
        has_stdin: bool,
        is_attached: bool,
    ) -> ExecSession:
        os.mkdir(directory, mode=0o700)
        files.write(f"{directory}/process-spec.json", msgspec.json.encode(process_spec))
        arguments = self._arguments(container_id, exec_id, directory)
        arguments += ["-b", directory, "-l", "none", "--exec", "--exec-attach"]
        arguments += ["--exec-process-spec", f"{directory}/process-spec.json"]
        if has_tty:
            arguments.append("-t")
        if has_stdin and is_attached:
            arguments.append("-i")
        try:
            session = await _to_the_end(self._exec(arguments, directory, exec_id, is_attached=is_attached), _undo_exec)
        except BaseException:
            await files.end_conmon(directory, grace=0.5)
            await asyncio.to_thread(files.remove_tree, directory)
            raise
        self._execs[exec_id] = directory
        return session

    async def _exec(self, arguments: Sequence[str], directory: str, exec_id: str, *, is_attached: bool) -> ExecSession:
        conversation = conmon.spawn(
            arguments, directory=directory, terminal_directory=self._terminal_directory(), is_exec=True
        )
        connection = None
        try:
            async with asyncio.timeout(CREATE_TIMEOUT):
                conversation.proceed()
                await conversation.forked()
                if not await conversation.attachable():
                    raise KernelFailure(f"conmon made no attach socket: {conversation.errors()}")
                if is_attached:
                    try:
                        connection = await conmon.connect(directory, waits=False)
                    except (FileNotFoundError, ConnectionRefusedError):  # it was killed with its container
                        raise KernelFailure(f"conmon ended too early: {conversation.errors()}") from None
                conversation.proceed()
                report = await conversation.report()
            if report is None or report[0] <= 0:
                raise RuntimeFailed(exec_sentence(files.said(report, directory)))
            return ExecSession(self._execs, exec_id, conversation, files.identify(report[0], directory), connection)
        except BaseException as error:
            conversation.close()
            if connection is not None:
                connection.close()
            if isinstance(error, TimeoutError):
                raise KernelFailure(f"the runtime ran nothing within {CREATE_TIMEOUT:.0f} seconds") from None
            raise

    def end_exec(self, process: Process) -> None:
        """Kill an exec with every process of its session (the runtime makes one for each exec)."""
        inside = processes.session_members(process.pid) if self.is_alive(process) else set()
        for pid, started in inside:
            conmon.send_signal(pid, started, signal.SIGKILL)
        conmon.send_signal(process.pid, process.pid_started, signal.SIGKILL)

    # ---- terminals

    async def connect(self, container_id: str) -> socket.socket | None:
        """Connect to the stdio of a container that was created; None when it has ended. `services.streams` uses it."""
        try:
            connection = await conmon.connect(f"{self._directory(container_id)}/bundle", waits=True)
        except (FileNotFoundError, ConnectionRefusedError):
            return None
        self._attached.setdefault(container_id, WeakSet()).add(connection)
        return connection

    async def resize(self, identifier: str, height: int, width: int) -> None:
        """Set the terminal's size, in characters, of a container or exec. Raises NotFound when it does not run."""
        if not (0 <= height <= 1000 and 0 <= width <= 1000):
            raise InvalidParameter(f"invalid window size {height}x{width}", hint="conmon takes 0 to 1000 each")
        directory = self._execs.get(identifier) or f"{self._directory(identifier)}/bundle"
        self._tell(directory, b"1 %d %d\n" % (height, width), f"cannot resize {identifier}")

    def reopen_log(self, container_id: str) -> None:
        """Make conmon write a container's log into a new file of its name. Raises NotFound when it does not run."""
        self._tell(f"{self._directory(container_id)}/bundle", b"2 0 0\n", f"cannot reopen the log of {container_id}")

    def _tell(self, directory: str, message: bytes, what: str) -> None:
        """Write to conmon's control pipe."""
        try:
            fd = os.open(f"{directory}/ctl", os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError as error:
            if error.errno in (errno.ENOENT, errno.ENXIO):  # never there, or conmon no longer reads
                raise NotFound(f"{what}: it does not run") from None
            raise KernelFailure(f"{what}: {error.strerror}") from error
        try:
            os.write(fd, message)
        except BlockingIOError:
            pass  # conmon is busy with what came just before
        finally:
            os.close(fd)

    # ---- inside

    def _directory(self, identifier: str) -> str:
        if not _ID.fullmatch(identifier):
            raise InvalidParameter(f"invalid id {identifier!r}")
        return f"{self._processes}/{identifier}"

    def _check_ended(self, container_id: str) -> None:
        process = files.recorded(f"{self._directory(container_id)}/process.json")
        if process is not None and self.is_alive(process):
            raise KernelFailure(f"container {container_id} runs already", hint=f"its process is {process.pid}")

    async def _clear(self, directory: str) -> None:
        """Remove a process directory, once no conmon of the dead container can write into it any more."""
        with contextlib.suppress(FileNotFoundError):
            for exec_id in os.listdir(f"{directory}/execs"):
                await files.end_conmon(f"{directory}/execs/{exec_id}", grace=5.0)
        await files.end_conmon(directory, grace=5.0)
        await asyncio.to_thread(files.remove_tree, directory)

    def _arguments(self, container_id: str, identifier: str, directory: str) -> list[str]:
        info = self.detect()
        return [
            info.conmon_path, "--api-version", "1", "--full-attach", "--log-level", "error",
            "-c", container_id, "-u", identifier, "-r", info.path,
            "-p", f"{directory}/pid", "-P", f"{directory}/conmon.pid",
            "--persist-dir", directory,  # holds the files `exit` and `oom`
            f"--runtime-arg=--root={self._state}",
            f"--runtime-arg=--log={directory}/runtime.log", "--runtime-arg=--log-format=json",
        ]  # fmt: skip

    def _terminal_directory(self) -> str:
        if len(self._run_dir) < 80:
            return self._run_dir
        # conmon binds a socket there, whose path must fit in 107 bytes; this one stays valid while we live.
        return f"/proc/{os.getpid()}/fd/{host.directory_fd(self._run_dir)}"

    async def _run_runtime(self, *words: str, data: bytes = b"") -> None:
        process = await asyncio.create_subprocess_exec(
            self.detect().path, "--root", self._state, *words,
            stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
        )  # fmt: skip
        _, errors = await process.communicate(data)
        if process.returncode:
            raise RuntimeFailed(create_sentence(errors.decode(errors="replace")))


class ExecSession:
    """One exec that runs. `connection` is a connected socket to its stdio, None when it is not attached."""

    def __init__(
        self,
        directories: dict[str, str],
        exec_id: str,
        conversation: conmon.Conversation,
        process: Process,
        connection: socket.socket | None,
    ) -> None:
        self.process = process
        self.connection = connection
        self._directories = directories
        self._exec_id = exec_id
        self._conversation = conversation

    def discard(self) -> None:
        """Let go of a session that nobody waits for."""
        self._conversation.close()
        if self.connection is not None:
            self.connection.close()

    async def wait(self) -> int:
        """Wait for the end and return the exit code, 255 when conmon was killed. Removes what the exec left on disk.

        To be awaited once. The connection is not touched: its reader finds the end of the stream by itself.
        """
        try:
            report = await self._conversation.report()
        finally:
            self._conversation.close()
            directory = self._directories.pop(self._exec_id, "")
        code = report[0] if report is not None else files.exit_code(directory)
        if directory:
            await asyncio.to_thread(files.remove_tree, directory)
        return files.UNKNOWN_EXIT if code is None or not 0 <= code <= 255 else code


def _undo_exec(session: ExecSession) -> None:
    conmon.send_signal(session.process.pid, session.process.pid_started, signal.SIGKILL)
    session.discard()


async def _to_the_end(work: Coroutine[Any, Any, T], undo: Callable[[T], None] | None = None) -> T:
    """Await `work`; when cancelled, only leave once it is done (and undone).

    conmon goes its way whether we listen or not: left alone half-way, it could make a container after its removal.
    """
    task = asyncio.ensure_future(work)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait([task])
        if not task.cancelled() and task.exception() is None and undo is not None:
            undo(task.result())
        raise
