"""Points in time as clients send them (`since`, `until`): unix seconds with a fraction, or RFC 3339. Pure."""

from __future__ import annotations

import re

from tsunagu.model.errors import InvalidParameter

from .views import SECOND, parse_rfc3339

_UNIX = re.compile(r"(-?\d{1,12})(?:\.(\d{1,9})\d*)?")


def parse_time(text: str) -> int | None:
    """Return nanoseconds since the epoch, None for an absent or zero time; raises InvalidParameter.

    Clients turn durations ("10m ago") into times themselves, with their own clock.
    """
    if not text or text == "0":
        return None
    if match := _UNIX.fullmatch(text):
        return int(match[1]) * SECOND + int((match[2] or "").ljust(9, "0"))
    moment = parse_rfc3339(text)
    if moment == 0:
        raise InvalidParameter(f'invalid value for time: parsing "{text}": use unix seconds or RFC 3339')
    return moment
