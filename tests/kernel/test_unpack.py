"""A layer's tar becomes what overlayfs reads, exactly; nothing in it reaches outside its directory."""

from __future__ import annotations

import io
import os
import stat
import struct
import subprocess
import tarfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tsunagu.kernel.layers import Draft, Layers
from tsunagu.kernel.trees import remove_tree
from tsunagu.model.errors import InvalidParameter
from tsunagu.testing.archives import digest, hard_link, member, symlink, tar

pytestmark = pytest.mark.root

CAPABILITY = struct.pack("<IIIII", 0x02000001, 1 << 10, 0, 0, 0)  # cap_net_bind_service+ep


class Box:
    """A layer store in a directory with something outside that must never change."""

    def __init__(self, path: Path) -> None:
        self.root = path / "root"
        self.outside = path / "outside"
        self.outside.mkdir()
        (self.outside / "precious").write_text("precious")
        (self.root / "tmp").mkdir(parents=True)
        self.layers = Layers(str(self.root))
        self.layers.open()

    def unpack(self, data: bytes) -> tuple[Path, Draft]:
        draft = self.layers.draft(lambda: io.BytesIO(data), diff_id=digest(data), what="test")
        return Path(draft.path) / "diff", draft

    def refuse(self, data: bytes, sentence: str) -> None:
        with pytest.raises(InvalidParameter) as caught:
            self.layers.draft(lambda: io.BytesIO(data), diff_id=digest(data), what="test")
        assert sentence in caught.value.message
        assert os.listdir(self.root / "tmp") == []
        self.check_outside()

    def check_outside(self) -> None:
        assert os.listdir(self.outside) == ["precious"] and (self.outside / "precious").read_text() == "precious"

    def add(self, *layers: bytes) -> str:
        """Put layers in place upon each other; returns the directory of the last."""
        below: list[str] = []
        for data in layers:
            _, draft = self.unpack(data)
            placed = self.layers.place(draft, below)
            assert b"".join(self.layers.tar(placed.chain_id)) == data
            below.append(placed.diff_id)
        return f"{self.layers.path}/{self.layers.directory(placed.chain_id)}/diff"


@pytest.fixture
def box(tmp_path: Path) -> Box:
    return Box(tmp_path)


def test_everything_a_layer_may_hold(box: Box) -> None:
    pax: dict[str, Any] = {"pax_headers": {"SCHILY.xattr.user.note": "hello", "mtime": "1700000000.123456789"}}
    data = tar(
        member("./", mode=0o711, uid=5, mtime=1_600_000_000),
        member("dir/", mode=0o1777, uid=1000, gid=1001, mtime=1_500_000_000),
        member("dir/file", b"content" * 100_000, mode=0o6755, uid=4_000_000_000, gid=7, **pax),
        hard_link("dir/same", "dir/file"),
        hard_link("/top", "./dir/../dir/file"),
        symlink("dir/link", "/etc/passwd"),
        member("fifo", type=tarfile.FIFOTYPE, mode=0o600),
        member("null", type=tarfile.CHRTYPE, devmajor=1, devminor=3, mode=0o666),
        member("disk", type=tarfile.BLKTYPE, devmajor=8, devminor=1, mode=0o660, gid=6),
        member("ünï/" + "n" * 200 + "/" + "m" * 100, b"long"),
        member("empty", b""),
        member(".wh.gone"),
        member("dir/.wh..wh..opq"),
        member(".wh..wh.plnk/1.2", b"aufs"),
    )
    path, draft = box.unpack(data)
    found = {name: os.lstat(path / name) for name in ("dir", "dir/file", "fifo", "null", "disk", "dir/link")}
    assert os.stat(path).st_mode == stat.S_IFDIR | 0o711 and os.stat(path).st_uid == 5
    assert int(os.stat(path).st_mtime) == 1_600_000_000 and int(found["dir"].st_mtime) == 1_500_000_000
    assert (found["dir"].st_mode & 0o7777, found["dir"].st_uid, found["dir"].st_gid) == (0o1777, 1000, 1001)
    file = found["dir/file"]
    assert (file.st_mode & 0o7777, file.st_uid, file.st_gid) == (0o6755, 4_000_000_000, 7)
    assert file.st_mtime_ns == 1_700_000_000_123_456_789 and os.getxattr(path / "dir/file", "user.note") == b"hello"
    assert file.st_nlink == 3 and os.stat(path / "top").st_ino == file.st_ino
    assert os.readlink(path / "dir/link") == "/etc/passwd"
    assert stat.S_ISFIFO(found["fifo"].st_mode) and found["fifo"].st_mode & 0o777 == 0o600
    assert stat.S_ISCHR(found["null"].st_mode) and found["null"].st_rdev == os.makedev(1, 3)
    assert found["null"].st_mode & 0o777 == 0o666 and stat.S_ISBLK(found["disk"].st_mode) and found["disk"].st_gid == 6
    assert (path / "ünï" / ("n" * 200) / ("m" * 100)).read_bytes() == b"long"
    gone = os.lstat(path / "gone")
    assert stat.S_ISCHR(gone.st_mode) and gone.st_rdev == 0
    assert os.getxattr(path / "dir", "trusted.overlay.opaque") == b"y"
    assert sorted(os.listdir(path)) == sorted(["dir", "top", "fifo", "null", "disk", "ünï", "empty", "gone"])
    assert (draft.made.size, draft.made.devices, draft.made.is_exact) == (700_004, 2, True)
    box.layers.discard(draft)


def test_capabilities_survive_the_change_of_owner(box: Box) -> None:
    headers = {
        "SCHILY.xattr.security.capability": CAPABILITY.decode("ascii"),
        "SCHILY.xattr.user.binary": b"\xff\0=\n".decode("utf-8", "surrogateescape"),
    }
    path, draft = box.unpack(tar(member("ping", b"x", uid=7, mode=0o755, pax_headers=headers)))
    assert os.getxattr(path / "ping", "security.capability") == CAPABILITY and os.stat(path / "ping").st_uid == 7
    assert os.getxattr(path / "ping", "user.binary") == b"\xff\0=\n"
    box.layers.discard(draft)


def test_attributes_that_would_steer_overlayfs_are_left_out(box: Box) -> None:
    headers = {
        "SCHILY.xattr.trusted.overlay.redirect": "/etc",
        "SCHILY.xattr.trusted.overlay.opaque": "y",
        "SCHILY.xattr.user.overlay.opaque": "y",
        "SCHILY.xattr.security.selinux": "label",
        "SCHILY.xattr.user.ok": "1",
    }
    path, draft = box.unpack(tar(member("d/", pax_headers=headers)))
    assert os.listxattr(path / "d") == ["user.ok"]
    box.layers.discard(draft)


@pytest.mark.parametrize(
    ("members", "sentence"),
    [
        ([member("../evil", b"x")], "entry ../evil: its path leads out of the image"),
        ([member("a/../../evil", b"x")], "leads out"),
        ([member("/../evil", b"x")], "leads out"),
        ([member("..")], "leads out"),
        ([hard_link("l", "../outside/precious")], "leads out"),
        ([hard_link("l", "/etc/passwd")], "which this layer does not hold"),
        ([symlink("s", "OUTSIDE"), hard_link("l", "s/precious")], "which this layer does not hold"),
        ([member("d/"), hard_link("l", "d")], "a hard link to a directory"),
        ([member("d/"), hard_link("l", ".")], "a hard link to a directory"),
        ([member("f", b"x"), member("f/x", b"y")], "a file stands where it needs a directory"),
        ([symlink("a", "b"), symlink("b", "a"), member("a/x", b"y")], "its path runs in circles"),
        ([symlink("s", "nowhere"), member("s/x", b"y")], "is a symbolic link to nothing"),
        ([symlink("s", "OUTSIDE"), member("s/x", b"y")], "is a symbolic link to nothing"),
        ([symlink("s", "../../../../../../OUTSIDE"), member("s/x", b"y")], "is a symbolic link to nothing"),
        ([member("n" * 256, b"x")], "its name is too long"),
        ([member(".wh.")], "a whiteout of nothing"),
        ([member(".wh..")], "a whiteout of nothing"),
        ([member("d/"), member("d/.wh...")], "a whiteout of nothing"),
        ([member(".", b"x")], "the root of a layer must be a directory"),
        ([member("x/" * 2200 + "y", b"x")], "a name of 4401 bytes"),
        ([member("dev", type=tarfile.CHRTYPE, devmajor=5000, devminor=1)], "device number does not exist"),
        ([symlink("s", "")], "a symbolic link to nothing"),
    ],
)
def test_what_is_refused_leaves_nothing(box: Box, members: list[Any], sentence: str) -> None:
    for info, _ in members:
        info.linkname = info.linkname.replace("OUTSIDE", str(box.outside))
    box.refuse(tar(*members), sentence)


def test_absolute_symlinks_stay_inside(box: Box) -> None:
    """`/lib` of the archive is the layer's own, as it would be in the container."""
    data = tar(
        member("usr/lib/"), symlink("lib", "/usr/lib"), symlink("up", "../../../../usr"),
        member("lib/a", b"a"), member("up/lib/b", b"b"), member("/lib//./c", b"c"),
        member("lib/sub/", mode=0o700, mtime=5),
    )  # fmt: skip
    path, draft = box.unpack(data)
    assert (
        sorted(os.listdir(path / "usr/lib")) == ["a", "b", "c", "sub"] and os.stat(path / "usr/lib/sub").st_mtime == 5
    )
    assert draft.made.is_exact
    box.layers.discard(draft)
    box.check_outside()


def test_the_last_entry_wins(box: Box) -> None:
    outside = str(box.outside)
    data = tar(
        member("f", b"first"), member("f", b"second"),
        member("d/"), member("d/x", b"x"), symlink("d", outside),
        symlink("s", outside), member("s/"), member("s/y", b"y"),
        symlink("t", outside + "/precious"), member("t", b"own"),
        member("k/", mode=0o700), member("k/in", b"in"), member("k/", mode=0o750),
        member("p", type=tarfile.FIFOTYPE), member("p", b"file"),
    )  # fmt: skip
    directory = Path(box.add(data))
    assert (directory / "f").read_bytes() == b"second" and os.readlink(directory / "d") == outside
    assert (directory / "s/y").read_bytes() == b"y" and (directory / "t").read_bytes() == b"own"
    assert os.stat(directory / "k").st_mode & 0o777 == 0o750 and (directory / "k/in").read_bytes() == b"in"
    assert (directory / "p").read_bytes() == b"file"
    box.check_outside()


def test_whiteouts_hide_lower_layers_only(box: Box) -> None:
    data = tar(
        member("kept", b"x"), member(".wh.kept"),
        member("d/"), member("d/f", b"f"), member(".wh.d"),
        member(".wh.e"), member("e/"), member("e/f", b"f"),
        member(".wh.g"), member("g", b"g"),
        member(".wh.h"), member("h/f", b"f"),
    )  # fmt: skip
    path, draft = box.unpack(data)
    assert (path / "kept").read_bytes() == b"x" and (path / "g").read_bytes() == b"g"
    for name in ("d", "e", "h"):
        assert (path / name / "f").read_bytes() == b"f"
        assert os.getxattr(path / name, "trusted.overlay.opaque") == b"y"
    box.layers.discard(draft)


def test_directories_that_a_layer_only_implies_stay_as_they_are_below(box: Box) -> None:
    low = tar(
        member("./", mode=0o751),
        member("etc/", mode=0o700, uid=33, gid=34, mtime=1_400_000_000, pax_headers={"SCHILY.xattr.user.k": "v"}),
        member("etc/deep/", mode=0o711),
        member("gone/", mode=0o700),
        member("var/", mode=0o700),
        member("var/lib/", mode=0o700),
    )
    middle = tar(member("unrelated", b""), member(".wh.gone"), member("var/", mode=0o733), member("var/.wh..wh..opq"))
    top = tar(member("etc/deep/x", b"x"), member("gone/y", b"y"), member("var/lib/z", b"z"), member("new/w", b"w"))
    path = Path(box.add(low, middle, top))
    modes = {
        name: os.stat(path / name).st_mode & 0o777 for name in ("", "etc", "etc/deep", "gone", "var", "var/lib", "new")
    }
    assert modes == {
        "": 0o751,
        "etc": 0o700,
        "etc/deep": 0o711,
        "gone": 0o755,
        "var": 0o733,
        "var/lib": 0o755,
        "new": 0o755,
    }
    etc = os.stat(path / "etc")
    assert (etc.st_uid, etc.st_gid, int(etc.st_mtime)) == (33, 34, 1_400_000_000)
    assert os.getxattr(path / "etc", "user.k") == b"v"


@pytest.mark.parametrize("form", [["--format=gnu"], ["--format=pax", "--sparse-version=1.0"]])
def test_sparse_files_have_holes_and_come_back(box: Box, tmp_path: Path, form: list[str]) -> None:
    with open(tmp_path / "holes", "wb") as file:
        file.write(b"start")
        file.seek(30_000_000)
        file.write(b"middle")
        file.truncate(50_000_000)
    subprocess.run(["tar", "-S", *form, "-cf", "t.tar", "holes"], cwd=tmp_path, check=True)
    path = Path(box.add((tmp_path / "t.tar").read_bytes()))
    assert (path / "holes").read_bytes() == (tmp_path / "holes").read_bytes()
    assert os.stat(path / "holes").st_blocks * 512 < 1_000_000


def test_a_real_tree_packed_by_gnu_tar_comes_back_byte_for_byte(box: Box) -> None:
    for form in ("gnu", "pax", "ustar"):
        packed = subprocess.run(
            ["tar", f"--format={form}", "--xattrs", "-C", "/etc", "-cf", "-", "."], capture_output=True, check=False
        )
        directory = box.add(packed.stdout)
        assert subprocess.run(["diff", "-r", "--no-dereference", "/etc", directory], check=False).returncode == 0


_PARTS = st.sampled_from(["a", "b", "c", "..", ".", "", ".wh.a", ".wh..wh..opq", "a/b", "OUTSIDE"])
_PATHS = st.lists(_PARTS, min_size=1, max_size=4).map("/".join)
_MEMBERS = st.lists(
    st.tuples(st.sampled_from(["file", "directory", "symlink", "hard link", "fifo"]), _PATHS, _PATHS), max_size=14
)


@settings(max_examples=250, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(members=_MEMBERS)
def test_nothing_gets_out_whatever_the_order(box: Box, members: list[tuple[str, str, str]]) -> None:
    """Any mix of links, whiteouts and dots ends in a refusal or in a layer that gives its tar back byte for byte."""
    made = []
    for index, (kind, drawn, link) in enumerate(members):
        outside = str(box.outside)
        name, target = drawn.replace("OUTSIDE", outside), link.replace("OUTSIDE", outside)
        match kind:
            case "file":
                made.append(member(name.rstrip("/") or "a", b"%d" % index))
            case "directory":
                made.append(member(name + "/"))
            case "symlink":
                made.append(symlink(name, target))
            case "hard link":
                made.append(hard_link(name, target))
            case _:
                made.append(member(name.rstrip("/") or "a", type=tarfile.FIFOTYPE))
    data = tar(*made)
    try:
        draft = box.layers.draft(lambda: io.BytesIO(data), diff_id=digest(data), what="test")
    except InvalidParameter:
        pass
    else:
        placed = box.layers.place(draft, [])
        assert b"".join(box.layers.tar(placed.chain_id)) == data
        remove_tree(box.layers.forget(placed.chain_id))
    assert os.listdir(box.root / "tmp") == []
    box.check_outside()


def test_damage_and_lies_are_refused(box: Box) -> None:
    data = tar(member("f", b"x" * 5000))
    box.refuse(data[:3000], "entry f: the archive ends in the middle of it")
    with pytest.raises(InvalidParameter, match=r"its content is sha256:.*, not sha256:aaa"):
        box.layers.draft(lambda: io.BytesIO(data), diff_id="sha256:" + "a" * 64, what="test")
    with pytest.raises(InvalidParameter, match=r"its digest is sha256:.*, not sha256:bbb"):
        box.layers.draft(lambda: io.BytesIO(data), diff_id=digest(data), blob_digest="sha256:" + "b" * 64, what="test")
    assert os.listdir(box.root / "tmp") == []


def test_trees_deeper_than_any_recursion_are_removed(tmp_path: Path) -> None:
    top = tmp_path / "deep"
    top.mkdir()
    fd = os.open(top, os.O_RDONLY)
    for depth in range(3000):
        os.mkdir("d", dir_fd=fd)
        os.close(os.open("f", os.O_CREAT | os.O_WRONLY, dir_fd=fd))
        inner = os.open("d", os.O_RDONLY, dir_fd=fd)
        if depth == 2999:
            os.symlink("/", "root", dir_fd=inner)
        os.close(fd)
        fd = inner
    os.close(fd)
    remove_tree(str(top))
    assert os.listdir(tmp_path) == []
    remove_tree(str(top))


def test_a_deep_archive_is_unpacked_and_removed(box: Box) -> None:
    """Symlinks may add up depth that no single name could have."""
    chain = "/".join("d" * 900)
    data = tar(
        member(chain + "/"), symlink("s1", chain), member("s1/" + chain + "/"), symlink("s2", "s1/" + chain),
        member("s2/" + chain + "/f", b"deep"),
    )  # fmt: skip
    _, draft = box.unpack(data)
    box.layers.discard(draft)
    assert os.listdir(box.root / "tmp") == []


def test_the_limit_on_entries(box: Box, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tsunagu.kernel.unpack.MAX_ENTRIES", 10)
    box.refuse(tar(*(member(f"f{i}") for i in range(11))), "more than 10 entries")
