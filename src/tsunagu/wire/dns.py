"""DNS messages as bytes: names, questions, records, replies (RFC 1035, 3596, 6891). Pure.

Used by the resolver process, so it imports next to nothing: the process must start in a few milliseconds. No object
is made per record; answers are encoded once, when a table changes, and glued to the question as it was asked. It
must never raise anything but `Malformed` on bytes from outside.
"""

from __future__ import annotations

from collections.abc import Sequence

A, NS, SOA, PTR, AAAA, OPT, ANY = 1, 2, 6, 12, 28, 41, 255
IN = 1
NOERROR, FORMERR, SERVFAIL, NXDOMAIN, NOTIMP, REFUSED = 0, 1, 2, 3, 4, 5
QR, AA, TC, RD, RA, AD, CD = 0x8000, 0x0400, 0x0200, 0x0100, 0x0080, 0x0020, 0x0010

HEADER = 12
UDP_LIMIT = 512  # RFC 1035 4.2.1, without EDNS
EDNS_LIMIT = 1232  # what we advertise, and the most we send over UDP: fits an IPv6 packet that is never fragmented
TCP_LIMIT = 65535

# The owner of every answer record is the question's name, which always stands at offset 12 (RFC 1035 4.1.4).
_OWNER = b"\xc0\x0c"
OPT_REPLY = b"\0\0\x29" + EDNS_LIMIT.to_bytes(2, "big") + b"\0\0\0\0\0\0"
_OPT_BAD_VERSION = b"\0\0\x29" + EDNS_LIMIT.to_bytes(2, "big") + b"\x01\0\0\0\0\0"


class Malformed(ValueError):
    """The bytes are no DNS message that can be answered; `rcode` is set when a reply can still be made."""

    def __init__(self, text: str, rcode: int | None = None) -> None:
        super().__init__(text)
        self.rcode = rcode


# ---- names


def encode_name(name: str) -> bytes | None:
    """Return the lower-cased wire form of a dotted name, or None when it can have none.

    Refused: empty labels, labels over 63 bytes, names over 255 (RFC 1035 3.1), white space and control characters. A
    name that cannot be encoded is skipped by every caller, never an error (needs.md: a space once crashed a server).
    """
    try:
        raw = name.encode().lower()
    except UnicodeEncodeError:
        return None
    wire = bytearray()
    for label in raw.split(b"."):
        if not 1 <= len(label) <= 63 or min(label) <= 0x20 or 0x7F in label:
            return None
        wire.append(len(label))
        wire += label
    wire.append(0)
    return bytes(wire) if len(wire) <= 255 else None


def decode_name(wire: bytes) -> str:
    """Return the dotted text of an uncompressed wire name; bytes that are no text are replaced."""
    labels, at = [], 0
    while at < len(wire) and wire[at]:
        labels.append(wire[at + 1 : at + 1 + wire[at]].decode(errors="replace"))
        at += 1 + wire[at]
    return ".".join(labels)


def reverse_name(address: bytes) -> bytes:
    """Return the wire name under in-addr.arpa or ip6.arpa of a packed address (RFC 1035 3.5, RFC 3596 2.5)."""
    if len(address) == 4:
        text = ".".join(str(byte) for byte in reversed(address)) + ".in-addr.arpa"
    else:
        text = ".".join(f"{byte & 15:x}.{byte >> 4:x}" for byte in reversed(address)) + ".ip6.arpa"
    wire = encode_name(text)
    assert wire is not None
    return wire


def parse_reverse_name(name: bytes) -> bytes | None:
    """Return the packed address that a lower-cased wire name under in-addr.arpa or ip6.arpa stands for, or None."""
    labels = decode_name(name).split(".")
    try:
        if labels[4:] == ["in-addr", "arpa"]:
            if all(label.isascii() and label.isdigit() for label in labels[:4]):
                return bytes(int(label) for label in reversed(labels[:4]))
        elif labels[32:] == ["ip6", "arpa"] and all(len(label) == 1 for label in labels[:32]):
            return bytes.fromhex("".join(reversed(labels[:32])))
    except ValueError:
        return None
    return None


def question(name: bytes, qtype: int) -> bytes:
    """Return the question section that asks for `name` (wire form) in class IN: the key of every answer table."""
    return name + qtype.to_bytes(2, "big") + b"\0\1"


# ---- records whose owner is the question


def address_record(address: bytes, ttl: int) -> bytes:
    """Return an A or AAAA record, by the length of the packed address; `ttl` in seconds."""
    kind = A if len(address) == 4 else AAAA
    return b"%b%b\0\1%b%b%b" % (
        _OWNER,
        kind.to_bytes(2, "big"),
        ttl.to_bytes(4, "big"),
        len(address).to_bytes(2, "big"),
        address,
    )


def pointer_record(target: bytes, ttl: int) -> bytes:
    """Return a PTR record to `target` (wire form)."""
    return b"%b\0\x0c\0\1%b%b%b" % (_OWNER, ttl.to_bytes(4, "big"), len(target).to_bytes(2, "big"), target)


def reply_head(flags: int, answers: int, additional: int = 0) -> bytes:
    """Return bytes 2 to 12 of a reply with one question: flags (QR is added) and the four counts."""
    return b"%b\0\1%b\0\0%b" % (
        (QR | flags).to_bytes(2, "big"),
        answers.to_bytes(2, "big"),
        additional.to_bytes(2, "big"),
    )


# ---- queries


class Query:
    """One parsed question. `name` and `key` are lower-cased; `asked` is the question section as it was sent.

    `udp_size` is what the client can take over UDP: 512, or the size its OPT record advertises.
    """

    __slots__ = ("asked", "edns_version", "flags", "has_edns", "id", "key", "name", "qclass", "qtype", "udp_size")

    def __init__(self, data: bytes) -> None:
        """Parse `data`; raises Malformed, whose `rcode` is None when it must be dropped without a reply."""
        if len(data) < HEADER + 5 or data[2] & 0x80:
            raise Malformed("too short, or a reply")
        self.id = data[:2]
        self.flags = int.from_bytes(data[2:4], "big")
        if self.flags & 0x7800:
            raise Malformed("opcode is not QUERY", NOTIMP)
        if data[4:10] != b"\0\1\0\0\0\0":
            raise Malformed("not exactly one question", FORMERR)
        end = _skip_labels(data, HEADER)
        if end - HEADER > 255 or end + 4 > len(data):
            raise Malformed("name or question too long", FORMERR)
        self.name = data[HEADER:end].lower()
        self.qtype = int.from_bytes(data[end : end + 2], "big")
        self.qclass = int.from_bytes(data[end + 2 : end + 4], "big")
        self.asked = data[HEADER : end + 4]
        self.key = self.name + data[end : end + 4]
        self.has_edns, self.edns_version, self.udp_size = False, 0, UDP_LIMIT
        at = end + 4
        for _ in range(int.from_bytes(data[10:12], "big")):
            at = _skip_name(data, at)
            if at + 10 > len(data):
                raise Malformed("record cut short", FORMERR)
            length = int.from_bytes(data[at + 8 : at + 10], "big")
            if int.from_bytes(data[at : at + 2], "big") == OPT:
                if self.has_edns or data[at - 1]:
                    raise Malformed("more than one OPT, or one with a name", FORMERR)  # RFC 6891 6.1.1
                self.has_edns, self.edns_version = True, data[at + 5]
                self.udp_size = max(UDP_LIMIT, int.from_bytes(data[at + 2 : at + 4], "big"))
            at += 10 + length
            if at > len(data):
                raise Malformed("record cut short", FORMERR)

    @property
    def is_single_label(self) -> bool:
        """True for a name without a dot; the root has no label at all."""
        return self.name[0] > 0 and self.name[self.name[0] + 1] == 0

    @property
    def limit(self) -> int:
        """Most bytes that a reply over UDP may have."""
        return min(self.udp_size, EDNS_LIMIT)


def reply(query: Query, rcode: int, records: Sequence[bytes], limit: int, flags: int = RA) -> bytes:
    """Return a reply of at most `limit` bytes: all records, or as many as fit with TC set (RFC 2181 9)."""
    opt = b""
    if query.has_edns:
        opt = OPT_REPLY
        if query.edns_version:
            opt, rcode, records = _OPT_BAD_VERSION, 0, ()  # BADVERS = 16: the upper bits stand in the OPT record
    flags |= (query.flags & (RD | CD)) | rcode
    room = limit - HEADER - len(query.asked) - len(opt)
    count, used = 0, 0
    for record in records:
        if used + len(record) > room:
            flags |= TC
            break
        used += len(record)
        count += 1
    return b"".join([query.id, reply_head(flags, count, 1 if opt else 0), query.asked, *records[:count], opt])


def failure(data: bytes, rcode: int) -> bytes:
    """Return a header-only reply to bytes that could not be parsed; `data` has at least a header."""
    flags = QR | (int.from_bytes(data[2:4], "big") & 0x7900) | rcode
    return data[:2] + flags.to_bytes(2, "big") + b"\0" * 8


# ---- replies of upstream servers


class Scan:
    """What a forwarder must know of a reply. `lifetime` is in seconds, 0 when it may not be kept.

    `ttls` are the offsets of every TTL field, so that a kept reply can be aged.
    """

    __slots__ = ("is_truncated", "lifetime", "rcode", "ttls")

    def __init__(self, data: bytes) -> None:
        """Parse `data`, whose question was checked by `answers_question`; raises Malformed."""
        flags = int.from_bytes(data[2:4], "big")
        self.rcode = flags & 15
        self.is_truncated = bool(flags & TC)
        self.ttls: list[int] = []
        at = _skip_labels(data, HEADER) + 4
        answers, authority, additional = (int.from_bytes(data[i : i + 2], "big") for i in (6, 8, 10))
        lowest, negative = 0xFFFFFFFF, 0
        for number in range(answers + authority + additional):
            at = _skip_name(data, at)
            if at + 10 > len(data):
                raise Malformed("record cut short")
            kind = int.from_bytes(data[at : at + 2], "big")
            end = at + 10 + int.from_bytes(data[at + 8 : at + 10], "big")
            if end > len(data):
                raise Malformed("record cut short")
            if kind != OPT:
                ttl = int.from_bytes(data[at + 4 : at + 8], "big")
                lowest = min(lowest, ttl)
                self.ttls.append(at + 4)
                if kind == SOA and answers <= number < answers + authority and end - at >= 30:
                    negative = min(ttl, int.from_bytes(data[end - 4 : end], "big"))  # RFC 2308 5
            at = end
        positive = answers > 0 and self.rcode == NOERROR
        self.lifetime = lowest if positive else negative if self.rcode in (NOERROR, NXDOMAIN) else 0
        if self.is_truncated or lowest == 0xFFFFFFFF:
            self.lifetime = 0


def answers_question(data: bytes, identifier: bytes, asked: bytes) -> bool:
    """True when `data` is a reply with our id to exactly our question (any case). Everything else is junk to ignore:
    giving up on it would let a stranger end our wait (CVE-2023-29483)."""
    return (
        data[:2] == identifier
        and len(data) >= HEADER + len(asked)
        and data[2] & 0xF8 == 0x80
        and data[4:6] == b"\0\1"
        and data[HEADER : HEADER + len(asked)].lower() == asked.lower()
    )


def addresses(data: bytes) -> list[bytes]:
    """Return the addresses that a reply gives, A and AAAA records alike, 4 or 16 bytes each; raises Malformed."""
    found = []
    at = _skip_labels(data, HEADER) + 4
    for _ in range(int.from_bytes(data[6:8], "big")):
        at = _skip_name(data, at)
        kind, size = int.from_bytes(data[at : at + 2], "big"), int.from_bytes(data[at + 8 : at + 10], "big")
        record = data[at + 10 : at + 10 + size]
        if len(record) < size:
            raise Malformed("record cut short")
        if (kind, size) in ((A, 4), (AAAA, 16)):
            found.append(record)
        at += 10 + size
    return found


def aged(data: bytes, ttls: list[int], seconds: int) -> bytes:
    """Return a kept reply with `seconds` taken off every TTL."""
    out = bytearray(data)
    for at in ttls:
        ttl = int.from_bytes(out[at : at + 4], "big")
        out[at : at + 4] = max(0, ttl - seconds).to_bytes(4, "big")
    return bytes(out)


def _skip_labels(data: bytes, at: int) -> int:
    """Return the offset after an uncompressed name: a question's name is never compressed."""
    while True:
        if at >= len(data):
            raise Malformed("name cut short", FORMERR)
        length = data[at]
        if length > 63:
            raise Malformed("label too long or compressed", FORMERR)
        at += 1 + length
        if not length:
            return at


def _skip_name(data: bytes, at: int) -> int:
    """Return the offset after a name that may end in a compression pointer (which is not followed)."""
    while True:
        if at >= len(data):
            raise Malformed("name cut short", FORMERR)
        length = data[at]
        if length >= 0xC0:
            return at + 2
        if length > 63:
            raise Malformed("bad label", FORMERR)
        at += 1 + length
        if not length:
            return at
