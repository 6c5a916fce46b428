"""Who is meant: the addresses that a word means to somebody, looked up as the sandbox itself would look it up.

Imports `rules` and `model` only; pure. Must never judge whether traffic arrives there: `reach` does.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

from tsunagu.model.container import Container
from tsunagu.model.errors import EngineError
from tsunagu.model.world import World

from . import gateways, links, lookup, policy, remedies, routes
from .flows import (
    GATEWAY,
    HOST,
    NEIGHBOUR,
    OUTSIDE,
    SAMPLES,
    Flow,
    Host,
    Party,
    Refused,
    addresses_of,
    both_of,
    literal_of,
)
from .reasons import Fact
from .sandboxes import joins, owner_of, sharers

Candidate: TypeAlias = tuple[str, Container | None]  # an address, and the container that has it


class Targets:
    """The meaning of a flow's target. Each step that is found is told to `note`."""

    def __init__(self, world: World, flow: Flow, host: Host, note: Callable[[str], None]) -> None:
        self.world = world
        self.flow = flow
        self.host = host
        self._note = note

    def running(self, party: Party) -> None:
        """Refuse a container that does not run: it sends nothing."""
        if party.container is not None:
            if not party.container.is_running:
                raise self._away(party.container)
            if party.container.is_paused:
                raise self._frozen(party.container)
            self._note(f"{party.container.name} is running")
            self._shared(party.container)

    def _alive(self, container: Container) -> None:
        """Refuse a target that does not run, unless others live on in its sandbox: they are found at its addresses."""
        if not container.is_running and joins(container):
            raise self._away(container)
        if not container.is_running:
            others = [one.name for one in sharers(self.world, container)]
            if not others:
                raise self._away(container)
            listed = ", ".join(others)
            self._note(f"{container.name} is {container.state.status.value}; in its sandbox there still is {listed}")
            return
        self._note(f"{container.name} is running")
        self._shared(container)

    def _shared(self, container: Container) -> None:
        owner = owner_of(self.world, container)
        if owner.id != container.id:
            self._note(f"{container.name} shares the sandbox of {owner.name}: its interfaces, addresses and ports")

    def awake(self, container: Container) -> None:
        """Refuse a target whose sandbox has nobody left but the frozen: others there may be who listens."""
        here = sharers(self.world, container)
        if here and all(one.is_paused for one in here):
            raise self._frozen(here[0])

    def _frozen(self, container: Container) -> Refused:
        return Refused(Fact.PAUSED, remedies.wake(container), container=container.name)

    def _away(self, container: Container) -> Refused:
        if container.is_restarting:
            state = container.state
            words = {"container": container.name, "code": state.exit_code, "count": state.restart_count}
            return Refused(Fact.RESTARTING, remedies.log(container), **words)
        hint = remedies.start(self.world, container)
        return Refused(Fact.NOT_RUNNING, hint, container=container.name, status=container.state.status.value)

    def candidates(self, source: Party) -> list[Candidate]:
        """Return the addresses that the target's word means to the source, in the order they are tried.

        Raises Refused when it means nothing, or nobody who has an address.
        """
        word = self.flow.target
        if literal := literal_of(word):
            return [(literal, routes.holder_of(self.world, literal))]
        if source.container is not None and not source.is_host:
            sandbox = owner_of(self.world, source.container)
            if sandbox.links and (linked := self._linked(sandbox, word)):
                return linked
            found = lookup.resolve(self.world, sandbox, word)
            if found.holders:
                return self._resolved(sandbox, found)
            if found.link:
                raise Refused(
                    Fact.LINK_TARGET_AWAY, remedies.link(self.world, sandbox, word), name=word, source=source.word
                )
        container = self._container(word)
        if container is not None:
            return self._container_target(source, container)
        if (special := self._special(source, word)) is not None:
            return special
        self._nobody(source, word)
        raise AssertionError("unreachable")

    def _linked(self, sandbox: Container, word: str) -> list[Candidate]:
        """The hosts file, which is asked before any name server: what legacy links of the default bridge give."""
        link, target = links.named(self.world, sandbox, word) or (None, None)
        if link is None or target is None:
            return []
        found = [(a, target) for a, names in links.hosts_entries(self.world, sandbox) if word in names.split()]
        if not found:
            hint = remedies.start(self.world, target) if not target.is_running else ""
            raise Refused(Fact.LINK_TARGET_AWAY, hint, name=word, source=sandbox.name)
        listed = ", ".join(address for address, _ in found)
        self._note(f"{word} is a link of {sandbox.name} to {target.name}: {listed}")
        return [*found]

    def _resolved(self, sandbox: Container, found: lookup.Lookup) -> list[Candidate]:
        network = self.world.networks[found.network_id]
        listed = ", ".join(f"{h.container.name} ({both_of(h.endpoint)})" for h in found.holders)
        self._note(f"{self.flow.target} is known to {sandbox.name} on network {network.name}: {listed}")
        return [
            (address, holder.container)
            for family in (4, 6)
            for holder in found.holders
            if (address := holder.endpoint.ipv4 if family == 4 else holder.endpoint.ipv6)
        ]

    def _container(self, word: str) -> Container | None:
        try:
            return self.world.container(word)
        except EngineError:
            return None

    def _container_target(self, source: Party, container: Container) -> list[Candidate]:
        """The word is a container, but no name that the source can look up."""
        world = self.world
        self._alive(container)
        target = owner_of(world, container)
        joined = [e for e in target.endpoints if e.is_joined]
        mine = owner_of(world, source.container) if source.container is not None else None
        if mine is not None and mine.id == target.id:
            return [("127.0.0.1", target)]
        if target.host.network_mode == "host":
            if source.is_host:
                return [("127.0.0.1", target)]
            return [(address, target) for address, _ in self._special(source, HOST) or []]
        for one, other, name in ((mine, target, source.word), (target, mine or target, container.name)):
            if one is not None and one.host.network_mode == "none":
                raise Refused(Fact.NETWORK_NONE, remedies.recreate(world, one, other), container=name)
        if not joined:
            raise Refused(Fact.NO_NETWORK, remedies.meet(world, mine or target, target), container=container.name)
        if mine is None or source.is_host:
            return addresses_of(joined, target)
        shared = [e for e in joined if (own := mine.endpoint_on(e.network_id)) is not None and own.is_joined]
        if not shared:
            raise Refused(
                policy.Reason.NO_SHARED_NETWORK,
                remedies.meet(world, mine, target),
                network=", ".join(e.network_name for e in joined),
            )
        if self.flow.target == container.name and not any(world.networks[e.network_id].has_names for e in shared):
            raise Refused(Fact.DEFAULT_BRIDGE, remedies.meet(world, mine, target))
        if self.flow.target == container.name and joins(container):
            hint = remedies.ask(self.flow, target)
            raise Refused(Fact.NO_OWN_NAME, hint, name=container.name, owner=target.name)
        # an id, or a name that another container bears there: it is meant by its address
        return addresses_of(shared, target)

    def _special(self, source: Party, word: str) -> list[Candidate] | None:
        if word in (OUTSIDE, NEIGHBOUR):
            families = [6] if routes.families_of(self.world, source) == {6} else [4]
            return [(SAMPLES[family], None) for family in families]
        if word in (HOST, GATEWAY, "host.docker.internal", "host-gateway"):
            if source.container is not None and not source.is_host:
                sandbox = owner_of(self.world, source.container)
                if sandbox.host.network_mode == "none":
                    raise Refused(
                        Fact.NETWORK_NONE, remedies.recreate(self.world, sandbox, sandbox), container=sandbox.name
                    )
                networks = [self.world.networks[e.network_id] for e in gateways.order(self.world, sandbox)]
                found = [
                    subnet.gateway
                    for family in (4, 6)
                    for network in networks
                    if network.has_host(family) and (subnet := network.subnet_of(family)) is not None
                ]
                if networks and not found:
                    raise Refused(Fact.HOST_ABSENT, family=networks[0].families[0], network=networks[0].name)
            else:
                found = list(self.host.addresses) or ["127.0.0.1"]
            return [(address, None) for address in found]
        return None

    def _nobody(self, source: Party, word: str) -> None:
        holders = lookup.elsewhere(self.world, word)
        if not holders or source.container is None:
            raise Refused(Fact.NAME_UNKNOWN, remedies.near(self.world, self.flow.source, word), name=word)
        mine = owner_of(self.world, source.container)
        here = [h for h in holders if mine.endpoint_on(h.endpoint.network_id) is not None]
        if here:  # on a network of ours, yet not answered: its container is away
            raise self._away(here[0].container)
        network = self.world.networks[holders[0].endpoint.network_id]
        raise Refused(
            Fact.NAME_IN_OTHER_NETWORK,
            remedies.join(self.world, network, mine),
            name=word, network=network.name, source=mine.name,
        )  # fmt: skip
