"""`ps`, filters, formats, versions and help: what is printed and how."""

from __future__ import annotations

import json

import pytest

from tsunagu.testing.commandline import CommandLine

pytestmark = pytest.mark.root


@pytest.fixture
def three(cli: CommandLine) -> CommandLine:
    """`up` runs, `down` has ended with 3, `new` was never started."""
    cli("network create net").ok()
    cli("run -d --name up --label tier=front --network net alpine sleep 3600").ok()
    cli("run --name down --label tier=back alpine sh -c", "exit 3")
    cli("create --name new alpine true").ok()
    return cli


def names(cli: CommandLine, flags: str) -> list[str]:
    return sorted(cli(f"ps --format {{{{.Names}}}} {flags}").ok().splitlines())


def test_table(three: CommandLine) -> None:
    lines = three("ps").ok().splitlines()
    assert lines[0].split() == ["CONTAINER", "ID", "IMAGE", "COMMAND", "CREATED", "STATUS", "PORTS", "NAMES"]
    assert len(lines) == 2
    identity = three("inspect -f {{.Id}} up").ok()
    assert lines[1].startswith(identity[:12] + "   alpine")
    assert '"sleep 3600"' in lines[1]
    assert " Up " in lines[1]
    assert lines[1].endswith("up")
    assert [line.split()[-1] for line in three("ps -a").ok().splitlines()[1:]] == ["new", "down", "up"]
    assert three("ps -q --no-trunc").ok() == identity
    assert three("ps -lq").ok() == three("inspect -f {{.Id}} new").ok()[:12]


def test_filters(three: CommandLine) -> None:
    assert names(three, "") == ["up"]
    assert names(three, "-a") == ["down", "new", "up"]
    assert names(three, "-a --filter status=exited") == ["down"]
    assert names(three, "-a --filter exited=3") == ["down"]
    assert names(three, "-a --filter label=tier") == ["down", "up"]
    assert names(three, "-a --filter label=tier=back") == ["down"]
    assert names(three, "-a --filter name=w") == ["down", "new"]
    assert names(three, "-a --filter name=^new$") == ["new"]
    assert names(three, "-a --filter network=net") == ["up"]
    assert names(three, "-a --filter ancestor=alpine -f status=created") == ["new"]
    assert names(three, "-n 2") == ["down", "new"]
    result = three("ps --filter nosuchfilter=1")
    assert result.code == 1
    assert "invalid filter" in result.err


def test_formats(three: CommandLine) -> None:
    rows = [json.loads(line) for line in three("ps -a --format json").ok().splitlines()]
    assert {row["Names"]: row["State"] for row in rows} == {"up": "running", "down": "exited", "new": "created"}
    assert three("ps --format", "{{.Names}}: {{.Image}} {{upper .State}}").ok() == "up: alpine RUNNING"
    table = three("ps --format", "table {{.Names}}\t{{.Status}}").ok().splitlines()
    assert table[0].split() == ["NAMES", "STATUS"]
    template = "{{range $n, $e := .NetworkSettings.Networks}}{{$n}}{{end}}|{{if .State.Running}}yes{{else}}no{{end}}"
    assert three("inspect -f", template, "up").ok() == "net|yes"
    assert three("inspect -f", '{{index .Config.Labels "tier"}}', "down").ok() == "back"
    assert three("inspect -f", '{{join .Config.Cmd " "}}', "up").ok() == "sleep 3600"
    assert three("inspect -f", "{{println .State.ExitCode}}", "down").ok() == "3"
    result = three("inspect -f", "{{.NoSuchField}}", "up")
    assert result.code == 1
    result = three("ps --format", "{{.Names")
    assert result.code != 0


def test_version_and_info(cli: CommandLine) -> None:
    version = cli("version --format", "{{.Server.APIVersion}} {{.Client.APIVersion}}").ok().split()
    assert version[0] == "1.51"
    info = json.loads(cli("info --format", "{{json .}}").ok())
    assert info["Driver"].startswith("overlay")
    assert info["OSType"] == "linux"
    assert info["NCPU"] >= 1
    assert cli("version").ok().count("Version:") >= 2


def test_wrong_usage(cli: CommandLine) -> None:
    result = cli("run --nosuchflag alpine true")
    assert result.code == 125
    assert "unknown flag: --nosuchflag" in result.err
    result = cli("ps --nosuchflag")
    assert result.code == 125
    assert "unknown flag: --nosuchflag" in result.err
    result = cli("nosuchcommand")
    assert result.code in (1, 125)
    result = cli("network create")
    assert result.code == 1
    assert "requires" in result.err
    result = cli("rm")
    assert result.code == 1
    assert "requires at least 1 argument" in result.err


def test_help_of_each_command(tsunagu: CommandLine) -> None:
    for command in ("", "run", "exec", "ps", "network", "network create", "image", "logs", "load", "daemon"):
        result = tsunagu(f"{command} --help")
        assert result.code == 0, result
        assert "Usage:" in result.out


def test_engine_that_is_not_there(cli: CommandLine) -> None:
    result = cli("ps", env={"DOCKER_HOST": "unix:///tmp/no-such-engine.sock"})
    assert result.code == 1
    whom = "Docker daemon" if cli.name == "docker" else "Tsunagu engine"
    assert f"Cannot connect to the {whom} at unix:///tmp/no-such-engine.sock" in result.err
