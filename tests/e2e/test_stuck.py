"""Clients that stop in the middle: one that does not read, one that does not send the rest."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tsunagu.testing.engine import EngineProcess

pytestmark = pytest.mark.root

HEAD = "HTTP/1.1\r\nHost: x\r\n"


def half_a_request(engine: EngineProcess, text: str) -> socket.socket:
    """A connection on which a request was begun."""
    client = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    client.connect(engine.instance.socket)
    client.sendall(text.encode())
    return client


def test_an_attached_client_that_never_reads(
    new_engine: Callable[[], EngineProcess], images: Callable[[str], Path]
) -> None:
    """conmon waits for such a client in a write; the end of the container must be seen all the same."""
    engine = new_engine()
    engine.load(images("alpine"))
    engine.api.post("/containers/create?name=loud", {"Image": "alpine", "Cmd": ["yes"]})
    engine.api.post("/containers/loud/start")
    upgrade = "Connection: Upgrade\r\nUpgrade: tcp\r\nContent-Length: 0\r\n\r\n"
    with half_a_request(engine, f"POST /containers/loud/attach?stream=1&stdout=1 {HEAD}{upgrade}"):
        log = Path(engine.api.get("/containers/loud/json")["LogPath"])
        deadline, size = time.monotonic() + 20, -1
        while size != log.stat().st_size and time.monotonic() < deadline:  # until conmon is stuck
            size = log.stat().st_size
            time.sleep(0.3)
        began = time.monotonic()
        assert engine.api.request("POST", "/containers/loud/stop?t=1")[0] == 204
        assert time.monotonic() - began < 15
        assert engine.api.get("/containers/loud/json")["State"]["ExitCode"] in (137, 143)


def test_nobody_else_reads_the_engines_directories(
    new_engine: Callable[[], EngineProcess], images: Callable[[str], Path]
) -> None:
    """Only the run directory itself may be passed through (to a socket in it), and nothing written by others."""
    engine = new_engine()
    engine.load(images("alpine"))
    engine.api.post("/containers/create?name=box", {"Image": "alpine", "Cmd": ["sleep", "3600"]})
    engine.api.post("/containers/box/start")
    run_dir = Path(engine.instance.run_dir)
    modes = {path: path.stat().st_mode & 0o777 for path in (Path(engine.instance.root), *run_dir.iterdir())}
    assert {str(path): oct(mode) for path, mode in modes.items() if path.is_dir() and mode & 0o077} == {}
    inside = [path for path in (run_dir / "processes").iterdir() if path.stat().st_mode & 0o077]
    assert inside == []
    assert run_dir.stat().st_mode & 0o777 == 0o711
    assert Path(engine.instance.socket).stat().st_mode & 0o777 == 0o660


def test_the_engine_stops_although_uploads_stand_still(new_engine: Callable[[], EngineProcess]) -> None:
    engine = new_engine()
    rest = f"{HEAD}Content-Length: 100000\r\n\r\nabc"
    paths = ("/images/load", "/containers/create", "/networks/create")
    clients = [half_a_request(engine, f"POST {path} {rest}") for path in paths]
    assert engine.api.request("GET", "/_ping")[0] == 200
    began = time.monotonic()
    engine.stop()
    assert time.monotonic() - began < 5
    for client in clients:
        client.close()
    engine.start()
