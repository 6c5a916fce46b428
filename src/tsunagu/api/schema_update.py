"""Decoding of `POST /containers/{id}/update`: what may be changed of a container that exists.

May import model values and `api.schema`.
"""

from __future__ import annotations

from typing import NamedTuple

import msgspec

from tsunagu.model.container import RestartPolicy

from .schema import Object, decode, object_of


class ContainerUpdate(NamedTuple):
    """What a client wants to change; None leaves it."""

    restart_policy: RestartPolicy | None


class Nothing(msgspec.Struct):
    """No field at all: limits cannot be changed yet, each is refused by name."""


def container_update(body: Object) -> ContainerUpdate:
    """Decode the body; raises InvalidParameter for malformed values, NotSupported naming the field."""
    policy = body.get("RestartPolicy")
    is_named = bool(object_of(body, "RestartPolicy").get("Name"))
    decode(body, Nothing, ignored=frozenset({"RestartPolicy"}), harmless={"PidsLimit": (-1,), "MemorySwap": (-1,)})
    return ContainerUpdate(restart_policy(policy) if is_named else None)


def restart_policy(value: object, where: str = "") -> RestartPolicy:
    """Decode a restart policy; none, or one without a name, is `no`."""
    body = {k: v for k, v in object_of({"RestartPolicy": value}, "RestartPolicy", where).items() if v is not None}
    policy = decode(body, RestartPolicy, where=f"{where}RestartPolicy.")
    return policy if policy.name else RestartPolicy()
