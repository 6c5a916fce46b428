"""`reach` says what the kernel does: random worlds are built for real, packets are sent, every outcome must agree.

TSUNAGU_WORLDS sets how many worlds, TSUNAGU_SEED repeats a run; a failure prints both, and the world.
"""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from ipaddress import ip_network
from random import Random

import pytest
from msgspec.structs import replace
from packets import Exchange, Probe
from random_worlds import PORT, SURROUNDINGS, Built, build, random_world

from tsunagu.model.world import World
from tsunagu.rules import policy, ports
from tsunagu.rules.flows import HOST, Flow, Reach
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


@pytest.mark.parametrize(
    "turned",
    [
        Reason.NO_SHARED_NETWORK,
        Reason.ICC_OFF,
        Reason.OUTGOING,
        Reason.SAME_NETWORK,
        Reason.PUBLISHED,
        Reason.ROUTED,
        Reason.UNPROTECTED,
        Reason.TRUSTED,
        Reason.LINKED,
    ],
)
def test_a_lie_is_found(turned: Reason) -> None:
    """The comparison can fail: in a kernel where the rules of one reason say the opposite, it does."""
    opposite = {Verdict.ACCEPT: Verdict.DROP, Verdict.DROP: Verdict.ACCEPT}
    rng = Random("lie")
    for _ in range(100):
        world = random_world(rng)
        rules = [
            replace(rule, verdict=opposite.get(rule.verdict, rule.verdict)) if rule.reason is turned else rule
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
    host = replace(SURROUNDINGS, bridge_netfilter=frozenset({4, 6} if has_bridge_netfilter else ()))
    probes: list[Probe] = []
    said: list[Reach] = []
    reached: set[int] = set()

    @on_private_host
    async def body() -> None:
        async with build(world, has_bridge_netfilter=has_bridge_netfilter, rules=rules) as built:
            targets = _targets(built)
            for source in built.paths:
                probes.extend(Probe(source, address, p) for address in targets for p in ("tcp", "udp", "icmp"))
            probes.extend(_to_published(built))
            for one in probes:
                flow = Flow(source=one.source, target=one.address, protocol=one.protocol, port=one.port)
                said.append(reach(world, flow, host))
            exchange = Exchange(built)
            try:
                await exchange.open()
                expected = [i for i, one in enumerate(probes) if _is_expected(one, said[i])]
                reached.update(await exchange.run(probes, expected, 10.0 if rules is None else 0.5))
            finally:
                exchange.close()

    body()
    return len(probes), [
        f"{probe.source} -> {probe.address} port {probe.port}/{probe.protocol}: "
        f"{'arrives' if i in reached else 'does not arrive'}, but reach says {answer.reason.code}: {answer.sentence}"
        for i, (probe, answer) in enumerate(zip(probes, said, strict=True))
        if _is_expected(probe, answer) != (i in reached)
    ]


def _is_expected(probe: Probe, answer: Reach) -> bool:
    """Nobody listens on a published number but by way of the publication, so only what lands in a container arrives."""
    return answer.allowed and (probe.port == PORT or bool(answer.landing))


def _targets(built: Built) -> list[str]:
    """Everybody's addresses, and one on each network that nobody has."""
    found = [address for word in built.paths for address in built.addresses(word)]
    return found + [str(ip_network(s.subnet)[199]) for n in built.world.networks.values() for s in n.subnets]


def _to_published(built: Built) -> list[Probe]:
    """From everybody to every published port at every address of the host, and at the loopback addresses."""
    published = {
        (port.family, port.protocol, port.host_port)
        for container in built.world.containers.values()
        for endpoint in container.endpoints
        for port in endpoint.ports
        if port.host_port
    }
    return [
        Probe(source, address, protocol, number)
        for source in built.paths
        for address in [*built.addresses(HOST), "127.0.0.1", "::1"]
        for family, protocol, number in sorted(published)
        if (":" in address) == (family == 6)
    ]


def _describe(world: World) -> str:
    lines = [
        f"network {n.name}: internal={n.is_internal} families={n.families} default bridge={n.is_default_bridge} "
        f"options={n.options}"
        for n in world.networks.values()
    ]
    lines += [
        f"container {c.name}: "
        + ", ".join(
            f"{e.network_name} {e.ipv4} {e.ipv6} priority={e.config.gw_priority} "
            + " ".join(f"{ports.describe(p.host_ip, p.host_port)}/{p.protocol}" for p in e.ports)
            for e in c.endpoints
        )
        + f" exposes {[*c.config.exposed_ports]} links to {[world.containers[link.target].name for link in c.links]}"
        for c in world.containers.values()
    ]
    return "\n".join(lines)
