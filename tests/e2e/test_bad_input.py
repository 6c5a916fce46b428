"""Requests that no client sends: each gets a clear answer with the right status, and the engine works on as before."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator

import pytest

from tsunagu.testing.engine import EngineProcess

pytestmark = pytest.mark.root


@pytest.fixture(autouse=True)
def engine_is_untouched(engine: EngineProcess) -> Iterator[None]:
    """The same process serves before and after, and knows the same objects."""
    pid, networks = engine.pid, sorted(str(n["Id"]) for n in engine.api.get("/networks"))
    yield
    assert engine.pid == pid
    assert engine.api.request("GET", "/_ping") == (200, b"OK")
    assert sorted(str(n["Id"]) for n in engine.api.get("/networks")) == networks
    assert engine.api.get("/containers/json?all=1") == []


def status_of(answer: bytes) -> int:
    """Status code of a raw HTTP answer."""
    return int(answer.split(b" ", 2)[1]) if answer.startswith(b"HTTP/1.1 ") else 0


def message_of(body: bytes) -> str:
    """The sentence of an error answer; every error has one."""
    message = json.loads(body)["message"]
    assert isinstance(message, str)
    assert message
    return message


@pytest.mark.parametrize(
    ("method", "path", "body", "status"),
    [
        ("POST", "/containers/create", b"{", 400),
        ("POST", "/containers/create", b"[]", 400),
        ("POST", "/containers/create", b"", 400),
        ("POST", "/containers/create", b'{"Image": 5}', 400),
        ("POST", "/containers/create", b'{"Image": "alpine", "Cmd": [1]}', 400),
        ("POST", "/containers/create", b'{"Image": "nosuchimage"}', 404),
        ("POST", "/containers/create?name=../../etc", b'{"Image": "alpine"}', 400),
        ("POST", "/containers/create?name=" + "a" * 5000, b'{"Image": "alpine"}', 400),
        ("POST", "/networks/create", b'{"Name": "x", "IPAM": 3}', 400),
        ("POST", "/networks/create", b'{"Name": "../x"}', 400),
        ("POST", "/networks/create", b'{"Name": "x", "Options": {"no.such.option": "1"}}', 501),
        ("GET", "/containers/nosuch/json", None, 404),
        ("GET", "/networks/nosuch", None, 404),
        ("GET", "/images/nosuch/json", None, 404),
        ("GET", "/containers/json?filters=notjson", None, 400),
        ("GET", "/nosuchpage", None, 404),
        ("GET", "/v1.23/containers/json", None, 400),
        ("GET", "/v1.99/containers/json", None, 400),
        ("DELETE", "/networks/bridge", None, 403),
        ("POST", "/containers/nosuch/start", None, 404),
        ("POST", "/exec/nosuch/start", b"{}", 404),
    ],
)
def test_wrong_requests(engine: EngineProcess, method: str, path: str, body: bytes | None, status: int) -> None:
    got, answer = engine.api.request(method, path, body)
    assert (got, bool(message_of(answer))) == (status, True), answer


def test_deep_json(engine: EngineProcess) -> None:
    status, body = engine.api.request(
        "POST", "/containers/create", b'{"Image":' + b"[" * 100_000 + b"]" * 100_000 + b"}"
    )
    assert status == 400, body


def test_not_json_at_all(engine: EngineProcess) -> None:
    status, body = engine.api.request("POST", "/networks/create", b"Name=x", "application/x-www-form-urlencoded")
    assert status in (400, 415), body


def test_huge_header(engine: EngineProcess) -> None:
    answer = engine.api.raw(b"GET /_ping HTTP/1.1\r\nHost: x\r\nX-Long: " + b"a" * (1 << 20) + b"\r\n\r\n")
    assert status_of(answer) in (400, 431), answer[:200]


def test_garbage(engine: EngineProcess) -> None:
    assert status_of(engine.api.raw(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n")) == 400
    assert status_of(engine.api.raw(b"GET /_ping JUNK/1.1\r\n\r\n")) == 400


def test_truncated_request(engine: EngineProcess) -> None:
    head = b"POST /networks/create HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 200\r\n\r\n"
    whole = head + b'{"Name": "half"'
    for length in range(1, len(whole), 17):
        answer = engine.api.raw(whole[:length], closes=True)
        assert status_of(answer) in (0, 400), answer


def test_client_that_leaves_while_answering(engine: EngineProcess) -> None:
    for _ in range(20):
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
            sock.connect(engine.instance.socket)
            sock.sendall(b"GET /events HTTP/1.1\r\nHost: x\r\n\r\nGET /containers/json HTTP/1.1\r\nHost: x\r\n\r\n")


def test_pages_of_a_browser_are_refused(engine: EngineProcess) -> None:
    request = (
        b"POST /networks/create HTTP/1.1\r\nHost: localhost\r\nOrigin: http://evil.example\r\nContent-Length: 0\r\n\r\n"
    )
    assert status_of(engine.api.raw(request, timeout=2)) == 403


def test_request_split_into_single_bytes(engine: EngineProcess) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
        sock.connect(engine.instance.socket)
        for byte in b"GET /_ping HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n":
            sock.sendall(bytes([byte]))
        answer = b""
        while chunk := sock.recv(4096):
            answer += chunk
    assert answer.endswith(b"OK")
