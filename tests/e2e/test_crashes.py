"""The engine dies in the middle of an operation, at many moments: nothing is orphaned, nothing untrue is told.

Every operation is first done once to count its steps; then again and again, with a crash at every n-th of them.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from crashing import CrashingEngine
from tsunagu.testing import host
from tsunagu.testing.engine import EngineProcess

pytestmark = pytest.mark.root

CRASHES = 8  # per operation, spread over its steps
CRASH_SECONDS = 5.0

SLEEPER: dict[str, Any] = {"Image": "alpine", "Cmd": ["sleep", "3600"], "HostConfig": {"NetworkMode": "net"}}
EPHEMERAL = {**SLEEPER, "HostConfig": {"NetworkMode": "net", "AutoRemove": True}}
PUBLISHED = {**SLEEPER, "HostConfig": {"NetworkMode": "net", "PortBindings": {"7/tcp": [{}], "7/udp": [{}]}}}
# Copied up from the image: what its programs need, so that it runs only if the copy is whole.
VOLUMED = {
    **SLEEPER,
    "Volumes": {"/anonymous": {}},
    "HostConfig": {"NetworkMode": "net", "Binds": ["filled:/bin"]},
}
Request = tuple[str, str, dict[str, Any] | None]


class Operation(NamedTuple):
    """Requests that prepare, and the one that is cut short."""

    before: list[Request]
    request: Request


CREATE: Request = ("POST", "/containers/create?name=subject", SLEEPER)
PUBLISH: Request = ("POST", "/containers/create?name=subject", PUBLISHED)
KEEP: Request = ("POST", "/containers/create?name=subject", VOLUMED)
FILLED: Request = ("POST", "/volumes/create", {"Name": "filled"})
START: Request = ("POST", "/containers/subject/start", None)
NETWORK: Request = ("POST", "/networks/create", {"Name": "other", "EnableIPv6": True})
GUEST: Request = (
    "POST",
    "/containers/create?name=guest",
    {**SLEEPER, "HostConfig": {"NetworkMode": "container:subject"}},
)
ENTER: Request = ("POST", "/containers/guest/start", None)
STOP: Request = ("POST", "/containers/subject/stop?t=0", None)
CONNECT: Request = ("POST", "/networks/other/connect", {"Container": "subject"})
OPERATIONS = {
    "create": Operation([], CREATE),
    "start": Operation([CREATE], START),
    "start --rm": Operation([("POST", "/containers/create?name=subject", EPHEMERAL)], START),
    "start --rm of one that ends": Operation(
        [("POST", "/containers/create?name=subject", {**EPHEMERAL, "Cmd": ["true"]})], START
    ),
    "stop": Operation([CREATE, START], ("POST", "/containers/subject/stop?t=0", None)),
    "rm": Operation([CREATE], ("DELETE", "/containers/subject", None)),
    "rm -f": Operation([CREATE, START], ("DELETE", "/containers/subject?force=1", None)),
    "start with published ports": Operation([PUBLISH], START),
    "stop with published ports": Operation([PUBLISH, START], ("POST", "/containers/subject/stop?t=0", None)),
    "start in another one's sandbox": Operation([CREATE, START, GUEST], ENTER),
    "stop with a guest": Operation([PUBLISH, START, GUEST, ENTER], STOP),
    "start with a guest": Operation([PUBLISH, START, GUEST, ENTER, STOP], START),
    "stop of the last guest": Operation(
        [PUBLISH, START, GUEST, ENTER, STOP], ("POST", "/containers/guest/stop?t=0", None)
    ),
    "rm -f with a guest": Operation([CREATE, START, GUEST, ENTER], ("DELETE", "/containers/subject?force=1", None)),
    "create with volumes": Operation([], KEEP),
    "create with a volume that is there": Operation([FILLED], KEEP),
    "start with volumes": Operation([KEEP], START),
    "rm -v": Operation([KEEP], ("DELETE", "/containers/subject?v=1", None)),
    "volume create": Operation([], FILLED),
    "volume rm": Operation([FILLED], ("DELETE", "/volumes/filled", None)),
    "network create": Operation([], NETWORK),
    "network rm": Operation([NETWORK], ("DELETE", "/networks/other", None)),
    "connect": Operation([NETWORK, CREATE, START], CONNECT),
    "disconnect": Operation(
        [NETWORK, CREATE, START, CONNECT], ("POST", "/networks/other/disconnect", {"Container": "subject"})
    ),
}


@pytest.fixture
def crashing(images: Callable[[str], Path]) -> Iterator[CrashingEngine]:
    engine = CrashingEngine()
    try:
        engine.start()
        engine.load(images("alpine"))
        engine.api.post("/networks/create", {"Name": "net"})
        engine.api.post("/containers/create?name=bystander", SLEEPER)
        engine.api.post("/containers/bystander/start")
        yield engine
    finally:
        left = engine.close()
    assert left == []


@pytest.mark.parametrize("name", OPERATIONS)
def test_crash_in_the_middle(crashing: CrashingEngine, name: str) -> None:
    engine, operation = crashing, OPERATIONS[name]
    bystander = engine.api.get("/containers/bystander/json")
    prepare(engine, operation)
    engine.arm(0)
    status, body = engine.api.request(*operation.request)
    assert status < 300, body
    steps = len(engine.disarm())
    assert steps > CRASHES, "the wrapped functions were called"
    tidy(engine)
    known = footprint(engine)
    for step in range(1, steps + 1, -(-steps // CRASHES)):
        prepare(engine, operation)
        engine.arm(step)
        with contextlib.suppress(http.client.HTTPException, ConnectionError):
            engine.api.request(*operation.request)
        engine.wait_for_crash(CRASH_SECONDS)
        where = f"{name} died at step {step} of {steps}: {engine.disarm()[-1]}"
        engine.start()
        assert engine.api.get("/containers/bystander/json")["State"] == bystander["State"], where
        assert reach(engine, "bystander", "bystander"), where
        check_subject(engine, where)
        tidy(engine)
        assert footprint(engine) == known, where


def prepare(engine: EngineProcess, operation: Operation) -> None:
    for request in operation.before:
        status, body = engine.api.request(*request)
        assert status < 300, (request, body)


def check_subject(engine: EngineProcess, where: str) -> None:
    """What is told of the subject is so: it runs with its name and interfaces, or it can be started."""
    names = {volume["Name"] for volume in engine.api.get("/volumes")["Volumes"]}
    if "filled" in names:
        filled = sorted(path.name for path in Path(engine.instance.volume_path("filled")).iterdir())
        pid = engine.api.get("/containers/bystander/json")["State"]["Pid"]
        assert filled in ([], sorted(path.name for path in Path(f"/proc/{pid}/root/bin").iterdir())), where
    status, body = engine.api.request("GET", "/containers/subject/json")
    if status == 404:
        return
    assert {mount["Name"] for mount in json.loads(body)["Mounts"]} <= names, where
    state = json.loads(body)
    if state["HostConfig"]["AutoRemove"] and not state["State"]["Running"]:
        began = state["State"]["Error"] or state["State"]["Status"] != "created"
        assert not began, f"{where}: a container with --rm whose start was undone, or that ended, is gone"
    if state["Config"]["Cmd"] == ["true"]:
        return  # it may end at any moment
    if not state["State"]["Running"]:
        engine.api.post("/containers/subject/start")
    assert reach(engine, "bystander", "subject"), where
    ports = engine.api.get("/containers/subject/json")["NetworkSettings"]["Ports"]
    asked = state["HostConfig"]["PortBindings"]
    assert all(ports.get(port) for port in asked), where
    # two hooks and the entrance of each
    assert len(published(engine)) == 3 * len(asked), where
    networks = engine.api.get("/containers/subject/json")["NetworkSettings"]["Networks"]
    pid = engine.api.get("/containers/subject/json")["State"]["Pid"]
    lines = Path(f"/proc/{pid}/net/dev").read_text().splitlines()
    assert sum(line.strip().startswith("eth") for line in lines) == len(networks), where
    status, body = engine.api.request("GET", "/containers/guest/json")
    if status == 200 and json.loads(body)["State"]["Running"]:
        guest = json.loads(body)["State"]["Pid"]
        assert os.readlink(f"/proc/{guest}/ns/net") == os.readlink(f"/proc/{pid}/ns/net"), where


def reach(engine: EngineProcess, asker: str, name: str) -> bool:
    """Whether one container resolves the name of another and gets an answer to a ping."""
    body = {"Cmd": ["ping", "-c1", "-W2", name]}
    identifier = engine.api.post(f"/containers/{asker}/exec", {**body, "AttachStdout": True})["Id"]
    engine.api.request("POST", f"/exec/{identifier}/start", {})
    return bool(engine.api.get(f"/exec/{identifier}/json")["ExitCode"] == 0)


def published(engine: EngineProcess) -> list[str]:
    """The elements of every set and map of the instance's table that ports are kept in."""
    command = ["nft", "-j", "list", "table", "inet", engine.instance.nft_table]
    table = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)["nftables"]
    named = [item.get("set") or item.get("map") or {"name": ""} for item in table]
    return [
        f"port {one['name']} {element}"
        for one in named
        if one["name"].startswith(("published", "arriving", "own"))
        for element in one.get("elem", ())
    ]


def tidy(engine: EngineProcess) -> None:
    """Remove everything but the bystander and its network."""
    engine.api.request("DELETE", "/containers/guest?force=1")
    engine.api.request("DELETE", "/containers/subject?force=1&v=1")
    engine.api.request("DELETE", "/volumes/filled")
    engine.api.request("DELETE", "/networks/other")


def footprint(engine: EngineProcess) -> list[str]:
    """Links, mounts, directories and published ports of the instance; processes without their ids, its cgroups."""
    state = host.read().of(engine.instance)
    found = [line for line in state if line.startswith(("link", "mount"))]
    found += [line for line in state if line.startswith("cgroup") and engine.instance.cgroup + "/" in line]
    found += [line.split(" ", 2)[2] for line in state if line.startswith("process") and "conmon" in line]
    found += published(engine)
    for directory in ("root/containers", "run/bundles", "run/processes", "run/netns", "run/runtime"):
        found += [str(path) for path in Path(engine.directory, directory).glob("*")]
    # what is put away is removed in the background
    volumes = Path(engine.directory, "root/volumes").iterdir()
    found += [str(path) for path in volumes if not path.name.startswith(".gone-")]
    found += [volume["Name"] for volume in engine.api.get("/volumes")["Volumes"]]
    return sorted(found)
