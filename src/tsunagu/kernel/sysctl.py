"""Network sysctls, of the namespace in which the calling thread is (/proc/sys/net follows the thread).

May import `model` only. Must never take a name from a user without `check_name`.
"""

from __future__ import annotations

import errno
import os

from tsunagu.model.errors import KernelFailure


def check_name(name: str) -> str:
    """Return the path below /proc/sys of a sysctl in either spelling (net.ipv4.x, net/ipv4/x).

    Raises KernelFailure for one that does not belong to a network namespace.
    """
    path = name if "/" in name else name.replace(".", "/")
    if not path.startswith("net/") or ".." in path.split("/"):
        raise KernelFailure(f"sysctl {name} does not belong to a network namespace")
    return path


def write(path: str, value: str) -> None:
    """Write /proc/sys/`path` of the thread's network namespace; raises OSError."""
    descriptor = os.open(f"/proc/sys/{path}", os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(descriptor, value.encode())
    finally:
        os.close(descriptor)


def ensure(path: str, value: str) -> bool:
    """Write a sysctl unless it has that value; True when it was written. Raises OSError."""
    with open(f"/proc/sys/{path}", encoding="ascii") as file:
        if file.read().strip() == value:
            return False
    write(path, value)
    return True


def set_checked(path: str, value: str) -> None:
    """Give a sysctl a value that a user chose. Raises KernelFailure in Docker's words when it cannot have it."""
    if not os.path.isfile(f"/proc/sys/{path}"):
        raise KernelFailure(f"/proc/sys/{path} is not a sysctl file")
    try:
        ensure(path, value)
    except OSError as error:
        raise KernelFailure(f"unable to write to '/proc/sys/{path}': {error.strerror}") from error


def write_ipv6(name: str, *, has_ipv6: bool) -> None:
    """Refuse router advertisements on `name`; shut IPv6 off there unless `has_ipv6`.

    CVE-2024-32473, CVE-2020-13401: raises KernelFailure when it cannot be done. A kernel without IPv6 is fine, unless
    the interface needs it.
    """
    directory = f"net/ipv6/conf/{name}"
    try:
        write(f"{directory}/accept_ra", "0")
        write(f"{directory}/disable_ipv6", "0" if has_ipv6 else "1")
    except OSError as error:
        # Below an MTU of 1280 bytes (RFC 8200) the kernel gives an interface no IPv6 at all, nor a directory here.
        if error.errno == errno.ENOENT and not has_ipv6 and not os.path.isdir(f"/proc/sys/{directory}"):
            return
        wish = "enable IPv6" if has_ipv6 else "shut IPv6 off"
        raise KernelFailure(
            f"cannot {wish} on interface {name}: {error.strerror}",
            hint="is /proc/sys writable for the engine?"
            if not has_ipv6
            else "is IPv6 enabled on this host (ipv6.disable=1)?",
        ) from error
