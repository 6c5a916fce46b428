"""Name tables: for each network, question bytes -> answer bytes, encoded when an endpoint comes or goes.

A lookup is one dictionary access per network; nothing is parsed or encoded for it. A change costs as much as the
endpoint has names. May import `wire` only; must never do I/O.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from itertools import repeat

from tsunagu.wire import dns
from tsunagu.wire.control import Join


class Answer:
    """What to say to one question: a response code and records. `next_tail` returns all records as bytes, ready to
    be put after the question; with several, each call starts with another one. Records of one answer have one length.
    """

    __slots__ = ("next_tail", "rcode", "records")

    def __init__(self, records: Sequence[bytes], rcode: int = dns.NOERROR) -> None:
        self.records = records
        self.rcode = rcode
        tails: Iterator[bytes] = repeat(b"".join(records)) if len(records) < 2 else _turns(records)
        self.next_tail: Callable[[], bytes] = tails.__next__


Table = dict[bytes, Answer]
NODATA = Answer(())
NOBODY = Answer((), dns.NXDOMAIN)


def _turns(records: Sequence[bytes]) -> Iterator[bytes]:
    """Yield every rotation once, in random order, for ever: a fair share for each address, and no fixed beat that a
    client which asks twice per connection could fall in step with."""
    tails = [b"".join((*records[i:], *records[:i])) for i in range(len(records))]
    while True:
        random.shuffle(tails)
        yield from tails


class NetworkTable:
    """The names of one network. `plain` holds names as they are, `qualified` the same as `name.network`."""

    def __init__(self, network: str) -> None:
        self.network = network
        self.plain: Table = {}
        self.qualified: Table = {}
        self.subnets: list[tuple[bytes, int]] = []
        self.labels = 1  # of the network's own name: fewer are tried first
        self._ttl = 0
        self._suffix: bytes | None = None
        self._endpoints: dict[str, Join] = {}
        self._names: dict[bytes, dict[str, Join]] = {}
        self._owners: dict[bytes, str] = {}  # address -> endpoint that its PTR belongs to

    def configure(self, name: str, ttl: int, subnets: list[tuple[bytes, int]]) -> None:
        """Set what the network itself says; every name is encoded anew when that changed."""
        self.subnets, self.labels = subnets, name.count(".") + 1
        suffix = dns.encode_name(name)
        if (suffix, ttl) == (self._suffix, self._ttl):
            return
        joins = list(self._endpoints.values())
        for join in joins:
            self.leave(join.endpoint)
        self._suffix, self._ttl = suffix, ttl
        for join in joins:
            self.join(join)

    def join(self, join: Join) -> None:
        """Add an endpoint's names, or replace those it had."""
        self.leave(join.endpoint)
        self._endpoints[join.endpoint] = join
        for name in self._wire_names(join):
            self._names.setdefault(name, {})[join.endpoint] = join
            self._encode(name)
        target = dns.encode_name(join.pointer)
        if target is None:
            return
        if self._suffix is not None and len(target) + len(self._suffix) <= 256:
            target = target[:-1] + self._suffix
        for address in (join.ipv4, join.ipv6):
            if address:
                self._owners[address] = join.endpoint
                key = dns.question(dns.reverse_name(address), dns.PTR)
                self.plain[key] = Answer([dns.pointer_record(target, self._ttl)])

    def leave(self, endpoint: str) -> None:
        """Remove an endpoint's names; no error when it has none."""
        join = self._endpoints.pop(endpoint, None)
        if join is None:
            return
        for name in self._wire_names(join):
            del self._names[name][endpoint]
            self._encode(name)
        for address in (join.ipv4, join.ipv6):
            if address and self._owners.get(address) == endpoint:
                del self._owners[address]
                del self.plain[dns.question(dns.reverse_name(address), dns.PTR)]

    def _wire_names(self, join: Join) -> list[bytes]:
        encoded = (dns.encode_name(name) for name in join.names)
        return list(dict.fromkeys(name for name in encoded if name is not None))

    def _encode(self, name: bytes) -> None:
        """Write the answers for one name, or remove them with its last endpoint."""
        members = self._names[name]
        ready = [join for join in members.values() if join.is_ready] or list(members.values())
        full = None
        if self._suffix is not None and len(name) + len(self._suffix) <= 256:
            full = name[:-1] + self._suffix
        for qtype, addresses in (
            (dns.A, dict.fromkeys(j.ipv4 for j in ready if j.ipv4)),
            (dns.AAAA, dict.fromkeys(j.ipv6 for j in ready if j.ipv6)),
        ):
            if not members:
                self.plain.pop(dns.question(name, qtype), None)
                if full:
                    self.qualified.pop(dns.question(full, qtype), None)
                continue
            made = Answer([dns.address_record(address, self._ttl) for address in addresses])
            self.plain[dns.question(name, qtype)] = made
            if full:
                self.qualified[dns.question(full, qtype)] = made
        if not members:
            del self._names[name]


def lookup_order(networks: Sequence[NetworkTable]) -> tuple[Table, ...]:
    """Return the tables that a sandbox on `networks` (in gateway order) asks, first hit wins.

    Docker's order: the name as it is on every network, then for `a.b.c` the name `a.b` on network `c`, then `a` on
    `b.c` (libnetwork, Sandbox.ResolveName): networks whose own name has fewer labels come first.
    """
    by_labels = sorted(networks, key=lambda table: table.labels)
    return (*(t.plain for t in networks), *(t.qualified for t in by_labels))


def lookup_networks(networks: Sequence[NetworkTable]) -> tuple[str, ...]:
    """Return the network of each table that `lookup_order` gives."""
    by_labels = sorted(networks, key=lambda table: table.labels)
    return (*(t.network for t in networks), *(t.network for t in by_labels))


def links(wanted: Sequence[tuple[str, str, str]], networks: dict[str, NetworkTable], names: dict[str, bytes]) -> Table:
    """Return the private table of a sandbox's links (network, alias, target); `names` are the networks' own, encoded.

    A link whose target is away answers NXDOMAIN: another container that happens to bear the alias is not what was meant
    (libnetwork skips the network for such a name too).
    """
    table: Table = {}
    for network, alias, target in wanted:
        alias_name, target_name = dns.encode_name(alias), dns.encode_name(target)
        if alias_name is None or target_name is None or network not in networks:
            continue
        keys = [alias_name]
        if network in names and len(alias_name) + len(names[network]) <= 256:
            keys.append(alias_name[:-1] + names[network])
        for qtype in (dns.A, dns.AAAA):
            found = networks[network].plain.get(dns.question(target_name, qtype), NOBODY)
            for name in keys:
                key = dns.question(name, qtype)
                if found is not NOBODY or key not in table:
                    table[key] = found
    return table
