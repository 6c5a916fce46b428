"""`tsunagu map` against containers that really send: what it says of every pair is what a ping finds."""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from xml.etree import ElementTree

import pytest

from tsunagu.testing.commandline import CommandLine
from tsunagu.testing.engine import EngineProcess

pytestmark = pytest.mark.root

MADE = (
    "network create front",
    "network create --internal back",
    "network create -o com.docker.network.bridge.enable_icc=false apart",
    "run -d --name api --network front --publish 127.0.0.1::80 alpine sleep 3600",
    "network connect --alias store back api",
    "run -d --name web --network front alpine sleep 3600",
    "run -d --name db --network back alpine sleep 3600",
    "run -d --name one --network apart alpine sleep 3600",
    "run -d --name two --network apart alpine sleep 3600",
    "run -d --name plain1 alpine sleep 3600",
    "run -d --name plain2 alpine sleep 3600",
    "create --name later --network front alpine",
)


@pytest.fixture
def cli(engine: EngineProcess, tsunagu: CommandLine) -> Iterator[CommandLine]:
    for command in MADE:
        tsunagu(command).ok()
    yield tsunagu
    refused = engine.remove_everything()
    assert not refused, refused


def said(found: dict[str, Any], source: dict[str, Any], target: dict[str, Any]) -> str:
    if source["Group"] == target["Group"]:
        among: str = found["Groups"][source["Group"]]["Among"]
        return among
    ends = (source["Group"], target["Group"])
    return next((way["By"] for way in found["Ways"] if (way["From"], way["To"]) == ends), "")


def pings(cli: CommandLine, source: dict[str, Any], target: dict[str, Any]) -> str:
    """How a ping reaches the target: by name, by one of its addresses, or not at all."""
    if cli("exec", source["Name"], "ping", "-c", "1", "-W", "1", target["Name"]).code == 0:
        return "name"
    addresses = [endpoint["IPv4"] for endpoint in target["Endpoints"]]
    reached = [cli("exec", source["Name"], "ping", "-c", "1", "-W", "1", one).code == 0 for one in addresses]
    return "address" if any(reached) else ""


def test_the_map_is_true(cli: CommandLine) -> None:
    found = json.loads(cli("map --format json").ok())
    running = [one for one in found["Containers"] if one["Group"] >= 0]
    assert [one["Name"] for one in found["Containers"] if one["Group"] < 0] == ["later"]
    pairs = [(source, target) for source in running for target in running if source is not target]
    with ThreadPoolExecutor(8) as pool:
        heard = list(pool.map(lambda pair: pings(cli, *pair), pairs))
    for (source, target), by in zip(pairs, heard, strict=True):
        assert said(found, source, target) == by, (source["Name"], target["Name"])
    (port,) = found["Ports"]
    assert (port["Container"], port["HostIp"], port["Open"]) == ("api", "127.0.0.1", False)
    outside = {name: group["Outside"] for group in found["Groups"] for name in group["Containers"]}
    assert (outside["db"], outside["api"]) == (False, True)


def test_the_formats(cli: CommandLine) -> None:
    text = cli("map").ok()
    assert max(map(len, text.splitlines())) == 80
    assert "also on back" in text
    assert "none of them reaches another one" in text
    assert "by address only" in text
    assert cli("map --format mermaid").ok().startswith("flowchart LR\n")
    assert cli("map --format dot").ok().startswith("graph tsunagu {\n")
    assert ElementTree.fromstring(cli("map --format svg").ok()).tag == "{http://www.w3.org/2000/svg}svg"


def test_a_part_of_the_map(cli: CommandLine) -> None:
    found = json.loads(cli("map --format json db").ok())
    assert [one["Name"] for one in found["Networks"]] == ["back"]
    assert [one["Name"] for one in found["Containers"]] == ["api", "db"]
    assert cli("map nosuch").err == "Error response from daemon: No such network or container: nosuch\n"


def test_the_terminal_sets_the_width(cli: CommandLine) -> None:
    with cli.terminal("map front", columns=60) as terminal:
        assert terminal.wait() == 0
    assert max(len(line) for line in terminal.output.replace("\r", "").splitlines()) == 60
