"""`reach` says what the kernel does: random worlds are built for real, packets are sent, every outcome must agree.

TSUNAGU_WORLDS sets how many worlds, TSUNAGU_SEED repeats a run; a failure prints both, and the world.
"""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from random import Random

import pytest
from msgspec.structs import replace
from packets import PORT, Exchange, Probe
from random_worlds import SURROUNDINGS, Built, build, random_world

from tsunagu.model.world import World
from tsunagu.rules import policy
from tsunagu.rules.flows import Flow, Reach
from tsunagu.rules.policy import Reason, Rule, Verdict
from tsunagu.rules.reach import reach
from tsunagu.testing.namespaces import on_private_host

pytestmark = pytest.mark.root

WORLDS = int(os.environ.get("TSUNAGU_WORLDS", "200"))
SEED = os.environ.get("TSUNAGU_SEED") or str(time.time_ns())
SHARDS = 10


@pytest.mark.parametrize("shard", range(SHARDS))
def test_reach_is_true(shard: int) -> None:
    checked = 0
    for number in range(shard, WORLDS, SHARDS):
        checked += _check(number)
    assert checked > 0 or shard >= WORLDS


@pytest.mark.parametrize("turned", [Reason.NO_SHARED_NETWORK, Reason.ICC_OFF, Reason.OUTGOING, Reason.SAME_NETWORK])
def test_a_lie_is_found(turned: Reason) -> None:
    """The comparison can fail: in a kernel where the rules of one reason say the opposite, it does."""
    opposite = {Verdict.ACCEPT: Verdict.DROP, Verdict.DROP: Verdict.ACCEPT}
    rng = Random("lie")
    for _ in range(100):
        world = random_world(rng)
        rules = [
            replace(rule, verdict=opposite[rule.verdict]) if rule.reason is turned else rule
            for rule in policy.programme(world)
        ]
        if _compare(world, has_bridge_netfilter=True, rules=rules)[1]:
            return
    pytest.fail("100 worlds with false rules, and nothing was noticed")


def _check(number: int) -> int:
    """Build and probe one world; returns the number of flows."""
    rng = Random(f"{SEED}/{number}")
    world = random_world(rng)
    has_bridge_netfilter = rng.random() < 0.5
    count, wrong = _compare(world, has_bridge_netfilter=has_bridge_netfilter)
    assert not wrong, (
        f"TSUNAGU_SEED={SEED}, world {number}, bridge netfilter {has_bridge_netfilter}\n"
        f"{_describe(world)}\n" + "\n".join(wrong)
    )
    return count


def _compare(world: World, *, has_bridge_netfilter: bool, rules: Sequence[Rule] | None = None) -> tuple[int, list[str]]:
    """Return the number of flows that were sent, and those about which kernel and reach disagree."""
    probes: list[Probe] = []
    said: list[Reach] = []
    reached: set[int] = set()

    @on_private_host
    async def body() -> None:
        async with build(world, has_bridge_netfilter=has_bridge_netfilter, rules=rules) as built:
            targets = _targets(built)
            for source in built.paths:
                probes.extend(Probe(source, address, p) for address in targets for p in ("tcp", "udp", "icmp"))
            for one in probes:
                flow = Flow(source=one.source, target=one.address, protocol=one.protocol, port=PORT)
                said.append(reach(world, flow, SURROUNDINGS))
            exchange = Exchange(built)
            try:
                await exchange.open()
                expected = [i for i, answer in enumerate(said) if answer.allowed]
                reached.update(await exchange.run(probes, expected, 10.0 if rules is None else 0.5))
            finally:
                exchange.close()

    body()
    return len(probes), [
        f"{probe.source} -> {probe.address} {probe.protocol}: "
        f"{'arrives' if i in reached else 'does not arrive'}, but reach says {answer.reason.code}: {answer.sentence}"
        for i, (probe, answer) in enumerate(zip(probes, said, strict=True))
        if answer.allowed != (i in reached)
    ]


def _targets(built: Built) -> list[str]:
    """Everybody's addresses, and one on each network that nobody has."""
    found = [address for word in built.paths for address in built.addresses(word)]
    return found + [f"{s.gateway}99" for n in built.world.networks.values() for s in n.subnets]


def _describe(world: World) -> str:
    lines = [
        f"network {n.name}: internal={n.is_internal} ipv6={n.enable_ipv6} options={n.options}"
        for n in world.networks.values()
    ]
    lines += [
        f"container {c.name}: "
        + ", ".join(f"{e.network_name} {e.ipv4} {e.ipv6} priority={e.config.gw_priority}" for e in c.endpoints)
        for c in world.containers.values()
    ]
    return "\n".join(lines)
