"""Logging drivers, logs of limited size, and the init, with both clients."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest

from tsunagu.testing.commandline import CommandLine
from tsunagu.testing.engine import EngineProcess

pytestmark = pytest.mark.root
FROM_DAEMON = "Error response from daemon: "


def inspect(cli: CommandLine, name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(cli(f"inspect {name}").ok())[0]
    return found


def test_no_log_is_kept(cli: CommandLine) -> None:
    assert cli("run --name quiet --log-driver none alpine echo heard").ok() == "heard"
    found = inspect(cli, "quiet")
    assert (found["HostConfig"]["LogConfig"]["Type"], found["LogPath"]) == ("none", "")
    cli.refuses(cli("logs quiet"), 1, f"{FROM_DAEMON}configured logging driver does not support reading")


def test_logs_of_several_files(cli: CommandLine, engine: EngineProcess) -> None:
    counting = "i=0; while [ $i -lt 3000 ]; do i=$((i+1)); echo line $i;"
    script = f"{counting} [ $((i % 300)) = 0 ] && sleep 0.7; done; echo over"  # time for the engine to look
    cli("run -d --name talks --log-opt max-size=10k --log-opt max-file=3 alpine sh -c", script).ok()
    assert inspect(cli, "talks")["HostConfig"]["LogConfig"] == {
        "Type": "json-file", "Config": {"max-file": "3", "max-size": "10k"},
    }  # fmt: skip
    followed = cli("logs -f talks").ok().splitlines()
    assert followed[-1] == "over"
    numbers = [int(line.split()[1]) for line in followed[:-1]]
    assert numbers == list(range(numbers[0], 3001)), "whoever follows misses nothing"
    kept = cli("logs talks").ok().splitlines()
    assert kept[-1] == "over" and len(kept) < 2500
    assert cli("logs --tail 2 talks").ok().splitlines() == ["line 3000", "over"]
    path = Path(inspect(cli, "talks")["LogPath"])
    assert sorted(p.name for p in path.parent.glob(path.name + "*")) == [path.name, f"{path.name}.1", f"{path.name}.2"]


def test_a_log_of_one_file_begins_anew(cli: CommandLine) -> None:
    script = "i=0; while [ $i -lt 2000 ]; do i=$((i+1)); echo line $i; done"
    cli("run --name talks --log-opt max-size=20k alpine sh -c", script).ok()
    path = Path(inspect(cli, "talks")["LogPath"])
    assert path.stat().st_size <= 20_000
    kept = cli("logs talks").ok().splitlines()
    assert kept[-1] == "line 2000"


def test_refusals(cli: CommandLine) -> None:
    for flags, sentence in (
        ("--log-driver paper", "logger: no log driver named 'paper' is registered"),
        ("--log-driver syslog", "the logging driver syslog is not supported yet"),
        ("--log-opt max=1", "unknown log opt 'max' for json-file log driver"),
    ):
        result = cli(f"create {flags} alpine true")
        assert result.code in {1, 125}
        assert f"{FROM_DAEMON}{sentence}" in result.err


def test_an_init_reaps_and_forwards(cli: CommandLine) -> None:
    script = "trap 'exit 9' TERM; (sleep 0 & exec sleep 0) ; while :; do sleep 0.05; done"
    cli("run -d --init --name web alpine sh -c", script).ok()
    found = inspect(cli, "web")
    assert found["HostConfig"]["Init"] is True
    assert found["Path"] == "sh", "the command stays what it was"
    first = cli("exec web cat /proc/1/cmdline").ok().split("\0")
    assert first[:3] == ["/sbin/docker-init", "--", "sh"]
    started = time.monotonic()
    cli("stop -t 30 web").ok()
    assert time.monotonic() - started < 20, "the signal was handed on"
    assert inspect(cli, "web")["State"]["ExitCode"] == 9
    assert "Init" not in inspect(cli, cli("create alpine true").ok())["HostConfig"]
