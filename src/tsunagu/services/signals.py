"""Signals as users write them, and which of them end a container. May import model; must never send one."""

from __future__ import annotations

import signal as signals

from tsunagu.model.container import Container
from tsunagu.model.errors import InvalidParameter


def parse_signal(text: str) -> int:
    """Return the number of a signal given as `15`, `TERM` or `SIGTERM`; raises InvalidParameter in Docker's words."""
    if text.isascii() and text.isdigit() and len(text) < 4:
        number = int(text)
        if 0 < number <= signals.SIGRTMAX:
            return number
    else:
        name = text.upper()
        found = signals.Signals.__members__.get(name if name.startswith("SIG") else f"SIG{name}")
        if found is not None:
            return int(found)
        base, plus, offset = name.removeprefix("SIG").partition("+")
        is_offset = plus and offset.isascii() and offset.isdigit() and len(offset) < 3
        if base == "RTMIN" and is_offset and signals.SIGRTMIN + int(offset) <= signals.SIGRTMAX:
            return signals.SIGRTMIN + int(offset)
    raise InvalidParameter(f"Invalid signal: {text}")


def stop_signal(text: str) -> int:
    """Return the signal that stops a container: its own, or SIGTERM."""
    return parse_signal(text) if text else int(signals.SIGTERM)


def wakes(container: Container, signum: int) -> bool:
    """Tell whether a signal lets a paused container go on: one that is to end it, or any when it has no signal of its
    own to end by (Docker's rule: nobody waits for the end of what is frozen)."""
    own = container.config.stop_signal
    return not own or signum in (signals.SIGKILL, parse_signal(own))
