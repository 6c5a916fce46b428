"""Why traffic does or does not arrive, as far as no packet rule decides it: routes, names, states, listening sockets.

The rules' own reasons are `policy.Reason`; both have a code, a sentence and a section in docs/reasons.md. Imports
`policy` only; pure. Must never decide anything.
"""

from __future__ import annotations

from enum import Enum
from typing import TypeAlias

from .policy import Reason

DOCUMENTATION = "docs/reasons.md"


class Fact(Enum):
    """A reason that is no rule: code and sentence. The sentence's words in braces are filled in by who finds it."""

    # ---- it works
    SAME_SANDBOX = ("same-sandbox", "{source} and {target} share one network namespace")
    HOST_ADDRESS = ("host-address", "{address} is an address of the host, which takes part in every network")
    HOST_REACHES = ("host-reaches", "the host takes part in network {network}")
    NOT_OURS = ("not-ours", "no rule of ours concerns this traffic")

    # ---- names
    NAME_UNKNOWN = ("name-unknown", "no container and no alias is called {name}")
    NAME_IN_OTHER_NETWORK = (
        "name-in-other-network",
        "{name} is a name on network {network} only, and {source} is not on it",
    )
    DEFAULT_BRIDGE = ("default-bridge", "containers on the default bridge have no names, only addresses")
    NO_OWN_NAME = ("no-own-name", "{name} shares the sandbox of {owner} and has no name of its own")
    SHARED_NAME = ("shared-name", "{name} is the name of several containers, and not all of them answer: {holders}")
    LINK_TARGET_AWAY = ("link-target-away", "{name} is a link of {source} to a container that is not there")
    SEARCH_DOMAIN = (
        "search-domain",
        "{source} finds {name} elsewhere and not here: its name server answers {addresses} for {full}",
    )
    DNS_SILENT = ("dns-silent", "the name server inside {source} does not answer for {name} as it should: {answer}")

    # ---- states
    NOT_RUNNING = ("not-running", "{container} is not running ({status})")
    PAUSED = ("paused", "{container} is paused: its processes are frozen, and nothing in it answers")
    RESTARTING = (
        "restarting",
        "{container} has ended with exit code {code} and waits for its restart policy to start it again "
        "({count} times so far)",
    )
    NETWORK_NONE = ("network-none", "{container} has no network at all (--network none)")
    NO_NETWORK = ("no-network", "{container} is on no network")

    # ---- addresses and routes
    FAMILY_MISMATCH = ("family-mismatch", "{source} has no IPv{family} address, {address} is one")
    NO_ROUTE = ("no-route", "{source} has no default route for IPv{family}")
    ADDRESS_UNUSED = ("address-unused", "no running container has the address {address} of network {network}")
    FORWARDING_OFF = ("forwarding-off", "the host does not forward IPv{family}")
    NO_WAY_BACK = (
        "no-way-back",
        "network {network} is not masqueraded, and the outside has no route back to its addresses",
    )
    HOST_ABSENT = ("host-absent", "the host has no IPv{family} address on network {network}: it takes no part there")
    NEEDS_ROUTE = (
        "needs-route",
        "the rules let this in, but {source} must have a route to {subnet} by way of this host",
    )
    HOST_HAS_NO_ROUTE = ("host-has-no-route", "the host itself has no route to {address}")

    # ---- found by probing a living container
    NOT_LISTENING = ("not-listening", "nothing in {target} listens on port {port}/{protocol}")
    LOOPBACK_ONLY = ("loopback-only", "{target} listens on {listeners} only, which no other container reaches")
    PUBLISHED_ON_LOOPBACK = (
        "published-on-loopback",
        "port {port}/{protocol} of the host leads to {target}, but it is published on {address} only, for the host",
    )
    OTHER_ADDRESS = ("other-address", "{target} listens on {listeners} only, not on {address}")
    OTHER_PORT = ("other-port", "nothing in {target} listens on port {port}/{protocol}; it listens on {listeners}")
    OTHER_PROTOCOL = ("other-protocol", "port {port} of {target} is {other}, not {protocol}")
    MTU_MISMATCH = (
        "mtu-mismatch",
        "the two ends have different packet sizes: {source} {source_mtu}, {target} {target_mtu}",
    )
    REFUSED = ("refused", "{target} refused the connection although something listens there")
    UNANSWERED = ("unanswered", "no answer came back from {address}, although the rules let the packet through")

    def __init__(self, code: str, sentence: str) -> None:
        self.code = code
        self.sentence = sentence


Cause: TypeAlias = Reason | Fact

# What each means for the one who asks: traffic arrives for these, and for no other.
FINE = frozenset(
    {
        Reason.SAME_NETWORK,
        Reason.LINKED,
        Reason.ESTABLISHED,
        Reason.OUTGOING,
        Reason.MASQUERADE,
        Reason.PUBLISHED,
        Reason.HAIRPIN,
        Reason.ROUTED,
        Reason.UNPROTECTED,
        Reason.TRUSTED,
        Fact.SAME_SANDBOX,
        Fact.HOST_ADDRESS,
        Fact.HOST_REACHES,
        Fact.NOT_OURS,
    }
)


def anchor(cause: Cause) -> str:
    """Return where the documentation explains a cause, as path and anchor."""
    return f"{DOCUMENTATION}#{cause.code}"
