"""rules.health: when a check is run and what its answers mean."""

from __future__ import annotations

import pytest

from tsunagu.model.container import Config, State
from tsunagu.model.errors import InvalidParameter
from tsunagu.model.health import Health, HealthCheck, HealthStatus, Probe
from tsunagu.rules import health

SECOND = 1_000_000_000
STARTED = 1000 * SECOND


def config(**values: object) -> Config:
    return Config(healthcheck=HealthCheck(test=("CMD", "check"), **values))  # type: ignore[arg-type]


def run(checked: Config, *codes: int, at: int = STARTED + SECOND) -> Health:
    """The health after these exit codes, one after the other at the same moment."""
    state = State(started_at=STARTED, health=health.at_start(checked, None))
    for code in codes:
        found = health.after(checked, state, Probe(start=at, end=at + 1, exit_code=code, output=str(code)))
        state = State(started_at=STARTED, health=found)
    assert state.health is not None
    return state.health


@pytest.mark.parametrize(
    ("test", "words"),
    [
        (("CMD", "curl", "-f", "x"), ("curl", "-f", "x")),
        (("CMD-SHELL", "curl x || exit 1"), ("/bin/sh", "-c", "curl x || exit 1")),
        (("NONE",), ()),
        (("CMD",), ()),
        ((), ()),
    ],
)
def test_words(test: tuple[str, ...], words: tuple[str, ...]) -> None:
    assert health.words(Config(healthcheck=HealthCheck(test=test))) == words
    assert (health.at_start(Config(healthcheck=HealthCheck(test=test)), None) is not None) is bool(words)


def test_no_check_no_health() -> None:
    assert health.words(Config()) == ()
    assert health.at_start(Config(), None) is None
    assert health.at_end(None) is None


def test_three_failures_in_a_row_are_unhealthy() -> None:
    assert run(config()).status is HealthStatus.STARTING
    assert run(config(), 1, 1).status is HealthStatus.STARTING
    assert run(config(), 1, 1, 1).status is HealthStatus.UNHEALTHY
    assert run(config(), 1, 1, 0, 1, 1).failing_streak == 2
    assert run(config(), 0, 1, 1).status is HealthStatus.HEALTHY
    assert run(config(), 1, 1, 1, 0).status is HealthStatus.HEALTHY
    assert run(config(), 1, 1, 1, 0).failing_streak == 0
    assert run(config(retries=1), 7).status is HealthStatus.UNHEALTHY


def test_failures_of_the_start_period_do_not_count() -> None:
    slow = config(start_period=10 * SECOND)
    assert run(slow, 1, 1, 1, 1).failing_streak == 0
    assert run(slow, 1, 1, 1, at=STARTED + 10 * SECOND).status is HealthStatus.UNHEALTHY
    assert run(slow, 0, 1, 1, 1).status is HealthStatus.UNHEALTHY, "it has been healthy: its start is over"


def test_the_last_five_answers_are_kept() -> None:
    assert [probe.output for probe in run(config(), *range(7)).log] == ["2", "3", "4", "5", "6"]
    again = health.at_start(config(), run(config(), 1, 1, 1))
    assert again is not None and (again.status, again.failing_streak, len(again.log)) == ("starting", 0, 3)


def test_intervals() -> None:
    state = State(started_at=STARTED, health=Health())
    assert health.next_check(config(), state, STARTED) == 30 * SECOND
    assert health.next_check(config(interval=SECOND), state, STARTED) == SECOND
    slow = config(interval=SECOND, start_period=10 * SECOND)
    assert health.next_check(slow, state, STARTED) == 5 * SECOND
    assert health.next_check(config(start_period=10 * SECOND, start_interval=7), state, STARTED) == 7
    assert health.next_check(slow, state, STARTED + 10 * SECOND) == SECOND
    well = State(started_at=STARTED, health=Health(status=HealthStatus.HEALTHY))
    assert health.next_check(slow, well, STARTED) == SECOND
    assert health.time_limit(config()) == 30 * SECOND
    assert health.time_limit(config(timeout=5)) == 5


def test_the_image_gives_what_the_user_does_not() -> None:
    image = {"Test": ["CMD", "a"], "Interval": 5 * SECOND, "Retries": 2, "StartPeriod": None}
    assert health.merge(None, None) is None
    assert health.merge(image, None) == HealthCheck(test=("CMD", "a"), interval=5 * SECOND, retries=2)
    own = HealthCheck(interval=SECOND, timeout=7 * SECOND)
    assert health.merge(image, own) == HealthCheck(test=("CMD", "a"), interval=SECOND, timeout=7 * SECOND, retries=2)
    assert health.words(Config(healthcheck=health.merge(image, HealthCheck(test=("NONE",))))) == ()
    with pytest.raises(InvalidParameter, match="the image's health check is malformed"):
        health.merge({"Test": 5}, None)


@pytest.mark.parametrize(
    ("wanted", "sentence"),
    [
        (HealthCheck(interval=5), "Interval in Healthcheck cannot be less than 1ms"),
        (HealthCheck(timeout=-5), "Timeout in Healthcheck cannot be less than 1ms"),
        (HealthCheck(start_period=1), "StartPeriod in Healthcheck cannot be less than 1ms"),
        (HealthCheck(start_interval=1), "StartInterval in Healthcheck cannot be less than 1ms"),
        (HealthCheck(retries=-1), "Retries in Healthcheck cannot be negative"),
        (HealthCheck(test=("SHELL", "a")), "unknown type of health check: 'SHELL'"),
    ],
)
def test_refusals(wanted: HealthCheck, sentence: str) -> None:
    with pytest.raises(InvalidParameter) as caught:
        health.check(wanted)
    assert caught.value.message == sentence
    health.check(None)
    health.check(HealthCheck(interval=1_000_000))


def test_output_is_bounded() -> None:
    assert health.output(b"x" * 4096) == "x" * 4096
    assert health.output(b"x" * 4097) == "x" * 4096 + "..."
    assert health.exceeded(30 * SECOND, b"") == "Health check exceeded timeout (30s)"
    assert health.exceeded(100_000_000, b"half") == "Health check exceeded timeout (100ms): half"


@pytest.mark.parametrize(
    ("nanoseconds", "text"),
    [
        (7, "7ns"), (1500, "1.5µs"), (1_000_000, "1ms"), (1_500_000_000, "1.5s"), (60 * SECOND, "1m0s"),
        (90 * SECOND, "1m30s"), (3600 * SECOND, "1h0m0s"), (999_999_999, "999.999999ms"),
    ],
)  # fmt: skip
def test_durations_as_go_prints_them(nanoseconds: int, text: str) -> None:
    assert health.go_duration(nanoseconds) == text
