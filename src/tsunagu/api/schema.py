"""Decoding of request bodies: Docker's JSON to typed values, strictly.

Fields that this engine acts on are typed. Every other field is refused by name unless it holds Docker's own default: a
limit that is silently not applied is worse than an error. May import model values and msgspec; asks no service.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any, TypeVar, cast

import msgspec

from tsunagu.model.errors import InvalidParameter, NotSupported
from tsunagu.model.network import EndpointConfig, Subnet

T = TypeVar("T")
Object = dict[str, Any]
_NOTHING: Mapping[str, tuple[object, ...]] = {}


@lru_cache
def _names(kind: Any) -> frozenset[str]:
    return frozenset(field.encode_name for field in msgspec.structs.fields(kind))


def is_empty(value: object) -> bool:
    """Tell whether a JSON value is Go's zero value, or holds nothing but zero values."""
    if isinstance(value, dict):
        return all(map(is_empty, value.values()))
    return not value


def decode(
    body: Object,
    kind: type[T],
    *,
    where: str = "",
    ignored: frozenset[str] = frozenset(),
    harmless: Mapping[str, tuple[object, ...]] = _NOTHING,
) -> T:
    """Convert `body` to the struct `kind`.

    `null` counts as absent (Go's rule). Fields that `kind` lacks raise NotSupported unless they are `ignored`, empty,
    or one of their `harmless` values. Wrong types raise InvalidParameter naming the place. `where` is the path so far.
    """
    known = _names(cast(Any, kind))
    present: Object = {}
    for key, value in body.items():
        if value is None or key in ignored:
            continue
        if key in known:
            present[key] = value
        elif not is_empty(value) and value not in harmless.get(key, ()):
            raise NotSupported(f"{where}{key} is not supported yet")
    converted: T = convert(present, kind, where)
    return converted


def convert(value: object, kind: Any, where: str = "") -> Any:
    """Convert a JSON value to `kind`; raises InvalidParameter naming the place."""
    try:
        return msgspec.convert(value, kind)
    except msgspec.ValidationError as error:
        text = str(error)
        problem, separator, path = text.rpartition(" - at `$")
        place = f"{where.rstrip('.')}{path.rstrip('`')}".lstrip(".") if separator else where.rstrip(".")
        raise InvalidParameter(f"invalid JSON: {place or 'body'}: {problem if separator else text}") from error


def text_of(body: Object, key: str) -> str:
    """Return a text field, "" when absent."""
    return str(convert(body.get(key) or "", str, key))


def flag_of(body: Object, key: str, *, default: bool = False) -> bool:
    """Return a boolean field."""
    value = body.get(key)
    return default if value is None else bool(convert(value, bool, key))


def object_of(body: Object, key: str, where: str = "") -> Object:
    """Return a field that is an object; `{}` when absent or null."""
    value = body.get(key)
    found: Object = {} if value is None else convert(value, dict[str, Any], f"{where}{key}")
    return found


# ---- networks


class IpamConfig(msgspec.Struct, frozen=True, rename="pascal"):
    subnet: str = ""
    ip_range: str = msgspec.field(name="IPRange", default="")
    gateway: str = ""
    auxiliary_addresses: dict[str, str] = {}


class Ipam(msgspec.Struct, frozen=True, rename="pascal"):
    driver: str = "default"
    options: dict[str, str] = {}
    config: tuple[Object, ...] = ()


class NetworkCreate(msgspec.Struct, frozen=True, kw_only=True, rename="pascal"):
    """`POST /networks/create`."""

    name: str = ""
    driver: str = "bridge"
    enable_ipv4: bool = msgspec.field(name="EnableIPv4", default=True)
    enable_ipv6: bool = msgspec.field(name="EnableIPv6", default=False)
    ipam: dict[str, Any] = msgspec.field(name="IPAM", default_factory=dict)
    internal: bool = False
    attachable: bool = False
    options: dict[str, str] = {}
    labels: dict[str, str] = {}

    def subnets(self) -> tuple[Subnet, ...]:
        """Return the wanted subnets; raises for an address manager that is not ours."""
        configs = [
            decode(body, IpamConfig, where=f"IPAM.Config[{index}].") for index, body in enumerate(self._ipam().config)
        ]
        return tuple(
            Subnet(subnet=c.subnet, gateway=c.gateway, ip_range=c.ip_range, aux=c.auxiliary_addresses) for c in configs
        )

    def ipam_options(self) -> dict[str, str]:
        return self._ipam().options

    def _ipam(self) -> Ipam:
        ipam = decode(self.ipam, Ipam, where="IPAM.")
        if ipam.driver not in ("", "default"):
            raise NotSupported(
                f"IPAM.Driver {ipam.driver} is not supported", hint="the only address manager is default"
            )
        return ipam


# CheckDuplicate is Docker's former option for what is always done since API 1.44.
_NETWORK_IGNORED = frozenset({"CheckDuplicate"})


def network_create(body: Object) -> NetworkCreate:
    """Decode `POST /networks/create`."""
    return decode(body, NetworkCreate, ignored=_NETWORK_IGNORED, harmless={"Scope": ("local",)})


class _EndpointIpam(msgspec.Struct, frozen=True, rename="pascal"):
    ipv4_address: str = msgspec.field(name="IPv4Address", default="")
    ipv6_address: str = msgspec.field(name="IPv6Address", default="")
    link_local_ips: tuple[str, ...] = msgspec.field(name="LinkLocalIPs", default=())


class _Endpoint(msgspec.Struct, frozen=True, kw_only=True, rename="pascal"):
    links: tuple[str, ...] = ()
    aliases: tuple[str, ...] = ()
    mac_address: str = ""
    driver_opts: dict[str, str] = {}
    gw_priority: int = 0


# What inspect shows and clients send back; Docker resets it too.
_ENDPOINT_IGNORED = frozenset(
    {
        "IPAMConfig",
        "NetworkID",
        "EndpointID",
        "Gateway",
        "IPAddress",
        "IPPrefixLen",
        "IPv6Gateway",
        "GlobalIPv6Address",
        "GlobalIPv6PrefixLen",
        "DNSNames",
    }
)


def endpoint_config(network: str, body: Object | None, where: str) -> EndpointConfig:
    """Decode one value of EndpointsConfig, or the EndpointConfig of a connect."""
    body = body or {}
    endpoint = decode(body, _Endpoint, where=where, ignored=_ENDPOINT_IGNORED)
    ipam = decode(object_of(body, "IPAMConfig", where), _EndpointIpam, where=f"{where}IPAMConfig.")
    return EndpointConfig(
        network=network,
        aliases=endpoint.aliases,
        links=endpoint.links,
        ipv4=ipam.ipv4_address,
        ipv6=ipam.ipv6_address,
        link_local=ipam.link_local_ips,
        mac=endpoint.mac_address,
        driver_opts=endpoint.driver_opts,
        gw_priority=endpoint.gw_priority,
        has_ipam_config=body.get("IPAMConfig") is not None,
        has_aliases=body.get("Aliases") is not None,
        has_driver_opts=body.get("DriverOpts") is not None,
    )


# ---- execs


class ExecCreate(msgspec.Struct, frozen=True, kw_only=True, rename="pascal"):
    """`POST /containers/{id}/exec`."""

    user: str = ""
    privileged: bool = False
    tty: bool = False
    console_size: tuple[int, int] | None = None
    attach_stdin: bool = False
    attach_stdout: bool = False
    attach_stderr: bool = False
    detach_keys: str = ""
    env: tuple[str, ...] = ()
    working_dir: str = ""
    cmd: tuple[str, ...] = ()


class ExecStart(msgspec.Struct, frozen=True, rename="pascal"):
    """`POST /exec/{id}/start`."""

    detach: bool = False
    tty: bool = False
    console_size: tuple[int, int] | None = None


def exec_create(body: Object) -> ExecCreate:
    """Decode `POST /containers/{id}/exec`; a command given as one string is one word."""
    return decode({**body, "Cmd": words_of(body.get("Cmd"))}, ExecCreate, ignored=frozenset({"Detach", "Container"}))


def words_of(value: object) -> object:
    """Docker takes a command as a list, or as one string."""
    return [value] if isinstance(value, str) else value
