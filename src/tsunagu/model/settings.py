"""What an administrator sets for the whole engine. Values only; imports msgspec. Must never read files or flags."""

from __future__ import annotations

import msgspec

from .limits import Ulimit


class Pool(msgspec.Struct, frozen=True):
    """A prefix that networks of prefix length `size` are cut from."""

    base: str
    size: int = 24


class BridgeSettings(msgspec.Struct, frozen=True, kw_only=True):
    """What the predefined network `bridge` is to be. "" and 0 mean: the engine chooses.

    `address` is the bridge's own with prefix length (`--bip`); `ip_range` and `subnet_v6` are prefixes; `mtu` in bytes.
    """

    address: str = ""
    ip_range: str = ""
    enable_ipv6: bool = False
    subnet_v6: str = ""
    mtu: int = 0
    pools: tuple[Pool, ...] = ()


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """Engine-wide settings beside what `Instance` holds; dns and ulimits are for containers that name none."""

    bridge: BridgeSettings = BridgeSettings()
    pools: tuple[Pool, ...] = ()
    dns: tuple[str, ...] = ()
    dns_options: tuple[str, ...] = ()
    dns_search: tuple[str, ...] = ()
    labels: tuple[str, ...] = ()
    ulimits: tuple[Ulimit, ...] = ()
