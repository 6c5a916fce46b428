"""The files in a process directory (`<run_dir>/processes/<id>`), and the end of the conmon that writes them.

conmon writes `conmon.pid`, `conmon.err`, `exit` and `oom`, the runtime `pid` and `runtime.log`, we `process.json`. May
import model and its kernel neighbours; must never signal a pid without knowing whose it is.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import stat

import msgspec

from tsunagu.model.errors import KernelFailure
from tsunagu.model.process import Process

from . import conmon
from .runtime_words import last_error

UNKNOWN_EXIT = 255  # conmon was killed, and nobody else learns the exit code of a container's process


def said(report: tuple[int, str] | None, directory: str) -> str:
    """Return why the runtime failed: what conmon passed on, else the last error in the runtime's log."""
    return (report[1] if report else "") or last_error(f"{directory}/runtime.log")


def identify(pid: int, directory: str) -> Process:
    """Return the process `pid` and its conmon with their start times (0 for one that has ended already)."""
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


async def end_conmon(directory: str, *, grace: float) -> None:
    """Wait `grace` seconds for the conmon of a dead container (or exec) to end by itself; then kill it."""
    pidfd = _open_conmon(f"{directory}/conmon.pid")
    if pidfd is None:
        return
    try:
        try:
            async with asyncio.timeout(grace):
                await conmon.readable(pidfd)
        except TimeoutError:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(pidfd, signal.SIGKILL)
            await conmon.readable(pidfd)
    finally:
        os.close(pidfd)


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


def recorded(path: str) -> Process | None:
    """Return the process that `create` wrote down; None when it did not get so far."""
    try:
        with open(path, "rb") as file:
            return msgspec.json.decode(file.read(), type=Process)
    except (OSError, msgspec.DecodeError):
        return None


def exit_code(directory: str) -> int | None:
    """Return the exit code that conmon wrote; None when it has not, or was killed."""
    try:
        with open(f"{directory}/exit") as file:
            code = int(file.read())
    except (OSError, ValueError):
        return None
    return code if 0 <= code <= 255 else UNKNOWN_EXIT


def write(path: str, data: bytes) -> None:
    """Write a small file of ours."""
    with open(path, "wb") as file:
        file.write(data)


def is_fifo(path: str) -> bool:
    """Tell whether `path` is a named pipe, and no symlink to one."""
    try:
        return stat.S_ISFIFO(os.lstat(path).st_mode)
    except OSError:
        return False


def remove_tree(path: str) -> None:
    """Remove a directory of ours; no error when it is gone. To be called in a worker thread."""
    try:
        shutil.rmtree(path)
    except FileNotFoundError:
        pass
    except OSError as error:
        raise KernelFailure(f"cannot remove {path}: {error.strerror}") from error
