"""What a check-up of the host sees and says: the kernel's state as values, and findings. Everything here is frozen."""

from __future__ import annotations

from enum import StrEnum

import msgspec


class LinkState(msgspec.Struct, frozen=True, kw_only=True):
    """An interface of the host. `master` is the name of the bridge it is on, `addresses` are CIDR texts without
    link-local ones."""

    name: str
    kind: str = ""
    is_ours: bool = True
    is_up: bool = True
    mtu: int = 1500
    master: str = ""
    group: int = 0
    addresses: tuple[str, ...] = ()


class SandboxState(msgspec.Struct, frozen=True, kw_only=True):
    """A pinned namespace. `is_used`: the container's process lives in this very one."""

    is_there: bool = True
    is_used: bool = True
    addresses: dict[str, tuple[str, ...]] = {}  # by interface, without the loopback one; CIDR texts


class Chain(msgspec.Struct, frozen=True, kw_only=True):
    """A chain of somebody else's firewall that sees forwarded packets. `where` is what nft calls it."""

    where: str
    drops: bool  # by policy, or by a rule without a condition
    accepts: tuple[str, ...] = ()  # its accepting rules, as text
    is_legacy: bool = False  # of iptables' old interface: `where` is a program and its chain


class DiskState(msgspec.Struct, frozen=True, kw_only=True):
    """Space of a file system, in bytes, and its inodes (0 of 0 where it does not count them)."""

    path: str
    total: int
    free: int
    inodes: int = 0
    inodes_free: int = 0


class Level(StrEnum):
    OK = "ok"
    WARNING = "warning"  # works, but not as somebody may expect
    WRONG = "wrong"


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """One line of a check-up. `repair` names what a repair would do, "" where there is none; `subject` is the id of
    the container or network, or the name of the thing, that it would do it to."""

    topic: str
    level: Level
    text: str
    remedy: str = ""  # a command, or what a person has to do
    repair: str = ""
    subject: str = ""
