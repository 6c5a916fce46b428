"""Progress of long work: the JSON streams of load, pull and import, and a bar for what the client itself sends.

On a terminal lines are rewritten in place; elsewhere only lasting lines are printed. May import: C modules only.
"""

from __future__ import annotations

from posix import get_terminal_size
from time import monotonic

from tsunagu.cli.output import Failure, is_terminal, paint, write_all
from tsunagu.cli.units import human_size

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from typing import Any

_BAR_WIDTH = 50
_PERIOD = 0.1  # seconds between two drawings of a bar


def print_stream(documents: Iterable[dict[str, Any]], fd: int = 1) -> None:
    """Print Docker's JSON message stream. Raises Failure for an error in it."""
    screen = _Screen(fd) if is_terminal(fd) else None
    for document in documents:
        detail = document.get("errorDetail")
        if detail or document.get("error"):
            raise Failure((detail or {}).get("message") or document["error"])
        identity = document.get("id") or ""
        has_numbers = bool(document.get("progressDetail"))
        if "stream" in document:
            _write(fd, document["stream"])
            continue
        status = document.get("status") or ""
        if screen is not None and identity:
            screen.put(identity, _line(identity, status, document))
        elif not has_numbers:
            _write(fd, f"{identity}: {status}\n" if identity else f"{status}\n")
            if screen is not None:
                screen.close()


def _line(identity: str, status: str, document: dict[str, Any]) -> str:
    detail = document.get("progressDetail") or {}
    current, total = detail.get("current") or 0, detail.get("total") or 0
    if not current and not total:
        return f"{identity}: {status}"
    if total <= 0 or current > total:
        return f"{identity}: {status} {human_size(current)}"
    return f"{identity}: {status} {bar(current, total)}"


def bar(current: int, total: int) -> str:
    """ "[====>      ]  12.3MB/45.6MB"."""
    done = _BAR_WIDTH * current // total
    arrow = ">" if done < _BAR_WIDTH else ""
    shaft = "=" * (done - 1 if done == _BAR_WIDTH else done)
    end = "=" if done == _BAR_WIDTH else ""
    numbers = f"{human_size(current):>8}/{human_size(total)}"
    return f"[{paint((shaft + end + arrow).ljust(_BAR_WIDTH), 36)}] {numbers}"


class _Screen:
    """Lines by id, each rewritten in place."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._rows: dict[str, int] = {}

    def put(self, identity: str, text: str) -> None:
        row = self._rows.get(identity)
        if row is None:
            self._rows[identity] = len(self._rows)
            _write(self._fd, text + "\n")
            return
        up = len(self._rows) - row
        _write(self._fd, f"\033[{up}A\033[2K\r{text}\r\033[{up}B")

    def close(self) -> None:
        """What follows is below the lines: they stay as they are."""
        self._rows.clear()


def with_bar(pieces: Iterator[bytes], total: int, title: str, fd: int = 2) -> Iterator[bytes]:
    """The same pieces, with a bar on a terminal while they are sent. `total` 0: size unknown."""
    if not is_terminal(fd):
        yield from pieces
        return
    sent, drawn = 0, monotonic()
    has_drawn = False
    for piece in pieces:
        yield piece
        sent += len(piece)
        if monotonic() - drawn >= _PERIOD:
            drawn, has_drawn = monotonic(), True
            text = f"{title} {bar(min(sent, total), total)}" if total else f"{title} {human_size(sent)}"
            _write(fd, "\r\033[2K" + text[: _columns(fd) + 9])
    if has_drawn:
        _write(fd, "\r\033[2K")


def _columns(fd: int) -> int:
    try:
        return get_terminal_size(fd)[0] or 80
    except OSError:
        return 80


def _write(fd: int, text: str) -> None:
    write_all(fd, text.encode("utf-8", "surrogateescape"))
