"""One query in, one decision out: an answer of ours, or forward. Everything but the plainest queries comes through
here.

`local → gate → upstream`: a name that is ours is answered in every type and never leaves; then it is decided whether
the sandbox may ask outside at all. May import `wire` only; must never do I/O.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from tsunagu.wire import dns

from .tables import NOBODY, Answer, Table, answer, rcode

_LOCALHOST = b"\x09localhost\0"
_LOOPBACK = {dns.A: answer([dns.address_record(bytes([127, 0, 0, 1]), 600)]),
             dns.AAAA: answer([dns.address_record(bytes(15) + b"\1", 600)])}  # fmt: skip


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


def local(query: dns.Query, tables: Sequence[Table], subnets: Subnets, limit: int) -> bytes | None:
    """Return the reply to a query about something that is ours, or None when it is not."""
    if query.has_edns and query.edns_version:
        return dns.reply(query, 0, (), limit)
    if query.qclass != dns.IN:
        return dns.reply(query, dns.REFUSED, (), limit)
    found = _find(query.key, tables)
    if found is not None:
        return _render(query, found, limit)
    known = [hit for qtype in (dns.A, dns.AAAA, dns.PTR) if (hit := _find(dns.question(query.name, qtype), tables))]
    if known:
        if NOBODY in known:
            return dns.reply(query, dns.NXDOMAIN, (), limit)
        wanted = [record for hit in known for record in hit[2]] if query.qtype == dns.ANY else ()
        return dns.reply(query, dns.NOERROR, wanted, limit)
    if query.name.endswith(_LOCALHOST):  # RFC 6761 6.3: never sent to a server
        records = _LOOPBACK[query.qtype][2] if query.qtype in _LOOPBACK else ()
        return dns.reply(query, dns.NOERROR, records, limit)
    if query.name.endswith(b"\x04arpa\0"):
        address = dns.parse_reverse_name(query.name)
        if address is not None and address in subnets:
            return dns.reply(query, dns.NXDOMAIN, (), limit)
    return None


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


def _render(query: dns.Query, found: Answer, limit: int) -> bytes:
    _, next_tail, records = found
    if len(records) > 1:
        # The tail is cut back into records of one length, so that truncation drops whole ones in the order of this
        # turn.
        tail, size = next_tail(), len(records[0])
        records = [tail[i : i + size] for i in range(0, len(tail), size)]
    return dns.reply(query, rcode(found), records, limit)
