"""How many connections wait in the backlog of a listening unix socket, asked of the kernel (sock_diag(7), unix_diag).

There is no event for "my connection was accepted", and no other way for a client to learn it. May import the standard
library only; changes nothing.
"""

from __future__ import annotations

import errno
import os
import socket
import struct

_SOCK_DIAG, _BY_FAMILY, _LISTEN = 4, 20, 10
_REQUEST, _DUMP = 0x1, 0x300
_SHOW_VFS, _SHOW_QUEUES = 0x2, 0x10
_ATTRIBUTE_VFS, _ATTRIBUTE_QUEUES = 1, 4
_ERROR, _DONE = 2, 3
_ANY = (0xFFFFFFFF, 0xFFFFFFFF)
_header = struct.Struct("=IHHII")
_request = struct.Struct("=BBxxIIIII")
_answer = struct.Struct("=BBBxIII")
_pair = struct.Struct("=II")

Entry = tuple[int, tuple[int, int], int, int]  # socket inode, cookie, inode of its file, waiting connections


class Backlog:
    """The backlog of the socket that listens at `path`; raises OSError when there is none or the kernel cannot tell."""

    def __init__(self, path: str) -> None:
        self._diag = socket.socket(socket.AF_NETLINK, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC, _SOCK_DIAG)
        try:
            file = os.stat(path).st_ino & 0xFFFFFFFF  # what the kernel reports of an inode number
            found = next((entry for entry in self._ask(0, _ANY) if entry[2] == file), None)
            if found is None:
                raise FileNotFoundError(errno.ENOENT, "nobody listens", path)
            self._inode, self._cookie = found[:2]
        except BaseException:
            self._diag.close()
            raise

    def waiting(self) -> int:
        """Return how many connections have not been accepted; 0 when nobody listens any more."""
        entries = self._ask(self._inode, self._cookie)
        return entries[0][3] if entries else 0

    def close(self) -> None:
        self._diag.close()

    def _ask(self, inode: int, cookie: tuple[int, int]) -> list[Entry]:
        """Ask for one socket, or with inode 0 for all that listen in this namespace."""
        flags = _REQUEST if inode else _REQUEST | _DUMP
        body = _request.pack(socket.AF_UNIX, 0, 1 << _LISTEN, inode, _SHOW_VFS | _SHOW_QUEUES, *cookie)
        self._diag.send(_header.pack(_header.size + len(body), _BY_FAMILY, flags, 1, 0) + body)
        entries: list[Entry] = []
        while True:
            data = self._diag.recv(1 << 16)
            position = 0
            while position < len(data):
                length, kind, *_ = _header.unpack_from(data, position)
                message = data[position + _header.size : position + length]
                if kind == _DONE:
                    return entries
                if kind == _ERROR:
                    code = -struct.unpack_from("=i", message)[0]
                    if inode and code == errno.ENOENT:
                        return []
                    raise OSError(code, os.strerror(code))
                entries.append(_parse(message))
                position += (length + 3) & ~3
            if inode:
                return entries


def _parse(message: bytes) -> Entry:
    _, _, _, inode, *cookie = _answer.unpack_from(message)
    file = waiting = 0
    position = _answer.size
    while position + 4 <= len(message):
        length, kind = struct.unpack_from("=HH", message, position)
        if kind == _ATTRIBUTE_VFS:
            file = _pair.unpack_from(message, position + 4)[0]
        elif kind == _ATTRIBUTE_QUEUES:
            waiting = _pair.unpack_from(message, position + 4)[0]
        position += max((length + 3) & ~3, 4)
    return inode, (cookie[0], cookie[1]), file, waiting
