"""Legacy links (`--link TARGET:ALIAS` on the default bridge): whom a container finds by which private name.

Docker's rules (daemon/links, needs.md 3.4): a link is made at create and keeps its target when either is renamed; it
gives lines in /etc/hosts, and environment variables where the engine is told to. On networks with names a link is an
alias that one endpoint sees, which is `rules.names`. Imports `model` and its neighbours only; pure. Must never decide
about packets: `policy` does.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from tsunagu.model.container import Container, HostConfig, Link
from tsunagu.model.errors import Conflict, EngineError, InvalidParameter, NotFound, NotSupported
from tsunagu.model.network import Endpoint
from tsunagu.model.world import World

from . import ports
from .names import parse_link

VARIABLES = "DOCKER_KEEP_DEPRECATED_LEGACY_LINKS_ENV_VARS"  # Docker 29's switch, in the engine's environment
_NOT_WITH = "conflicting options: {} type networking can't be used with links. This would result in undefined behavior"


def plan(world: World, host: HostConfig, name: str) -> tuple[Link, ...]:
    """Return the links of a container to be created as `name`; none unless its network is the default bridge.

    Raises InvalidParameter in Docker's words: a target that is not there or that uses the host's network.
    """
    mode = host.network_mode.partition(":")[0]
    if not host.links:
        return ()
    if mode in ("host", "container"):
        raise InvalidParameter(_NOT_WITH.format(mode))
    if mode == "none":
        raise NotSupported("links are not supported with --network none", hint="a link needs a network to lead over")
    if mode not in ("", "default", "bridge"):
        return ()
    planned: dict[str, Link] = {}
    for text in host.links:
        word, alias = parse_link(text)
        target = _target(world, word, name)
        known = planned.setdefault(alias, Link(target.id, alias))
        if known.target != target.id:
            raise InvalidParameter(f"conflicting options: two links are called {alias}", hint="give each its own name")
    return tuple(planned.values())


def _target(world: World, word: str, name: str) -> Container:
    asked, noun = word, "could not"
    while True:
        try:
            target = world.container(asked)
        except NotFound as error:  # 400, or clients take it for a missing image (moby#39823)
            hint = "a container cannot be linked to itself" if asked == name else ""
            raise InvalidParameter(f"{noun} get container for {asked}: {error.message}", hint=hint) from error
        mode, _, owner = target.host.network_mode.partition(":")
        if mode == "host":
            raise InvalidParameter(_NOT_WITH.format("host"), hint=f"{target.name} uses the host's network")
        if mode != "container":
            return target
        asked, noun = owner, "Could not"


def notices(world: World, host: HostConfig) -> list[str]:
    """Return what a user of links should know, for the warnings of create."""
    if not host.links:
        return []
    mode = host.network_mode
    targets = [parse_link(text) for text in host.links]
    if mode in ("", "default", "bridge"):
        listed = ", ".join(dict.fromkeys(target for target, _ in targets))
        return [
            "--link on the default bridge is a legacy feature: put the containers on one network of their own "
            f"(network create NAME, run --network NAME) and they find {listed} by name."
        ]
    found = []
    for word, alias in targets:
        try:
            network, target = world.network(mode), world.container(word)
        except EngineError:
            continue
        if target.endpoint_on(network.id) is None:
            found.append(
                f"link {alias} leads nowhere while {target.name} is not on network {network.name}: "
                f"network connect {network.name} {target.name}"
            )
    return found


def check_start(world: World, container: Container) -> None:
    """Refuse, in Docker's words, to start a container with a link that leads nowhere. Raises Conflict."""
    if not container.links or _on_bridge(world, container) is None:
        return
    for link, target in _links(world, container):
        if not target.is_running:
            raise Conflict(
                f"Cannot link to a non running container: /{target.name} AS /{container.name}/{link.alias}",
                hint=f"start it first: tsunagu start {target.name}",
            )
        if _on_bridge(world, target) is None:
            raise Conflict(
                f"Cannot link to /{target.name}, as it does not belong to the default network",
                hint="links of the default bridge lead to its own containers: put both on one network of their own",
            )


def hosts_entries(world: World, container: Container) -> list[tuple[str, str]]:
    """Return (address, names) of every link whose target is there: alias, host name, container name, in that order."""
    if _on_bridge(world, container) is None:
        return []
    entries = []
    for link, target in _links(world, container):
        endpoint = _on_bridge(world, target)
        names = " ".join(dict.fromkeys([link.alias, target.config.hostname, target.name]))
        entries += [(a, names) for a in ((endpoint.ipv4, endpoint.ipv6) if endpoint else ()) if a]
    return entries


def named(world: World, container: Container, word: str) -> tuple[Link, Container] | None:
    """Return the link that gives a container the name `word`, and its target, reachable or not."""
    if _on_bridge(world, container) is not None:
        for link, target in _links(world, container):
            if word in (link.alias, target.config.hostname, target.name):
                return link, target
    return None


def environment(world: World, container: Container) -> list[str]:
    """Return the variables that tell a container about its links, in Docker's names and order."""
    found: list[str] = []
    for link, target in _links(world, container) if _on_bridge(world, container) else ():
        endpoint = _on_bridge(world, target)
        if endpoint is not None and endpoint.ipv4:
            found += _variables(f"/{container.name}/{link.alias}", link.alias, endpoint.ipv4, target)
    return found


def _variables(name: str, alias: str, address: str, target: Container) -> list[str]:
    prefix = alias.upper().replace("-", "_")
    exposed = sorted(ports.exposed(target.config.exposed_ports), key=lambda p: (p[0], p[1] != "tcp"))
    found = []
    if exposed:
        port, protocol = exposed[0]
        found.append(f"{prefix}_PORT={protocol}://{address}:{port}")
    for first, last in _runs(exposed):
        (low, protocol), (high, other) = first, last
        one, two = f"{prefix}_PORT_{low}_{protocol.upper()}", f"{prefix}_PORT_{low}_{other.upper()}"
        found += [
            f"{one}_START={protocol}://{address}:{low}",
            f"{one}_ADDR={address}",
            f"{one}_PROTO={protocol}",
            f"{one}_PORT_START={low}",
            f"{two}_END={other}://{address}:{high}",
            f"{two}_PORT_END={high}",
        ]
    for port, protocol in exposed:
        one = f"{prefix}_PORT_{port}_{protocol.upper()}"
        found += [
            f"{one}={protocol}://{address}:{port}",
            f"{one}_ADDR={address}",
            f"{one}_PORT={port}",
            f"{one}_PROTO={protocol}",
        ]
    found.append(f"{prefix}_NAME={name}")
    for entry in target.config.env:
        key, equals, value = entry.partition("=")
        if equals and key not in ("HOME", "PATH"):
            found.append(f"{prefix}_ENV_{key}={value}")
    return found


def _runs(exposed: Sequence[tuple[int, str]]) -> Iterator[tuple[tuple[int, str], tuple[int, str]]]:
    """Yield first and last of every three or more ports that follow each other."""
    start = 0
    for index in range(1, len(exposed) + 1):
        if index == len(exposed) or exposed[index][0] > exposed[index - 1][0] + 1:
            if index - start > 2:
                yield exposed[start], exposed[index - 1]
            start = index


def words_of(world: World, container: Container) -> list[str] | None:
    """Return HostConfig.Links as inspect prints it (`/db:/web/database`); None without links."""
    return [f"/{t.name}:/{container.name}/{link.alias}" for link, t in _links(world, container)] or None


def names_by_target(world: World) -> dict[str, list[str]]:
    """Return the names that links give their targets (`/web/database`), by the target's id."""
    found: dict[str, list[str]] = {}
    for container in world.containers.values():
        for link in container.links:
            found.setdefault(link.target, []).append(f"/{container.name}/{link.alias}")
    return found


def _links(world: World, container: Container) -> Iterator[tuple[Link, Container]]:
    """Yield the links whose target was not removed."""
    for link in container.links:
        if target := world.containers.get(link.target):
            yield link, target


def _on_bridge(world: World, container: Container) -> Endpoint | None:
    """Return the endpoint on the default bridge."""
    for endpoint in container.endpoints:
        network = world.networks.get(endpoint.network_id)
        if network is not None and network.is_default_bridge:
            return endpoint
    return None
