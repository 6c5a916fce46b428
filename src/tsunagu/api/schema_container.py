"""Decoding of `POST /containers/create`: Config at the top, HostConfig, NetworkingConfig.

Fields that the model lacks are refused by name. May import model values and `api.schema`.
"""

from __future__ import annotations

from ipaddress import ip_address
from typing import NamedTuple

from msgspec.structs import replace

from tsunagu.model.container import Config, HostConfig, LogConfig
from tsunagu.model.errors import InvalidParameter, NotSupported
from tsunagu.model.health import HealthCheck
from tsunagu.model.network import EndpointConfig

from .schema import Object, decode, endpoint_config, is_empty, object_of, text_of, words_of
from .schema_mounts import check_volumes, mounts_of
from .schema_update import LIMITS, limits_of, restart_policy

SHM_SIZE = 64 << 20  # Docker's default, bytes

# Values of fields the model lacks that ask for nothing this engine does not do anyway.
_HARMLESS: dict[str, tuple[object, ...]] = {
    "Runtime": ("runc", "io.containerd.runc.v2"),
    "Isolation": ("default",),
    "UsernsMode": ("host",),
}

# Accepted modes of namespaces, and what they are kept as.
_MODES = {
    "IpcMode": {"": "private", "private": "private", "shareable": "private", "host": "host"},
    "PidMode": {"": "", "private": "", "host": "host"},
    "UTSMode": {"": "", "private": "", "host": "host"},
    "CgroupnsMode": {"": "private", "private": "private", "host": "host"},
}


class ContainerCreate(NamedTuple):
    config: Config
    host: HostConfig
    endpoints: tuple[EndpointConfig, ...]


def container_create(body: Object) -> ContainerCreate:
    """Decode the whole body; raises InvalidParameter for malformed values, NotSupported naming the field."""
    host_body = object_of(body, "HostConfig")
    host = _host(host_body)
    config = decode(
        {**body, "Cmd": words_of(body.get("Cmd")), "Entrypoint": words_of(body.get("Entrypoint"))},
        Config,
        ignored=frozenset({"HostConfig", "NetworkingConfig", "MacAddress", "OnBuild", "ArgsEscaped", "Healthcheck"}),
        harmless=_HARMLESS,
    )
    if body.get("Healthcheck") is not None:
        check = decode(object_of(body, "Healthcheck"), HealthCheck, where="Healthcheck.")
        config = replace(config, healthcheck=check)
    check_volumes(config.volumes)
    # what is published is exposed too (Docker's clients send both)
    exposed = [*config.exposed_ports, *(host.port_bindings or {})]
    config = replace(config, exposed_ports={_port(spec): {} for spec in exposed})
    host, endpoints = _attachments(host, object_of(body, "NetworkingConfig"), text_of(body, "MacAddress"))
    return ContainerCreate(config, host, endpoints)


def _host(body: Object) -> HostConfig:
    where = "HostConfig."
    body = dict(body)
    mounts = body.pop("Mounts", None) or []
    policy = restart_policy(body.pop("RestartPolicy", None), where)
    limits = limits_of(body, where)
    log_config = _log_config(body.pop("LogConfig", None), where)
    body = {key: value for key, value in body.items() if key not in LIMITS}
    for field, modes in _MODES.items():
        mode = text_of(body, field)
        if mode not in modes:
            raise NotSupported(
                f"{where}{field} {mode} is not supported yet", hint=f"supported: {', '.join(filter(None, modes))}"
            )
        body[field] = modes[mode]
    host = decode(body, HostConfig, where=where, harmless=_HARMLESS)
    for server in host.dns:
        _check_address(server)
    if host.shm_size < 0:
        raise InvalidParameter("SHM size can not be less than 0")
    return replace(
        host,
        network_mode=host.network_mode or "default",
        restart_policy=policy,
        limits=limits,
        log_config=log_config,
        shm_size=host.shm_size or SHM_SIZE,
        port_bindings={_port(spec): found or () for spec, found in (host.port_bindings or {}).items()} or None,
        binds=host.binds or None,
        mounts=mounts_of(mounts, where),
        volumes_from=host.volumes_from or None,
        tmpfs=host.tmpfs or None,
    )


def _refuse_others(body: Object, known: set[str], where: str) -> None:
    for key, value in body.items():
        if key not in known and not is_empty(value):
            raise NotSupported(f"{where}{key} is not supported yet")


def _log_config(value: object, where: str) -> LogConfig:
    body = object_of({"LogConfig": value}, "LogConfig", where)
    config = decode(body, LogConfig, where=f"{where}LogConfig.")
    return config if config.type else replace(config, type="json-file")


def _check_address(text: str) -> None:
    try:
        ip_address(text)
    except ValueError as error:
        raise InvalidParameter(f"invalid IP address: {text}") from error


def _port(spec: str) -> str:
    """Return a port as `80/tcp`; raises InvalidParameter."""
    number, _, protocol = spec.partition("/")
    protocol = protocol or "tcp"
    ends = number.split("-")
    if (
        protocol not in ("tcp", "udp", "sctp")
        or len(ends) > 2
        or not all(e.isascii() and e.isdigit() and len(e) < 6 and 0 < int(e) < 65536 for e in ends)
    ):
        raise InvalidParameter(f'invalid port specification: "{spec}"')
    return f"{number}/{protocol}"


def _attachments(
    host: HostConfig, networking: Object, legacy_mac: str
) -> tuple[HostConfig, tuple[EndpointConfig, ...]]:
    """Merge NetworkMode and EndpointsConfig.

    The mode's network comes first, then the others as the client wrote them: eth0 is the network of `--network` or the
    first of several, although Go clients sort the map. EndpointsConfig alone, without a mode, is the whole list.
    """
    _refuse_others(networking, {"EndpointsConfig"}, "NetworkingConfig.")
    wanted = object_of(networking, "EndpointsConfig", "NetworkingConfig.")
    mode = host.network_mode
    endpoints = []
    for name, value in wanted.items():
        where = f"NetworkingConfig.EndpointsConfig.{name}."
        if value is not None and not isinstance(value, dict):
            raise InvalidParameter(f"invalid JSON: {where.rstrip('.')}: expected an object")
        endpoints.append(endpoint_config("bridge" if name == "default" else name, value, where))
    if mode == "default" and endpoints and all(e.network != "bridge" for e in endpoints):
        mode = endpoints[0].network
        host = replace(host, network_mode=mode)
    primary = "bridge" if mode == "default" else mode
    endpoints.sort(key=lambda e: e.network != primary)  # stable: the others keep their order
    if legacy_mac:
        if not endpoints:
            endpoints = [EndpointConfig(network=primary)]
        if endpoints[0].mac and endpoints[0].mac != legacy_mac:
            raise InvalidParameter("conflicting MAC address in container config and endpoint config")
        endpoints[0] = replace(endpoints[0], mac=legacy_mac)
    return host, tuple(endpoints)
