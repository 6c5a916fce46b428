"""`--network container:NAME`: what is refused beside it, what follows from it, and who may be removed. Pure.

Docker's rules and words (runconfig, validateNetContainerMode; daemon, adaptSharedNamespaceContainer). What Docker takes
and never uses is refused with the sentence of its neighbour. Imports `model` and `sandboxes` only.
"""

from __future__ import annotations

from collections.abc import Sequence

from msgspec.structs import replace

from tsunagu.model.container import Config, Container, HostConfig
from tsunagu.model.errors import Conflict, EngineError, InvalidParameter
from tsunagu.model.network import EndpointConfig
from tsunagu.model.settings import Settings
from tsunagu.model.world import World

from .sandboxes import has_live_sandbox, joins, owner_of, sharers, target_word

SHARED = "container sharing network namespace with another container or host cannot be connected to any other network"


def adapt(world: World, host: HostConfig) -> HostConfig:
    """Return `host` with the id of the container that its mode names, so that a new name for that changes nothing.

    One that does not exist yet is found out at start, as in Docker.
    """
    word = target_word(host.network_mode)
    if not word:
        return host
    try:
        return replace(host, network_mode=f"container:{world.container(word).id}")
    except EngineError:
        return host


def with_dns_defaults(host: HostConfig, settings: Settings) -> HostConfig:
    """Return `host` with the engine's name servers, options and search list where it names none of that kind.

    Not in somebody else's sandbox: the owner's apply.
    """
    if target_word(host.network_mode) is not None:
        return host
    return replace(
        host,
        dns=host.dns or settings.dns,
        dns_options=host.dns_options or settings.dns_options,
        dns_search=host.dns_search or settings.dns_search,
    )


def with_ulimit_defaults(host: HostConfig, settings: Settings) -> HostConfig:
    """Return `host` with the engine's default ulimits of those kinds that it does not name."""
    named = {one.name for one in host.limits.ulimits}
    added = tuple(one for one in settings.ulimits if one.name not in named)
    if not added:
        return host
    return replace(host, limits=replace(host.limits, ulimits=(*host.limits.ulimits, *added)))


def check(config: Config, host: HostConfig, endpoints: Sequence[EndpointConfig]) -> None:
    """Refuse what cannot be had in somebody else's sandbox. `config` is the user's, before the image's defaults."""
    word = "" if host.network_mode == "container" else target_word(host.network_mode)
    if word is None:
        return
    if not word:
        raise InvalidParameter("Invalid network mode: invalid container format container:<name|id>")
    if config.hostname or config.domainname:
        raise InvalidParameter("conflicting options: hostname and the network mode")
    if host.links:
        raise InvalidParameter(
            "conflicting options: container type network can't be used with links. "
            "This would result in undefined behavior"
        )
    if host.dns or host.dns_search or host.dns_options:
        raise InvalidParameter("conflicting options: dns and the network mode")
    if host.extra_hosts:
        raise InvalidParameter("conflicting options: custom host-to-IP mapping and the network mode")
    if any(e.mac for e in endpoints):
        raise InvalidParameter("conflicting options: mac-address and the network mode")
    if host.port_bindings or host.publish_all_ports:
        raise InvalidParameter(
            "conflicting options: port publishing and the container type network mode",
            hint=f"publish the port where the sandbox is made: run -p … --name {word}",
        )
    if config.exposed_ports:
        raise InvalidParameter("conflicting options: port exposing and the container type network mode")
    if any(e.ipv4 or e.ipv6 for e in endpoints):
        raise _invalid(host, "user specified IP address is supported on user defined networks only")
    if any(e.aliases or e.links for e in endpoints):
        raise _invalid(host, "network-scoped alias is supported only for containers in user defined networks")
    if any(e.network != host.network_mode and target_word(e.network) is None for e in endpoints):
        raise InvalidParameter(SHARED)


def _invalid(host: HostConfig, problem: str) -> InvalidParameter:
    return InvalidParameter(f"invalid config for network {host.network_mode}: invalid endpoint settings:\n{problem}")


def named(world: World, config: Config, host: HostConfig) -> Config:
    """Return `config` with the host name of the sandbox that a container joins (Docker: one UTS name per sandbox)."""
    word = target_word(host.network_mode)
    if word is None:
        return config
    try:
        owner = owner_of(world, world.container(word))
    except EngineError:
        return config
    return replace(config, hostname=owner.config.hostname, domainname=owner.config.domainname)


def check_removal(world: World, container: Container) -> None:
    """Refuse to remove a stopped container whose sandbox others live in: they would lose their network."""
    if joins(container) or not has_live_sandbox(world, container):
        return
    listed = ", ".join(one.name for one in sharers(world, container))
    raise Conflict(
        f'cannot remove container "{container.name}": its network is used by {listed}: '
        "stop them before removing or force remove",
        hint=f"forced, they go on without a network, as in Docker; {container.name} can be started again as it is",
    )
