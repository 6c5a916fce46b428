"""Decoding of limits and restart policies, which both `create` and `update` have.

May import model values and `api.schema`.
"""

from __future__ import annotations

from typing import NamedTuple

import msgspec
from msgspec.structs import replace

from tsunagu.model.container import RestartPolicy
from tsunagu.model.errors import NotSupported
from tsunagu.model.limits import Limits

from .schema import Object, decode, object_of

LIMITS = frozenset(field.encode_name for field in msgspec.structs.fields(Limits))
# Of a container that exists: its devices and ulimits stay as they are, and Docker's clients send them empty.
_FIXED = (
    "devices", "device_cgroup_rules", "ulimits", "oom_kill_disable", "memory_swappiness", "blkio_weight_device",
    "blkio_device_read_bps", "blkio_device_write_bps", "blkio_device_read_iops", "blkio_device_write_iops",
)  # fmt: skip


class ContainerUpdate(NamedTuple):
    """What a client wants to change; `restart_policy` None leaves it, as do limits that are 0, "" or None."""

    limits: Limits
    restart_policy: RestartPolicy | None


def container_update(body: Object) -> ContainerUpdate:
    """Decode the body; raises InvalidParameter for malformed values, NotSupported naming the field."""
    policy = body.get("RestartPolicy")
    is_named = bool(object_of(body, "RestartPolicy").get("Name"))
    wanted = _meant(decode(body, Limits, ignored=frozenset({"RestartPolicy"})))
    for field in _FIXED:
        if getattr(wanted, field):
            raise NotSupported(f"{field.replace('_', '-')} of a container cannot be changed", hint="make a new one")
    wanted = replace(wanted, oom_kill_disable=None, memory_swappiness=None)
    if wanted.pids_limit is not None and wanted.pids_limit <= 0:
        wanted = replace(wanted, pids_limit=-1)
    return ContainerUpdate(wanted, restart_policy(policy) if is_named else None)


def limits_of(body: Object, where: str) -> Limits:
    """Decode the limits among the fields of a HostConfig."""
    return _meant(decode({key: value for key, value in body.items() if key in LIMITS}, Limits, where=where))


def _meant(limits: Limits) -> Limits:
    """-1 is how Docker's client says that it asks for no swappiness."""
    return replace(limits, memory_swappiness=None) if limits.memory_swappiness == -1 else limits


def restart_policy(value: object, where: str = "") -> RestartPolicy:
    """Decode a restart policy; none, or one without a name, is `no`."""
    body = {k: v for k, v in object_of({"RestartPolicy": value}, "RestartPolicy", where).items() if v is not None}
    policy = decode(body, RestartPolicy, where=f"{where}RestartPolicy.")
    return policy if policy.name else RestartPolicy()
