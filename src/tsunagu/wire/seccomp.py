"""The default seccomp profile: from the text that Debian ships (containers-common's format) to OCI's `linux.seccomp`.

The file has rules with conditions (capabilities, architectures, kernel version); OCI has none, so they are decided
here. Pure; may import model.errors.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import msgspec

from tsunagu.model.errors import InvalidParameter

# uname's machine -> the names that the profile's conditions use (Go's GOARCH) and libseccomp's own
_ARCHITECTURES = {
    "x86_64": ("amd64", "SCMP_ARCH_X86_64"),
    "aarch64": ("arm64", "SCMP_ARCH_AARCH64"),
    "riscv64": ("riscv64", "SCMP_ARCH_RISCV64"),
    "s390x": ("s390x", "SCMP_ARCH_S390X"),
    "ppc64le": ("ppc64le", "SCMP_ARCH_PPC64LE"),
}

# Debian's profile lets every container make namespaces and mounts (rootless tools inside need them); Docker's lets only
# those with CAP_SYS_ADMIN. Docker's is what is promised: user namespaces open much of the kernel to an attacker.
_NEEDS_SYS_ADMIN = frozenset(
    {
        "clone3", "fsconfig", "fsmount", "fsopen", "fspick", "mount", "mount_setattr", "move_mount", "open_tree",
        "setns", "umount", "umount2", "unshare",
    }
)  # fmt: skip
_NEEDS_OTHER = {"reboot": "CAP_SYS_BOOT", "syslog": "CAP_SYSLOG"}
_NEVER = frozenset({"keyctl", "pivot_root"})
_CLONE_NAMESPACES = 0x7E020000  # every CLONE_NEW… flag of clone(2)
_EPERM, _ENOSYS = 1, 38


class _Condition(msgspec.Struct):
    caps: list[str] = []
    arches: list[str] = []
    min_kernel: str = msgspec.field(name="minKernel", default="")


class _Argument(msgspec.Struct):
    index: int
    value: int
    op: str
    value_two: int = msgspec.field(name="valueTwo", default=0)


class _Rule(msgspec.Struct):
    action: str
    name: str = ""
    names: list[str] = []
    args: list[_Argument] | None = None
    includes: _Condition | None = None
    excludes: _Condition | None = None
    errno_ret: int | None = msgspec.field(name="errnoRet", default=None)


class _SubArchitectures(msgspec.Struct):
    architecture: str
    sub: list[str] | None = msgspec.field(name="subArchitectures", default=None)


class _Profile(msgspec.Struct):
    default_action: str = msgspec.field(name="defaultAction")
    default_errno: int | None = msgspec.field(name="defaultErrnoRet", default=None)
    architectures: list[str] | None = None
    arch_map: list[_SubArchitectures] | None = msgspec.field(name="archMap", default=None)
    flags: list[str] | None = None
    syscalls: list[_Rule] | None = None


def filter_profile(
    text: str,
    *,
    capabilities: frozenset[str],
    architecture: str,
    kernel: tuple[int, int],
    without: frozenset[str] = frozenset(),
    is_default: bool = False,
) -> Mapping[str, Any]:
    """Return `linux.seccomp` for a container with these capabilities. Shared and cached: do not change it.

    `text` is a profile in containers-common's, Docker's or OCI's form (all three are one superset); raises
    InvalidParameter when it is not one. `architecture` is uname's machine; `without` names sub-architectures to leave
    out (libseccomp's names): a program of theirs is then killed, and the runtime needs less time for the filter.
    `is_default` is for the profile that nobody chose: what Docker's own refuses is refused (moby, profiles/seccomp).
    """
    return _filter(text, capabilities, architecture, kernel, without, is_default)


@lru_cache(maxsize=32)
def _filter(
    text: str,
    capabilities: frozenset[str],
    architecture: str,
    kernel: tuple[int, int],
    without: frozenset[str],
    is_default: bool,
) -> Mapping[str, Any]:
    try:
        profile = msgspec.json.decode(text.encode(), type=_Profile)
    except msgspec.DecodeError as error:
        raise InvalidParameter(f"Decoding seccomp profile failed: {error}") from error
    go_name, seccomp_name = _ARCHITECTURES.get(architecture, (architecture, ""))
    result: dict[str, Any] = {"defaultAction": profile.default_action}
    if profile.default_errno is not None:
        result["defaultErrnoRet"] = profile.default_errno
    architectures = list(profile.architectures or ())
    for entry in profile.arch_map or ():
        if entry.architecture == seccomp_name:
            architectures += [entry.architecture, *(name for name in entry.sub or () if name not in without)]
    if architectures:
        result["architectures"] = architectures
    if profile.flags:
        result["flags"] = profile.flags
    result["syscalls"] = [
        _syscall(rule)
        for rule in profile.syscalls or ()
        if _holds(rule, capabilities, go_name, kernel) and (rule.names or rule.name)
    ]
    if is_default:
        result["syscalls"] = _as_docker(result["syscalls"], capabilities, go_name)
    return result


def _as_docker(syscalls: list[dict[str, Any]], capabilities: frozenset[str], architecture: str) -> list[dict[str, Any]]:
    """The rules of a profile, less what Docker's default refuses a container with these capabilities."""
    refused = set(_NEVER) | {name for name, needed in _NEEDS_OTHER.items() if needed not in capabilities}
    is_narrow = "CAP_SYS_ADMIN" not in capabilities
    if is_narrow:
        refused |= _NEEDS_SYS_ADMIN | {"clone"}
    kept = [{**rule, "names": [name for name in rule["names"] if name not in refused]} for rule in syscalls]
    rules = [rule for rule in kept if rule["names"]]
    # clone3's flags are behind a pointer, where no filter can see them; ENOSYS makes libraries fall back to clone
    errors = {"clone3": _ENOSYS} if is_narrow else {}
    for name in sorted(refused - {"clone"}):
        rules.append({"names": [name], "action": "SCMP_ACT_ERRNO", "errnoRet": errors.get(name, _EPERM)})
    if is_narrow:
        index = 1 if architecture == "s390x" else 0
        flags = {"index": index, "value": _CLONE_NAMESPACES, "valueTwo": 0, "op": "SCMP_CMP_MASKED_EQ"}
        rules.append({"names": ["clone"], "action": "SCMP_ACT_ALLOW", "args": [flags]})
    return rules


def _holds(rule: _Rule, capabilities: frozenset[str], architecture: str, kernel: tuple[int, int]) -> bool:
    """All of `includes` must hold and none of `excludes` (containers/common, pkg/seccomp)."""
    included, excluded = rule.includes or _Condition(), rule.excludes or _Condition()
    if included.arches and architecture not in included.arches:
        return False
    if not capabilities.issuperset(included.caps):
        return False
    if included.min_kernel and kernel < _version(included.min_kernel):
        return False
    if excluded.arches and architecture in excluded.arches:
        return False
    if capabilities.intersection(excluded.caps):
        return False
    return not (excluded.min_kernel and kernel >= _version(excluded.min_kernel))


def _version(text: str) -> tuple[int, int]:
    major, _, minor = text.partition(".")
    try:
        return int(major), int(minor)
    except ValueError:
        raise InvalidParameter(f"Decoding seccomp profile failed: invalid minKernel {text!r}") from None


def _syscall(rule: _Rule) -> dict[str, Any]:
    syscall: dict[str, Any] = {"names": rule.names or [rule.name], "action": rule.action}
    if rule.errno_ret is not None:
        syscall["errnoRet"] = rule.errno_ret
    if rule.args:
        syscall["args"] = [{"index": a.index, "value": a.value, "valueTwo": a.value_two, "op": a.op} for a in rule.args]
    return syscall
