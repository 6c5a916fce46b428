"""Network namespaces: make, pin, enter and remove them, on threads that may be elsewhere than the process.

`setns` and `unshare` move one thread only. Exactly one thread of the engine (`Worker("netns")`) ever leaves the host's
network namespace; everybody else asks it to. A namespace lives as long as something refers to it: we bind-mount
/proc/thread-self/ns/net on a path of ours, so that it outlives the engine and runc can join it by that path.

May import `model` only. Must never leave a thread in a foreign namespace: if the way back fails the thread refuses
every later job.
"""

from __future__ import annotations

import asyncio
import ctypes
import os
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from functools import partial
from typing import ParamSpec, TypeVar

from tsunagu.model.errors import KernelFailure

P = ParamSpec("P")
T = TypeVar("T")

_CLONE_NEWNET = 0x40000000
_MS_BIND = 4096
_MNT_DETACH = 2
_OWN = "/proc/thread-self/ns/net"

_libc = ctypes.CDLL(None, use_errno=True)


class Worker:
    """One thread with a queue of short jobs, and the host's network namespace as it was when the thread began."""

    def __init__(self, name: str) -> None:
        self._pool = ThreadPoolExecutor(max_workers=1, thread_name_prefix=name)
        self._host = -1
        self._is_lost = False

    async def run(self, job: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run `job` on the thread and return its result; a cancelled caller does not stop a job that began."""
        return await asyncio.wrap_future(self.submit(job, *args, **kwargs))

    def submit(self, job: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Queue `job`; jobs run in the order they were queued."""
        return self._pool.submit(self._guarded, partial(job, *args, **kwargs))

    def close(self) -> None:
        """Run what is queued, then end the thread."""
        self._pool.submit(self._forget_host)
        self._pool.shutdown(wait=True)

    def _guarded(self, job: Callable[[], T]) -> T:
        if self._is_lost:
            raise KernelFailure(
                "the namespace thread could not return to the host's network namespace",
                hint="restart the engine; containers keep running",
            )
        if self._host < 0:
            self._host = os.open(_OWN, os.O_RDONLY | os.O_CLOEXEC)
        return job()

    def _forget_host(self) -> None:
        if self._host >= 0:
            os.close(self._host)
            self._host = -1

    # ---- only from inside a job

    @property
    def host(self) -> int:
        """Descriptor of the host's network namespace."""
        return self._host

    @contextmanager
    def inside(self, namespace: int) -> Iterator[None]:
        """Let this thread be in the namespace of descriptor `namespace` for the time of the block."""
        _call("setns", _libc.setns(namespace, _CLONE_NEWNET))
        try:
            yield
        finally:
            self._return()

    @contextmanager
    def elsewhere(self) -> Iterator[None]:
        """Let this thread be in a new namespace, which nobody else sees, for the time of the block."""
        _call("unshare", _libc.unshare(_CLONE_NEWNET))
        try:
            yield
        finally:
            self._return()

    def create(self, path: str) -> int:
        """Make a namespace, pin it at `path` (which must not exist) and return a descriptor of it.

        Raises OSError; nothing is left behind then.
        """
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDONLY | os.O_CLOEXEC, 0o400))
        try:
            _call("unshare", _libc.unshare(_CLONE_NEWNET))
            try:
                _call("mount", _libc.mount(_OWN.encode(), path.encode(), None, _MS_BIND, None))
                return os.open(_OWN, os.O_RDONLY | os.O_CLOEXEC)
            finally:
                self._return()
        except BaseException:
            remove(path)
            raise

    def _return(self) -> None:
        if _libc.setns(self._host, _CLONE_NEWNET):
            self._is_lost = True
            raise KernelFailure(f"cannot return to the host's network namespace: {os.strerror(ctypes.get_errno())}")


def leave_host() -> None:
    """Move the calling thread, for good, to a new network namespace; threads that it starts begin there. For tests."""
    _call("unshare", _libc.unshare(_CLONE_NEWNET))


def open_pinned(path: str) -> int:
    """Return a descriptor of the namespace pinned at `path`; raises OSError, EINVAL when nothing is mounted there."""
    return os.open(path, os.O_RDONLY | os.O_CLOEXEC)


def remove(path: str) -> None:
    """Unpin `path` and remove the file; no error when it is gone. The kernel frees the namespace with its last user."""
    # an earlier engine may have mounted twice over a crash: one umount per mount
    while _libc.umount2(path.encode(), _MNT_DETACH) == 0:
        pass
    with suppress(FileNotFoundError):
        os.unlink(path)


def _call(name: str, result: int) -> None:
    if result:
        code = ctypes.get_errno()
        raise OSError(code, f"{name}: {os.strerror(code)}")
