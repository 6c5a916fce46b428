"""kernel.copyup and kernel.volumes: trees copied whole, nothing followed, nothing deleted that is not theirs."""

from __future__ import annotations

import asyncio
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tsunagu.kernel.copyup import copy_tree
from tsunagu.kernel.volumes import VolumeFiles
from tsunagu.model.errors import InvalidParameter, KernelFailure, NotFound
from tsunagu.model.instance import Instance

pytestmark = pytest.mark.root


def copy(source: Path, target: Path) -> None:
    descriptors = [os.open(path, os.O_PATH | os.O_DIRECTORY) for path in (source, target)]
    try:
        copy_tree(*descriptors)
    finally:
        for descriptor in descriptors:
            os.close(descriptor)


@pytest.fixture
def pair(tmp_path: Path) -> tuple[Path, Path]:
    (tmp_path / "source").mkdir()
    (tmp_path / "target").mkdir()
    return tmp_path / "source", tmp_path / "target"


def test_everything_comes_along(pair: tuple[Path, Path]) -> None:
    source, target = pair
    (source / "big").write_bytes(os.urandom(3 << 20))
    (source / "file").write_text("x")
    os.chown(source / "file", 12, 34)
    os.chmod(source / "file", 0o6751)
    os.setxattr(source / "file", "user.note", b"kept")
    os.link(source / "file", source / "hard")
    os.symlink("/etc/shadow", source / "link")
    os.lchown(source / "link", 7, 8)
    os.mkfifo(source / "fifo")
    os.mknod(source / "null", 0o020640, os.makedev(1, 3))
    (source / "sub/deeper").mkdir(parents=True)
    os.link(source / "file", source / "sub/deeper/hard")
    os.utime(source / "sub", (1, 2))
    os.chmod(source, 0o1770)
    copy(source, target)
    assert (target / "big").read_bytes() == (source / "big").read_bytes()
    found = (target / "file").stat()
    assert (found.st_uid, found.st_gid, found.st_mode & 0o7777, found.st_nlink) == (12, 34, 0o6751, 3)
    assert os.getxattr(target / "file", "user.note") == b"kept"
    assert (target / "sub/deeper/hard").stat().st_ino == found.st_ino
    assert os.readlink(target / "link") == "/etc/shadow" and (target / "link").lstat().st_gid == 8
    assert (target / "fifo").is_fifo() and (target / "null").stat().st_rdev == os.makedev(1, 3)
    assert ((target / "sub").stat().st_mtime, target.stat().st_mode & 0o7777) == (2, 0o1770)


def test_a_tree_deeper_than_any_image_is_refused_and_no_descriptor_stays_open(pair: tuple[Path, Path]) -> None:
    source, target = pair
    here = os.getcwd()
    os.chdir(source)
    try:
        for _ in range(1100):
            os.mkdir("d")
            os.chdir("d")
    finally:
        os.chdir(here)
    before = len(os.listdir("/proc/self/fd"))
    with pytest.raises(OSError, match="nested too deeply"):
        copy(source, target)
    assert len(os.listdir("/proc/self/fd")) == before
    for path in pair:
        subprocess.run(["rm", "-rf", str(path)], check=True)


@pytest.fixture
def files(tmp_path: Path) -> Iterator[VolumeFiles]:
    instance = Instance(root=str(tmp_path / "root"), run_dir=str(tmp_path / "run"), socket=str(tmp_path / "s"))
    os.makedirs(instance.run_dir)
    made = VolumeFiles(instance)
    made.open()
    yield made
    made._cleaner.shutdown()


def make(files: VolumeFiles, name: str) -> Path:
    data = files.stage(name)
    files.publish(name)
    return Path(data.replace("/.new-", "/"))


async def _remove(files: VolumeFiles, name: str) -> None:
    await files.remove(name)


def test_data_is_out_of_reach_of_the_hosts_users_cve_2021_41091(files: VolumeFiles, tmp_path: Path) -> None:
    """A set-user-id file in a volume must not be a way to root for users of the host."""
    data = make(files, "data")
    assert data.stat().st_mode & 0o777 == 0o755
    assert (tmp_path / "root/volumes").stat().st_mode & 0o777 == 0o700


def test_subpaths_stay_below_the_volume(files: VolumeFiles, tmp_path: Path) -> None:
    """CVE-2017-1002101, CVE-2021-25741, CVE-2024-23652: neither links nor dots lead out."""
    data = make(files, "data")
    (data / "inside").mkdir()
    os.symlink("inside", data / "good")
    os.symlink("/etc", data / "absolute")
    os.symlink("../../..", data / "relative")
    os.symlink("/proc/self/root", data / "magic")
    os.close(files.open_data("data", "good"))
    for subpath in ("absolute", "relative", "magic", "relative/etc", "../../x"):
        with pytest.raises(InvalidParameter, match="escapes the base directory"):
            files.open_data("data", subpath)
    with pytest.raises(NotFound, match="cannot access path"):
        files.open_data("data", "nosuch")


def test_a_part_is_the_one_that_was_checked_whatever_takes_its_place(files: VolumeFiles) -> None:
    """The race of CVE-2021-25741: the directory becomes a symlink between the check and the runtime's mount."""
    data = make(files, "data")
    (data / "part").mkdir()
    (data / "part/right").touch()
    path = files.mount_part("data", "part", "c-0")
    try:
        (data / "part").rename(data / "moved")
        os.symlink("/etc", data / "part")
        assert os.listdir(path) == ["right"]
    finally:
        files.unmount_part("c-0")
    assert not os.path.exists(path)


def test_a_file_can_be_a_part(files: VolumeFiles) -> None:
    (make(files, "data") / "file").write_text("text")
    path = files.mount_part("data", "file", "c-1")
    assert Path(path).read_text() == "text"
    files.unmount_part("c-1")
    assert not os.path.exists(path)


@pytest.mark.parametrize("place", ["data/_data", "data/_data/below"])
def test_what_is_mounted_below_a_volume_is_never_deleted(files: VolumeFiles, tmp_path: Path, place: str) -> None:
    data = make(files, "data")
    (tmp_path / "precious").mkdir()
    (tmp_path / "precious/file").touch()
    mounted = data.parent.parent / place
    mounted.mkdir(exist_ok=True)
    subprocess.run(["mount", "--bind", str(tmp_path / "precious"), str(mounted)], check=True)
    try:
        if place.endswith("below"):
            with pytest.raises(KernelFailure, match="something is mounted on"):
                asyncio.run(_remove(files, "data"))
        else:
            asyncio.run(_remove(files, "data"))  # its own place: unmounted first
            files._cleaner.shutdown()
    finally:
        subprocess.run(["umount", str(mounted)], check=False, capture_output=True)
    assert (tmp_path / "precious/file").exists()


def test_what_was_being_made_or_removed_is_swept(files: VolumeFiles, tmp_path: Path) -> None:
    make(files, "whole")
    files.stage("half")
    (tmp_path / "root/volumes/.gone-1").mkdir()
    files.open()
    assert files.stored() == ({"whole"}, {"half"})
    files.unstage("half")
    files._cleaner.shutdown()
    assert sorted(os.listdir(tmp_path / "root/volumes")) == ["whole"]
