"""One query in, one decision out: an answer of ours, or forward. Everything but the plainest queries comes through
here.

`local → gate → upstream`: a name that is ours is answered in every type and never leaves; then it is decided whether
the sandbox may ask outside at all. May import `wire` only; must never do I/O.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import repeat

from tsunagu.wire import dns

from .tables import NOBODY, NODATA, Answer, Table

REFUSED = Answer((), dns.REFUSED)
_LOCALHOST = b"\x09localhost\0"
_LOOPBACK = {
    dns.A: Answer([dns.address_record(bytes([127, 0, 0, 1]), 600)]),
    dns.AAAA: Answer([dns.address_record(bytes(15) + b"\1", 600)]),
}


class Subnets:
    """The address ranges of our networks: an address inside that nobody has is ours to deny (its PTR never leaves)."""

    def __init__(self) -> None:
        self._prefixes: dict[tuple[int, int], set[int]] = {}

    def replace(self, prefixes: Iterable[tuple[bytes, int]]) -> None:
        """Set the ranges as (packed address, prefix length)."""
        self._prefixes = {}
        for address, length in prefixes:
            shift = len(address) * 8 - length
            self._prefixes.setdefault((len(address), shift), set()).add(int.from_bytes(address, "big") >> shift)

    def __contains__(self, address: bytes) -> bool:
        number = int.from_bytes(address, "big")
        return any(size == len(address) and number >> shift in found for (size, shift), found in self._prefixes.items())


def local(query: dns.Query, tables: Sequence[Table], subnets: Subnets) -> Answer | None:
    """Return what we say about a name that is ours, or None when it is not."""
    if query.qclass != dns.IN:
        return REFUSED
    found = _find(query.key, tables)
    if found is not None:
        return found
    known = [hit for qtype in (dns.A, dns.AAAA, dns.PTR) if (hit := _find(dns.question(query.name, qtype), tables))]
    if known:
        if NOBODY in known:
            return NOBODY
        return Answer([record for hit in known for record in hit.records]) if query.qtype == dns.ANY else NODATA
    if query.name.endswith(_LOCALHOST):  # RFC 6761 6.3: never sent to a server
        return _LOOPBACK.get(query.qtype, NODATA)
    if query.name.endswith(b"\x04arpa\0"):
        address = dns.parse_reverse_name(query.name)
        if address is not None and address in subnets:
            return NOBODY
    return None


def holder(query: dns.Query, tables: Sequence[Table]) -> int:
    """Return which of the tables `local` took its answer from, -1 when it is in none of them."""
    keys = [query.key, *(dns.question(query.name, qtype) for qtype in (dns.A, dns.AAAA, dns.PTR))]
    return next((i for key in keys for i, table in enumerate(tables) if key in table), -1)


def render(query: dns.Query, found: Answer, limit: int) -> bytes:
    """Return the reply that says `found`, of at most `limit` bytes."""
    records = found.records
    if len(records) > 1 and query.qtype != dns.ANY:
        # The tail is cut back into records, so that truncation drops whole ones in the order of this turn.
        tail, size = found.next_tail(), len(records[0])
        records = [tail[i : i + size] for i in range(0, len(tail), size)]
    return dns.reply(query, found.rcode, records, limit)


# What is said again and again: bytes 2 to 12 of the reply, the offset after its question, what follows there; and for a
# query in lower case all of the reply but its id.
Ready = tuple[bytes, int, Callable[[], bytes], Callable[[], bytes]]


def ready(query: dns.Query, data: bytes, found: Answer) -> Ready | None:
    """Return the reply in parts, to be kept under `data[2:].lower()`; None when it must be made each time.

    Kept are replies of at most 512 bytes, which need not look at the client's buffer, to queries that end after the
    question or have an OPT record without options. Lower-casing touches more than the name: it may only make queries
    look alike that get the same reply, so the rest of `data` must be as it is in lower case. (The types that differ
    in that one bit, such as HTTPS 65 and 97, are all without data.)
    """
    end = dns.HEADER + len(query.asked)
    rest = data[2 : dns.HEADER] + data[end - 4 :]
    size = end + len(found.records) * max(map(len, found.records), default=0)
    if rest != rest.lower() or query.qtype == dns.ANY or query.qclass != dns.IN or query.edns_version:
        return None
    if len(data) == end and not query.has_edns:
        opt, next_tail = b"", found.next_tail
    elif len(data) == end + len(dns.OPT_REPLY) and query.has_edns:
        opt = dns.OPT_REPLY
        next_tail = (found.next_tail() + opt for _ in repeat(None)).__next__
    else:
        return None
    if size + len(opt) > dns.UDP_LIMIT:
        return None
    flags = dns.RA | (query.flags & (dns.RD | dns.CD)) | found.rcode
    head = dns.reply_head(flags, len(found.records), 1 if opt else 0)
    start = head + query.key
    next_whole: Iterator[bytes] = (start + next_tail() for _ in repeat(None))
    if len(found.records) < 2:
        next_whole = repeat(start + next_tail())
    return head, end, next_tail, next_whole.__next__


def refusal(query: dns.Query, limit: int) -> bytes:
    """Return the reply to a name that is not ours when nobody may be asked, or nobody is there to ask.

    Docker answers SERVFAIL (without RA) to every name then; a single label cannot be a name of the outside, so that
    saying NXDOMAIN at once spares the client its retries.
    """
    if query.is_single_label:
        return dns.reply(query, dns.NXDOMAIN, (), limit)
    return dns.reply(query, dns.SERVFAIL, (), limit, flags=0)


def _find(key: bytes, tables: Sequence[Table]) -> Answer | None:
    for table in tables:
        found = table.get(key)
        if found is not None:
            return found
    return None
