"""The resolver process as the engine sees it: find a living one or start it, talk to it, start it again when it dies.

Knows nothing of names: it moves messages, sockets and acknowledgements. The process outlives the engine,
and the engine
outlives the process: each can feed the other again.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path

import tsunagu.resolver
from tsunagu.model.errors import KernelFailure
from tsunagu.model.instance import Instance
from tsunagu.wire import control
from tsunagu.wire.control import Garbled, Message

from .tasks import spawn

log = logging.getLogger("tsunagu.resolver")
_HELLO_TIMEOUT = 2.0  # seconds until a process that says nothing is taken for hung
_START_TIMEOUT = 10.0
_DONE_TIMEOUT = 5.0
_GRACE = 10.0  # seconds a process must live for its end to be an accident
_MAX_SOCKETS = 64
_LOG_SIZE = 1 << 20
_ENTRY = Path(tsunagu.resolver.__file__).with_name("__main__.py")


class Link:
    """One connection to one process. `feed` is called, without await, whenever a process must be told everything."""

    def __init__(self, instance: Instance, feed: Callable[[], None]) -> None:
        # A directory of its own: the run directory itself must be open to those who may use the engine's socket.
        self._directory = Path(instance.run_dir, "resolver")
        self._path = str(self._directory / "control.sock")
        self._pid_file = self._directory / "pid"
        self._feed = feed
        self._socket: socket.socket | None = None
        self._child: subprocess.Popen[bytes] | None = None
        self._queue: deque[tuple[bytes, list[int]]] = deque()
        self._number = 0
        self._done = 0
        self._changed = asyncio.Event()
        self._is_closing = False
        self._started = 0.0  # when the process that is lost now came up, by the monotonic clock
        self._delay = 0.0
        self.held: dict[str, list[socket.socket]] = {}
        self.counters: dict[str, int] = {}
        self.on_seen: Callable[[control.Seen], None] = lambda _seen: None
        self.restarts = 0
        self.pid = 0

    async def open(self) -> None:
        """Connect to the process, or start one. `held` then tells which sandboxes it already serves, with duplicates
        of their sockets, which belong to the caller. Raises KernelFailure."""
        self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._directory.chmod(0o700)
        living = self._connect()
        if living is not None:
            try:
                hello = await asyncio.wait_for(self._greet(living), _HELLO_TIMEOUT)
            except (TimeoutError, OSError, Garbled) as error:
                log.warning("the running resolver does not answer, replacing it error=%r", error)
                living.close()
                self._kill()
            else:
                if hello.version == control.VERSION:
                    self._use(living, hello.pid)
                    return
                # Another version: its sockets are in our hands now, a new process serves them in a moment.
                living.send(control.encode(control.Quit()))
                living.close()
        await self._start()

    async def close(self, *, stop_process: bool) -> None:
        """Disconnect; with `stop_process` the process ends too, and this waits for it."""
        self._is_closing = True
        if self._socket is not None and stop_process:
            self.send(control.Quit())
            child = self._child
            if child is not None:
                try:
                    await asyncio.to_thread(child.wait, 2)
                except subprocess.TimeoutExpired:
                    child.kill()
                    await asyncio.to_thread(child.wait)
            else:
                self._kill()
            self._pid_file.unlink(missing_ok=True)
            Path(self._path).unlink(missing_ok=True)
            log_path = self._directory / "log"
            if log_path.exists() and log_path.stat().st_size == 0:
                log_path.unlink()  # a log with a word in it stays: it tells of something that went wrong
        self._detach()
        self._changed.set()

    def send(self, message: Message, sockets: Sequence[socket.socket] = ()) -> None:
        """Queue a message; without a connection it is dropped, since `feed` will tell everything."""
        if self._socket is None:
            return
        try:
            data = control.encode(message)
        except Garbled as error:
            log.error("not told to the resolver: %s", error)  # thousands of names for one endpoint
            return
        # Duplicates, because the caller may close its sockets before the queue is empty.
        self._queue.append((data, [os.dup(s.fileno()) for s in sockets]))
        if len(self._queue) == 1:
            self._flush()

    def commit(self) -> int:
        """End the batch; returns its number for `wait`."""
        self._number += 1
        self.send(control.Commit(self._number))
        return self._number

    async def wait(self, number: int) -> None:
        """Return once batch `number` is in force. A process that is silent for 5 s is replaced and fed again.

        Raises KernelFailure when that does not help either.
        """
        attempts = 0
        while self._done < number and not self._is_closing:
            self._changed.clear()
            try:
                await asyncio.wait_for(self._changed.wait(), _DONE_TIMEOUT)
            except TimeoutError as error:
                attempts += 1
                if attempts == 3:
                    raise KernelFailure(
                        "the resolver process does not start", hint=f"its log is {self._directory}/log"
                    ) from error
                if self._socket is not None:
                    log.error("the resolver does not answer, replacing it pid=%d", self.pid)
                    self._kill()

    # ---- the process

    def _connect(self) -> socket.socket | None:
        engine = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        engine.setblocking(False)
        try:
            engine.connect(self._path)
        except OSError:
            engine.close()
            return None
        return engine

    async def _start(self) -> None:
        """Start a process and connect; its answers come when it is ready, what we send waits for it."""
        Path(self._path).unlink(missing_ok=True)
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            os.fchmod(listener.fileno(), 0o600)  # the file is born with these permissions
            listener.bind(self._path)
            os.chmod(self._path, 0o600)
            listener.listen(4)
            engine = self._connect()
            if engine is None:
                raise KernelFailure(f"cannot connect to {self._path}")
            self._child = self._spawn(listener.fileno())
        except OSError as error:
            raise KernelFailure(f"starting the resolver failed: {error}") from error
        finally:
            listener.close()
        try:
            hello = await asyncio.wait_for(self._greet(engine), _START_TIMEOUT)
        except (TimeoutError, OSError, Garbled) as error:
            engine.close()
            raise KernelFailure(
                f"the resolver process did not start: {error!r}", hint=f"its log is {self._directory}/log"
            ) from error
        self._started = time.monotonic()
        self._use(engine, hello.pid)

    def _spawn(self, descriptor: int) -> subprocess.Popen[bytes]:
        log_path = self._directory / "log"
        if log_path.exists() and log_path.stat().st_size > _LOG_SIZE:
            log_path.replace(self._directory / "log.1")
        empty = self._directory / "root"
        empty.mkdir(mode=0o555, exist_ok=True)
        with log_path.open("ab") as output:
            child = subprocess.Popen(
                [sys.executable, "-I", "-S", str(_ENTRY), str(descriptor), str(empty)],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                pass_fds=[descriptor],
                start_new_session=True,
                cwd="/",
                env={"LC_ALL": "C.UTF-8"},
            )
        self._pid_file.write_text(f"{child.pid} {_start_time(child.pid)}\n")
        return child

    def _kill(self) -> None:
        """Kill the process that this instance started, whoever its parent is; never a reused pid."""
        try:
            pid, started = map(int, self._pid_file.read_text().split())
            handle = os.pidfd_open(pid)
        except (OSError, ValueError):
            return
        try:
            if _start_time(pid) == started:
                signal.pidfd_send_signal(handle, signal.SIGKILL)
        except OSError:
            pass  # it ended meanwhile
        finally:
            os.close(handle)

    async def _restart(self) -> None:
        """Start the process again and feed it: at once when it has lived for a while, else ever more slowly."""
        if time.monotonic() - self._started > _GRACE:
            self._delay = 0.0
        while not self._is_closing:
            await asyncio.sleep(self._delay)
            self._delay = min(2.0, self._delay * 2 + 0.05)
            if self._child is not None:
                code = await asyncio.to_thread(self._child.wait)
                log.error("the resolver ended, starting it again pid=%d code=%d", self._child.pid, code)
                self._child = None
            try:
                await self._start()
            except (OSError, KernelFailure) as error:
                log.error("starting the resolver failed, trying again error=%r", error)
            else:
                self.restarts += 1
                self._feed()
                return

    # ---- the connection

    async def _greet(self, engine: socket.socket) -> control.Hello:
        """Read Hello and every Held; raises Garbled, OSError."""
        message, _ = await self._receive(engine)
        if not isinstance(message, control.Hello):
            raise Garbled("no greeting")
        held: dict[str, list[socket.socket]] = {}
        for _ in range(message.sandboxes):
            item, sockets = await self._receive(engine)
            if isinstance(item, control.Held) and len(sockets) >= 2:
                held[item.sandbox] = sockets
        self.held = held
        return message

    async def _receive(self, engine: socket.socket) -> tuple[Message, list[socket.socket]]:
        loop = asyncio.get_running_loop()
        while True:
            try:
                return _take(engine)
            except BlockingIOError:
                ready: asyncio.Future[None] = loop.create_future()
                loop.add_reader(engine.fileno(), _wake, ready)
                try:
                    await ready
                finally:
                    loop.remove_reader(engine.fileno())

    def _use(self, engine: socket.socket, pid: int) -> None:
        self._socket, self.pid = engine, pid
        asyncio.get_running_loop().add_reader(engine.fileno(), self._readable)

    def _readable(self) -> None:
        try:
            while self._socket is not None:
                message, _ = _take(self._socket)
                if isinstance(message, control.Done):
                    self._done = max(self._done, min(message.number, self._number))
                    self.counters = dict(message.counters)
                    self._changed.set()
                elif isinstance(message, control.Seen):
                    self.on_seen(message)
        except BlockingIOError:
            return
        except (OSError, Garbled) as error:
            if not self._is_closing:
                log.warning("lost the resolver pid=%d error=%r", self.pid, error)
                self._kill()  # alive but not making sense: it must not go on beside its successor
                self._detach()
                spawn(self._restart(), name="restart resolver")

    def _flush(self) -> None:
        engine = self._socket
        if engine is None:
            return
        loop = asyncio.get_running_loop()
        try:
            while self._queue:
                data, descriptors = self._queue[0]
                if descriptors:
                    socket.send_fds(engine, [data], descriptors)
                else:
                    engine.send(data)
                self._queue.popleft()
                _close(descriptors)
        except BlockingIOError:
            loop.add_writer(engine.fileno(), self._flush)
            return
        except OSError:
            pass  # the reader notices that the process has gone, and starts it again
        loop.remove_writer(engine.fileno())

    def _detach(self) -> None:
        if self._socket is not None:
            loop = asyncio.get_running_loop()
            loop.remove_reader(self._socket.fileno())
            loop.remove_writer(self._socket.fileno())
            self._socket.close()
            self._socket = None
        while self._queue:
            _close(self._queue.popleft()[1])
        self.held = {}


def _take(engine: socket.socket) -> tuple[Message, list[socket.socket]]:
    """Read one message; raises BlockingIOError when there is none, ConnectionError at the end, Garbled."""
    data, descriptors, _, _ = socket.recv_fds(engine, control.LIMIT + 1, _MAX_SOCKETS)
    sockets = []
    try:
        for descriptor in descriptors:
            os.set_inheritable(descriptor, False)
            sockets.append(socket.socket(fileno=descriptor))
    except OSError as error:
        for descriptor in descriptors[len(sockets) :]:
            os.close(descriptor)
        raise Garbled("something that is no socket came along") from error
    if not data:
        raise ConnectionResetError("the process has closed the connection")
    return control.decode(data), sockets


def _wake(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


def _close(descriptors: Sequence[int]) -> None:
    for descriptor in descriptors:
        os.close(descriptor)


def _start_time(pid: int) -> int:
    """Return field 22 of /proc/<pid>/stat: with it a reused pid is told apart."""
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19])
