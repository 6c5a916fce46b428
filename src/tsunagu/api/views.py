"""Forms shared by all views: times, durations, sorted maps. Pure; Docker's JSON as Go writes it."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, TypeVar

V = TypeVar("V")
Json = dict[str, Any]

ZERO_TIME = "0001-01-01T00:00:00Z"
SECOND = 1_000_000_000


def rfc3339(nanoseconds: int, *, is_fixed: bool = False) -> str:
    """Return a time as Go's RFC3339Nano does: trailing zeros dropped unless `is_fixed`; 0 means never."""
    if nanoseconds == 0:
        return ZERO_TIME
    seconds, rest = divmod(nanoseconds, SECOND)
    text = datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S")
    fraction = f"{rest:09d}"
    if not is_fixed:
        fraction = fraction.rstrip("0")
    return f"{text}.{fraction}Z" if fraction else f"{text}Z"


def parse_rfc3339(text: str) -> int:
    """Return nanoseconds since the epoch of an RFC 3339 time as images carry it; 0 when it is none."""
    head, dot, tail = text.partition(".")
    zone = "Z"
    fraction = 0
    if dot:
        digits = tail[: len(tail) - len(tail.lstrip("0123456789"))]
        fraction, zone = int((digits + "000000000")[:9]), tail[len(digits) :]
        head += zone
    try:
        moment = datetime.fromisoformat(head)
    except ValueError:
        return 0
    if moment.year == 1:
        return 0
    return int(moment.replace(tzinfo=moment.tzinfo or UTC).timestamp()) * SECOND + fraction


def human_duration(nanoseconds: int) -> str:
    """Return a length of time in Docker's words (`About a minute`, `3 hours`)."""
    seconds = max(nanoseconds, 0) // SECOND
    if seconds < 60:
        return "Less than a second" if seconds < 1 else "1 second" if seconds == 1 else f"{seconds} seconds"
    minutes = seconds // 60
    if minutes < 60:
        return "About a minute" if minutes == 1 else f"{minutes} minutes"
    hours = (seconds + 1800) // 3600
    for limit, hours_each, unit in ((48, 1, "hours"), (336, 24, "days"), (1440, 168, "weeks"), (17520, 720, "months")):
        if hours < limit:
            return "About an hour" if hours == 1 else f"{hours // hours_each} {unit}"
    return f"{hours // 8760} years"


def by_key(mapping: Mapping[str, V]) -> dict[str, V]:
    """Return a map in the order in which Go writes it."""
    return {key: mapping[key] for key in sorted(mapping)}
