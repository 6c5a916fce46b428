"""Which ports of the host lead to a container: from what was asked (`-p`, `-P`, EXPOSE) to plans for the kernel.

Docker's rules (daemon/libnetwork, port mapping of the bridge driver): ports belong to the endpoint that provides the
container's gateway, per address family; a binding without an address means all addresses of both families, or the
network's or the engine's default binding. There is no process between client and container here, so a family is only
offered when the container has it. Imports `model` only; pure. Must never know whether a port is free.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import suppress
from ipaddress import ip_address

from msgspec.structs import replace

from tsunagu.model.container import Config, Container, HostConfig, PortBinding
from tsunagu.model.errors import EngineError, InvalidParameter, NotFound, NotSupported
from tsunagu.model.network import (
    ANY_ADDRESS,
    HOST_BINDING,
    Endpoint,
    GatewayMode,
    Network,
    PortPlan,
    PublishedPort,
)
from tsunagu.model.world import World

from . import gateways

LAST_PORT = 65535
_PROTOCOLS = ("tcp", "udp")


# ---- reading what was asked for


def port_range(text: str) -> tuple[int, int]:
    """Return first and last port of "80" or "80-90"; raises InvalidParameter in Docker's words."""
    first, dash, last = text.partition("-")
    ends = [first, last if dash else first]
    if all(end.isascii() and end.isdigit() and len(end) < 6 and int(end) <= LAST_PORT for end in ends):
        low, high = int(ends[0]), int(ends[1])
        if low <= high:
            return low, high
    raise InvalidParameter(f'invalid port specification: "{text}"')


def split(spec: str) -> tuple[int, int, str]:
    """Return first port, last port and protocol of "80/tcp", "80" (tcp) or "80-90/udp"; raises InvalidParameter."""
    ports, slash, protocol = spec.partition("/")
    protocol = protocol.lower() if slash else "tcp"
    if protocol not in (*_PROTOCOLS, "sctp"):
        raise InvalidParameter(f'invalid port specification: "{spec}"')
    try:
        first, last = port_range(ports)
    except InvalidParameter:
        raise InvalidParameter(f'invalid port specification: "{spec}"') from None
    if not first:
        raise InvalidParameter(f'invalid port specification: "{spec}"')
    return first, last, protocol


def exposed(specs: Iterable[str]) -> list[tuple[int, str]]:
    """Return every exposed port with its protocol, ranges written out, in ascending order.

    What an image declares that is no port (`EXPOSE $PORT` that nobody filled in) is left out.
    """
    found: set[tuple[int, str]] = set()
    for spec in specs:
        with suppress(InvalidParameter):
            found |= spread(spec)
    return sorted(found)


def spread(spec: str) -> set[tuple[int, str]]:
    """Return every port of "80-90/tcp" with its protocol; raises InvalidParameter."""
    first, last, protocol = split(spec)
    return {(port, protocol) for port in range(first, last + 1)}


def check(host: HostConfig) -> None:
    """Refuse port bindings that are malformed, or that this engine cannot serve, by name."""
    for spec, bindings in (host.port_bindings or {}).items():
        first, last, protocol = split(spec)
        if first != last:
            raise InvalidParameter(f'invalid port specification: "{spec}"')
        if protocol == "sctp":
            raise NotSupported(
                f"publishing sctp ports is not supported: {spec}",
                hint="containers on one network reach each other's sctp ports without -p",
            )
        for binding in bindings or ():
            if binding.host_port:
                port_range(binding.host_port)
            if binding.host_ip:
                _check_host_ip(binding.host_ip, spec)


def _check_host_ip(text: str, spec: str) -> None:
    try:
        address = ip_address(text)
    except ValueError:
        raise InvalidParameter(f"invalid IP address: {text}") from None
    if address.version == 6 and address.is_loopback:
        raise NotSupported(
            f"publishing {spec} on [::1] is not supported",
            hint="the kernel does not route ::1 to a container: publish on 127.0.0.1 instead",
        )


def check_default_address(text: str) -> str:
    """Return a default binding address as the engine keeps it; raises InvalidParameter."""
    try:
        address = ip_address(text)
    except ValueError:
        raise InvalidParameter(f"invalid IP address: {text}", hint="give an address of this host") from None
    if address.version == 6 and address.is_loopback:
        raise NotSupported("::1 cannot be the default binding address", hint="use 127.0.0.1")
    return str(address)


def bindings(config: Config, host: HostConfig) -> list[tuple[int, str, PortBinding]]:
    """Return (container port, protocol, where) for everything to be published, fixed host ports before free ones."""
    asked: dict[tuple[int, str], tuple[PortBinding, ...]] = {}
    for spec, wanted in (host.port_bindings or {}).items():
        first, _, protocol = split(spec)
        # no binding in the list still asks for one (go-connections: nat.PortMap with an empty list)
        asked[first, protocol] = tuple(wanted) if wanted else ()
    for key in exposed(config.exposed_ports) if host.publish_all_ports else ():
        asked.setdefault(key, ())
        if not asked[key] and key[1] != "sctp":
            asked[key] = (PortBinding(),)
    found = {(port, protocol, binding): None for (port, protocol), many in asked.items() for binding in many}
    return sorted(found, key=lambda one: (_rank(one[2].host_port), one[0], one[1]))


def _rank(host_port: str) -> int:
    """Fixed ports first, so that no range or free choice takes one of them away."""
    first, last = port_range(host_port or "0")
    return 2 if not first else 0 if first == last else 1


# ---- deciding where they lead


def entrances(world: World, container: Container) -> dict[int, Endpoint]:
    """Return the endpoint that published ports lead to, per address family: the container's gateway endpoints."""
    found: dict[int, Endpoint] = {}
    for endpoint in gateways.order(world, container):
        if world.networks[endpoint.network_id].is_internal:
            continue
        for family, address in ((4, endpoint.ipv4), (6, endpoint.ipv6)):
            if address:
                found.setdefault(family, endpoint)
    return found


def plans(world: World, container: Container, default_ip: str, *, is_strict: bool = True) -> tuple[PortPlan, ...]:
    """Return the ports to reserve for a container whose endpoints are joined; empty when it has no way in.

    `default_ip` is the engine's default binding address ("0.0.0.0": all addresses of both families).
    Raises NotSupported for an IPv6 host address when the container has no IPv6; not `is_strict`, it is left out.
    """
    ways = entrances(world, container)
    translated = {family for family, way in ways.items() if world.networks[way.network_id].translates(family)}
    made = []
    for port, protocol, binding in bindings(container.config, container.host) if ways else ():
        host_ips = _host_ips(binding.host_ip, _default(world, ways, default_ip), ways)
        if not host_ips and is_strict:
            raise _no_family(binding.host_ip or default_ip, port, protocol)
        host_ips = tuple(ip for ip in host_ips if ip_address(ip).version in translated)
        if host_ips:
            first, last = port_range(binding.host_port or "0")
            made.append(PortPlan(protocol=protocol, container_port=port, host_ips=host_ips, first=first, last=last))
    return tuple(made)


def opened(world: World, container: Container, default_ip: str) -> tuple[PublishedPort, ...]:
    """Return the ports to open at the container's own addresses: those of the families whose gateway network is routed.

    Their host port means nothing there, and of a host address only its family (Docker's rule).
    """
    ways = entrances(world, container)
    routed = {f for f, way in ways.items() if world.networks[way.network_id].gateway_mode(f) is GatewayMode.ROUTED}
    found = {
        PublishedPort(protocol=protocol, host_ip=ANY_ADDRESS[family], host_port=0, container_port=port): None
        for port, protocol, binding in (bindings(container.config, container.host) if routed else ())
        for ip in _host_ips(binding.host_ip, _default(world, ways, default_ip), ways)
        if (family := ip_address(ip).version) in routed
    }
    return tuple(found)


def _default(world: World, ways: Mapping[int, Endpoint], default_ip: str) -> str:
    return default_address(world.networks[(ways.get(4) or ways[6]).network_id], default_ip)


def default_address(network: Network, default_ip: str) -> str:
    """Return where a binding without an address goes on `network`: its own option before the engine's setting."""
    if network.is_builtin:  # the predefined network's option only shows Docker's default
        return default_ip
    return network.options.get(HOST_BINDING) or default_ip


def _host_ips(asked: str, default_ip: str, ways: Mapping[int, Endpoint]) -> tuple[str, ...]:
    if not asked and default_ip == ANY_ADDRESS[4]:
        return tuple(ANY_ADDRESS[family] for family in (4, 6) if family in ways)
    address = ip_address(asked or default_ip)
    return (str(address),) if address.version in ways else ()


def _no_family(host_ip: str, port: int, protocol: str) -> EngineError:
    if ":" in host_ip:
        return NotSupported(
            f"publishing {port}/{protocol} on [{host_ip}] is not supported: the container has no IPv6 address",
            hint="create its network with --ipv6, or publish on an IPv4 address",
        )
    return NotSupported(
        f"publishing {port}/{protocol} on {host_ip} is not supported: the container has no IPv4 address"
    )


def compare(
    wanted: Iterable[PortPlan], held: Iterable[PublishedPort]
) -> tuple[tuple[PortPlan, ...], tuple[PublishedPort, ...]]:
    """Return what of `wanted` is still to be had, and what of `held` it goes on to use.

    A port that is held at one address is wanted under the same number at the others.
    """
    kept: dict[PublishedPort, None] = {}
    missing = []
    spare = list(held)
    for plan in wanted:
        mine = [
            port
            for port in spare
            if (port.protocol, port.container_port) == (plan.protocol, plan.container_port)
            and port.host_ip in plan.host_ips
            and (not plan.first or plan.first <= port.host_port <= plan.last)
        ]
        mine = [port for port in mine if port.host_port == mine[0].host_port]
        kept |= dict.fromkeys(mine)
        spare = [port for port in spare if port not in mine]
        rest = tuple(ip for ip in plan.host_ips if ip not in {port.host_ip for port in mine})
        if rest:
            first, last = (mine[0].host_port, mine[0].host_port) if mine else (plan.first, plan.last)
            missing.append(replace(plan, host_ips=rest, first=first, last=last))
    return tuple(missing), tuple(kept)


def place(
    endpoints: tuple[Endpoint, ...], ways: Mapping[int, Endpoint], published: Iterable[PublishedPort]
) -> dict[str, tuple[PublishedPort, ...]]:
    """Return the published ports of each endpoint by its id: each leads to the gateway endpoint of its family."""
    placed: dict[str, list[PublishedPort]] = {endpoint.id: [] for endpoint in endpoints}
    for port in published:
        if way := ways.get(port.family):
            placed[way.id].append(port)
    return {identifier: tuple(ports) for identifier, ports in placed.items()}


def describe(host_ip: str, port: int) -> str:
    """Return address and port as Docker writes them: IPv6 in brackets."""
    return f"[{host_ip}]:{port}" if ":" in host_ip else f"{host_ip}:{port}"


def warnings(world: World, container: Container) -> list[str]:
    """Return what a user should know at create: ports that will not be published (Docker is silent: moby#36174)."""
    host = container.host
    if not host.port_bindings and not host.publish_all_ports:
        return []
    if host.network_mode == "host":
        return ["Published ports are discarded when using host network mode"]
    if host.network_mode == "none":
        return ["Published ports are discarded when using none network mode: nothing comes in"]
    networks = []
    for endpoint in container.endpoints:
        try:
            networks.append(world.network(endpoint.network_id or endpoint.config.network))
        except NotFound:
            return []
    if networks and all(network.is_internal for network in networks):
        names = ", ".join(network.name for network in networks)
        return [
            f"Published ports are discarded: {names} is an internal network, nothing comes in; "
            f"connect the container to an ordinary network as well (network connect NETWORK {container.name})"
        ]
    asked = any(b.host_ip or b.host_port for many in (host.port_bindings or {}).values() for b in many or ())
    return [
        f"Host addresses and ports are ignored on network {network.name}, which is routed (IPv{family}): "
        f"published ports are open at the container's own address"
        for network in networks
        for family in network.families
        if asked and not network.is_internal and network.gateway_mode(family) is GatewayMode.ROUTED
    ]
