"""Is everything as the world wants it, and if not: put it right. `GET` and `POST /tsunagu/doctor`.

Gathers what the kernel shows, lets `rules.checkup` compare, and repairs what the engine can repair alone: never a
process, never another firewall's rules. May import kernel, rules and wire.
"""

from __future__ import annotations

import asyncio
import os
import socket
import time
from collections.abc import Awaitable, Callable, Sequence

import msgspec

from tsunagu.kernel import checkup as host_state
from tsunagu.kernel import host
from tsunagu.kernel.network import NetworkKernel
from tsunagu.model.checkup import Finding, Level, SandboxState
from tsunagu.model.container import Container
from tsunagu.model.errors import EngineError, KernelFailure, Unavailable
from tsunagu.model.network import BridgePlan, InterfacePlan
from tsunagu.model.world import World
from tsunagu.rules import checkup, names
from tsunagu.rules.sandboxes import sharers
from tsunagu.wire import dns, nft_listing

from . import attachments
from .asking import ask
from .engine import Engine
from .firewall import Firewall
from .leases import Leases
from .lifecycle import Lifecycle
from .networks import bridge_plan
from .orphans import Found, Orphans
from .resolver import Resolver

_LOOK_AGAIN = 0.5  # seconds after which what is still nobody's is a leftover
_ASK_SECONDS = 2.0
_AT_ONCE = 32  # sandboxes that are looked at side by side
_RECENTLY = 600.0  # seconds
_SHOWN = 5  # differences of the rules that are told one by one


_DATAGRAMS = socket.SOCK_DGRAM
_ORDER = ("forwarding", "bridge", "interface", "firewall", "names", "ports", "leases", "leftovers")
_KINDS = {
    "processes": "the runtime's state of container",
    "sandboxes": "network namespace",
    "links": "interface",
    "mounts": "the mounted root file system of container",
    "directories": "the directory of container",
}


class Repair(msgspec.Struct, frozen=True, kw_only=True):
    """Something that was put right, or could not be: `error` is "" or why not."""

    text: str
    error: str = ""


class _Plans(msgspec.Struct, frozen=True, kw_only=True):
    """What one world wants: bridges by network id, owners of living sandboxes and their interfaces by owner id."""

    world: World
    bridges: dict[str, BridgePlan]
    owners: dict[str, Container]
    interfaces: dict[str, list[InterfacePlan]]


class Doctor:
    def __init__(
        self,
        engine: Engine,
        kernel: NetworkKernel,
        firewall: Firewall,
        lifecycle: Lifecycle,
        resolver: Resolver,
        orphans: Orphans,
    ) -> None:
        self._engine = engine
        self._kernel = kernel
        self._firewall = firewall
        self._lifecycle = lifecycle
        self._resolver = resolver
        self._orphans = orphans
        self._left = Found()
        self._one_at_a_time = asyncio.Lock()

    async def examine(self) -> list[Finding]:
        """Return one or more findings for each topic; changes nothing."""
        async with self._one_at_a_time:
            return await self._examine()

    async def repair(self) -> tuple[list[Repair], list[Finding]]:
        """Put right what can be; returns what was done and how things are now."""
        async with self._one_at_a_time:
            wanted: dict[tuple[str, str], list[str]] = {}
            for finding in await self._examine():
                if finding.repair:
                    wanted.setdefault((finding.repair, finding.subject), []).append(finding.text)
            if not wanted:
                return [], await self._examine()
            done = []
            # bridges before what hangs on them
            for (kind, subject), texts in sorted(wanted.items(), key=lambda one: _ORDER.index(one[0][0])):
                try:
                    await self._put_right(kind, subject)
                    done += [Repair(text=text) for text in texts]
                except (EngineError, OSError) as error:
                    done += [Repair(text=text, error=str(error).replace("\n", "; ")) for text in texts]
            return done, await self._examine()

    # ---- examine

    async def _examine(self) -> list[Finding]:
        plans = self._plans()
        parts: Sequence[tuple[str, Callable[[_Plans], Awaitable[list[Finding]]]]] = (
            ("runtime", self._runtime),
            ("settings", self._settings),
            ("firewall", self._rules),
            ("other firewalls", self._others),
            ("links", self._links),
            ("sandboxes", self._sandboxes),
            ("names", self._names),
            ("ports and leases", self._held),
            ("disk", self._disk),
            ("leftovers", self._leftovers),
        )
        results = await asyncio.gather(*(self._guarded(topic, part(plans)) for topic, part in parts))
        gone = {
            owner_id
            for owner_id, owner in plans.owners.items()
            if self._engine.world.containers.get(owner_id) is not owner
        }
        names_gone = {plans.owners[one].name for one in gone}
        found = [finding for part in results for finding in part]
        if not gone:
            return found
        # whoever started, ended or moved meanwhile was looked at half before and half after
        return [
            one
            for one in found
            if one.level is Level.OK
            or not (one.subject in gone or any(name in one.text.split() for name in names_gone))
        ]

    async def _guarded(self, topic: str, part: Awaitable[list[Finding]]) -> list[Finding]:
        try:
            return await part
        except (EngineError, OSError) as error:
            return [Finding(topic=topic, level=Level.WRONG, text=f"cannot be looked at: {error}")]

    def _plans(self) -> _Plans:
        world = self._engine.world
        owners = self._lifecycle.sandboxes.living()
        return _Plans(
            world=world,
            bridges={n.id: bridge_plan(n) for n in world.networks.values() if n.driver == "bridge" and n.bridge},
            owners=owners,
            interfaces={
                owner.id: [
                    attachments.interface_plan(world, e, has_hairpin=attachments.publishes(owner))
                    for e in owner.endpoints
                    if e.is_joined and e.network_id in world.networks
                ]
                for owner in owners.values()
                if owner.host.network_mode != "host"
            },
        )

    async def _runtime(self, plans: _Plans) -> list[Finding]:
        try:
            found = await asyncio.to_thread(host.detect)
        except Unavailable as error:
            return [Finding(topic="runtime", level=Level.WRONG, text=error.message, remedy=error.hint)]
        if not found.conmon_version:
            return [Finding(topic="runtime", level=Level.WRONG, text=f"{found.conmon_path} does not work",
                            remedy="apt-get install --reinstall conmon")]  # fmt: skip
        text = f"{found.name} {found.version} and conmon {found.conmon_version} work"
        return [Finding(topic="runtime", level=Level.OK, text=text)]

    async def _settings(self, plans: _Plans) -> list[Finding]:
        paths = [
            "net/ipv4/ip_forward", "net/ipv6/conf/all/forwarding", "net/ipv4/conf/all/rp_filter",
            "net/bridge/bridge-nf-call-iptables",
        ]  # fmt: skip
        for plan in plans.bridges.values():
            paths += [f"net/ipv4/conf/{plan.name}/{name}" for name in ("rp_filter", "route_localnet")]
            paths.append(f"net/ipv6/conf/{plan.name}/disable_ipv6")
        values = await self._kernel.settings(paths)
        return checkup.forwarding(plans.world, values) + checkup.sysctls(plans.world, plans.bridges, values)

    async def _rules(self, plans: _Plans) -> list[Finding]:
        said = await self._firewall.differences()
        if len(said) > _SHOWN:
            said[_SHOWN:] = [f"and {len(said) - _SHOWN} differences more"]
        found = [
            Finding(topic="firewall", level=Level.WRONG, text=one, remedy="tsunagu doctor --fix", repair="firewall")
            for one in said
        ]
        last = self._firewall.last_disturbance
        if last is not None and time.time() - last.at / 1e9 < _RECENTLY:
            text = (
                f"{last.program or 'somebody'} (pid {last.pid}) changed our table, which was restored after "
                f"{last.took * 1000:.0f} ms ({last.count} times since the engine started)"
            )
            found.append(Finding(topic="firewall", level=Level.WARNING, text=text,
                                 remedy="let it leave our table alone (docs/firewall.md)"))  # fmt: skip
        if not said:
            table = self._engine.instance.nft_table
            counted = sum(count.packets for count in (await self._firewall.counters()).values())
            text = f"table {table} is equal to the world; its rules have met {counted} packets"
            found.insert(0, Finding(topic="firewall", level=Level.OK, text=text))
        return found

    async def _others(self, plans: _Plans) -> list[Finding]:
        text = await self._kernel.list_firewall("ruleset")
        chains = nft_listing.forward_chains(text, self._engine.instance.nft_table)
        chains += await self._kernel.legacy_chains()
        bridges = {plan.name for plan in plans.bridges.values()}
        return checkup.others(chains, bridges, self._engine.instance.bridge_prefix)

    async def _links(self, plans: _Plans) -> list[Finding]:
        links = await self._kernel.link_states()
        return checkup.bridges(plans.world, plans.bridges, links) + checkup.interfaces(
            plans.owners, plans.interfaces, links
        )

    async def _sandboxes(self, plans: _Plans) -> list[Finding]:
        slots = asyncio.Semaphore(_AT_ONCE)

        async def look(owner: Container) -> SandboxState:
            pid = next((one.state.pid for one in sharers(plans.world, owner)), 0)
            async with slots:
                return await self._kernel.sandbox_state(self._lifecycle.sandboxes.path(owner.id), pid)

        states = await asyncio.gather(*(look(plans.owners[owner_id]) for owner_id in plans.interfaces))
        return checkup.sandboxes(plans.owners, plans.interfaces, dict(zip(plans.interfaces, states, strict=True)))

    async def _names(self, plans: _Plans) -> list[Finding]:
        """Ask every sandbox's name server for the sandbox's own name: process, sockets, redirection and tables."""
        await self._resolver.refresh()
        slots = asyncio.Semaphore(_AT_ONCE)

        async def try_out(owner: Container) -> str:
            async with slots:
                return await self._asks(plans.world, owner)

        asked = [o for o in plans.owners.values() if names.needs_resolver(plans.world, o)]
        wrong = await asyncio.gather(*(try_out(owner) for owner in asked))
        found = [
            Finding(topic="names", level=Level.WRONG, text=f"the name server inside {owner.name} {what}",
                    remedy=f"tsunagu doctor --fix, or tsunagu restart {owner.name}", repair="names", subject=owner.id)
            for owner, what in zip(asked, wrong, strict=True)
            if what
        ]  # fmt: skip
        if found:
            return found
        where = f"{len(asked)} sandbox{'' if len(asked) == 1 else 'es'}"
        text = f"the name server (pid {self._resolver.status['pid']}) answers in {where}"
        return [Finding(topic="names", level=Level.OK, text=text)]

    async def _asks(self, world: World, owner: Container) -> str:
        """Return what is wrong with a sandbox's name server, "" when nothing is."""
        known = next(iter(names.registrations(world, owner).values()), None)
        if known is None or not known.names:
            return ""
        name = owner.id[:12] if owner.id[:12] in known.names else known.names[0]
        family, address = (4, known.ipv4) if known.ipv4 else (6, known.ipv6)
        try:
            (sock,) = await self._kernel.open_sandbox_sockets(self._lifecycle.sandboxes.path(owner.id), 1, _DATAGRAMS)
            answered = await ask(sock, name, family, _ASK_SECONDS)
        except TimeoutError:
            return "does not answer"
        except (OSError, KernelFailure, dns.Malformed) as error:
            return f"does not answer: {error}"
        return "" if address in answered else f"says {', '.join(answered) or 'nothing'} for {name}, not {address}"

    async def _held(self, plans: _Plans) -> list[Finding]:
        wanted = Leases(plans.world).everything()
        found = checkup.published(plans.owners, self._lifecycle.ports.held())
        return found + checkup.leases(plans.world, wanted, self._lifecycle.leases.everything())

    async def _disk(self, plans: _Plans) -> list[Finding]:
        instance = self._engine.instance
        places = {os.stat(path).st_dev: path for path in (instance.run_dir, instance.root)}
        return checkup.disk(host_state.disk(path) for path in places.values())

    async def _leftovers(self, plans: _Plans) -> list[Finding]:
        """What is nobody's at two looks, with no operation under way at either, and of no container that there is."""
        self._left = Found()
        if self._engine.is_busy:
            return [Finding(topic="leftovers", level=Level.OK, text="not looked for: containers are being started")]
        first = await self._orphans.find()
        if any(True for _ in first):
            await asyncio.sleep(_LOOK_AGAIN)
            second = await self._orphans.find()
            if not self._engine.is_busy:
                self._left = first.both(second).without(self._engine.world.containers)
        found = [
            Finding(topic="leftovers", level=Level.WRONG, text=f"{_KINDS[kind]} {name} belongs to nobody",
                    remedy="tsunagu doctor --fix", repair="leftovers")
            for kind, name in self._left
        ]  # fmt: skip
        return found or [Finding(topic="leftovers", level=Level.OK, text="nothing is left over")]

    # ---- repair

    async def _put_right(self, kind: str, subject: str) -> None:
        plans = self._plans()
        match kind:
            case "forwarding":
                has_ipv6 = any(n.enable_ipv6 for n in plans.world.networks.values())
                await self._kernel.enable_forwarding(ipv6=has_ipv6)
            case "bridge":
                if (plan := plans.bridges.get(subject)) is not None:
                    await self._kernel.ensure_bridge(plan)
                    mine = [one for group in plans.interfaces.values() for one in group if one.bridge == plan.name]
                    await self._reattach(mine)
            case "interface":
                await self._reattach(plans.interfaces.get(subject, ()))
            case "firewall":
                await self._firewall.replace()
            case "names":
                async with self._engine.lock(subject):
                    if (owner := self._lifecycle.sandboxes.living().get(subject)) is not None:
                        await self._lifecycle.sandboxes.open_resolver(self._engine.world, owner)
                        await self._resolver.settle()
            case "ports":
                async with self._engine.lock(subject):
                    if (owner := self._lifecycle.sandboxes.living().get(subject)) is not None:
                        await self._lifecycle.ports.adopt(owner)
            case "leases":
                self._lifecycle.leases.repair(self._engine.world)
            case "leftovers":
                await self._orphans.remove(self._left)

    async def _reattach(self, plans: Sequence[InterfacePlan]) -> None:
        """Put host ends that exist on their bridges; one that is gone is found at the next look."""
        there = {link.name for link in await self._kernel.link_states()}
        await self._kernel.repair_interfaces([plan for plan in plans if plan.host_name in there])
