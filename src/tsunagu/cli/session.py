"""An attached session: bytes between the terminal and a hijacked connection, with signals, resizing and detach keys.

One thread and one poll loop: the connection, standard input and received signals (through a wakeup pipe) are watched at
once, and what is read from standard input is kept while the connection cannot take it, so that a container that
writes more than it reads cannot lock the two sides up. May import: C modules, `client`. Must leave the terminal as it
was.
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]
from _socket import MSG_DONTWAIT, MSG_NOSIGNAL
from posix import O_CLOEXEC, O_NONBLOCK, _exit, get_terminal_size, pipe2, read
from select import POLLERR, POLLHUP, POLLIN, POLLOUT, poll

from tsunagu.cli.output import Failure, is_terminal, warn, write_all
from tsunagu.client import BrokenAnswer

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from tsunagu.client import Stream

DEFAULT_DETACH_KEYS = b"\x10\x11"  # ctrl-p, ctrl-q
# Everything that may be handed on to a process. Not SIGWINCH: servers such as nginx take it as an order to stop.
FORWARDED = (
    "HUP",
    "INT",
    "QUIT",
    "USR1",
    "USR2",
    "ALRM",
    "TERM",
    "CONT",
    "TSTP",
    "TTIN",
    "TTOU",
    "IO",
    "PWR",
    "PROF",
    "VTALRM",
)
_READ_SIZE = 65536
_ENDED, _DETACHED = "ended", "detached"
_CTRL = {"@": 0, "[": 27, "\\": 28, "]": 29, "^": 30, "_": 31}


def parse_detach_keys(text: str) -> bytes:
    """Bytes of "ctrl-p,ctrl-q" or "a,ctrl-^". Raises ValueError with Docker's words."""
    keys = bytearray()
    for key in text.split(","):
        if len(key) == 1:
            keys += key.encode()
        elif key.startswith("ctrl-") and len(key) == 6 and (key[5] in _CTRL or "a" <= key[5] <= "z"):
            keys.append(_CTRL.get(key[5], ord(key[5]) - 96))
        else:
            raise ValueError(f"Unknown character: '{key}'")
    return bytes(keys)


def check_terminal(wants_stdin: bool, is_tty: bool) -> None:
    """Docker's refusal of `-t` when standard input is no terminal."""
    if wants_stdin and is_tty and not is_terminal(0):
        raise Failure("the input device is not a TTY")


def window_size() -> tuple[int, int]:
    """Height and width of the terminal on standard output, (0, 0) when it is none."""
    try:
        size = get_terminal_size(1)
    except OSError:
        return 0, 0
    return size[1], size[0]


class _RawMode:
    """Standard input in raw mode (cfmakeraw) between `enter` and `leave`."""

    def __init__(self) -> None:
        self._saved: list[Any] | None = None

    def enter(self) -> None:
        import termios as t

        try:
            mode = t.tcgetattr(0)
        except t.error:
            return
        self._saved = [*mode[:6], list(mode[6])]
        mode[0] &= ~(t.IGNBRK | t.BRKINT | t.PARMRK | t.ISTRIP | t.INLCR | t.IGNCR | t.ICRNL | t.IXON)
        mode[1] &= ~t.OPOST
        mode[2] = mode[2] & ~(t.CSIZE | t.PARENB) | t.CS8
        mode[3] &= ~(t.ECHO | t.ECHONL | t.ICANON | t.ISIG | t.IEXTEN)
        mode[6][t.VMIN], mode[6][t.VTIME] = 1, 0
        t.tcsetattr(0, t.TCSANOW, mode)

    def leave(self) -> None:
        if self._saved is not None:
            import termios as t

            t.tcsetattr(0, t.TCSANOW, self._saved)
            self._saved = None


class Session:
    """One attached container or exec.

    `forward(signal_name)` is called for received signals (None: they end the client, as without a session);
    `resize(height, width)` when the terminal's size changes (None: never).
    """

    def __init__(
        self,
        stream: Stream,
        *,
        wants_stdin: bool,
        is_tty: bool,
        wants_stdout: bool = True,
        wants_stderr: bool = True,
        detach_keys: bytes = DEFAULT_DETACH_KEYS,
        forward: Callable[[str], None] | None = None,
        resize: Callable[[int, int], None] | None = None,
    ) -> None:
        self._stream = stream
        self._wants_stdin = wants_stdin
        self._is_tty = is_tty
        self._outputs = {1: 1 if wants_stdout else -1, 2: 2 if wants_stderr else -1, 0: 1}
        self._detach_keys = detach_keys
        self._held = 0  # how many bytes of the detach keys have been typed
        self._forward = forward
        self._resize = resize
        self._incoming = bytearray()
        self._outgoing = bytearray()
        self._has_input_ended = not wants_stdin
        self._raw = _RawMode()
        self._interrupts = 0
        self._wakeup, self._wakeup_write = pipe2(O_NONBLOCK | O_CLOEXEC)

    def catch_signals(self) -> None:
        """From here on signals arrive in the loop. Called before the container is started, so that none is lost."""
        _signal.set_wakeup_fd(self._wakeup_write)
        if self._forward is not None or self._is_tty:
            names = FORWARDED if self._forward is not None else ("HUP", "INT", "TERM")
            for name in names:
                _signal.signal(getattr(_signal, f"SIG{name}"), _note)
        if self._resize is not None:
            _signal.signal(_signal.SIGWINCH, _note)

    def run(self) -> bool:
        """Copy both ways until the engine closes the stream. False when the user typed the detach keys."""
        if self._is_tty and self._wants_stdin:
            self._raw.enter()
        try:
            return self._copy() == _ENDED
        finally:
            self._raw.leave()
            self._stream.close()

    def wait_readable(self, fd: int) -> None:
        """Wait for an answer on another connection while signals are still handed on."""
        poller = poll()
        poller.register(fd, POLLIN)
        poller.register(self._wakeup, POLLIN)
        while True:
            ready = dict(poller.poll())
            if self._wakeup in ready:
                self._take_signals()
            if fd in ready:
                return

    def _copy(self) -> str:
        sock = self._stream.sock
        fd = sock.fileno()
        poller = poll()
        poller.register(fd, POLLIN)
        poller.register(self._wakeup, POLLIN)
        if self._wants_stdin:
            poller.register(0, POLLIN)
        if self._stream.leftover:
            self._receive(self._stream.leftover)
        while True:
            for ready, happened in poller.poll():
                if ready == self._wakeup:
                    self._take_signals()
                elif ready == 0:
                    self._read_input()
                    poller.unregister(0)
                    if self._held == len(self._detach_keys) > 0:
                        self._send()  # what was typed before the keys, as far as it is taken at once
                        return _DETACHED
                elif happened & (POLLIN | POLLHUP | POLLERR):
                    try:
                        data = sock.recv(_READ_SIZE)
                    except ConnectionError:
                        data = b""
                    if not data:
                        return _ENDED
                    self._receive(data)
            self._send()
            if self._outgoing:
                poller.register(fd, POLLIN | POLLOUT)
            else:
                poller.register(fd, POLLIN)
                if not self._has_input_ended:
                    poller.register(0, POLLIN)
                elif self._wants_stdin:
                    self._wants_stdin = False
                    self._stream.close_write()

    def _read_input(self) -> None:
        try:
            data = read(0, _READ_SIZE)
        except BlockingIOError:
            return
        except OSError:
            data = b""  # a terminal that has gone away
        if not data:
            self._has_input_ended = True
        elif self._is_tty and self._detach_keys:
            self._outgoing += self._without_detach_keys(data)
        else:
            self._outgoing += data

    def _without_detach_keys(self, data: bytes) -> bytes:
        """Typed bytes to send; a beginning of the detach keys is held back until the next byte decides."""
        keys = self._detach_keys
        sent = bytearray()
        for byte in data:
            if byte == keys[self._held]:
                self._held += 1
                if self._held == len(keys):
                    break
                continue
            sent += keys[: self._held]
            self._held = 1 if byte == keys[0] else 0
            if not self._held:
                sent.append(byte)
        return bytes(sent)

    def _send(self) -> None:
        if not self._outgoing:
            return
        try:
            sent = self._stream.sock.send(self._outgoing, MSG_DONTWAIT | MSG_NOSIGNAL)
        except BlockingIOError:
            return
        except ConnectionError:
            # The process is gone; its last output and its exit code are still to be read.
            self._outgoing.clear()
            self._has_input_ended = True
            return
        del self._outgoing[:sent]

    def _receive(self, data: bytes) -> None:
        if self._is_tty or not self._stream.is_multiplexed:
            write_all(1, data)
            return
        buffer = self._incoming
        buffer += data
        start = 0
        while len(buffer) - start >= 8:
            size = int.from_bytes(buffer[start + 4 : start + 8], "big")
            if len(buffer) - start - 8 < size:
                break
            payload = bytes(buffer[start + 8 : start + 8 + size])
            kind = buffer[start]
            start += 8 + size
            if kind == 3:
                raise Failure(f"error from daemon in stream: {payload.decode('utf-8', 'replace')}")
            if kind not in self._outputs:
                raise BrokenAnswer(f"Unrecognized input header: {kind}")
            if self._outputs[kind] >= 0:
                write_all(self._outputs[kind], payload)
        del buffer[:start]

    def _take_signals(self) -> None:
        for number in read(self._wakeup, 4096):
            if number == _signal.SIGWINCH:
                if self._resize is not None:
                    self._resize(*window_size())
            elif self._forward is None:
                self._raw.leave()
                _exit(128 + number)
            else:
                if number in (_signal.SIGINT, _signal.SIGTERM):
                    self._interrupts += 1
                    if self._interrupts >= 3:
                        self._raw.leave()
                        warn("\ngot 3 SIGTERM/SIGINTs, forcefully exiting")
                        _exit(1)
                self._forward(_name(number))


def _note(_number: int, _frame: object) -> None:
    """A handler must exist for the wakeup descriptor to be written; the loop does the work."""


def _name(number: int) -> str:
    for name in FORWARDED:
        if getattr(_signal, f"SIG{name}") == number:
            return name
    return str(number)
