"""Networks: create, remove, prune, and the predefined three. Decide, act, record, publish.

May import kernel and rules; an operation that fails leaves neither a bridge nor a row behind.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from ipaddress import ip_network

import msgspec
from msgspec.structs import replace

from tsunagu.kernel.network import NetworkKernel
from tsunagu.model import ids
from tsunagu.model.errors import (
    Conflict,
    EngineError,
    Forbidden,
    InvalidParameter,
    NotFound,
)
from tsunagu.model.network import (
    BRIDGE_NAME,
    HOST_BINDING,
    ICC,
    MASQUERADE,
    MTU,
    BridgePlan,
    GatewayMode,
    Network,
    Subnet,
)
from tsunagu.model.settings import BridgeSettings
from tsunagu.model.world import NetworkCreated, NetworkRemoved
from tsunagu.rules import configuration, ipam
from tsunagu.rules import options as network_options

from .engine import Engine
from .filters import check_filters, matches_labels, parse_until
from .firewall import Firewall

log = logging.getLogger("tsunagu.networks")
PREDEFINED = ("bridge", "host", "none")
BRIDGE_ROW = "bridge"  # what the administrator had set for the network `bridge` when it was made
IPV6_MINIMUM_MTU = 1280  # RFC 8200, section 5


class Networks:
    """Decisions about networks; `kernel` carries them out."""

    def __init__(self, engine: Engine, kernel: NetworkKernel, firewall: Firewall) -> None:
        self._engine = engine
        self._kernel = kernel
        self._firewall = firewall
        # Creates and removals change one shared thing, the set of subnets: one at a time.
        self._lock = asyncio.Lock()

    async def create(
        self,
        name: str,
        *,
        driver: str = "bridge",
        subnets: Sequence[Subnet] = (),
        enable_ipv4: bool = True,
        enable_ipv6: bool = False,
        is_internal: bool = False,
        is_attachable: bool = False,
        options: Mapping[str, str] | None = None,
        ipam_options: Mapping[str, str] | None = None,
        labels: Mapping[str, str] | None = None,
    ) -> Network:
        """Create a user-defined network; raises Docker's refusals before anything is touched."""
        async with self._lock:
            network = await self._decide(
                name, driver, tuple(subnets), enable_ipv4, enable_ipv6, is_internal, is_attachable,
                dict(options or {}), dict(ipam_options or {}), dict(labels or {}),
            )  # fmt: skip
            async with AsyncExitStack() as undo:
                undo.push_async_callback(self._kernel.remove_bridge, network.bridge)
                await self._kernel.ensure_bridge(bridge_plan(network))
                if enable_ipv6 or any(":" in s.subnet for s in network.subnets):
                    await self._kernel.enable_forwarding(ipv6=True)
                event = NetworkCreated(network)
                await self._firewall.announce(event)
                undo.push_async_callback(self._firewall.revoke, event)
                self._engine.commit(event)
                self._firewall.settle(event)
                undo.pop_all()
        self._engine.emit("network", "create", network.id, {"name": network.name, "type": network.driver})
        return network

    async def remove(self, word: str) -> None:
        """Remove a network nobody is attached to; raises Forbidden naming the holders otherwise."""
        async with self._lock:
            network = self._engine.world.network(word)
            if network.is_builtin:
                raise Forbidden(f"{network.name} is a pre-defined network and cannot be removed")
            if members := self._engine.world.members(network.id):
                listed = ", ".join(f'name:"{c.name}" id:"{ids.short(e.id)}"' for c, e in members)
                raise Forbidden(
                    f"error while removing network: network {network.name} has active endpoints ({listed})",
                    hint=f"remove or disconnect them first, for example: docker network disconnect -f {network.name} "
                    f"{members[0][0].name}",
                )
            if self._engine.is_being_joined(network.id):
                raise Forbidden(
                    f"error while removing network: network {network.name} has active endpoints",
                    hint="a container is joining it right now",
                )
            self._engine.commit(NetworkRemoved(network.id))
            await asyncio.gather(self._kernel.remove_bridge(network.bridge), self._firewall.sync())
        self._engine.emit("network", "destroy", network.id, {"name": network.name, "type": network.driver})

    async def prune(self, filters: Mapping[str, Sequence[str]]) -> list[str]:
        """Remove unused user-defined networks; returns their names. Filters: until, label, label!."""
        check_filters(filters, {"until", "label", "label!"})
        until = parse_until(filters.get("until", ()))
        removed = []
        for network in list(self._engine.world.networks.values()):
            if network.is_builtin or self.users(network):
                continue
            if (until is not None and network.created >= until) or not matches_labels(network.labels, filters):
                continue
            try:
                await self.remove(network.id)
            except EngineError:
                continue  # somebody attached to it or removed it meanwhile: it is not unused
            removed.append(network.name)
        return removed

    def users(self, network: Network) -> list[str]:
        """Return the names of containers, running or not, that are configured for a network."""
        return [
            c.name
            for c in self._engine.world.containers.values()
            for e in c.endpoints
            if network.id in (e.network_id, e.config.network) or e.config.network == network.name
        ]

    async def withdraw(self) -> None:
        """Remove bridges and tables from the kernel; only when nothing runs. `restore` makes them anew."""
        for network in self._engine.world.networks.values():
            if network.driver == "bridge":
                await self._kernel.remove_bridge(network.bridge)
        await self._firewall.withdraw()

    async def restore(self) -> None:
        """Make kernel and world agree at engine start: predefined networks, bridges, the nft table."""
        if not any(n.is_builtin for n in self._engine.world.networks.values()):
            await self._create_predefined()
        bridge = next((n for n in self._engine.world.networks.values() if n.is_default_bridge), None)
        if bridge is not None:
            bridge = await self._follow_settings(bridge)
        if bridge is not None and bridge.allows_icc != self._engine.instance.allows_icc:
            options = {**bridge.options, ICC: str(self._engine.instance.allows_icc).lower()}
            self._engine.commit(NetworkCreated(replace(bridge, options=options)))  # takes the place of the old one
        for network in self._engine.world.networks.values():
            if network.driver == "bridge":
                await self._kernel.ensure_bridge(bridge_plan(network))
        if any(n.enable_ipv6 for n in self._engine.world.networks.values()):
            await self._kernel.enable_forwarding(ipv6=True)
        await self._firewall.sync()

    # ---- decisions

    async def _decide(
        self, name: str, driver: str, subnets: tuple[Subnet, ...], enable_ipv4: bool, enable_ipv6: bool,
        is_internal: bool, is_attachable: bool, options: dict[str, str], ipam_options: dict[str, str],
        labels: dict[str, str],
    ) -> Network:  # fmt: skip
        world = self._engine.world
        if name in PREDEFINED or name == "default":
            raise Forbidden(f"operation is not permitted on predefined {name} network")
        ids.check_network_name(name)
        if name in world.network_ids:
            raise Conflict(f"network with name {name} already exists")
        if driver in ("host", "null", "none"):
            raise Forbidden(f'only one instance of "{driver}" network is allowed')
        if driver not in ("", "bridge", "default"):
            raise NotFound(f'plugin "{driver}" not found', hint="this engine has the drivers bridge, host and null")
        if not enable_ipv4 and not enable_ipv6:
            raise InvalidParameter("IPv4 or IPv6 must be enabled")
        identifier = self._engine.new_id()
        mtu = network_options.check(options, is_internal=is_internal)
        if enable_ipv6 and 0 < mtu < IPV6_MINIMUM_MTU:
            raise InvalidParameter(f"invalid value for {MTU}: {mtu} (IPv6 needs {IPV6_MINIMUM_MTU} or more)")
        bridge = options.get(BRIDGE_NAME) or self._engine.instance.bridge_name(identifier)
        holder = next((n for n in world.networks.values() if n.bridge == bridge), None)
        if holder or bridge in await self._kernel.list_links():
            raise Conflict(
                f"cannot create network {identifier} ({bridge}): a bridge named {bridge} exists already",
                hint=f"it belongs to network {holder.name}" if holder else "choose another bridge name",
            )
        network = Network(
            id=identifier, name=name, created=time.time_ns(), enable_ipv4=enable_ipv4, enable_ipv6=enable_ipv6,
            is_internal=is_internal, is_attachable=is_attachable, bridge=bridge,
            mtu=mtu or await self._kernel.default_mtu(), options=options, ipam_options=ipam_options, labels=labels,
        )  # fmt: skip
        families, has_user_subnet = await self._subnets(network, subnets)
        return replace(network, subnets=families, has_user_subnet=has_user_subnet)

    async def _subnets(self, network: Network, wanted: tuple[Subnet, ...]) -> tuple[tuple[Subnet, ...], bool]:
        """Return the subnets of a network to be, IPv4 first, and whether the user chose any."""
        world = self._engine.world
        ours = [(s.subnet, n.name) for n in world.networks.values() for s in n.subnets]
        given = tuple(s for s in wanted if s.subnet)
        if any(not s.subnet and (s.gateway or s.ip_range or s.aux) for s in wanted):
            raise InvalidParameter("every ip-range or gateway must have a corresponding subnet")
        routers = frozenset(family for family in network.families if network_options.wants_gateway(network, family))
        chosen = list(ipam.check_subnets(given, families=network.families, routers=routers, taken=ours))
        present = {6 if ":" in s.subnet else 4 for s in chosen}
        if 4 in network.families and 4 not in present:
            taken = [subnet for subnet, _ in ours] + list(await self._kernel.host_prefixes())
            try:
                subnet = ipam.choose_from(self._engine.instance.pools, taken)
            except EngineError as error:
                raise type(error)(error.message, hint=self._unused_hint()) from error
            chosen.insert(0, Subnet(subnet, gateway=_first_host(subnet) if 4 in routers else ""))
        if 6 in network.families and 6 not in present:
            subnet = ipam.choose_ula(self._ula(), [s for s, _ in ours])
            chosen.append(Subnet(subnet, gateway=_first_host(subnet) if 6 in routers else ""))
        return tuple(chosen), bool(given)

    def _unused_hint(self) -> str:
        unused = [n.name for n in self._engine.world.networks.values() if not n.is_builtin and not self.users(n)]
        if not unused:
            return "no network is unused: give one explicitly with --subnet"
        return f"unused networks: {', '.join(unused[:20])}; remove them with: docker network prune"

    def _ula(self) -> str:
        """Return this engine's own unique local /48 (RFC 4193), chosen once and kept."""
        row = self._engine.db.get("setting", "ula")
        if row is None:
            digits = secrets.token_hex(5)
            row = f"fd{digits[:2]}:{digits[2:6]}:{digits[6:]}::/48".encode()
            self._engine.db.put("setting", "ula", row)
        return row.decode()

    async def _create_predefined(self) -> None:
        instance, now = self._engine.instance, time.time_ns()
        wanted = instance.settings.bridge
        subnets = await self._bridge_subnets()
        options = {
            "com.docker.network.bridge.default_bridge": "true",
            ICC: str(instance.allows_icc).lower(),
            MASQUERADE: "true",
            HOST_BINDING: instance.bind_address,
            BRIDGE_NAME: instance.default_bridge,
            MTU: str(wanted.mtu or await self._kernel.default_mtu()),
        }
        self._engine.commit(
            NetworkCreated(
                Network(
                    id=self._engine.new_id(), name="bridge", created=now, is_builtin=True,
                    bridge=instance.default_bridge, mtu=int(options[MTU]), options=options,
                    subnets=subnets, enable_ipv6=wanted.enable_ipv6,
                )
            ),
            NetworkCreated(Network(id=self._engine.new_id(), name="host", driver="host", created=now, is_builtin=True)),
            NetworkCreated(Network(id=self._engine.new_id(), name="none", driver="null", created=now, is_builtin=True)),
        )  # fmt: skip
        self._engine.db.put("setting", BRIDGE_ROW, msgspec.json.encode(wanted))

    async def _bridge_subnets(self) -> tuple[Subnet, ...]:
        """Return what the network `bridge` is to have: what the administrator says, else what is free."""
        instance, wanted = self._engine.instance, self._engine.instance.settings.bridge
        ours = [(s.subnet, n.name) for n in self._engine.world.networks.values() if not n.is_builtin for s in n.subnets]
        chosen: list[Subnet] = []
        if given := configuration.bridge_subnet(wanted):
            chosen += ipam.check_subnets((given,), families=(4,), taken=ours)
        else:
            taken = [*await self._kernel.host_prefixes(), *(subnet for subnet, _ in ours)]
            subnet = instance.default_subnet
            if wanted.pools or any(_overlaps(subnet, prefix) for prefix in taken):
                subnet = ipam.choose_from(instance.pools, taken)
            chosen.append(Subnet(subnet, gateway=_first_host(subnet)))
        if wanted.enable_ipv6:
            subnet = wanted.subnet_v6 or ipam.choose_ula(self._ula(), [s for s, _ in ours])
            chosen += ipam.check_subnets((Subnet(subnet, gateway=_first_host(subnet)),), families=(6,), taken=ours)
        return tuple(chosen)

    async def _follow_settings(self, bridge: Network) -> Network:
        """Give the network `bridge` what the settings say, when they have changed since the engine ran last.

        Raises Conflict while containers run on it: their addresses cannot change under them.
        """
        wanted = self._engine.instance.settings.bridge
        row = msgspec.json.encode(wanted)
        if row == (self._engine.db.get("setting", BRIDGE_ROW) or msgspec.json.encode(BridgeSettings())):
            return bridge
        if running := [c.name for c, _ in self._engine.world.members(bridge.id) if c.is_running]:
            raise Conflict(
                f"the settings of network bridge cannot change while containers run on it: {', '.join(running)}",
                hint="start the engine with the former settings, stop them, and start it with the new ones",
            )
        await self._kernel.remove_bridge(bridge.bridge)
        mtu = wanted.mtu or await self._kernel.default_mtu()
        changed = replace(
            bridge, subnets=await self._bridge_subnets(), enable_ipv6=wanted.enable_ipv6, mtu=mtu,
            options={**bridge.options, MTU: str(mtu)},
        )  # fmt: skip
        self._engine.commit(NetworkCreated(changed))  # takes the place of the old one
        self._engine.db.put("setting", BRIDGE_ROW, row)
        return changed


def bridge_plan(network: Network) -> BridgePlan:
    """Return the bridge a network needs: its gateways as addresses, with prefix lengths, where the host takes part."""
    subnets = [s for family in network.families if network.has_host(family) and (s := network.subnet_of(family))]
    isolated = {family for family in network.families if network.gateway_mode(family) is GatewayMode.ISOLATED}
    return BridgePlan(
        name=network.bridge,
        mtu=network.mtu,
        addresses=tuple(f"{s.gateway}/{s.subnet.partition('/')[2]}" for s in subnets),
        has_ipv6=network.enable_ipv6 and 6 not in isolated,
        routes_loopback=network.enable_ipv4 and network.translates(4),
        is_silent=4 in isolated,
    )


def _first_host(subnet: str) -> str:
    return str(ip_network(subnet)[1])


def _overlaps(one: str, other: str) -> bool:
    a, b = ip_network(one), ip_network(other)
    return a.version == b.version and b.prefixlen > 0 and a.overlaps(b)
