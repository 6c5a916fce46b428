"""DNS replies as text: what records say, names that are no text, and bytes that are no reply."""

from __future__ import annotations

import struct
from ipaddress import IPv6Address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tsunagu.wire import dns, dnstext
from tsunagu.wire.dnstext import Record

QUESTION = dns.question(dns.encode_name("web.example") or b"", dns.A)


def reply(*answers: tuple[int, bytes]) -> bytes:
    """A reply to QUESTION; every answer's owner is the question's name."""
    out = b"\0\1" + struct.pack("!5H", 0x8180, 1, len(answers), 0, 0) + QUESTION
    for kind, data in answers:
        out += b"\xc0\x0c" + struct.pack("!HHIH", kind, 1, 60, len(data)) + data
    return out


@pytest.mark.parametrize(
    ("kind", "data", "name", "text"),
    [
        (1, bytes([10, 0, 0, 2]), "A", "10.0.0.2"),
        (28, IPv6Address("fd00::2").packed, "AAAA", "fd00::2"),
        (5, b"\x03www\xc0\x0c", "CNAME", "www.web.example"),
        (15, b"\0\x0a\x04mail\xc0\x10", "MX", "10 mail.example"),
        (33, b"\0\1\0\2\0\x50\xc0\x0c", "SRV", "1 2 80 web.example"),
        (16, b'\x05a "\\b\x01\x07', "TXT", '"a \\"\\\\b" "\\007"'),
        (65, b"\0\1", "HTTPS", "\\# 2 0001"),
        (999, b"", "TYPE999", "\\# 0"),
    ],
)
def test_what_records_say(kind: int, data: bytes, name: str, text: str) -> None:
    assert dnstext.records(reply((kind, data))) == [Record(name, 60, text)]


def test_a_pointer_that_leads_forward_or_to_itself_is_refused() -> None:
    message = reply((5, b""))
    at = len(message)
    for target in (at, at + 2, 0x3FFF):
        with pytest.raises(dns.Malformed):
            dnstext.records(reply((5, (0xC000 | target).to_bytes(2, "big"))))


@given(st.binary(max_size=300))
def test_any_bytes_are_records_or_malformed(data: bytes) -> None:
    for message in (data, reply((5, data[:250])), reply((16, data))):
        try:
            found = dnstext.records(message)
        except dns.Malformed:
            continue
        assert all(text.isprintable() and text.isascii() for _, _, text in found)


@given(st.lists(st.binary(min_size=1, max_size=20), max_size=5))
def test_a_name_of_any_bytes_is_plain_text(labels: list[bytes]) -> None:
    text = dnstext.name_text(b"".join(bytes([len(label)]) + label for label in labels) + b"\0")
    assert text.isascii() and text.isprintable() and " " not in text


@given(st.binary(min_size=16, max_size=16))
def test_ipv6_as_everybody_writes_it(raw: bytes) -> None:
    assert dnstext.records(reply((28, raw)))[0].text == str(IPv6Address(raw))


@pytest.mark.parametrize("groups", [[0] * 8, [0, 0, 1, 0, 0, 0, 1, 0], [1, 0, 2, 0, 3, 0, 4, 0], [1] + [0] * 7])
def test_ipv6_with_zeros(groups: list[int]) -> None:
    raw = struct.pack("!8H", *groups)
    assert dnstext.records(reply((28, raw)))[0].text == str(IPv6Address(raw))


@pytest.mark.parametrize(
    ("name", "number"),
    [
        ("a", 1),
        ("AAAA", 28),
        ("any", 255),
        ("TYPE65", 65),
        ("type0", None),
        ("TYPE65536", None),
        ("B", None),
        ("", None),
    ],
)
def test_types(name: str, number: int | None) -> None:
    assert dnstext.type_number(name) == number
