"""Container values: what was asked for (`Config`, `HostConfig`), and what is (`Container` with its state).

`Config` and `HostConfig` carry Docker's JSON names (Engine API 1.51) so that inspect gives back what create was told.
They hold exactly the fields that this engine acts on; the API refuses every other field that is set, by name.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Any

import msgspec

from .health import Health, HealthCheck, HealthStatus
from .limits import Limits
from .network import Endpoint
from .volume import Mount, MountSpec


class Config(msgspec.Struct, frozen=True, kw_only=True, rename="pascal"):
    """The portable half of a create request, after the image's defaults were merged in."""

    hostname: str = ""
    domainname: str = ""
    user: str = ""
    attach_stdin: bool = False
    attach_stdout: bool = False
    attach_stderr: bool = False
    exposed_ports: dict[str, Any] = {}
    tty: bool = False
    open_stdin: bool = False
    stdin_once: bool = False
    env: tuple[str, ...] = ()
    cmd: tuple[str, ...] | None = None
    image: str = ""
    volumes: dict[str, Any] | None = None  # the image's declaration, shown in inspect
    working_dir: str = ""
    entrypoint: tuple[str, ...] | None = None
    labels: dict[str, str] = {}
    stop_signal: str = ""
    stop_timeout: int | None = None
    healthcheck: HealthCheck | None = None


class PortBinding(msgspec.Struct, frozen=True, rename="pascal"):
    """Where on the host a container port is published, as Docker writes it: both are text, either may be empty."""

    host_ip: str = msgspec.field(name="HostIp", default="")
    host_port: str = ""


class RestartPolicy(msgspec.Struct, frozen=True, rename="pascal"):
    name: str = "no"
    maximum_retry_count: int = 0


class LogConfig(msgspec.Struct, frozen=True, rename="pascal"):
    """How a container's output is kept. `config` are the driver's options."""

    type: str = "json-file"
    config: dict[str, str] = {}


class HostConfig(msgspec.Struct, frozen=True, kw_only=True, rename="pascal"):
    """The host-dependent half of a create request."""

    binds: tuple[str, ...] | None = None
    container_id_file: str = msgspec.field(name="ContainerIDFile", default="")
    network_mode: str = "default"
    mounts: tuple[MountSpec, ...] = ()
    volumes_from: tuple[str, ...] | None = None
    volume_driver: str = ""
    port_bindings: dict[str, tuple[PortBinding, ...] | None] | None = None
    restart_policy: RestartPolicy = RestartPolicy()
    auto_remove: bool = False
    cap_add: tuple[str, ...] | None = None
    cap_drop: tuple[str, ...] | None = None
    cgroupns_mode: str = "private"
    dns: tuple[str, ...] = ()
    dns_options: tuple[str, ...] = ()
    dns_search: tuple[str, ...] = ()
    extra_hosts: tuple[str, ...] | None = None
    group_add: tuple[str, ...] | None = None
    ipc_mode: str = "private"
    links: tuple[str, ...] | None = None
    oom_score_adj: int = 0
    pid_mode: str = ""
    privileged: bool = False
    publish_all_ports: bool = False
    readonly_rootfs: bool = False
    security_opt: tuple[str, ...] | None = None
    tmpfs: dict[str, str] | None = None
    uts_mode: str = msgspec.field(name="UTSMode", default="")
    shm_size: int = 64 << 20
    sysctls: dict[str, str] | None = None
    masked_paths: tuple[str, ...] | None = None
    readonly_paths: tuple[str, ...] | None = None
    limits: Limits = Limits()
    init: bool | None = None  # None: not said, which shows in inspect
    log_config: LogConfig = LogConfig()
    console_size: tuple[int, int] = (0, 0)


class Status(StrEnum):
    CREATED = "created"
    RUNNING = "running"
    PAUSED = "paused"  # runs, and its processes are frozen
    RESTARTING = "restarting"  # has ended, and its restart policy starts it again soon
    EXITED = "exited"
    REMOVING = "removing"
    DEAD = "dead"


class State(msgspec.Struct, frozen=True, kw_only=True):
    """Times are nanoseconds since the epoch, UTC; 0 means never."""

    status: Status = Status.CREATED
    pid: int = 0
    pid_started: int = 0  # start time of `pid` in clock ticks (proc(5) field 22): tells a reused pid apart
    conmon_pid: int = 0
    conmon_started: int = 0
    sandbox: str = ""  # id of the container in whose sandbox the process lives, "" for its own
    exit_code: int = 0
    error: str = ""
    is_oom_killed: bool = False
    started_at: int = 0
    finished_at: int = 0
    restart_count: int = 0  # by the restart policy, since a user started it
    health: Health | None = None  # None: it has no health check
    is_manually_stopped: bool = False  # somebody asked it to end: `unless-stopped` leaves it so


class Link(msgspec.Struct, frozen=True):
    """A legacy link of a container on the default bridge: it finds the container `target` (an id) as `alias` too."""

    target: str
    alias: str


class Container(msgspec.Struct, frozen=True, kw_only=True):
    id: str
    name: str  # without the leading slash
    created: int
    image_id: str
    path: str  # argv[0] of the process
    args: tuple[str, ...]
    config: Config
    host: HostConfig
    # Docker's NetworkSettings.Networks, in declared order: eth0 is the first
    endpoints: tuple[Endpoint, ...] = ()
    links: tuple[Link, ...] = ()  # on the default bridge; those of other networks belong to an endpoint
    mounts: tuple[Mount, ...] = ()
    state: State = State()

    @property
    def is_running(self) -> bool:
        """True while it has a live process, frozen or not."""
        return self.state.status in (Status.RUNNING, Status.PAUSED)

    @property
    def is_paused(self) -> bool:
        return self.state.status is Status.PAUSED

    @property
    def is_ready(self) -> bool:
        """False when it is known that it cannot answer: then its names are left to others that can."""
        health = self.state.health
        return not self.is_paused and (health is None or health.status is not HealthStatus.UNHEALTHY)

    @property
    def is_restarting(self) -> bool:
        return self.state.status is Status.RESTARTING

    @property
    def is_up(self) -> bool:
        """Docker's State.Running: it has a live process, or waits for its next one."""
        return self.is_running or self.is_restarting

    def endpoint_on(self, network_id: str) -> Endpoint | None:
        return next((e for e in self.endpoints if e.network_id == network_id), None)
