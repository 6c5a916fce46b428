"""Could this traffic arrive? `reach(world, flow)` answers for traffic that nobody has sent, and says why.

Names are looked up as the resolver would (`targets`), the packet is routed as the sandbox and the host would route it
(`routes`), and walked through the very rules that are in the kernel (`policy.programme`, `walk`), there and back.
Imports `rules` and `model` only; pure. Must never decide who may talk to whom: `policy` does.

What it cannot know: whether anybody listens (services/why.py probes that), and the host's firewall beyond our table.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from ipaddress import ip_address

from msgspec.structs import replace

from tsunagu.model.container import Container
from tsunagu.model.network import Network
from tsunagu.model.world import World

from . import entrances, policy, remedies, routes
from .flows import NEIGHBOUR, OUTSIDE, SAMPLES, Flow, Host, Party, Reach, Refused, Step, source_of
from .policy import Reason, Rule, Verdict
from .reasons import FINE, Cause, Fact
from .sandboxes import owner_of
from .targets import Candidate, Targets
from .walk import FOREIGN, Packet, rulings

MASKS = frozenset({Verdict.MASQUERADE, Verdict.SOURCE})  # the other end sees an address of the host


def reach(world: World, flow: Flow, host: Host | None = None, programme: Sequence[Rule] | None = None) -> Reach:
    """Return whether the flow's packets and their answers arrive, with the steps that lead to the answer.

    `programme` are the world's rules where the caller has them already. Raises Unknown when there is no such source.
    """
    return _Search(world, flow, host or Host(), policy.programme(world) if programme is None else programme).answer()


class _Search:
    def __init__(self, world: World, flow: Flow, host: Host, programme: Sequence[Rule]) -> None:
        self.world = world
        self.flow = flow
        self.host = host
        self.programme = programme
        self.uplink = host.uplink or FOREIGN
        self.steps: list[Step] = []
        self.candidates: list[Candidate] = []
        self.landing: Rule | None = None  # the published port that leads the traffic on
        self.rule: Rule | None = None  # that decided
        self.cause: Cause = Fact.NOT_OURS
        self.sentence = Fact.NOT_OURS.sentence

    def answer(self) -> Reach:
        source = source_of(self.world, self.flow.source)
        hint = ""
        try:
            targets = Targets(self.world, self.flow, self.host, self._note)
            targets.running(source)
            self.candidates = targets.candidates(source)
            self._judge(source)
            if self.landing is not None:
                targets.awake(self.world.containers[self.landing.container])
            elif (owner := self.candidates[0][1]) is not None:  # the one that was found to arrive
                targets.awake(owner)
        except Refused as no:
            self.cause, self.sentence, self.rule, hint = no.cause, no.sentence, no.rule, no.hint
            self.steps.append(Step(False, no.sentence, no.cause.code))
        holders = dict.fromkeys(c.id for _, c in self.candidates if c is not None)
        port = None
        if self.landing is not None:
            port, holders = self.landing.port, {self.landing.container: None}
        return Reach(
            allowed=self.cause in FINE,
            reason=self.cause,
            sentence=self.sentence,
            steps=tuple(self.steps),
            hint=hint,
            addresses=tuple(address for address, _ in self.candidates),
            holders=tuple(holders),
            landing=self.landing.target if self.landing is not None else "",
            landing_port=port.container_port if port is not None else 0,
            rule=self.rule,
        )

    def _note(self, text: str, cause: Cause | None = None) -> None:
        self.steps.append(Step(True, text, cause.code if cause else ""))

    # ---- is it let through

    def _judge(self, source: Party) -> None:
        """Judge every address; one that arrives is enough. Of the refusals the first one counts."""
        refusal: Refused | None = None
        refused: list[Step] = []
        for address, owner in self.candidates:
            known = len(self.steps)
            try:
                self._arrives(source, address, owner)
                self.candidates.sort(key=lambda one, chosen=address: one[0] != chosen)  # type: ignore[misc]
                return
            except Refused as no:
                if refusal is None:
                    refusal, refused = no, self.steps[known:]
                del self.steps[known:]
        self.steps += refused
        if refusal is None:
            raise Refused(Fact.NO_NETWORK, container=self.flow.target)
        raise refusal

    def _arrives(self, source: Party, address: str, owner: Container | None) -> None:
        self.landing = None
        mine = owner_of(self.world, source.container) if source.container is not None else None
        family = 6 if ":" in address else 4
        if source.is_host:
            self._from_host(address, owner, family)
        elif mine is None:
            self._from_outside(source, address, owner, family)
        elif ip_address(address).is_loopback or (owner is not None and owner.id == mine.id):
            target = owner.name if owner is not None and owner.id != mine.id else self.flow.target
            self._fine(Fact.SAME_SANDBOX, source=source.word, target=target)
        else:
            self._from_container(source, mine, address, owner, family)

    def _from_container(
        self, source: Party, mine: Container, address: str, owner: Container | None, family: int
    ) -> None:
        if mine.host.network_mode == "none":
            raise Refused(Fact.NETWORK_NONE, remedies.recreate(self.world, mine, owner or mine), container=mine.name)
        if family not in routes.families_of(self.world, source):
            hint = remedies.meet(self.world, mine, owner, family) if owner is not None else ""
            raise Refused(Fact.FAMILY_MISMATCH, hint, source=mine.name, family=family, address=address)
        endpoint, is_direct = routes.way_out(self.world, mine, address, family)
        network = self.world.networks[endpoint.network_id]
        own = endpoint.ipv6 if family == 6 else endpoint.ipv4
        way = "directly" if is_direct else "by its default route"
        self._note(f"{mine.name} sends from {own} on network {network.name}, {way}")
        there = routes.place_of(self.world, self.host, address)
        if there is None and not is_direct:
            self._to_outside(mine, own, address, network, family)
            return
        if isinstance(there, Network):
            self._to_container(mine, own, address, owner, network, there, is_direct=is_direct)
            return
        if self._is_led_on(
            self._walk(self._to_host(own, address, network.bridge), mine, None), own, mine, network.bridge
        ):
            return
        self._walk(Packet(source=address, destination=own, outgoing=network.bridge, is_established=True), mine, None)
        self._fine(Fact.HOST_ADDRESS, address=address)

    def _to_container(
        self, mine: Container, own: str, address: str, owner: Container | None,
        network: Network, there: Network, *, is_direct: bool,
    ) -> None:  # fmt: skip
        family = 6 if ":" in address else 4
        if not is_direct:
            routes.demand_forwarding(self.host, family)
        decided = self._walk(self._direct(own, address, network.bridge, there.bridge), mine, owner)
        if not is_direct:
            routes.demand_host(there, family)
        if owner is None:
            raise routes.unused(address, there)
        masked = next((rule for rule in decided if rule.verdict in MASKS), None)
        if is_direct or (masked is not None and not masked.source):  # it answers on the network it was asked on
            self._walk(self._reply(address, own, there.bridge, network.bridge), mine, owner)
        else:
            self._answers(owner, address, own, masked.source if masked is not None else "", mine, network.bridge)
        self._accepted(decided)

    def _answers(
        self, target: Container, address: str, own: str, masked: str, mine: Container | None, outgoing: str
    ) -> None:
        """The target sees a sender who is not on the network it was asked on, or `masked`, an address of the host, in
        his place; and answers by its own routes: by way of the host, or directly when both are on another network too.
        """
        family = 6 if ":" in address else 4
        endpoint, is_direct = routes.way_out(self.world, target, masked or own, family)
        on = self.world.networks[endpoint.network_id].bridge
        packet = self._reply(address, own, on, on if is_direct and not masked else outgoing)
        kept = family in self.host.bridge_netfilter
        self._walk(replace(packet, is_translated=bool(masked), is_kept_on_bridge=kept), mine, target)

    def _to_outside(self, mine: Container, own: str, address: str, network: Network, family: int) -> None:
        routes.demand_forwarding(self.host, family)
        decided = self._walk(self._direct(own, address, network.bridge, self.uplink), mine, None)
        if self.flow.target in (OUTSIDE, NEIGHBOUR) or address in SAMPLES.values():
            has_route = family in self.host.outside
        else:
            has_route = True
        if not has_route:
            raise Refused(Fact.HOST_HAS_NO_ROUTE, address=f"the outside (IPv{family})")
        is_masked = any(rule.verdict in MASKS for rule in decided)
        if not is_masked and self.flow.target != NEIGHBOUR and address not in self.host.neighbours:
            raise Refused(Fact.NO_WAY_BACK, remedies.outside(self.world, mine), network=network.name)
        self._walk(self._reply(address, own, self.uplink, network.bridge), mine, None)
        self._accepted([rule for rule in decided if rule.verdict is Verdict.ACCEPT])

    def _from_host(self, address: str, owner: Container | None, family: int) -> None:
        there = routes.place_of(self.world, self.host, address)
        if not isinstance(there, Network):
            if there is None and family not in self.host.outside:
                raise Refused(Fact.HOST_HAS_NO_ROUTE, address=address)
            # a connection to an own address comes from that very address
            if there is not None and self._is_led_on(
                self._walk(self._to_host(address, address, ""), None, None), address, None, ""
            ):
                return
            self._fine(Fact.NOT_OURS if there is None else Fact.HOST_ADDRESS, address=address)
            return
        routes.demand_host(there, family)
        subnet = there.subnet_of(family)
        own = subnet.gateway if subnet is not None else ""
        self._walk(self._direct(own, address, "", there.bridge), None, owner)
        if owner is None:
            raise routes.unused(address, there)
        self._walk(self._reply(address, own, there.bridge, ""), None, owner)
        self._fine(Fact.HOST_REACHES, network=there.name)

    def _from_outside(self, source: Party, address: str, owner: Container | None, family: int) -> None:
        there = routes.place_of(self.world, self.host, address)
        if there is None:
            self._fine(Fact.NOT_OURS)
            return
        stranger = SAMPLES[family]
        if not isinstance(there, Network):
            is_loopback = ip_address(address).is_loopback  # theirs, not the host's
            if is_loopback or (source.word == OUTSIDE and address not in self.host.addresses):
                raise Refused(Fact.NO_ROUTE, source=source.word, family=family)
            if self._is_led_on(
                self._walk(self._to_host(stranger, address, self.uplink), None, None), stranger, None, self.uplink
            ):
                return
            self._fine(Fact.HOST_ADDRESS, address=address)
            return
        # also for somebody without a route: what the rules say is the better answer
        decided = self._walk(self._direct(stranger, address, self.uplink, there.bridge), None, owner)
        routes.demand_forwarding(self.host, family)
        routes.demand_host(there, family)
        if owner is None:
            raise routes.unused(address, there)
        if source.word == OUTSIDE:
            subnet = there.subnet_of(family)
            raise Refused(Fact.NEEDS_ROUTE, source=source.word, subnet=subnet.subnet if subnet is not None else address)
        self._answers(owner, address, stranger, "", None, self.uplink)
        self._accepted(decided)

    # ---- packets

    def _direct(self, own: str, address: str, incoming: str, outgoing: str) -> Packet:
        return Packet(
            source=own, destination=address, incoming=incoming, outgoing=outgoing,
            protocol=self.flow.protocol, port=self.flow.port,
        )  # fmt: skip

    def _reply(self, address: str, own: str, incoming: str, outgoing: str) -> Packet:
        return Packet(
            source=address, destination=own, incoming=incoming, outgoing=outgoing,
            protocol=self.flow.protocol, port=self.flow.port, is_established=True,
        )  # fmt: skip

    # ---- published ports

    def _to_host(self, source: str, address: str, incoming: str) -> Packet:
        return Packet(
            source=source, destination=address, incoming=incoming, protocol=self.flow.protocol, port=self.flow.port
        )

    def _is_led_on(self, decided: Iterable[Rule], own: str, mine: Container | None, incoming: str) -> bool:
        """Tell whether a published port leads the packet on, and judge the rest of its way, there and back."""
        rule = next((rule for rule in decided if rule.verdict is Verdict.TRANSLATE), None)
        if rule is None or rule.port is None:
            return False
        target = self.world.containers[rule.container]
        port = rule.port.container_port
        self._note(f"the host's port {self.flow.port}/{self.flow.protocol} leads to {target.name}, port {port}")
        if incoming:
            routes.demand_forwarding(self.host, rule.port.family)
        packet = Packet(
            source=own, destination=rule.target, incoming=incoming, outgoing=rule.bridge,
            protocol=self.flow.protocol, port=port, is_translated=True,
            is_kept_on_bridge=rule.port.family in self.host.bridge_netfilter,
        )  # fmt: skip
        onward = self._walk(packet, mine, target)
        routes.demand_host(self.world.networks[rule.network], rule.port.family)
        masked = next((one for one in onward if one.verdict in MASKS), None)
        if masked is not None and masked.source:
            self._answers(target, rule.target, own, masked.source, mine, incoming)
        elif masked is None:
            self._comes_back(own, mine, target, rule)
        back = Packet(
            source=rule.target, destination=own, incoming=rule.bridge, outgoing=incoming,
            is_established=True, is_translated=True,
        )  # fmt: skip
        self._walk(back, mine, target)
        self.landing = self.rule = rule
        self._fine(rule.reason)
        return True

    def _comes_back(self, own: str, mine: Container | None, target: Container, rule: Rule) -> None:
        """The target sees the sender's address. Where both are on another network too, it answers there, past the
        host, as somebody whom the sender has never asked."""
        family = 6 if ":" in own else 4
        endpoint, is_direct = routes.way_out(self.world, target, own, family)
        if mine is not None and is_direct and endpoint.network_id != rule.network:
            network = self.world.networks[endpoint.network_id]
            if family not in self.host.bridge_netfilter or mine.id == target.id:
                raise Refused(Fact.NO_WAY_BACK, network=network.name)
            # bridge netfilter translates answers on any bridge, where that bridge lets them pass
            on = network.bridge
            self._walk(
                Packet(source=rule.target, destination=own, incoming=on, outgoing=on, is_established=True), mine, target
            )

    # ---- pieces

    def _walk(self, packet: Packet, mine: Container | None, owner: Container | None) -> list[Rule]:
        """Walk one packet; a rule that drops it ends the search."""
        decided = rulings(self.programme, packet)
        for rule in decided:
            network = self.world.networks[rule.network]
            if rule.verdict is Verdict.DROP:
                hint = remedies.rule(self.world, rule.reason, network, mine, owner)
                no = Refused(rule.reason, hint, network=network.name)
                if owner is not None and rule.reason in (Reason.UNPUBLISHED, Reason.DIRECT_ROUTING):
                    said, no.hint = entrances.way_in(self.world, self.flow, owner)
                    no.sentence += f"; {said}" if said else ""
                no.rule = rule
                raise no
        return list(decided)

    def _accepted(self, decided: Iterable[Rule]) -> None:
        accepted = [rule for rule in decided if rule.verdict is Verdict.ACCEPT]
        if accepted:
            self.rule = accepted[0]
            self._fine(accepted[0].reason, network=self.world.networks[accepted[0].network].name)
        else:
            self._fine(Fact.NOT_OURS)

    def _fine(self, cause: Cause, **words: object) -> None:
        self.cause, self.sentence = cause, cause.sentence.format(**words)
        self._note(self.sentence, cause)
