"""Whether a container that ended is started again, and how long to wait before. Docker's rules; pure.

May import model. Knows no clock: times come in as values.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress

from tsunagu.model.container import Container, RestartPolicy, State, Status
from tsunagu.model.errors import EngineError, InvalidParameter
from tsunagu.model.world import World

from .sandboxes import owner_of, target_word

FIRST_DELAY = 0.1  # seconds
LONGEST_DELAY = 60.0
RESET_AFTER = 10.0  # seconds that a process must have run for the next delay to be the first again
POLICIES = ("no", "always", "on-failure", "unless-stopped")


def check(policy: RestartPolicy, *, is_auto_removed: bool) -> None:
    """Refuse a policy that makes no sense, in Docker's words. Raises InvalidParameter."""
    name, count = policy.name, policy.maximum_retry_count
    if name not in POLICIES:
        known = ", ".join(f"'{one}'" for one in ("no", "always", "on-failure"))
        raise InvalidParameter(
            f"invalid restart policy: unknown policy '{name}'; use one of {known}, or 'unless-stopped'"
        )
    if name != "on-failure" and count:
        negative = " and cannot be negative" if count < 0 else ""
        raise InvalidParameter(
            f"invalid restart policy: maximum retry count can only be used with 'on-failure'{negative}"
        )
    if count < 0:
        raise InvalidParameter("invalid restart policy: maximum retry count cannot be negative")
    if is_auto_removed and name != "no":
        raise InvalidParameter("can't create 'AutoRemove' container with restart policy")


def again_after(policy: RestartPolicy, state: State) -> bool:
    """Tell whether a container that ended with `state` is started again."""
    match policy.name:
        case "always":
            return True
        case "unless-stopped":
            return not state.is_manually_stopped
        case "on-failure":
            limit = policy.maximum_retry_count
            return state.exit_code != 0 and (limit == 0 or state.restart_count < limit)
    return False


def next_delay(previous: float, ran: float) -> float:
    """Return the seconds to wait before the next start; `previous` is the last such delay (0: none), `ran` the seconds
    that the process lived."""
    if previous == 0 or ran >= RESET_AFTER:
        return FIRST_DELAY
    return min(previous * 2, LONGEST_DELAY)


def starts_with_engine(container: Container) -> bool:
    """Tell whether a container that has ended is started when the engine starts.

    `always` also when somebody had stopped it; `on-failure` never (Docker's documentation of the policies); none that
    was never started.
    """
    if container.state.status is not Status.EXITED or not container.state.started_at:
        return False
    policy = container.host.restart_policy.name
    return policy == "always" or (policy == "unless-stopped" and not container.state.is_manually_stopped)


def in_order(world: World, chosen: Sequence[Container]) -> list[list[Container]]:
    """Return groups to start one after the other: whoever lives in another's sandbox, or is linked to it, comes after
    it. Those that wait for each other in a circle come last, together."""
    left = {container.id: container for container in chosen}
    groups: list[list[Container]] = []
    while left:
        ready = [container for container in left.values() if not needs(world, container) & set(left)]
        group = ready or list(left.values())
        groups.append(group)
        for container in group:
            del left[container.id]
    return groups


def needs(world: World, container: Container) -> set[str]:
    """Return the ids of the containers that must run before this one can: whose namespaces it joins, whom it links."""
    found = {owner_of(world, container).id} | {link.target for link in container.links}
    for mode in (container.host.pid_mode, container.host.ipc_mode):
        if (word := target_word(mode)) is not None:
            with suppress(EngineError):  # gone: its start will say so
                found.add(world.container(word).id)
    return found - {container.id}
