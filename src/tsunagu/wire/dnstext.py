"""DNS replies as a person reads them: names, record types, response codes, what records say. Pure.

For those who look at traffic, not for those who serve it: nothing here is on the way of a query. It must never raise
anything but `Malformed` on bytes from outside; every text it gives is printable.
"""

from __future__ import annotations

from typing import NamedTuple

from . import dns
from .dns import Malformed

TYPES = {
    "A": 1, "NS": 2, "CNAME": 5, "SOA": 6, "PTR": 12, "HINFO": 13, "MX": 15, "TXT": 16, "AAAA": 28, "SRV": 33,
    "NAPTR": 35, "DS": 43, "RRSIG": 46, "NSEC": 47, "DNSKEY": 48, "TLSA": 52, "SVCB": 64, "HTTPS": 65, "ANY": 255,
    "CAA": 257,
}  # fmt: skip
RCODES = ("NOERROR", "FORMERR", "SERVFAIL", "NXDOMAIN", "NOTIMP", "REFUSED")
_NAMES = {number: name for name, number in TYPES.items()}
_POINTS = 128  # compression pointers that are followed in one name


class Record(NamedTuple):
    """One answer record. `text` is its data as zone files write it."""

    kind: str
    ttl: int
    text: str


def type_name(number: int) -> str:
    """Return "A", "AAAA", …; a number without a name is TYPE257 (RFC 3597)."""
    return _NAMES.get(number, f"TYPE{number}")


def type_number(name: str) -> int | None:
    """Return the number of a record type by its name in any case or as TYPE257; None for no type."""
    upper = name.upper()
    if upper in TYPES:
        return TYPES[upper]
    digits = upper.removeprefix("TYPE")
    if digits != upper and digits.isascii() and digits.isdigit() and 0 < int(digits) < 65536:
        return int(digits)
    return None


def rcode_name(rcode: int) -> str:
    """Return "NOERROR", "NXDOMAIN", …"""
    return RCODES[rcode] if rcode < len(RCODES) else f"RCODE{rcode}"


def name_text(wire: bytes) -> str:
    """Return the dotted text of an uncompressed wire name; what is no plain character is \\DDD (RFC 4343 2.1)."""
    labels, at = [], 0
    while at < len(wire) and wire[at]:
        labels.append(_escaped(wire[at + 1 : at + 1 + wire[at]], b".\\"))
        at += 1 + wire[at]
    return ".".join(labels) or "."


def records(data: bytes) -> list[Record]:
    """Return the answer records of a reply to one question; raises Malformed."""
    found = []
    at = dns.HEADER
    if len(data) < at:
        raise Malformed("too short")
    if data[4:6] != b"\0\0":
        at = _name(data, at)[1] + 4
    for _ in range(int.from_bytes(data[6:8], "big")):
        at = _name(data, at)[1]
        end = at + 10 + int.from_bytes(data[at + 8 : at + 10], "big")
        if end > len(data) or at + 10 > len(data):
            raise Malformed("record cut short")
        kind = int.from_bytes(data[at : at + 2], "big")
        ttl = int.from_bytes(data[at + 4 : at + 8], "big")
        found.append(Record(type_name(kind), ttl, _data(data, kind, at + 10, end)))
        at = end
    return found


def _data(data: bytes, kind: int, at: int, end: int) -> str:
    raw = data[at:end]
    name = _NAMES.get(kind, "")
    if name == "A" and len(raw) == 4:
        return ".".join(map(str, raw))
    if name == "AAAA" and len(raw) == 16:
        return _ipv6(raw)
    if name in ("CNAME", "NS", "PTR"):
        return _name(data, at)[0]
    if name == "MX" and len(raw) > 2:
        return f"{int.from_bytes(raw[:2], 'big')} {_name(data, at + 2)[0]}"
    if name == "SRV" and len(raw) > 6:
        numbers = [str(int.from_bytes(raw[i : i + 2], "big")) for i in (0, 2, 4)]
        return " ".join([*numbers, _name(data, at + 6)[0]])
    if name == "TXT":
        pieces, start = [], 0
        while start < len(raw):
            pieces.append('"' + _escaped(raw[start + 1 : start + 1 + raw[start]], b'"\\', is_quoted=True) + '"')
            start += 1 + raw[start]
        return " ".join(pieces)
    if name == "SOA":
        server, after = _name(data, at)
        return f"{server} {_name(data, after)[0]}"
    return f"\\# {len(raw)} {raw.hex()}".rstrip()  # RFC 3597 5


def _ipv6(raw: bytes) -> str:
    """RFC 5952, by hand: the resolver, which cannot import once it serves, starts without `ipaddress`."""
    groups = [f"{raw[i] << 8 | raw[i + 1]:x}" for i in range(0, 16, 2)]
    best, start, longest = -1, -1, 1
    for i, group in enumerate([*groups, ""]):
        if group == "0":
            start = i if start < 0 else start
        elif start >= 0:
            if i - start > longest:
                best, longest = start, i - start
            start = -1
    if best < 0:
        return ":".join(groups)
    return f"{':'.join(groups[:best])}::{':'.join(groups[best + longest :])}"


def _name(data: bytes, at: int) -> tuple[str, int]:
    """Return a name that may be compressed, and the offset after it. Pointers must lead backwards, as all that are
    made by honest servers do: so no loop is possible."""
    wire, after, floor = bytearray(), -1, at
    for _ in range(_POINTS):
        while True:
            if at >= len(data):
                raise Malformed("name cut short")
            length = data[at]
            if length >= 0xC0:
                break
            if length > 63 or len(wire) + length > 254 or at + 1 + length > len(data):
                raise Malformed("bad name")
            wire += data[at : at + 1 + length]
            at += 1 + length
            if not length:
                return name_text(bytes(wire)), at if after < 0 else after
        if at + 2 > len(data):
            raise Malformed("name cut short")
        target = int.from_bytes(data[at : at + 2], "big") & 0x3FFF
        after = at + 2 if after < 0 else after
        if target >= floor:
            raise Malformed("a pointer that does not lead backwards")
        at = floor = target
    raise Malformed("too many pointers")


def _escaped(raw: bytes, special: bytes, *, is_quoted: bool = False) -> str:
    lowest = 0x20 if is_quoted else 0x21
    return "".join(
        f"\\{byte:03d}" if not lowest <= byte < 0x7F else f"\\{byte:c}" if byte in special else chr(byte)
        for byte in raw
    )
