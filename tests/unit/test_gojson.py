"""wire.gojson: floats as Go's encoding/json writes them: 'f' between 1e-6 and 1e21, else 'e'; shortest digits."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tsunagu.wire.gojson import encode


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (1.0, "1"),
        (0.5, "0.5"),
        (9.99e-05, "0.0000999"),
        (6.946829908957413e-06, "0.000006946829908957413"),
        (-1.5e-05, "-0.000015"),
        (1e-7, "1e-7"),
        (1e16, "10000000000000000"),
        (1.2345678901234567e18, "1234567890123456800"),
        (-2.5e20, "-250000000000000000000"),
        (1e21, "1e+21"),
        (1.5e300, "1.5e+300"),
    ],
)
def test_floats(value: float, text: str) -> None:
    assert encode(value) == text


@given(st.floats(allow_nan=False, allow_infinity=False))
@settings(deadline=None)
def test_floats_read_back(value: float) -> None:
    assert float(encode(value)) == value
