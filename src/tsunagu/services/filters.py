"""Filters that several services share: labels and `until`, as `docker … prune --filter` sends them."""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping, Sequence
from datetime import UTC, datetime

from tsunagu.model.errors import InvalidParameter

_UNITS = {"h": 3600.0, "m": 60.0, "s": 1.0}


def check_filters(filters: Mapping[str, Sequence[str]], known: Collection[str]) -> None:
    """Raise InvalidParameter, in Docker's words, for a filter that does not exist."""
    for key in filters:
        if key not in known:
            raise InvalidParameter(f"invalid filter '{key}'", hint=f"filters here: {', '.join(sorted(known))}")


def matches_labels(labels: Mapping[str, str], filters: Mapping[str, Sequence[str]]) -> bool:
    """Tell whether `label` filters all hold and no `label!` filter does (`key` or `key=value`)."""

    def holds(wanted: str) -> bool:
        key, equals, value = wanted.partition("=")
        return key in labels and (not equals or labels[key] == value)

    return all(map(holds, filters.get("label", ()))) and not any(map(holds, filters.get("label!", ())))


def parse_until(values: Sequence[str]) -> int | None:
    """Return the moment (nanoseconds, UTC) of an `until` filter: unix seconds, RFC 3339, or a Go duration ago."""
    if not values:
        return None
    if len(values) > 1:
        raise InvalidParameter("more than one until filter specified")
    text = values[0]
    if not text.isascii() or len(text) > 64:  # a number too long for a time is none
        raise InvalidParameter(f"invalid until filter value {text[:64]!r}")
    if text.replace(".", "", 1).isdigit():
        return int(float(text) * 1e9)
    if (ago := _duration(text)) is not None:
        return time.time_ns() - int(ago * 1e9)
    try:
        moment = datetime.fromisoformat(text)
    except ValueError as error:
        raise InvalidParameter(f"invalid until filter value {text!r}") from error
    return int((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp() * 1e9)


def _duration(text: str) -> float | None:
    """Parse the hours, minutes and seconds of a Go duration; None when it is none."""
    total, number = 0.0, ""
    for character in text:
        if character.isdigit() or character == ".":
            number += character
        elif character in _UNITS and number.replace(".", "", 1).isdigit():
            total += float(number) * _UNITS[character]
            number = ""
        else:
            return None
    return None if number or not text else total
