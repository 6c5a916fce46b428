"""Times short commands next to Docker's client and the bare interpreter, on the same canned answers.

    python bench/commandline/run.py [--rounds N] [--tsunagu PATH]

Every round runs each command once, so that a busy machine slows them all alike. Needs no root and no engine. Writes
bench/results/commandline.json and fails when a command takes more than 1.5 times what Docker's client takes. May
import the standard library and the canned engine of the unit tests.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

TOP = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(TOP / "tests"))

from unit.canned_engine import ID, CannedEngine

LIMIT = 1.5  # of Docker's client, the budget of the design
CONTAINER = {
    "Id": ID,
    "Names": ["/web"],
    "Image": "nginx",
    "ImageID": "sha256:11",
    "Command": "nginx -g 'daemon off;'",
    "Created": 1_700_000_000,
    "Ports": [{"IP": "0.0.0.0", "PrivatePort": 80, "PublicPort": 80, "Type": "tcp"}],
    "Labels": {},
    "State": "running",
    "Status": "Up 2 hours",
    "HostConfig": {"NetworkMode": "app"},
    "NetworkSettings": {"Networks": {"app": {}}},
    "Mounts": [],
}
VERSION = {"Version": "28.5.2", "ApiVersion": "1.51", "MinAPIVersion": "1.24", "Os": "linux", "Arch": "amd64"}
COMMANDS = {
    "version": ["version"],
    "ps": ["ps"],
    "network ls": ["network", "ls"],
    "run -d": ["run", "-d", "--name", "web", "--network", "app", "-p", "80:80", "nginx"],
    "stop": ["stop", "web"],
}


def routes() -> dict[str, Any]:
    """What both clients ask."""
    return {
        "HEAD /_ping": (204, None),
        "GET /version": VERSION | {"Components": [], "Platform": {"Name": ""}},
        "GET /containers/json": [CONTAINER] * 10,
        "GET /networks": [],
        "POST /containers/create": (201, {"Id": ID, "Warnings": []}),
        f"POST /containers/{ID}/start": (204, None),
        f"POST /containers/{ID}/wait": {"StatusCode": 0},
        "POST /containers/web/stop": (204, None),
    }


def once(words: list[str], environment: dict[str, str]) -> float:
    """Milliseconds of one run. Raises RuntimeError when the command fails."""
    quiet = [(os.POSIX_SPAWN_OPEN, fd, "/dev/null", os.O_RDWR, 0) for fd in (0, 1, 2)]
    started = time.perf_counter()
    pid = os.posix_spawn(words[0], words, environment, file_actions=quiet)
    _, status = os.waitpid(pid, 0)
    if status:
        raise RuntimeError(f"{words} ended with status {os.waitstatus_to_exitcode(status)}")
    return 1000 * (time.perf_counter() - started)


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--tsunagu", default=str(Path(sys.prefix) / "bin" / "tsunagu"))
    options = parser.parse_args()
    docker = shutil.which("docker", path=f"{sys.prefix}/bin:{os.environ['PATH']}")
    with tempfile.TemporaryDirectory() as directory:
        engine = CannedEngine(f"{directory}/engine.sock")
        engine.routes = routes()
        environment = {"DOCKER_HOST": engine.host, "PATH": os.environ["PATH"], "HOME": directory}
        programs = {"python -I -S": [sys.executable, "-I", "-S", "-c", "pass"]}
        for name, words in COMMANDS.items():
            programs[f"tsunagu {name}"] = [options.tsunagu, *words]
            if docker is not None:
                programs[f"docker {name}"] = [docker, *words]
        times: dict[str, list[float]] = {name: [] for name in programs}
        for _ in range(options.rounds):
            for name, words in programs.items():
                times[name].append(once(words, environment))
        engine.close()
    medians = {name: round(statistics.median(values), 2) for name, values in times.items()}
    results = TOP / "bench" / "results"
    results.mkdir(exist_ok=True)
    (results / "commandline.json").write_text(json.dumps({"median ms": medians}, indent=2) + "\n")
    print(f"{'':<14}{'tsunagu':>10}{'docker':>10}{'ratio':>8}   (bare interpreter {medians['python -I -S']} ms)")
    is_slow = False
    for name in COMMANDS:
        ours, theirs = medians[f"tsunagu {name}"], medians.get(f"docker {name}")
        if theirs is None:
            print(f"{name:<14}{ours:>10.1f}{'-':>10}")
            continue
        print(f"{name:<14}{ours:>10.1f}{theirs:>10.1f}{ours / theirs:>8.2f}")
        is_slow = is_slow or ours > LIMIT * theirs
    return int(is_slow)


if __name__ == "__main__":
    raise SystemExit(main())
