"""What the kernel holds of our tables, read back: every rule's counter, and every difference to what is wanted."""

# ruff: noqa: ASYNC221 (a test may block its own loop)
from __future__ import annotations

import os
import socket
import subprocess
from random import Random

import pytest
from random_worlds import random_world

from tsunagu.kernel import firewall
from tsunagu.kernel.network import NetworkKernel
from tsunagu.model.network import Network, Subnet
from tsunagu.model.world import NetworkCreated
from tsunagu.rules import policy
from tsunagu.rules.policy import Hook, Reason
from tsunagu.services.engine import Engine
from tsunagu.services.firewall import Firewall
from tsunagu.services.networks import bridge_plan
from tsunagu.store.db import Database
from tsunagu.testing.namespaces import on_private_host, private_instance
from tsunagu.wire import nft, nft_listing

pytestmark = pytest.mark.root


@on_private_host
async def test_every_rule_is_found_in_any_world() -> None:
    """Whether the tables were made at once or by updates, they are read as equal, and each rule has its counter."""
    rng = Random(7)
    tables = ("table inet t", "table bridge t")
    before: tuple[policy.Rule, ...] = ()
    for _ in range(12):
        rules = policy.programme(random_world(rng))
        if change := nft.update(before, rules, "t"):
            firewall.apply(change)
        updated = nft_listing.parse(firewall.listing(*tables))
        firewall.apply(nft.script(rules, "t"))
        whole = nft_listing.parse(firewall.listing(*tables))
        assert nft_listing.differences(whole, updated) == []
        found = nft_listing.counters(rules, updated)
        shadowed = {rule for rule in rules if rule.port is not None and rule not in found}
        assert set(rules) - shadowed == set(found)
        before = rules
    firewall.apply(nft.script((), "t"))
    assert firewall.listing(*tables) == ""


@on_private_host
async def test_counters_count_and_differences_are_found() -> None:
    instance, remove = private_instance()
    os.makedirs(instance.root)
    kernel = NetworkKernel(instance)
    await kernel.open()
    engine = Engine(instance, Database(f"{instance.root}/state.db"))
    try:
        guarded = Firewall(engine, kernel)
        network = Network(
            id="1" * 64,
            name="one",
            bridge="lab1",
            enable_ipv6=True,
            subnets=(
                Subnet(subnet="10.1.0.0/24", gateway="10.1.0.1"),
                Subnet(subnet="fd00:1::/64", gateway="fd00:1::1"),
            ),
        )
        await kernel.ensure_bridge(bridge_plan(network))
        engine.commit(NetworkCreated(network))
        await guarded.sync()
        assert await guarded.differences() == []
        masquerade = next(r for r in policy.programme(engine.world) if r.hook is Hook.POSTROUTING)
        assert (await guarded.counters())[masquerade].packets == 0
        # from the gateway's address to the loopback address: it leaves from the prefix by another interface
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
            sender.bind(("10.1.0.1", 0))
            sender.sendto(b"x", ("127.0.0.1", 9))
        one = await guarded.counter(masquerade)
        assert one is not None and (one.packets, one.bytes) == (1, 29)  # headers and one byte
        counters = await guarded.counters()
        assert counters[masquerade] == one
        assert set(counters) == set(policy.programme(engine.world))
        subprocess.run(["nft", f"flush chain inet {instance.nft_table} entering_{'1' * 12}"], check=True)
        said = await guarded.differences()
        assert len(said) == sum(r.hook is Hook.ENTERING for r in counters) + 1  # a rule with a line for each family
        assert any(Reason.UNPUBLISHED.code in line for line in said)
        unpublished = next(r for r in counters if r.reason is Reason.UNPUBLISHED)
        assert await guarded.counter(unpublished) is None
        await guarded.replace()
        assert await guarded.differences() == []
        subprocess.run(["nft", "flush", "ruleset"], check=True)
        assert await guarded.differences() == [
            "the whole table of family bridge is missing", "the whole table of family inet is missing",
        ]  # fmt: skip
    finally:
        await kernel.close()
        engine.db.close()
        remove()
