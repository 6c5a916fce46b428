"""`run`, `create`, `exec`, `start -a`: the order of requests, streams, exit codes, errors. Each runs as a process."""

from __future__ import annotations

import os
import pty
import signal
import subprocess
import threading
from pathlib import Path
from typing import Any

import pytest

from unit.canned_engine import ID, CannedEngine, Connection, Request, command, serving, tsunagu


@pytest.fixture
def engine(tmp_path: Path):
    with serving(tmp_path) as engine:
        engine.routes["POST /containers/create"] = (201, {"Id": ID, "Warnings": []})
        engine.routes[f"POST /containers/{ID}/start"] = (204, None)
        yield engine


class Container:
    """The pretended container of one attached run: output when it is started, then the exit code."""

    def __init__(
        self, engine: CannedEngine, frames: list[tuple[int, bytes]], code: int = 0, *, is_tty: bool = False
    ) -> None:
        self.started = threading.Event()
        self.ended = threading.Event()
        self.frames = frames
        self.code = code
        self.is_tty = is_tty
        self.stdin: bytes | None = None
        engine.routes[f"POST /containers/{ID}/attach"] = self.attach
        engine.routes[f"POST /containers/{ID}/wait"] = self.wait
        engine.routes[f"POST /containers/{ID}/start"] = self.start

    def attach(self, request: Request, connection: Connection) -> None:
        connection.upgrade(is_multiplexed=not self.is_tty)
        assert self.started.wait(20)
        for stream, data in self.frames:
            if self.is_tty:
                connection.sock.sendall(data)
            else:
                connection.frame(stream, data)
        if "stdin=1" in request.query:
            self.stdin = connection.read_to_end()
        self.ended.set()

    def wait(self, _request: Request, connection: Connection) -> None:
        connection.start_chunks()
        assert self.ended.wait(20)
        connection.chunk(b'{"StatusCode":%d}\n' % self.code)
        connection.sock.sendall(b"0\r\n\r\n")

    def start(self, _request: Request, _connection: Connection) -> object:
        self.started.set()
        return (204, None)


def requests(engine: CannedEngine) -> list[str]:
    return [line.replace(ID, "ID") for line in engine.lines()]


def test_attached_run(engine: CannedEngine) -> None:
    Container(engine, [(1, b"out\n"), (2, b"err\n"), (1, b"more")], 3)
    result = tsunagu(engine, "run", "--rm", "alpine", "sh", "-c", "exit 3")
    assert result == (3, "out\nmore", "err\n")
    # Attached and watched before it is started: neither output nor exit can be missed.
    assert requests(engine) == [
        "POST /containers/create",
        "POST /containers/ID/attach?stream=1&stdout=1&stderr=1",
        "POST /containers/ID/wait?condition=removed",
        "POST /containers/ID/start",
    ]
    assert engine.body("/containers/create") == {
        "Image": "alpine",
        "Cmd": ["sh", "-c", "exit 3"],
        "AttachStdin": False,
        "AttachStdout": True,
        "AttachStderr": True,
        "OpenStdin": False,
        "StdinOnce": False,
        "Tty": False,
        "HostConfig": {"AutoRemove": True, "NetworkMode": "default"},
    }


def test_standard_input_is_handed_on_and_ended(engine: CannedEngine) -> None:
    container = Container(engine, [(1, b"x" * 300_000)])
    typed = os.urandom(2_000_000)
    result = tsunagu(engine, "run", "-i", "alpine", "cat", stdin=typed)
    assert result.code == 0 and len(result.out) == 300_000
    assert container.stdin == typed


def test_a_container_that_writes_before_it_reads_does_not_lock_up(engine: CannedEngine) -> None:
    """Both directions fill their socket buffers: the client must go on reading while it cannot send."""
    total = 8_000_000

    def attach(_request: Request, connection: Connection) -> None:
        connection.upgrade()
        for _ in range(total // 10_000):
            connection.frame(1, b"y" * 10_000)
        received = len(connection.read_to_end())
        connection.frame(2, str(received).encode())
        container.ended.set()

    container = Container(engine, [])
    engine.routes[f"POST /containers/{ID}/attach"] = attach
    result = tsunagu(engine, "run", "-i", "alpine", "cat", stdin=b"z" * total)
    assert (result.code, len(result.out), result.err) == (0, total, str(total))


def test_only_the_asked_streams_are_attached(engine: CannedEngine) -> None:
    Container(engine, [(1, b"out\n"), (2, b"err\n")])
    assert tsunagu(engine, "run", "-a", "stderr", "alpine") == (0, "", "err\n")
    assert "POST /containers/ID/attach?stream=1&stderr=1" in requests(engine)


def test_detached_run_prints_the_id(engine: CannedEngine) -> None:
    assert tsunagu(engine, "run", "-d", "--name", "web", "alpine") == (0, ID + "\n", "")
    assert requests(engine) == ["POST /containers/create?name=web", "POST /containers/ID/start"]


def test_a_failed_start_of_a_detached_run_prints_id_and_error(engine: CannedEngine) -> None:
    engine.routes[f"POST /containers/{ID}/start"] = (404, {"message": "network x not found"})
    result = tsunagu(engine, "run", "-d", "--network", "x", "alpine")
    assert result == (
        125,
        ID + "\n",
        "tsunagu: Error response from daemon: network x not found\n\nRun 'tsunagu run --help' for more information\n",
    )


@pytest.mark.parametrize(
    ("sentence", "code"),
    [
        ('OCI runtime create failed: exec: "x": executable file not found in $PATH', 127),
        ("exec /x: no such file or directory", 127),
        ('exec: "/etc": permission denied', 126),
        ('exec: "/etc": is a directory', 126),
        ("anything else", 125),
    ],
)
def test_exit_codes_of_a_start_that_failed(engine: CannedEngine, sentence: str, code: int) -> None:
    engine.routes[f"POST /containers/{ID}/start"] = (400, {"message": sentence})
    result = tsunagu(engine, "run", "-d", "alpine", "x")
    assert result.code == code
    assert f"tsunagu: Error response from daemon: {sentence}\n\nRun" in result.err


def test_a_failed_start_of_an_attached_run(engine: CannedEngine) -> None:
    container = Container(engine, [])

    def start(_request: Request, _connection: Connection) -> object:
        container.started.set()
        return (400, {"message": "executable file not found in $PATH"})

    engine.routes[f"POST /containers/{ID}/start"] = start
    result = tsunagu(engine, "run", "--rm", "alpine", "x")
    assert result.code == 127 and result.out == ""


def test_a_missing_image_is_pulled_once(engine: CannedEngine) -> None:
    answers = [(404, {"message": "No such image: alpine:latest"}), (201, {"Id": ID, "Warnings": ["w"]})]
    engine.routes["POST /containers/create"] = lambda _request, _connection: answers.pop(0)
    engine.routes["POST /images/create"] = {"status": "Pull complete"}
    result = tsunagu(engine, "run", "-d", "alpine")
    assert result.err == "Unable to find image 'alpine:latest' locally\nPull complete\nWARNING: w\n"
    assert (result.code, result.out) == (0, ID + "\n")
    assert requests(engine)[1] == "POST /images/create?fromImage=docker.io/library/alpine&tag=latest"


def test_an_image_that_cannot_be_pulled(engine: CannedEngine) -> None:
    engine.routes["POST /containers/create"] = (404, {"message": "No such image: nosuch:latest"})
    engine.routes["POST /images/create"] = (503, {"message": "registries are not supported yet"})
    result = tsunagu(engine, "run", "nosuch", "true")
    assert result.code == 125
    assert result.err == (
        "Unable to find image 'nosuch:latest' locally\n"
        "tsunagu: Error response from daemon: registries are not supported yet\n\n"
        "Run 'tsunagu run --help' for more information\n"
    )
    assert tsunagu(engine, "run", "--pull", "never", "nosuch").err.startswith(
        "tsunagu: Error response from daemon: No such image: nosuch:latest\n"
    )


def test_wrong_values_are_explained_before_anything_is_asked(engine: CannedEngine) -> None:
    result = tsunagu(engine, "run", "--rm", "-p", "99999:80", "alpine", "true")
    assert result == (125, "", "tsunagu: invalid hostPort: 99999\n\nRun 'tsunagu run --help' for more information\n")
    assert tsunagu(engine, "run", "-it", "alpine") == (1, "", "the input device is not a TTY\n")
    assert tsunagu(engine, "run", "-d", "-a", "stdout", "alpine").code == 1
    assert tsunagu(engine, "create", "--network-alias", "a", "alpine").err.startswith(
        "tsunagu: network-scoped aliases are only supported for user-defined networks\n"
    )
    assert engine.requests == []


def test_the_id_file(engine: CannedEngine, tmp_path: Path) -> None:
    path = tmp_path / "id"
    assert tsunagu(engine, "create", "--cidfile", str(path), "alpine").code == 0
    assert path.read_text() == ID
    assert "container ID file found" in tsunagu(engine, "create", "--cidfile", str(path), "alpine").err


def test_signals_go_to_the_container(engine: CannedEngine) -> None:
    container = Container(engine, [(1, b"ready\n")], 143)
    killed: list[str] = []

    def kill(request: Request, _connection: Connection) -> object:
        killed.append(request.query)
        container.ended.set()
        return (204, None)

    def attach(_request: Request, connection: Connection) -> None:
        connection.upgrade()
        container.started.wait(20)
        connection.frame(1, b"ready\n")
        container.ended.wait(20)

    engine.routes[f"POST /containers/{ID}/attach"] = attach
    engine.routes[f"POST /containers/{ID}/kill"] = kill
    process = start(engine, "run", "alpine")
    assert process.stdout is not None and process.stdout.readline() == b"ready\n"
    process.send_signal(signal.SIGTERM)
    assert process.wait(20) == 143
    assert killed == ["signal=TERM"]


def test_without_signal_proxy_an_interrupt_ends_the_client_only(engine: CannedEngine) -> None:
    container = Container(engine, [])

    def attach(_request: Request, connection: Connection) -> None:
        connection.upgrade()
        connection.frame(1, b"ready\n")
        container.ended.wait(20)

    engine.routes[f"POST /containers/{ID}/attach"] = attach
    process = start(engine, "run", "--sig-proxy=false", "alpine")
    assert process.stdout is not None and process.stdout.readline() == b"ready\n"
    process.send_signal(signal.SIGINT)
    assert process.wait(20) == 130
    container.ended.set()
    assert process.stderr is not None and process.stderr.read() == b""
    assert not any("kill" in line for line in engine.lines())


def start(engine: CannedEngine, *words: str, **streams: Any) -> subprocess.Popen[bytes]:
    environment = {"PATH": os.environ["PATH"], "DOCKER_HOST": engine.host, "TERM": "xterm"}
    given = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE} | streams
    return subprocess.Popen(command(*words), env=environment, **given)


def test_a_reader_that_goes_away_ends_the_client_quietly(engine: CannedEngine) -> None:
    engine.routes["GET /containers/json"] = []
    read, write = os.pipe()
    os.close(read)
    process = start(engine, "ps", stdout=write)
    os.close(write)
    _, err = process.communicate(timeout=20)
    assert (process.returncode, err) == (-signal.SIGPIPE, b"")


# -- terminals ------------------------------------------------------------------------------------------------------


class Terminal:
    """A pseudo-terminal with the client on its other side."""

    def __init__(self, engine: CannedEngine, *words: str) -> None:
        self.master, slave = pty.openpty()
        self.settings = os.ttyname(slave)
        self.process = start(engine, *words, stdin=slave, stdout=slave, stderr=slave, start_new_session=True)
        self.slave = slave

    def read_until(self, end: bytes) -> bytes:
        seen = b""
        while not seen.endswith(end):
            seen += os.read(self.master, 1000)
        return seen

    def close(self) -> None:
        os.close(self.master)
        os.close(self.slave)


def test_a_terminal_is_raw_while_attached_and_as_before_afterwards(engine: CannedEngine) -> None:
    import termios

    sizes: list[str] = []
    container = Container(engine, [], 7, is_tty=True)

    def attach(_request: Request, connection: Connection) -> None:
        connection.upgrade(is_multiplexed=False)
        container.started.wait(20)
        connection.sock.sendall(b"$ ")
        typed = connection.sock.recv(100)  # ctrl-C arrives as a byte, not as a signal
        connection.sock.sendall(b"got " + typed + b"\r\n")
        container.ended.set()

    engine.routes[f"POST /containers/{ID}/attach"] = attach
    engine.routes[f"POST /containers/{ID}/resize"] = lambda request, _connection: sizes.append(request.query) or {}
    terminal = Terminal(engine, "run", "-it", "alpine")
    before = termios.tcgetattr(terminal.slave)
    terminal.read_until(b"$ ")
    os.write(terminal.master, b"\x03")
    assert terminal.read_until(b"\n") == b"got \x03\r\n"
    assert terminal.process.wait(20) == 7
    assert termios.tcgetattr(terminal.slave) == before
    assert engine.body("/containers/create")["Tty"] is True
    terminal.close()


def test_detach_keys_leave_the_container_alone(engine: CannedEngine) -> None:
    received = bytearray()
    has_read = threading.Event()
    container = Container(engine, [], is_tty=True)

    def attach(_request: Request, connection: Connection) -> None:
        connection.upgrade(is_multiplexed=False)
        container.started.wait(20)
        connection.sock.sendall(b"$ ")
        received.extend(connection.read_to_end())
        has_read.set()

    engine.routes[f"POST /containers/{ID}/attach"] = attach
    terminal = Terminal(engine, "run", "-it", "--detach-keys", "ctrl-x,x", "alpine")
    terminal.read_until(b"$ ")
    os.write(terminal.master, b"a\x18b\x18")
    os.write(terminal.master, b"x")
    assert terminal.process.wait(20) == 0
    terminal.close()
    assert has_read.wait(20)
    assert bytes(received) == b"a\x18b"
    container.ended.set()


# -- exec and start -------------------------------------------------------------------------------------------------

EXEC = "e" * 64


def test_exec(engine: CannedEngine) -> None:
    def session(_request: Request, connection: Connection) -> None:
        connection.upgrade()
        connection.frame(1, b"out")
        connection.frame(2, b"err")

    engine.routes["POST /containers/web/exec"] = (201, {"Id": EXEC})
    engine.routes[f"POST /exec/{EXEC}/start"] = session
    engine.routes[f"GET /exec/{EXEC}/json"] = {"ExitCode": 127, "Running": False}
    result = tsunagu(engine, "exec", "-e", "A=1", "-w", "/x", "web", "ls", "-l")
    assert result == (127, "out", "err")
    assert engine.body("/containers/web/exec") == {
        "Cmd": ["ls", "-l"],
        "Env": ["A=1"],
        "WorkingDir": "/x",
        "Tty": False,
        "AttachStdin": False,
        "AttachStdout": True,
        "AttachStderr": True,
    }


def test_exec_in_the_background(engine: CannedEngine) -> None:
    engine.routes["POST /containers/web/exec"] = (201, {"Id": EXEC})
    engine.routes[f"POST /exec/{EXEC}/start"] = (204, None)
    assert tsunagu(engine, "exec", "-d", "web", "ls") == (0, "", "")
    assert engine.body(f"/exec/{EXEC}/start") == {"Detach": True, "Tty": False}


def test_exec_in_no_container(engine: CannedEngine) -> None:
    engine.routes["POST /containers/x/exec"] = (404, {"message": "No such container: x"})
    assert tsunagu(engine, "exec", "x", "ls") == (1, "", "Error response from daemon: No such container: x\n")
    assert tsunagu(engine, "exec", "", "ls").err == "invalid container name or ID: value is empty\n"


def test_start_goes_on_after_a_failure(engine: CannedEngine) -> None:
    for name in ("a", "b"):
        engine.routes[f"POST /containers/{name}/start"] = (204, None)
    engine.routes["POST /containers/x/start"] = (404, {"message": "No such container: x"})
    assert tsunagu(engine, "start", "a", "x", "b") == (
        1,
        "a\nb\n",
        "Error response from daemon: No such container: x\nError: failed to start containers: x\n",
    )


def test_start_attached(engine: CannedEngine) -> None:
    Container(engine, [(1, b"out\n")], 4)
    engine.routes["GET /containers/web/json"] = {
        "Id": ID,
        "Config": {"Tty": False, "OpenStdin": True},
        "HostConfig": {},
        "State": {"Running": False},
    }
    assert tsunagu(engine, "start", "-a", "web") == (4, "out\n", "")


def test_attach_wants_a_running_container(engine: CannedEngine) -> None:
    engine.routes["GET /containers/web/json"] = {"Id": ID, "Config": {}, "State": {"Running": False}}
    assert tsunagu(engine, "attach", "web") == (1, "", "cannot attach to a stopped container, start it first\n")
