"""The engine's connection: batches come in, `Done` goes out, sockets travel both ways.

One engine at a time: a new connection replaces the old one. Only the user that started this process may connect.
Without an engine everything already in force goes on.
"""

from __future__ import annotations

import os
import socket
import struct
from collections import deque

from tsunagu.wire import control
from tsunagu.wire.control import Garbled, Message

from .loop import READ, WRITE, Loop
from .server import Server

_MAX_SOCKETS = 64  # beside one message
_MOST_WAITING = 32  # messages of what was seen that wait for the engine


class Control:
    """Accepts engines on `listener`, feeds their messages to `server`. `owner` is the user id that may connect."""

    def __init__(self, loop: Loop, server: Server, listener: socket.socket, owner: int) -> None:
        self._loop = loop
        self._server = server
        self._listener = listener
        self._owner = owner
        self._engine: socket.socket | None = None
        self._outgoing: deque[tuple[bytes, list[int]]] = deque()
        server.journal.tell = self._tell
        listener.setblocking(False)
        loop.watch(listener.fileno(), self._accept)

    def _accept(self, _mask: int) -> None:
        try:
            engine, _ = self._listener.accept()
        except OSError:
            return
        _, uid, _ = struct.unpack("3i", engine.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
        if uid != self._owner:
            engine.close()
            return
        self._disconnect()
        engine.setblocking(False)
        self._engine = engine
        self._loop.watch(engine.fileno(), self._ready)
        sandboxes = list(self._server.sandboxes.values())
        self._send(control.Hello(control.VERSION, os.getpid(), len(sandboxes)))
        for sandbox in sandboxes:
            descriptors = [sock.fileno() for sock in (sandbox.udp, sandbox.tcp, *sandbox.inner)]
            self._send(control.Held(sandbox.name), descriptors)

    def _disconnect(self) -> None:
        self._server.abandon()
        self._server.follow(control.Follow(False, []))
        self._outgoing.clear()
        if self._engine is not None:
            self._loop.forget(self._engine.fileno())
            self._engine.close()
            self._engine = None

    def _ready(self, mask: int) -> None:
        try:
            if mask & WRITE:
                self._flush()
            if mask & ~WRITE:
                self._receive()
        except (OSError, Garbled):
            self._disconnect()
        except Exception:
            # Half a batch may be in force: only a full set from a new connection makes it whole again.
            self._disconnect()
            raise

    def _receive(self) -> None:
        """Take messages up to the end of one batch, so that queries get their turn between batches."""
        while self._engine is not None:
            try:
                data, descriptors, flags, _ = socket.recv_fds(self._engine, control.LIMIT + 1, _MAX_SOCKETS)
            except BlockingIOError:
                return
            sockets = [socket.socket(fileno=descriptor) for descriptor in descriptors]
            if not data:
                self._disconnect()
                return
            message = control.decode(data) if not flags & (socket.MSG_CTRUNC | socket.MSG_TRUNC) else None
            if message is None:
                raise Garbled("message or sockets cut short")
            match message:
                case control.Commit(number):
                    self._server.commit()
                    self._send(control.Done(number, self._server.counters()))
                    return
                case control.Quit():
                    self._loop.is_running = False
                    return
                case _:
                    self._server.add(message, sockets)

    def _send(self, message: Message, descriptors: list[int] | None = None) -> None:
        self._outgoing.append((control.encode(message), descriptors or []))
        self._flush()

    def _tell(self, message: control.Seen) -> bool:
        """Send what was seen; False when the engine is behind, so that nothing piles up here."""
        if self._engine is None or len(self._outgoing) >= _MOST_WAITING:
            return False
        self._send(message)
        return True

    def _flush(self) -> None:
        engine = self._engine
        if engine is None:
            return
        while self._outgoing:
            data, descriptors = self._outgoing[0]
            try:
                if descriptors:
                    socket.send_fds(engine, [data], descriptors)
                else:
                    engine.send(data)
            except BlockingIOError:
                self._loop.change(engine.fileno(), READ | WRITE)
                return
            self._outgoing.popleft()
        self._loop.change(engine.fileno(), READ)
