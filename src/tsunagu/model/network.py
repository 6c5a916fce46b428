"""CNM values: networks, endpoints, port bindings, and the plans that the kernel layer carries out.

Nouns and semantics are libnetwork's Container Network Model. Everything here is frozen.
"""

from __future__ import annotations

import hashlib
from enum import Enum

import msgspec

BRIDGE_NAME = "com.docker.network.bridge.name"
MASQUERADE = "com.docker.network.bridge.enable_ip_masquerade"
ICC = "com.docker.network.bridge.enable_icc"
MTU = "com.docker.network.driver.mtu"
IFACE_PREFIX = "com.docker.network.container_iface_prefix"
HOST_BINDING = "com.docker.network.bridge.host_binding_ipv4"
GATEWAY_MODE = {
    4: "com.docker.network.bridge.gateway_mode_ipv4",
    6: "com.docker.network.bridge.gateway_mode_ipv6",
}
INHIBIT_IPV4 = "com.docker.network.bridge.inhibit_ipv4"
TRUSTED_INTERFACES = "com.docker.network.bridge.trusted_host_interfaces"
SNAT_SOURCE = {4: "com.docker.network.host_ipv4", 6: "com.docker.network.host_ipv6"}
ANNOUNCEMENTS = "com.docker.network.advertise_addr_nmsgs"
ANNOUNCE_INTERVAL = "com.docker.network.advertise_addr_ms"
DNS_TTL = "tsunagu.dns.ttl"

DEFAULT_TTL = 5

_TRUE = {"1", "t", "T", "TRUE", "true", "True"}


class Subnet(msgspec.Struct, frozen=True, omit_defaults=True):
    """One address range of a network. All addresses as text; `ip_range` and `gateway` may be empty."""

    subnet: str
    gateway: str = ""
    ip_range: str = ""
    aux: dict[str, str] = {}


class GatewayMode(Enum):
    """What the host does between a bridge network and the rest of the world, for one address family."""

    NAT = "nat"  # translates: ports of the host lead in, what goes out carries the host's address
    UNPROTECTED = "nat-unprotected"  # the same, and the containers' own addresses are open to whoever routes to them
    ROUTED = "routed"  # translates nothing: published ports are open at the container's own address
    ISOLATED = "isolated"  # takes no part: the bridge has no address


class Network(msgspec.Struct, frozen=True, kw_only=True):
    """A set of endpoints that may talk. `created` is in nanoseconds since the epoch, UTC."""

    id: str
    name: str
    driver: str = "bridge"
    created: int = 0
    enable_ipv4: bool = True
    enable_ipv6: bool = False
    is_internal: bool = False
    is_attachable: bool = False
    is_builtin: bool = False
    bridge: str = ""
    mtu: int = 1500
    subnets: tuple[Subnet, ...] = ()
    # True when a user chose the subnet of that family: only then may an endpoint ask for an address (Docker's rule)
    has_user_subnet: bool = False
    options: dict[str, str] = {}
    ipam_options: dict[str, str] = {}
    labels: dict[str, str] = {}

    def subnet_of(self, family: int) -> Subnet | None:
        """Return the subnet of address family 4 or 6, if the network has one."""
        return next((s for s in self.subnets if (":" in s.subnet) == (family == 6)), None)

    @property
    def is_default_bridge(self) -> bool:
        return self.is_builtin and self.driver == "bridge"

    @property
    def has_names(self) -> bool:
        """Embedded DNS serves user-defined networks only (Docker's default bridge has none)."""
        return self.driver == "bridge" and not self.is_builtin

    @property
    def allows_icc(self) -> bool:
        return self.options.get(ICC, "true") in _TRUE

    @property
    def families(self) -> tuple[int, ...]:
        """The address families that it has, IPv4 first."""
        return ((4,) if self.enable_ipv4 else ()) + ((6,) if self.enable_ipv6 else ())

    def gateway_mode(self, family: int) -> GatewayMode:
        """Return what the host does for address family 4 or 6."""
        return GatewayMode(self.options.get(GATEWAY_MODE[family], GatewayMode.NAT.value))

    def translates(self, family: int) -> bool:
        """Whether ports of the host may lead to containers of this network."""
        return not self.is_internal and self.gateway_mode(family) in (GatewayMode.NAT, GatewayMode.UNPROTECTED)

    def masquerades(self, family: int) -> bool:
        """Whether what goes out gets an address of the host as its source."""
        return self.translates(family) and self.options.get(MASQUERADE, "true") in _TRUE

    def snat_source(self, family: int) -> str:
        """Return the source that outgoing packets get when it masquerades; "" for the address they leave by."""
        return self.options.get(SNAT_SOURCE[family], "")

    def has_host(self, family: int) -> bool:
        """Whether the host takes part: has an address on the bridge, so that it reaches the containers and routes."""
        subnet = self.subnet_of(family)
        if family not in self.families or subnet is None or not subnet.gateway:
            return False
        return not (family == 4 and self.is_inhibited) and self.gateway_mode(family) is not GatewayMode.ISOLATED

    @property
    def is_inhibited(self) -> bool:
        """Whether the bridge is to have no IPv4 address: somebody else on it is the gateway."""
        return self.options.get(INHIBIT_IPV4, "false") in _TRUE

    @property
    def trusted_interfaces(self) -> tuple[str, ...]:
        """Interfaces of the host whose neighbours may address published ports at the container's own address."""
        return tuple(name for name in self.options.get(TRUSTED_INTERFACES, "").split(":") if name)

    @property
    def dns_ttl(self) -> int:
        return int(self.options.get(DNS_TTL, DEFAULT_TTL))


class EndpointConfig(msgspec.Struct, frozen=True, kw_only=True):
    """What a user asked for when attaching a container to a network (`--ip`, `--network-alias`, …)."""

    network: str  # the word the user gave: a name or an id
    aliases: tuple[str, ...] = ()
    links: tuple[str, ...] = ()
    ipv4: str = ""
    ipv6: str = ""
    link_local: tuple[str, ...] = ()  # more addresses of the interface, of either family
    mac: str = ""
    driver_opts: dict[str, str] = {}
    gw_priority: int = 0
    # what inspect prints for an absent list differs (null or []) by the way the endpoint was made
    has_ipam_config: bool = False
    has_aliases: bool = False
    has_driver_opts: bool = False


ANY_ADDRESS = {4: "0.0.0.0", 6: "::"}


class PublishedPort(msgspec.Struct, frozen=True, kw_only=True):
    """A container's port made reachable at an address of the host; one value per address family."""

    protocol: str  # "tcp" or "udp"
    host_ip: str  # 0.0.0.0 or :: means every address of the host of that family
    host_port: int  # 0 on a routed network: the container's own port is open, none of the host's leads there
    container_port: int

    @property
    def family(self) -> int:
        return 6 if ":" in self.host_ip else 4

    @property
    def is_for_any_address(self) -> bool:
        return self.host_ip in ("0.0.0.0", "::")

    @property
    def is_loopback_only(self) -> bool:
        return self.host_ip.startswith("127.") or self.host_ip == "::1"

    def conflicts_with(self, other: PublishedPort) -> bool:
        """Whether the kernel can give only one of the two to a process: same port, addresses that overlap."""
        return (
            self.protocol == other.protocol
            and self.host_port == other.host_port
            and self.family == other.family
            and (self.host_ip == other.host_ip or self.is_for_any_address or other.is_for_any_address)
        )


class Endpoint(msgspec.Struct, frozen=True, kw_only=True):
    """One container on one network. Addresses are empty while the container is not running, unless static."""

    config: EndpointConfig
    network_id: str = ""
    network_name: str = ""
    id: str = ""
    ipv4: str = ""
    ipv4_prefix: int = 0
    ipv6: str = ""
    ipv6_prefix: int = 0
    gateway4: str = ""
    gateway6: str = ""
    mac: str = ""
    ifname: str = ""
    host_ifname: str = ""
    ports: tuple[PublishedPort, ...] = ()  # ports of the host that lead here, while the container runs

    @property
    def is_joined(self) -> bool:
        return bool(self.id)


# ---- plans: what the kernel layer is told to do; it decides nothing itself


def port_group(bridge: str) -> int:
    """Return the link group (IFLA_GROUP, 1 to 2^31) that every port of the bridge called `bridge` carries.

    Rules of the bridge family find a frame's network by it: `meta ibrname` needs a kernel option (NFT_BRIDGE_META) that
    not every kernel has, `meta iifgroup` works everywhere.
    """
    return 1 + int.from_bytes(hashlib.sha256(bridge.encode()).digest()[:4], "big") // 2


class BridgePlan(msgspec.Struct, frozen=True, kw_only=True):
    """A Linux bridge to exist and be up. `addresses` are CIDR texts (gateway with prefix length)."""

    name: str
    mtu: int
    addresses: tuple[str, ...] = ()
    has_ipv6: bool = False
    # the host's loopback addresses may appear behind it: how 127.0.0.1:8080 of the host leads to a container
    routes_loopback: bool = False
    # the host answers nobody who asks there for one of its addresses, whichever interface has it
    is_silent: bool = False


class InterfacePlan(msgspec.Struct, frozen=True, kw_only=True):
    """A veth pair: `host_name` attached to `bridge`, `name` inside the sandbox with `addresses` (CIDR texts)."""

    host_name: str
    name: str
    bridge: str
    mac: str
    mtu: int
    addresses: tuple[str, ...]
    has_ipv6: bool = False
    # the bridge may send a frame back where it came from: with bridge netfilter on, a container's way to its own
    # published port (the kernel's bridged DNAT)
    has_hairpin: bool = False
    # paths below /proc/sys with their values, of this interface, written once it is addressed and before it is up
    sysctls: tuple[tuple[str, str], ...] = ()
    announcements: int = 1  # how often neighbours are told its addresses
    announce_interval: float = 1.0  # seconds between two of them


class RoutePlan(msgspec.Struct, frozen=True, kw_only=True):
    """A default route inside a sandbox. `gateway` is an address; its family is the route's."""

    gateway: str
    ifname: str


class SandboxPlan(msgspec.Struct, frozen=True, kw_only=True):
    """A network namespace, pinned at `path`, with interfaces in declared order and default routes."""

    path: str
    interfaces: tuple[InterfacePlan, ...] = ()
    routes: tuple[RoutePlan, ...] = ()
    has_resolver: bool = False
    sysctls: dict[str, str] = {}


class PortPlan(msgspec.Struct, frozen=True, kw_only=True):
    """A port of the host to be had at each of `host_ips`, the same number at all of them.

    The first free one from `first` to `last` is taken; 0 to 0 means any port of the kernel's own range.
    """

    protocol: str
    container_port: int
    host_ips: tuple[str, ...]
    first: int = 0
    last: int = 0

    def at(self, host_port: int) -> tuple[PublishedPort, ...]:
        """Return what is published once `host_port` is found free."""
        return tuple(
            PublishedPort(protocol=self.protocol, host_ip=ip, host_port=host_port, container_port=self.container_port)
            for ip in self.host_ips
        )
