"""docs/formatting.md: each command prints what the page says, with our client and, where there is one, Docker's."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from contract.docker_client import CannedApi

TOP = Path(__file__).resolve().parents[2]
PAGE = TOP / "docs" / "formatting.md"
# What only our client prints; everything else the docker client must print too.
OURS_ONLY = "<!-- ours only -->"


def answers() -> dict[str, Any]:
    """The engine that the page talks about: a shop with a web server and a database."""
    now = int(time.time())
    shop = {"com.docker.compose.project": "shop", "tier": "front"}
    web = {
        "Id": "4c2f" * 16,
        "Names": ["/web"],
        "Image": "nginx:latest",
        "ImageID": "sha256:" + "b" * 64,
        "Command": "nginx -g 'daemon off;'",
        "Created": now - 2 * 3600,
        "Ports": [{"IP": "0.0.0.0", "PrivatePort": 80, "PublicPort": 8080, "Type": "tcp"}],
        "Labels": shop,
        "State": "running",
        "Status": "Up 2 hours",
        "NetworkSettings": {"Networks": {"shop": {}}},
        "Mounts": [],
    }
    database = web | {
        "Id": "91d0" * 16,
        "Names": ["/db"],
        "Image": "mysql:8",
        "Ports": [],
        "Labels": {},
        "Status": "Up 1 hour",
    }
    endpoint = {
        "IPAddress": "172.20.0.2",
        "IPPrefixLen": 24,
        "Aliases": ["web", "www"],
        "MacAddress": "02:42:ac:14:00:02",
    }
    state = {"Status": "running", "Running": True, "Pid": 4711, "StartedAt": "2026-01-02T03:04:05.123456789Z"}
    inspected = {
        "Id": "4c2f" * 16,
        "Name": "/web",
        "Created": "2026-01-02T03:04:05.123456789Z",
        "State": state,
        "RestartCount": 2,
        "Config": {
            "Image": "nginx:latest",
            "Cmd": ["nginx", "-g", "daemon off;"],
            "Env": ["A=1", "B=2"],
            "Labels": shop,
        },
        "HostConfig": {"NetworkMode": "shop", "RestartPolicy": {"Name": "always", "MaximumRetryCount": 0}},
        "NetworkSettings": {
            "Ports": {"443/tcp": None, "80/tcp": [{"HostIp": "0.0.0.0", "HostPort": "8080"}]},
            "Networks": {"shop": endpoint},
        },
    }
    network = {"Id": "f00d" * 16, "Driver": "bridge", "Scope": "local", "EnableIPv4": True, "Labels": {"team": "a"}}
    return {
        "/containers/json": [web, database],
        "/containers/web/json": inspected,
        "/networks": [network | {"Name": "shop", "Created": "2026-01-02T03:04:05Z"}],
        "/networks/shop": network
        | {
            "Name": "shop",
            "Created": "2026-01-02T03:04:05Z",
            "IPAM": {"Driver": "default", "Config": [{"Subnet": "172.20.0.0/24", "Gateway": "172.20.0.1"}]},
            "Containers": {"4c2f" * 16: {"Name": "web", "IPv4Address": "172.20.0.2/24"}},
        },
        "/version": {"Version": "0.1.0", "ApiVersion": "1.51"},
    }


def examples() -> list[tuple[str, str, bool]]:
    """(command, what it prints, whether it is only ours) of each `$` line of the page's console blocks."""
    made = []
    for match in re.finditer(
        r"(<!-- ours only -->\n)?```console\n(.*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL
    ):
        for part in re.split(r"^\$ ", match[2], flags=re.MULTILINE)[1:]:
            command, _, printed = part.partition("\n")
            made.append((command, printed, match[1] is not None))
    return made


@pytest.fixture(scope="module")
def api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[CannedApi]:
    made = CannedApi(tmp_path_factory.mktemp("canned"), answers())
    yield made
    made.close()


def run(api: CannedApi, command: str, program: str) -> str:
    """What a shell shows of the command, without the spaces that end lines."""
    script = f'tsunagu() {{ {program} "$@"; }}\n{command}'
    environment = {
        "PATH": "/usr/bin:/bin",
        "HOME": "/nonexistent",
        "DOCKER_HOST": api.url,
        "PYTHONPATH": str(TOP / "src"),
    }
    result = subprocess.run(
        ["bash", "-c", script],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=20,
        env=environment,
        check=False,
    )
    return "".join(line.rstrip() + "\n" for line in result.stdout.splitlines())


def test_the_page_has_examples() -> None:
    assert len(examples()) >= 20


@pytest.mark.parametrize(("command", "printed", "is_ours_only"), examples())
def test_an_example_prints_what_the_page_says(api: CannedApi, command: str, printed: str, is_ours_only: bool) -> None:
    assert run(api, command, f"{sys.executable} -m tsunagu.cli") == printed


@pytest.mark.skipif(
    not shutil.which("docker"), reason="no docker client on this machine to run the page's examples with"
)
@pytest.mark.parametrize(
    ("command", "printed"), [(command, printed) for command, printed, is_ours_only in examples() if not is_ours_only]
)
def test_the_docker_client_prints_the_same(api: CannedApi, command: str, printed: str) -> None:
    assert run(api, command, str(shutil.which("docker"))) == printed.replace("tsunagu", "docker")
