"""The engine's configuration: flags and `daemon.json` merged and checked, in dockerd's words. Text in, values out.

Imports `model` and the standard library's parsers; must never read a file or look at the host. Keys that mean something
to dockerd but not here are refused by name, so that nobody believes in a setting that has no effect.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from ipaddress import ip_address, ip_interface, ip_network
from typing import Any

from tsunagu.model.errors import InvalidParameter, NotSupported
from tsunagu.model.limits import Ulimit
from tsunagu.model.network import Subnet
from tsunagu.model.settings import BridgeSettings, Pool, Settings

from .limits import ULIMITS

LEVELS = ("debug", "info", "warn", "error")
IPV6_MINIMUM_MTU = 1280  # RFC 8200, section 5

# key of daemon.json → type of its value
KEYS: dict[str, type[Any]] = {
    "bip": str,
    "fixed-cidr": str,
    "ipv6": bool,
    "fixed-cidr-v6": str,
    "default-address-pools": list,
    "icc": bool,
    "ip": str,
    "mtu": int,
    "dns": list,
    "dns-opts": list,
    "dns-search": list,
    "labels": list,
    "default-ulimits": dict,
    "hosts": list,
    "data-root": str,
    "exec-root": str,
    "pidfile": str,
    "debug": bool,
    "log-level": str,
    "ip-forward": bool,
    "ip-masq": bool,
    "iptables": bool,
    "ip6tables": bool,
    "live-restore": bool,
    "userland-proxy": bool,
    "log-driver": str,
}

# key → (the one value that describes what the engine does anyway, what to do instead of another one)
FIXED: dict[str, tuple[Any, str]] = {
    "ip-forward": (True, "containers reach nothing without it; make the network with --internal to keep one inside"),
    "ip-masq": (True, "make a network with -o com.docker.network.bridge.enable_ip_masquerade=false"),
    "iptables": (True, "the engine's rules live in an nft table of its own and touch no other"),
    "ip6tables": (True, "the engine's rules live in an nft table of its own and touch no other"),
    "live-restore": (True, "containers always run on while the engine is away; stop them before you stop it"),
    "userland-proxy": (False, "ports are published without a proxy process, on loopback too: leave it out"),
    "log-driver": ("json-file", "leave it out"),
}

# what dockerd has besides, by the name of the key (a flag of it has the same name, some without the last s)
REFUSED = frozenset(
    """add-runtime allow-direct-routing allow-nondistributable-artifacts api-cors-header authorization-plugins bridge
    bridge-accept-fwmark bip6 builder cdi-spec-dirs cgroup-parent containerd containerd-namespace
    containerd-plugins-namespace cpu-rt-period cpu-rt-runtime cri-containerd default-cgroupns-mode default-gateway
    default-gateway-v6 default-ipc-mode default-network-opts default-network-opt default-runtime default-shm-size
    dns-opt-v6 exec-opts exec-opt experimental features feature firewall-backend group
    host-gateway-ips host-gateway-ip http-proxy https-proxy init init-path insecure-registries insecure-registry
    log-format log-opts log-opt max-concurrent-downloads max-concurrent-uploads max-download-attempts metrics-addr
    min-api-version no-new-privileges no-proxy node-generic-resources node-generic-resource oom-score-adjust proxies
    raw-logs registry-mirrors registry-mirror runtimes seccomp-profile selinux-enabled shutdown-timeout storage-driver
    storage-opts storage-opt swarm-default-advertise-addr tls tlscacert tlscert tlskey tlsverify userland-proxy-path
    userns-remap""".split()
)


def read(text: str, path: str) -> dict[str, Any]:
    """Return the keys of a `daemon.json`; `path` is for the sentences. Raises InvalidParameter, NotSupported."""
    failed = f"unable to configure the Docker daemon with file {path}: "
    if not text.strip():
        return {}
    try:
        found = json.loads(text, object_pairs_hook=_unique)
    except json.JSONDecodeError as error:
        raise InvalidParameter(f"{failed}{error.msg}", hint=f"line {error.lineno}, column {error.colno}") from None
    except ValueError as error:
        raise InvalidParameter(f"{failed}{error}") from None
    if not isinstance(found, dict):
        raise InvalidParameter(f"{failed}expected an object")
    if refused := sorted(found.keys() & REFUSED):
        raise NotSupported(f"{failed}{', '.join(refused)} not supported", hint="take it out: it would have no effect")
    if unknown := sorted(found.keys() - KEYS.keys()):
        raise InvalidParameter(
            f"{failed}the following directives don't match any configuration option: {', '.join(unknown)}"
        )
    for key, value in found.items():
        _check_type(failed, key, value)
    return found


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"given more than once: {', '.join(sorted({n for n in names if names.count(n) > 1}))}")
    return found


def _check_type(failed: str, key: str, value: Any) -> None:
    wanted = KEYS[key]
    words = {str: "a string", bool: "true or false", int: "a whole number", list: "an array", dict: "an object"}[wanted]
    if type(value) is not wanted:
        raise InvalidParameter(f"{failed}{key}: expected {words}")
    if key == "default-address-pools":
        pools: list[Any] = value
        for pool in pools:
            if type(pool) is not dict or pool.keys() != {"base", "size"} or type(pool["size"]) is not int:
                raise InvalidParameter(f'{failed}{key}: expected objects like {{"base":"10.9.0.0/16","size":24}}')
            if type(pool["base"]) is not str:
                raise InvalidParameter(f"{failed}{key}: base: expected a string")
    elif isinstance(value, dict):
        for one in value.values():
            if type(one) is not dict or one.keys() != {"Name", "Hard", "Soft"}:
                raise InvalidParameter(f'{failed}{key}: expected {{"nofile":{{"Name":"nofile","Hard":64,"Soft":64}}}}')
            if type(one["Name"]) is not str or type(one["Hard"]) is not int or type(one["Soft"]) is not int:
                raise InvalidParameter(f"{failed}{key}: Name is a string, Hard and Soft are whole numbers")
    elif isinstance(value, list) and not all(type(one) is str for one in value):
        raise InvalidParameter(f"{failed}{key}: expected an array of strings")


def merge(flags: Mapping[str, Any], file: Mapping[str, Any], path: str) -> dict[str, Any]:
    """Return both together, by the keys of the file. Raises InvalidParameter when a setting is in both."""
    if both := [key for key in file if key in flags]:
        listed = ", ".join(f"{key}: (from flag: {_word(flags[key])}, from file: {_word(file[key])})" for key in both)
        raise InvalidParameter(
            f"unable to configure the Docker daemon with file {path}: the following directives are specified both as a "
            f"flag and in the configuration file: {listed}"
        )
    return {**file, **flags}


def _word(value: Any) -> str:
    if isinstance(value, list):
        return f"[{' '.join(map(_word, value))}]"
    return str(value).lower() if isinstance(value, bool) else str(value)


def ulimit_of(text: str) -> dict[str, Any]:
    """Return the object of a `--default-ulimit nofile=1024:2048`. Raises InvalidParameter."""
    name, _, value = text.partition("=")
    soft, _, hard = value.partition(":")
    try:
        return {"Name": name, "Soft": int(soft), "Hard": int(hard or soft)}
    except ValueError:
        raise InvalidParameter(f"invalid ulimit argument: {text}", hint="give name=soft or name=soft:hard") from None


def pool_of(text: str) -> dict[str, Any]:
    """Return the object of a `--default-address-pool base=…,size=…`. Raises InvalidParameter."""
    parts = dict(part.partition("=")[::2] for part in text.split(","))
    if parts.keys() != {"base", "size"} or not parts["size"].isdecimal():
        raise InvalidParameter(
            f"invalid argument {text!r} for --default-address-pool", hint="give base=10.9.0.0/16,size=24"
        )
    return {"base": parts["base"], "size": int(parts["size"])}


def settings(merged: Mapping[str, Any]) -> Settings:
    """Check all values of a merged configuration; return those the engine's services need.

    Raises InvalidParameter, NotSupported.
    """
    for key, (value, remedy) in FIXED.items():
        if merged.get(key, value) != value:
            raise NotSupported(f"{key}={_word(merged[key])} is not supported", hint=remedy)
    level = merged.get("log-level", "info")
    if level not in LEVELS:
        raise InvalidParameter(f"invalid logging level: {level}", hint=f"one of {', '.join(LEVELS)}")
    if len(merged.get("hosts", ())) > 1:
        raise NotSupported("more than one host is not supported", hint="give one unix:///path")
    for label in (labels := merged.get("labels", ())):
        if "=" not in label:
            raise InvalidParameter(f"bad attribute format: {label}", hint="labels of the engine are key=value")
    for server in merged.get("dns", ()):
        try:
            ip_address(server)
        except ValueError:
            raise InvalidParameter(f"ip address is not correctly formatted: {server!r}") from None
    for key in ("dns-search", "dns-opts"):
        for word in merged.get(key, ()):
            if not word or len(word.split()) != 1 or word.strip() != word:
                raise InvalidParameter(f"invalid {key} value: {word!r}", hint="one word, no white space")
    for name, one in merged.get("default-ulimits", {}).items():
        if one["Name"] != name or name not in ULIMITS:
            raise InvalidParameter(f"invalid ulimit type: {one['Name']}")
        if one["Hard"] >= 0 and not 0 <= one["Soft"] <= one["Hard"]:
            raise InvalidParameter(
                f"ulimit soft limit must be less than or equal to hard limit: {one['Soft']} > {one['Hard']}"
            )
    pools = tuple(_pool(one) for one in merged.get("default-address-pools", ()))
    return Settings(
        bridge=_bridge(merged, pools),
        pools=pools,
        dns=tuple(merged.get("dns", ())),
        dns_options=tuple(merged.get("dns-opts", ())),
        dns_search=tuple(merged.get("dns-search", ())),
        labels=tuple(labels),
        ulimits=tuple(
            Ulimit(one["Name"], one["Hard"], one["Soft"]) for one in merged.get("default-ulimits", {}).values()
        ),
    )


def _pool(one: Mapping[str, Any]) -> Pool:
    try:
        base = ip_network(one["base"], strict=False)
    except ValueError:
        raise InvalidParameter(f"invalid base pool {one['base']!r}", hint="give a prefix like 10.9.0.0/16") from None
    if base.version == 6:
        raise NotSupported(
            f"default-address-pools: {base} is not supported", hint="IPv6 networks get a unique local /64"
        )
    if not base.prefixlen <= one["size"] <= 30:
        raise InvalidParameter(f"invalid pool size {one['size']} for {base}", hint=f"{base.prefixlen} to 30")
    return Pool(str(base), one["size"])


def _bridge(merged: Mapping[str, Any], pools: tuple[Pool, ...]) -> BridgeSettings:
    address, ip_range = merged.get("bip", ""), merged.get("fixed-cidr", "")
    subnet_v6, has_ipv6, mtu = merged.get("fixed-cidr-v6", ""), merged.get("ipv6", False), merged.get("mtu", 0)
    if address:
        try:
            own = ip_interface(address)
        except ValueError:
            raise InvalidParameter(f"invalid CIDR address: {address}", hint="--bip 10.9.0.1/16") from None
        if own.version == 6 or "/" not in address or own.network.prefixlen > 30:
            raise InvalidParameter(f"invalid bip: {address}", hint="an IPv4 address with a prefix length up to 30")
        if own.ip in (own.network.network_address, own.network.broadcast_address):
            raise InvalidParameter(f"invalid bip: {address}", hint=f"an address of a host within {own.network}")
    if ip_range:
        given = _prefix(ip_range, 4, "fixed-cidr")
        if address and not given.subnet_of(ip_interface(address).network):
            raise InvalidParameter(f"invalid fixed-cidr: {ip_range}", hint=f"it is not within {address} (bip)")
    if subnet_v6:
        _prefix(subnet_v6, 6, "fixed-cidr-v6")
        if not has_ipv6:
            raise InvalidParameter("fixed-cidr-v6 without ipv6", hint="add --ipv6")
    if mtu and not (IPV6_MINIMUM_MTU if has_ipv6 else 68) <= mtu <= 65535:
        raise InvalidParameter(f"invalid mtu: {mtu}", hint=f"{IPV6_MINIMUM_MTU if has_ipv6 else 68} to 65535")
    return BridgeSettings(
        address=address, ip_range=ip_range, enable_ipv6=has_ipv6, subnet_v6=subnet_v6, mtu=mtu,
        pools=() if address or ip_range else pools,
    )  # fmt: skip


def _prefix(text: str, family: int, key: str) -> Any:
    try:
        prefix = ip_network(text)
    except ValueError as error:
        raise InvalidParameter(f"invalid {key}: {text}", hint=str(error)) from None
    if prefix.version != family or prefix.prefixlen > (30 if family == 4 else 80):
        raise InvalidParameter(f"invalid {key}: {text}", hint=f"an IPv{family} prefix with room for containers")
    return prefix


def bridge_subnet(wanted: BridgeSettings) -> Subnet | None:
    """Return the IPv4 subnet that an administrator chose for the network `bridge`, None when the engine chooses."""
    if wanted.address:
        own = ip_interface(wanted.address)
        return Subnet(str(own.network), gateway=str(own.ip), ip_range=wanted.ip_range)
    if wanted.ip_range:
        return Subnet(wanted.ip_range, gateway=str(ip_network(wanted.ip_range)[1]))
    return None
