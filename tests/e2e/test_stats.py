"""`stats` with both clients: numbers that are true, streams that end, and nothing for what does not run."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from tsunagu.testing.commandline import CommandLine
from tsunagu.testing.engine import EngineProcess

pytestmark = pytest.mark.root


@pytest.fixture(autouse=True)
def clean(engine: EngineProcess) -> Iterator[None]:
    """No container is left to the next test."""
    yield
    assert not engine.remove_everything()


def test_a_busy_container_next_to_an_idle_one(cli: CommandLine) -> None:
    cli("run -d --name busy alpine sh -c", "while :; do :; done").ok()
    cli("run -d --name idle alpine sleep 1000").ok()
    lines = [json.loads(line) for line in cli("stats --no-stream --format json busy idle").ok().splitlines()]
    found = {line["Name"]: line for line in lines}
    assert 15 < float(found["busy"]["CPUPerc"].rstrip("%")) < 110  # of one processor, on a machine that others use too
    assert float(found["idle"]["CPUPerc"].rstrip("%")) < 5
    assert found["idle"]["PIDs"] == "1" and "iB / " in found["idle"]["MemUsage"]
    assert set(found["idle"]) == {
        "BlockIO", "CPUPerc", "Container", "ID", "MemPerc", "MemUsage", "Name", "NetIO", "PIDs",
    }  # fmt: skip
    table = cli("stats --no-stream").ok().splitlines()
    assert table[0].split("  ")[0] == "CONTAINER ID" and len(table) == 3


def test_network_counters_are_the_sandboxs(cli: CommandLine, engine: EngineProcess) -> None:
    cli("run -d --name web alpine sleep 1000").ok()
    before = engine.api.get("/containers/web/stats?stream=0&one-shot=1")["networks"]["eth0"]
    cli("exec web sh -c", "ping -c 3 -s 1000 $(ip route | awk '/default/{print $3}')").ok()
    after = engine.api.get("/containers/web/stats?stream=0&one-shot=1")["networks"]["eth0"]
    assert after["tx_bytes"] - before["tx_bytes"] >= 3000 and after["tx_packets"] - before["tx_packets"] >= 3
    cli("run -d --name bare --network host alpine sleep 1000").ok()
    assert "networks" not in engine.api.get("/containers/bare/stats?stream=0&one-shot=1")


def test_samples(docker: CommandLine, engine: EngineProcess) -> None:
    docker("run -d --name box alpine sleep 1000").ok()
    one = engine.api.get("/containers/box/stats?stream=0&one-shot=1")
    assert one["precpu_stats"]["cpu_usage"]["total_usage"] == 0 and one["preread"] == "0001-01-01T00:00:00Z"
    assert one["cpu_stats"]["cpu_usage"]["total_usage"] > 0 and one["cpu_stats"]["system_cpu_usage"] > 10**9
    assert one["memory_stats"]["usage"] > 0 and one["memory_stats"]["limit"] >= one["memory_stats"]["usage"]
    assert one["pids_stats"]["current"] == 1 and one["name"] == "/box"
    two = engine.api.get("/containers/box/stats?stream=0")
    assert two["precpu_stats"]["cpu_usage"]["total_usage"] > 0
    passed = two["cpu_stats"]["system_cpu_usage"] - two["precpu_stats"]["system_cpu_usage"]
    assert 0.5e9 < passed / two["cpu_stats"]["online_cpus"] < 5e9
    docker("stop -t 0 box").ok()
    none = engine.api.get("/containers/box/stats?stream=0")
    assert (none["read"], none["pids_stats"], none["memory_stats"]) == ("0001-01-01T00:00:00Z", {}, {})
    status, body = engine.api.request("GET", "/containers/box/stats?stream=1&one-shot=1")
    assert status == 400 and b"cannot have stream=true and one-shot=true" in body


def test_a_stream_ends_with_its_container(docker: CommandLine, engine: EngineProcess) -> None:
    docker("run -d --name box alpine sleep 1000").ok()
    stream = docker.start("stats --format json box")
    assert stream.stdout is not None
    assert b"box" in stream.stdout.readline()
    stream.kill()
    stream.communicate()
    lines = docker.shell(
        "(sleep 2.5; docker rm -f box >/dev/null) & "
        f"curl -sN --max-time 20 --unix-socket {engine.host.removeprefix('unix://')} http://d/containers/box/stats"
    ).ok()
    samples = [json.loads(line) for line in lines.splitlines()]
    assert len(samples) >= 3
    assert samples[1]["precpu_stats"] == samples[0]["cpu_stats"] and samples[1]["preread"] == samples[0]["read"]


def test_words(cli: CommandLine) -> None:
    result = cli("stats --no-stream nosuch")
    assert result.code == 1 and "No such container: nosuch" in result.err
    cli("create --name box alpine").ok()
    assert cli("stats --no-stream -a --format", "{{.Name}} {{.CPUPerc}} {{.MemUsage}}").ok() == "box 0.00% 0B / 0B"
    assert len(cli("stats --no-stream").ok().splitlines()) == 1
