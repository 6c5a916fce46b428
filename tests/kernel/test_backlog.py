"""The kernel tells how many connections wait to be accepted."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from tsunagu.kernel.backlog import Backlog

pytestmark = pytest.mark.root


def test_waiting_connections_are_counted_until_they_are_accepted(tmp_path: Path) -> None:
    path = str(tmp_path / "attach")
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
        listener.bind(path)
        listener.listen(10)
        backlog = Backlog(path)
        assert backlog.waiting() == 0
        clients = [socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) for _ in range(3)]
        for client in clients:
            client.connect(path)
        assert backlog.waiting() == 3
        accepted = [listener.accept()[0] for _ in clients]
        assert backlog.waiting() == 0
        for each in (*clients, *accepted):
            each.close()
    assert backlog.waiting() == 0  # nobody listens any more
    backlog.close()


def test_a_file_that_nobody_listens_on(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match="nobody listens"):
        Backlog(str(tmp_path / "file"))
