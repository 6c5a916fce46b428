"""The commands that ask and print: requests, texts, errors and exit codes. Each runs as a process."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from unit.canned_engine import ID, CannedEngine, Connection, Request, serving, tsunagu


@pytest.fixture
def engine(tmp_path: Path):
    with serving(tmp_path) as engine:
        yield engine


CONTAINERS = [
    {
        "Id": "a" * 64,
        "Names": ["/web", "/other/link"],
        "Image": "nginx",
        "ImageID": "sha256:11",
        "Command": "nginx -g 'daemon off;'",
        "Created": 1_700_000_000,
        "Ports": [{"IP": "0.0.0.0", "PrivatePort": 80, "PublicPort": 80, "Type": "tcp"}],
        "Labels": {"b": "2", "a": "1"},
        "State": "running",
        "Status": "Up 2 hours",
        "NetworkSettings": {"Networks": {"app": {}}},
        "Mounts": [{"Type": "bind", "Source": "/a/long/path/on/the/host", "Destination": "/x"}],
        "SizeRw": 100,
        "SizeRootFs": 123_456,
    }
]


def test_ps(engine: CannedEngine) -> None:
    engine.routes["GET /containers/json"] = CONTAINERS
    result = tsunagu(engine, "ps")
    lines = result.out.splitlines()
    assert result.code == 0 and result.err == ""
    assert lines[0].split("   ")[0] == "CONTAINER ID" and lines[0].endswith("NAMES")
    assert lines[1].startswith('aaaaaaaaaaaa   nginx     "nginx -g \'daemon of…"   ')
    assert lines[1].endswith("Up 2 hours   0.0.0.0:80->80/tcp   web")
    assert engine.lines() == ["GET /containers/json"]


def test_ps_flags(engine: CannedEngine) -> None:
    engine.routes["GET /containers/json"] = CONTAINERS
    assert tsunagu(engine, "ps", "-aq", "--no-trunc").out == "a" * 64 + "\n"
    tsunagu(engine, "ps", "-f", "label=x", "-f", "label=y", "-n", "3", "-s")
    assert engine.lines() == [
        "GET /containers/json?all=1",
        "GET /containers/json?limit=3&filters=%7B%22label%22:%7B%22x%22:true%2C%22y%22:true%7D%7D&size=1",
    ]
    shown = tsunagu(engine, "ps", "--format", "{{.Names}} {{.Labels}} {{.Mounts}} {{.Size}} {{.CreatedAt}}").out
    assert shown == "web a=1,b=2 /a/long/path/o… 100B (virtual 123kB) 2023-11-14 22:13:20 +0000 UTC\n"


def test_version_tells_the_client_even_without_an_engine(tmp_path: Path) -> None:
    result = tsunagu(None, "version", env={"DOCKER_HOST": f"unix://{tmp_path}/none.sock"})
    assert result.code == 1 and result.out.startswith("Client:\n Version:           ")
    assert result.err == (
        f"Cannot connect to the Tsunagu engine at unix://{tmp_path}/none.sock. Is the engine running?\n"
        "Start it as root with: tsunagu daemon\n"
    )


def test_version(engine: CannedEngine) -> None:
    details = {"ApiVersion": "1.51", "MinAPIVersion": "1.24", "Arch": "amd64", "Os": "linux", "BuildTime": ""}
    engine.routes["GET /version"] = {
        "Platform": {"Name": "Tsunagu 1"},
        "Version": "28.5.2",
        "Components": [
            {"Name": "Engine", "Version": "28.5.2", "Details": details},
            {"Name": "runc", "Version": "1.1.5", "Details": {"Path": "/usr/sbin/runc"}},
        ],
    }
    assert tsunagu(engine, "version").out.partition("\n\n")[2] == (
        "Server: Tsunagu 1\n Engine:\n  Version:          28.5.2\n  API version:      1.51 (minimum version 1.24)\n"
        "  OS/Arch:          linux/amd64\n runc:\n  Version:          1.1.5\n  Path:             /usr/sbin/runc\n"
    )
    assert tsunagu(engine, "version", "-f", "{{.Server.Version}} {{.Server.APIVersion}}").out == "28.5.2 \n"
    wrong = tsunagu(engine, "version", "-f", "{{.Server.Foo}}")
    assert wrong.code == 1 and "can't evaluate field Foo in type *types.Version" in wrong.err


def test_hosts_that_are_no_unix_socket_are_refused_by_name() -> None:
    for host in ("tcp://10.0.0.1:2375", "ssh://me@there"):
        result = tsunagu(None, "-H", host, "ps")
        assert (result.code, result.out) == (1, "")
        assert host.partition(":")[0] + "://" in result.err
    assert tsunagu(None, "-H", "unix:///a", "-H", "unix:///b", "ps").err == "Specify only one -H\n"
    assert "contexts are not supported" in tsunagu(None, "-c", "other", "ps").err
    assert "--tls is not supported" in tsunagu(None, "--tls", "ps").err


@pytest.mark.parametrize(
    ("words", "code", "sentence"),
    [
        ("foo", 1, "tsunagu: unknown command: tsunagu foo\n\nRun 'tsunagu --help' for more information\n"),
        (
            "network foo",
            1,
            "tsunagu: unknown command: tsunagu network foo\n\nUsage:  tsunagu network\n\n"
            "Run 'tsunagu network --help' for more information\n",
        ),
        (
            "run --foo",
            125,
            "unknown flag: --foo\n\nUsage:  tsunagu run [OPTIONS] IMAGE [COMMAND] [ARG...]\n\n"
            "Run 'tsunagu run --help' for more information\n",
        ),
        (
            "run",
            1,
            "tsunagu: 'tsunagu run' requires at least 1 argument\n\n"
            "Usage:  tsunagu run [OPTIONS] IMAGE [COMMAND] [ARG...]\n\nSee 'tsunagu run --help' for more information\n",
        ),
        (
            "container run",
            1,
            "tsunagu: 'tsunagu container run' requires at least 1 argument\n\n"
            "Usage:  tsunagu container run [OPTIONS] IMAGE [COMMAND] [ARG...]\n\n"
            "See 'tsunagu container run --help' for more information\n",
        ),
        (
            "ps x",
            1,
            "tsunagu: 'tsunagu ps' accepts no arguments\n\nUsage:  tsunagu ps [OPTIONS]\n\n"
            "Run 'tsunagu ps --help' for more information\n",
        ),
        (
            "rename a",
            1,
            "tsunagu: 'tsunagu rename' requires 2 arguments\n\nUsage:  tsunagu rename CONTAINER NEW_NAME\n\n"
            "Run 'tsunagu rename --help' for more information\n",
        ),
        ("help foo", 1, "unknown help topic: foo\n"),
        (
            "-x",
            125,
            "unknown shorthand flag: 'x' in -x\n\nUsage:  tsunagu [OPTIONS] COMMAND [ARG...]\n\n"
            "Run 'tsunagu --help' for more information\n",
        ),
        ("--log-level foo ps", 1, "Unable to parse logging level: foo\n"),
    ],
)
def test_usage_errors(words: str, code: int, sentence: str) -> None:
    assert tsunagu(None, *words.split()) == (code, "", sentence)


def test_help_lists_every_command_and_flag() -> None:
    from tsunagu.cli import commands
    from tsunagu.cli.main import load

    top = tsunagu(None, "--help")
    assert top.code == 0
    for word in commands.TOP:
        assert f"\n  {word} " in top.out
    for group, (_, table) in commands.GROUPS.items():
        for word, entry in table.items():
            path = f"{group} {word}"
            shown = tsunagu(None, *path.split(), "--help").out
            assert shown.startswith(f"Usage:  tsunagu {path}")
            for name, _short, _kind, _default, text in load(entry).flags:
                assert (f" --{name} " in shown) == (text is not None), (path, name)
    aliases = "  tsunagu container rm, tsunagu container remove, tsunagu rm\n"
    assert aliases in tsunagu(None, "rm", "--help").out
    assert tsunagu(None, "help", "rm") == tsunagu(None, "rm", "--help")
    assert tsunagu(None, "ps", "-h").err == "Flag shorthand -h has been deprecated, use --help\n"


def test_no_line_of_help_is_wider_than_a_terminal() -> None:
    for line in tsunagu(None, "run", "--help").out.splitlines():
        assert len(line) <= 80


# -- several names --------------------------------------------------------------------------------------------------


def test_stop_asks_all_at_once_and_reports_at_the_end(engine: CannedEngine) -> None:
    engine.routes["POST /containers/a/stop"] = (204, None)
    engine.routes["POST /containers/b/stop"] = (204, None)
    engine.routes["POST /containers/x/stop"] = (404, {"message": "No such container: x"})
    result = tsunagu(engine, "stop", "-t", "1", "a", "x", "b")
    assert result == (1, "a\nb\n", "Error response from daemon: No such container: x\n")
    assert sorted(engine.lines()) == [f"POST /containers/{name}/stop?t=1" for name in ("a", "b", "x")]


def test_rm(engine: CannedEngine) -> None:
    engine.routes["DELETE /containers/a"] = (204, None)
    engine.routes["DELETE /containers/x"] = (404, {"message": "No such container: x"})
    engine.routes["DELETE /containers/r"] = (409, {"message": 'cannot remove container "r": container is running'})
    assert tsunagu(engine, "rm", "-fv", "x", "/a") == (0, "/a\n", "Error response from daemon: No such container: x\n")
    assert set(engine.lines()) == {f"DELETE /containers/{name}?force=1&v=1" for name in ("a", "x")}
    assert tsunagu(engine, "rm", "x").code == 1
    assert tsunagu(engine, "rm", "-f", "r").code == 1
    assert tsunagu(engine, "rm", "", "a") == (1, "a\n", "container name cannot be empty\n")


def test_network_rm_ends_with_dockers_line(engine: CannedEngine) -> None:
    engine.routes["DELETE /networks/a"] = (204, None)
    engine.routes["DELETE /networks/x"] = (404, {"message": "network x not found"})
    result = tsunagu(engine, "network", "rm", "x", "a")
    assert result == (1, "a\n", "Error response from daemon: network x not found\nexit status 1\n")
    assert tsunagu(engine, "network", "rm", "-f", "x", "a") == (0, "a\n", "")


def test_rename(engine: CannedEngine) -> None:
    engine.routes["POST /containers/a/rename"] = (409, {"message": "Conflict."})
    assert tsunagu(engine, "rename", "a", "b") == (
        1,
        "",
        "Error response from daemon: Conflict.\nError: failed to rename container named a\n",
    )
    assert tsunagu(engine, "rename", "a", "").err == "Error: Neither old nor new names may be empty\n"


def test_wait_and_restart(engine: CannedEngine) -> None:
    engine.routes["POST /containers/a/wait"] = {"StatusCode": 137}
    engine.routes["POST /containers/a/restart"] = (204, None)
    assert tsunagu(engine, "wait", "a").out == "137\n"
    assert tsunagu(engine, "restart", "-t", "0", "a").out == "a\n"
    assert engine.lines()[1] == "POST /containers/a/restart?t=0"


def test_top(engine: CannedEngine) -> None:
    engine.routes["GET /containers/a/top"] = {"Titles": ["UID", "CMD"], "Processes": [["root", "sleep 5"]]}
    assert tsunagu(engine, "top", "a", "-o", "uid,cmd").out == "UID                 CMD\nroot                sleep 5\n"
    assert engine.lines() == ["GET /containers/a/top?ps_args=-o%20uid%2Ccmd"]


def test_port(engine: CannedEngine) -> None:
    bindings = [{"HostIp": "0.0.0.0", "HostPort": "8080"}, {"HostIp": "::", "HostPort": "8080"}]
    engine.routes["GET /containers/a/json"] = {"NetworkSettings": {"Ports": {"80/tcp": bindings, "443/tcp": None}}}
    assert tsunagu(engine, "port", "a").out == "80/tcp -> 0.0.0.0:8080\n80/tcp -> [::]:8080\n"
    assert tsunagu(engine, "port", "a", "80").out == "0.0.0.0:8080\n[::]:8080\n"
    assert tsunagu(engine, "port", "a", "443").err == "Error: No public port '443' published for a\n"


# -- logs -----------------------------------------------------------------------------------------------------------


def test_logs_go_to_their_streams(engine: CannedEngine) -> None:
    def logs(_request: Request, connection: Connection) -> None:
        connection.start_chunks("application/vnd.docker.multiplexed-stream")
        connection.chunk(b"\1\0\0\0\0\0\0\4out")
        connection.chunk(b"\n\2\0\0\0\0\0\0\4err\n")
        connection.sock.sendall(b"0\r\n\r\n")

    engine.routes["GET /containers/a/json"] = {"Id": ID, "Config": {"Tty": False}}
    engine.routes["GET /containers/a/logs"] = logs
    result = tsunagu(engine, "logs", "-ft", "--tail", "5", "--until", "2020-01-01T00:00:00Z", "a")
    assert result == (0, "out\n", "err\n")
    query = "stdout=1&stderr=1&tail=5&until=1577836800.000000000&follow=1&timestamps=1"
    assert engine.lines()[1] == f"GET /containers/a/logs?{query}"


def test_logs_of_a_terminal_are_raw(engine: CannedEngine) -> None:
    engine.routes["GET /containers/a/json"] = {"Id": ID, "Config": {"Tty": True}}
    engine.routes["GET /containers/a/logs"] = lambda _request, connection: connection.answer(200, b"\1raw\r\n")
    assert tsunagu(engine, "logs", "a").out == "\x01raw\r\n"


def test_logs_since_nonsense(engine: CannedEngine) -> None:
    result = tsunagu(engine, "logs", "--since", "yesterday", "a")
    assert result.code == 1 and result.err.startswith('invalid value for "since": ')


# -- networks -------------------------------------------------------------------------------------------------------


def test_network_create(engine: CannedEngine) -> None:
    engine.routes["POST /networks/create"] = (201, {"Id": "n" * 64, "Warning": ""})
    words = (
        "network create --subnet 1.2.3.0/24,fd00::/64 --gateway 1.2.3.1 --gateway fd00::1 --ip-range 1.2.3.128/25 "
        "--aux-address h=1.2.3.4 --ipv6 --internal -o com.x=1 --label a=b app"
    )
    assert tsunagu(engine, *words.split()) == (0, "n" * 64 + "\n", "")
    assert engine.body("/networks/create") == {
        "Name": "app",
        "Driver": "bridge",
        "Internal": True,
        "EnableIPv6": True,
        "Options": {"com.x": "1"},
        "Labels": {"a": "b"},
        "IPAM": {
            "Driver": "default",
            "Options": {},
            "Config": [
                {
                    "Subnet": "1.2.3.0/24",
                    "IPRange": "1.2.3.128/25",
                    "Gateway": "1.2.3.1",
                    "AuxiliaryAddresses": {"h": "1.2.3.4"},
                },
                {"Subnet": "fd00::/64", "Gateway": "fd00::1"},
            ],
        },
    }


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ("--gateway 1.2.3.4", "every ip-range or gateway must have a corresponding subnet"),
        ("--subnet 1.2.3.0/24 --gateway 9.9.9.9", "no matching subnet for gateway 9.9.9.9"),
        ("--subnet 1.2.3.0/24 --ip-range 9.9.9.0/25", "no matching subnet for range 9.9.9.0/25"),
        ("--aux-address a=1.2.3.4", "no matching subnet for aux-address 1.2.3.4"),
        ("--subnet 1.2.3.0/24 --subnet 1.2.3.0/25", "multiple overlapping subnet configuration is not supported"),
        ("--subnet 300.1.1.0/24 --gateway 1.1.1.1", "invalid subnet: invalid CIDR address: 300.1.1.0/24"),
    ],
)
def test_network_create_refuses(engine: CannedEngine, words: str, sentence: str) -> None:
    assert tsunagu(engine, "network", "create", *words.split(), "n") == (1, "", sentence + "\n")
    assert engine.requests == []


def test_network_connect(engine: CannedEngine) -> None:
    engine.routes["POST /networks/n/connect"] = {}
    words = "network connect --alias a --alias b --ip 1.2.3.4 --gw-priority 3 --driver-opt x=y n web"
    assert tsunagu(engine, *words.split()) == (0, "", "")
    assert engine.body("/networks/n/connect") == {
        "Container": "web",
        "EndpointConfig": {
            "IPAMConfig": {"IPv4Address": "1.2.3.4"},
            "Aliases": ["a", "b"],
            "DriverOpts": {"x": "y"},
            "GwPriority": 3,
        },
    }


def network(name: str) -> dict[str, Any]:
    return {
        "Id": name[0] * 64,
        "Name": name,
        "Driver": "bridge",
        "Scope": "local",
        "EnableIPv6": False,
        "Internal": False,
        "Labels": {"x": "1"},
        "Created": "2026-01-01T00:00:00.5Z",
    }


def test_network_ls(engine: CannedEngine) -> None:
    engine.routes["GET /networks"] = [network("net10"), network("net9"), network("bridge")]
    assert tsunagu(engine, "network", "ls").out == (
        "NETWORK ID     NAME      DRIVER    SCOPE\nbbbbbbbbbbbb   bridge    bridge    local\n"
        "nnnnnnnnnnnn   net9      bridge    local\nnnnnnnnnnnnn   net10     bridge    local\n"
    )
    shown = tsunagu(engine, "network", "ls", "--format", '{{.Name}} {{.Label "x"}} {{.CreatedAt}}').out
    assert shown.splitlines()[0] == "bridge 1 2026-01-01 00:00:00.5 +0000 UTC"


def test_an_answer_without_the_expected_fields_is_no_traceback(engine: CannedEngine) -> None:
    engine.routes["GET /containers/json"] = [{"unexpected": 1}]
    result = tsunagu(engine, "ps")
    assert (result.code, result.out) == (1, "")
    assert result.err == "tsunagu: internal error: KeyError: 'Id'\nRun it with --debug to see where\n"
    assert "Traceback" in tsunagu(engine, "--debug", "ps").err
