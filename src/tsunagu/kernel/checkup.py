"""The host's state for a check-up: links with their bridges, pinned namespaces, settings, space, other packet filters.

Functions act on the namespace of the calling thread. May import `model` and its neighbours in `kernel`. Changes
nothing, and must never decide what is right.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterable

from tsunagu.model.checkup import Chain, DiskState, LinkState, SandboxState

from . import link
from .netlink import Socket

_TIMEOUT = 10.0
_LEGACY = (("ip_tables_names", "iptables-legacy"), ("ip6_tables_names", "ip6tables-legacy"))


def links(nl: Socket, mark: str) -> list[LinkState]:
    """Return every link of the socket's namespace; those whose alias is `mark` are ours."""
    found = link.links(nl)
    names = {one.ifindex: one.name for one in found}
    addresses: dict[int, list[str]] = {}
    for index, address, prefix, scope in link.addresses(nl):
        if scope != "link":
            addresses.setdefault(index, []).append(f"{address}/{prefix}")
    return [
        LinkState(
            name=one.name, kind=one.kind, is_ours=one.alias == mark, is_up=one.is_up, mtu=one.mtu,
            master=names.get(one.master, ""), group=one.group, addresses=tuple(addresses.get(one.ifindex, ())),
        )
        for one in found
    ]  # fmt: skip


def inside() -> dict[str, tuple[str, ...]]:
    """Return the addresses of every interface but the loopback one in the thread's namespace, as CIDR texts."""
    with Socket() as nl:
        return {one.name: one.addresses for one in links(nl, "") if one.name != "lo"}


def sandbox(path: str, pid: int, addresses: dict[str, tuple[str, ...]]) -> SandboxState:
    """Return what is at `path`; `pid` is a process that should live there, 0 when there is none to ask."""
    is_used = True
    if pid:
        try:
            own, pinned = os.stat(f"/proc/{pid}/ns/net"), os.stat(path)
            is_used = (own.st_dev, own.st_ino) == (pinned.st_dev, pinned.st_ino)
        except FileNotFoundError:
            pass  # it has ended just now
    return SandboxState(is_used=is_used, addresses=addresses)


def settings(paths: Iterable[str]) -> dict[str, str]:
    """Return the values below /proc/sys; one that does not exist is left out."""
    found = {}
    for path in paths:
        try:
            with open(f"/proc/sys/{path}", encoding="ascii") as file:
                found[path] = file.read().strip()
        except OSError:
            continue
    return found


def disk(path: str) -> DiskState:
    """Return the space that is left to us where `path` is. Raises OSError."""
    facts = os.statvfs(path)
    return DiskState(
        path=path, total=facts.f_blocks * facts.f_frsize, free=facts.f_bavail * facts.f_frsize,
        inodes=facts.f_files, inodes_free=facts.f_favail,
    )  # fmt: skip


def legacy_chains() -> list[Chain]:
    """Return the forward chains of iptables' old interface, which nft does not list, where such a table is loaded."""
    found = []
    for names, program in _LEGACY:
        try:
            with open(f"/proc/thread-self/net/{names}", encoding="ascii") as file:
                is_loaded = "filter" in file.read().split()
        except OSError:
            continue
        path = shutil.which(program)
        if not is_loaded or path is None:  # asking a table that is not loaded would load it
            continue
        try:
            done = subprocess.run(
                [path, "-S", "FORWARD"], capture_output=True, text=True, timeout=_TIMEOUT, check=False
            )
        except (OSError, subprocess.TimeoutExpired):
            continue
        rules = done.stdout.splitlines()
        found.append(
            Chain(
                where=f"{program} FORWARD",
                drops=any(rule in ("-P FORWARD DROP", "-A FORWARD -j DROP") for rule in rules)
                or any(rule.startswith("-A FORWARD -j REJECT") for rule in rules),
                accepts=tuple(rule for rule in rules if rule.endswith("-j ACCEPT")),
                is_legacy=True,
            )
        )
    return found
