"""What to do about it: for each cause one command line that can be pasted, made of the names in this very world.

Imports `model` and its neighbours only; pure. An empty text means that no command helps. Must never promise what the
engine refuses: a container without a network (`--network none`) cannot be connected, so it is made anew.
"""

from __future__ import annotations

import difflib
import shlex
from collections.abc import Sequence

from tsunagu.model.container import Container
from tsunagu.model.network import Network, PublishedPort
from tsunagu.model.world import World

from .flows import HOST, Flow
from .policy import Reason
from .sandboxes import has_live_sandbox, owner_of, sharers

PROGRAM = "tsunagu"


def start(world: World, container: Container) -> str:
    """A container that is not running; one that joins a sandbox needs that to live."""
    owner = owner_of(world, container)
    names = [container.name] if has_live_sandbox(world, owner) else dict.fromkeys([owner.name, container.name])
    return f"{PROGRAM} start {' '.join(names)}"


def wake(container: Container) -> str:
    """A container that is paused."""
    return f"{PROGRAM} unpause {container.name}"


def log(container: Container) -> str:
    """A container that ends again and again: its log tells why."""
    return f"{PROGRAM} logs {container.name}"


def ask(flow: Flow, target: Container) -> str:
    """A container that has no name of its own: it is found under another one's."""
    port = f":{flow.port}" if flow.port else ""
    protocol = f"/{flow.protocol}" if flow.protocol == "udp" else ""
    return f"{PROGRAM} why {flow.source} {target.name}{port}{protocol}"


def meet(world: World, one: Container, other: Container, family: int = 4) -> str:
    """Two containers without common ground: a network of either that both can be on, else a new one for both."""
    for mine, yours in ((other, one), (one, other)):
        for endpoint in sorted(
            mine.endpoints,
            key=lambda e: world.networks[e.network_id].is_internal if e.network_id in world.networks else True,
        ):
            network = world.networks.get(endpoint.network_id)
            if network is None or not _is_common_ground(network, family):
                continue
            if yours.endpoint_on(network.id) is None:
                return join(world, network, yours)
    return _new_network(world, one, other, family)


def join(world: World, network: Network, container: Container) -> str:
    """One container that is not on a network; those that have no network of their own cannot be connected."""
    if container.host.network_mode in ("none", "host"):
        return _anew(container, network.name)
    return f"{PROGRAM} network connect {network.name} {container.name}"


def recreate(world: World, container: Container, other: Container) -> str:
    """A container without a network: made anew on a network of the other one."""
    for endpoint in other.endpoints:
        network = world.networks.get(endpoint.network_id)
        if network is not None and _is_common_ground(network, 4):
            return _anew(container, network.name)
    return _anew(container, "bridge")


def outside(world: World, container: Container) -> str:
    """A container whose networks do not lead outside: the default bridge does."""
    default = next((n.name for n in world.networks.values() if n.is_default_bridge), "bridge")
    return f"{PROGRAM} network connect {default} {container.name}"


def link(world: World, container: Container, alias: str) -> str:
    """A link whose target is away: start the target when it is only stopped."""
    for endpoint in container.endpoints:
        for text in endpoint.config.links:
            target, _, name = text.partition(":")
            if (name or target).rpartition("/")[2] == alias:
                target = target.removeprefix("/")
                return f"{PROGRAM} start {target}" if target in world.container_ids else ""
    return ""


def near(world: World, source: str, word: str) -> str:
    """A name that nobody has: the nearest one that somebody has."""
    known = list(world.container_ids)
    for container in world.containers.values():
        for endpoint in container.endpoints:
            known += endpoint.config.aliases
    close = difflib.get_close_matches(word, known, n=1, cutoff=0.6)
    return f"{PROGRAM} why {source} {close[0]}" if close else f"{PROGRAM} ps --all"


def rule(world: World, reason: Reason, network: Network, source: Container | None, target: Container | None) -> str:
    """A rule dropped the packet."""
    if source is not None and target is not None:
        if reason is Reason.ICC_OFF:
            return _apart(world, network, source, target)
        return meet(world, source, target)
    if reason is Reason.INTERNAL_EGRESS and source is not None:
        return outside(world, source)
    if target is not None and reason is Reason.INTERNAL_INGRESS:
        return outside(world, target)
    return ""


def publish(world: World, container: Container, protocol: str, port: int, host_port: int = 0) -> str:
    """A container whose port is wanted from outside: ports are published when a container is made, so it is made anew,
    with its networks, environment, binds and other ports. "" where others live in its sandbox, or it has no network."""
    others = [e for e in container.endpoints if e.network_id in world.networks]
    if not others or any(one.id != container.id for one in sharers(world, container)):
        return ""
    key = f"{port}/{protocol}"
    host_port = host_port or _free(world, protocol, port)
    words = ["-p", f"{host_port}:{port}{'/udp' if protocol == 'udp' else ''}"]
    for other, bindings in (container.host.port_bindings or {}).items():
        for binding in bindings or ():
            if other != key and binding.host_port != str(host_port):
                address = f"[{binding.host_ip}]" if ":" in binding.host_ip else binding.host_ip
                published = f"{binding.host_port}:{other.removesuffix('/tcp')}"
                words += ["-p", f"{address}:{published}" if address else published]
    for bind in container.host.binds or ():
        words += ["-v", bind]
    for variable in container.config.env:
        words += ["-e", variable] if not variable.startswith("PATH=") else []  # that one is the image's
    for alias in others[0].config.aliases:
        words += ["--network-alias", alias]
    made = _anew(container, others[0].network_name, words)
    return " && ".join([made, *(f"{PROGRAM} network connect {e.network_name} {container.name}" for e in others[1:])])


def entrance(flow: Flow, port: PublishedPort) -> str:
    """A port that is published: it is asked for at the host's address."""
    host = HOST if port.is_for_any_address else f"[{port.host_ip}]" if port.family == 6 else port.host_ip
    return f"{PROGRAM} why {flow.source} {host}:{port.host_port}{'/udp' if port.protocol == 'udp' else ''}"


def _free(world: World, protocol: str, port: int) -> int:
    """Return a port of the host that no container has: the very same one if it can be."""
    taken = {
        p.host_port for c in world.containers.values() for e in c.endpoints for p in e.ports if p.protocol == protocol
    }
    return next((n for n in (port, *range(8000 + port % 1000, 65536)) if n not in taken), 0)


def _is_common_ground(network: Network, family: int) -> bool:
    return network.has_names and network.allows_icc and network.subnet_of(family) is not None


def _apart(world: World, network: Network, source: Container, target: Container) -> str:
    """Both are on a network that keeps its containers apart. A second one does not help while the name is found on
    the first, so the source leaves that one when it can."""
    made = meet(world, source, target)
    return f"{made} && {PROGRAM} network disconnect {network.name} {source.name}"


def _new_network(world: World, one: Container, other: Container, family: int) -> str:
    base = name = f"{one.name}-{other.name}"[:60]
    count = 2
    while name in world.network_ids:
        name, count = f"{base}-{count}", count + 1
    option = "--ipv6 " if family == 6 else ""
    members = dict.fromkeys([one.name, other.name])
    return " && ".join(
        [f"{PROGRAM} network create {option}{name}", *(f"{PROGRAM} network connect {name} {m}" for m in members)]
    )


def _anew(container: Container, network: str, options: Sequence[str] = ()) -> str:
    config = container.config
    words = [*options, config.image, *(config.entrypoint or ()), *(config.cmd or ())]
    return (
        f"{PROGRAM} rm -f {container.name} && "
        f"{PROGRAM} run -d --name {container.name} --network {network} {shlex.join(words)}"
    )
