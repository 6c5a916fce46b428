"""The socket file: who may use it, when it is replaced, and clear words when it cannot be made."""

from __future__ import annotations

import os
import socket
import stat
from pathlib import Path

import pytest

from tsunagu.api.server import PATH_LIMIT, listen
from tsunagu.model.errors import Conflict, InvalidParameter, KernelFailure

from .conftest import Served


def test_mode_is_owner_and_group_only(tmp_path: Path) -> None:
    path = str(tmp_path / "deep" / "s")
    umask = os.umask(0)
    try:
        with listen(path, group="nosuchgroup"):
            mode = os.stat(path).st_mode
    finally:
        assert os.umask(umask) == 0, "the process's own umask was not restored"
    assert stat.S_ISSOCK(mode) and stat.S_IMODE(mode) == 0o660


def test_stale_socket_is_replaced(tmp_path: Path) -> None:
    path = str(tmp_path / "s")
    with socket.socket(socket.AF_UNIX) as stale:
        stale.bind(path)
    with listen(path):
        pass


def test_living_engine_keeps_its_socket(served: Served) -> None:
    with pytest.raises(Conflict, match="another engine serves it"):
        listen(served.path)
    assert served.ask("GET", "/_ping") == (200, b"OK")


def test_other_files_are_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "s"
    path.write_text("precious")
    with pytest.raises(Conflict, match="no socket is in the way"):
        listen(str(path))
    assert path.read_text() == "precious"


def test_symbolic_link_is_not_followed(tmp_path: Path) -> None:
    target = tmp_path / "target"
    (tmp_path / "s").symlink_to(target)
    with pytest.raises(Conflict):
        listen(str(tmp_path / "s"))
    assert not target.exists()


def test_path_that_does_not_fit(tmp_path: Path) -> None:
    directory = tmp_path / "x"
    fits = f"{directory}/{'s' * (PATH_LIMIT - len(str(directory)) - 1)}"
    with listen(fits):
        pass
    with pytest.raises(
        InvalidParameter, match=f"socket path is {PATH_LIMIT + 1} bytes long, the kernel allows 107"
    ) as caught:
        listen(fits + "s")
    assert "--run-dir" in caught.value.hint


def test_relative_path() -> None:
    with pytest.raises(InvalidParameter, match="not absolute"):
        listen("relative.sock")


def test_directory_that_cannot_be_made() -> None:
    with pytest.raises(KernelFailure, match="cannot listen on /dev/null/x/s"):
        listen("/dev/null/x/s")


def test_stop_removes_only_its_own_socket(served: Served, tmp_path: Path) -> None:
    os.unlink(served.path)
    with listen(served.path):
        served.run(served.server.close())
        assert os.path.exists(served.path)
