"""Volumes as users have them: data that outlives containers, filled from images, shared, limited, removed."""

from __future__ import annotations

import io
import json
import os
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from tsunagu.testing.commandline import CommandLine
from tsunagu.testing.engine import EngineProcess

pytestmark = pytest.mark.root

BUSYBOX = "/bin/busybox"
IN_USE = "Error response from daemon: remove {}: volume is in use - ["


@pytest.fixture
def volumed(engine: EngineProcess, tmp_path: Path) -> str:
    """An image that declares VOLUME /data and has a tree with every kind of thing in it."""
    archive = tmp_path / "volumed.tar"
    with tarfile.open(archive, "w") as tar:
        tar.add(BUSYBOX, "bin/busybox")
        for name in (
            "sh",
            "ls",
            "cat",
            "stat",
            "true",
            "sleep",
            "mkdir",
            "touch",
            "find",
            "readlink",
            "id",
            "ln",
            "rm",
        ):
            tar.addfile(_entry(f"bin/{name}", tarfile.SYMTYPE, linkname="busybox"))
        tar.addfile(_entry("tmp", tarfile.DIRTYPE, mode=0o1777))
        tar.addfile(_entry("data", tarfile.DIRTYPE, mode=0o2750, uid=999, gid=998))
        tar.addfile(_entry("data/file", mode=0o4755, uid=5, size=5), io.BytesIO(b"hello"))
        tar.addfile(_entry("data/hard", tarfile.LNKTYPE, linkname="data/file"))
        tar.addfile(_entry("data/link", tarfile.SYMTYPE, linkname="/etc/passwd"))
        tar.addfile(_entry("data/fifo", tarfile.FIFOTYPE, mode=0o622))
        tar.addfile(_entry("data/sub", tarfile.DIRTYPE, mode=0o700, uid=7))
        tar.addfile(_entry("data/sub/deep", size=1, mode=0o600), io.BytesIO(b"x"))
        tar.addfile(_entry("alias", tarfile.SYMTYPE, linkname="data"))
        tar.addfile(_entry("escape", tarfile.SYMTYPE, linkname="/../../../../etc"))
        tar.addfile(_entry("plain", size=1), io.BytesIO(b"x"))
    query = "fromSrc=-&repo=volumed&changes=VOLUME%20/data&changes=CMD%20sleep%203600"
    status, body = engine.api.request("POST", f"/images/create?{query}", body=archive, content_type="application/x-tar")
    assert status == 200 and b"error" not in body, body
    return "volumed"


def _entry(name: str, kind: bytes = tarfile.REGTYPE, **values: object) -> tarfile.TarInfo:
    entry = tarfile.TarInfo(name)
    entry.type = kind
    entry.mtime = 1_000_000_000
    for key, value in values.items():
        setattr(entry, key, value)
    return entry


def data_of(engine: EngineProcess, name: str) -> Path:
    return Path(engine.instance.volume_path(name))


# ---- the commands


def test_volume_commands(cli: CommandLine, engine: EngineProcess) -> None:
    assert cli("volume create data").ok() == "data"
    assert cli("volume create data").ok() == "data"  # Docker: no error, the same volume
    assert cli("volume create --label tier=db other2").ok() == "other2"
    assert cli("volume ls").ok() == "DRIVER    VOLUME NAME\nlocal     data\nlocal     other2"
    assert cli("volume ls -q --filter label=tier=db").ok() == "other2"
    assert cli("volume ls -q --filter name=dat").ok() == "data"
    assert cli("volume ls --filter driver=nosuch -q").ok() == ""
    assert cli("volume ls --format", "{{.Name}}: {{.Driver}} {{.Scope}} {{.Labels}} {{.Label `tier`}}").ok() == (
        "data: local local  \nother2: local local tier=db db"
    )
    shown = json.loads(cli("volume inspect data").ok())[0]
    assert shown["Mountpoint"] == f"{engine.instance.root}/volumes/data/_data"
    assert (shown["Name"], shown["Driver"], shown["Scope"], shown["Labels"], shown["Options"]) == (
        "data", "local", "local", None, None,
    )  # fmt: skip
    assert cli("inspect --format", "{{.Mountpoint}}", "data").ok() == shown["Mountpoint"]
    assert cli("volume rm data other2").ok() == "data\nother2"
    cli.refuses(cli("volume rm data"), 1, "Error response from daemon: get data: no such volume")
    assert cli("volume rm -f data").ok() == "data"
    result = cli("volume inspect nosuch")
    assert (result.code, result.out.strip()) == (1, "[]")
    assert "get nosuch: no such volume" in result.err
    assert len(cli("volume create").ok()) == 64


def test_volume_refusals(cli: CommandLine) -> None:
    daemon = "Error response from daemon: create"
    for name, sentence in (
        ("x", "volume name is too short, names should be at least two alphanumeric characters"),
        ("a@b", '"a@b" includes invalid characters for a local volume name, only "[a-zA-Z0-9][a-zA-Z0-9_.-]" are '
         "allowed. If you intended to pass a host directory, use absolute path"),
        ("../up", '"../up" includes invalid characters'),
    ):  # fmt: skip
        result = cli("volume create", name)
        assert result.code == 1 and f"{daemon} {name}: {sentence}" in result.err, result
    result = cli("volume create -d nosuch vv")
    assert f'{daemon} vv: error looking up volume plugin nosuch: plugin "nosuch" not found' in result.err
    result = cli("volume create -o type=nfs -o device=:/x -o o=addr=10.0.0.1 vv")
    assert result.code == 1 and 'volumes of type "nfs" are not supported' in result.err
    assert 'invalid option: "nosuch"' in cli("volume create -o nosuch=1 vv").err
    result = cli("run --rm -v a/b:/x alpine true")
    assert result.code == 125 and 'create a/b: "a/b" includes invalid characters' in result.err
    assert cli("volume ls -q").ok() == ""


def test_volume_in_use_names_the_containers(cli: CommandLine) -> None:
    identifier = cli("run -d --name user1 -v data:/data alpine sleep 3600").ok()
    result = cli("volume rm data")
    cli.refuses(result, 1, IN_USE.format("data") + identifier + "]")
    assert "used by: user1" in result.err
    assert cli("volume rm -f data").code == 1
    assert cli("volume ls -q --filter dangling=true").ok() == ""
    assert cli("ps -q --no-trunc --filter volume=data").ok() == identifier
    assert cli("ps -q --filter volume=/data").ok() and not cli("ps -q --filter volume=/dat").ok()
    cli("rm -f user1").ok()
    assert cli("volume ls -q --filter dangling=true").ok() == "data"
    assert cli("volume rm data").ok() == "data"


# ---- what containers see


def test_data_survives_its_container(cli: CommandLine) -> None:
    cli("run --rm -v data:/data alpine sh -c", "echo kept > /data/file").ok()
    assert cli("run --rm -v data:/elsewhere alpine cat /elsewhere/file").ok() == "kept"
    assert cli("volume ls -q").ok() == "data"
    result = cli("run --rm -v data:/data:ro alpine touch /data/x")
    assert result.code == 1 and "Read-only file system" in result.err


def test_anonymous_volumes_go_with_their_container(cli: CommandLine, volumed: str) -> None:
    cli("run --rm -v /scratch alpine touch /scratch/x").ok()
    cli("run --rm", volumed, "true").ok()
    assert cli("volume ls -q").ok() == ""
    cli("run --name keep -v /scratch -v named:/n alpine true").ok()
    names = cli("inspect -f", "{{range .Mounts}}{{.Name}} {{end}}", "keep").ok().split()
    cli("rm keep").ok()
    assert sorted(cli("volume ls -q").ok().split()) == sorted(names)
    cli("volume prune -f").ok()
    assert cli("volume ls -q").ok() == "named"  # without -a only those that nobody named
    cli("run --name gone -v /scratch -v named:/n alpine true").ok()
    cli("rm -v gone").ok()
    assert cli("volume ls -q").ok() == "named"
    pruned = cli("volume prune -a -f").ok()
    assert pruned.startswith("Deleted Volumes:\nnamed\n\nTotal reclaimed space: ")


def test_copy_up_keeps_owner_mode_links_and_types(cli: CommandLine, engine: EngineProcess, volumed: str) -> None:
    cli("create --name filled -v data:/data", volumed).ok()  # Docker fills at create, not at start
    data = data_of(engine, "data")
    assert (data.stat().st_mode & 0o7777, data.stat().st_uid, data.stat().st_gid) == (0o2750, 999, 998)
    file = (data / "file").stat()
    assert (file.st_mode & 0o7777, file.st_uid, int(file.st_mtime)) == (0o4755, 5, 1_000_000_000)
    assert (data / "hard").stat().st_ino == file.st_ino
    assert os.readlink(data / "link") == "/etc/passwd"
    assert (data / "fifo").is_fifo()
    assert ((data / "sub").stat().st_uid, (data / "sub/deep").read_text()) == (7, "x")
    (data / "file").write_text("changed")
    cli("run --rm -v data:/data", volumed, "touch", "/data/new").ok()
    assert (data / "file").read_text() == "changed"  # never twice, and never over what is there
    cli("rm filled").ok()


def test_copy_up_into_a_volume_that_was_made_before(cli: CommandLine, engine: EngineProcess, volumed: str) -> None:
    cli("volume create early").ok()
    assert cli("run --rm -v early:/data", volumed, "cat", "/data/file").ok() == "hello"
    cli("run -d --name holder -v busy:/x alpine sleep 3600").ok()
    assert cli("run --rm -v busy:/data", volumed, "cat", "/data/file").ok() == "hello"
    assert cli("exec holder cat /x/file").ok() == "hello"  # the same directory, not another of its name
    cli("run --rm -v bare:/data:nocopy", volumed, "true").ok()
    cli("run --rm --mount type=volume,src=bare2,dst=/data,volume-nocopy", volumed, "true").ok()
    assert not list(data_of(engine, "bare").iterdir()) and not list(data_of(engine, "bare2").iterdir())


def test_copy_up_follows_links_inside_the_image_only(cli: CommandLine, engine: EngineProcess, volumed: str) -> None:
    """CVE-2018-15664 and its like: a destination that is a symlink must not copy the host's files into a volume."""
    cli("create --name cc1 -v inside:/alias", volumed).ok()
    assert (data_of(engine, "inside") / "file").read_text() == "hello"
    cli("create --name cc2 -v outside:/escape", volumed).ok()
    assert not list(data_of(engine, "outside").iterdir())
    result = cli("create -v file:/plain", volumed)
    assert result.code != 0
    assert "cannot mount volume over existing file, file exists /plain" in result.err
    assert "file" not in cli("volume ls -q").ok().split()


def test_volumes_from_a_container_that_never_ran(cli: CommandLine, volumed: str) -> None:
    cli("create --name store -v /extra", volumed).ok()
    cli("run --rm --volumes-from store alpine sh -c", "echo more > /extra/file && cat /data/file").ok()
    assert cli("run --rm --volumes-from store:ro alpine cat /extra/file").ok() == "more"
    result = cli("run --rm --volumes-from store:ro alpine touch /data/x")
    assert result.code == 1 and "Read-only file system" in result.err
    result = cli("run --rm --volumes-from nosuch alpine true")
    cli.refuses(result, 125, "Error response from daemon: No such container: nosuch", help_for="run")
    result = cli("run --rm --volumes-from store:zz alpine true")
    assert result.code == 125 and "invalid mode" in result.err
    cli("run -d --name second --volumes-from store alpine sleep 3600").ok()
    cli("rm -v store").ok()
    assert len(cli("volume ls -q").ok().split()) == 2  # in use by the second
    cli("rm -f -v second").ok()
    assert cli("volume ls -q").ok() == ""


def test_mounts_in_inspect_and_ps(cli: CommandLine, engine: EngineProcess, tmp_path: Path) -> None:
    cli(
        f"create --name shown -v data:/a -v {tmp_path}:/b:ro --mount type=tmpfs,dst=/c,tmpfs-size=1m "
        f"--mount type=bind,src={tmp_path},dst=/d,bind-propagation=rslave,readonly "
        "--mount type=volume,src=other,dst=/e,ro alpine"
    ).ok()
    mounts = {m["Destination"]: m for m in json.loads(cli("inspect shown").ok())[0]["Mounts"]}
    assert mounts["/a"] == {
        "Type": "volume", "Name": "data", "Source": f"{engine.instance.root}/volumes/data/_data", "Destination": "/a",
        "Driver": "local", "Mode": "z", "RW": True, "Propagation": "",
    }  # fmt: skip
    assert mounts["/b"] == {
        "Type": "bind", "Source": str(tmp_path), "Destination": "/b", "Mode": "ro", "RW": False,
        "Propagation": "rprivate",
    }  # fmt: skip
    assert mounts["/c"] == {
        "Type": "tmpfs", "Source": "", "Destination": "/c", "Mode": "", "RW": True, "Propagation": "",
    }  # fmt: skip
    assert (mounts["/d"]["Propagation"], mounts["/d"]["RW"], mounts["/e"]["RW"]) == ("rslave", False, False)
    kept = json.loads(cli("inspect shown").ok())[0]["HostConfig"]
    assert kept["Binds"] == ["data:/a", f"{tmp_path}:/b:ro"]
    assert kept["Mounts"][0] == {"Type": "tmpfs", "Target": "/c", "TmpfsOptions": {"SizeBytes": 1 << 20}}
    assert "data" in cli("ps -a --format", "{{.Mounts}}").ok()
    assert cli("ps -a --format", "{{.LocalVolumes}}").ok() == "2"


def test_mount_of_every_type_works(cli: CommandLine, tmp_path: Path) -> None:
    (tmp_path / "x").write_text("from the host")
    (tmp_path / "sub").mkdir()
    assert cli(f"run --rm --mount type=bind,src={tmp_path},dst=/h alpine cat /h/x").ok() == "from the host"
    assert cli(f"run --rm --mount type=bind,src={tmp_path},dst=/h,readonly alpine touch /h/y").code == 1
    sizes = cli("run --rm --mount type=tmpfs,dst=/t,tmpfs-size=2m,tmpfs-mode=700 alpine sh -c", "df -k /t; ls -ld /t")
    assert "2048" in sizes.ok() and "drwx------" in sizes.ok()
    missing = cli(f"run --rm --mount type=bind,src={tmp_path}/nosuch,dst=/h alpine true")
    sentence = (
        'Error response from daemon: invalid mount config for type "bind": bind source path does not exist: '
        f"{tmp_path}/nosuch"
    )
    cli.refuses(missing, 125, sentence, help_for="run")
    cli(f"run --rm -v {tmp_path}/made:/h alpine true").ok()  # -v makes it
    assert (tmp_path / "made").is_dir()


def test_subpath_of_a_volume(cli: CommandLine, engine: EngineProcess) -> None:
    cli("run --rm -v data:/d alpine sh -c", "mkdir -p /d/a/b && echo part > /d/a/b/file && ln -s /etc /d/out").ok()
    mount = "--mount type=volume,src=data,dst=/p,volume-subpath="
    assert cli(f"run --rm {mount}a/b alpine cat /p/file").ok() == "part"
    result = cli(f"run --rm {mount}nosuch alpine true")
    assert result.code in (125, 127) and "cannot access path" in result.err
    result = cli(f"run --rm {mount}../x alpine true")
    assert result.code == 125 and "subpath must be a relative path within the volume" in result.err


def test_subpath_stays_inside_cve_2021_25741(cli: CommandLine, engine: EngineProcess) -> None:
    """Also CVE-2017-1002101 and CVE-2024-23652: a symlink in a volume must not lead a mount out of it."""
    cli(
        "run --rm -v data:/d alpine sh -c", "ln -s /etc /d/out; ln -s ../../../../.. /d/up; ln -s a /d/in; mkdir /d/a"
    ).ok()
    for subpath in ("out", "up", "up/etc"):
        result = cli(f"run --rm --mount type=volume,src=data,dst=/p,volume-subpath={subpath} alpine ls /p")
        assert result.code == 125 and "path concatenation escapes the base directory" in result.err, result
    cli("run --rm --mount type=volume,src=data,dst=/p,volume-subpath=in alpine touch /p/x").ok()
    assert (data_of(engine, "data") / "a/x").exists()


def test_mounts_onto_symlinks_stay_inside_cve_2021_30465(cli: CommandLine, volumed: str) -> None:
    """A destination that is a symlink of the image is mounted inside the root, wherever it points."""
    listed = cli(f"run --rm -v data:/escape {volumed} sh -c", "touch /escape/marker && ls /etc").ok().split()
    assert "marker" in listed
    assert not Path("/etc/marker").exists()


def test_volumes_by_options(cli: CommandLine, tmp_path: Path) -> None:
    (tmp_path / "x").write_text("bound")
    cli(f"volume create -o type=none -o o=bind -o device={tmp_path} bound").ok()
    assert cli("run --rm -v bound:/b alpine cat /b/x").ok() == "bound"
    assert not any("/volumes/bound" in line for line in Path("/proc/self/mountinfo").read_text().splitlines())
    conflict = cli("volume create -o type=none -o o=bind -o device=/srv bound")
    assert conflict.code == 1 and "conflict: volume name must be unique" in conflict.err
    cli("volume rm bound").ok()
    assert (tmp_path / "x").read_text() == "bound"  # the volume goes, what it named stays
    cli("volume create -o type=tmpfs -o device=tmpfs -o o=size=1m,uid=5 memory").ok()
    cli("run -d --name holder -v memory:/m alpine sleep 3600").ok()
    cli("exec holder touch /m/shared").ok()
    assert cli("run --rm -v memory:/m alpine ls /m").ok() == "shared"
    assert cli("exec holder stat -c %u /m").ok() == "5"
    cli("rm -f holder").ok()
    assert cli("run --rm -v memory:/m alpine ls /m").ok() == ""  # it lived as long as its users
    cli("volume create -o type=none -o o=bind -o device=/nosuch/place broken").ok()
    result = cli("run --rm -v broken:/b alpine true")
    assert result.code in (125, 127)
    assert "failed to mount local volume: mount /nosuch/place:" in result.err
    assert "no such file or directory" in result.err


def test_events_of_volumes(cli: CommandLine, engine: EngineProcess) -> None:
    since = engine.api.get("/info")["SystemTime"]
    cli("run --rm --name box -v data:/data:ro alpine true").ok()
    cli("volume rm data").ok()
    until = engine.api.get("/info")["SystemTime"]
    lines = cli(f"events --since {since} --until {until} --filter type=volume --format", "{{json .}}").ok().splitlines()
    events = [json.loads(line) for line in lines]
    assert [event["Action"] for event in events] == ["create", "mount", "unmount", "destroy"]
    assert all(event["Actor"]["ID"] == "data" for event in events)
    attributes = events[1]["Actor"]["Attributes"]
    assert (attributes["destination"], attributes["read/write"], attributes["driver"]) == ("/data", "false", "local")


# ---- what cannot be mounted


@pytest.mark.parametrize("place", ["/proc", "/proc/sys", "/proc/self"])
def test_mounts_over_proc_are_refused_at_create(cli: CommandLine, tmp_path: Path, place: str) -> None:
    result = cli(f"run --rm -v {tmp_path}:{place} alpine true")
    sentence = f'Error response from daemon: "{place}" cannot be mounted because it is inside /proc'
    cli.refuses(result, 125, sentence, help_for="run")


def test_what_the_runtime_cannot_mount_is_the_requests_fault(engine: EngineProcess, tmp_path: Path) -> None:
    cases = [
        ({"Binds": [f"{tmp_path}:/sys/nosuch"]}, {}, "error mounting"),
        (
            {"Binds": [f"{tmp_path}:/etc/passwd"]},
            {},
            "Are you trying to mount a directory onto a file (or vice-versa)?",
        ),
        ({"Binds": [f"{tmp_path}:/bin/sh/x"]}, {}, "not a directory"),
        ({"Tmpfs": {"/sys/nosuch": ""}}, {}, "error mounting"),
        ({}, {"WorkingDir": "/proc/nosuch"}, "mkdir /proc/nosuch"),
        ({}, {"WorkingDir": "/sys/nosuch"}, "mkdir /sys/nosuch"),
        ({}, {"WorkingDir": "/etc/passwd/x"}, "Cannot mkdir: /etc/passwd/x is not a directory"),
        ({}, {"WorkingDir": "/dev/null"}, "mkdir /dev/null"),
    ]
    for host, config, words in cases:
        identifier = engine.api.post("/containers/create", {"Image": "alpine", "HostConfig": host, **config})["Id"]
        status, body = engine.api.request("POST", f"/containers/{identifier}/start")
        assert status == 400 and words in json.loads(body)["message"], (host, config, status, body)
        engine.api.request("DELETE", f"/containers/{identifier}")


def test_places_in_sys_and_dev_that_exist_can_be_mounted(cli: CommandLine, tmp_path: Path) -> None:
    """As monitoring tools do with Docker."""
    cli(f"run --rm -v {tmp_path}:/dev/shm -v /sys:/sys:ro -v {tmp_path}:/dev/mine alpine true").ok()
    cli("run --rm -v /dev:/dev -v /proc:/proc alpine true").ok()


# ---- servers whose data must survive


def test_database_keeps_its_data(cli: CommandLine) -> None:
    ready = "until mysql -e 'select 1' >/dev/null 2>&1; do sleep 0.1; done; "
    cli("run -d --name db1 -v dbdata:/var/lib/mysql mysql:8").ok()
    cli(
        "exec db1 sh -c",
        ready + "mysql -e 'create database shop; create table shop.t (n int); insert shop.t values (42)'",
    ).ok()
    cli("stop db1").ok()
    cli("rm db1").ok()
    cli("run -d --name db2 -v dbdata:/var/lib/mysql mysql:8").ok()
    assert cli("exec db2 sh -c", ready + "mysql -N -e 'select n from shop.t'").ok() == "42"


def test_redis_keeps_its_data(cli: CommandLine) -> None:
    command = "redis:alpine redis-server --appendonly yes --dir /data --protected-mode no"
    cli("volume create cache").ok()
    cli(f"run -d --name cache1 -v cache:/data {command}").ok()
    ready = "until redis-cli ping 2>/dev/null | grep -q PONG; do sleep 0.1; done; "
    assert cli("exec cache1 sh -c", ready + "redis-cli set visits 7").ok() == "OK"
    cli("stop cache1").ok()
    cli("rm cache1").ok()
    cli(f"run -d --name cache2 -v cache:/data {command}").ok()
    until = "until redis-cli get visits 2>/dev/null | grep -x 7; do sleep 0.1; done"
    assert cli("exec cache2 sh -c", until).ok() == "7"


# ---- over restarts of the engine


def test_volumes_outlive_the_engine(
    new_engine: Callable[[], EngineProcess], client_of: Callable[[str, EngineProcess], CommandLine],
    images: Callable[[str], Path],
) -> None:  # fmt: skip
    engine = new_engine()
    engine.load(images("alpine"))
    cli = client_of("docker", engine)
    cli("volume create --label a=1 -o type=tmpfs -o device=tmpfs memory").ok()
    cli("run -d --name box -v data:/data -v memory:/m alpine sleep 3600").ok()
    cli("exec box touch /data/x /m/y").ok()
    engine.kill()
    engine.start()
    assert cli("exec box ls /data /m").ok().split() == ["/data:", "x", "/m:", "y"]
    assert cli("volume inspect -f", "{{.Labels}}", "memory").ok() == "map[a:1]"
    assert cli("volume rm memory").code == 1
    assert cli("run --rm -v memory:/m alpine ls /m").ok() == "y"
    cli("rm -f box").ok()
    assert cli("volume rm memory data").ok() == "memory\ndata"
    assert not any(engine.instance.root in line for line in Path("/proc/self/mountinfo").read_text().splitlines())
    lost = Path(engine.instance.root, "volumes/found/_data")
    engine.stop()
    lost.mkdir(parents=True)
    (lost / "precious").touch()
    engine.start()  # a record that a power cut lost: the data is never thrown away
    assert cli("run --rm -v found:/f alpine ls /f").ok() == "precious"
