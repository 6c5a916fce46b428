"""Values that are well formed and still wrong, or rare: refused with the user's status, or working."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tsunagu.testing.engine import EngineProcess

pytestmark = pytest.mark.root

MTU, BRIDGE = "com.docker.network.driver.mtu", "com.docker.network.bridge.name"
TRUE: dict[str, Any] = {"Image": "alpine", "Cmd": ["true"]}


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [
        ("/networks/create", {"Name": "n", "Options": {MTU: "9" * 5000}}, 400),
        ("/networks/create", {"Name": "n", "Options": {MTU: "1279"}, "EnableIPv6": True}, 400),
        ("/networks/create", {"Name": "n", "Options": {BRIDGE: "lo"}}, 409),
        ("/networks/create", {"Name": "n", "Options": {BRIDGE: "all"}}, 400),
        ("/networks/create", {"Name": "n", "IPAM": {"Config": [{"Subnet": "224.0.0.0/24"}]}}, 400),
        ("/containers/create", TRUE | {"Hostname": "web\n6.6.6.6 bank.example"}, 400),
        ("/containers/create", TRUE | {"Cmd": ["x" * 70_000]}, 400),
        ("/containers/create", TRUE | {"Env": ["A=\0"]}, 400),
        ("/containers/create", TRUE | {"MacAddress": "01:00:5e:00:00:01"}, 400),
        ("/containers/create", TRUE | {"HostConfig": {"OomScoreAdj": 1001}}, 400),
        ("/containers/create", TRUE | {"HostConfig": {"DnsSearch": ["a\nnameserver 6.6.6.6"]}}, 400),
        ("/containers/prune?filters=" + json.dumps({"until": ["9" * 5000]}).replace(" ", ""), {}, 400),
    ],
)
def test_refused(engine: EngineProcess, path: str, body: dict[str, Any], status: int) -> None:
    got, answer = engine.api.request("POST", path, body)
    assert got == status, answer
    assert engine.api.get("/containers/json?all=1") == []


def test_small_mtu_without_ipv6(engine: EngineProcess) -> None:
    """Below 1280 bytes the kernel gives interfaces no IPv6 at all: there is nothing to shut off."""
    engine.api.post("/networks/create", {"Name": "small", "Options": {MTU: "576"}})
    body = {"Image": "alpine", "Cmd": ["sleep", "60"], "HostConfig": {"NetworkMode": "small"}}
    try:
        engine.api.post("/containers/create?name=box", body)
        engine.api.post("/containers/box/start")
    finally:
        assert engine.remove_everything() == []


def test_conmon_and_process_killed_from_outside(
    new_engine: Callable[[], EngineProcess], images: Callable[[str], Path]
) -> None:
    engine = new_engine()
    engine.load(images("alpine"))
    engine.api.post("/containers/create?name=box", {"Image": "alpine", "Cmd": ["sleep", "3600"]})
    engine.api.post("/containers/box/start")
    identifier = engine.api.get("/containers/box/json")["Id"]
    conmon = int(Path(engine.instance.run_dir, "processes", identifier, "conmon.pid").read_text())
    os.kill(conmon, signal.SIGKILL)
    assert engine.api.get("/containers/box/json")["State"]["Running"]
    engine.restart()  # a later engine knows what to wait for, too
    assert engine.api.get("/containers/box/json")["State"]["Running"]
    os.kill(engine.api.get("/containers/box/json")["State"]["Pid"], signal.SIGKILL)
    assert engine.api.post("/containers/box/wait")["StatusCode"] == 255, "nobody is left who knows the code"
    engine.api.post("/containers/box/start")
    os.kill(engine.api.get("/containers/box/json")["State"]["Pid"], signal.SIGKILL)
    assert engine.api.post("/containers/box/wait")["StatusCode"] == 137
