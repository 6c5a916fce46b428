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
        whole, _, fraction = value.partition(".")
        if "-" in value:
            raise ValueError(f'parsing time "{value}": no time, date or duration') from None
        if not whole.isdecimal() or (fraction and not fraction.isdecimal()):
            raise ValueError(f'failed to parse value as time or duration: "{value}"') from None
        return value
    return f"{seconds}.{nanoseconds:09}"


def _parse(text: str, local_offset: int) -> tuple[int, int, int]:
    """Seconds, nanoseconds and zone offset of an RFC 3339 text; may stop after day, hour or minute, and lack a zone."""
    body, offset = _zone(text, local_offset)
    day, has_clock, clock = body.partition("T")
    year, month, date = _numbers(day, "-", (4, 2, 2))
    month_days = 29 if month == 2 and year % 4 == 0 and (year % 100 != 0 or year % 400 == 0) else 0
    if not 1 <= month <= 12 or not 1 <= date <= (month_days or _DAYS[month - 1]):
        raise ValueError("day out of range")
    hour = minute = second = nanoseconds = 0
    if has_clock:
        clock, dot, fraction = clock.partition(".")
        if dot:
            if not _is_number(fraction):
                raise ValueError("no fraction")
            nanoseconds = int(fraction[:9].ljust(9, "0"))
        parts = _numbers(clock, ":", (2,) * (clock.count(":") + 1))
        if len(parts) > 3 or (dot and len(parts) < 3):
            raise ValueError("no time of day")
        hour, minute, second = (*parts, 0, 0)[:3]
        if hour > 23 or minute > 59 or second > 59:
            raise ValueError("time of day out of range")
    seconds = _days(year, month, date) * 86400 + hour * 3600 + minute * 60 + second
    return seconds - offset, nanoseconds, offset


def _zone(text: str, local_offset: int) -> tuple[str, int]:
    if text[-1:] in ("Z", "z"):
        return text[:-1], 0
    sign = text[-6:-5]
    if text[-3:-2] != ":" or sign not in ("+", "-") or len(text) <= len("2006-01-02"):
        return text, local_offset
    if sign == "-" and text.count("-") < 3:  # "2006-01-02T15:04" ends like a zone, yet its sign belongs to the date
        return text, local_offset
    hours, minutes = _numbers(text[-5:], ":", (2, 2))
    return text[:-6], (hours * 3600 + minutes * 60) * (-1 if sign == "-" else 1)


def _numbers(text: str, separator: str, widths: tuple[int, ...]) -> list[int]:
    words = text.split(separator)
    if len(words) != len(widths) or any(
        not _is_number(word) or len(word) != width for word, width in zip(words, widths, strict=True)
    ):
        raise ValueError("wrong number of digits")
    return [int(word) for word in words]


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdecimal()


def _days(year: int, month: int, day: int) -> int:
    """Days since 1970-01-01 in the proleptic Gregorian calendar (years counted from March put the leap day last)."""
    year -= month <= 2
    era = year // 400
    of_era = year - era * 400
    of_year = (153 * (month - 3 if month > 2 else month + 9) + 2) // 5 + day - 1
    return era * 146097 + of_era * 365 + of_era // 4 - of_era // 100 + of_year - 719468
