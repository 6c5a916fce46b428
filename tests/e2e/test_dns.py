"""`tsunagu dns` with real containers: what it lists is what nslookup finds, and the log tells of it."""

from __future__ import annotations

import json
import select
import subprocess
from collections.abc import Iterator
from typing import Any

import pytest

from tsunagu.testing.commandline import CommandLine
from tsunagu.testing.engine import EngineProcess

pytestmark = pytest.mark.root

MADE = (
    "network create front",
    "network create --internal back",
    "run -d --name db --network back --network-alias store bench",
    "run -d --name web --network front --add-host gate:10.9.9.9 bench",
    "network connect --link db:database back web",
    "run -d --name lone --network back bench",
    "run -d --name plain bench",
)


@pytest.fixture
def cli(engine: EngineProcess, tsunagu: CommandLine) -> Iterator[CommandLine]:
    for command in MADE:
        tsunagu(command).ok()
    yield tsunagu
    refused = engine.remove_everything()
    assert not refused, refused


def ask(cli: CommandLine, *words: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(cli("dns query --json", *words).out)
    return found


class Follower:
    """`dns log -f --json` running; entries can be waited for."""

    def __init__(self, cli: CommandLine, *words: str) -> None:
        self.process = cli.start("dns log -f --json", *words)
        self._rest = b""

    def next(self, seconds: float = 20.0) -> dict[str, Any]:
        assert self.process.stdout is not None
        while b"\n" not in self._rest:
            assert select.select([self.process.stdout], [], [], seconds)[0], "nothing was logged"
            data = self.process.stdout.read1(65536)  # type: ignore[attr-defined]
            assert data, self.process.stderr and self.process.stderr.read()
            self._rest += data
        line, _, self._rest = self._rest.partition(b"\n")
        found: dict[str, Any] = json.loads(line)
        return found

    def find(self, name: str) -> dict[str, Any]:
        while (entry := self.next())["Name"] != name:
            pass
        return entry

    def close(self) -> None:
        self.process.kill()
        self.process.communicate()


def follow(cli: CommandLine, *words: str) -> Follower:
    """A follower that is in force: it has told of a query that was asked until it did."""
    follower = Follower(cli, *words)
    assert follower.process.stdout is not None
    for _ in range(100):
        cli("exec", words[0] if words else "web", "nslookup", "marker.localhost")
        if select.select([follower.process.stdout], [], [], 0.2)[0]:
            follower.find("marker.localhost")
            return follower
    follower.close()
    raise AssertionError("the log tells of nothing")


def test_what_is_listed_is_found(cli: CommandLine) -> None:
    entries = json.loads(cli("dns ls --json web").ok())
    assert {"web", "db", "store", "database", "lone"} <= {entry["Name"] for entry in entries}
    for entry in entries:
        found = ask(cli, "web", entry["Name"])
        assert [one["Data"] for one in found["Records"]] == entry["IPv4"], entry
        assert {one["TTL"] for one in found["Records"]} == {entry["TTL"]}
        if entry["Why"] == ["link"]:
            assert found["Origin"] == "link"
        else:
            assert (found["Origin"], found["Detail"]) == ("network", entry["Network"])
    assert "database" not in {entry["Name"] for entry in json.loads(cli("dns ls --json lone").ok())}
    assert "NAME" in cli("dns ls").ok()


def test_where_an_answer_comes_from(cli: CommandLine) -> None:
    assert ask(cli, "lone", "example.com")["Origin"] == "internal"
    assert ask(cli, "lone", "web.front")["Origin"] == "internal"
    assert ask(cli, "web", "gate")["Hosts"] == ["10.9.9.9"]
    (address,) = (one["Data"] for one in ask(cli, "web", "db")["Records"])
    pointer = ask(cli, "web", address, "PTR")
    assert [one["Data"] for one in pointer["Records"]] == ["db.back"]
    assert cli("dns query web db AAAA").code == 1
    assert cli("dns query web db").out.splitlines()[1].startswith("from: network back, ")


def test_refusals(cli: CommandLine) -> None:
    assert "plain is on no network that has names" in cli("dns ls plain").err
    assert "No such container: nosuch" in cli("dns query nosuch db").err
    assert "invalid record type: FOO" in cli("dns query web db FOO").err
    assert cli("dns log").code == 1
    cli("stop -t 0 db").ok()
    assert "container db is not running" in cli("dns query db web").err


def test_the_log_tells_of_real_queries(cli: CommandLine) -> None:
    follower = follow(cli)
    try:
        cli("exec web nslookup db").ok()
        entry = follower.find("db")
        assert (entry["Container"], entry["Origin"], entry["Detail"]) == ("web", "network", "back")
        assert entry["Answers"]
        cli("exec lone nslookup example.com")
        assert follower.find("example.com")["Origin"] == "internal"
    finally:
        follower.close()


def test_the_log_of_one_container_survives_the_engine(cli: CommandLine, engine: EngineProcess) -> None:
    follower = follow(cli, "web")
    try:
        cli("exec lone nslookup store").ok()
        cli("exec web nslookup store").ok()
        assert follower.find("store")["Container"] == "web"
    finally:
        follower.close()
    engine.restart()
    cli("exec web nslookup db").ok()
    again = follow(cli, "web")
    again.close()


def test_a_follower_that_does_not_read_holds_nobody_up(cli: CommandLine) -> None:
    """The follower's pipe is full soon; every query is answered all the same."""
    follower = follow(cli, "web")
    try:
        loop = "i=0; while [ $i -lt 400 ]; do nslookup db >/dev/null || exit 1; i=$((i+1)); done"
        cli("exec", "web", "sh", "-c", loop).ok()
    finally:
        follower.close()


def test_a_closed_follower_ends_the_command(cli: CommandLine) -> None:
    follower = follow(cli, "web")
    follower.process.terminate()
    try:
        assert follower.process.wait(10) != 0
    except subprocess.TimeoutExpired:
        follower.close()
        raise
