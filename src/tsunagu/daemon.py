"""The engine's composition root: adapters, services and API wired together; signals, readiness, shutdown.

`python -m tsunagu.daemon [FLAGS]`, see docs/daemon.md; SIGHUP reads the configuration file anew. Decides nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import logging
import os
import signal
import sys
import time
from functools import partial

import msgspec

from tsunagu import __version__, daemon_options
from tsunagu.api.app import App
from tsunagu.api.server import Server
from tsunagu.daemon_options import DaemonOptions
from tsunagu.kernel import descriptors
from tsunagu.kernel.network import NetworkKernel
from tsunagu.kernel.runtime import Runtime
from tsunagu.kernel.volumes import VolumeFiles
from tsunagu.model.errors import Conflict, EngineError, InvalidParameter
from tsunagu.model.instance import Instance
from tsunagu.rules.links import VARIABLES
from tsunagu.services.archives import Archives
from tsunagu.services.bundles import Bundles
from tsunagu.services.commits import Commits
from tsunagu.services.connections import Connections
from tsunagu.services.containers import Containers
from tsunagu.services.dns import Dns
from tsunagu.services.dns_log import DnsLog
from tsunagu.services.doctor import Doctor
from tsunagu.services.engine import Engine
from tsunagu.services.execs import Execs
from tsunagu.services.firewall import Firewall
from tsunagu.services.health import HealthChecks
from tsunagu.services.images import Images
from tsunagu.services.lifecycle import Lifecycle
from tsunagu.services.links import Links
from tsunagu.services.log_rotation import LogRotation
from tsunagu.services.maps import Maps
from tsunagu.services.networks import Networks
from tsunagu.services.orphans import Orphans
from tsunagu.services.pausing import Pausing
from tsunagu.services.ports import Ports
from tsunagu.services.reconcile import nothing_runs, reconcile
from tsunagu.services.resolver import Resolver
from tsunagu.services.restarts import Restarts
from tsunagu.services.sessions import Sessions
from tsunagu.services.statistics import Statistics
from tsunagu.services.system import System
from tsunagu.services.updating import Updating
from tsunagu.services.volumes import Volumes
from tsunagu.services.why import Why
from tsunagu.store.db import Database

log = logging.getLogger("tsunagu.daemon")
READY_FD = "TSUNAGU_READY_FD"  # one byte is written to this descriptor once the socket answers


def main(arguments: list[str] | None = None) -> int:
    """Run an engine until SIGTERM or SIGINT. Returns the exit status."""
    try:
        options = daemon_options.read(sys.argv[1:] if arguments is None else arguments)
        if options.is_validation:
            sys.stderr.write("configuration OK\n")
            return 0
        _log_to_stderr(options.level)
        if os.geteuid() != 0:
            raise InvalidParameter("the engine needs root: it makes namespaces, mounts and firewall rules")
        descriptors.raise_limit()
        with _only_one(options.instance), _pid_file(options.pidfile):
            asyncio.run(_serve(options))
    except EngineError as error:
        sys.stderr.write(f"tsunagu daemon: {error}\n")
        return 1
    return 0


@contextlib.contextmanager
def _pid_file(path: str):  # type: ignore[no-untyped-def]
    """Hold a file with our process id; raises Conflict when it names another process that lives."""
    if not path:
        yield
        return
    with contextlib.suppress(OSError, ValueError):
        with open(path) as file:
            pid = int(file.read())
        if pid != os.getpid() and os.path.exists(f"/proc/{pid}"):
            raise Conflict(f"failed to start daemon: process with PID {pid} is still running", hint=f"see {path}")
    try:
        with open(path, "w") as file:
            file.write(str(os.getpid()))
    except OSError as error:
        raise InvalidParameter(f"failed to start daemon: cannot write {path}: {error.strerror}") from None
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            os.unlink(path)


@contextlib.contextmanager
def _only_one(instance: Instance):  # type: ignore[no-untyped-def]
    """Hold the lock file of this root; raises Conflict naming the engine that has it."""
    for directory in (instance.root, instance.run_dir):
        os.makedirs(directory, mode=0o700, exist_ok=True)
        os.chmod(directory, 0o711 if directory == instance.run_dir else 0o700)
    descriptor = os.open(f"{instance.root}/engine.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.read(descriptor, 32).decode(errors="replace").strip() or "?"
            raise Conflict(
                f"another engine (pid {holder}) uses {instance.root}", hint="stop it first, or choose another --root"
            ) from None
        os.ftruncate(descriptor, 0)
        os.write(descriptor, f"{os.getpid()}\n".encode())
        yield
    finally:
        os.close(descriptor)


async def _serve(options: DaemonOptions) -> None:
    instance = options.instance
    kernel, runtime = NetworkKernel(instance), Runtime(instance)
    runtime_info = runtime.detect()
    engine = Engine(instance, Database(f"{instance.root}/state.db"))
    images = Images(instance, engine.db)
    await images.open()
    await kernel.open()
    resolver = Resolver(instance)
    firewall = Firewall(engine, kernel)
    await firewall.watch()
    networks = Networks(engine, kernel, firewall)
    files = VolumeFiles(instance)
    files.open()
    volumes = Volumes(engine, files, images.storage)
    bundles = Bundles(engine, images, runtime, volumes, keeps_link_variables=os.environ.get(VARIABLES) == "1")
    links = Links(engine, bundles, firewall)
    lifecycle = Lifecycle(engine, kernel, runtime, bundles, resolver, Ports(engine, kernel, firewall), links)
    policies = Restarts(engine, lifecycle)
    containers = Containers(engine, images, lifecycle, bundles, policies)
    connections = Connections(engine, kernel, lifecycle, bundles, resolver)
    sessions = Sessions(engine, runtime, lifecycle, bundles)
    execs = Execs(engine, runtime, lifecycle, bundles)
    pausing = Pausing(engine, runtime, lifecycle)
    system = System(engine, images, resolver, runtime_info, kernel.firewall_backend)
    engine.listeners.append(resolver.publish)
    images.on_event = partial(engine.emit, "image")
    if await kernel.enable_forwarding():
        log.warning("net.ipv4.ip_forward was off: switched on, containers need it to reach outside their network")
    orphans = Orphans(engine, kernel, runtime, bundles, lifecycle.sandboxes)
    await reconcile(engine, runtime, networks, lifecycle, containers, resolver, volumes, orphans)
    app = App(
        engine=engine,
        containers=containers,
        pausing=pausing,
        statistics=Statistics(engine),
        commits=Commits(engine, images, lifecycle, pausing),
        updating=Updating(engine, runtime, lifecycle),
        sessions=sessions,
        networks=networks,
        connections=connections,
        archives=Archives(engine, images, lifecycle, bundles),
        images=images,
        execs=execs,
        system=system,
        doctor=Doctor(engine, kernel, firewall, lifecycle, resolver, orphans),
        volumes=volumes,
        why=Why(engine, kernel, lifecycle, firewall, bundles),
        maps=Maps(engine, kernel),
        dns=Dns(engine, kernel, lifecycle, DnsLog(resolver)),
    )
    server = Server(app)
    await server.serve(instance.socket)
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for signum in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(signum, stop.set)
    loop.add_signal_handler(signal.SIGHUP, _reload, options, system)
    log.info(
        "engine ready version=%s socket=%s root=%s runtime=%s/%s firewall=%s containers=%s",
        __version__, instance.socket, instance.root, runtime_info.name, runtime_info.version,
        kernel.firewall_backend, len(engine.world.containers),
    )  # fmt: skip
    policies.open()
    checks = HealthChecks(engine, lifecycle, execs)
    checks.open()
    rotation = LogRotation(engine, runtime, bundles)
    rotation.open()
    _tell_ready()
    await stop.wait()
    log.info("engine stops running=%s", sum(c.is_running for c in engine.world.containers.values()))
    await server.close()
    await policies.close()
    checks.close()
    rotation.close()
    is_idle = nothing_runs(engine)
    await resolver.close(stop_process=is_idle)
    if is_idle:
        await networks.withdraw()
        runtime.remove_parent_cgroup()
    await kernel.close()
    engine.events.close()
    await images.close()
    await files.close()
    engine.db.close()


def _reload(options: DaemonOptions, system: System) -> None:
    """Take over what may change while the engine runs: labels and the log level. A broken file changes nothing."""
    try:
        fresh = options.reread()
    except EngineError as error:
        log.error("the configuration was not reloaded: %s", error)
        return
    system.labels = fresh.instance.settings.labels
    logging.getLogger().setLevel(_level(fresh.level))
    log.info("configuration reloaded labels=%s level=%s", ",".join(system.labels), fresh.level)
    left = msgspec.structs.replace(fresh.instance.settings, labels=options.instance.settings.labels)
    if msgspec.structs.replace(fresh.instance, settings=left) != options.instance:
        log.warning("other settings have changed too: they take effect when the engine starts anew")


def _level(name: str) -> int:
    return {"debug": logging.DEBUG, "info": logging.INFO, "warn": logging.WARNING, "error": logging.ERROR}[name]


def _tell_ready() -> None:
    text = os.environ.pop(READY_FD, "")
    if text.isdigit():
        with contextlib.suppress(OSError):
            os.write(int(text), b"1")
            os.close(int(text))


def _log_to_stderr(level: str) -> None:
    logging.basicConfig(
        level=_level(level),
        format='time=%(asctime)s.%(msecs)03dZ level=%(levelname)s source=%(name)s msg="%(message)s"',
        datefmt="%Y-%m-%dT%H:%M:%S",
        stream=sys.stderr,
    )
    logging.Formatter.converter = time.gmtime
    logging.getLogger("asyncio").setLevel(logging.WARNING)


if __name__ == "__main__":
    sys.exit(main())
