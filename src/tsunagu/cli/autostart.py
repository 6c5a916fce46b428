"""Start the engine: in the foreground for `tsunagu daemon`, in the background when root needs one and none answers.

May import: C modules, `client`. Must never import the engine: it runs in a process of its own.
"""

from __future__ import annotations

import posix
import sys
from _signal import SIG_DFL, SIGINT, SIGPIPE, signal  # type: ignore[import-not-found]
from fcntl import LOCK_EX, flock

from tsunagu.cli.output import PROGRAM, Failure, warn
from tsunagu.client import Unreachable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn

    from tsunagu.client import Client

LOG_FILE = "/var/log/tsunagu.log"
LOCK_FILE = "/run/tsunagu.start"
READY_VARIABLE = b"TSUNAGU_READY_FD"
_KEPT = (b"HOME", b"LANG", b"PATH", b"PYTHONPATH", b"TMPDIR", b"TZ")


def engine_command(words: list[str]) -> tuple[str, list[str], dict[bytes, bytes]]:
    """Program, arguments and environment of an engine process.

    The command line runs without site-packages; the engine needs them, so the launcher names the interpreter to use.
    """
    python = getattr(sys, "_tsunagu_python", "") or sys.executable
    source = __file__.rpartition("/tsunagu/")[0]
    environment = dict(posix.environ)
    paths = environment.get(b"PYTHONPATH", b"").split(b":")
    environment[b"PYTHONPATH"] = b":".join([source.encode(), *[path for path in paths if path]])
    return python, [python, "-m", "tsunagu.daemon", *words], environment


def become_engine(words: list[str]) -> NoReturn:
    """Replace this process by the engine. Raises Failure when it cannot be started."""
    program, arguments, environment = engine_command(words)
    signal(SIGINT, SIG_DFL)
    try:
        posix.execve(program, arguments, environment)
    except OSError as error:
        raise Failure(f"cannot start the engine with {program}: {error.strerror}") from None


def start_engine(client: Client) -> bool:
    """Start an engine on the default socket and connect. False when this user may not (only root may).

    Returns when the engine has said that it is ready, through a pipe. Raises Failure with the end of its log when it
    ends before that.
    """
    if posix.geteuid() != 0:
        return False
    lock = posix.open(LOCK_FILE, posix.O_RDWR | posix.O_CREAT | posix.O_CLOEXEC, 0o600)
    try:
        flock(lock, LOCK_EX)
        try:
            client.connect()  # another command may have started it while we waited for the lock
        except Unreachable:
            _start(client)
    finally:
        posix.close(lock)
    return True


def _start(client: Client) -> None:
    log = posix.open(LOG_FILE, posix.O_WRONLY | posix.O_CREAT | posix.O_APPEND | posix.O_CLOEXEC, 0o640)
    beginning = posix.fstat(log).st_size
    ready, ready_write = posix.pipe2(posix.O_CLOEXEC)
    pid = posix.fork()
    if pid == 0:
        _become_background_engine(log, ready_write)
    posix.close(ready_write)
    posix.close(log)
    is_ready = posix.read(ready, 1)
    posix.close(ready)
    if not is_ready:
        raise Failure(f"the engine could not be started:\n{_tail(beginning)}")
    client.connect()
    warn(f"{PROGRAM}: started the engine (pid {pid}, log {LOG_FILE})")


def _become_background_engine(log: int, ready_write: int) -> NoReturn:
    """In the child: a session of its own, no terminal, output into the log."""
    try:
        posix.setsid()
        posix.chdir("/")
        signal(SIGPIPE, SIG_DFL)
        signal(SIGINT, SIG_DFL)
        null = posix.open("/dev/null", posix.O_RDONLY | posix.O_CLOEXEC)
        posix.dup2(null, 0)
        posix.dup2(log, 1)
        posix.dup2(log, 2)
        posix.set_inheritable(ready_write, True)
        program, arguments, environment = engine_command([])
        environment = _background_environment(environment)
        environment[READY_VARIABLE] = str(ready_write).encode()
        posix.execve(program, arguments, environment)
    except BaseException as error:
        warn(f"cannot start the engine: {error}")
    finally:
        posix._exit(1)


def _background_environment(environment: dict[bytes, bytes]) -> dict[bytes, bytes]:
    """What an engine needs of the environment of whoever started it: no secrets of their shell live on in it."""
    kept = {
        name: value
        for name, value in environment.items()
        if name in _KEPT or name.startswith((b"LC_", b"TSUNAGU_")) or name.lower().endswith(b"_proxy")
    }
    paths = kept.get(b"PATH", b"/usr/local/bin:/usr/bin:/bin").split(b":")
    # `su` without a dash leaves out the directories where Debian keeps runc and nft.
    paths += [path for path in (b"/usr/local/sbin", b"/usr/sbin", b"/sbin") if path not in paths]
    kept[b"PATH"] = b":".join(paths)
    return kept


def _tail(beginning: int, lines: int = 12) -> str:
    with open(LOG_FILE, "rb") as file:
        file.seek(beginning)
        text = file.read().decode("utf-8", "replace")
    return "\n".join(text.splitlines()[-lines:]) or f"it wrote nothing to {LOG_FILE}"
