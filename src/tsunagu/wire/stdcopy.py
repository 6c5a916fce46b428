"""Docker's framing of stdout and stderr on one connection ("stdcopy"): attach, exec, logs of containers without a tty.

A frame is one byte of stream number, three zero bytes, a 4-byte big-endian length, then the data (Engine API reference,
ContainerAttach). Pure; imports the standard library only.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

STDIN, STDOUT, STDERR, SYSTEM_ERROR = 0, 1, 2, 3
HEADER = 8
_header = struct.Struct(">BxxxL")


def frame(stream: int, data: bytes) -> bytes:
    """Return `data` as one frame of `stream` (1 stdout, 2 stderr). `data` is shorter than 4 GiB."""
    return _header.pack(stream, len(data)) + data


class MalformedFrame(ValueError):
    """The peer sent something that is no stdcopy stream."""


class Decoder:
    """Takes a stdcopy stream apart as it comes in. Holds at most one header: data is handed on in pieces."""

    def __init__(self) -> None:
        self._pending = b""
        self._stream = 0
        self._left = 0

    def feed(self, data: bytes) -> Iterator[tuple[int, bytes]]:
        """Yield (stream, piece of data) for what `data` completes; raises MalformedFrame."""
        position = 0
        while position < len(data):
            if self._left:
                piece = data[position : position + self._left]
                position += len(piece)
                self._left -= len(piece)
                yield self._stream, piece
                continue
            wanted = HEADER - len(self._pending)
            self._pending += data[position : position + wanted]
            position += wanted
            if len(self._pending) == HEADER:
                self._stream, self._left = _header.unpack(self._pending)
                if self._stream > SYSTEM_ERROR or self._pending[1:4] != b"\0\0\0":
                    raise MalformedFrame(f"not a stdcopy header: {self._pending!r}")
                self._pending = b""

    @property
    def is_between_frames(self) -> bool:
        """True when the stream may end here: no frame is incomplete."""
        return not self._left and not self._pending
