"""An engine that kills itself at a chosen step, for tests of what a crash leaves behind.

The product knows nothing of this: a script runs the daemon with its coroutines and kernel functions wrapped. While the
file `<root>/crash` exists, calls are counted (its number says at which one to die, 0: only count into
`<root>/crash.steps`). May import everything.
"""

from __future__ import annotations

import functools
import inspect
import os
import signal
import stat
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tsunagu.testing import engine as testing

STEPS = "crash.steps"
ORDER = "crash"


class CrashingEngine(testing.EngineProcess):
    """An engine of one's own that can be told to die at the n-th step from now on."""

    def start(self) -> None:
        script = Path(self.directory, "crashing")
        if not script.exists():
            script.write_text(
                f"#!{sys.executable}\nimport sys\nsys.path.insert(0, {str(Path(__file__).parent)!r})\n"
                "import crashing\nsys.exit(crashing.main())\n"
            )
            script.chmod(stat.S_IRWXU)
        original = testing.tsunagu_program
        testing.tsunagu_program = lambda: str(script)
        try:
            super().start()
        finally:
            testing.tsunagu_program = original

    def arm(self, step: int) -> None:
        """Count steps from now on; die at the one with this number (0: never)."""
        Path(self.instance.root, STEPS).unlink(missing_ok=True)
        Path(self.instance.root, ORDER).write_text(str(step))

    def disarm(self) -> list[str]:
        """Stop counting; return the steps that were counted."""
        Path(self.instance.root, ORDER).unlink(missing_ok=True)
        try:
            return Path(self.instance.root, STEPS).read_text().splitlines()
        except FileNotFoundError:
            return []

    @property
    def has_crashed(self) -> bool:
        """Whether the engine has ended."""
        return self._process is None or self._process.poll() is not None

    def wait_for_crash(self, seconds: float) -> None:
        """Return when the engine has ended."""
        assert self._process is not None
        self._process.wait(seconds)


class _Counter:
    def __init__(self, root: str) -> None:
        self._root = root
        self._count = 0
        self._order = ""
        self._lock = threading.Lock()

    def step(self, name: str) -> None:
        try:
            with open(f"{self._root}/{ORDER}") as file:
                order = file.read()
        except FileNotFoundError:
            self._order = ""
            return
        with self._lock:
            if not self._order:
                self._count = 0
            self._order = order
            self._count += 1
            with open(f"{self._root}/{STEPS}", "a") as file:
                file.write(f"{name}\n")
            if order and self._count == int(order):
                os.kill(os.getpid(), signal.SIGKILL)
                threading.Event().wait()


def main() -> int:
    """Run `tsunagu daemon …` with every step counted."""
    from tsunagu import daemon
    from tsunagu.kernel import conmon, copyup, link, netns, network, process_files, runtime, storage
    from tsunagu.kernel import volumes as volume_files
    from tsunagu.services import (
        bundles,
        connections,
        containers,
        engine,
        firewall,
        images,
        lifecycle,
        networks,
        ports,
        resolver,
        restarts,
    )  # fmt: skip
    from tsunagu.services import volumes as volume_services
    from tsunagu.store import blobs, db

    arguments = sys.argv[2:]
    counter = _Counter(arguments[arguments.index("--root") + 1])
    classes = (
        network.NetworkKernel, netns.Worker, runtime.Runtime, conmon.Conversation, storage.Storage, bundles.Bundles,
        lifecycle.Lifecycle, containers.Containers, connections.Connections, networks.Networks, resolver.Resolver,
        images.Images, engine.Engine, db.Database, firewall.Firewall, ports.Ports,
        restarts.Restarts, volume_files.VolumeFiles, volume_services.Volumes,
    )  # fmt: skip
    for owner in (*classes, blobs, copyup, link, process_files, storage):
        for name, function in list(vars(owner).items()):
            if name.startswith("__") or not inspect.isfunction(function):
                continue
            where = owner.__module__ if inspect.isclass(owner) else owner.__name__
            if function.__module__ != where or name in ("get", "all", "step", "lock", "status", "merged", "mounted"):
                continue
            setattr(owner, name, _counted(counter, f"{owner.__name__.rpartition('.')[2]}.{name}", function))
    return daemon.main(arguments)


def _counted(counter: _Counter, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    if inspect.iscoroutinefunction(function):

        @functools.wraps(function)
        async def asynchronous(*arguments: Any, **keywords: Any) -> Any:
            counter.step(f"{name}: before")
            try:
                return await function(*arguments, **keywords)
            finally:
                counter.step(f"{name}: after")

        return asynchronous
    is_generator = inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function)
    if is_generator or hasattr(function, "__wrapped__"):
        return function

    @functools.wraps(function)
    def synchronous(*arguments: Any, **keywords: Any) -> Any:
        counter.step(f"{name}: before")
        return function(*arguments, **keywords)

    return synchronous
