"""Take and send many datagrams with one system call each: recvmmsg(2) and sendmmsg(2) by ctypes.

One set of buffers serves every socket of the process. A reply is written over its query in place: id and question stay
where they are,
as they were spelled. Linux on a 64-bit machine only: the layout of struct mmsghdr is spelled out below.
"""

from __future__ import annotations

import ctypes
import errno
import socket

COUNT = 64  # datagrams of one go: a flood from one sandbox leaves the others their turn
SIZE = 1536  # bytes for one query or reply; EDNS replies of ours are smaller, longer queries are cut and then refused

# struct mmsghdr: name *, namelen u32 (+4), iov *, iovlen, control *, controllen, flags int (+4), then len u32 (+4)
_HEADER, _IOVEC, _ADDRESS = 64, 16, 16
_LENGTH_AT = 14  # of msg_len, in 32-bit words
_MSG_DONTWAIT = 0x40

_libc = ctypes.PyDLL(None, use_errno=True)  # PyDLL keeps the GIL: nothing here waits, and there is one thread
_recvmmsg, _sendmmsg = _libc.recvmmsg, _libc.sendmmsg
_recvmmsg.argtypes = [ctypes.c_int, ctypes.c_void_p, ctypes.c_uint, ctypes.c_int, ctypes.c_void_p]
_sendmmsg.argtypes = [ctypes.c_int, ctypes.c_void_p, ctypes.c_uint, ctypes.c_int]


class Batch:
    """Buffers for COUNT datagrams. Datagram `i` lies at `buffer[i * SIZE:]`.

    `sizes[i * 16 + 14]` is the length of what was received, `lengths[i * 2 + 1]` that of what is to be sent.
    """

    def __init__(self) -> None:
        self.buffer = bytearray(COUNT * SIZE)
        self.view = memoryview(self.buffer)
        self._addresses = bytearray(COUNT * _ADDRESS)
        self._received, self._sent = bytearray(COUNT * _HEADER), bytearray(COUNT * _HEADER)
        incoming, outgoing = bytearray(COUNT * _IOVEC), bytearray(COUNT * _IOVEC)
        self._kept = (incoming, outgoing)
        self.sizes = memoryview(self._received).cast("I")
        self.lengths = memoryview(outgoing).cast("Q")
        self._received_at, self._sent_at = _address(self._received), _address(self._sent)
        data_at, address_at = _address(self.buffer), _address(self._addresses)
        for headers, vectors in ((self._received, incoming), (self._sent, outgoing)):
            words, parts, vectors_at = memoryview(headers).cast("Q"), memoryview(vectors).cast("Q"), _address(vectors)
            for i in range(COUNT):
                words[i * 8] = address_at + i * _ADDRESS
                words[i * 8 + 1] = _ADDRESS
                words[i * 8 + 2] = vectors_at + i * _IOVEC
                words[i * 8 + 3] = 1
                parts[i * 2] = data_at + i * SIZE
                parts[i * 2 + 1] = SIZE

    def receive(self, descriptor: int) -> int:
        """Take what waits on a socket, at most COUNT datagrams; returns how many, 0 also on an error."""
        got: int = _recvmmsg(descriptor, self._received_at, COUNT, _MSG_DONTWAIT, None)
        return max(got, 0)

    def send(self, descriptor: int, first: int, count: int) -> int:
        """Send replies to the senders of datagrams `first` … `first + count - 1`; returns how many could not be
        sent."""
        failed, end = 0, first + count
        while first < end:
            sent: int = _sendmmsg(descriptor, self._sent_at + first * _HEADER, end - first, _MSG_DONTWAIT)
            if sent <= 0:
                if ctypes.get_errno() == errno.EINTR:
                    continue
                failed += 1  # this one only: the client has gone, or its receive buffer is full
                sent = 1
            first += sent
        return failed

    def data(self, i: int) -> bytes:
        """Return the bytes of datagram `i`."""
        return self.view[i * SIZE : i * SIZE + self.sizes[i * 16 + _LENGTH_AT]].tobytes()

    def peer(self, i: int) -> tuple[str, int]:
        """Return the IPv4 address and port that datagram `i` came from (struct sockaddr_in)."""
        raw = self._addresses[i * _ADDRESS : i * _ADDRESS + 8]
        return socket.inet_ntoa(raw[4:8]), int.from_bytes(raw[2:4], "big")

    def put(self, i: int, reply: bytes) -> None:
        """Write a whole reply in place of datagram `i`."""
        self.buffer[i * SIZE : i * SIZE + len(reply)] = reply
        self.lengths[i * 2 + 1] = len(reply)


def _address(buffer: bytearray) -> int:
    """Return where a buffer lies; it must never change its size afterwards."""
    return ctypes.addressof(ctypes.c_char.from_buffer(buffer))
