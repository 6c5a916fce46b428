"""`cp`, `export` and `diff` with both clients: what is copied where, in Docker's words, and never outside the root."""

from __future__ import annotations

import io
import os
import stat
import tarfile
import threading
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import pytest

from tsunagu.testing.archives import hard_link, member, symlink, tar
from tsunagu.testing.commandline import CommandLine
from tsunagu.testing.engine import EngineProcess

pytestmark = pytest.mark.root


@pytest.fixture(autouse=True)
def clean(engine: EngineProcess) -> Iterator[None]:
    """No container is left to the next test."""
    yield
    assert not engine.remove_everything()


@pytest.fixture(params=["running", "stopped", "created"])
def box(request: pytest.FixtureRequest, cli: CommandLine) -> str:
    """A container in each state in turn; for `cp` they are all the same."""
    if request.param == "created":
        cli("create --name box alpine sleep 1000").ok()
    else:
        cli("run -d --name box alpine sleep 1000").ok()
    if request.param == "stopped":
        cli("stop -t 0 box").ok()
    return "box"


def read(cli: CommandLine, path: str) -> dict[str, tarfile.TarInfo]:
    """What `cp path -` gives."""
    done = cli.start(f"cp {path} -")
    data, error = done.communicate(timeout=60)
    assert done.returncode == 0, error
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        return {m.name: m for m in archive.getmembers()}


def content(cli: CommandLine, path: str, target: Path) -> bytes:
    cli("cp", path, str(target)).ok()
    return target.read_bytes()


def test_files_and_directories_both_ways(cli: CommandLine, box: str, tmp_path: Path) -> None:
    local = tmp_path / "local"
    (local / "sub").mkdir(parents=True)
    (local / "one.txt").write_text("one")
    (local / "sub" / "two").write_bytes(b"two" * 100_000)
    (local / "sub" / "two").chmod(0o4750)
    (local / "link").symlink_to("one.txt")
    os.link(local / "one.txt", local / "same")
    # a file into a directory, under a new name, over an old one
    cli("cp", str(local / "one.txt"), f"{box}:/tmp").ok()
    cli("cp", str(local / "one.txt"), f"{box}:/tmp/renamed").ok()
    cli("cp", str(local / "sub/two"), f"{box}:/tmp/renamed").ok()
    assert content(cli, f"{box}:/tmp/one.txt", tmp_path / "a") == b"one"
    assert content(cli, f"{box}:/tmp/renamed", tmp_path / "a") == b"two" * 100_000
    # a directory: under its own name, as a new one, and only what is in it
    cli("cp", str(local), f"{box}:/tmp").ok()
    cli("cp", str(local), f"{box}:/tmp/fresh").ok()
    cli("cp", f"{local}/.", f"{box}:/mnt").ok()
    for place in ("/tmp/local", "/tmp/fresh", "/mnt"):
        found = read(cli, f"{box}:{place}")
        base = place.rpartition("/")[2]
        assert {f"{base}/one.txt", f"{base}/same", f"{base}/sub/two", f"{base}/link"} <= set(found)
        assert found[f"{base}/link"].linkname == "one.txt"
        assert found[f"{base}/sub/two"].mode == 0o4750
        assert {found[f"{base}/one.txt"].type, found[f"{base}/same"].type} == {tarfile.REGTYPE, tarfile.LNKTYPE}
    # and back: into a directory, as a new one, only what is in it
    (tmp_path / "there").mkdir()
    cli("cp", f"{box}:/tmp/local", str(tmp_path / "there")).ok()
    cli("cp", f"{box}:/tmp/local", str(tmp_path / "new")).ok()
    (tmp_path / "inside").mkdir()
    cli("cp", f"{box}:/tmp/local/.", str(tmp_path / "inside")).ok()
    for there in (tmp_path / "there/local", tmp_path / "new", tmp_path / "inside"):
        assert sorted(os.listdir(there)) == ["link", "one.txt", "same", "sub"]
        assert (there / "sub/two").read_bytes() == b"two" * 100_000
        assert stat.S_IMODE((there / "sub/two").stat().st_mode) == 0o4750
        assert os.readlink(there / "link") == "one.txt"
        assert (there / "one.txt").stat().st_ino == (there / "same").stat().st_ino


def test_archives_on_the_standard_streams(cli: CommandLine, box: str) -> None:
    data = tar(member("a/", mode=0o750), member("a/b", b"inside", mode=0o640, uid=123, gid=45))
    assert cli(f"cp - {box}:/mnt", stdin=data).code == 0
    found = read(cli, f"{box}:/mnt/a")
    assert set(found) == {"a", "a/b"}
    assert (found["a/b"].uid, found["a/b"].gid, found["a/b"].mode) == (123, 45, 0o640)
    assert set(read(cli, f"{box}:/mnt/a/b")) == {"b"}


def test_links_are_copied_as_links_unless_asked(cli: CommandLine, tmp_path: Path) -> None:
    cli("run -d --name box alpine sh -c", "echo here > /mnt/file; ln -s file /mnt/link; ln -s /mnt /dir; sleep 99").ok()
    cli("cp", "box:/mnt/link", str(tmp_path / "kept")).ok()
    assert os.readlink(tmp_path / "kept") == "file"
    cli("cp -L", "box:/mnt/link", str(tmp_path / "followed")).ok()
    assert (tmp_path / "followed").read_text() == "here\n"
    # a link to a directory as the destination is followed
    (tmp_path / "x").write_text("x")
    cli("cp", str(tmp_path / "x"), "box:/dir").ok()
    assert cli("exec box cat /mnt/x").ok() == "x"
    (tmp_path / "y").symlink_to("x")
    cli("cp -L", str(tmp_path / "y"), "box:/mnt").ok()
    assert cli("exec box cat /mnt/y").ok() == "x"


@pytest.mark.parametrize(
    ("command", "sentence"),
    [
        ("cp box:/nope -", "Error response from daemon: Could not find the file /nope in container box"),
        ("cp {here}/f box:/nope/x", "Error response from daemon: Could not find the file /nope in container box"),
        ("cp nosuch:/etc -", "Error response from daemon: No such container: nosuch"),
        ("cp {here}/f nosuch:/etc", "Error response from daemon: No such container: nosuch"),
        ("cp box:/etc box:/tmp", "copying between containers is not supported"),
        ("cp {here}/f {here}/g", "must specify at least one container source"),
        ("cp '' box:/tmp", "source can not be empty"),
        ("cp box:/tmp ''", "destination can not be empty"),
        ("cp {here}/nope box:/tmp", "lstat {here}/nope: no such file or directory"),
        ("cp {here} box:/etc/passwd", "cannot copy directory"),
        ("cp {here}/f box:/tmp/nope/", "no such directory"),
        ("cp - box:/etc/passwd", 'destination "box:/etc/passwd" must be a directory'),
        ("cp box:/etc {here}/nope/x", 'invalid output path: directory "{here}/nope" does not exist'),
        (
            "cp {here}/f box:/mnt/clash",
            'Error response from daemon: cannot overwrite directory "/mnt/clash/f" with non-directory "/mnt/clash"',
        ),
    ],
)
def test_refusals(cli: CommandLine, tmp_path: Path, command: str, sentence: str) -> None:
    (tmp_path / "f").write_text("f")
    cli("run -d --name box alpine sleep 99").ok()
    cli("exec box mkdir -p /mnt/clash/f").ok()
    result = cli(command.format(here=tmp_path))
    if "Error response" in sentence:
        cli.refuses(result, 1, sentence.format(here=tmp_path))
    else:  # Docker's client may log about the archive that it has begun to make
        assert result.code == 1
        assert sentence.format(here=tmp_path) in result.err.splitlines()


def test_read_only_places(cli: CommandLine, tmp_path: Path) -> None:
    for name in ("ro", "rw"):
        (tmp_path / name).mkdir()
    (tmp_path / "f").write_text("f")
    cli(f"run -d --name box --read-only -v {tmp_path}/ro:/ro:ro -v {tmp_path}/rw:/rw alpine sleep 99").ok()
    words = "Error response from daemon: container rootfs is marked read-only"
    cli.refuses(cli(f"cp {tmp_path}/f box:/tmp"), 1, words)
    words = "Error response from daemon: mounted volume is marked read-only"
    cli.refuses(cli(f"cp {tmp_path}/f box:/ro"), 1, words)
    cli(f"cp {tmp_path}/f box:/rw").ok()
    assert (tmp_path / "rw/f").read_text() == "f"
    assert set(read(cli, "box:/rw")) == {"rw", "rw/f"}
    assert os.listdir(tmp_path / "ro") == []


def test_owner_with_and_without_archive_mode(cli: CommandLine, tmp_path: Path) -> None:
    (tmp_path / "f").write_text("f")
    os.chown(tmp_path / "f", 1234, 1235)
    cli("run -d --name box -u 77:88 alpine sleep 99").ok()
    cli(f"cp {tmp_path}/f box:/mnt/plain").ok()
    cli(f"cp -a {tmp_path}/f box:/mnt/own").ok()
    found = read(cli, "box:/mnt")
    assert (found["mnt/plain"].uid, found["mnt/plain"].gid) == (1234, 1235)
    assert (found["mnt/own"].uid, found["mnt/own"].gid) == (77, 88)


def test_success_is_told_on_a_terminal_only(cli: CommandLine, tmp_path: Path) -> None:
    (tmp_path / "f").write_text("f")
    cli("create --name box alpine").ok()
    result = cli(f"cp {tmp_path}/f box:/mnt")
    assert (result.code, result.out, result.err) == (0, "", "")
    with cli.terminal(f"cp {tmp_path}/f box:/mnt") as terminal:
        terminal.expect("Successfully copied 2.05kB to box:/mnt")
        assert terminal.wait() == 0
    with cli.terminal(f"cp -q {tmp_path}/f box:/mnt") as terminal:
        assert terminal.wait() == 0
    assert "copied" not in terminal.output


def test_what_is_copied_at_a_start_is_seen_and_survives(cli: CommandLine, tmp_path: Path) -> None:
    (tmp_path / "greeting").write_text("hello from before\n")
    cli("create --name box alpine cat /mnt/greeting").ok()
    cli(f"cp {tmp_path}/greeting box:/mnt").ok()
    assert cli("start -a box").ok() == "hello from before"
    assert content(cli, "box:/mnt/greeting", tmp_path / "back") == b"hello from before\n"


# ---- nothing outside the container's root


def put(engine: EngineProcess, name: str, path: str, data: bytes, more: str = "") -> tuple[int, bytes]:
    target = f"/containers/{name}/archive?path={quote(path)}{more}"
    return engine.api.request("PUT", target, body=data, content_type="application/x-tar")


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    path = tmp_path / "outside"
    path.mkdir()
    (path / "secret").write_text("of the host")
    path.chmod(0o755)
    return path


def test_cve_2018_15664_links_lead_nowhere_outside(cli: CommandLine, outside: Path, engine: EngineProcess) -> None:
    """A link to an absolute path of the host, exchanged for a directory again and again while cp runs."""
    cli("run -d --name box alpine sleep 1000").ok()
    cli(
        "exec box sh -c", f"mkdir -p {outside} /mnt/real /mnt/d; echo inner > /mnt/real/secret; ln -s {outside} /mnt/l"
    ).ok()
    cli("exec box sh -c", f"echo inside > {outside}/secret").ok()
    assert read(cli, "box:/mnt/l/secret")["secret"].size == len("inside\n")
    swap = cli.start(
        "exec box sh -c", f"while :; do rm -rf /mnt/d; mkdir /mnt/d; rmdir /mnt/d; ln -s {outside} /mnt/d; done"
    )
    try:
        for _ in range(60):
            _, data = engine.api.request("GET", "/containers/box/archive?path=/mnt/d/secret")
            assert b"of the host" not in data
            put(engine, "box", "/mnt/d", tar(member("secret", b"overwritten")))
            put(engine, "box", "/mnt", tar(member("d/secret", b"overwritten"), member("d/x/y", b"made")))
    finally:
        swap.kill()
        swap.wait()
    assert os.listdir(outside) == ["secret"] and (outside / "secret").read_text() == "of the host"


def test_cve_2019_14271_nothing_of_the_container_is_loaded(engine: EngineProcess, cli: CommandLine) -> None:
    """A container whose libraries and programs are all traps: cp reads and writes without them, as the host's root."""
    cli("create --name box alpine").ok()
    trap = b"#!/bin/sh\ntouch /tmp/trapped\n"
    traps = [
        member(f"{d}/{n}", trap, mode=0o755)
        for d in ("bin", "usr/bin", "lib")
        for n in ("gzip", "xz", "tar", "getent", "unpigz")
    ]
    libraries = [member(f"lib/x86_64-linux-gnu/{n}", b"\x7fELF junk") for n in ("libnss_files.so.2", "libc.so.6")]
    assert put(engine, "box", "/", tar(*traps, *libraries))[0] == 200
    import gzip
    import lzma

    for data in (gzip.compress(tar(member("packed", b"1"))), lzma.compress(tar(member("packed2", b"2")))):
        assert put(engine, "box", "/mnt", data, "&copyUIDGID=1")[0] == 200
    assert {"mnt/packed", "mnt/packed2"} <= set(read(cli, "box:/mnt"))
    assert not Path("/tmp/trapped").exists()


def test_cve_2026_41567_no_program_of_the_container_runs_on_put(engine: EngineProcess, cli: CommandLine) -> None:
    """Docker looked a user up with the container's own getent, outside of the container."""
    cli("create --name box -u nobody alpine").ok()
    assert (
        put(engine, "box", "/", tar(member("usr/bin/getent", b"#!/bin/sh\ntouch /tmp/trapped\n", mode=0o755)))[0] == 200
    )
    assert put(engine, "box", "/mnt", tar(member("f", b"x")), "&copyUIDGID=1")[0] == 200
    assert read(cli, "box:/mnt/f")["f"].uid == 65534
    assert not Path("/tmp/trapped").exists()


@pytest.mark.parametrize("kind", ["dots", "root-dots", "link", "long-link", "hard", "hard-by-link"])
def test_cve_2021_41089_archives_stay_inside(engine: EngineProcess, cli: CommandLine, outside: Path, kind: str) -> None:
    """Whatever an archive names, the host's files and their modes stay as they are."""
    data = {
        "dots": tar(member("../../escape", b"x")),
        "root-dots": tar(member("/../../../escape", b"x")),
        "link": tar(symlink("l", str(outside)), member("l/escape", b"x"), member("l/", mode=0o777)),
        "long-link": tar(symlink("l", f"../../../../../../../..{outside}"), member("l/escape", b"x")),
        "hard": tar(hard_link("h", f"{outside}/secret")),
        "hard-by-link": tar(symlink("l", str(outside)), hard_link("h", "l/secret")),
    }[kind]
    before = stat.S_IMODE(outside.stat().st_mode), (outside / "secret").stat().st_nlink
    cli("create --name box alpine").ok()
    put(engine, "box", "/mnt", data)
    assert os.listdir(outside) == ["secret"]
    assert (stat.S_IMODE(outside.stat().st_mode), (outside / "secret").stat().st_nlink) == before
    assert not Path("/escape").exists() and not (outside.parent / "escape").exists()


def test_gigabytes_need_little_memory(engine: EngineProcess, docker: CommandLine, tmp_path: Path) -> None:
    """A body and an answer of 1 GiB each: the engine's memory does not grow with them."""
    docker("run -d --name box alpine sleep 1000").ok()
    size = 1 << 30
    with (tmp_path / "big").open("wb") as file:
        file.truncate(size)
    before = peak(engine)
    docker("cp", str(tmp_path / "big"), "box:/mnt/big").ok()
    assert docker("exec box stat -c %s /mnt/big").ok() == str(size)
    assert peak(engine) - before < 48 << 20
    count = docker.shell("docker cp box:/mnt/big - | wc -c").ok()
    assert int(count) == size + 512 + 1024 or int(count) > size
    assert peak(engine) - before < 48 << 20
    docker("exec box rm /mnt/big").ok()


def peak(engine: EngineProcess) -> int:
    """The most memory that the engine has had, in bytes."""
    with open(f"/proc/{engine.pid}/status") as file:
        return next(int(line.split()[1]) << 10 for line in file if line.startswith("VmHWM"))


def test_slow_reader_holds_nobody_up(engine: EngineProcess, docker: CommandLine) -> None:
    """A client that stops in the middle of an export; the container still stops, starts and goes."""
    docker("run -d --name box nginx sleep 1000").ok()
    reader = docker.start("export box")
    assert reader.stdout is not None
    reader.stdout.read(1 << 16)
    try:
        docker("stop -t 0 box", timeout=20).ok()
        docker("start box", timeout=20).ok()
        docker("rm -f box", timeout=20).ok()
    finally:
        reader.kill()
        reader.communicate()


def test_many_at_once(engine: EngineProcess, cli: CommandLine, tmp_path: Path) -> None:
    cli("run -d --name box alpine sleep 1000").ok()
    errors: list[str] = []

    def work(number: int) -> None:
        for turn in range(5):
            status, body = put(engine, "box", "/mnt", tar(member(f"{number}-{turn}", b"x" * 1000)))
            if status != 200:
                errors.append(f"{status} {body!r}")

    threads = [threading.Thread(target=work, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    cli("stop -t 0 box").ok()
    cli("start box").ok()
    for thread in threads:
        thread.join()
    assert not errors
    assert len(cli("exec box ls /mnt").ok().split()) == 40


# ---- export and diff


def test_export(cli: CommandLine, tmp_path: Path) -> None:
    (tmp_path / "mounted").mkdir()
    (tmp_path / "mounted/inner").write_text("not the container's")
    cli(
        f"run --name box -v {tmp_path}/mounted:/media alpine sh -c", "echo made > /made; ln /made /also; rm /etc/group"
    ).ok()
    cli(f"export -o {tmp_path}/out.tar box").ok()
    with tarfile.open(tmp_path / "out.tar") as archive:
        names = {m.name: m for m in archive.getmembers()}
        assert archive.extractfile(names["also"]).read() == b"made\n"  # type: ignore[union-attr]
    assert "etc/passwd" in names and "etc/group" not in names and "media/inner" not in names and "media/" not in names
    assert names["made"].islnk() != names["also"].islnk()
    assert cli.shell(f"docker import {tmp_path}/out.tar made/exported").code == 0
    assert cli("run --rm made/exported cat /made").ok() == "made"
    cli("rmi -f made/exported").ok()
    cli.refuses(cli("export nosuch"), 1, "Error response from daemon: No such container: nosuch")


def test_diff(cli: CommandLine) -> None:
    cli("run -d --name box alpine sleep 1000").ok()
    assert cli("diff box").ok() == ""  # the places of mounts that a start makes are no change
    cli("exec box sh -c", "echo x >> /etc/passwd; rm /etc/group; mkdir -p /mnt/new/deep; touch /mnt/new/deep/f").ok()
    cli("exec box sh -c", "chmod 700 /home; touch /etc/os-release.new").ok()
    assert cli("diff box").ok().splitlines() == [
        "C /etc",
        "D /etc/group",
        "A /etc/os-release.new",
        "C /etc/passwd",
        "C /home",
        "C /mnt",
        "A /mnt/new",
        "A /mnt/new/deep",
        "A /mnt/new/deep/f",
    ]
    cli("stop -t 0 box").ok()
    assert len(cli("diff box").ok().splitlines()) == 9
    cli.refuses(cli("diff nosuch"), 1, "Error response from daemon: No such container: nosuch")
