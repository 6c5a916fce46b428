"""cli.units: Docker's words for durations, sizes and points in time."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tsunagu.cli import units

MINUTE, HOUR, DAY = 60, 3600, 86400
NOW = 1_700_000_000.25


@pytest.fixture
def in_berlin(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A local zone that is not UTC, as TZ text so that no zone files are needed."""
    monkeypatch.setenv("TZ", "CET-1CEST,M3.5.0,M10.5.0/3")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


@pytest.fixture
def in_utc(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (-5, "Less than a second"),
        (0.99, "Less than a second"),
        (1, "1 second"),
        (59.9, "59 seconds"),
        (MINUTE, "About a minute"),
        (2 * MINUTE - 1, "About a minute"),
        (2 * MINUTE, "2 minutes"),
        (HOUR - 1, "59 minutes"),
        (HOUR, "About an hour"),
        (89 * MINUTE, "About an hour"),
        (90 * MINUTE, "2 hours"),
        (46 * HOUR, "46 hours"),
        (47.4 * HOUR, "47 hours"),
        (47.6 * HOUR, "2 days"),
        (13.9 * DAY, "13 days"),
        (14 * DAY, "2 weeks"),
        (59 * DAY, "8 weeks"),
        (60 * DAY, "2 months"),
        (729 * DAY, "24 months"),
        (730 * DAY, "2 years"),
        (1095 * DAY, "3 years"),
    ],
)
def test_human_duration(seconds: float, words: str) -> None:
    assert units.human_duration(seconds) == words


@pytest.mark.parametrize(
    ("size", "precision", "words"),
    [
        (0, 4, "0B"),
        (999, 4, "999B"),
        (1000, 4, "1kB"),
        (1024, 4, "1.024kB"),
        (1_234_567, 3, "1.23MB"),
        (999_950, 3, "1e+03kB"),
        (123_456_789, 4, "123.5MB"),
        (2.5e15, 4, "2.5PB"),
        (1e27, 4, "1000YB"),
    ],
)
def test_human_size(size: float, precision: int, words: str) -> None:
    assert units.human_size(size, precision) == words


@pytest.mark.parametrize(
    ("size", "words"),
    [(0, "0B"), (1023, "1023B"), (1024, "1KiB"), (64 << 20, "64MiB"), (2_087_354_368, "1.944GiB"), (1 << 62, "4EiB")],
)
def test_bytes_size(size: float, words: str) -> None:
    assert units.bytes_size(size) == words


def test_times_of_utc(in_utc: None) -> None:
    assert units.go_time(1_704_164_645) == "2024-01-02 03:04:05 +0000 UTC"
    assert units.rfc3339(1_704_164_645) == "2024-01-02T03:04:05Z"


def test_times_of_another_zone(in_berlin: None) -> None:
    assert units.go_time(1_704_164_645) == "2024-01-02 04:04:05 +0100 CET"
    assert units.rfc3339(1_720_000_000) == "2024-07-03T11:46:40+02:00"


def test_ansi_time_keeps_the_texts_zone(in_berlin: None) -> None:
    assert units.ansi_time("2025-05-30T12:07:14.000000000+00:00") == "Fri May 30 12:07:14 2025"
    assert units.ansi_time("2025-05-03T12:07:14-08:00") == "Sat May  3 12:07:14 2025"
    assert units.ansi_time("not a time") == "not a time"


@pytest.mark.parametrize(
    ("value", "sent"),
    [
        ("10m", "1699999400"),
        ("1h30m", "1699994600"),
        ("-5s", "1700000005"),
        ("1.5h", "1699994600"),
        ("0", "0"),
        ("1700000000", "1700000000"),
        ("1700000000.5", "1700000000.5"),
        ("2024-01-02", "1704150000.000000000"),
        ("2024-01-02Z", "1704153600.000000000"),
        ("2024-01-02T03", "1704160800.000000000"),
        ("2024-01-02T03:04", "1704161040.000000000"),
        ("2024-01-02T03:04:05", "1704161045.000000000"),
        ("2024-01-02T03:04:05Z", "1704164645.000000000"),
        ("2024-01-02T03:04:05.5Z", "1704164645.500000000"),
        ("2024-01-02T03:04:05.123456789", "1704161045.123456789"),
        ("2024-01-02T03:04:05+09:00", "1704132245.000000000"),
        ("2024-01-02T03:04:05-08:00", "1704193445.000000000"),
        ("2024-01-02T03:04-08:00", "1704193440.000000000"),
        ("2024-01-02T3:04:05Z", "1704164645.000000000"),
        ("2024-01-02T03:04:05,25Z", "1704164645.250000000"),
        ("+5", "+5"),
    ],
)
def test_timestamp(in_berlin: None, value: str, sent: str) -> None:
    assert units.timestamp(value, NOW) == sent


@pytest.mark.parametrize(
    ("value", "sentence"),
    [
        ("x", 'failed to parse value as time or duration: "x"'),
        ("", 'failed to parse value as time or duration: ""'),
        ("1.2.3", 'failed to parse value as time or duration: "1.2.3"'),
        ("1700000000.", 'failed to parse value as time or duration: "1700000000."'),
        ("٣", 'failed to parse value as time or duration: "٣"'),
        ("2024-13-01", 'parsing time "2024-13-01": month out of range'),
        ("2024-02-30", 'parsing time "2024-02-30": day out of range'),
        ("2024-01-02T25", 'parsing time "2024-01-02T25": hour out of range'),
        ("2024-01-02T03:04:60Z", 'parsing time "2024-01-02T03:04:60Z": second out of range'),
        ("2024-1-2", 'parsing time "2024-1-2" as "2006-01-02": cannot parse "1-2" as "01"'),
        ("1700-", 'parsing time "1700-" as "2006-01-02": cannot parse "" as "01"'),
        ("-5", 'parsing time "-5" as "2006-01-02": cannot parse "-5" as "2006"'),
        ("2024-01-02 03:04:05", 'parsing time "2024-01-02 03:04:05": extra text: " 03:04:05"'),
        (
            "2024-01-02T03:04:05.Z",
            'parsing time "2024-01-02T03:04:05.Z" as "2006-01-02T15:04:05.999999999Z07:00": '
            'cannot parse ".Z" as "Z07:00"',
        ),
        (
            "2024-01-02t03:04:05z",
            'parsing time "2024-01-02t03:04:05z" as "2006-01-02Z07:00": cannot parse "t03:04:05z" as "Z07:00"',
        ),
    ],
)
def test_what_is_no_time(value: str, sentence: str) -> None:
    with pytest.raises(ValueError, match="time") as caught:
        units.timestamp(value, NOW)
    assert str(caught.value) == sentence


@given(st.datetimes(min_value=datetime(1, 1, 2), max_value=datetime(9999, 12, 30)), st.integers(-14 * 60, 14 * 60))
def test_seconds_of_is_the_calendars(moment: datetime, offset: int) -> None:
    aware = moment.replace(tzinfo=timezone(timedelta(minutes=offset)), microsecond=0)
    seconds = (aware - datetime(1970, 1, 1, tzinfo=UTC)).total_seconds()
    assert units.seconds_of(aware.isoformat()) == seconds


@given(st.text(max_size=30))
def test_no_text_breaks_it(text: str) -> None:
    try:
        units.timestamp(text, NOW)
    except ValueError as error:
        assert "time" in str(error)
    assert isinstance(units.ansi_time(text), str)


def test_importing_it_is_cheap() -> None:
    source = Path(units.__file__).parents[2]
    code = f"import sys; sys.path.insert(0, {str(source)!r}); before = set(sys.modules); import tsunagu.cli.units\n"
    code += "print(*sorted(name for name in set(sys.modules) - before if not name.startswith('tsunagu')))"
    loaded = subprocess.run([sys.executable, "-S", "-E", "-c", code], capture_output=True, text=True, check=True).stdout
    assert loaded.split() == ["__future__"]
