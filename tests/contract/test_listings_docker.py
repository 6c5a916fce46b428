"""Our command line and the docker client on the same canned answers: lists and templates must print the same bytes."""

from __future__ import annotations

import shlex
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from .docker_client import CannedApi, docker

SOURCE = Path(__file__).parents[2] / "src"
LONG = "0123456789abcdef" * 4


def answers() -> dict[str, Any]:
    """What an engine could say; ages lie in the middle of their words ("2 hours"), so that no clock matters."""
    now = int(time.time())
    web = {
        "Id": LONG,
        "Names": ["/web", "/other/web"],
        "Image": "nginx:latest",
        "ImageID": "sha256:" + "b" * 64,
        "Command": "nginx -g 'daemon off;' and more",
        "Created": now - 2 * 3600,
        "Ports": [
            {"IP": "0.0.0.0", "PrivatePort": 80, "PublicPort": 8080, "Type": "tcp"},
            {"IP": "::", "PrivatePort": 80, "PublicPort": 8080, "Type": "tcp"},
            {"PrivatePort": 443, "Type": "tcp"},
        ],
        "Labels": {"com.x": "v", "a": "b", "com.example.my-key": "my <value>"},
        "State": "running",
        "Status": "Up 2 hours",
        "NetworkSettings": {"Networks": {"n1": {}}},
        "Mounts": [
            {"Type": "bind", "Source": "/a/very/long/path/name", "Destination": "/x"},
            {"Type": "volume", "Name": "vol1", "Driver": "local", "Source": "/v"},
        ],
        "SizeRw": 1234,
        "SizeRootFs": 12_345_678,
    }
    old = web | {
        "Id": LONG[::-1],
        "Names": ["/a-really-long-container-name-é"],
        "Image": "sha256:" + "c" * 64,
        "ImageID": "sha256:" + "c" * 64,
        "Command": 'sh "x"',
        "Created": now - 20 * 86400,
        "Ports": [{"PrivatePort": port, "Type": "udp"} for port in (1, 2, 3, 7)],
        "Labels": None,
        "State": "exited",
        "Status": "Exited (0) 3 days ago",
        "Mounts": [],
    }
    network = {"Driver": "bridge", "Scope": "local", "Labels": {}, "EnableIPv4": True, "IPAM": {}}
    image = {"Created": now - 864_000, "Containers": -1, "SharedSize": -1, "RepoDigests": None}
    layer = {"Created": now - 3_000_000, "Tags": None, "Size": 5_123_456, "Comment": ""}
    return {
        "/containers/json": [web, old],
        "/networks": [
            network
            | {"Name": "bridge", "Id": "b" + LONG[1:], "Created": "2024-01-02T03:04:05.1Z", "Labels": {"x": "y"}},
            network
            | {"Name": "app10", "Id": "a" + LONG[1:], "Created": "2024-05-02T03:04:05+02:00", "EnableIPv6": True},
            network | {"Name": "app9", "Id": "c" + LONG[1:], "Created": "2024-05-02T03:04:05.120Z", "Internal": True},
        ],
        "/images/json": [
            image | {"Id": "sha256:" + LONG, "RepoTags": ["nginx:latest", "nginx:1"], "Size": 1_234_567},
            image | {"Id": "sha256:" + LONG[::-1], "RepoTags": [], "Size": 999_950},
            image | {"Id": "sha256:" + "3" * 64, "RepoTags": ["localhost:5000/a/b:x"], "Size": 0},
        ],
        "/images/x/history": [
            layer | {"Id": "sha256:" + LONG, "CreatedBy": '/bin/sh -c #(nop)  CMD ["sh"] and a lot more text here'},
            layer | {"Id": "<missing>", "CreatedBy": "ADD\tx", "Size": 0, "Comment": "c"},
        ],
        "/containers/c/json": {"Id": "c", "Name": "/c", "State": {"Running": True}, "Config": {"Labels": {"a": "<1>"}}},
        "/networks/n": {"Name": "n", "Id": "n", "IPAM": {"Config": [{"Gateway": "10.0.0.1"}]}},
        "/images/i/json": {"Id": "sha256:i", "RepoTags": ["i:1"], "Config": {"Cmd": ["sh"]}},
        "/version": {"Version": "1", "ApiVersion": "1.50", "MinAPIVersion": "1.24"},
        "/info": {"ID": "x", "Containers": 3, "NCPU": 2},
    }


ALIKE = r"""
ps
ps --no-trunc
ps -q
ps -q --format raw
ps -s
ps --format json
ps --format table
ps --format ''
ps --format raw
ps -s --format raw
ps --format '{{json .}}'
ps --format 'a{{json .}}b'
ps --format '{{json .Ports}} {{json .Platform}} {{.Platform}}'
ps --format '{{.Names}}'
ps --format 'x'
ps --format '  {{.Names}}\t{{.ID}}\n  '
ps --format 'table {{.Names}}\t{{.Status}}'
ps --format 'table {{.Names}}\n{{.Status}}'
ps --format 'table {{.ID}}\t{{.Image}}\t{{.Ports}}\t{{.Labels}}\t{{.Label "com.example.my-key"}}'
ps --format 'table {{json .Names}}\t{{truncate .ID 4}}\t{{pad .State 2 2}}\t{{upper .Image}}\t{{len .Names}}'
ps --format 'table{{.Names}}'
ps --format 'tablex {{.Names}}'
ps --format '{{.Names}}: {{.RunningFor}} {{.Size}} {{.Mounts}} {{.Networks}} {{.LocalVolumes}} {{.State}} {{.Command}}'
ps --no-trunc --format '{{.Names}} {{.Mounts}} {{.Command}} {{.Image}} {{.ID}} {{.CreatedAt}}'
ps --format '{{range $i, $e := split .Names ","}}{{$i}}{{$e}} {{end}}{{with .Label "zz"}}{{.}}{{else}}-{{end}}'
ps --format '{{printf "%-30s|%q" .Names .Status}}'
ps --format '{{.Foo}}'
ps --format 'table {{.Foo}}'
ps -s --format '{{.Foo}}'
ps --format '{{.Names'
ps --format '{{.Label}}'
ps --format '{{.Names 5}}'
ps --format '{{index (split .Names ",") 5}}'
network ls
network ls -q
network ls -q --format raw
network ls -q --format json
network ls -q --format 'table {{.ID}}'
network ls --no-trunc
network ls --format raw
network ls --format json
network ls --format '{{.Name}} {{.ID}} {{.Driver}} {{.Scope}} {{.IPv4}} {{.IPv6}} {{.Internal}} {{.Labels}}'
network ls --format '{{.CreatedAt}}'
network ls --format 'table {{.Name}}\t{{.IPv6}}\t{{.Internal}}\t{{.Label "x"}}\t{{.CreatedAt}}'
network ls --format '{{.Nope}}'
network ls --format '{{.Name'
images
images -q
images -q --format table
images -q --format '{{.ID}} {{.Tag}}'
images --no-trunc
images --digests
images --digests --format raw
images --format json
images --format '{{.Repository}}:{{.Tag}} {{.ID}} {{.Size}} {{.CreatedSince}} {{.CreatedAt}} {{.Digest}}'
images --format 'table {{.Repository}}\t{{.Tag}}\t{{.Containers}}\t{{.SharedSize}}\t{{.UniqueSize}}\t{{.VirtualSize}}'
images --format '{{.Nope}}'
images --format '{{.Tag'
history x
history -q x
history --no-trunc x
history -H=false x
history --format '{{.ID}} {{.CreatedBy}} {{.CreatedSince}} {{.CreatedAt}} {{.Size}} {{.Comment}}' x
history --format json x
history --format '{{.Nope}}' x
inspect c
inspect -f json c
inspect -f '{{.Name}}' c
inspect -f '{{.Name}}' c nope
inspect -f '{{.Foo}}' c
inspect -f '{{.Foo' c
inspect -f '{{.State}} {{json .Config.Labels}}' c
inspect nope
inspect --type image nope
network inspect n
network inspect -f '{{(index .IPAM.Config 0).Gateway}}' n nope
image inspect -f '{{.Config.Cmd}} {{.RepoTags}}' i
version --format '{{.Server.Version}} {{.Server.APIVersion}} {{.Server.Platform.Name}}'
version --format '{{.Server.Nope}}'
version --format '{{.Server'
info -f '{{.Containers}} {{.ID}} {{.NCPU}} {{.Driver}}'
info -f '{{.Nope'
logs --since x c
logs --until 2024-13-01 c
""".strip().splitlines()


@pytest.fixture(scope="module")
def api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[CannedApi]:
    if not docker():
        pytest.skip("no docker client on this machine to compare our lists with")
    made = CannedApi(tmp_path_factory.mktemp("canned"), answers())
    yield made
    made.close()


@pytest.mark.parametrize("line", ALIKE)
def test_both_print_the_same(api: CannedApi, line: str) -> None:
    words = ["-H", api.url, *shlex.split(line)]
    environment = {"PATH": "/usr/bin:/bin", "HOME": "/nonexistent", "PYTHONPATH": str(SOURCE)}
    theirs = subprocess.run(
        [docker(), *words], capture_output=True, text=True, timeout=20, env=environment, check=False
    )
    ours = subprocess.run(
        [sys.executable, "-m", "tsunagu.cli", *words],
        capture_output=True,
        text=True,
        timeout=20,
        env=environment,
        check=False,
    )
    assert (ours.stdout, ours.returncode) == (theirs.stdout, theirs.returncode)
    assert ours.stderr.strip() == theirs.stderr.strip()
