"""kernel.accounts: users and groups of an untrusted root; the working directory is made inside it only."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tsunagu.kernel import accounts
from tsunagu.model.errors import InvalidParameter, KernelFailure

PASSWD = """root:x:0:0:root:/root:/bin/sh
# a comment
daemon:x:1:1::/usr/sbin
www-data:x:33:33:www:/var/www:/usr/sbin/nologin
broken:x:abc:1:::
huge:x:99999999999:1:::
1000:x:55:55:a name of digits:/n:
app:x:1000:100::/home/app:
"""
GROUP = """root:x:0:
daemon:x:1:
adm:x:4:www-data,app
www-data:x:33:
users:x:100:
video:x:44:app
"""


@pytest.fixture
def root(tmp_path: Path) -> str:
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/passwd").write_text(PASSWD)
    (tmp_path / "etc/group").write_text(GROUP)
    return str(tmp_path)


@pytest.mark.parametrize(
    ("user", "uid", "gid", "groups"),
    [
        ("", 0, 0, (0,)),
        ("root", 0, 0, (0,)),
        ("0", 0, 0, (0,)),
        ("www-data", 33, 33, (4, 33)),
        ("33", 33, 33, (4, 33)),
        ("app", 1000, 100, (4, 44, 100)),
        ("1000", 55, 55, (55,)),  # a name of digits is a name first
        ("4711", 4711, 0, (0,)),
        ("4711:4712", 4711, 4712, (4712,)),
        ("app:adm", 1000, 4, (4,)),
        ("app:", 1000, 100, (4, 44, 100)),
        (":adm", 0, 4, (4,)),
        ("app:77", 1000, 77, (77,)),
    ],
)
def test_users(root: str, user: str, uid: int, gid: int, groups: tuple[int, ...]) -> None:
    account = accounts.resolve_user(root, user)
    assert (account.uid, account.gid, account.groups) == (uid, gid, groups)


def test_home(root: str) -> None:
    assert accounts.resolve_user(root, "app").home == "/home/app"
    assert accounts.resolve_user(root, "4711").home == "/"


def test_added_groups(root: str) -> None:
    assert accounts.resolve_user(root, "app", ("video", "9")).groups == (4, 9, 44, 100)
    assert accounts.resolve_user(root, "4711:1", ("adm",)).groups == (1, 4)
    with pytest.raises(InvalidParameter, match="Unable to find group nogroup"):
        accounts.resolve_user(root, "", ("nogroup",))


@pytest.mark.parametrize(
    ("user", "words"),
    [
        ("nosuch", "unable to find user nosuch: no matching entries in passwd file"),
        ("root:nosuch", "unable to find group nosuch: no matching entries in group file"),
        ("broken", "unable to find user broken"),
        ("huge", "unable to find user huge"),
        ("-1", "uids and gids must be in range 0-2147483647"),
        ("2147483648", "uids and gids must be in range 0-2147483647"),
        ("4294967295", "uids and gids must be in range"),
        ("99999999999999999999999", "uids and gids must be in range"),
        ("0:4294967296", "uids and gids must be in range"),
    ],
)
def test_refused_users(root: str, user: str, words: str) -> None:
    with pytest.raises(InvalidParameter) as caught:
        accounts.resolve_user(root, user)
    assert words in caught.value.message


def test_a_root_without_files(tmp_path: Path) -> None:
    assert accounts.resolve_user(str(tmp_path), "").uid == 0
    assert accounts.resolve_user(str(tmp_path), "12:13").gid == 13
    with pytest.raises(InvalidParameter, match="unable to find user web"):
        accounts.resolve_user(str(tmp_path), "web")


def test_a_symlink_stays_in_the_root(root: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    outside = tmp_path_factory.mktemp("outside") / "passwd"
    outside.write_text("evil:x:0:0::/:\n")
    os.unlink(f"{root}/etc/passwd")
    os.symlink(outside, f"{root}/etc/passwd")
    with pytest.raises(InvalidParameter, match="unable to find user evil"):
        accounts.resolve_user(root, "evil")
    os.unlink(f"{root}/etc/passwd")
    os.symlink(f"../../../../../../..{outside}", f"{root}/etc/passwd")
    with pytest.raises(InvalidParameter, match="unable to find user evil"):
        accounts.resolve_user(root, "evil")
    (Path(root) / "real").write_text("good:x:7:7::/:\n")
    os.unlink(f"{root}/etc/passwd")
    os.symlink("/real", f"{root}/etc/passwd")  # an absolute link means the root's own
    assert accounts.resolve_user(root, "good").uid == 7


def test_what_would_hang_or_fill_memory_is_refused(root: str) -> None:
    os.unlink(f"{root}/etc/passwd")
    os.mkfifo(f"{root}/etc/passwd")
    with pytest.raises(InvalidParameter, match="not a regular file"):
        accounts.resolve_user(root, "root")
    os.unlink(f"{root}/etc/passwd")
    with open(f"{root}/etc/passwd", "wb") as file:
        file.truncate(accounts.FILE_LIMIT + 1)
    with pytest.raises(InvalidParameter, match="larger than"):
        accounts.resolve_user(root, "root")


def test_a_very_long_line_is_nobody(root: str) -> None:
    with open(f"{root}/etc/passwd", "a") as file:
        file.write(f"long:x:5:5:{'x' * accounts.LINE_LIMIT}:/:\nafter:x:6:6:::\n")
    with pytest.raises(InvalidParameter):
        accounts.resolve_user(root, "long")
    assert accounts.resolve_user(root, "after").uid == 6


# ---- the working directory


def make(root: str, path: str) -> None:
    accounts.make_directory(root, path, uid=os.getuid(), gid=os.getgid())


def test_the_working_directory_is_made(root: str) -> None:
    make(root, "/srv/app//data/../data")
    assert os.path.isdir(f"{root}/srv/app/data")
    assert os.stat(f"{root}/srv/app/data").st_mode & 0o7777 == 0o755
    make(root, "/srv/app/data")
    make(root, "/")


def test_the_working_directory_never_leaves_the_root(root: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    outside = tmp_path_factory.mktemp("outside")
    os.symlink(outside, f"{root}/out")
    os.symlink("../" * 20 + str(outside).lstrip("/"), f"{root}/out2")
    make(root, "/../../etc/work")
    assert os.path.isdir(f"{root}/etc/work")
    for link in ("out", "out2"):
        with pytest.raises((InvalidParameter, KernelFailure)):
            make(root, f"/{link}/sub")
    assert os.listdir(outside) == []
    (Path(root) / "inside").mkdir()
    os.symlink("/inside", f"{root}/in")
    make(root, "/in/sub")
    assert os.path.isdir(f"{root}/inside/sub")


def test_something_in_the_way_is_told(root: str) -> None:
    with pytest.raises(InvalidParameter, match="Cannot mkdir: /etc/passwd/x is not a directory"):
        make(root, "/etc/passwd/x")


def test_file_descriptors_are_closed_and_not_inherited(root: str) -> None:
    before = len(os.listdir("/proc/self/fd"))
    fd = accounts.open_inside(root, "/etc/passwd", os.O_RDONLY)
    assert not os.get_inheritable(fd)
    os.close(fd)
    make(root, "/a/b/c")
    accounts.resolve_user(root, "app")
    with pytest.raises(InvalidParameter):
        make(root, "/etc/passwd/x")
    assert len(os.listdir("/proc/self/fd")) == before
