"""Values of reachability: what is asked (`Flow`, `Host`), who takes part (`Party`), what is answered (`Reach`).

Imports `model`, `policy`, `reasons` and `sandboxes` only; pure. Must never decide anything about packets.
"""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import ip_address

import msgspec

from tsunagu.model.container import Container
from tsunagu.model.errors import EngineError
from tsunagu.model.network import Endpoint
from tsunagu.model.world import World

from .policy import Rule
from .reasons import Cause, anchor
from .sandboxes import owner_of

HOST, OUTSIDE, NEIGHBOUR, GATEWAY = "host", "outside", "neighbour", "gateway"
SAMPLES = {4: "192.0.2.1", 6: "2001:db8::1"}  # stand for the outside where its addresses do not matter (RFC 5737, 3849)


class Host(msgspec.Struct, frozen=True, kw_only=True):
    """What the answer depends on beside the world. The defaults are a host as it should be, for worlds without one."""

    addresses: tuple[str, ...] = ()  # of the host's own interfaces, our bridges' gateways not included
    forwards: frozenset[int] = frozenset({4, 6})  # address families
    outside: frozenset[int] = frozenset({4})  # families in which the host has a route outside
    bridge_netfilter: frozenset[int] = frozenset()  # families whose bridged packets are translated on the bridge
    uplink: str = ""  # the interface that leads outside, if it is known: where neighbours and strangers come in by
    neighbours: tuple[str, ...] = ()  # addresses outside that route to our networks by way of the host


class Flow(msgspec.Struct, frozen=True, kw_only=True):
    """Traffic that may never be sent. `source` is a container, `host`, `outside` (knows no route to our networks) or
    `neighbour` (routes to our networks by way of the host); `target` a name, an address, or one of those words."""

    source: str
    target: str
    protocol: str = "tcp"
    port: int = 0


class Step(msgspec.Struct, frozen=True):
    """One thing that was looked at, in order. `code` is the reason's, "" where nothing had to be decided."""

    is_ok: bool
    text: str
    code: str = ""


class Reach(msgspec.Struct, frozen=True, kw_only=True):
    """The answer. `addresses` are those that the traffic would be sent to; the first one was judged."""

    allowed: bool
    reason: Cause
    sentence: str
    steps: tuple[Step, ...]
    hint: str = ""  # a command that can be pasted, "" when there is none to give
    addresses: tuple[str, ...] = ()
    holders: tuple[str, ...] = ()  # ids of the containers that have the addresses, or that the port leads to
    landing: str = ""  # the container's address that a published port leads to, "" when none is in the way
    landing_port: int = 0  # the port there
    rule: Rule | None = None  # that decided, None where no rule did

    @property
    def documentation(self) -> str:
        return anchor(self.reason)


class Unknown(Exception):
    """The source is nothing that we know."""


class Refused(Exception):
    """Ends the search with its cause."""

    def __init__(self, cause: Cause, hint: str = "", **words: object) -> None:
        super().__init__(cause.code)
        self.cause = cause
        self.hint = hint
        self.sentence = cause.sentence.format(**words)
        self.rule: Rule | None = None  # that decided, where one did


class Party(msgspec.Struct, frozen=True):
    """One end: a container's sandbox, or (None) the host or somebody outside."""

    word: str
    container: Container | None = None
    is_host: bool = False


def source_of(world: World, word: str) -> Party:
    """Return the party that a word names as a source; raises Unknown."""
    try:
        container = world.container(word)
    except EngineError:
        if word == HOST:
            return Party(HOST, is_host=True)
        if word in (OUTSIDE, NEIGHBOUR):
            return Party(word)
        raise Unknown(f"No such container: {word}") from None
    return Party(container.name, container, is_host=owner_of(world, container).host.network_mode == "host")


def literal_of(word: str) -> str:
    """Return the address that a word is, in its usual spelling, or "" for a name."""
    try:
        return str(ip_address(word.strip("[]")))
    except ValueError:
        return ""


def both_of(endpoint: Endpoint) -> str:
    """Return the addresses of an endpoint as a person reads them."""
    return ", ".join(address for address in (endpoint.ipv4, endpoint.ipv6) if address)


def addresses_of(endpoints: Iterable[Endpoint], container: Container) -> list[tuple[str, Container | None]]:
    """Return every address with the container, IPv4 first."""
    endpoints = list(endpoints)
    found = [e.ipv4 for e in endpoints if e.ipv4] + [e.ipv6 for e in endpoints if e.ipv6]
    return [(address, container) for address in found]
