"""Whose sandbox a container lives in: its own, or that of the container which `--network container:NAME` names.

A sandbox belongs to the container that made it (its owner) and lives as long as any process in it: a joiner keeps it
alive while its owner is stopped, and the owner's next start enters it again. Imports `model` only; pure. Must never
know what a sandbox is made of.
"""

from __future__ import annotations

from tsunagu.model.container import Container
from tsunagu.model.errors import EngineError
from tsunagu.model.world import World

_PREFIX = "container:"


def target_word(mode: str) -> str | None:
    """Return the name or id in a mode `container:NAME` of any namespace, None for every other mode."""
    return mode.removeprefix(_PREFIX) if mode.startswith(_PREFIX) else None


def joins(container: Container) -> bool:
    """Whether a container lives in another one's sandbox instead of its own."""
    return container.host.network_mode.startswith(_PREFIX)


def owner_of(world: World, container: Container) -> Container:
    """Return the container whose sandbox this one lives in, or will when it is started: itself, unless it joins one.

    While its process runs that is a fact, remembered when it started; before, it is what its mode leads to, over other
    joiners if need be. A container whose owner is gone, or that joins itself in a circle, is taken for its own.
    """
    if container.is_running and container.state.sandbox:
        return world.containers.get(container.state.sandbox, container)
    found = container
    seen: set[str] = set()
    while (word := target_word(found.host.network_mode)) is not None:
        seen.add(found.id)
        try:
            found = world.container(word)
        except EngineError:
            return container
        if found.id in seen:
            return container
    return found


def sharers(world: World, container: Container) -> tuple[Container, ...]:
    """Return every container with a live process in the sandbox that `container` lives in, or will: itself included
    if it runs, oldest first."""
    owner = owner_of(world, container)
    return tuple(
        one
        for one in world.containers.values()
        if one.is_running and (one.id == owner.id or (joins(one) and owner_of(world, one).id == owner.id))
    )


def has_live_sandbox(world: World, container: Container) -> bool:
    """Whether any process lives in the sandbox that `container` lives in, or will: then it has its interfaces,
    addresses, names and published ports, also while its owner is stopped."""
    owner = owner_of(world, container)
    return owner.is_running or bool(sharers(world, owner))
