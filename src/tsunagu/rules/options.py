"""Options of the bridge driver (`network create --opt`): which there are, and what values they take.

Docker's sentences. Options that this engine does not act on are refused by name, never accepted and ignored. Imports
`model` and `ports` only; pure. Must never know what an option makes the kernel do: `policy` and the plans do.
"""

from __future__ import annotations

from collections.abc import Mapping
from ipaddress import ip_address

from tsunagu.model.errors import EngineError, InvalidParameter, NotSupported
from tsunagu.model.network import (
    ANNOUNCE_INTERVAL,
    ANNOUNCEMENTS,
    BRIDGE_NAME,
    DNS_TTL,
    GATEWAY_MODE,
    HOST_BINDING,
    ICC,
    IFACE_PREFIX,
    INHIBIT_IPV4,
    MASQUERADE,
    MTU,
    SNAT_SOURCE,
    TRUSTED_INTERFACES,
    GatewayMode,
    Network,
)

from . import ports

NAME_LIMIT = 15  # bytes, the kernel's IFNAMSIZ without its NUL
PREFIX_LIMIT = 11  # leaves room for the number
_FLAGS = {ICC, MASQUERADE, INHIBIT_IPV4}
_BOOLEANS = {"1", "t", "T", "TRUE", "true", "True", "0", "f", "F", "FALSE", "false", "False"}
SUPPORTED = frozenset(
    {
        *_FLAGS,
        *GATEWAY_MODE.values(),
        *SNAT_SOURCE.values(),
        ANNOUNCE_INTERVAL,
        ANNOUNCEMENTS,
        BRIDGE_NAME,
        DNS_TTL,
        HOST_BINDING,
        IFACE_PREFIX,
        MTU,
        TRUSTED_INTERFACES,
    }
)


def check(options: Mapping[str, str], *, is_internal: bool) -> int:
    """Refuse options that are malformed, or that this engine does not act on; returns the MTU asked for, or 0."""
    for key, value in options.items():
        if key not in SUPPORTED:
            raise NotSupported(
                f"network option {key} is not supported", hint=f"supported: {', '.join(sorted(SUPPORTED))}"
            )
        if key in _FLAGS and value not in _BOOLEANS:
            raise _malformed(key, value, f'strconv.ParseBool: parsing "{value}": invalid syntax', "use true or false")
        if key == HOST_BINDING and value:
            ports.check_default_address(value)
        if key == DNS_TTL and not (_is_number(value) and int(value) <= 86400):
            raise InvalidParameter(f"invalid value for {key}: {value!r} (seconds, 0 to 86400)")
    for key, unit, low, high in (
        (ANNOUNCEMENTS, "an integer", 0, 3),  # RFC 5227, 1.1 and RFC 4861, 10: three at most
        (ANNOUNCE_INTERVAL, "integer milliseconds", 100, 2000),
    ):
        text = options.get(key)
        if text is not None and not _is_number(text):
            raise InvalidParameter(f'value for option {key} "{text}" must be {unit}')
        if text is not None and not low <= int(text) <= high:
            raise InvalidParameter(f"{key} must be in the range {low} to {high}")
    for family in (4, 6):
        _check_mode(options, family, is_internal=is_internal)
        _check_source(options, family)
    for name in options.get(TRUSTED_INTERFACES, "").split(":"):
        if name and not is_interface_name(name):
            raise _malformed(TRUSTED_INTERFACES, name, "invalid interface name", "separate the names by colons")
    for key, limit in ((BRIDGE_NAME, NAME_LIMIT), (IFACE_PREFIX, PREFIX_LIMIT)):
        if not is_interface_name(name := options.get(key, "x"), limit):
            raise InvalidParameter(
                f"invalid value for {key}: {name!r} (at most {limit} letters, digits, '-', '_', '.')"
            )
    mtu = options.get(MTU, "0")
    if not _is_number(mtu) or not (mtu == "0" or 68 <= int(mtu) <= 65535):
        raise InvalidParameter(f"invalid value for {MTU}: {mtu[:64]!r} (68 to 65535)")
    return int(mtu)


def wants_gateway(network: Network, family: int) -> bool:
    """Whether an address is set apart for a gateway that the user did not name (Docker: GetSkipGwAlloc).

    Nobody sends to one where the host has none and no container gets a route.
    """
    if network.gateway_mode(family) is GatewayMode.ISOLATED:
        return False
    return not (family == 4 and network.is_internal and network.is_inhibited)


def is_interface_name(text: str, limit: int = NAME_LIMIT) -> bool:
    """Whether the kernel takes it for an interface, and nothing reads it as something else."""
    return (
        0 < len(text) <= limit
        and all(c.isascii() and (c.isalnum() or c in "-_.") for c in text)
        and text not in (".", "..", "all", "default")  # the kernel's own names below /proc/sys/net/ipv4/conf
    )


def _check_mode(options: Mapping[str, str], family: int, *, is_internal: bool) -> None:
    key = GATEWAY_MODE[family]
    value = options.get(key)
    if value is None:
        return
    modes = [mode.value for mode in GatewayMode]
    if value not in modes:
        raise _malformed(key, value, f"unknown gateway mode {value}", f"one of {', '.join(modes)}")
    if value == GatewayMode.ISOLATED.value and not is_internal:
        raise InvalidParameter(
            "gateway mode 'isolated' can only be used for an internal network", hint="add --internal"
        )


def _check_source(options: Mapping[str, str], family: int) -> None:
    key = SNAT_SOURCE[family]
    value = options.get(key)
    if value is None:
        return
    try:
        address = ip_address(value)
    except ValueError:
        raise _malformed(key, value, "nil ip", "give an address of this host") from None
    if address.version != family or str(address) != value.lower():
        raise _malformed(key, value, f"not an IPv{family} address", "give an address of this host")


def _malformed(key: str, value: str, problem: str, hint: str) -> EngineError:
    return InvalidParameter(f"failed to parse {key} value: {value} ({problem})", hint=hint)


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) < 10
