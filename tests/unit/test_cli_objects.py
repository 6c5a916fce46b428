"""`inspect`, images, pruning, events and info: requests, texts, errors and exit codes. Each runs as a process."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from unit.canned_engine import ID, CannedEngine, Connection, Request, serving, tsunagu


@pytest.fixture
def engine(tmp_path: Path):
    with serving(tmp_path) as engine:
        yield engine


# -- inspect --------------------------------------------------------------------------------------------------------

WEB = {
    "Id": ID,
    "Name": "/web",
    "State": {"Running": True},
    "Config": {"Labels": {}},
    "NetworkSettings": {"Networks": {"app-network": {"IPAddress": "172.18.0.2"}}},
}


def test_inspect_prints_what_it_found_and_then_the_error(engine: CannedEngine) -> None:
    engine.routes["GET /containers/web/json"] = {"Id": "x", "List": [], "Map": {}, "Deep": [{"a": None}]}
    result = tsunagu(engine, "inspect", "web", "nosuch")
    assert result.code == 1 and result.err == "Error: No such object: nosuch\n"
    assert result.out == (
        '[\n    {\n        "Id": "x",\n        "List": [],\n        "Map": {},\n        "Deep": [\n            {\n'
        '                "a": null\n            }\n        ]\n    }\n]\n'
    )
    assert engine.lines() == ["GET /containers/web/json"] + [
        f"GET /{path}" for path in ("containers/nosuch/json", "images/nosuch/json", "networks/nosuch", "volumes/nosuch")
    ]
    assert tsunagu(engine, "inspect", "nosuch") == (1, "[]\n", "Error: No such object: nosuch\n")


def test_inspect_of_one_kind(engine: CannedEngine) -> None:
    engine.routes["GET /networks/x"] = (404, {"message": "network x not found"})
    expected = (1, "[]\n", "Error response from daemon: network x not found\n")
    assert tsunagu(engine, "network", "inspect", "x") == expected
    assert tsunagu(engine, "inspect", "--type", "network", "x") == expected
    assert (
        'unknown type: "foo": must be one of "config", "container", "image"'
        in tsunagu(engine, "inspect", "--type", "foo", "x").err
    )


@pytest.mark.parametrize(
    ("template", "code", "out", "err"),
    [
        ('{{.Name}} {{(index .NetworkSettings.Networks "app-network").IPAddress}}', 0, "/web 172.18.0.2\n", ""),
        ("{{json .NetworkSettings.Networks}}", 0, None, ""),
        ("{{if .State.Health}}x{{else}}none{{end}}", 0, "none\n", ""),
        (
            "{{.NetworkSettings.Networks.app-network.IPAddress}}",
            64,
            "",
            "template parsing error: template: :1: bad character U+002D '-'\n",
        ),
        (
            "{{.Name}} {{.Foo}}",
            1,
            "\n",
            'template parsing error: template: :1:12: executing "" at <.Foo>: map has no entry for key "Foo"\n',
        ),
        ("{{", 64, "", "template parsing error: template: :1: unclosed action\n"),
    ],
)
def test_inspect_templates(engine: CannedEngine, template: str, code: int, out: str | None, err: str) -> None:
    engine.routes["GET /containers/web/json"] = WEB
    result = tsunagu(engine, "inspect", "-f", template, "web")
    assert (result.code, result.err) == (code, err)
    if out is not None:
        assert result.out == out


# -- images ---------------------------------------------------------------------------------------------------------


def image(identity: str, *tags: str) -> dict[str, Any]:
    return {
        "Id": f"sha256:{identity * 64}",
        "RepoTags": list(tags),
        "RepoDigests": [],
        "Created": 1_700_000_000,
        "Size": 7_654_321,
        "SharedSize": -1,
        "Containers": -1,
    }


def test_images(engine: CannedEngine) -> None:
    engine.routes["GET /images/json"] = [image("2", "alpine:latest", "r.example:5/x:3"), image("4")]
    lines = tsunagu(engine, "images").out.splitlines()
    assert [line.split()[:3] for line in lines[1:]] == [
        ["alpine", "latest", "2" * 12],
        ["r.example:5/x", "3", "2" * 12],
        ["<none>", "<none>", "4" * 12],
    ]
    assert all(line.endswith("7.65MB") for line in lines[1:])
    assert tsunagu(engine, "images", "-q").out == ("2" * 12 + "\n") * 2 + "4" * 12 + "\n"
    tsunagu(engine, "images", "nginx")
    assert engine.lines()[-1] == "GET /images/json?filters=%7B%22reference%22:%7B%22nginx%22:true%7D%7D"


def test_rmi(engine: CannedEngine) -> None:
    engine.routes["DELETE /images/a:1"] = [{"Untagged": "a:1"}, {"Deleted": "sha256:22"}]
    engine.routes["DELETE /images/x"] = (404, {"message": "No such image: x:latest"})
    assert tsunagu(engine, "rmi", "a:1", "x") == (
        1,
        "Untagged: a:1\nDeleted: sha256:22\n",
        "Error response from daemon: No such image: x:latest\n",
    )
    assert tsunagu(engine, "rmi", "-f", "x").code == 0


def test_tag(engine: CannedEngine) -> None:
    engine.routes["POST /images/a/tag"] = (201, None)
    assert tsunagu(engine, "tag", "a", "r.example:5/b:c") == (0, "", "")
    assert engine.lines() == ["POST /images/a/tag?repo=r.example:5/b&tag=c"]
    assert "must be lowercase" in tsunagu(engine, "tag", "a", "B").err


def test_load_from_a_file_and_from_a_pipe(engine: CannedEngine, tmp_path: Path) -> None:
    engine.routes["POST /images/load"] = {"stream": "Loaded image: x:y\n"}
    archive = tmp_path / "x.tar"
    archive.write_bytes(b"archive")
    assert tsunagu(engine, "load", "-i", str(archive)) == (0, "Loaded image: x:y\n", "")
    assert tsunagu(engine, "load", stdin=b"piped" * 100_000) == (0, "Loaded image: x:y\n", "")
    assert [request.body for request in engine.requests] == [b"archive", b"piped" * 100_000]
    assert tsunagu(engine, "load", "-i", "/nosuch").err == "open /nosuch: no such file or directory\n"


def test_a_refused_upload_is_reported(engine: CannedEngine, tmp_path: Path) -> None:
    """The engine answers and hangs up before it has read everything."""

    def refuse(request: Request, connection: Connection) -> None:
        connection.answer(400, {"message": "not an archive"})

    engine.routes["POST /images/load"] = refuse
    assert tsunagu(engine, "load", stdin=b"x" * 3_000_000).err == "Error response from daemon: not an archive\n"


def test_save_leaves_no_half_file(engine: CannedEngine, tmp_path: Path) -> None:
    path = tmp_path / "out.tar"
    engine.routes["GET /images/get"] = lambda _request, connection: connection.answer(200, b"TAR", "application/x-tar")
    assert tsunagu(engine, "save", "-o", str(path), "a", "b") == (0, "", "")
    assert path.read_bytes() == b"TAR" and engine.lines() == ["GET /images/get?names=a&names=b"]
    path.unlink()

    def cut(_request: Request, connection: Connection) -> None:
        connection.sock.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf")

    engine.routes["GET /images/get"] = cut
    assert tsunagu(engine, "save", "-o", str(path), "a").code == 1
    assert list(tmp_path.glob("out.tar*")) == []
    assert tsunagu(engine, "save", "-o", "/nosuch/x", "a").err == (
        "failed to save image: invalid output path: stat /nosuch: no such file or directory\n"
    )


def test_import_and_history(engine: CannedEngine, tmp_path: Path) -> None:
    (tmp_path / "r.tar").write_bytes(b"files")
    engine.routes["POST /images/create"] = {"status": "sha256:99"}
    words = ("import", "-c", "CMD x", "-m", "hi", str(tmp_path / "r.tar"), "foo:bar")
    assert tsunagu(engine, *words).out == "sha256:99\n"
    assert engine.lines() == ["POST /images/create?fromSrc=-&repo=foo:bar&message=hi&changes=CMD%20x"]
    layer = {"Id": "<missing>", "Created": 1, "CreatedBy": "x" * 60, "Size": 0, "Comment": "c", "Tags": None}
    engine.routes["GET /images/foo/history"] = [layer]
    assert tsunagu(engine, "history", "--format", "{{.ID}} {{.CreatedBy}} {{.Size}}", "foo").out == (
        "<missing> " + "x" * 44 + "… 0B\n"
    )


def test_pull(engine: CannedEngine) -> None:
    engine.routes["POST /images/create"] = {"status": "Digest: sha256:aa"}
    assert tsunagu(engine, "pull", "x").out == (
        "Using default tag: latest\nDigest: sha256:aa\ndocker.io/library/x:latest\n"
    )
    assert tsunagu(engine, "pull", "-q", "x:1").out == "docker.io/library/x:1\n"
    engine.routes["POST /images/create"] = {"error": "boom", "errorDetail": {"message": "boom"}}
    assert tsunagu(engine, "pull", "-q", "x:1") == (1, "", "boom\n")


# -- prune, events, info --------------------------------------------------------------------------------------------


def test_prune_asks_first(engine: CannedEngine) -> None:
    engine.routes["POST /containers/prune"] = {"ContainersDeleted": ["a", "b"], "SpaceReclaimed": 12345}
    engine.routes["POST /networks/prune"] = {"NetworksDeleted": ["n1", "bad name!"]}
    question = "WARNING! This will remove all stopped containers.\nAre you sure you want to continue? [y/N] "
    assert tsunagu(engine, "container", "prune", stdin=b"n\n") == (0, question, "")
    assert engine.requests == []
    deleted = "Deleted Containers:\na\nb\n\nTotal reclaimed space: 12.35kB\n"
    assert tsunagu(engine, "container", "prune", stdin=b"y\n").out == question + deleted
    assert tsunagu(engine, "container", "prune", "-f").out == deleted
    assert tsunagu(engine, "network", "prune", "-f").out == "Deleted Networks:\nn1\nbad name!\n\n"


def test_events(engine: CannedEngine) -> None:
    event = {
        "Type": "network",
        "Action": "connect",
        "Actor": {"ID": "nn", "Attributes": {"type": "bridge", "name": "app"}},
        "scope": "local",
        "time": 1_700_000_000,
        "timeNano": 1_700_000_000_123_456_789,
    }
    engine.routes["GET /events"] = event
    assert tsunagu(engine, "events").out == (
        "2023-11-14T22:13:20.123456789Z network connect nn (name=app, type=bridge)\n"
    )
    assert tsunagu(engine, "events", "--format", "{{.Type}} {{.Actor.Attributes.name}} {{.Time}}").out == (
        "network app 1700000000\n"
    )
    tsunagu(engine, "events", "--since", "1", "--until", "2020-01-01", "-f", "type=network")
    assert engine.lines()[-1] == (
        "GET /events?since=1&until=1577836800.000000000&filters=%7B%22type%22:%7B%22network%22:true%7D%7D"
    )


INFO: dict[str, Any] = {
    "Containers": 2,
    "ContainersRunning": 1,
    "ContainersPaused": 0,
    "ContainersStopped": 1,
    "Images": 3,
    "ServerVersion": "1",
    "Driver": "overlay2",
    "DriverStatus": [["Backing Filesystem", "ext4"]],
    "LoggingDriver": "json-file",
    "CgroupDriver": "cgroupfs",
    "CgroupVersion": "1",
    "Plugins": {"Volume": [], "Network": ["bridge"], "Log": ["json-file"]},
    "Swarm": {"LocalNodeState": "inactive"},
    "SecurityOptions": ["name=seccomp,profile=builtin"],
    "NCPU": 2,
    "MemTotal": 4123456789,
    "Name": "host",
    "ID": "x",
    "DockerRootDir": "/r",
    "Debug": False,
    "ExperimentalBuild": False,
    "LiveRestoreEnabled": True,
    "Warnings": ["WARNING: careful"],
    "Tsunagu": {"RunDir": "/run/x", "Resolver": {"pid": 7, "restarts": 0, "queries": 12}},
}


def test_info_ends_with_what_only_this_engine_knows(engine: CannedEngine) -> None:
    engine.routes["GET /info"] = INFO
    for words in (["info"], ["system", "info"]):
        result = tsunagu(engine, *words)
        assert result.code == 0 and result.err == "WARNING: careful\n"
        assert "\n Containers: 2\n  Running: 1\n  Paused: 0\n  Stopped: 1\n Images: 3\n" in result.out
        assert "\n Security Options:\n  seccomp\n   Profile: builtin\n" in result.out
        assert result.out.endswith(" Tsunagu:\n  Run Dir: /run/x\n  Resolver: pid 7, restarts 0, queries 12\n\n")
    assert tsunagu(engine, "info", "-f", "{{.Tsunagu.Resolver.pid}} {{.NCPU}}").out == "7 2\n"
    assert "can't evaluate field Foo in type system.dockerInfo" in tsunagu(engine, "info", "-f", "{{.Foo}}").err
