"""The nft printer: golden files per combination of options. A file shared by two combinations says: no difference.

`UPDATE_GOLDEN=1 pytest tests/unit/test_nft.py` writes the files anew; read the difference before you commit it.
"""

from __future__ import annotations

import itertools
import os
from pathlib import Path

import pytest

from tsunagu.model.errors import InvalidParameter
from tsunagu.model.network import ICC, MASQUERADE, Network, Subnet
from tsunagu.model.world import NetworkCreated, World, apply
from tsunagu.rules import policy
from tsunagu.wire import nft

GOLDEN = Path(__file__).parent / "golden" / "nft"
FLAGS = ("internal", "ipv6", "no-icc", "no-masquerade")


def network(n: int, flags: tuple[str, ...] = ()) -> Network:
    options = ({ICC: "false"} if "no-icc" in flags else {}) | (
        {MASQUERADE: "false"} if "no-masquerade" in flags else {}
    )
    return Network(
        id=f"{n:x}" * 64,
        name=f"n{n}",
        bridge=f"br-{f'{n:x}' * 12}",
        is_internal="internal" in flags,
        enable_ipv6="ipv6" in flags,
        subnets=(Subnet(subnet=f"10.{n}.0.0/24"), Subnet(subnet=f"fd00:{n}::/64")),
        options=options,
    )


def programme(*networks: Network) -> tuple[policy.Rule, ...]:
    world = World()
    for one in networks:
        world = apply(world, NetworkCreated(one))
    return policy.programme(world)


def compare(name: str, text: str) -> None:
    path = GOLDEN / f"{name}.nft"
    if os.environ.get("UPDATE_GOLDEN"):
        path.write_text(text)
    assert text == path.read_text()


COMBINATIONS = [c for n in range(len(FLAGS) + 1) for c in itertools.combinations(FLAGS, n)]


def golden_name(flags: tuple[str, ...]) -> str:
    # an internal network is never masqueraded: the flag must make no difference
    kept = [f for f in flags if not (f == "no-masquerade" and "internal" in flags)]
    return "-".join(["one", *kept])


@pytest.mark.parametrize("flags", COMBINATIONS, ids=lambda flags: "+".join(flags) or "plain")
def test_one_network(flags: tuple[str, ...]) -> None:
    compare(golden_name(flags), nft.script(programme(network(1, flags)), "tsunagu"))


def test_several_networks() -> None:
    several = [network(1), network(2, ("internal",)), network(3, ("ipv6",)), network(4, ("no-icc",))]
    compare("several", nft.script(programme(*several), "tsunagu_12ab"))


def test_nothing() -> None:
    compare("nothing", nft.script((), "tsunagu"))


def test_update_adds_and_removes_one_network_only() -> None:
    one, two = network(1, ("ipv6",)), network(2, ("ipv6", "no-icc"))
    compare("update-add", nft.update(programme(one), programme(one, two), "tsunagu"))
    compare("update-remove", nft.update(programme(one, two), programme(one), "tsunagu"))
    compare("update-change", nft.update(programme(one), programme(network(1, ("internal",))), "tsunagu"))
    assert nft.update(programme(one), programme(one), "tsunagu") == ""


def test_update_does_not_grow_with_the_number_of_networks() -> None:
    new = network(15)
    few, many = [network(n) for n in range(1, 3)], [network(n) for n in range(1, 15)]
    assert nft.update(programme(*few), programme(*few, new), "t") == nft.update(
        programme(*many), programme(*many, new), "t"
    )


def test_the_first_network_makes_the_tables() -> None:
    text = nft.update((), programme(network(1)), "t")
    assert text.startswith("add table inet t\n")
    assert "bridge t" not in text
    compare("update-first", nft.update((), programme(network(1, ("ipv6",))), "tsunagu"))


def test_packets_cross_one_lookup_per_stage_however_many_networks() -> None:
    def base_chains(text: str) -> list[str]:
        lines = text.splitlines()
        starts = [i for i, line in enumerate(lines) if "type filter hook" in line or "type nat hook" in line]
        return [line for start in starts for line in itertools.takewhile(lambda x: x != "  }", lines[start:])]

    few = base_chains(nft.script(programme(network(1)), "t"))
    many = base_chains(nft.script(programme(*(network(n) for n in range(1, 16))), "t"))
    assert few == many


@pytest.mark.parametrize("name", ['x"; flush ruleset; "', "a*", "a b", "", "x" * 16, "a/b"])
def test_a_name_that_nft_could_misread_is_refused(name: str) -> None:
    evil = Network(id="1" * 64, name="n", bridge=name or "ok", subnets=(Subnet(subnet="10.1.0.0/24"),))
    if not name:
        evil = Network(id="1" * 64, name="n", bridge="ok", subnets=(Subnet(subnet='10.1.0.0/24 }; "'),))
    with pytest.raises(InvalidParameter):
        nft.script(policy.rules_of(evil), "t")


def test_every_rule_has_a_counter_and_its_reason() -> None:
    rules = programme(network(1, ("ipv6", "no-icc")), network(2, ("internal",)))
    lines = [line for line in nft.script(rules, "t").splitlines() if "comment" in line]
    assert len(lines) == len(rules)
    assert all(" counter " in f" {line.strip()} " for line in lines)
