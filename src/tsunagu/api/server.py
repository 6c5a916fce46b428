"""The API server: listens on a unix socket, keeps its connections, stops gracefully.

The socket file is 0660 root:docker (when that group exists); a socket that somebody still listens on is never replaced.
May import the rest of `api`; a TCP listener is a later matter (it would need TLS).
"""

from __future__ import annotations

import asyncio
import grp
import logging
import os
import select
import socket
import stat
from collections.abc import Iterable

from tsunagu.model.errors import Conflict, InvalidParameter, KernelFailure

from .app import App
from .connection import Connection
from .router import Route, Router
from .routes import ROUTES

log = logging.getLogger("tsunagu.api")

PATH_LIMIT = 107  # bytes in sockaddr_un.sun_path without its final zero (unix(7))
BACKLOG = 1024


class Server:
    """Serves `app` on one or more listening sockets."""

    def __init__(self, app: App, routes: Iterable[Route] = ROUTES) -> None:
        self._router = Router(app, routes)
        self._connections: set[Connection] = set()
        self._servers: list[asyncio.Server] = []
        self._paths: list[tuple[str, int]] = []
        self._hangups: _Hangups | None = None

    def __repr__(self) -> str:
        return f"<Server {[path for path, _ in self._paths]} connections={len(self._connections)}>"

    async def serve(self, path: str, *, group: str = "docker") -> None:
        """Listen on the unix socket `path` and return; raises InvalidParameter, Conflict or KernelFailure."""
        listener = listen(path, group=group)
        self._paths.append((path, os.stat(path).st_ino))
        await self.serve_on(listener)

    async def serve_on(self, listener: socket.socket) -> None:
        """Serve a socket that listens already (socket activation)."""
        loop = asyncio.get_running_loop()
        self._hangups = hangups = self._hangups or _Hangups(loop)
        listener.setblocking(False)
        server = await loop.create_unix_server(
            lambda: Connection(self._router, self._connections, hangups), sock=listener, backlog=BACKLOG
        )
        self._servers.append(server)

    async def close(self, grace: float = 10.0) -> None:
        """Stop: no new connections, watchers are cancelled, what changes something has `grace` seconds to finish."""
        loop = asyncio.get_running_loop()
        for listener in (listener for server in self._servers for listener in server.sockets):
            loop.remove_reader(listener.fileno())
        # asyncio needs three turns from accept to `connection_made`, and loses a connection (and its descriptor) when
        # its server is closed in between.
        for _ in range(3):
            await asyncio.sleep(0)
        for server in self._servers:
            server.close()
        for path, inode in self._paths:
            _unlink_if_ours(path, inode)
        tasks = {task for connection in list(self._connections) if (task := connection.shut_down()) is not None}
        if tasks:
            _, late = await asyncio.wait(tasks, timeout=grace)
            for task in late:
                log.warning("request cancelled by shutdown task=%s", task.get_name())
                task.cancel()
            if late:
                await asyncio.wait(late, timeout=grace)
        for connection in list(self._connections):
            connection.abort()
        if self._hangups is not None:
            self._hangups.close()
        self._servers.clear()
        self._paths.clear()


class _Hangups:
    """Notices that a peer has closed for good while nothing is read from it: after a half-close, or in a pause.

    asyncio stops looking at a connection then, so that a vanished `docker run -i` would go unseen. One epoll set with
    no events asked for still reports EPOLLHUP, and it can be watched itself (epoll(7)).
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._epoll = select.epoll()
        self._watched: dict[int, Connection] = {}
        loop.add_reader(self._epoll.fileno(), self._ready)

    def watch(self, connection: Connection, descriptor: int) -> None:
        if descriptor not in self._watched:
            self._watched[descriptor] = connection
            self._epoll.register(descriptor, 0)

    def forget(self, descriptor: int) -> None:
        if self._watched.pop(descriptor, None) is not None:
            self._epoll.unregister(descriptor)

    def _ready(self) -> None:
        for descriptor, _ in self._epoll.poll(0):
            connection = self._watched[descriptor]
            self.forget(descriptor)
            connection.hung_up()

    @property
    def is_closed(self) -> bool:
        return self._epoll.closed

    def close(self) -> None:
        if not self._epoll.closed:
            self._loop.remove_reader(self._epoll.fileno())
            self._watched.clear()
            self._epoll.close()


def listen(path: str, *, group: str = "docker") -> socket.socket:
    """Return a socket that listens at `path` with mode 0660 and, if it exists, the group; creates the directory.

    Raises InvalidParameter for a path that does not fit, Conflict when another engine serves it, KernelFailure.
    """
    size = len(os.fsencode(path))
    if not path.startswith("/"):
        raise InvalidParameter(f"socket path {path!r} is not absolute")
    if size > PATH_LIMIT:
        raise InvalidParameter(
            f"socket path is {size} bytes long, the kernel allows {PATH_LIMIT}: {path}",
            hint="choose a shorter --host unix://… or a shorter --run-dir",
        )
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    try:
        os.makedirs(os.path.dirname(path), mode=0o711, exist_ok=True)
        _clear(path)
        previous = os.umask(0o117)  # the file must never be open to everybody, not even before chown
        try:
            listener.bind(path)
        finally:
            os.umask(previous)
        _set_group(path, group)
        listener.listen(BACKLOG)
    except OSError as error:
        listener.close()
        raise KernelFailure(f"cannot listen on {path}: {error.strerror}") from error
    except BaseException:
        listener.close()
        raise
    return listener


def _clear(path: str) -> None:
    """Remove a socket file that nobody listens on."""
    try:
        mode = os.lstat(path).st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(mode):
        raise Conflict(f"cannot listen on {path}: a file that is no socket is in the way")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(2)
        try:
            probe.connect(path)
        except (ConnectionRefusedError, FileNotFoundError):
            os.unlink(path)
            return
        except OSError:
            pass  # a full backlog or a timeout: somebody listens, if slowly
    raise Conflict(
        f"cannot listen on {path}: another engine serves it",
        hint="stop that engine, or choose another socket with --host",
    )


def _set_group(path: str, group: str) -> None:
    try:
        gid = grp.getgrnam(group).gr_gid
    except KeyError:
        return
    try:
        os.chown(path, -1, gid)
    except PermissionError:
        log.warning("socket stays with its own group path=%s group=%s", path, group)


def _unlink_if_ours(path: str, inode: int) -> None:
    try:
        if os.stat(path).st_ino == inode:
            os.unlink(path)
    except FileNotFoundError:
        pass
