"""What commands say and how they fail: bytes to the two standard streams, the Failure exception, colours.

May import: C modules only. Must never use `sys.stdout`: its encoding follows the locale, Docker's is UTF-8 always.
"""

from __future__ import annotations

from posix import environ, isatty, write

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

PROGRAM: Final = "tsunagu"


class Failure(Exception):
    """A command cannot go on. Printed on stderr, then the process ends with `code`.

    `has_name` puts the program's name in front; `help_for` adds Docker's "Run '… --help'" line for that command.
    """

    def __init__(self, message: str, code: int = 1, *, has_name: bool = False, help_for: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.code = code
        self.has_name = has_name
        self.help_for = help_for

    def text(self) -> str:
        name = f"{PROGRAM}: " if self.has_name else ""
        more = f"\n\nRun '{PROGRAM} {self.help_for} --help' for more information" if self.help_for else ""
        return f"{name}{self.message}{more}"


def write_all(fd: int, data: bytes) -> None:
    """Write everything to a blocking or non-blocking descriptor. Raises OSError."""
    view = memoryview(data)
    while view:
        try:
            view = view[write(fd, view) :]
        except BlockingIOError:
            # The terminal may have been left non-blocking by another program that shares it.
            from select import POLLOUT, poll

            poller = poll()
            poller.register(fd, POLLOUT)
            poller.poll()


def out(text: str) -> None:
    """Text to standard output, as it is."""
    write_all(1, text.encode("utf-8", "surrogateescape"))


def say(line: str) -> None:
    """One line to standard output."""
    out(line + "\n")


def warn(line: str) -> None:
    """One line to standard error. A closed standard error silences it: there is nobody left to tell."""
    try:
        write_all(2, (line + "\n").encode("utf-8", "surrogateescape"))
    except OSError:
        return


def is_terminal(fd: int) -> bool:
    try:
        return isatty(fd)
    except OSError:
        return False


def has_colour(fd: int) -> bool:
    """Whether to use colour on a descriptor: a terminal that is not dumb, and NO_COLOR (no-color.org) unset."""
    return is_terminal(fd) and not environ.get(b"NO_COLOR") and environ.get(b"TERM", b"dumb") != b"dumb"


def paint(text: str, colour: int, fd: int = 1) -> str:
    """Text in an ANSI colour (31 red, 32 green, 33 yellow, 36 cyan, 1 bold) when the descriptor shows colours."""
    return f"\033[{colour}m{text}\033[0m" if has_colour(fd) else text


def env(name: str, default: str = "") -> str:
    """An environment variable as text."""
    value = environ.get(name.encode())
    return default if value is None else value.decode("utf-8", "surrogateescape")
