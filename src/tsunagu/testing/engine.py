"""A real engine of one's own for tests, demonstrations and benches: started, waited for, stopped, checked.

May import the standard library, `model` and its neighbours. It never sleeps for luck: the engine says when it is ready.
"""

from __future__ import annotations

import contextlib
import os
import select
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tsunagu.model.instance import Instance
from tsunagu.testing import host
from tsunagu.testing.http import Api

START_SECONDS = 60.0
STOP_SECONDS = 60.0


class EngineProcess:
    """One engine with its own root, run directory and socket, below a short path (a socket's path holds 107 bytes)."""

    def __init__(self, *arguments: str, environment: Mapping[str, str] | None = None) -> None:
        """`arguments` and `environment` are given to the engine besides what tells it where to live."""
        self.arguments = arguments
        self.environment = dict(environment or {})
        self.directory = Path(tempfile.mkdtemp(prefix="ts-", dir="/tmp"))
        self.instance = Instance(
            root=f"{self.directory}/root", run_dir=f"{self.directory}/run", socket=f"{self.directory}/s.sock"
        )
        self.log_path = self.directory / "engine.log"
        self.api = Api(self.instance.socket)
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def host(self) -> str:
        """The address for `-H` or DOCKER_HOST."""
        return f"unix://{self.instance.socket}"

    @property
    def pid(self) -> int:
        """Process id of the running engine."""
        if self._process is None:
            raise RuntimeError("the engine is not running")
        return self._process.pid

    def start(self) -> None:
        """Start the engine and return when it answers. Raises RuntimeError with the end of its log when it does not."""
        read_end, write_end = os.pipe()
        command = [
            tsunagu_program(), "daemon",
            "--root", self.instance.root, "--run-dir", self.instance.run_dir, "--host", self.host, *self.arguments,
        ]  # fmt: skip
        try:
            with self.log_path.open("ab") as log:
                self._process = subprocess.Popen(
                    command,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    pass_fds=(write_end,),
                    env={**os.environ, **self.environment, "TSUNAGU_READY_FD": str(write_end)},
                    start_new_session=True,
                )
        finally:
            os.close(write_end)
        with os.fdopen(read_end, "rb") as ready:
            readable, _, _ = select.select([ready], [], [], START_SECONDS)
            if not readable or not ready.read(1):
                self.kill()
                raise RuntimeError(f"the engine did not become ready; its log ends with:\n{self.log_tail()}")

    def stop(self) -> None:
        """End the engine as a service manager does (SIGTERM) and wait. Containers run on."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """Kill the engine at once (SIGKILL). Containers, networks and names are to survive it."""
        self._end(signal.SIGKILL)

    def restart(self) -> None:
        """Stop and start again: the same root, the same socket."""
        self.stop()
        self.start()

    def load(self, archive: Path) -> str:
        """Load a docker-save archive through the API; returns the lines that the engine answered."""
        status, body = self.api.request("POST", "/images/load", body=archive, content_type="application/x-tar")
        if status != 200:
            raise RuntimeError(f"loading {archive} answered {status}: {body!r}")
        return body.decode()

    def remove_everything(self) -> list[str]:
        """Remove all containers, all networks that a user made and all volumes; the images stay. Returns refusals."""
        refused: list[str] = []
        for container in self.api.get("/containers/json?all=1"):
            refused += self._delete(f"/containers/{container['Id']}?force=1&v=1")
        networks: list[dict[str, Any]] = self.api.get("/networks")
        for network in networks:
            if network["Name"] not in ("bridge", "host", "none"):
                refused += self._delete(f"/networks/{network['Id']}")
        for volume in self.api.get("/volumes")["Volumes"]:
            refused += self._delete(f"/volumes/{volume['Name']}")
        return refused

    def _delete(self, path: str) -> list[str]:
        status, body = self.api.request("DELETE", path)
        # 404: a container with --rm went by itself in the meantime; 409 "already in progress": it is just going
        is_gone = status in (200, 204, 404) or (status == 409 and b"in progress" in body)
        return [] if is_gone else [f"DELETE {path} answered {status}: {body!r}"]

    def log_tail(self, lines: int = 40) -> str:
        """The end of the engine's log."""
        with contextlib.suppress(FileNotFoundError):
            return "\n".join(self.log_path.read_text(errors="replace").splitlines()[-lines:])
        return ""

    def close(self) -> list[str]:
        """Remove everything, stop, return what was left behind (nothing, if all is well); delete the directory."""
        refused: list[str] = []
        if self._process is not None and self._process.poll() is None:
            refused = self.remove_everything()
            self.stop()
        left = refused + host.leftovers(self.instance)
        if left:
            left.append(f"the engine's log ends with:\n{self.log_tail()}")
            host.sweep(self.instance)
        if self.directory.exists():
            host.remove_directory(self.directory)
        return left

    def _end(self, signum: signal.Signals) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        with contextlib.suppress(ProcessLookupError):
            process.send_signal(signum)
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            raise RuntimeError(
                f"the engine did not stop in {STOP_SECONDS:.0f} s; its log ends with:\n{self.log_tail()}"
            ) from None


def tsunagu_program() -> str:
    """Path of the `tsunagu` command that belongs to this Python; RuntimeError when the project is not installed."""
    beside = Path(sys.prefix, "bin", "tsunagu")
    if beside.exists():
        return str(beside)
    found = shutil.which("tsunagu")
    if found is None:
        raise RuntimeError(f"there is no {beside}: run `make install` first")
    return found
