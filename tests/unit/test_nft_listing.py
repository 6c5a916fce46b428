"""Reading what nft lists: nothing is lost, counters find their rules, and every kind of edit is named."""

from __future__ import annotations

import pytest

from tsunagu.model.network import Network, Subnet
from tsunagu.rules import policy
from tsunagu.wire import nft_listing
from tsunagu.wire.nft_listing import Count

LISTING = """\
table inet t {
\tset bridges {
\t\ttype ifname
\t\telements = { "b2",
\t\t\t     "b1" }
\t}

\tmap own_any4 {
\t\ttype inet_proto . inet_service : ipv4_addr . inet_service
\t\tcounter
\t\telements = { udp . 53 counter packets 0 bytes 0 : 10.1.0.2 . 53,
\t\t\t     tcp . 8080 counter packets 2 bytes 120 : 10.1.0.2 . 80 }
\t}

\tchain leaving_111111111111 {
\t\tct state established,related counter packets 7 bytes 700 accept comment "established"
\t\tcounter packets 1 bytes 84 accept comment "outgoing"
\t}
}
table bridge t {
\tchain forward {
\t\ttype filter hook forward priority filter; policy accept;
\t\tiifgroup vmap @apart
\t}
}
"""
NETWORK = Network(id="1" * 64, name="n", bridge="b1", subnets=(Subnet(subnet="10.1.0.0/24"),))


def test_a_listing_is_read_whole() -> None:
    blocks = nft_listing.parse(LISTING)
    assert list(blocks) == [
        ("inet", "set bridges"), ("inet", "map own_any4"), ("inet", "chain leaving_111111111111"),
        ("bridge", "chain forward"),
    ]  # fmt: skip
    assert [line.text for line in blocks["inet", "set bridges"]] == ["type ifname", '"b1"', '"b2"']
    assert [(line.text, line.count) for line in blocks["inet", "map own_any4"]][2:] == [
        ("tcp . 8080 counter : 10.1.0.2 . 80", Count(2, 120)),
        ("udp . 53 counter : 10.1.0.2 . 53", Count(0, 0)),
    ]
    assert nft_listing.parse("") == {}


def test_counters_find_their_rules() -> None:
    rules = [rule for rule in policy.rules_of(NETWORK) if rule.hook is policy.Hook.LEAVING]
    found = nft_listing.counters(rules, nft_listing.parse(LISTING))
    assert {rule.reason.code: count for rule, count in found.items()} == {
        "established": Count(7, 700), "outgoing": Count(1, 84),
    }  # fmt: skip
    # a chain that somebody edited says nothing about the rules that are not in their place
    edited = LISTING.replace("\t\tct state", "\t\tcounter packets 9 bytes 9 drop\n\t\tct state")
    assert nft_listing.counters(rules, nft_listing.parse(edited)) == {}


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("packets 1 bytes 84", "packets 5 bytes 99", []),
        ('"b2",\n\t\t\t     "b1"', '"b1",\n\t\t\t     "b2"', []),
        (
            '\t\tcounter packets 1 bytes 84 accept comment "outgoing"\n', "",
            ['chain leaving_111111111111 (inet) lacks: counter accept comment "outgoing"'],
        ),
        ("\t\tiifgroup", "\t\taccept\n\t\tiifgroup", ["chain forward (bridge) has besides: accept"]),
        ('"b2",\n\t\t\t     ', "", ['set bridges (inet) lacks: "b2"']),
        (
            "\tchain forward", "\tchain theirs",
            ["chain forward (bridge) is missing", "chain theirs (bridge) is not ours"],
        ),
        (
            "\t\tiifgroup vmap @apart\n", "\t\tiifgroup vmap @apart\n\t\tiifgroup vmap @apart\n",
            ["chain forward (bridge) has its lines in another order, or twice"],
        ),
        (LISTING[LISTING.index("table bridge") :], "", ["the whole table of family bridge is missing"]),
    ],
)  # fmt: skip
def test_every_difference_is_named(old: str, new: str, said: list[str]) -> None:
    assert old in LISTING
    wanted, found = nft_listing.parse(LISTING), nft_listing.parse(LISTING.replace(old, new))
    assert nft_listing.differences(wanted, found) == said
