"""Measures what networks cost: operations as they grow in number, and throughput next to the bare kernel's.

    python bench/network/run.py [--rounds N] [--seconds S] [--skip-growth] [--skip-traffic]

Growth: each operation over the API with 10 containers on 1 network, 100 on 10, 300 on 100, on the way up and again on
the way down, so that a machine that gets slower in the meantime does not look like growth. Bar: 1.3 times.

Traffic: TCP between two containers, and from the host through a published port, next to the same transfer over a bare
bridge and veth pairs in a network namespace without any engine, packet filter or connection tracking. Bar: 0.97.

All figures come from one run on one machine. Needs root. Writes bench/results/network.json. May import the standard
library, `tsunagu.testing` and the test images.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

TOP = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(TOP / "tests"))

from images import build
from tsunagu.testing.engine import EngineProcess

TRAFFIC = Path(__file__).with_name("traffic.py")
SIZES = ((10, 1), (100, 10), (300, 100))  # containers, networks
FLAT, SHARE = 1.3, 0.97
SLEEP = ["sleep", "3600"]
PORT = 7000
BARE_INSIDE, BARE_HOST = "bare kernel: one namespace to the other", "bare kernel: host to a namespace"

Samples = dict[str, dict[int, list[float]]]  # operation -> number of containers -> milliseconds


# ---- growth


class Crowd:
    """The containers and networks that are there while something else is measured."""

    def __init__(self, engine: EngineProcess) -> None:
        self.engine = engine
        self.containers: list[str] = []
        self.networks: list[str] = []

    def become(self, containers: int, networks: int) -> None:
        """Grow or shrink; containers are spread evenly over the networks that are new with them."""
        api = self.engine.api
        for name in self.containers[containers:]:
            api.request("DELETE", f"/containers/{name}?force=1")
        del self.containers[containers:]
        for name in self.networks[networks:]:
            api.request("DELETE", f"/networks/{name}")
        del self.networks[networks:]
        fresh = []
        while len(self.networks) < networks:
            name = f"crowd-net-{len(self.networks)}"
            api.post("/networks/create", {"Name": name})
            self.networks.append(name)
            fresh.append(name)
        while len(self.containers) < containers:
            name = f"crowd-{len(self.containers)}"
            network = fresh[len(self.containers) % len(fresh)]
            api.post(f"/containers/create?name={name}", _body(network))
            api.post(f"/containers/{name}/start")
            self.containers.append(name)


def measure_operations(engine: EngineProcess, samples: Samples, size: int, rounds: int) -> None:
    """Time every operation `rounds` times while `size` containers run."""
    api = engine.api

    def timed(name: str, action: Callable[[], Any]) -> None:
        started = time.perf_counter()
        action()
        samples.setdefault(name, {}).setdefault(size, []).append((time.perf_counter() - started) * 1000)

    for _ in range(rounds):
        timed("network create", lambda: api.post("/networks/create", {"Name": "extra"}))
        timed("create", lambda: api.post("/containers/create?name=probe", _body("crowd-net-0")))
        timed("start", lambda: api.post("/containers/probe/start"))
        timed("connect", lambda: api.post("/networks/extra/connect", {"Container": "probe"}))
        timed("disconnect", lambda: api.post("/networks/extra/disconnect", {"Container": "probe"}))
        timed("rm -f", lambda: api.request("DELETE", "/containers/probe?force=1"))
        timed("network rm", lambda: api.request("DELETE", "/networks/extra"))


def growth(engine: EngineProcess, rounds: int) -> Samples:
    """Measure at every size, up and down again."""
    samples: Samples = {}
    crowd = Crowd(engine)
    crowd.become(*SIZES[0])
    measure_operations(engine, {}, 0, 3)  # warm caches, not counted
    for containers, networks in (*SIZES, *SIZES[-2::-1]):
        crowd.become(containers, networks)
        measure_operations(engine, samples, containers, rounds if containers != SIZES[-1][0] else 2 * rounds)
    crowd.become(0, 0)
    return samples


def _body(network: str) -> dict[str, Any]:
    return {"Image": "alpine", "Cmd": SLEEP, "HostConfig": {"NetworkMode": network}}


# ---- traffic


class Place:
    """A network namespace, by the process that keeps it, and an address in it."""

    def __init__(self, pid: int, address: str = "") -> None:
        self.pid = pid
        self.address = address

    def command(self, *words: str) -> list[str]:
        """Put a command line into the namespace."""
        return ["nsenter", f"--net=/proc/{self.pid}/ns/net", *words]

    @contextmanager
    def receiving(self) -> Iterator[Callable[[], float]]:
        """Run a receiver on PORT; gives what waits for the next transfer's bytes per second."""
        command = self.command(sys.executable, str(TRAFFIC), "receive", "1", str(PORT))
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            output = process.stdout
            assert output is not None and output.readline() == "ready\n"
            try:
                yield lambda: float(output.readline())
            finally:
                process.kill()

    def send(self, address: str, port: int, seconds: float) -> None:
        """Send to a receiver for `seconds`."""
        words = (sys.executable, str(TRAFFIC), "send", "0", address, str(port), str(seconds))
        subprocess.run(self.command(*words), check=True)


@contextmanager
def bare_kernel() -> Iterator[tuple[Place, Place, Place]]:
    """A host of its own with a bridge, and two namespaces at it by veth pairs: host, one, other."""
    with ExitStack() as stack:

        def namespace() -> Place:
            holder = subprocess.Popen(["unshare", "--net", "sleep", "3600"])
            stack.callback(holder.wait)
            stack.callback(holder.kill)
            own = os.stat("/proc/self/ns/net").st_ino
            while os.stat(f"/proc/{holder.pid}/ns/net").st_ino == own:  # until unshare(1) has done it
                time.sleep(0.001)
            return Place(holder.pid)

        host, one, other = namespace(), namespace(), namespace()

        def ip(place: Place, words: str) -> None:
            subprocess.run(place.command("ip", *words.split()), check=True)

        ip(host, "link add br0 type bridge")
        ip(host, "address add 10.0.0.1/24 dev br0")
        ip(host, "link set br0 up")
        for number, place in enumerate((one, other), 2):
            place.address = f"10.0.0.{number}"
            ip(host, f"link add port{number} type veth peer name eth0 netns {place.pid}")
            ip(host, f"link set port{number} master br0 up")
            ip(place, f"address add {place.address}/24 dev eth0")
            ip(place, "link set eth0 up")
        yield host, one, other


def traffic(engine: EngineProcess, rounds: int, seconds: float) -> dict[str, list[float]]:
    """Bytes per second of each way, all ways in turn in every round."""
    api = engine.api
    api.post("/networks/create", {"Name": "traffic"})
    published = _body("traffic")
    published["ExposedPorts"] = {f"{PORT}/tcp": {}}
    published["HostConfig"]["PortBindings"] = {f"{PORT}/tcp": [{"HostIp": "", "HostPort": ""}]}
    for name, body in (("sender", _body("traffic")), ("receiver", published)):
        api.post(f"/containers/create?name={name}", body)
        api.post(f"/containers/{name}/start")
    sender, receiver = (_place(api.get(f"/containers/{name}/json")) for name in ("sender", "receiver"))
    bindings = api.get("/containers/receiver/json")["NetworkSettings"]["Ports"][f"{PORT}/tcp"]
    host_port = int(bindings[0]["HostPort"])
    here = Place(os.getpid())
    with bare_kernel() as (host, one, other), other.receiving() as bare, receiver.receiving() as ours:
        ways: dict[str, tuple[Place, str, int, Callable[[], float]]] = {
            BARE_INSIDE: (one, other.address, PORT, bare),
            "container to container": (sender, receiver.address, PORT, ours),
            BARE_HOST: (host, other.address, PORT, bare),
            "host to container": (here, receiver.address, PORT, ours),
            "host to published port, 127.0.0.1": (here, "127.0.0.1", host_port, ours),
        }
        if address := _host_address():
            ways["host to published port, host address"] = (here, address, host_port, ours)
        rates: dict[str, list[float]] = {name: [] for name in ways}
        for number in range(rounds + 1):
            for name, (place, address, port, result) in ways.items():
                place.send(address, port, seconds if number else 0.2)
                measured = result()
                if number:  # the first round warms caches
                    rates[name].append(measured)
    for name in ("sender", "receiver"):
        api.request("DELETE", f"/containers/{name}?force=1")
    api.request("DELETE", "/networks/traffic")
    return rates


def _place(inspected: dict[str, Any]) -> Place:
    return Place(inspected["State"]["Pid"], inspected["NetworkSettings"]["Networks"]["traffic"]["IPAddress"])


def _host_address() -> str:
    """The host's address towards outside, or "" without a default route; 203.0.113.1 is nobody's (RFC 5737)."""
    question = ["ip", "-json", "route", "get", "203.0.113.1"]
    found = subprocess.run(question, check=False, capture_output=True, text=True)
    return json.loads(found.stdout)[0].get("prefsrc", "") if found.returncode == 0 else ""


# ---- report


def growth_report(samples: Samples) -> list[tuple[str, float, float, bool]]:
    """Print medians by size; return a bar for each operation."""
    sizes = [containers for containers, _ in SIZES]
    print(f"{'operation, ms (median)':32}" + "".join(f"{f'{c} on {n}':>12}" for c, n in SIZES) + f"{'growth':>10}")
    bars = []
    for name, by_size in samples.items():
        medians = [statistics.median(by_size[size]) for size in sizes]
        growth = max(medians) / medians[0]
        print(f"{name:32}" + "".join(f"{m:12.1f}" for m in medians) + f"{growth:9.2f}x")
        bars.append((f"{name}: largest by smallest", growth, FLAT, growth <= FLAT))
    return bars


def traffic_report(rates: dict[str, list[float]]) -> list[tuple[str, float, float, bool]]:
    """Print gigabits per second; return a bar for each way that has a floor."""
    print(f"{'way':44}{'Gbit/s (median)':>16}{'of bare':>10}")
    bars = []
    floor = BARE_INSIDE
    for name, values in rates.items():
        floor = name if name in (BARE_INSIDE, BARE_HOST) else floor
        # round by round, because the machine's speed changes from one second to the next
        share = statistics.median(own / bare for own, bare in zip(values, rates[floor], strict=True))
        print(f"{name:44}{statistics.median(values) * 8e-9:16.1f}{share:10.2f}")
        if name != floor:
            bars.append((f"{name}: share of the bare kernel's", share, SHARE, share >= SHARE))
    return bars


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--seconds", type=float, default=1.0)
    parser.add_argument("--skip-growth", action="store_true")
    parser.add_argument("--skip-traffic", action="store_true")
    arguments = parser.parse_args()
    if os.geteuid() != 0:
        print("bench/network/run.py needs root: it starts an engine of its own", file=sys.stderr)
        return 1
    archive = build.ensure(("alpine",))["alpine"]
    engine = EngineProcess()
    samples: Samples = {}
    rates: dict[str, list[float]] = {}
    try:
        engine.start()
        engine.load(archive)
        if not arguments.skip_traffic:
            rates = traffic(engine, arguments.rounds, arguments.seconds)
        if not arguments.skip_growth:
            samples = growth(engine, arguments.rounds)
    finally:
        left = engine.close()
    bars = traffic_report(rates) if rates else []
    print()
    bars += growth_report(samples) if samples else []
    print()
    for bar, value, limit, is_met in bars:
        print(f"{bar:60} {value:7.2f}   bar {limit:g}   {'met' if is_met else 'MISSED'}")
    results = TOP / "bench/results"
    results.mkdir(parents=True, exist_ok=True)
    report = {
        "rounds": arguments.rounds,
        "kernel": os.uname().release,
        "processors": os.cpu_count(),
        "bits_per_second": {name: [round(8 * value) for value in values] for name, values in rates.items()},
        "milliseconds": {
            name: {str(size): round(statistics.median(values), 3) for size, values in by_size.items()}
            for name, by_size in samples.items()
        },
        "bars": [{"bar": b, "value": round(v, 3), "limit": limit, "met": met} for b, v, limit, met in bars],
    }
    (results / "network.json").write_text(json.dumps(report, indent=2) + "\n")
    print(f"\nwritten to {results / 'network.json'}")
    for entry in left:
        print(f"LEFT: {entry}", file=sys.stderr)
    return 1 if left else 0


if __name__ == "__main__":
    sys.exit(main())
