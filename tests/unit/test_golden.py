"""The comparison that all end-to-end tests rest on: it must see every difference that is not a named place."""

from __future__ import annotations

import pytest

from tsunagu.testing import golden


@pytest.mark.parametrize(
    ("pattern", "text", "is_match"),
    [
        ("<id>", "a" * 64, True),
        ("<id>", "a" * 63, False),
        ("<id>", "g" * 64, False),
        ("<id12>", "0d8b82e91138", True),
        ("Name:\t<name>\nAddress: <ip>", "Name:\tweb\nAddress: 10.1.2.3", True),
        ("Name:\t<name>", "Name:\tother", False),
        ("a.c", "abc", False),
        ("one\ntwo", "one", False),
        ("one", "one\ntwo", False),
        ("one", "one ", False),
        ("one<space>", "one ", True),
        ("\none\n", "one", True),
        ("time=<ms> ms", "time=0.095 ms", True),
        ("time=<ms> ms", "time=1 ms", False),
        ("<LOOPBACK,UP>", "<LOOPBACK,UP>", True),
        ("<unknown>", "<unknown>", True),
        ('"<time>"', '"2026-11-23T19:53:25.57743642Z"', True),
    ],
)
def test_matches(pattern: str, text: str, is_match: bool) -> None:
    assert golden.matches(pattern, text, name="web") is is_match


def test_difference_is_shown_by_line() -> None:
    with pytest.raises(AssertionError) as caught:
        golden.check("id <n>\nright", "id 7\nwrong")
    message = str(caught.value)
    assert " id 7" in message
    assert "-right" in message
    assert "+wrong" in message


def test_one_of_several() -> None:
    golden.check_one_of(("a", "b"), "b")
    with pytest.raises(AssertionError):
        golden.check_one_of(("a", "b"), "c")
