"""Options of one attachment (`network connect --driver-opt`, `--network name=…,driver-opt=…`), and interfaces' names.

Docker's sentences. Options that this engine does not act on are refused by name. Imports `model` and `options` only;
pure. Must never touch an interface: the plans do.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from tsunagu.model.errors import Conflict, NotSupported
from tsunagu.model.network import EndpointConfig

from .options import is_interface_name

IFNAME = "com.docker.network.endpoint.ifname"
SYSCTLS = "com.docker.network.endpoint.sysctls"
SUPPORTED = frozenset({IFNAME, SYSCTLS})
# Docker's own client sends what stands behind --network in lower case, so both spellings mean the interface's name.
_SYSCTL = re.compile(
    r"net\.(?P<family>ipv4|ipv6|mpls)\.(?P<group>[a-z0-9_-]+)\.(?:IFNAME|ifname)\.(?P<name>[a-z0-9_-]+)=(?P<value>.*)"
)


def problems(config: EndpointConfig) -> list[str]:
    """Return what is wrong with an endpoint's options; raises NotSupported for one that this engine does not have."""
    found = []
    for key in config.driver_opts:
        if key not in SUPPORTED:
            raise NotSupported(
                f"endpoint option {key} is not supported", hint=f"supported: {', '.join(sorted(SUPPORTED))}"
            )
    name = config.driver_opts.get(IFNAME, "")
    if name and (not is_interface_name(name) or name == "lo"):
        found.append(f"invalid interface name '{name}': up to 15 letters, digits, '-', '_', '.', and not lo")
    for text in _sysctls(config):
        if not _SYSCTL.fullmatch(text):
            found.append(
                f"unrecognised network interface sysctl '{text}'; represent 'net.X.Y.ethN.Z=V' as "
                "'net.X.Y.IFNAME.Z=V', 'X' must be 'ipv4', 'ipv6' or 'mpls'"
            )
    return found


def sysctls(config: EndpointConfig, ifname: str) -> tuple[tuple[str, str], ...]:
    """Return path below /proc/sys and value of every sysctl that the endpoint's interface is to have, in order."""
    matches = [found for text in _sysctls(config) if (found := _SYSCTL.fullmatch(text))]
    return tuple((f"net/{m['family']}/{m['group']}/{ifname}/{m['name']}", m["value"]) for m in matches)


def _sysctls(config: EndpointConfig) -> list[str]:
    text = config.driver_opts.get(SYSCTLS)
    return [] if text is None else text.split(",")


# ---- names of interfaces


def check_names(configs: Iterable[EndpointConfig]) -> None:
    """Refuse two endpoints of one container that are to have the same interface name."""
    seen: dict[str, str] = {}
    for config in configs:
        name = config.driver_opts.get(IFNAME, "")
        if name in seen:
            raise _taken(name, config.network, seen[name])
        if name:
            seen[name] = config.network


def interface_names(wanted: Sequence[tuple[EndpointConfig, str, str]]) -> list[str]:
    """Return the interface name of each endpoint, given as its config, the name it had last ("" if never), its prefix.

    Names that the user chose come first, then those that an endpoint had when the container ran before, so that they
    are the same after a restart, whatever was connected meanwhile; the others get the lowest free numbers in declared
    order. Raises Conflict for a name that was chosen twice.
    """
    check_names(config for config, _, _ in wanted)
    names = [config.driver_opts.get(IFNAME, "") for config, _, _ in wanted]
    taken = {name for name in names if name}
    for index, (_, kept, prefix) in enumerate(wanted):
        if not names[index] and kept not in taken and kept.removeprefix(prefix).isdigit() and kept.startswith(prefix):
            names[index] = kept
            taken.add(kept)
    for index, (_, _, prefix) in enumerate(wanted):
        if not names[index]:
            names[index] = _lowest(prefix, taken)
            taken.add(names[index])
    return names


def next_name(config: EndpointConfig, prefix: str, present: dict[str, str]) -> str:
    """Return the interface name of an endpoint that joins a running container; `present` maps its names to networks.

    Raises Conflict when the user chose one that is there.
    """
    name = config.driver_opts.get(IFNAME, "")
    if name in present:
        raise _taken(name, config.network, present[name])
    return name or _lowest(prefix, present)


def _lowest(prefix: str, taken: Iterable[str]) -> str:
    names = set(taken)
    return next(name for number in range(len(names) + 1) if (name := f"{prefix}{number}") not in names)


def _taken(name: str, network: str, holder: str) -> Conflict:
    return Conflict(
        f'error renaming interface to "{name}": file exists',
        hint=f"network {holder} has it: choose another {IFNAME} for network {network}",
    )
