"""`pause` and `unpause` with both clients: Docker's words, states, events, names, and an engine that goes and comes."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tsunagu.testing.commandline import CommandLine
from tsunagu.testing.engine import EngineProcess

pytestmark = pytest.mark.root
ClientOf = Callable[[str, EngineProcess], CommandLine]
FROM_DAEMON = "Error response from daemon: "
TICKING = "trap 'exit 5' TERM; while :; do date +%s%N; sleep 0.05; done"


def state(cli: CommandLine, name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(cli(f"inspect {name}").ok())[0]["State"]
    return found


def actions(cli: CommandLine, name: str) -> list[str]:
    """What happened to a container so far, oldest first."""
    now = cli("info --format {{.SystemTime}}").ok()
    lines = cli(f"events --since 10m --until {now} --filter container={name} --format {{{{.Action}}}}").ok()
    return [line for line in lines.splitlines() if not line.startswith("exec")]


def test_paused_and_going_on(cli: CommandLine) -> None:
    cli("run -d --name web alpine sh -c", TICKING).ok()
    assert cli("pause web").ok() == "web"
    found = state(cli, "web")
    assert (found["Status"], found["Running"], found["Paused"]) == ("paused", True, True)
    assert found["Pid"] > 0
    status = cli("ps --format {{.Status}}").ok()
    assert status.startswith("Up ") and status.endswith(" (Paused)")
    assert cli("ps -q --filter status=paused").ok() == cli("ps -q").ok()
    assert cli("ps -q --filter status=running").ok() == ""
    assert cli("info --format", "{{.ContainersRunning}} {{.ContainersPaused}} {{.ContainersStopped}}").ok() == "0 1 0"
    assert "date" not in cli("logs --tail 1 web").ok()
    last = cli("logs --tail 1 web").ok()
    assert cli("top web").code == 0
    assert cli("logs --tail 1 web").ok() == last, "a frozen process writes nothing"
    assert cli("unpause web").ok() == "web"
    assert state(cli, "web")["Status"] == "running"
    assert cli("exec web echo again").ok() == "again"
    assert actions(cli, "web")[-2:] == ["pause", "unpause"]


def test_refusals(cli: CommandLine) -> None:
    cli("create --name cold alpine sleep 100").ok()
    whole = cli("inspect -f {{.Id}} cold").ok()
    cli.refuses(cli("pause cold"), 1, f"{FROM_DAEMON}container {whole} is not running")
    cli.refuses(cli("unpause cold"), 1, f"{FROM_DAEMON}Container {whole} is not paused")
    cli.refuses(cli("pause nobody"), 1, f"{FROM_DAEMON}No such container: nobody")
    cli("start cold").ok()
    cli.refuses(cli("unpause cold"), 1, f"{FROM_DAEMON}Container {whole} is not paused")
    cli("pause cold").ok()
    cli.refuses(cli("pause cold"), 1, f"{FROM_DAEMON}Container {whole} is already paused")
    cli.refuses(cli("exec cold true"), 1, f"{FROM_DAEMON}Container cold is paused, unpause the container before exec")
    cli.refuses(
        cli("rm cold"),
        1,
        f'{FROM_DAEMON}cannot remove container "cold": container is paused and must be unpaused first',
    )
    result = cli("start cold")
    assert result.code == 1
    assert f"{FROM_DAEMON}cannot start a paused container, try unpause instead" in result.err
    assert cli("attach cold").code == 1
    both = cli("pause cold nobody")
    assert (both.code, both.out) == (1, "")
    assert both.err.count(FROM_DAEMON) == 2


def test_a_paused_container_is_stopped_killed_restarted_and_removed(cli: CommandLine) -> None:
    cli("run -d --name web alpine sh -c", TICKING).ok()
    cli("pause web").ok()
    assert cli("stop -t 20 web").ok() == "web"
    assert state(cli, "web")["ExitCode"] == 5, "it was thawed to hear the signal"
    assert actions(cli, "web")[-5:] == ["pause", "kill", "unpause", "die", "stop"]
    cli("start web").ok()
    cli("pause web").ok()
    assert cli("restart -t 20 web").ok() == "web"
    assert state(cli, "web")["Status"] == "running"
    cli("pause web").ok()
    assert cli("kill web").ok() == "web"
    assert state(cli, "web")["ExitCode"] == 137
    cli("start web").ok()
    cli("pause web").ok()
    assert cli("rm -f web").ok() == "web"
    assert cli("ps -aq").ok() == ""


def test_a_signal_that_does_not_end_it_leaves_it_frozen(cli: CommandLine) -> None:
    cli("run -d --name web --stop-signal USR1 alpine sh -c", TICKING).ok()
    cli("pause web").ok()
    cli("kill -s TERM web").ok()
    assert state(cli, "web")["Status"] == "paused"
    cli("unpause web").ok()
    assert cli("wait web").ok() == "5", "the signal waited for it"


def test_paused_members_leave_the_set_while_another_is_left(cli: CommandLine) -> None:
    cli("network create app-network").ok()
    for name in ("app1", "app2"):
        cli(f"run -d --name {name} --network app-network --network-alias backend alpine sleep 3600").ok()
    cli("run -d --name client --network app-network bench").ok()
    template = '{{(index .NetworkSettings.Networks "app-network").IPAddress}}'
    one, two = (cli("inspect -f", template, name).ok() for name in ("app1", "app2"))

    def answer(name: str) -> set[str]:
        return set(cli(f"exec client dig +short {name}").ok().split())

    assert answer("backend") == {one, two}
    cli("pause app2").ok()
    assert answer("backend") == {one}
    assert answer("app2") == {two}, "its own name has no other member"
    cli("pause app1").ok()
    assert answer("backend") == {one, two}, "nobody is left: better all than none"
    cli("unpause app2").ok()
    assert answer("backend") == {two}
    cli("unpause app1").ok()
    assert answer("backend") == {one, two}


@pytest.mark.parametrize("ending", ["stop", "kill"])
def test_paused_through_a_restart_of_the_engine(
    new_engine: Callable[[], EngineProcess], images: Callable[[str], Path], client_of: ClientOf, ending: str
) -> None:
    engine = new_engine()
    engine.load(images("alpine"))
    cli = client_of("tsunagu", engine)
    cli("run -d --name web alpine sh -c", TICKING).ok()
    cli("pause web").ok()
    before = state(cli, "web")
    engine.stop() if ending == "stop" else engine.kill()
    engine.start()
    assert state(cli, "web") == before
    cli("unpause web").ok()
    assert cli("exec web echo here").ok() == "here"
    cli("stop -t 20 web").ok()
    assert state(cli, "web")["ExitCode"] == 5
