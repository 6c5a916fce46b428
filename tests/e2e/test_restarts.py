"""Restart policies with both clients: backoff, counts, what ends the waiting, engines that go and come."""

from __future__ import annotations

import itertools
import json
import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tsunagu.testing import host
from tsunagu.testing.commandline import CommandLine
from tsunagu.testing.engine import EngineProcess
from tsunagu.testing.happenings import Happenings

pytestmark = pytest.mark.root
ClientOf = Callable[[str, EngineProcess], CommandLine]
FROM_DAEMON = "Error response from daemon: "
SLEEPS = "sleep 3600"


def inspect(cli: CommandLine, name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(cli(f"inspect {name}").ok())[0]
    return found


def end_by_itself(cli: CommandLine, name: str) -> None:
    """Kill a container's process from outside, as a crash would: nobody asked the engine for it."""
    os.kill(inspect(cli, name)["State"]["Pid"], signal.SIGKILL)


def waiting(cli: CommandLine, engine: EngineProcess, name: str, policy: str = "always") -> None:
    """Leave `name` waiting for its next start for at least 1.6 seconds: five starts that fail at once."""
    with Happenings(engine.instance.socket) as events:
        cli(f"run -d --name {name} --restart {policy} alpine sh -c", "exit 3").ok()
        for _ in range(5):
            events.expect("die", name)


def test_on_failure_stops_at_its_count(cli: CommandLine, engine: EngineProcess) -> None:
    with Happenings(engine.instance.socket) as events:
        cli("run -d --name web --restart on-failure:3 alpine sh -c", "exit 3").ok()
        times = [events.expect("start", "web")["timeNano"]]
        for _ in range(3):
            assert events.expect("die", "web", exitCode="3")["Actor"]["Attributes"]["execDuration"] == "0"
            times.append(events.expect("start", "web")["timeNano"])
        events.expect("die", "web", exitCode="3")
    gaps = [(after - before) / 1e9 for before, after in itertools.pairwise(times)]
    assert all(gap >= least for gap, least in zip(gaps, (0.1, 0.2, 0.4), strict=True)), gaps
    assert cli("wait web").ok() == "3"
    found = inspect(cli, "web")
    assert (found["RestartCount"], found["State"]["Status"], found["State"]["Restarting"]) == (3, "exited", False)
    assert found["HostConfig"]["RestartPolicy"] == {"Name": "on-failure", "MaximumRetryCount": 3}
    cli("start web").ok()
    assert inspect(cli, "web")["RestartCount"] < 3, "a user's start counts anew"


def test_an_end_without_failure_is_final_for_on_failure(cli: CommandLine) -> None:
    cli("run -d --name web --restart on-failure alpine true").ok()
    assert cli("wait web").ok() == "0"
    assert (inspect(cli, "web")["RestartCount"], inspect(cli, "web")["State"]["Status"]) == (0, "exited")


def test_while_it_waits(cli: CommandLine, engine: EngineProcess) -> None:
    waiting(cli, engine, "web")
    whole = cli("inspect -f {{.Id}} web").ok()
    found = inspect(cli, "web")
    state = found["State"]
    assert (state["Status"], state["Running"], state["Restarting"], state["Pid"]) == ("restarting", True, True, 0)
    assert (state["ExitCode"], found["RestartCount"]) == (3, 5)
    assert found["NetworkSettings"]["Networks"]["bridge"]["IPAddress"] == "", "no stale address"
    status = cli("ps --format {{.Status}}").ok()
    assert status.startswith("Restarting (3) ") and status.endswith(" ago")
    assert cli("ps -q --no-trunc --filter status=restarting").ok() == whole
    cli.refuses(
        cli("exec web true"), 1, f"{FROM_DAEMON}Container web is restarting, wait until the container is running"
    )
    cli.refuses(
        cli("pause web"), 1, f"{FROM_DAEMON}Container {whole} is restarting, wait until the container is running"
    )
    cli.refuses(
        cli("rm web"),
        1,
        f'{FROM_DAEMON}cannot remove container "web": container is restarting: '
        "stop the container before removing or force remove",
    )
    assert cli("start web").ok() == "web"
    assert cli("stop web").ok() == "web"
    state = inspect(cli, "web")["State"]
    assert (state["Status"], state["ExitCode"]) == ("exited", 3)


@pytest.mark.parametrize("command", ["rm -f web", "kill web"])
def test_what_ends_the_waiting(cli: CommandLine, engine: EngineProcess, command: str) -> None:
    waiting(cli, engine, "web")
    assert cli(command).ok() == "web"
    found = cli("ps -a --format {{.State}}").ok()
    assert found == ("" if "rm" in command else "exited")


def test_restart_ends_the_waiting_with_a_start(cli: CommandLine, engine: EngineProcess) -> None:
    waiting(cli, engine, "web")
    with Happenings(engine.instance.socket) as events:
        cli("restart web").ok()
        events.expect("start", "web")
        events.expect("restart", "web")
    assert inspect(cli, "web")["RestartCount"] <= 2


@pytest.mark.parametrize("policy", ["always", "unless-stopped", "on-failure"])
def test_a_crash_is_restarted_and_a_stop_is_not(cli: CommandLine, engine: EngineProcess, policy: str) -> None:
    cli("network create app-network").ok()
    cli(f"run -d --name web --network app-network --restart {policy} alpine {SLEEPS}").ok()
    cli("run -d --name client --network app-network bench").ok()
    with Happenings(engine.instance.socket) as events:
        end_by_itself(cli, "web")
        events.expect("start", "web")
    found = inspect(cli, "web")
    assert (found["State"]["Status"], found["RestartCount"]) == ("running", 1)
    address = found["NetworkSettings"]["Networks"]["app-network"]["IPAddress"]
    assert cli("exec client dig +short web").ok() == address
    cli("stop -t 0 web").ok()
    assert inspect(cli, "web")["State"]["Status"] == "exited"
    assert cli("exec client dig +short web").ok() == ""
    cli("start web").ok()
    cli("kill web").ok()
    assert inspect(cli, "web")["State"]["Status"] == "exited"


def test_refusals_of_create(cli: CommandLine) -> None:
    cli.refuses(
        cli("run --rm --restart always alpine true"),
        125,
        "conflicting options: cannot specify both --restart and --rm",
        help_for="run",
    )
    cli.refuses(
        cli("run --restart sometimes alpine true"),
        125,
        f"{FROM_DAEMON}invalid restart policy: unknown policy 'sometimes'; "
        "use one of 'no', 'always', 'on-failure', or 'unless-stopped'",
        help_for="run",
    )
    cli.refuses(
        cli("run --restart always:3 alpine true"),
        125,
        f"{FROM_DAEMON}invalid restart policy: maximum retry count can only be used with 'on-failure'",
        help_for="run",
    )


def test_update_changes_the_policy(cli: CommandLine, engine: EngineProcess) -> None:
    cli(f"run -d --name web alpine {SLEEPS}").ok()
    assert cli("update --restart on-failure:2 web").ok() == "web"
    assert inspect(cli, "web")["HostConfig"]["RestartPolicy"] == {"Name": "on-failure", "MaximumRetryCount": 2}
    with Happenings(engine.instance.socket) as events:
        end_by_itself(cli, "web")
        events.expect("start", "web")
        cli("update --restart no web").ok()
        events.expect("update", "web")
        end_by_itself(cli, "web")
        events.expect("die", "web", exitCode="137")
    assert inspect(cli, "web")["State"]["Status"] == "exited"
    cli(f"run -d --rm --name gone alpine {SLEEPS}").ok()
    whole = cli("inspect -f {{.Id}} gone").ok()
    cli.refuses(
        cli("update --restart always gone"),
        1,
        f"{FROM_DAEMON}Cannot update container {whole}: "
        "Restart policy cannot be updated because AutoRemove is enabled for the container",
    )


@pytest.mark.parametrize("ending", ["stop", "kill"])
def test_engines_come_and_go(
    new_engine: Callable[[], EngineProcess], images: Callable[[str], Path], client_of: ClientOf, ending: str
) -> None:
    engine = new_engine()
    engine.load(images("alpine"))
    cli = client_of("tsunagu", engine)
    waiting(cli, engine, "loops")
    for name, policy in (("always", "always"), ("unless", "unless-stopped"), ("failing", "on-failure")):
        cli(f"run -d --name {name} --restart {policy} alpine {SLEEPS}").ok()
        cli(f"run -d --name {name}-stopped --restart {policy} alpine {SLEEPS}").ok()
        cli(f"kill {name}-stopped").ok()
    cli("create --name never --restart always alpine true").ok()
    count = inspect(cli, "loops")["RestartCount"]
    pid = inspect(cli, "always")["State"]["Pid"]
    engine.stop() if ending == "stop" else engine.kill()
    os.kill(pid, signal.SIGKILL)  # dies while no engine looks
    engine.start()
    with Happenings(engine.instance.socket) as events:
        cli("run --name marker alpine true").ok()
        if inspect(cli, "always")["State"]["Status"] != "running":
            events.expect("start", "always")
        if inspect(cli, "always-stopped")["State"]["Status"] != "running":
            events.expect("start", "always-stopped")
    assert inspect(cli, "unless")["State"]["Status"] == "running"
    assert inspect(cli, "failing")["State"]["Status"] == "running"
    assert inspect(cli, "unless-stopped")["State"]["Status"] == "exited"
    assert inspect(cli, "failing-stopped")["State"]["Status"] == "exited"
    assert inspect(cli, "never")["State"]["Status"] == "created"
    assert inspect(cli, "always")["RestartCount"] == 1
    assert inspect(cli, "loops")["RestartCount"] >= count
    assert inspect(cli, "loops")["State"]["Running"] is True


def test_the_host_was_started_anew(
    new_engine: Callable[[], EngineProcess], images: Callable[[str], Path], client_of: ClientOf
) -> None:
    engine = new_engine()
    engine.load(images("alpine"))
    cli = client_of("tsunagu", engine)
    cli("network create app-network").ok()
    for name, policy in (("db", "always"), ("web", "unless-stopped"), ("job", "on-failure"), ("plain", "no")):
        cli(f"run -d --name {name} --network app-network --restart {policy} alpine {SLEEPS}").ok()
    cli(f"run -d --name guest --network container:db --restart always alpine {SLEEPS}").ok()
    cli(f"run -d --name off --network app-network --restart unless-stopped alpine {SLEEPS}").ok()
    cli("stop -t 0 off").ok()
    engine.kill()
    host.sweep(engine.instance)  # every process, interface, mount and rule is gone
    shutil.rmtree(engine.instance.run_dir)  # and so is /run
    engine.start()
    with Happenings(engine.instance.socket) as events:
        for name in ("db", "web", "job", "guest"):
            if inspect(cli, name)["State"]["Status"] != "running":
                events.expect("start", name)
    assert cli("exec web ping -c 1 -W 5 db").code == 0, "addresses and names are there again"
    assert cli("exec guest nslookup -type=a web").code == 0
    for name in ("plain", "off"):
        assert inspect(cli, name)["State"]["Status"] == "exited"
