"""Durations, sizes and points in time in the words of Docker's client (docker/go-units, api/types/time).

For: listings, `logs --since`, `events --until`. May import `time` (built in) and, when a duration must be read,
`cli/values.py`. Must never import `datetime` or `re`: `ps` shows durations and its start-up is measured.
"""

from __future__ import annotations

from time import gmtime, localtime, strftime

_DECIMAL = ("B", "kB", "MB", "GB", "TB", "PB", "EB", "ZB", "YB")
_BINARY = ("B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB", "ZiB", "YiB")
_DAYS = (31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31)
_DAY_NAMES = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_MONTH_NAMES = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")


def human_duration(seconds: float) -> str:
    """About how long: "3 minutes", "About an hour", "2 weeks" (units.HumanDuration)."""
    whole = int(seconds)
    if whole < 1:
        return "Less than a second"
    if whole < 60:
        return "1 second" if whole == 1 else f"{whole} seconds"
    minutes = whole // 60
    if minutes < 60:
        return "About a minute" if minutes == 1 else f"{minutes} minutes"
    # Only the hours are rounded: 59 minutes stay minutes, 89 are an hour, 90 are two.
    hours = int(seconds / 3600 + 0.5)
    if hours < 48:
        return "About an hour" if hours == 1 else f"{hours} hours"
    if hours < 24 * 7 * 2:
        return f"{hours // 24} days"
    if hours < 24 * 30 * 2:
        return f"{hours // 24 // 7} weeks"
    if hours < 24 * 365 * 2:
        return f"{hours // 24 // 30} months"
    return f"{whole // 3600 // 24 // 365} years"


def human_size(size: float, precision: int = 4) -> str:
    """Bytes in powers of 1000 with that many significant digits: "1.234MB" (units.HumanSize; image lists use 3)."""
    return _scaled(size, 1000.0, _DECIMAL, precision)


def bytes_size(size: float) -> str:
    """Bytes in powers of 1024 with 4 significant digits: "1.944GiB" (units.BytesSize)."""
    return _scaled(size, 1024.0, _BINARY, 4)


def _scaled(size: float, base: float, units: tuple[str, ...], precision: int) -> str:
    index = 0
    while size >= base and index < len(units) - 1:
        size /= base
        index += 1
    return f"{size:.{precision}g}{units[index]}"  # `%g` of C, Go and Python agree: 1000 with 3 digits is 1e+03


def go_time(seconds: float) -> str:
    """A Unix time as Go prints a local time: "2024-01-02 03:04:05 +0000 UTC"."""
    return strftime("%Y-%m-%d %H:%M:%S %z %Z", localtime(seconds))


def rfc3339(seconds: float) -> str:
    """A Unix time as "2024-01-02T03:04:05+01:00" in the local zone, "Z" where that is UTC's offset."""
    now = localtime(seconds)
    zone = strftime("%z", now)
    return strftime("%Y-%m-%dT%H:%M:%S", now) + ("Z" if zone == "+0000" else f"{zone[:3]}:{zone[3:]}")


def ansi_time(text: str) -> str:
    """An RFC 3339 time as "Fri May 30 12:07:14 2025", in its own zone; other texts come back unchanged."""
    try:
        seconds, _, offset = _parse(text, 0)
    except ValueError:
        return text
    when = gmtime(seconds + offset)
    day = f"{_DAY_NAMES[when.tm_wday]} {_MONTH_NAMES[when.tm_mon - 1]} {when.tm_mday:2}"
    return f"{day} {when.tm_hour:02}:{when.tm_min:02}:{when.tm_sec:02} {when.tm_year:04}"


def seconds_of(text: str) -> float:
    """The Unix time of an RFC 3339 text of the API ("0001-01-01T00:00:00Z" for "never"). Raises ValueError."""
    seconds, nanoseconds, _ = _parse(text, 0)
    return seconds + nanoseconds / 1e9


def timestamp(value: str, now: float) -> str:
    """`--since` and `--until` as the API takes them: "seconds" or "seconds.nanoseconds" (Docker's GetTimestamp).

    `value`: a duration before `now` ("10m"), RFC 3339 with or without zone (then the local one), a date, or Unix
    seconds. Raises ValueError with the client's sentence.
    """
    from tsunagu.cli.values import parse_duration

    if value != "0":
        try:
            # Whole seconds, rounded down, as Docker sends them.
            return str((int(now * 1_000_000_000) - parse_duration(value)) // 1_000_000_000)
        except ValueError:
            pass
    try:
        seconds, nanoseconds, _ = _parse(value, localtime(now).tm_gmtoff)
    except ValueError:
        if "-" in value:
            raise
        whole, dot, fraction = value.partition(".")
        if not _is_number(whole.lstrip("+")) or (dot and not _is_number(fraction)):
            raise ValueError(f"failed to parse value as time or duration: {_quote(value)}") from None
        return value
    return f"{seconds}.{nanoseconds:09}"


def _quote(text: str) -> str:
    from tsunagu.wire.goquote import quote

    return quote(text)


def _layout(text: str) -> list[str]:
    """The elements that Docker expects of a text: it looks at its punctuation before it reads it."""
    has_zone = any(mark in text for mark in "zZ+") or text.count("-") == 3
    elements = ["2006", "-", "01", "-", "02"]
    if "." in text:
        elements += ["T", "15", ":", "04", ":", "05", ".999999999"]
    elif "T" in text:
        colons = text.count(":")
        if has_zone and "z" not in text and "Z" not in text and colons:
            colons -= 1  # the zone's own
        elements += ["T", "15", ":", "04", ":", "05"][: 2 + 2 * min(colons, 2)]
    return [*elements, "Z07:00"] if has_zone else elements


def _parse(text: str, local_offset: int) -> tuple[int, int, int]:
    """Seconds, nanoseconds and zone offset (seconds east) of a time in one of Docker's layouts.

    Reads as Go's time.Parse does. Raises ValueError with Go's sentence.
    """
    elements = _layout(text)
    numbers = {"2006": 1, "01": 1, "02": 1, "15": 0, "04": 0, "05": 0}
    limits = {"01": ("month", 1, 12), "15": ("hour", 0, 23), "04": ("minute", 0, 59), "05": ("second", 0, 59)}
    rest, nanoseconds, offset = text, 0, local_offset
    for element in elements:
        if element == "Z07:00":
            size = 1 if rest.startswith("Z") else 6
            zone = rest[:size]
            is_offset = zone[:1] in ("+", "-") and _is_number(zone[1:3] + zone[4:]) and zone[3:4] == ":"
            if zone != "Z" and not (is_offset and len(zone) == size):
                raise _misread(text, elements, rest, element)
            offset = 0 if zone == "Z" else (int(zone[1:3]) * 3600 + int(zone[4:]) * 60) * (-1 if zone[0] == "-" else 1)
        elif element == ".999999999":
            size = _fraction(rest)
            nanoseconds = int(rest[1 : min(size, 10)].ljust(9, "0")) if size else 0
        elif element in numbers:
            size = 1 if element == "15" and not _is_number(rest[1:2]) else len(element)
            if not _is_number(rest[:size]) or len(rest) < size:
                raise _misread(text, elements, rest, element)
            numbers[element] = int(rest[:size])
            name, least, most = limits.get(element, ("", 0, 9999))
            if not least <= numbers[element] <= most:
                raise ValueError(f"parsing time {_quote(text)}: {name} out of range")
            if element == "05" and ".999999999" not in elements and (more := _fraction(rest[size:])):
                # A fraction may follow the seconds even where the layout has none.
                nanoseconds = int(rest[size + 1 : size + min(more, 10)].ljust(9, "0"))
                size += more
        else:
            size = len(element)
            if not rest.startswith(element):
                raise _misread(text, elements, rest, element)
        rest = rest[size:]
    if rest:
        raise ValueError(f"parsing time {_quote(text)}: extra text: {_quote(rest)}")
    year, month, day = numbers["2006"], numbers["01"], numbers["02"]
    is_leap = year % 4 == 0 and (year % 100 != 0 or year % 400 == 0)
    if not 1 <= day <= (29 if month == 2 and is_leap else _DAYS[month - 1]):
        raise ValueError(f"parsing time {_quote(text)}: day out of range")
    seconds = _days(year, month, day) * 86400 + numbers["15"] * 3600 + numbers["04"] * 60 + numbers["05"]
    return seconds - offset, nanoseconds, offset


def _misread(text: str, elements: list[str], rest: str, element: str) -> ValueError:
    layout = "".join(elements)
    return ValueError(
        f"parsing time {_quote(text)} as {_quote(layout)}: cannot parse {_quote(rest)} as {_quote(element)}"
    )


def _fraction(text: str) -> int:
    """Length of a fraction of a second at the start of `text`, its point or comma included; 0 when there is none."""
    size = 1
    while _is_number(text[size : size + 1]):
        size += 1
    return size if size > 1 and text[0] in ".," else 0


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdecimal()


def _days(year: int, month: int, day: int) -> int:
    """Days since 1970-01-01 in the proleptic Gregorian calendar (years counted from March put the leap day last)."""
    year -= month <= 2
    era = year // 400
    of_era = year - era * 400
    of_year = (153 * (month - 3 if month > 2 else month + 9) + 2) // 5 + day - 1
    return era * 146097 + of_era * 365 + of_era // 4 - of_era // 100 + of_year - 719468
