"""Facts about this engine and this host, for `info` and `version`. Renders nothing."""

from __future__ import annotations

import asyncio
import os
import platform
import socket
import sys
import time
from typing import Any

from tsunagu import __version__
from tsunagu.kernel import processes
from tsunagu.model.container import Status
from tsunagu.model.process import RuntimeInfo

from .engine import Engine
from .images import Images
from .resolver import Resolver


class System:
    def __init__(self, engine: Engine, images: Images, resolver: Resolver, runtime: RuntimeInfo, firewall: str) -> None:
        self._engine = engine
        self._images = images
        self._resolver = resolver
        self._runtime = runtime
        self._firewall = firewall
        self.labels = engine.instance.settings.labels

    async def info(self) -> dict[str, Any]:
        """Return facts by plain names; `api.views` knows Docker's."""
        await self._resolver.refresh()
        world = self._engine.world
        states = [c.state.status for c in world.containers.values()]
        return {
            "id": self._engine_id(),
            "containers": len(states),
            "running": states.count(Status.RUNNING),
            "paused": states.count(Status.PAUSED),
            "stopped": sum(s not in (Status.RUNNING, Status.PAUSED) for s in states),
            "images": len(self._images.all()),
            "networks": len(world.networks),
            "root": self._engine.instance.root,
            "run_dir": self._engine.instance.run_dir,
            "host_name": socket.gethostname(),
            "kernel": platform.release(),
            "os": _os_name(),
            "architecture": platform.machine(),
            "cpus": os.cpu_count() or 1,
            "memory": processes.memory_total(),
            "cgroup_version": "2" if os.path.exists("/sys/fs/cgroup/cgroup.controllers") else "1",
            "runtime": {"name": self._runtime.name, "path": self._runtime.path, "version": self._runtime.version},
            "conmon": self._runtime.conmon_version,
            "firewall": {"backend": self._firewall, "table": self._engine.instance.nft_table},
            "resolver": self._resolver.status,
            "event_listeners": self._engine.events.readers,
            "file_descriptors": len(os.listdir("/proc/self/fd")),
            "tasks": len(asyncio.all_tasks()),
            "version": __version__,
            "python": platform.python_version(),
            "started_at": self._engine.started_at,
            "now": time.time_ns(),
            "pid": os.getpid(),
            "byte_order": sys.byteorder,
            "pools": self._engine.instance.pools,
            "labels": self.labels,
            "ip_forward": _read("/proc/sys/net/ipv4/ip_forward") == "1",
        }

    def _engine_id(self) -> str:
        row = self._engine.db.get("setting", "engine-id")
        if row is None:
            row = self._engine.new_id()[:32].encode()
            self._engine.db.put("setting", "engine-id", row)
        return row.decode()


def _os_name() -> str:
    for line in _read("/etc/os-release").splitlines():
        key, _, value = line.partition("=")
        if key == "PRETTY_NAME":
            return value.strip('"')
    return platform.system()


def _read(path: str) -> str:
    try:
        with open(path) as file:
            return file.read().strip()
    except OSError:
        return ""
