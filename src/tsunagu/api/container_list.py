"""Which containers `GET /containers/json` shows, and in which order: newest first, filters as Docker reads them."""

from __future__ import annotations

from typing import Protocol

from tsunagu.model.container import Container, Status
from tsunagu.model.errors import InvalidParameter, NotFound
from tsunagu.model.image import Image
from tsunagu.model.world import World
from tsunagu.rules import links, ports

from .filters import Filters

_STATUSES = ("created", "restarting", "running", "removing", "paused", "exited", "dead")
_HEALTHS = ("starting", "healthy", "unhealthy", "none")


class ImageFinder(Protocol):
    def find(self, word: str) -> Image: ...


def select(world: World, images: ImageFinder, filters: Filters, *, shows_all: bool, limit: int) -> list[Container]:
    """Return the containers to show; raises InvalidParameter for filter values that make no sense."""
    chosen = list(reversed(world.containers.values()))
    shows_all = shows_all or limit > 0 or "status" in filters or "exited" in filters
    if not shows_all:
        chosen = [c for c in chosen if c.is_up]
    if filters:
        chosen = _filtered(world, images, filters, chosen)
    return chosen[:limit] if limit > 0 else chosen


def _filtered(world: World, images: ImageFinder, filters: Filters, chosen: list[Container]) -> list[Container]:
    for status in filters.get("status", ()):
        if status not in _STATUSES:
            raise InvalidParameter(
                f"invalid filter 'status={status}': invalid value for state ({status}): "
                f"must be one of {', '.join(_STATUSES)}"
            )
    for health in filters.get("health", ()):
        if health not in _HEALTHS:
            raise InvalidParameter(f"invalid filter 'health={health}'")
    exit_codes = {_number(text) for text in filters.get("exited", ())}
    for bound in ("before", "since"):
        for word in filters.get(bound, ()):
            created = world.container(word).created
            chosen = [c for c in chosen if (c.created < created if bound == "before" else c.created > created)]
    exposed, published = (_ports(name, filters) for name in ("expose", "publish"))
    ancestors = _ancestors(images, filters)
    linked = links.names_by_target(world) if "name" in filters else {}
    return [
        c
        for c in chosen
        if filters.matches("id", c.id)
        and filters.matches("name", c.name, f"/{c.name}", *linked.get(c.id, ()))
        and filters.exact("status", str(c.state.status))
        and filters.exact("health", str(c.state.health.status) if c.state.health else "none")
        and filters.has_labels(c.config.labels)
        and filters.flag("is-task", default=False) is False
        and (not exit_codes or (c.state.status is Status.EXITED and c.state.exit_code in exit_codes))
        and _is_on_network(c, filters)
        and _exposes(c, exposed)
        and _publishes(c, published)
        and _has_volume(c, filters)
        and (ancestors is None or _descends(images, c, ancestors))
    ]


def _number(text: str) -> int:
    try:
        return int(text)
    except ValueError as error:
        raise InvalidParameter(f"invalid filter 'exited={text}'") from error


def _is_on_network(container: Container, filters: Filters) -> bool:
    if "network" not in filters:
        return True
    known = {container.host.network_mode} if not container.endpoints else set()
    for endpoint in container.endpoints:
        known |= {endpoint.network_id, endpoint.network_name, endpoint.config.network}
    return any(
        word in known or any(len(word) >= 12 and e.network_id.startswith(word) for e in container.endpoints)
        for word in filters["network"]
    )


def _ports(name: str, filters: Filters) -> set[tuple[int, str]]:
    """The ports that a filter names ("80", "80/udp", "80-90/tcp"); raises InvalidParameter."""
    try:
        return {port for spec in filters.get(name, ()) for port in ports.spread(spec)}
    except InvalidParameter as error:
        raise InvalidParameter(f"invalid filter '{name}': {error.message}") from None


def _exposes(container: Container, wanted: set[tuple[int, str]]) -> bool:
    return not wanted or not wanted.isdisjoint(ports.exposed(container.config.exposed_ports))


def _publishes(container: Container, wanted: set[tuple[int, str]]) -> bool:
    """Docker compares with the ports of the host."""
    found = {(port.host_port, port.protocol) for endpoint in container.endpoints for port in endpoint.ports}
    return not wanted or not wanted.isdisjoint(found)


def _has_volume(container: Container, filters: Filters) -> bool:
    if "volume" not in filters:
        return True
    known = {word for mount in container.mounts for word in (mount.name or mount.source, mount.destination)}
    return any(word in known for word in filters["volume"])


def _ancestors(images: ImageFinder, filters: Filters) -> list[Image] | None:
    if "ancestor" not in filters:
        return None
    found = []
    for word in filters["ancestor"]:
        try:
            found.append(images.find(word))
        except (NotFound, InvalidParameter):
            continue  # Docker: an unknown ancestor has no descendants
    return found


def _descends(images: ImageFinder, container: Container, ancestors: list[Image]) -> bool:
    """An image descends from another whose layers it begins with."""
    if any(container.image_id == a.id for a in ancestors):
        return True
    try:
        layers = images.find(container.image_id).diff_ids
    except NotFound:
        return False
    return any(a.diff_ids and layers[: len(a.diff_ids)] == a.diff_ids for a in ancestors)
