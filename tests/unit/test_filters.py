"""Labels and `until`, as prune sends them."""

from __future__ import annotations

import time

import pytest

from tsunagu.model.errors import InvalidParameter
from tsunagu.services.filters import check_filters, matches_labels, parse_until


def test_unknown_filters_are_named() -> None:
    with pytest.raises(InvalidParameter, match="invalid filter 'colour'"):
        check_filters({"colour": ["red"]}, {"label"})


@pytest.mark.parametrize(
    ("filters", "expected"),
    [
        ({}, True),
        ({"label": ["a"]}, True),
        ({"label": ["a=1"]}, True),
        ({"label": ["a=2"]}, False),
        ({"label": ["b"]}, False),
        ({"label!": ["b"]}, True),
        ({"label!": ["a=1"]}, False),
        ({"label": ["a"], "label!": ["a=2"]}, True),
    ],
)
def test_labels(filters: dict[str, list[str]], expected: bool) -> None:
    assert matches_labels({"a": "1"}, filters) is expected


def test_until_takes_seconds_dates_and_durations() -> None:
    assert parse_until([]) is None
    assert parse_until(["1700000000"]) == 1_700_000_000_000_000_000
    assert parse_until(["2023-11-14T22:13:20Z"]) == 1_700_000_000_000_000_000
    ago = parse_until(["1h30m"])
    assert ago is not None and abs(time.time_ns() - 5400_000_000_000 - ago) < 5_000_000_000


@pytest.mark.parametrize("text", ["soon", "5x", "", "-1h"])
def test_until_refuses_the_rest(text: str) -> None:
    with pytest.raises(InvalidParameter):
        parse_until([text])
