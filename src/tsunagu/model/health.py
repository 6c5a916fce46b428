"""Health of a container: how it is asked for (`HealthCheck`), what was answered (`Health`)."""

from __future__ import annotations

from enum import StrEnum

import msgspec


class HealthCheck(msgspec.Struct, frozen=True, kw_only=True, rename="pascal"):
    """Docker's HealthConfig. `test` is ("CMD", words…), ("CMD-SHELL", line) or ("NONE",); empty: the image's.

    Times are nanoseconds; 0 means the image's, else Docker's default.
    """

    test: tuple[str, ...] = ()
    interval: int = 0
    timeout: int = 0
    start_period: int = 0
    start_interval: int = 0
    retries: int = 0


class HealthStatus(StrEnum):
    STARTING = "starting"
    HEALTHY = "healthy"
    UNHEALTHY = "unhealthy"


class Probe(msgspec.Struct, frozen=True, kw_only=True):
    """One run of the check. Times are nanoseconds since the epoch, UTC; the exit code is -1 when it did not end."""

    start: int
    end: int
    exit_code: int
    output: str = ""


class Health(msgspec.Struct, frozen=True, kw_only=True):
    status: HealthStatus = HealthStatus.STARTING
    failing_streak: int = 0
    log: tuple[Probe, ...] = ()  # the last five, oldest first
