"""`update`. May import: `client`, `cli`. Must never import the engine."""

from __future__ import annotations

from tsunagu.cli.command import Command
from tsunagu.cli.create_body import restart_policy
from tsunagu.cli.create_flags import SHARED
from tsunagu.cli.main import describe
from tsunagu.cli.output import Failure, say, warn
from tsunagu.cli.paths import api_path
from tsunagu.client import ClientError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from tsunagu.cli.flags import Flag, Options
    from tsunagu.cli.main import Context

_FIELDS = {
    "blkio-weight": "BlkioWeight",
    "cpu-period": "CpuPeriod",
    "cpu-quota": "CpuQuota",
    "cpu-rt-period": "CpuRealtimePeriod",
    "cpu-rt-runtime": "CpuRealtimeRuntime",
    "cpu-shares": "CpuShares",
    "cpus": "NanoCpus",
    "cpuset-cpus": "CpusetCpus",
    "cpuset-mems": "CpusetMems",
    "memory": "Memory",
    "memory-reservation": "MemoryReservation",
    "memory-swap": "MemorySwap",
    "pids-limit": "PidsLimit",
}
_RESTART: Flag = ("restart", "", "string", "", "Restart policy to apply when a container exits")
FLAGS: tuple[Flag, ...] = (*(flag for flag in SHARED if flag[0] in _FIELDS), _RESTART)


def _update(context: Context, options: Options, names: list[str]) -> int:
    if not any(flag[0] in options for flag in FLAGS):
        raise Failure("you must provide one or more flags when using this command")
    body: dict[str, Any] = {field: options[name] for name, field in _FIELDS.items() if name in options}
    body["RestartPolicy"] = restart_policy(options["restart"])
    warnings: list[str] = []
    errors: list[Exception] = []
    for name in names:
        try:
            answer = context.client().post(api_path("container", name) + "/update", body=body)
        except (ClientError, Failure) as error:
            errors.append(error)
        else:
            say(name)
            warnings += answer.get("Warnings") or []
    if warnings:
        say("\n".join(warnings))
    for failed in errors:
        warn(describe(failed))
    return 1 if errors else 0


UPDATE = Command(
    "[OPTIONS] CONTAINER [CONTAINER...]",
    "Update configuration of one or more containers",
    _update,
    flags=FLAGS,
    least=1,
)
