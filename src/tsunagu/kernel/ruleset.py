"""Who changes the host's nft rules: the kernel tells every transaction (NFNLGRP_NFTABLES), and counts them.

A transaction of ours is known by the thread that made it; or, where the kernel counts threads otherwise than we do, by
its number: nothing else was committed between the number that was read before it and the one after. Constants are those
of <linux/netfilter/nf_tables.h>. May import `netlink` only. Must never decide what to do about a change.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
import threading
from collections import deque
from typing import NamedTuple

from . import netlink
from .netlink import Socket

_NETFILTER, _GROUP = 12, 7  # NETLINK_NETFILTER, NFNLGRP_NFTABLES
_SOL_NETLINK, _ADD_MEMBERSHIP = 270, 1
_SO_RCVBUFFORCE = 33
_RECEIVE_BUFFER = 4 << 20  # bytes: a flush of thousands of rules is told rule by rule
_SUBSYSTEM, _NEW_GENERATION, _GET_GENERATION = 10, 15, 16
_NAME = 1  # NFTA_TABLE_NAME; and the table's name in the messages about chains, rules, sets and elements, too
_GENERATION, _PROCESS, _PROGRAM = 1, 2, 3  # NFTA_GEN_ID, NFTA_GEN_PROC_PID, NFTA_GEN_PROC_NAME
_EMPTY = struct.pack("=BBH", 0, 0, 0)  # struct nfgenmsg
_OWN_REMEMBERED = 4096
_OUTERMOST = 0xEFFFFFFC  # PROC_PID_INIT_INO: in this process namespace the kernel's numbers are ours
_header = struct.Struct("=IHHII")
_big = struct.Struct("!I")


class Change(NamedTuple):
    """Transactions `first` to `last` touched the watched table, or (after an overflow) may have. The program is "" and
    its process 0 when they are unknown; the number is that of the outermost process namespace."""

    first: int
    last: int
    program: str = ""
    pid: int = 0


class Watch:
    """Watches one table, of whatever families, in the namespace of the thread that makes this. Raises OSError."""

    def __init__(self, table: str) -> None:
        self._table = table.encode() + b"\0"
        self._ask = Generations()
        self._socket = socket.socket(
            socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK, _NETFILTER
        )
        try:
            self._socket.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, _RECEIVE_BUFFER)
            self._socket.bind((0, 0))
            self._socket.setsockopt(_SOL_NETLINK, _ADD_MEMBERSHIP, _GROUP)
            self._last = self._ask.current()
        except BaseException:
            self.close()
            raise
        self._is_touched = False

    def fileno(self) -> int:
        return self._socket.fileno()

    def close(self) -> None:
        self._socket.close()
        self._ask.close()

    def read(self) -> list[Change]:
        """Return the changes that the kernel has told since; never waits."""
        found: list[Change] = []
        while True:
            try:
                data = self._socket.recv(1 << 17)
            except BlockingIOError:
                return found
            except OSError as error:
                if error.errno != errno.ENOBUFS:
                    raise
                found.append(self._overflow())
                continue
            self._parse(data, found)

    def _overflow(self) -> Change:
        """The kernel had more to tell than fits: everything up to now may have touched the table."""
        first, self._last = self._last + 1, self._ask.current()
        return Change(first, self._last)

    def _parse(self, data: bytes, found: list[Change]) -> None:
        offset = 0
        while offset + 20 <= len(data):
            length, kind, *_ = _header.unpack_from(data, offset)
            if length < 20:
                return
            body = data[offset + 20 : offset + length]
            offset += (length + 3) & ~3
            if kind >> 8 != _SUBSYSTEM:
                continue
            if kind & 0xFF != _NEW_GENERATION:
                self._is_touched = self._is_touched or self._is_ours(body)
                continue
            words = dict(netlink.attributes(body))
            number = _big.unpack(words[_GENERATION])[0]
            if self._is_touched and number > self._last:
                program = words.get(_PROGRAM, b"").rstrip(b"\0").decode(errors="replace")
                found.append(Change(number, number, program, _big.unpack(words.get(_PROCESS, bytes(4)))[0]))
            self._last = max(self._last, number)
            self._is_touched = False

    def _is_ours(self, body: bytes) -> bool:
        for kind, value in netlink.attributes(body):
            if kind == _NAME:
                return value == self._table
        return False


class Generations:
    """The number of the last transaction in the namespace of the thread that makes this. Raises OSError."""

    def __init__(self) -> None:
        self._socket = Socket(_NETFILTER)
        self._own: deque[int] = deque(maxlen=_OWN_REMEMBERED)
        self._before = 0
        self._thread = -1

    def close(self) -> None:
        self._socket.close()

    def current(self) -> int:
        """Return the number; it grows by one with every transaction that changed something."""
        body = self._socket.get(_SUBSYSTEM << 8 | _GET_GENERATION, _EMPTY)
        return int(_big.unpack(dict(netlink.attributes(body, 4))[_GENERATION])[0])

    def begin(self) -> None:
        """A transaction of ours is about to be made, by this thread."""
        if self._thread < 0:
            is_outermost = os.stat("/proc/self/ns/pid").st_ino == _OUTERMOST
            self._thread = threading.get_native_id() if is_outermost else 0
        self._before = self.current()

    def end(self) -> None:
        """It was made. When somebody else made one at the same time, the numbers cannot tell which was which."""
        if self.current() == self._before + 1:
            self._own.append(self._before + 1)

    def made(self, change: Change) -> bool:
        """Tell whether a change was nothing but transactions between `begin` and `end`."""
        if change.pid and change.pid == self._thread:
            return True
        return set(self._own).issuperset(range(change.first, change.last + 1))
