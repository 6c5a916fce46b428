"""rules.restarts: Docker's restart policies as pure decisions."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from tsunagu.model.container import Config, Container, HostConfig, Link, RestartPolicy, State, Status
from tsunagu.model.errors import InvalidParameter
from tsunagu.model.world import World
from tsunagu.rules import restarts

ENDED = State(status=Status.EXITED, started_at=1, finished_at=2)


@pytest.mark.parametrize(
    ("policy", "state", "expected"),
    [
        (RestartPolicy("no"), replace(ENDED, exit_code=1), False),
        (RestartPolicy("always"), ENDED, True),
        (RestartPolicy("always"), replace(ENDED, is_manually_stopped=True), True),
        (RestartPolicy("unless-stopped"), ENDED, True),
        (RestartPolicy("unless-stopped"), replace(ENDED, is_manually_stopped=True), False),
        (RestartPolicy("on-failure"), ENDED, False),
        (RestartPolicy("on-failure"), replace(ENDED, exit_code=1, restart_count=1000), True),
        (RestartPolicy("on-failure", 3), replace(ENDED, exit_code=1, restart_count=2), True),
        (RestartPolicy("on-failure", 3), replace(ENDED, exit_code=1, restart_count=3), False),
    ],
)
def test_who_is_started_again(policy: RestartPolicy, state: State, expected: bool) -> None:
    assert restarts.again_after(policy, state) is expected


def test_delays_double_up_to_a_minute_and_begin_anew() -> None:
    delays = [0.0]
    for _ in range(12):
        delays.append(restarts.next_delay(delays[-1], 0.5))
    assert delays[1:6] == [0.1, 0.2, 0.4, 0.8, 1.6]
    assert delays[-1] == 60.0
    assert restarts.next_delay(60.0, 10.0) == 0.1
    assert restarts.next_delay(60.0, 9.9) == 60.0


@pytest.mark.parametrize(
    ("policy", "state", "expected"),
    [
        ("always", ENDED, True),
        ("always", replace(ENDED, is_manually_stopped=True), True),
        ("always", State(), False),  # created, never started
        ("always", replace(ENDED, status=Status.RUNNING), False),
        ("unless-stopped", ENDED, True),
        ("unless-stopped", replace(ENDED, is_manually_stopped=True), False),
        ("on-failure", replace(ENDED, exit_code=1), False),
        ("no", ENDED, False),
    ],
)
def test_who_is_started_with_the_engine(policy: str, state: State, expected: bool) -> None:
    host = HostConfig(restart_policy=RestartPolicy(policy))
    container = Container(
        id="c", name="c", created=0, image_id="i", path="p", args=(), config=Config(), host=host, state=state
    )
    assert restarts.starts_with_engine(container) is expected


@pytest.mark.parametrize(
    ("policy", "is_auto_removed", "sentence"),
    [
        (
            RestartPolicy("sometimes"),
            False,
            "invalid restart policy: unknown policy 'sometimes'; "
            "use one of 'no', 'always', 'on-failure', or 'unless-stopped'",
        ),
        (
            RestartPolicy("always", 3),
            False,
            "invalid restart policy: maximum retry count can only be used with 'on-failure'",
        ),
        (
            RestartPolicy("no", -3),
            False,
            "invalid restart policy: maximum retry count can only be used with 'on-failure' and cannot be negative",
        ),
        (RestartPolicy("on-failure", -1), False, "invalid restart policy: maximum retry count cannot be negative"),
        (RestartPolicy("always"), True, "can't create 'AutoRemove' container with restart policy"),
    ],
)
def test_refusals(policy: RestartPolicy, is_auto_removed: bool, sentence: str) -> None:
    with pytest.raises(InvalidParameter) as caught:
        restarts.check(policy, is_auto_removed=is_auto_removed)
    assert caught.value.message == sentence


@pytest.mark.parametrize("name", restarts.POLICIES)
def test_policies_that_are_known(name: str) -> None:
    restarts.check(RestartPolicy(name), is_auto_removed=False)
    restarts.check(RestartPolicy("on-failure", 5), is_auto_removed=False)


def test_whom_others_need_comes_first() -> None:
    def container(name: str, *targets: str, mode: str = "default") -> Container:
        return Container(
            id=name * 64, name=name, created=0, image_id="i", path="p", args=(), config=Config(),
            host=HostConfig(network_mode=mode), links=tuple(Link(target * 64, target) for target in targets),
        )  # fmt: skip

    chosen = [
        container("a", "b"), container("b", "c"), container("c"), container("d", mode=f"container:{'b' * 64}"),
        container("e", "f"), container("f", "e"), container("g", "0"),
    ]  # fmt: skip
    world = World(containers={c.id: c for c in chosen}, container_ids={c.name: c.id for c in chosen})
    order = [sorted(c.name for c in group) for group in restarts.in_order(world, chosen)]
    assert order == [["c", "g"], ["b"], ["a", "d"], ["e", "f"]]
    assert restarts.in_order(world, []) == []
