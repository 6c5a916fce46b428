"""Starting the engine in the background: readiness by a pipe, one engine for several users, its own failure told."""

from __future__ import annotations

import os
import posix
import signal
import socket
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tsunagu.cli import autostart
from tsunagu.cli.output import Failure
from tsunagu.client import Client
from unit.canned_engine import SOURCE

# A pretended engine: listens, says so, answers nothing, and ends when it is told to.
_ENGINE = """#!{python}
import os, socket, sys
with open({starts!r}, "a") as file:
    file.write(" ".join(sys.argv[1:]) + "\\n")
listener = socket.socket(socket.AF_UNIX)
listener.bind({path!r})
listener.listen()
with open({pid!r}, "w") as file:
    file.write(str(os.getpid()))
print("started", os.getsid(0) == os.getpid(), os.environ.get("SECRET"), os.environ["PATH"], flush=True)
ready = int(os.environ["TSUNAGU_READY_FD"])
os.write(ready, b"1")
os.close(ready)
while True:
    listener.accept()
"""


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setattr(autostart, "LOG_FILE", str(tmp_path / "log"))
    monkeypatch.setattr(autostart, "LOCK_FILE", str(tmp_path / "lock"))
    monkeypatch.setattr(posix, "geteuid", lambda: 0)
    monkeypatch.setattr(sys, "_tsunagu_python", str(tmp_path / "engine"), raising=False)
    monkeypatch.setitem(posix.environ, b"SECRET", b"word")
    yield tmp_path
    if (tmp_path / "pid").exists():
        pid = int((tmp_path / "pid").read_text())
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


def program(place: Path, text: str = _ENGINE) -> Client:
    names = {"starts": str(place / "starts"), "path": str(place / "sock"), "pid": str(place / "pid")}
    (place / "engine").write_text(text.format(python=sys.executable, **names))
    (place / "engine").chmod(0o755)
    return Client(f"unix://{place}/sock")


def test_the_engine_is_started_once_and_said_aloud(place: Path, capfd: pytest.CaptureFixture[str]) -> None:
    client = program(place)
    assert autostart.start_engine(client)
    pid = (place / "pid").read_text()
    assert capfd.readouterr().err == f"tsunagu: started the engine (pid {pid}, log {place}/log)\n"
    assert (place / "starts").read_text() == "-m tsunagu.daemon\n"
    client.connect()
    # A session of its own, and nothing of the starter's environment but what an engine needs.
    session, secret, path = (place / "log").read_text().split()[1:]
    assert (session, secret) == ("True", "None") and "/usr/sbin" in path.split(":")
    assert autostart.start_engine(Client(client.host))
    assert (place / "starts").read_text() == "-m tsunagu.daemon\n"


def test_two_commands_at_once_start_one_engine(place: Path) -> None:
    client = program(place)
    results: list[bool] = []
    threads = [
        threading.Thread(target=lambda: results.append(autostart.start_engine(Client(client.host)))) for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert results == [True] * 4
    assert (place / "starts").read_text() == "-m tsunagu.daemon\n"


def test_an_engine_that_ends_at_once_is_explained_by_its_log(place: Path) -> None:
    (place / "log").write_text("of an earlier day\n")
    client = program(place, "#!/bin/sh\necho no runtime here >&2\nexit 1\n")
    with pytest.raises(Failure) as caught:
        autostart.start_engine(client)
    assert caught.value.message == "the engine could not be started:\nno runtime here"


def test_a_missing_interpreter_is_explained(place: Path) -> None:
    with pytest.raises(Failure, match="cannot start the engine: "):
        autostart.start_engine(Client(f"unix://{place}/sock"))


def test_only_root_starts_engines(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(posix, "geteuid", lambda: 1000)
    assert not autostart.start_engine(program(place))
    assert not (place / "starts").exists()


def test_the_foreground_engine_gets_the_flags(place: Path) -> None:
    (place / "engine").write_text('#!/bin/sh\necho "$@"\n')
    (place / "engine").chmod(0o755)
    code = (
        f"import sys; sys.path.insert(0, {SOURCE!r}); sys._tsunagu_python = {str(place / 'engine')!r}; "
        "from tsunagu.cli.main import main; main()"
    )
    words = ["-H", "unix:///s", "daemon", "--root", "/r", "--run-dir=/x", "-D"]
    read, write = os.pipe()
    pid = os.posix_spawn(
        sys.executable,
        [sys.executable, "-IS", "-c", code, *words],
        os.environ,
        file_actions=[(os.POSIX_SPAWN_DUP2, write, 1)],
    )
    os.close(write)
    with os.fdopen(read) as file:
        assert file.read() == "-m tsunagu.daemon --root /r --run-dir /x --host unix:///s --log-level debug\n"
    assert os.waitpid(pid, 0)[1] == 0


def test_a_stale_socket_file_is_no_engine(place: Path) -> None:
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(place / "sock"))
    listener.close()
    client = program(place, _ENGINE.replace("listener = ", "os.unlink({path!r}); listener = ", 1))
    assert autostart.start_engine(client)
