"""How many descriptors the engine may have, and numbers below 1024 for a library that cannot count further.

An engine with hundreds of containers holds thousands of descriptors: resolver sockets, published ports, clients.
libnftables waits with select(2), whose sets end at FD_SETSIZE: a socket with a higher number ends the whole process.
So a few low numbers are occupied from the start and lent to it. May import the standard library only.
"""

from __future__ import annotations

import fcntl
import os
import resource
from collections.abc import Iterator
from contextlib import contextmanager

FD_SETSIZE = 1024  # select(2), a constant of the C library
_MOST = 1 << 20  # fs.nr_open's default
# While some numbers are lent, other threads may open descriptors too and get them: more than they open in that time.
_RESERVE = 64

_inherited: list[tuple[int, int]] = []


def raise_limit() -> None:
    """Let this process have as many descriptors as it may; children that ask get the former limit (see `inherited`)."""
    _, hard = inherited()
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def inherited() -> tuple[int, int]:
    """Return the soft and hard limit this process was started with: what a container gets unless its user says more."""
    if not _inherited:
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        # -1 is "no limit", which the kernel takes for this resource as fs.nr_open
        _inherited.append((_MOST if soft < 0 else soft, _MOST if hard < 0 else hard))
    return _inherited[0]


class LowNumbers:
    """Descriptors below FD_SETSIZE, kept occupied until somebody needs one."""

    def __init__(self) -> None:
        self._null = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
        self._held: list[int] = []
        self._occupy()

    @contextmanager
    def lent(self) -> Iterator[bool]:
        """Let the block open a few descriptors below FD_SETSIZE; False when there is none to be had.

        Not for two threads at once.
        """
        lowest = fcntl.fcntl(self._null, fcntl.F_DUPFD_CLOEXEC, 0)
        os.close(lowest)
        if lowest < FD_SETSIZE - _RESERVE:
            yield True
            return
        can_lend = len(self._held) > _RESERVE // 2
        if can_lend:
            self._release()
        try:
            yield can_lend
        finally:
            self._occupy()

    def _release(self) -> None:
        while self._held:
            os.close(self._held.pop())

    def _occupy(self) -> None:
        while len(self._held) < _RESERVE:
            number = fcntl.fcntl(self._null, fcntl.F_DUPFD_CLOEXEC, 3)
            if number >= FD_SETSIZE:
                os.close(number)
                return
            self._held.append(number)
