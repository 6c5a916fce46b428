"""Which names exist, who sees them, and the texts that tell a container's libc about it. Pure.

Docker's semantics (libnetwork's resolver and sandbox, read in needs.md 3.3): names belong to an endpoint, a sandbox
asks its networks in gateway order, links are private names. Reads a `World`; imports `model` only.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from ipaddress import ip_address

import msgspec

from tsunagu.model.container import Container
from tsunagu.model.errors import InvalidParameter
from tsunagu.model.ids import short
from tsunagu.model.network import Endpoint
from tsunagu.model.world import World

from . import gateways

RESOLVER_ADDRESS = "127.0.0.11"
_BUILTIN = {"bridge", "host", "none"}


# ---- names and views


class Registration(msgspec.Struct, frozen=True):
    """The names of one endpoint on its network; `pointer` is what its addresses point back to (PTR)."""

    network_id: str
    endpoint_id: str
    names: tuple[str, ...]
    ipv4: str
    ipv6: str
    pointer: str
    # False for an endpoint that is to be answered only while its name has no ready one (paused, unhealthy)
    is_ready: bool = True


class View(msgspec.Struct, frozen=True):
    """What one sandbox sees: networks in lookup order, links as (network id, alias, target), where to forward.

    `servers` (from --dns) replace the host's and are asked from inside the sandbox; the host's are asked only while
    `has_external` (CVE-2024-29018). `forwards_single` is False when the user chose ndots > 0: single labels are left to
    the search list then.
    """

    networks: tuple[str, ...]
    links: tuple[tuple[str, str, str], ...]
    servers: tuple[str, ...]
    has_external: bool
    forwards_single: bool


def endpoint_names(container: Container, endpoint: Endpoint) -> tuple[str, ...]:
    """Return Docker's DNSNames of an endpoint: name, aliases, short id, host name, each once; none on a built-in
    network."""
    if (endpoint.network_name or endpoint.config.network) in _BUILTIN:
        return ()
    names = (container.name, *endpoint.config.aliases, short(container.id), container.config.hostname)
    return tuple(dict.fromkeys(name for name in names if name))


def needs_resolver(world: World, container: Container) -> bool:
    """True when the container is on a network that has names, so that its sandbox needs resolver sockets."""
    return any(_has_names(world, e) for e in container.endpoints)


def registrations(world: World, container: Container) -> dict[str, Registration]:
    """Return, by network id, what a live container's joined endpoints register. The caller decides who is live.

    A paused or unhealthy container steps back while its names have another member.
    """
    found = {}
    for endpoint in container.endpoints:
        if not endpoint.is_joined or not _has_names(world, endpoint):
            continue
        names = endpoint_names(container, endpoint)
        found[endpoint.network_id] = Registration(
            endpoint.network_id, endpoint.id, names, endpoint.ipv4, endpoint.ipv6, names[0], container.is_ready
        )
    return found


def view(world: World, container: Container) -> View:
    """Return what the container's sandbox sees, given the networks it has joined."""
    ordered = gateways.order(world, container)
    named = [e for e in ordered if _has_names(world, e)]
    return View(
        networks=tuple(e.network_id for e in named),
        links=tuple((e.network_id, alias, target) for e in named for target, alias in map(parse_link, e.config.links)),
        servers=tuple(s for s in container.host.dns if not _is_ours(s)),
        has_external=any(not world.networks[e.network_id].is_internal for e in ordered),
        forwards_single=not _ndots(container.host.dns_options),
    )


def parse_link(text: str) -> tuple[str, str]:
    """Return (target, alias) of a link as users write it (`db:database`, `db`) or as Docker stores it
    (`/db:/web/database`).

    Raises InvalidParameter in Docker's words.
    """
    target, _, alias = text.partition(":")
    if not target or ":" in alias:
        raise InvalidParameter(f"bad format for links: {text}")
    target = target.removeprefix("/")
    return target, alias.rpartition("/")[2] or target


def _has_names(world: World, endpoint: Endpoint) -> bool:
    network = world.networks.get(endpoint.network_id)
    return network is not None and network.has_names


def _ndots(options: Iterable[str]) -> int:
    found = 0
    for option in options:
        key, _, value = option.partition(":")
        if key == "ndots" and value.isascii() and value.isdigit():
            found = int(value)
    return found


# ---- resolv.conf


class HostFile(msgspec.Struct):
    """A parsed resolv.conf (resolv.conf(5), Docker's reading of it): the last `search` counts, options add up."""

    servers: list[str] = []
    search: list[str] = []
    options: list[str] = []
    others: list[str] = []
    invalid: list[str] = []


def parse_resolv_conf(text: str) -> HostFile:
    """Parse a resolv.conf; a line that is not understood is kept or skipped, never an error."""
    found = HostFile()
    for line in text.splitlines():
        fields = line.split()
        if not fields or fields[0][0] in "#;":
            continue
        key, values = fields[0], fields[1:]
        if key not in ("nameserver", "domain", "search", "options"):
            found.others.append(line)
        elif not values:
            continue
        elif key == "nameserver":
            (found.servers if _is_address(values[0]) else found.invalid).append(values[0])
        elif key == "options":
            found.options += values
        else:
            found.search = values
    return found


def host_servers(text: str) -> tuple[str, ...]:
    """Return the name servers of the host's resolv.conf, each once; all of them (Docker keeps three)."""
    return tuple(dict.fromkeys(parse_resolv_conf(text).servers))


def resolv_conf(
    host_text: str,
    container: Container,
    *,
    is_default_bridge: bool,
    has_ipv6: bool = False,
    host_path: str = "/etc/resolv.conf",
) -> str:
    """Return the container's /etc/resolv.conf in Docker's exact text.

    `is_default_bridge` is True on every network without embedded names (bridge, none): a filtered copy of the host's
    servers ("legacy"). With host networking the host's text itself, unless the user gave DNS options.
    """
    asked = container.host
    is_host = asked.network_mode == "host"
    if is_host and not (asked.dns or asked.dns_search or asked.dns_options):
        return host_text
    found = parse_resolv_conf(host_text)
    overrides, ndots_from = [], "host" if any(o.startswith("ndots:") for o in found.options) else ""
    if asked.dns:
        overrides.append("nameservers")
        found.servers = list(asked.dns)
    if asked.dns_search:
        overrides.append("search")
        found.search = [s for s in asked.dns_search if s != "."]
    if asked.dns_options:
        overrides.append("options")
        found.options = list(asked.dns_options)
        ndots_from = "override" if any(o.partition(":")[0] == "ndots" for o in found.options) else ""
    notes: list[str] = []
    transform = ""
    if is_host:
        pass
    elif is_default_bridge:
        transform = " (legacy)"
        if not asked.dns:
            found.servers = _legacy_servers(found.servers, has_ipv6, notes)
    else:
        transform = " (internal resolver)"
        listed = [s if asked.dns else f"host({s})" for s in found.servers]
        notes.append(f"ExtServers: [{' '.join(listed)}]" if listed else "NO EXTERNAL NAMESERVERS DEFINED")
        found.servers = [RESOLVER_ADDRESS]
        found.options = [o for o in found.options if not _is_bad_ndots(o)]
        if not any(o.partition(":")[0] == "ndots" for o in found.options):
            found.options.append("ndots:0")
            ndots_from = "internal"
    if found.invalid:
        notes.append(f"Invalid nameservers: [{' '.join(found.invalid)}]")
    notes.append(f"Overrides: [{' '.join(overrides)}]")
    if ndots_from:
        notes.append(f"Option ndots from: {ndots_from}")
    lines = [
        "# Generated by Docker Engine.",
        "# This file can be edited; Docker Engine will not make further changes once it",
        "# has been modified.",
        "",
        *(f"nameserver {server}" for server in found.servers),
        *([f"search {' '.join(found.search)}"] if found.search else []),
        *([f"options {' '.join(found.options)}"] if found.options else []),
        *found.others,
        "",
        f"# Based on host file: '{host_path}'{transform}",
        *(f"# {note}" for note in notes),
    ]
    return "\n".join(lines) + "\n"


def _legacy_servers(servers: Sequence[str], has_ipv6: bool, notes: list[str]) -> list[str]:
    """Drop servers that the container cannot reach: loopback ones, and IPv6 ones without IPv6."""
    kept = [s for s in servers if not _is_loopback(s) and (has_ipv6 or ":" not in s)]
    if not kept:
        notes.append("Used default nameservers.")
        kept = ["8.8.8.8", "8.8.4.4"] + (["2001:4860:4860::8888", "2001:4860:4860::8844"] if has_ipv6 else [])
    return kept


def _is_ours(text: str) -> bool:
    """True for the embedded server's own address: asking it in its own name would go round in a circle."""
    return text.lower().removeprefix("::ffff:") == RESOLVER_ADDRESS


def _is_address(text: str) -> bool:
    try:
        ip_address(text)
    except ValueError:
        return False
    return True


def _is_loopback(text: str) -> bool:
    return ip_address(text.partition("%")[0]).is_loopback


def _is_bad_ndots(option: str) -> bool:
    key, _, value = option.partition(":")
    return key == "ndots" and not (value.isascii() and value.isdigit())


# ---- hosts

_HOSTS = (
    ("127.0.0.1", "localhost"),
    ("::1", "localhost ip6-localhost ip6-loopback"),
    ("fe00::", "ip6-localnet"),
    ("ff00::", "ip6-mcastprefix"),
    ("ff02::1", "ip6-allnodes"),
    ("ff02::2", "ip6-allrouters"),
)


def hosts_file(
    container: Container,
    *,
    host_gateway: str = "",
    links: Iterable[tuple[str, str]] = (),
    host_text: str = "",
) -> str:
    """Return the container's /etc/hosts in Docker's exact text.

    `host_gateway` is the address that `host-gateway` stands for (the default bridge's gateway). `links` are legacy
    links of the default bridge as (address, names). `host_text`, the host's own file, is used with host networking.
    Raises InvalidParameter for an extra host without an address.
    """
    is_host = container.host.network_mode == "host"
    lines = [] if is_host else [f"{address}\t{names}" for address, names in _HOSTS]
    for entry in container.host.extra_hosts or ():
        name, address = parse_extra_host(entry)
        if address == "host-gateway":
            address = host_gateway
        if not address:
            raise InvalidParameter("unable to derive the IP value for host-gateway")
        lines.append(f"{address}\t{name}")
    lines += [f"{address}\t{names}" for address, names in links]
    if not is_host:
        names = container.config.hostname
        if container.config.domainname:
            names = f"{names}.{container.config.domainname}"
        first, dot, _ = names.partition(".")
        names = f"{names} {first}" if dot else names
        for endpoint in container.endpoints:
            lines += [f"{address}\t{names}" for address in (endpoint.ipv4, endpoint.ipv6) if address and names]
    body = "".join(f"{line}\n" for line in lines)
    if not is_host:
        return body
    return host_text + ("\n" if host_text and not host_text.endswith("\n") else "") + body


def parse_extra_host(entry: str) -> tuple[str, str]:
    """Return (name,
    address) of `--add-host`: `name:address` or `name=address`; an IPv6 address may stand in brackets.

    Raises InvalidParameter in Docker's words.
    """
    at = min((i for i in (entry.find("="), entry.find(":")) if i >= 0), default=-1)
    name, address = (entry[:at], entry[at + 1 :]) if at > 0 else (entry, "")
    if not address or any(c.isspace() for c in entry):
        raise InvalidParameter(f'bad format for add-host: "{entry}"')
    if address.startswith("[") and address.endswith("]"):
        address = address[1:-1]
    if address != "host-gateway" and not _is_address(address):
        raise InvalidParameter(f'invalid IP address in add-host: "{address}"')
    return name, address
