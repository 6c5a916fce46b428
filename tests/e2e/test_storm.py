"""Clients that want opposite things of the same objects at once: no internal error, no deadlock, nothing left."""

from __future__ import annotations

import collections
import concurrent.futures
import itertools
import json
import os
import random
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tsunagu.testing.engine import EngineProcess

pytestmark = pytest.mark.root

CLIENTS = 10
SECONDS = 6.0  # how long each storm blows
PATIENCE = 60.0  # seconds after which an answer counts as a deadlock

Request = tuple[str, str, dict[str, Any] | None]
SLEEPER: dict[str, Any] = {"Image": "alpine", "Cmd": ["sleep", "3600"]}


@pytest.fixture
def engine_with_alpine(
    new_engine: Callable[[], EngineProcess], images: Callable[[str], Path]
) -> Iterator[EngineProcess]:
    """An engine whose log must not know a failure after the test; closing it demands that nothing is left."""
    engine = new_engine()
    engine.load(images("alpine"))
    yield engine
    log = engine.log_path.read_text()
    assert "Traceback" not in log, log[log.index("Traceback") - 500 :][:4000]
    assert "level=ERROR" not in log, log[log.index("level=ERROR") - 100 :][:2000]


def blow(engine: EngineProcess, *requests: Request | Callable[[EngineProcess], int]) -> collections.Counter[int]:
    """Let clients send random ones of `requests` for a while; returns how often each status was answered."""

    def client(seed: int) -> collections.Counter[int]:
        chance, seen = random.Random(seed), collections.Counter[int]()
        end = time.monotonic() + SECONDS
        while time.monotonic() < end:
            request = chance.choice(requests)
            began = time.monotonic()
            if callable(request):
                status = request(engine)
            else:
                status, body = engine.api.request(*request)
                assert status < 500, (request, status, body)
            assert time.monotonic() - began < PATIENCE, request
            seen[status] += 1
        return seen

    with concurrent.futures.ThreadPoolExecutor(CLIENTS) as pool:
        return sum(pool.map(client, range(CLIENTS)), collections.Counter[int]())


def execute(engine: EngineProcess) -> int:
    """One exec that writes a line; returns the status of the last answer."""
    status, body = engine.api.request("POST", "/containers/aa/exec", {"Cmd": ["echo", "x"], "AttachStdout": True})
    if status != 201:
        return status
    identifier = json.loads(body)["Id"]
    status, body = engine.api.request("POST", f"/exec/{identifier}/start", {})
    assert status < 500, body
    return status


@pytest.mark.parametrize("path", ["/containers/create?name=one", "/networks/create"])
def test_twenty_creates_of_one_name(engine_with_alpine: EngineProcess, path: str) -> None:
    body = SLEEPER if "containers" in path else {"Name": "one"}
    with concurrent.futures.ThreadPoolExecutor(20) as pool:
        statuses = list(pool.map(lambda _: engine_with_alpine.api.request("POST", path, body)[0], range(20)))
    assert sorted(statuses) == [201] + [409] * 19


def test_one_container_pulled_by_all(engine_with_alpine: EngineProcess) -> None:
    seen = blow(
        engine_with_alpine,
        ("POST", "/containers/create?name=aa", SLEEPER),
        *[("POST", "/containers/aa/start", None)] * 2,
        ("POST", "/containers/aa/stop?t=0", None),
        ("POST", "/containers/aa/restart?t=0", None),
        ("POST", "/containers/aa/kill", None),
        ("DELETE", "/containers/aa?force=1", None),
        *[execute] * 3,
    )
    assert seen[201] > 3
    assert seen[204] > 10


def test_networks_and_names_pulled_by_all(engine_with_alpine: EngineProcess) -> None:
    engine_with_alpine.api.post("/networks/create", {"Name": "n1"})
    on_network = {**SLEEPER, "HostConfig": {"NetworkMode": "n1"}}
    target = {"Container": "aa"}
    seen = blow(
        engine_with_alpine,
        ("POST", "/containers/create?name=aa", SLEEPER),
        ("POST", "/containers/create?name=bb", on_network),
        *[("POST", f"/containers/{name}/start", None) for name in ("aa", "bb", "aa", "bb")],
        *[("POST", f"/networks/{n}/{act}", target) for n, act in itertools.product(("n1", "n2"), ("connect",))],
        *[("POST", f"/networks/{n}/disconnect", {**target, "Force": True}) for n in ("n1", "n2")],
        ("POST", "/networks/create", {"Name": "n2", "EnableIPv6": True}),
        ("DELETE", "/networks/n2", None),
        ("DELETE", "/networks/n1", None),
        ("POST", "/networks/create", {"Name": "n1"}),
        ("POST", "/containers/aa/rename?name=cc", None),
        ("POST", "/containers/cc/rename?name=aa", None),
        *[("DELETE", f"/containers/{name}?force=1", None) for name in ("aa", "bb", "cc")],
        ("GET", "/containers/json?all=1", None),
        ("GET", "/networks", None),
        execute,
    )
    assert seen[200] > 10


def test_one_sandbox_pulled_by_all(engine_with_alpine: EngineProcess) -> None:
    """Its owner comes and goes, so do those who share it, and so do networks of it."""
    api = engine_with_alpine.api
    for name in ("n1", "n2"):
        api.post("/networks/create", {"Name": name})
    api.post("/containers/create?name=aa", {**SLEEPER, "HostConfig": {"NetworkMode": "n1"}})
    guest = {**SLEEPER, "HostConfig": {"NetworkMode": "container:aa"}}
    seen = blow(
        engine_with_alpine,
        *[("POST", f"/containers/create?name={name}", guest) for name in ("bb", "cc")],
        *[("POST", f"/containers/{name}/start", None) for name in ("aa", "aa", "bb", "bb", "cc", "cc")],
        *[("POST", f"/containers/{name}/stop?t=0", None) for name in ("aa", "bb", "cc")],
        *[("POST", f"/containers/{name}/restart?t=0", None) for name in ("aa", "bb")],
        *[("DELETE", f"/containers/{name}?force=1", None) for name in ("bb", "cc")],
        *[("POST", f"/networks/n2/{act}", {"Container": "aa"}) for act in ("connect", "disconnect")],
    )
    assert seen[204] > 10
    api.request("POST", "/containers/aa/start")
    api.request("POST", "/containers/create?name=bb", guest)
    api.request("POST", "/containers/bb/start")
    pids = [api.get(f"/containers/{name}/json")["State"]["Pid"] for name in ("aa", "bb")]
    assert len({os.readlink(f"/proc/{pid}/ns/net") for pid in pids}) == 1
    joined = api.get("/containers/aa/json")["NetworkSettings"]["Networks"]
    lines = Path(f"/proc/{pids[0]}/net/dev").read_text().splitlines()
    assert sum(line.strip().startswith("eth") for line in lines) == len(joined)
    for name in ("bb", "cc", "aa"):
        api.request("POST", f"/containers/{name}/stop?t=0")
    assert list(Path(engine_with_alpine.instance.run_dir, "netns").iterdir()) == []


def test_removal_goes_before_a_start(engine_with_alpine: EngineProcess) -> None:
    """`rm -f` of a container that others start and restart all the time succeeds, each time."""
    api = engine_with_alpine.api
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        for _ in range(10):
            api.post("/containers/create?name=aa", SLEEPER)
            api.post("/containers/aa/start")
            others = [pool.submit(api.request, "POST", "/containers/aa/restart?t=0") for _ in range(3)]
            assert api.request("DELETE", "/containers/aa?force=1") == (204, b"")
            assert {other.result()[0] for other in others} <= {204, 404, 409}


def test_automatic_removal_in_a_crowd(engine_with_alpine: EngineProcess) -> None:
    """A container with --rm that ends while others wait for it, stop it and remove it."""
    api = engine_with_alpine.api
    body = {"Image": "alpine", "Cmd": ["true"], "HostConfig": {"AutoRemove": True}}
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        for _ in range(15):
            path = f"/containers/{api.post('/containers/create', body)['Id']}"
            asked = [("POST", f"{path}/start"), ("POST", f"{path}/wait?condition=removed"), ("POST", f"{path}/stop")]
            answers = list(pool.map(lambda request: api.request(*request), [*asked, ("DELETE", f"{path}?force=1")]))
            assert all(status < 500 for status, _ in answers), answers
    assert api.get("/containers/json?all=1") == []
