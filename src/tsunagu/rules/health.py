"""Health checks as decisions: what to run, when, and what the answers mean. Docker's rules; pure.

May import model. Knows no clock: times come in as values, nanoseconds since the epoch.
"""

from __future__ import annotations

from typing import Any

import msgspec
from msgspec.structs import replace

from tsunagu.model.container import Config, State
from tsunagu.model.errors import InvalidParameter
from tsunagu.model.health import Health, HealthCheck, HealthStatus, Probe

INTERVAL = TIMEOUT = 30_000_000_000  # Docker's defaults, nanoseconds
START_INTERVAL = 5_000_000_000
RETRIES = 3
LOG_LENGTH = 5
OUTPUT_LIMIT = 4096  # bytes
_SHELL = ("/bin/sh", "-c")
_LEAST = 1_000_000  # nanoseconds


def merge(image: Any, own: HealthCheck | None) -> HealthCheck | None:
    """Return the image's check (its configuration's `Healthcheck`) completed and overruled by the user's."""
    if not isinstance(image, dict):
        return own
    try:
        base = msgspec.convert({k: v for k, v in image.items() if v is not None}, HealthCheck)
    except msgspec.ValidationError as error:
        raise InvalidParameter(f"the image's health check is malformed: {error}") from error
    if own is None:
        return base
    chosen = {name: getattr(own, name) or getattr(base, name) for name in HealthCheck.__struct_fields__}
    return HealthCheck(**chosen)


def check(wanted: HealthCheck | None) -> None:
    """Refuse what makes no sense, in Docker's words. Raises InvalidParameter."""
    if wanted is None:
        return
    for name, value in (
        ("Interval", wanted.interval),
        ("Timeout", wanted.timeout),
        ("StartPeriod", wanted.start_period),
        ("StartInterval", wanted.start_interval),
    ):
        if value != 0 and value < _LEAST:
            raise InvalidParameter(f"{name} in Healthcheck cannot be less than 1ms")
    if wanted.retries < 0:
        raise InvalidParameter("Retries in Healthcheck cannot be negative")
    if wanted.test and wanted.test[0] not in ("CMD", "CMD-SHELL", "NONE"):
        raise InvalidParameter(
            f"unknown type of health check: {wanted.test[0]!r}", hint="the first word is CMD, CMD-SHELL or NONE"
        )


def words(config: Config) -> tuple[str, ...]:
    """Return the command to run, () when there is no health check."""
    test = config.healthcheck.test if config.healthcheck else ()
    if len(test) < 2 or test[0] not in ("CMD", "CMD-SHELL"):
        return ()
    return test[1:] if test[0] == "CMD" else (*_SHELL, *test[1:])


def at_start(config: Config, before: Health | None) -> Health | None:
    """Return the health of a container that has just been started; the log of its last run is kept."""
    return Health(log=before.log if before else ()) if words(config) else None


def at_end(health: Health | None) -> Health | None:
    """Return the health of a container that has ended: unhealthy, as Docker shows it."""
    return None if health is None else replace(health, status=HealthStatus.UNHEALTHY)


def next_check(config: Config, state: State, now: int) -> int:
    """Return the nanoseconds to wait before the next check."""
    wanted = config.healthcheck or HealthCheck()
    is_starting = state.health is not None and state.health.status is HealthStatus.STARTING
    if is_starting and now - state.started_at < wanted.start_period:
        return wanted.start_interval or START_INTERVAL
    return wanted.interval or INTERVAL


def time_limit(config: Config) -> int:
    """Return the nanoseconds that one check may take."""
    return (config.healthcheck or HealthCheck()).timeout or TIMEOUT


def after(config: Config, state: State, probe: Probe) -> Health:
    """Return the health after a check. Failures of a container that was never healthy do not count in its start
    period."""
    wanted = config.healthcheck or HealthCheck()
    health = state.health or Health()
    log = (*health.log, probe)[-LOG_LENGTH:]
    if probe.exit_code == 0:
        return Health(status=HealthStatus.HEALTHY, log=log)
    if health.status is HealthStatus.STARTING and probe.start - state.started_at < wanted.start_period:
        return replace(health, log=log)
    streak = health.failing_streak + 1
    status = HealthStatus.UNHEALTHY if streak >= (wanted.retries or RETRIES) else health.status
    return Health(status=status, failing_streak=streak, log=log)


def output(data: bytes) -> str:
    """Return what a check printed as it is kept: at most 4096 bytes."""
    text = data[:OUTPUT_LIMIT].decode(errors="replace")
    return f"{text}..." if len(data) > OUTPUT_LIMIT else text


def exceeded(limit: int, data: bytes) -> str:
    """Return the output of a check that took longer than `limit` nanoseconds."""
    said = f": {output(data)}" if data else ""
    return f"Health check exceeded timeout ({go_duration(limit)}){said}"


def go_duration(nanoseconds: int) -> str:
    """Return a duration as Go prints it: `30s`, `1m30s`, `1.5s`, `100ms`."""
    for unit, size in (("ns", 1), ("µs", 1_000), ("ms", 1_000_000)):
        if nanoseconds < size * 1000 and nanoseconds < 1_000_000_000:
            return f"{_decimal(nanoseconds, size)}{unit}"
    minutes, rest = divmod(nanoseconds, 60_000_000_000)
    hours, minutes = divmod(minutes, 60)
    text = f"{_decimal(rest, 1_000_000_000)}s"
    if hours:
        return f"{hours}h{minutes}m{text}"
    return f"{minutes}m{text}" if minutes else text


def _decimal(value: int, size: int) -> str:
    whole, fraction = divmod(value, size)
    digits = f"{fraction:0{len(str(size)) - 1}d}".rstrip("0") if size > 1 else ""
    return f"{whole}.{digits}" if digits else str(whole)
