"""Times the life cycle of containers and networks, next to the floor: the bare OCI runtime with an equal bundle.

    python bench/lifecycle/run.py [--rounds N]

All figures of one table come from one run on one machine; compare ratios, not times of different runs. Each round does
every operation once, so that noise hits all of them alike. Needs root. Writes bench/results/lifecycle.json.
May import the standard library, `tsunagu.testing` and the test images.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

TOP = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(TOP / "tests"))

from images import build
from tsunagu.testing.commandline import CommandLine, docker_program
from tsunagu.testing.engine import EngineProcess, tsunagu_program

SLEEP = ["sleep", "3600"]


class Times:
    """Milliseconds of each operation, in the order of their first measurement."""

    def __init__(self) -> None:
        self.samples: dict[str, list[float]] = {}

    def measure(self, name: str, action: Callable[[], Any]) -> Any:
        """Run `action` and keep how long it took."""
        started = time.perf_counter()
        result = action()
        self.samples.setdefault(name, []).append((time.perf_counter() - started) * 1000)
        return result

    def median(self, name: str) -> float:
        """Median of one operation in ms."""
        return statistics.median(self.samples[name])

    def table(self) -> str:
        """Median and minimum of every operation."""
        rows = [f"{'operation':44} {'median':>9} {'min':>9}   ms"]
        rows += [
            f"{name:44} {statistics.median(values):9.1f} {min(values):9.1f}" for name, values in self.samples.items()
        ]
        return "\n".join(rows)


class Floor:
    """The bare runtime on the image's own files: what no engine can be faster than."""

    def __init__(self, archive: Path, directory: Path) -> None:
        self.runtime = shutil.which("runc") or "runc"
        self.state = directory / "state"
        self.bundle = directory / "bundle"
        rootfs = self.bundle / "rootfs"
        rootfs.mkdir(parents=True)
        layers = directory / "archive"
        layers.mkdir()
        subprocess.run(["tar", "-xf", archive, "-C", layers], check=True)
        for layer in json.loads((layers / "manifest.json").read_text())[0]["Layers"]:
            subprocess.run(["tar", "-xf", layers / layer, "-C", rootfs], check=True)
        shutil.rmtree(layers)

    def take_configuration_of(self, engine: EngineProcess, container: str) -> bool:
        """Use the engine's own config.json for `container`, so that both do the same work; False when there is none."""
        for path in Path(engine.instance.root).parent.rglob("config.json"):
            if container in str(path):
                config = json.loads(path.read_text())
                break
        else:
            return False
        config["root"] = {"path": "rootfs"}
        config["process"]["terminal"] = False
        config["mounts"] = [m for m in config["mounts"] if not str(m.get("source", "")).startswith("/")]
        config["linux"]["cgroupsPath"] = "/tsunagu-bench-floor"
        config["linux"]["namespaces"] = [
            {"type": n["type"]} if n["type"] == "network" else n for n in config["linux"]["namespaces"]
        ]
        config.pop("hooks", None)
        (self.bundle / "config.json").write_text(json.dumps(config))
        return True

    def run(self, name: str) -> None:
        """runc run -d"""
        self._call("run", "--detach", "--bundle", str(self.bundle), name)

    def execute(self, name: str) -> None:
        """runc exec true"""
        self._call("exec", name, "true")

    def remove(self, name: str) -> None:
        """runc delete -f"""
        self._call("delete", "--force", name)

    def _call(self, *words: str) -> None:
        # the container inherits these descriptors: a pipe would never end
        subprocess.run(
            [self.runtime, "--root", str(self.state), *words],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            check=True,
        )


def one_round(times: Times, engine: EngineProcess, clients: list[CommandLine], floor: Floor, number: int) -> None:
    """Every operation once."""
    api = engine.api
    floor_name = f"bench-floor-{os.getpid()}-{number}"
    try:
        times.measure("floor: runc run -d", lambda: floor.run(floor_name))
        times.measure("floor: runc exec true", lambda: floor.execute(floor_name))
    finally:
        times.measure("floor: runc delete -f", lambda: floor.remove(floor_name))

    body = {"Image": "alpine", "Cmd": SLEEP, "HostConfig": {"NetworkMode": "bench-net"}}
    created = times.measure("api: create", lambda: api.post("/containers/create?name=apic", body))
    times.measure("api: start", lambda: api.post(f"/containers/{created['Id']}/start"))
    create_and_start = times.samples["api: create"][-1] + times.samples["api: start"][-1]
    times.samples.setdefault("api: create+start", []).append(create_and_start)
    times.measure("api: network create", lambda: api.post("/networks/create", {"Name": "extra"}))
    times.measure("api: network connect", lambda: api.post("/networks/extra/connect", {"Container": "apic"}))
    times.measure("api: network disconnect", lambda: api.post("/networks/extra/disconnect", {"Container": "apic"}))
    times.measure("api: network rm", lambda: api.request("DELETE", "/networks/extra"))
    times.measure("api: rm -f", lambda: api.request("DELETE", "/containers/apic?force=1"))
    for cli in clients:
        # pairs of clients are timed close together, because they are compared
        times.measure(
            f"{cli.name}: run -d", lambda cli=cli: cli("run -d --network bench-net --name box alpine sleep 3600").ok()
        )
        times.measure(f"{cli.name}: exec true", lambda cli=cli: cli("exec box true").ok())
        times.measure(f"{cli.name}: rm -f", lambda cli=cli: cli("rm -f box").ok())
        times.measure(
            f"{cli.name}: run --rm true", lambda cli=cli: cli("run --rm --network bench-net alpine true").ok()
        )
        times.measure(f"{cli.name}: network create", lambda cli=cli: cli("network create extra").ok())
        times.measure(f"{cli.name}: network rm", lambda cli=cli: cli("network rm extra").ok())
    for _ in range(5):
        for command in ("ps", "version"):
            for cli in clients:
                times.measure(f"{cli.name}: {command}", lambda cli=cli, command=command: cli(command).ok())


def verdicts(times: Times) -> list[tuple[str, float, float, bool]]:
    """(bar, measured, limit, whether it is met) for each bar of the project."""
    floor = times.median("floor: runc run -d")
    bars = [("api create+start, ms above runc run -d", times.median("api: create+start") - floor, 40.0)]
    for command in ("ps", "version"):
        ratio = times.median(f"tsunagu: {command}") / times.median(f"docker: {command}")
        bars.append((f"{command}: our client's time by Docker's client's", ratio, 1.5))
    return [(name, value, limit, value <= limit) for name, value, limit in bars]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15)
    arguments = parser.parse_args()
    if os.geteuid() != 0:
        print("bench/lifecycle/run.py needs root: it starts an engine of its own", file=sys.stderr)
        return 1
    archive = build.ensure(("alpine",))["alpine"]
    times = Times()
    engine = EngineProcess()
    with tempfile.TemporaryDirectory(prefix="ts-bench-") as name:
        directory = Path(name)
        try:
            engine.start()
            engine.load(archive)
            clients = [
                CommandLine("tsunagu", tsunagu_program(), engine.host, directory),
                CommandLine("docker", docker_program(), engine.host, directory),
            ]
            engine.api.post("/networks/create", {"Name": "bench-net"})
            floor = Floor(archive, directory)
            first = clients[0]("run -d --network bench-net alpine sleep 3600").ok()
            if not floor.take_configuration_of(engine, first):
                raise RuntimeError("no bundle of a running container below the engine's directories")
            clients[0]("rm -f", first).ok()
            one_round(Times(), engine, clients, floor, 0)  # warm caches, not counted
            for number in range(1, arguments.rounds + 1):
                one_round(times, engine, clients, floor, number)
        finally:
            left = engine.close()
    print(times.table())
    print()
    bars = verdicts(times)
    for bar, value, limit, is_met in bars:
        print(f"{bar:52} {value:7.2f}   limit {limit:g}   {'met' if is_met else 'MISSED'}")
    results = TOP / "bench/results"
    results.mkdir(parents=True, exist_ok=True)
    report = {
        "rounds": arguments.rounds,
        "kernel": os.uname().release,
        "processors": os.cpu_count(),
        "medians_ms": {name: round(statistics.median(values), 3) for name, values in times.samples.items()},
        "minimums_ms": {name: round(min(values), 3) for name, values in times.samples.items()},
        "bars": [{"bar": b, "value": round(v, 3), "limit": limit, "met": met} for b, v, limit, met in bars],
    }
    (results / "lifecycle.json").write_text(json.dumps(report, indent=2) + "\n")
    print(f"\nwritten to {results / 'lifecycle.json'}")
    for entry in left:
        print(f"LEFT: {entry}", file=sys.stderr)
    return 1 if left else 0


if __name__ == "__main__":
    sys.exit(main())
