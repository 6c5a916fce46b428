"""Containers and execs as processes: the OCI runtime behind conmon. Create, start, wait, signal, delete, exec, resize.

Everything this module knows about a container or exec lies under `<run_dir>/processes/<id>`, so that an engine that
starts again finds it. May import model and its kernel neighbours; must never send a signal to a bare pid, and never
wait for a process on the event loop's thread.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import json
import os
import re
import shutil
import signal
import stat
import subprocess
from typing import Any

import msgspec

from tsunagu.model.errors import InvalidParameter, KernelFailure, NotFound
from tsunagu.model.instance import Instance
from tsunagu.model.process import Exit, HostFacts, Process, RuntimeInfo

from . import cgroups, conmon, host

__all__ = ["ExecSession", "Exit", "Process", "Runtime", "RuntimeFailed", "RuntimeInfo"]

UNKNOWN_EXIT = 255  # conmon was killed and the kernel cannot tell: what Docker reports for a lost shim
CREATE_TIMEOUT = 120.0  # seconds for the runtime to make a container or exec; only a hanging kernel needs this long
_ID = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]*")


class RuntimeFailed(KernelFailure):
    """The OCI runtime refused. `exit_code` as Docker records it: 127 not found, 126 not executable, else 128."""

    def __init__(self, message: str, *, hint: str = "", exit_code: int = 0) -> None:
        super().__init__(message, hint=hint)
        self.exit_code = exit_code or exit_code_of(message)


class Runtime:
    """Runs containers of one instance. Methods that wait are coroutines; the others return at once."""

    def __init__(self, instance: Instance) -> None:
        self._cgroup = instance.cgroup
        self._processes = f"{instance.run_dir}/processes"
        self._state = f"{instance.run_dir}/runtime"
        self._info: RuntimeInfo | None = None
        self._facts: HostFacts | None = None

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
        """Return the ids of containers that have a process directory (running, or left by a crash)."""
        try:
            names = os.listdir(self._processes)
        except FileNotFoundError:
            return set()
        return {name for name in names if os.path.lexists(f"{self._processes}/{name}/bundle")}

    def attach_path(self, identifier: str) -> str:
        """Return the path of conmon's attach socket for a container or exec id (it may be longer than sun_path)."""
        return f"{self._directory(identifier)}/bundle/attach"

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
    ) -> Process:
        """Make the container's namespaces and its first process, which waits for `start`.

        `bundle` holds config.json. `keeps_stdin`: the container's stdin stays open when a client half-closes (without:
        Docker's StdinOnce); a terminal always stays open. Raises RuntimeFailed in Docker's words.
        """
        if ":" in log_path:
            raise InvalidParameter(f"the log path {log_path} contains ':'", hint="choose a data root without ':'")
        directory = await self._make_directory(container_id)
        os.symlink(bundle, f"{directory}/bundle")
        arguments = self._arguments(container_id, container_id, directory)
        arguments += ["-b", bundle, "-l", f"k8s-file:{log_path}", "--no-sync-log"]
        if has_tty:
            arguments.append("-t")
        if has_stdin:
            arguments.append("-i")
        if has_tty or keeps_stdin:
            arguments.append("--leave-stdin-open")
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
            said = report[1] if report else ""
            raise RuntimeFailed(_create_sentence(said or _runtime_log(directory) or "the runtime said nothing"))
        process = self._identify(report[0], directory)
        _write(f"{directory}/process.json", msgspec.json.encode(process))
        return process

    async def start(self, container_id: str) -> None:
        """Let the created process execute its program. Raises RuntimeFailed when it has ended."""
        # runc's own `start` does no more than this (its process waits in the open of a fifo), at the price of a Go
        # program's start. crun reverses the direction of its fifo, and an unknown layout means an unknown version.
        fifo = f"{self._state}/{container_id}/exec.fifo"
        process = self._recorded(container_id)
        if self.detect().name != "runc" or process is None or not _is_fifo(fifo):
            await self._run_runtime("start", container_id)
            return
        pidfd = conmon.open_process(process.pid, process.pid_started)
        if pidfd is None:
            raise RuntimeFailed(_create_sentence("container's first process ended before it was started"))
        fd = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            await conmon.readable(fd, pidfd)
            try:
                word = os.read(fd, 1)
            except BlockingIOError:
                word = b""
            if not word:
                raise RuntimeFailed(_create_sentence("container's first process ended before it was started"))
            os.unlink(fifo)  # from now on the runtime calls the container running
        finally:
            os.close(fd)
            os.close(pidfd)

    async def wait(self, process: Process, container_id: str) -> Exit:
        """Wait for the end of a container; works for one that an earlier engine started, and after its end.

        The exit code is conmon's. If conmon was killed, the process itself is awaited, and the code is 255.
        """
        directory = self._directory(container_id)
        for pid, started in (
            (process.conmon_pid, process.conmon_started),
            (process.pid, process.pid_started),  # only if conmon died first
        ):
            pidfd = conmon.open_process(pid, started)
            if pidfd is not None:
                try:
                    await conmon.readable(pidfd)
                finally:
                    os.close(pidfd)
            code = _exit_code(directory)
            if code is not None:
                return Exit(code, os.path.exists(f"{directory}/oom"))
        return Exit(UNKNOWN_EXIT, os.path.exists(f"{directory}/oom"))

    def signal(self, process: Process, signum: int) -> None:
        """Send a signal to the container's first process; nothing happens when it has ended."""
        conmon.send_signal(process.pid, process.pid_started, signum)

    def is_alive(self, process: Process) -> bool:
        """Tell whether the container's first process still runs."""
        return process.pid > 0 and conmon.start_time(process.pid) == process.pid_started

    async def delete(self, container_id: str) -> None:
        """Kill what is left of a container and remove its cgroups, runtime state and process directory.

        No error when there is nothing. Also undoes a `create` that failed or was cancelled half-way.
        """
        directory = self._directory(container_id)
        await asyncio.to_thread(cgroups.remove, f"{self._cgroup}/{container_id}")
        await self._end_conmon(directory)
        # The runtime may have been in the middle of making the cgroup when conmon, its parent, was killed.
        await asyncio.to_thread(cgroups.remove, f"{self._cgroup}/{container_id}")
        for path in (f"{self._state}/{container_id}", directory):
            await asyncio.to_thread(_remove_tree, path)

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
    ) -> ExecSession:
        """Prepare a further process in a running container; it runs when `ExecSession.start` is called.

        In between the caller connects to `attach_path(exec_id)`, so that no output is lost. `process_spec` is an OCI
        process (wire.oci.exec_process).
        """
        directory = await self._make_directory(exec_id)
        os.symlink(".", f"{directory}/bundle")
        _write(f"{directory}/process-spec.json", msgspec.json.encode(process_spec))
        arguments = self._arguments(container_id, exec_id, directory)
        arguments += ["-b", directory, "-l", "none", "--exec", "--exec-attach"]
        arguments += ["--exec-process-spec", f"{directory}/process-spec.json"]
        if has_tty:
            arguments.append("-t")
        if has_stdin:
            arguments.append("-i")
        conversation = conmon.spawn(
            arguments, directory=directory, terminal_directory=self._terminal_directory(), is_exec=True
        )
        try:
            conversation.proceed()
            async with asyncio.timeout(CREATE_TIMEOUT):
                await conversation.forked()
                if not await conversation.attachable():
                    raise KernelFailure(f"conmon made no attach socket: {conversation.errors()}")
        except BaseException:
            conversation.close()
            await self._end_conmon(directory)
            _remove_tree(directory)
            raise
        return ExecSession(conversation, directory)

    async def resize(self, identifier: str, height: int, width: int) -> None:
        """Set the terminal's size, in characters, of a container or exec. Raises NotFound when it does not run."""
        if not (0 <= height <= 1000 and 0 <= width <= 1000):
            raise InvalidParameter(f"invalid window size {height}x{width}", hint="conmon takes 0 to 1000 each")
        try:
            fd = os.open(f"{self._directory(identifier)}/bundle/ctl", os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError as error:
            if error.errno in (errno.ENOENT, errno.ENXIO):
                raise NotFound(f"cannot resize {identifier}: it does not run") from None
            raise KernelFailure(f"cannot resize {identifier}: {error.strerror}") from error
        try:
            os.write(fd, b"1 %d %d\n" % (height, width))
        except BlockingIOError:
            pass  # conmon is busy with sizes that came just before: the next one counts
        finally:
            os.close(fd)

    # ---- inside

    def _directory(self, identifier: str) -> str:
        if not _ID.fullmatch(identifier):
            raise InvalidParameter(f"invalid id {identifier!r}")
        return f"{self._processes}/{identifier}"

    async def _make_directory(self, identifier: str) -> str:
        """Make the process directory anew, after making sure that no conmon of an earlier run can write into it."""
        directory = self._directory(identifier)
        if os.path.exists(directory):
            await self._end_conmon(directory)
            _remove_tree(directory)
        os.makedirs(directory, mode=0o700)
        os.makedirs(self._state, mode=0o700, exist_ok=True)
        return directory

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
        path = os.path.dirname(self._processes)
        if len(path) < 80:
            return path
        # conmon binds a socket there, whose path must fit in 107 bytes; this one stays valid while we live.
        return f"/proc/{os.getpid()}/fd/{host.directory_fd(path)}"

    def _identify(self, pid: int, directory: str) -> Process:
        try:
            with open(f"{directory}/conmon.pid") as file:
                conmon_pid = int(file.read())
        except (OSError, ValueError) as error:
            raise KernelFailure(f"conmon left no pid file: {error}") from error
        return Process(
            pid=pid,
            pid_started=conmon.start_time(pid),
            conmon_pid=conmon_pid,
            conmon_started=conmon.start_time(conmon_pid),
        )

    def _recorded(self, container_id: str) -> Process | None:
        try:
            with open(f"{self._directory(container_id)}/process.json", "rb") as file:
                return msgspec.json.decode(file.read(), type=Process)
        except (OSError, msgspec.DecodeError):
            return None

    async def _end_conmon(self, directory: str) -> None:
        """Wait for the conmon of a dead container (or exec); kill it when it does not end by itself."""
        pidfd = _open_conmon(f"{directory}/conmon.pid")
        if pidfd is None:
            return
        try:
            # Without a container pid it is still creating; there is nothing that it could end for.
            grace = 5.0 if os.path.exists(f"{directory}/process.json") else 0.2
            try:
                async with asyncio.timeout(grace):
                    await conmon.readable(pidfd)
            except TimeoutError:
                with contextlib.suppress(ProcessLookupError):
                    signal.pidfd_send_signal(pidfd, signal.SIGKILL)
                await conmon.readable(pidfd)
        finally:
            os.close(pidfd)

    async def _run_runtime(self, *words: str) -> None:
        process = await asyncio.create_subprocess_exec(
            self.detect().path, "--root", self._state, *words,
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
        )  # fmt: skip
        _, errors = await process.communicate()
        if process.returncode:
            raise RuntimeFailed(_create_sentence(errors.decode(errors="replace")))


class ExecSession:
    """One exec: prepared, then started, then awaited. `close` removes its traces; safe to call twice."""

    def __init__(self, conversation: conmon.Conversation, directory: str) -> None:
        self._conversation = conversation
        self._directory = directory

    @property
    def attach_path(self) -> str:
        """Path of conmon's attach socket."""
        return f"{self._directory}/attach"

    async def start(self) -> int:
        """Run the process; returns its host pid. Raises RuntimeFailed in Docker's words; then only `close` is left."""
        self._conversation.proceed()
        report = await self._conversation.report()
        if report is None or report[0] <= 0:
            said = report[1] if report else ""
            raise RuntimeFailed(_exec_sentence(said or _runtime_log(self._directory) or "the runtime said nothing"))
        return report[0]

    async def wait(self) -> int:
        """Wait for the end of the started process; returns its exit code, 255 when conmon was killed."""
        report = await self._conversation.report()
        if report is not None:
            return report[0]
        code = _exit_code(self._directory)
        return UNKNOWN_EXIT if code is None else code

    async def close(self) -> None:
        """Let go of conmon and remove what the exec left on disk. A process that still runs is not touched."""
        self._conversation.close()
        await asyncio.to_thread(_remove_tree, self._directory)


# ---- words


def exit_code_of(message: str) -> int:
    """Return the exit code that Docker's client gives for a runtime's message (docker/cli, run: toStatusError)."""
    if any(w in message for w in ("executable file not found", "no such file or directory")):
        return 127
    if any(w in message for w in ("permission denied", "is a directory", "not a directory")):
        return 126
    return 128


def _create_sentence(said: str) -> str:
    said = _last_line(said)
    if not said.startswith("runc create failed:"):
        said = f"runc create failed: {said}"
    # Newer runc, as Docker 28 ships it, says where the failure was; older ones do not.
    said = said.replace(
        "unable to start container process: exec:",
        "unable to start container process: error during container init: exec:",
    )
    return f"failed to create task for container: failed to create shim task: OCI runtime create failed: {said}"


def _exec_sentence(said: str) -> str:
    said = _last_line(said)
    return f"OCI runtime exec failed: {said if said.startswith('exec failed:') else f'exec failed: {said}'}"


def _last_line(said: str) -> str:
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    return lines[-1] if lines else said


def _runtime_log(directory: str) -> str:
    """Return the last error in the runtime's JSON log."""
    try:
        with open(f"{directory}/runtime.log", errors="replace") as file:
            lines = file.read(1 << 20).splitlines()
    except OSError:
        return ""
    for line in reversed(lines):
        try:
            entry = json.loads(line)
        except ValueError:
            continue
        if entry.get("level") in ("error", "fatal", "panic"):
            return str(entry.get("msg", ""))
    return ""


# ---- files


def _exit_code(directory: str) -> int | None:
    try:
        with open(f"{directory}/exit") as file:
            code = int(file.read())
    except (OSError, ValueError):
        return None
    return code if 0 <= code <= 255 else UNKNOWN_EXIT


def _write(path: str, data: bytes) -> None:
    with open(path, "wb") as file:
        file.write(data)


def _open_conmon(pid_file: str) -> int | None:
    """Return a pidfd of the conmon that was told to write `pid_file`; None when it has ended."""
    try:
        with open(pid_file) as file:
            pid = int(file.read())
        pidfd = os.pidfd_open(pid)
    except (OSError, ValueError):
        return None
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            is_ours = os.fsencode(pid_file) in file.read().split(b"\0")
    except OSError:
        is_ours = False
    if not is_ours:  # another process has this pid by now
        os.close(pidfd)
        return None
    return pidfd


def _is_fifo(path: str) -> bool:
    try:
        return stat.S_ISFIFO(os.lstat(path).st_mode)
    except OSError:
        return False


def _remove_tree(path: str) -> None:
    try:
        shutil.rmtree(path)
    except FileNotFoundError:
        pass
    except OSError as error:
        raise KernelFailure(f"cannot remove {path}: {error.strerror}") from error
