"""Health checks with both clients: states, events, names, time limits, pauses, engines that go and come."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tsunagu.testing.commandline import CommandLine
from tsunagu.testing.engine import EngineProcess
from tsunagu.testing.happenings import Happenings

pytestmark = pytest.mark.root
ClientOf = Callable[[str, EngineProcess], CommandLine]
# healthy as long as the file /well is there
FILE = "--health-cmd 'cat /well' --health-interval 100ms --health-retries 2"
STARTS = "sh -c 'echo fine >/well; exec sleep 3600'"


def inspect(cli: CommandLine, name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(cli(f"inspect {name}").ok())[0]
    return found


def status(cli: CommandLine, name: str) -> str:
    return cli(f"ps --filter name={name} --format {{{{.Status}}}}").ok()


def test_healthy_unhealthy_and_healthy_again(cli: CommandLine, engine: EngineProcess) -> None:
    with Happenings(engine.instance.socket) as events:
        cli(f"run -d --name web {FILE} alpine {STARTS}").ok()
        events.expect("start", "web")
        events.expect("health_status: healthy", "web")
        assert status(cli, "web").endswith(" (healthy)")
        found = inspect(cli, "web")
        assert found["Config"]["Healthcheck"] == {
            "Test": ["CMD-SHELL", "cat /well"], "Interval": 100_000_000, "Retries": 2,
        }  # fmt: skip
        health = found["State"]["Health"]
        assert (health["Status"], health["FailingStreak"]) == ("healthy", 0)
        assert (health["Log"][0]["ExitCode"], health["Log"][0]["Output"]) == (0, "fine\n")
        assert health["Log"][0]["Start"] <= health["Log"][0]["End"]
        assert cli("ps -q --filter health=healthy").ok()
        assert not cli("ps -q --filter health=none").ok()
        cli("exec web rm /well").ok()
        events.expect("health_status: unhealthy", "web")
        assert status(cli, "web").endswith(" (unhealthy)")
        health = inspect(cli, "web")["State"]["Health"]
        assert health["FailingStreak"] >= 2
        assert health["Log"][-1]["ExitCode"] == 1
        assert "No such file" in health["Log"][-1]["Output"]
        assert len(health["Log"]) <= 5
        cli("exec web sh -c 'echo fine >/well'").ok()
        events.expect("health_status: healthy", "web")
        cli("restart -t 0 web").ok()
        events.expect("health_status: healthy", "web")
        cli("stop -t 0 web").ok()
    assert inspect(cli, "web")["State"]["Health"]["Status"] == "unhealthy"


def test_starting_until_the_first_answer(cli: CommandLine) -> None:
    cli("run -d --name web --health-cmd true --health-interval 1h alpine sleep 3600").ok()
    assert status(cli, "web").endswith(" (health: starting)")
    assert inspect(cli, "web")["State"]["Health"] == {"Status": "starting", "FailingStreak": 0, "Log": []}
    assert cli("ps -q --filter health=starting").ok()


def test_a_check_that_takes_too_long_is_killed_whole(cli: CommandLine, engine: EngineProcess) -> None:
    check = "echo begun; sleep 1000 & sleep 2000; true"
    flags = "--health-interval 2s --health-timeout 300ms --health-retries 1"
    with Happenings(engine.instance.socket) as events:
        cli(f"run -d --name web {flags} --health-cmd", check, "alpine", "sleep", "3600").ok()
        events.expect("exec_start: /bin/sh -c " + check, "web")
        events.expect("health_status: unhealthy", "web")
        if not any(event["Action"] == "exec_die" for event in events.seen):
            events.expect("exec_die", "web")
    assert "sleep 1000" not in cli("top web").ok(), "what the check started is gone too"
    answer = inspect(cli, "web")["State"]["Health"]["Log"][0]
    assert (answer["ExitCode"], answer["Output"]) == (-1, "Health check exceeded timeout (300ms): begun\n")


def test_a_program_that_cannot_be_run(cli: CommandLine, engine: EngineProcess) -> None:
    with Happenings(engine.instance.socket) as events:
        body = {
            "Image": "alpine",
            "Cmd": ["sleep", "3600"],
            "Healthcheck": {"Test": ["CMD", "nosuchprogram"], "Interval": 100_000_000, "Retries": 1, "Timeout": None},
        }
        engine.api.post("/containers/create?name=web", body)
        cli("start web").ok()
        events.expect("health_status: unhealthy", "web")
    answer = inspect(cli, "web")["State"]["Health"]["Log"][0]
    assert answer["ExitCode"] == -1
    assert 'exec: "nosuchprogram": executable file not found in $PATH' in answer["Output"]


def test_no_healthcheck(cli: CommandLine) -> None:
    cli("run -d --name web --no-healthcheck alpine sleep 3600").ok()
    assert "Health" not in inspect(cli, "web")["State"]
    assert inspect(cli, "web")["Config"]["Healthcheck"] == {"Test": ["NONE"]}
    assert cli("ps -q --filter health=none").ok()
    cli.refuses(
        cli("run --no-healthcheck --health-cmd true alpine true"),
        125,
        "--no-healthcheck conflicts with --health-* options",
        help_for="run",
    )


def test_unhealthy_members_leave_the_set_while_another_is_left(cli: CommandLine, engine: EngineProcess) -> None:
    cli("network create app-network").ok()
    cli("run -d --name client --network app-network bench").ok()
    with Happenings(engine.instance.socket) as events:
        for name in ("app1", "app2"):
            cli(f"run -d --name {name} --network app-network --network-alias backend {FILE} alpine {STARTS}").ok()
            events.expect("health_status: healthy", name)
        template = '{{(index .NetworkSettings.Networks "app-network").IPAddress}}'
        one, two = (cli("inspect -f", template, name).ok() for name in ("app1", "app2"))

        def answer(name: str) -> set[str]:
            return set(cli(f"exec client dig +short {name}").ok().split())

        assert answer("backend") == {one, two}
        cli("exec app2 rm /well").ok()
        events.expect("health_status: unhealthy", "app2")
        assert answer("backend") == {one}
        assert answer("app2") == {two}
        cli("exec app1 rm /well").ok()
        events.expect("health_status: unhealthy", "app1")
        assert answer("backend") == {one, two}, "nobody is left: better all than none"
        cli("exec app2 sh -c 'echo fine >/well'").ok()
        events.expect("health_status: healthy", "app2")
        assert answer("backend") == {two}


@pytest.mark.parametrize("ending", ["stop", "kill"])
def test_checks_go_on_with_the_next_engine(
    new_engine: Callable[[], EngineProcess], images: Callable[[str], Path], client_of: ClientOf, ending: str
) -> None:
    engine = new_engine()
    engine.load(images("alpine"))
    cli = client_of("tsunagu", engine)
    with Happenings(engine.instance.socket) as events:
        cli(f"run -d --name web {FILE} alpine {STARTS}").ok()
        events.expect("health_status: healthy", "web")
    engine.stop() if ending == "stop" else engine.kill()
    engine.start()
    assert inspect(cli, "web")["State"]["Health"]["Status"] == "healthy"
    with Happenings(engine.instance.socket) as events:
        cli("exec web rm /well").ok()
        events.expect("health_status: unhealthy", "web")
