"""Address management: choose subnets and addresses, check wanted ones. Sets come in, a value or a refusal goes out.

Pure arithmetic on whole numbers; imports `model` only. Must never look at the host: the caller asks the kernel for
prefixes in use and passes them in, at every create (a VPN may have come up since).

Sentences are Docker's (daemon/libnetwork and its IPAM); the hint that follows names the holder and the remedy.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Container, Iterable, Iterator, Mapping
from typing import TypeAlias

from tsunagu.model.errors import Conflict, Forbidden, InvalidParameter
from tsunagu.model.network import Network, Subnet
from tsunagu.model.settings import Pool

Prefix: TypeAlias = ipaddress.IPv4Network | ipaddress.IPv6Network
Address: TypeAlias = ipaddress.IPv4Address | ipaddress.IPv6Address

_MAC = re.compile(r"[0-9a-f]{2}([:-])(?:[0-9a-f]{2}\1){4}[0-9a-f]{2}|(?:[0-9a-f]{4}\.){2}[0-9a-f]{4}")


# ---- subnets


def choose_from(pools: Iterable[Pool], taken: Iterable[str]) -> str:
    """Return the lowest free subnet of the first pool that has one, each pool with its own size. Raises as below."""
    listed = tuple(taken)
    refusal = InvalidParameter("all predefined address pools have been fully subnetted")
    for pool in pools:
        try:
            return choose_subnet((pool.base,), pool.size, listed)
        except InvalidParameter as error:
            refusal = error
    raise refusal


def choose_subnet(pools: Iterable[str], prefix_len: int, taken: Iterable[str]) -> str:
    """Return the lowest subnet of `prefix_len` in the first pool that has one beside everything in `taken`.

    Cost is O(n log n) in the number of taken prefixes, whatever the size of the pools. Raises InvalidParameter when
    nothing is left (Docker's sentence; the caller adds which networks could go).
    """
    used = [ipaddress.ip_network(text, strict=False) for text in taken]
    for text in pools:
        pool = ipaddress.ip_network(text)
        if prefix_len < pool.prefixlen:
            continue
        ranges = sorted(
            (int(one.network_address), int(one.broadcast_address)) for one in used if one.version == pool.version
        )
        if (start := _first_gap(pool, prefix_len, ranges)) is not None:
            return f"{type(pool.network_address)(start)}/{prefix_len}"
    raise InvalidParameter("all predefined address pools have been fully subnetted")


def _first_gap(pool: Prefix, prefix_len: int, ranges: list[tuple[int, int]]) -> int | None:
    size = 1 << (pool.max_prefixlen - prefix_len)
    candidate = int(pool.network_address)
    last = int(pool.broadcast_address)
    for low, high in ranges:
        if low > candidate + size - 1:
            break  # sorted by start: nothing later reaches the candidate
        if high >= candidate:
            candidate = -(-(high + 1) // size) * size
    return candidate if candidate + size - 1 <= last else None


def choose_ula(ula48: str, taken: Iterable[str]) -> str:
    """Return the lowest free /64 of a unique local /48 (RFC 4193). Raises InvalidParameter when all 65536 are taken."""
    return choose_subnet((ula48,), 64, taken)


def check_subnets(
    subnets: tuple[Subnet, ...],
    *,
    families: Container[int],
    taken: Iterable[tuple[str, str]],
    routers: Container[int] = (4, 6),
) -> tuple[Subnet, ...]:
    """Check the subnets that a user asked for and return them with their gateways filled in, for `routers` families.

    `taken` holds (prefix, holder) pairs, the holder in words for people ("network shop"). Subnets of address families
    that the network does not have are left out (Docker ignores them). Raises InvalidParameter with all problems at once
    in Docker's words, Forbidden for an overlap.
    """
    problems: list[str] = []
    result: list[Subnet] = []
    ranges: list[Prefix] = []
    for one in subnets:
        parsed = _parse_prefix(one.subnet)
        if parsed is None:
            problems.append(f"invalid subnet {one.subnet}: invalid CIDR block notation")
            continue
        prefix, is_exact = parsed
        if prefix.version not in families:
            continue
        if not is_exact:
            problems.append(f"invalid subnet {one.subnet}: it should be {prefix}")
        before = len(problems)
        if kind := _special(prefix):
            problems.append(f"invalid subnet {one.subnet}: {kind} addresses cannot be a container's")
        problems.extend(_range_problems(one.ip_range, prefix))
        if (problem := _gateway_problem(one.gateway, prefix)) is not None:
            problems.append(f"invalid gateway {one.gateway}: {problem}")
        for name, aux in one.aux.items():
            if (problem := _address_problem(aux, prefix) if aux else "invalid address") is not None:
                problems.append(f"invalid auxiliary address {name}: {problem}")
        if is_exact and len(problems) == before:
            ranges.append(prefix)
            result.append(_with_gateway(one, prefix, needs_one=prefix.version in routers))
    if problems:
        raise InvalidParameter("invalid network config:\n" + "\n".join(problems))
    versions = [prefix.version for prefix in ranges]
    if len(set(versions)) < len(versions):
        raise InvalidParameter("bridge driver doesn't support multiple subnets")
    for text, holder in taken:
        other = ipaddress.ip_network(text, strict=False)
        for prefix in ranges:
            if _overlap(prefix, other):
                raise Forbidden(
                    "invalid pool request: Pool overlaps with other one on this address space",
                    hint=f"{prefix} overlaps {other} of {holder}: choose another --subnet, or leave it out",
                )
    return tuple(result)


def _parse_prefix(text: str) -> tuple[Prefix, bool] | None:
    """Return the network and whether its host bits are zero; None for anything but address/length."""
    address, slash, length = text.partition("/")
    if not slash or not length.isascii() or not length.isdigit() or "%" in address:
        return None
    try:
        prefix = ipaddress.ip_network((address, int(length)), strict=False)
        return prefix, ipaddress.ip_address(address) == prefix.network_address
    except ValueError:
        return None


_SPECIAL = (  # IANA's special-purpose registries; what the kernel refuses as an interface's own or cannot route
    ("unspecified", "0.0.0.0/8"),
    ("loopback", "127.0.0.0/8"),
    ("multicast", "224.0.0.0/4"),
    ("broadcast", "255.255.255.255/32"),
    ("loopback", "::1/128"),
    ("IPv4-mapped", "::ffff:0:0/96"),
    ("link-local", "fe80::/10"),  # every interface has these: a route to them says nothing
    ("multicast", "ff00::/8"),
)


def _special(prefix: Prefix) -> str:
    """Return what kind of addresses in `prefix` no container can have, "" when there are none."""
    return next((kind for kind, text in _SPECIAL if _overlap(prefix, ipaddress.ip_network(text))), "")


def _range_problems(text: str, subnet: Prefix) -> Iterator[str]:
    if not text:
        return
    parsed = _parse_prefix(text)
    if parsed is None:
        yield f"invalid ip-range {text}: invalid CIDR block notation"
        return
    prefix, is_exact = parsed
    if prefix.version != subnet.version:
        yield f"invalid ip-range {text}: parent subnet is an IPv{subnet.version} block"
        return
    if prefix.prefixlen < subnet.prefixlen:
        yield f"invalid ip-range {text}: CIDR block is bigger than its parent subnet {subnet}"
    if not is_exact:
        yield f"invalid ip-range {text}: it should be {prefix}"
    if not _overlap(prefix, subnet):
        yield f"invalid ip-range {text}: parent subnet {subnet} doesn't contain ip-range"


def _address_problem(text: str, subnet: Prefix) -> str | None:
    if not text:
        return None
    address = parse_address(text)
    if address is None:
        return "invalid address"
    if address.version != subnet.version:
        return f"parent subnet is an IPv{subnet.version} block"
    if address not in subnet:
        return f"parent subnet {subnet} doesn't contain this address"
    return None


def _gateway_problem(text: str, subnet: Prefix) -> str | None:
    """A gateway becomes an interface's address: the network and broadcast addresses cannot (RFC 1122, 3.2.1.3)."""
    if (problem := _address_problem(text, subnet)) is not None or not text:
        return problem
    reserved = (subnet.network_address, subnet.broadcast_address)
    if subnet.version == 4 and subnet.prefixlen < 31 and parse_address(text) in reserved:
        return f"it is the network or broadcast address of {subnet}"
    return None


def _with_gateway(one: Subnet, prefix: Prefix, *, needs_one: bool) -> Subnet:
    aux = {name: str(ipaddress.ip_address(text)) for name, text in one.aux.items()}
    gateway = str(ipaddress.ip_address(one.gateway)) if one.gateway else ""
    if needs_one and not gateway:
        gateway = _first_gateway(prefix, one.ip_range, aux)
    ip_range = str(ipaddress.ip_network(one.ip_range)) if one.ip_range else ""
    return Subnet(subnet=str(prefix), gateway=gateway, ip_range=ip_range, aux=aux)


def _first_gateway(prefix: Prefix, ip_range: str, aux: Mapping[str, str]) -> str:
    """The first usable address of the range (Docker asks its allocator for one, which honours --ip-range)."""
    plain = Subnet(subnet=str(prefix), ip_range=ip_range)
    return choose_address(plain, set(aux.values()))


def _overlap(one: Prefix, other: Prefix) -> bool:
    if isinstance(one, ipaddress.IPv4Network):
        return isinstance(other, ipaddress.IPv4Network) and one.overlaps(other)
    return isinstance(other, ipaddress.IPv6Network) and one.overlaps(other)


# ---- addresses


def parse_address(text: str) -> Address | None:
    """Return an address, or None for anything else (zones included)."""
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return None
    return None if "%" in text else address


def choose_address(subnet: Subnet, taken: Container[str]) -> str:
    """Return the lowest free address: inside `ip_range` if there is one, never gateway, aux, network or broadcast.

    `taken` holds address texts in canonical form. Raises Conflict when nothing is left.
    """
    prefix = ipaddress.ip_network(subnet.subnet)
    pool = ipaddress.ip_network(subnet.ip_range) if subnet.ip_range else prefix
    low, high = _usable(prefix)
    kept = _reserved(subnet)
    make = type(prefix.network_address)
    for value in range(max(low, int(pool.network_address)), min(high, int(pool.broadcast_address)) + 1):
        text = str(make(value))
        if text not in taken and text not in kept:
            return text
    raise Conflict(
        f"no available IPv{prefix.version} addresses on this network's address pools: {pool}",
        hint="remove containers from this network, or create one with a wider --subnet",
    )


def _usable(prefix: Prefix) -> tuple[int, int]:
    """First and last address that a host may have."""
    low, high = int(prefix.network_address), int(prefix.broadcast_address)
    if prefix.max_prefixlen - prefix.prefixlen < 2:
        return low, high  # RFC 3021 and RFC 6164: both ends of a point-to-point prefix are hosts
    # the first IPv6 address of a subnet is the routers' anycast address (RFC 4291 2.6.1); there is no broadcast
    return low + 1, high - 1 if prefix.version == 4 else high


def _reserved(subnet: Subnet) -> dict[str, str]:
    """Addresses that no container gets, with what holds them."""
    held = {text: f"auxiliary address {name}" for name, text in subnet.aux.items()}
    if subnet.gateway:
        held[subnet.gateway] = "the network's gateway"
    return held


def check_address(network: Network, ip: str, holders: Mapping[str, str]) -> str:
    """Return a wanted address in canonical form.

    `holders` maps the addresses in use on this network to who has them ("container web"). Raises InvalidParameter for
    an address that cannot be there, Forbidden ("Address already in use") for one that is taken; the caller puts
    Docker's "invalid endpoint settings:" before the first kind.
    """
    address = parse_address(ip)
    if address is None:
        raise InvalidParameter(f"invalid IP address: {ip}")
    if not network.has_user_subnet:
        raise InvalidParameter(
            "user specified IP address is supported only when connecting to networks with user configured subnets",
            hint=f"create the network with --subnet, for example: network create --subnet 10.100.0.0/24 {network.name}",
        )
    subnet = network.subnet_of(address.version)
    pool = ipaddress.ip_network(subnet.ip_range or subnet.subnet) if subnet is not None else None
    if subnet is None or pool is None or address not in pool:
        known = ", ".join(one.ip_range or one.subnet for one in network.subnets)
        raise InvalidParameter(
            f"no configured subnet or ip-range contain the IP address {ip}",
            hint=f"network {network.name} has {known or 'no subnet'}",
        )
    text = str(address)
    low, high = _usable(ipaddress.ip_network(subnet.subnet))
    holder = holders.get(text) or _reserved(subnet).get(text)
    if not low <= int(address) <= high:
        holder = "the subnet itself (network or broadcast address)"
    if holder:
        raise Forbidden(
            "Address already in use", hint=f"{text} on network {network.name} belongs to {holder}: choose another --ip"
        )
    return text


# ---- MAC addresses


def generate_mac(random6: bytes) -> str:
    """Return a locally administered unicast MAC address made of six random bytes (IEEE 802: low bits of the first)."""
    if len(random6) != 6:
        raise ValueError("a MAC address has six bytes")
    return bytes([random6[0] & 0xFC | 0x02, *random6[1:]]).hex(":")


def check_mac(text: str) -> str:
    """Return a MAC address in lower case with colons; raises InvalidParameter for anything a container cannot have."""
    lower = text.strip().lower()
    if not _MAC.fullmatch(lower):
        raise InvalidParameter(f"invalid MAC address: {text}", hint="write it as 02:42:ac:11:00:02")
    raw = bytes.fromhex(re.sub(r"[:.-]", "", lower))
    if raw[0] & 1 or not any(raw):
        raise InvalidParameter(
            f"invalid MAC address: {text}", hint="a multicast or all-zero address cannot belong to an interface"
        )
    return raw.hex(":")
