"""Ports of the host, held by real sockets for as long as they are published, and who holds one that is not free.

The address translation never asks these sockets: it happens before local delivery. They are there so that the kernel
itself says whether a port is free, and refuses it to every other process from then on. What still reaches one is
refused at once (TCP: nobody listens) or thrown away (UDP: a filter). May import `model` only. The functions act on the
namespace of the calling thread: the host's.
"""

from __future__ import annotations

import ctypes
import errno
import os
import socket
import struct
from collections.abc import Collection, Iterable
from contextlib import suppress

from tsunagu.model.errors import KernelFailure
from tsunagu.model.network import PortPlan, PublishedPort

Holdings = dict[PublishedPort, "socket.socket | None"]  # None: a wildcard socket of the same owner holds it as well

_SO_ATTACH_FILTER = 26
_DROP_ALL = struct.pack("=HBBI", 0x06, 0, 0, 0)  # struct sock_filter: BPF_RET | BPF_K, 0 bytes to keep
_ATTEMPTS = 64  # ports of the kernel's choice that are tried until one is free at every address
_KINDS = {"tcp": socket.SOCK_STREAM, "udp": socket.SOCK_DGRAM}
_LISTENING = {"tcp": "0A", "udp": "07"}  # states in /proc/net/tcp and udp: TCP_LISTEN, unconnected


class PortTaken(KernelFailure):
    """A port of the host cannot be had. `number` is the errno; the sentence is completed by who knows the container."""

    def __init__(self, port: PublishedPort, number: int, holder: str) -> None:
        super().__init__(f"{port.host_ip}:{port.host_port}: {_words(number)}", hint=holder)
        self.port = port
        self.number = number
        self.holder = holder  # a process of the host, "" when unknown

    @property
    def words(self) -> str:
        return _words(self.number)


def _words(number: int) -> str:
    """Go's spelling of an errno (Docker's sentences end in it)."""
    known = {errno.EADDRNOTAVAIL: "cannot assign requested address"}
    return known.get(number, os.strerror(number).lower())


def reserve(plans: Iterable[PortPlan], held: Collection[PublishedPort] = ()) -> Holdings:
    """Bind what `plans` ask for, all or nothing; `held` are ports that the same owner has already.

    Raises PortTaken for the first plan that cannot be had; of a range, for its first port.
    """
    made: Holdings = {}
    try:
        for plan in plans:
            made.update(_first_free(plan, {*held, *made}))
    except BaseException:
        release(made)
        raise
    return made


def release(holdings: Holdings) -> None:
    """Give ports back."""
    for one in holdings.values():
        if one is not None:
            one.close()


def _first_free(plan: PortPlan, held: Collection[PublishedPort]) -> Holdings:
    failure: OSError | None = None
    failed = plan.at(plan.first)[0]
    candidates = range(plan.first, plan.last + 1) if plan.first else [0] * _ATTEMPTS
    for number in candidates:
        try:
            return _bind_all(plan, number, held)
        except _Refused as refused:
            if failure is None:
                failure, failed = refused.error, refused.port
            if refused.error.errno != errno.EADDRINUSE:
                break
    assert failure is not None
    number = failure.errno or 0
    raise PortTaken(failed, number, holder(failed) if number == errno.EADDRINUSE else "") from failure


class _Refused(Exception):
    def __init__(self, port: PublishedPort, error: OSError) -> None:
        super().__init__(port, error)
        self.port = port
        self.error = error


def _bind_all(plan: PortPlan, number: int, held: Collection[PublishedPort]) -> Holdings:
    """Bind one port number at every address of the plan; 0 takes the kernel's choice at the first one."""
    made: Holdings = {}
    try:
        for index in range(len(plan.host_ips)):
            port = plan.at(number)[index]
            # the same container's wildcard covers it, or the same port leads to two of its ports: the first wins
            if number and any(one.host_ip != port.host_ip and port.conflicts_with(one) for one in held):
                made[port] = None
                continue
            try:
                opened = _open(port)
            except OSError as error:
                raise _Refused(port, error) from error
            number = number or opened.getsockname()[1]
            made[plan.at(number)[index]] = opened
    except BaseException:
        release(made)
        raise
    return made


def _open(port: PublishedPort) -> socket.socket:
    """Bind a socket that receives nothing. Raises OSError."""
    try:
        return _bind(port, is_proven=False)
    except OSError as error:
        if error.errno != errno.EADDRINUSE or port.protocol != "tcp" or not port.host_port:
            raise
    return _bind(port, is_proven=True)


def _bind(port: PublishedPort, *, is_proven: bool) -> socket.socket:
    """Bind without SO_REUSEADDR, which nobody can share, or with `is_proven` in spite of connections in TIME_WAIT.

    Connections of an earlier listener are no reason to refuse (tcp(7)), but with SO_REUSEADDR a bind alone proves
    nothing: only listening does. Afterwards the option is taken back, so that no other process can listen there.
    """
    family = socket.AF_INET6 if port.family == 6 else socket.AF_INET
    made = socket.socket(family, _KINDS[port.protocol] | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
    try:
        if port.protocol == "udp":
            code = ctypes.create_string_buffer(_DROP_ALL)
            # struct sock_fprog: number of instructions, their address
            made.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, struct.pack("@HP", 1, ctypes.addressof(code)))
        if family == socket.AF_INET6:
            made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, is_proven)
        made.bind((port.host_ip, port.host_port))
        if is_proven:
            made.listen(1)
            made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, False)
            made.shutdown(socket.SHUT_RDWR)  # listens no more and stays bound (inet_shutdown, tcp_disconnect)
    except BaseException:
        made.close()
        raise
    return made


# ---- who holds a port


def holder(port: PublishedPort) -> str:
    """Return "program (pid 123)" for the process whose socket stands in the way; "" when it cannot be found."""
    inodes = set()
    for table in (port.protocol, f"{port.protocol}6"):  # a socket at [::] may hold the IPv4 port as well
        with suppress(OSError), open(f"/proc/thread-self/net/{table}", encoding="ascii") as file:
            inodes |= {inode for line in file if (inode := _inode(line, port))}
    wanted = {f"socket:[{inode}]" for inode in inodes}
    return _owner(wanted) if wanted else ""


def _inode(line: str, port: PublishedPort) -> str:
    """The socket's inode when a line of /proc/net/{tcp,udp}[6] is about an unconnected socket at that port."""
    fields = line.split()
    if len(fields) < 10 or fields[3] != _LISTENING[port.protocol]:
        return ""
    return fields[9] if fields[1].rpartition(":")[2] == f"{port.host_port:04X}" else ""


def _owner(links: set[str]) -> str:
    for entry in os.scandir("/proc"):
        if not entry.name.isdigit():
            continue
        with suppress(OSError):  # processes end while we look at them
            for descriptor in os.scandir(f"{entry.path}/fd"):
                with suppress(OSError):
                    if os.readlink(descriptor.path) in links:
                        with open(f"{entry.path}/comm", encoding="utf-8", errors="replace") as file:
                            return f"{file.read().strip()} (pid {entry.name})"
    return ""
