"""The map: networks, who is on them, and who reaches whom, for a whole world at once.

`reach` answers for two ends; a map of 300 containers has 90,000 pairs. So containers in which `reach` could see no
difference form one `Group`, and of pairs that look alike in everything that rules, routes and names depend on, one is
asked about. Imports `reach` and its neighbours; pure. Must never decide who may talk to whom: every answer here is one
that `reach` gave.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from enum import StrEnum

import msgspec
from msgspec.structs import replace

from tsunagu.model.container import Container
from tsunagu.model.errors import NotFound
from tsunagu.model.network import BRIDGE_NAME, Network, PublishedPort
from tsunagu.model.world import World

from . import gateways, lookup, names, policy
from .flows import OUTSIDE, SAMPLES, Flow, Host, Reach
from .policy import Rule, Verdict
from .reach import reach
from .sandboxes import owner_of


class By(StrEnum):
    """What one container has to call another to reach it."""

    NAME = "name"
    ADDRESS = "address"


class Group(msgspec.Struct, frozen=True):
    """Running containers (ids) that reach the same, and are reached by the same. `code` is the reason for `leads_out`;
    `members_meet` tells how they reach each other, None when they do not."""

    members: tuple[str, ...]
    leads_out: bool
    code: str
    members_meet: By | None = None


class Way(msgspec.Struct, frozen=True):
    """The members of one group reach those of another one (indexes into `Topology.groups`); `code` is the reason."""

    source: int
    target: int
    by: By
    code: str


class Door(msgspec.Struct, frozen=True):
    """A port of the host that leads to a container on a network (ids); not the host alone reaches it if `is_open`."""

    container: str
    network: str
    port: PublishedPort
    is_open: bool
    code: str


class Topology(msgspec.Struct, frozen=True, kw_only=True):
    """What a map shows. Two groups without a `Way` do not reach each other. Containers that are not running are on
    their networks, and in no group."""

    networks: tuple[Network, ...]
    containers: tuple[Container, ...]
    groups: tuple[Group, ...]
    ways: tuple[Way, ...]
    doors: tuple[Door, ...]


def topology(world: World, host: Host | None = None, words: Iterable[str] = ()) -> Topology:
    """Return the map of a world; or of what `words` name, networks with all who are on them, containers with their
    networks and neighbours. Networks that nobody is on are left out unless a user made them. Raises NotFound."""
    network_ids, container_ids = set[str](), set[str]()
    for word in words:
        found, one = _meant(world, word)
        network_ids |= found
        container_ids |= one
    is_whole = not network_ids and not container_ids
    shown = [
        container
        for container in world.containers.values()
        if is_whole or container.id in container_ids or not network_ids.isdisjoint(_network_ids(container))
    ]
    used = {identifier for container in shown for identifier in _network_ids(container)}
    networks = [
        network
        for network in world.networks.values()
        if (network.id in used or not network.is_builtin) and (is_whole or network.id in network_ids)
    ]
    survey = _Survey(world, host or Host(), shown)
    groups, ways = survey.groups()
    return Topology(
        networks=tuple(networks), containers=tuple(shown), groups=groups, ways=ways, doors=survey.doors(),
    )  # fmt: skip


def _meant(world: World, word: str) -> tuple[set[str], set[str]]:
    """Return the networks and the containers that a word stands for; a container comes with its networks."""
    if word not in world.network_ids:
        try:
            container = world.container(word)
        except NotFound:
            pass
        else:
            return set(_network_ids(owner_of(world, container))), {container.id}
    try:
        return {world.network(word).id}, set()
    except NotFound:
        raise NotFound(f"No such network or container: {word}") from None


def _network_ids(container: Container) -> list[str]:
    return [endpoint.network_id for endpoint in container.endpoints if endpoint.network_id]


class _Traits(msgspec.Struct, frozen=True):
    """All that `reach` looks at in one running container, its address and its name aside: two with the same traits
    get the same answers. `alone` is an id where something sets a container apart from all others."""

    mode: str
    is_up: bool
    ends: tuple[tuple[str, bool, bool], ...]  # network id, has IPv4, has IPv6; in the order of gateways
    sandbox: str  # "" when nobody shares it
    is_owner: bool  # whose names the sandbox's addresses have
    alone: str


class _Survey:
    def __init__(self, world: World, host: Host, shown: list[Container]) -> None:
        self._world = world
        self._host = host
        self._shown = shown
        self._running = [container for container in shown if container.is_running]
        self._kinds = {network.id: _kind(network) for network in world.networks.values()}
        self._answers: dict[object, tuple[By | None, str]] = {}
        self._bearers: dict[str, list[Container]] = {}
        for container in world.containers.values():
            if container.is_running:
                registered = names.registrations(world, container).values()
                for name in {name.lower() for one in registered for name in one.names}:
                    self._bearers.setdefault(name, []).append(container)
        self._alone = self._singular()
        self._outsides: dict[object, Reach] = {}
        self._programme = policy.programme(world)
        self._rules: dict[str, list[tuple[int, Rule]]] = {}  # by network, with their places in the programme
        for place, rule in enumerate(self._programme):
            if rule.verdict is not Verdict.TRANSLATE:
                self._rules.setdefault(rule.network, []).append((place, rule))

    def groups(self) -> tuple[tuple[Group, ...], tuple[Way, ...]]:
        """Return the groups, in the order of their oldest members, and every way from one to another."""
        found: dict[_Traits, list[Container]] = {}
        shared = self._sharing()
        for container in self._running:
            found.setdefault(self._traits(container, shared), []).append(container)
        traits, members = list(found), list(found.values())
        likes = [self._likeness(one) for one in traits]
        on = [{network_id for network_id, _, _ in one.ends} for one in traits]
        groups, ways = [], []
        for i, one in enumerate(traits):
            outside = self._outside(members[i][0], (likes[i], one.alone))
            among, _ = self._pair(one, one, members[i][0], members[i][1]) if len(members[i]) > 1 else (None, "")
            groups.append(Group(tuple(c.id for c in members[i]), outside.allowed, outside.reason.code, among))
            for j, other in enumerate(traits):
                if i == j:
                    continue
                if on[i].isdisjoint(on[j]) and (one.sandbox != other.sandbox or not one.sandbox):
                    # nothing in common: which networks they are does not matter, only of what kind
                    key: object = (likes[i], likes[j])
                    by, code = self._answers.get(key) or self._ask(key, members[i][0], members[j][0], is_named=False)
                else:
                    by, code = self._pair(one, other, members[i][0], members[j][0])
                if by is not None:
                    ways.append(Way(i, j, by, code))
        return tuple(groups), tuple(ways)

    def doors(self) -> tuple[Door, ...]:
        """Return every published port of the running containers."""
        found = []
        answers: dict[object, tuple[bool, str]] = {}
        for container in self._running:
            for endpoint in container.endpoints:
                for port in endpoint.ports:
                    key = (self._kinds[endpoint.network_id], port.host_ip, port.family)
                    if key not in answers:
                        said = self._knock(port)
                        answers[key] = said.allowed, said.reason.code
                    found.append(Door(container.id, endpoint.network_id, port, *answers[key]))
        return tuple(found)

    # ---- what sets containers apart

    def _traits(self, container: Container, shared: set[str]) -> _Traits:
        sandbox = owner_of(self._world, container)
        mode = sandbox.host.network_mode
        return _Traits(
            mode=mode if mode in ("host", "none") else "",
            is_up=sandbox.is_running,
            ends=tuple((e.network_id, bool(e.ipv4), bool(e.ipv6)) for e in gateways.order(self._world, sandbox)),
            sandbox=sandbox.id if sandbox.id in shared else "",
            is_owner=sandbox.id == container.id,
            alone=container.id if not self._alone.isdisjoint((container.id, sandbox.id)) else "",
        )

    def _sharing(self) -> set[str]:
        """Return the sandboxes (ids of their containers) that more than one container lives in."""
        count = Counter(owner_of(self._world, container).id for container in self._running)
        return {identifier for identifier, number in count.items() if number > 1}

    def _singular(self) -> set[str]:
        """Return the containers about which no other one tells anything, because of names: those with links, those
        that links mean or hide, those whose name others bear too, and those others."""
        found = set()
        for container in self._running:
            for target, alias in _links(container):
                found |= {container.id, *(self._world.container_ids.get(word, "") for word in (target, alias))}
            bearers = {container.id, *(one.id for one in self._bearers.get(container.name.lower(), ()))}
            if len(bearers) > 1:
                found |= bearers
        return found

    def _likeness(self, one: _Traits) -> object:
        """What remains of the traits when it does not matter which networks they are."""
        return one.mode, one.is_up, one.is_owner, tuple((self._kinds[n], has4, has6) for n, has4, has6 in one.ends)

    # ---- asking

    def _pair(self, one: _Traits, other: _Traits, source: Container, target: Container) -> tuple[By | None, str]:
        """Answer for two that have something in common: alike is a pair with the same pattern of networks."""
        mine = {network_id: index for index, (network_id, _, _) in enumerate(one.ends)}
        pattern = tuple(mine.get(network_id, -1) for network_id, _, _ in other.ends)
        is_same = one.sandbox == other.sandbox and bool(one.sandbox)
        key = (self._likeness(one), self._likeness(other), pattern, is_same, one.alone, other.alone)
        return self._answers.get(key) or self._ask(key, source, target)

    def _ask(
        self, key: object, source: Container, target: Container, *, is_named: bool = True
    ) -> tuple[By | None, str]:
        answer = self._answers[key] = self._reach(source, target, is_named=is_named)
        return answer

    def _reach(self, source: Container, target: Container, *, is_named: bool) -> tuple[By | None, str]:
        """Return how `source` has to call `target`, None when it cannot reach it, and the reason."""
        mine, yours = owner_of(self._world, source), owner_of(self._world, target)
        world, programme = self._cut(source, target)

        def ask(word: str) -> Reach:
            return reach(world, Flow(source=source.id, target=word, protocol="icmp"), self._host, programme)

        if is_named and any(
            holder.container.id == yours.id for holder in lookup.resolve(world, mine, target.name).holders
        ):
            said = ask(target.name)
            if said.allowed:
                return By.NAME, said.reason.code
        said = ask(target.id)
        if said.allowed:
            return By.ADDRESS, said.reason.code
        for endpoint in yours.endpoints:  # those on other networks too
            for address in (endpoint.ipv4, endpoint.ipv6):
                if address and endpoint.is_joined and (found := ask(address)).allowed:
                    return By.ADDRESS, found.reason.code
        return None, said.reason.code

    def _cut(self, source: Container, target: Container) -> tuple[World, tuple[Rule, ...]]:
        """Return the world with the two, all who bear the target's name, and their networks only; and its rules.

        No rule of a network depends on another one (`policy`), and published ports have no part in what is sent to a
        container's own address; so the answers are the same, at a cost that does not grow with the world.
        """
        words = {target.name, *(meant for meant, alias in _links(source) if alias == target.name)}
        bearers = [one for word in words for one in self._bearers.get(word.lower(), ())]
        ends = [source, target, owner_of(self._world, source), owner_of(self._world, target)]
        chosen = {container.id: container for container in (*ends, *bearers)}
        networks = {
            network_id: self._world.networks[network_id] for one in chosen.values() for network_id in _network_ids(one)
        }
        rules = sorted(
            (pair for network_id in networks for pair in self._rules.get(network_id, ())), key=lambda pair: pair[0]
        )
        world = World(
            networks=networks,
            containers=chosen,
            network_ids={network.name: network.id for network in networks.values()},
            container_ids={container.name: container.id for container in chosen.values()},
        )
        return world, tuple(rule for _, rule in rules)

    def _outside(self, container: Container, key: object) -> Reach:
        if key not in self._outsides:
            flow = Flow(source=container.id, target=OUTSIDE, protocol="icmp")
            self._outsides[key] = reach(self._world, flow, self._host, self._programme)
        return self._outsides[key]

    def _knock(self, port: PublishedPort) -> Reach:
        """Ask for somebody outside who sends to a published port of the host."""
        address = SAMPLES[port.family] if port.is_for_any_address else port.host_ip
        host = replace(self._host, addresses=(*self._host.addresses, address))
        flow = Flow(source=OUTSIDE, target=address, protocol=port.protocol, port=port.host_port)
        return reach(self._world, flow, host, self._programme)


def _links(container: Container) -> list[tuple[str, str]]:
    """Return every link of a container as (target, alias)."""
    texts = [*(container.host.links or ()), *(text for e in container.endpoints for text in e.config.links)]
    return [names.parse_link(text) for text in texts]


def _kind(network: Network) -> object:
    """All that rules, routes and names can see of a network, but which one it is."""
    options = tuple(sorted((key, value) for key, value in network.options.items() if key != BRIDGE_NAME))
    families = tuple((":" in subnet.subnet, bool(subnet.gateway)) for subnet in network.subnets)
    flags = (network.enable_ipv4, network.enable_ipv6, network.is_internal, network.is_builtin, network.has_user_subnet)
    return network.driver, flags, options, families
