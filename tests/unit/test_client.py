"""The API client: HTTP over a unix socket, chunked bodies, uploads, hijack, errors."""

from __future__ import annotations

import json
import socket
import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tsunagu import jsontext
from tsunagu.client import ApiError, BrokenAnswer, Client, Unreachable, UnsupportedHost, quote, socket_path, target
from unit.canned_engine import CannedEngine, Connection, Request, serving


@pytest.fixture
def engine(tmp_path: Path):
    with serving(tmp_path) as engine:
        yield engine


def raw_server(path: str, answer: bytes) -> None:
    """Answers one connection with these bytes and closes it."""
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(path)
    listener.listen(1)

    def serve() -> None:
        sock, _ = listener.accept()
        sock.recv(65536)
        sock.sendall(answer)
        sock.close()
        listener.close()

    threading.Thread(target=serve, daemon=True).start()


def test_one_connection_serves_several_requests(engine: CannedEngine) -> None:
    seen: set[int] = set()

    def answer(_request: Request, connection: Connection) -> object:
        seen.add(id(connection))
        return {"n": len(seen)}

    engine.routes["GET /containers/json"] = answer
    client = Client(engine.host)
    assert client.get("/containers/json", {"all": 1}) == {"n": 1}
    assert client.get("/containers/json") == {"n": 1}
    assert engine.lines() == ["GET /containers/json?all=1", "GET /containers/json"]


def test_a_connection_that_the_engine_closed_meanwhile_is_not_used_again(tmp_path: Path) -> None:
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(f"{tmp_path}/s")
    listener.listen(2)
    is_closed = threading.Event()

    def serve() -> None:
        for _ in range(2):
            sock, _address = listener.accept()
            sock.recv(65536)
            sock.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")
            sock.close()
            is_closed.set()

    threading.Thread(target=serve, daemon=True).start()
    client = Client(f"unix://{tmp_path}/s")
    assert client.get("/info") == {}
    assert is_closed.wait(10)
    assert client.get("/info") == {}
    listener.close()


def test_chunked_bodies_and_progress_lines(engine: CannedEngine) -> None:
    def answer(_request: Request, connection: Connection) -> None:
        connection.start_chunks()
        connection.chunk(b'{"status":"a"}\r\n{"sta')
        connection.chunk(b'tus":"b"}\r\n')
        connection.sock.sendall(b"0\r\n\r\n")

    engine.routes["POST /images/create"] = answer
    response = Client(engine.host).open("POST", "/images/create")
    assert list(response.documents()) == [{"status": "a"}, {"status": "b"}]


def test_an_upload_is_sent_in_chunks(engine: CannedEngine) -> None:
    engine.routes["POST /images/load"] = {}
    pieces = [b"x" * 100_000, b"", b"yz"]
    Client(engine.host).open("POST", "/images/load", upload=pieces, content_type="application/x-tar").read()
    assert engine.requests[0].body == b"x" * 100_000 + b"yz"
    assert engine.requests[0].headers["content-type"] == "application/x-tar"


def test_the_engines_sentence_becomes_the_error(engine: CannedEngine) -> None:
    engine.routes["DELETE /networks/x"] = (403, {"message": "network x has active endpoints"})
    with pytest.raises(ApiError, match=r"^network x has active endpoints$") as caught:
        Client(engine.host).delete("/networks/x")
    assert caught.value.status == 403


def test_empty_answers_are_none(engine: CannedEngine) -> None:
    engine.routes["POST /containers/a/start"] = (204, None)
    engine.routes["GET /containers/a/json"] = {"Id": "a"}
    client = Client(engine.host)
    assert client.post("/containers/a/start") is None
    assert client.get("/containers/a/json") == {"Id": "a"}


def test_hijack_hands_over_what_came_with_the_head(engine: CannedEngine) -> None:
    def answer(_request: Request, connection: Connection) -> None:
        connection.upgrade()
        connection.frame(1, b"early")
        connection.frame(2, connection.read_to_end())

    engine.routes["POST /containers/a/attach"] = answer
    stream = Client(engine.host).hijack("/containers/a/attach", {"stream": "1"})
    stream.sock.sendall(b"typed")
    stream.close_write()
    data = bytearray(stream.leftover)
    while piece := stream.sock.recv(1000):
        data += piece
    assert stream.is_multiplexed
    assert bytes(data) == b"\1\0\0\0\0\0\0\5early\2\0\0\0\0\0\0\5typed"
    assert engine.requests[0].headers["upgrade"] == "tcp"


def test_a_refused_hijack_is_an_error(engine: CannedEngine) -> None:
    engine.routes["POST /containers/a/attach"] = (409, {"message": "container is paused"})
    with pytest.raises(ApiError, match="container is paused"):
        Client(engine.host).hijack("/containers/a/attach")


def test_requests_at_once_each_have_a_connection(engine: CannedEngine) -> None:
    barrier = threading.Barrier(3, timeout=10)

    def answer(request: Request, _connection: Connection) -> object:
        barrier.wait()  # passes only when all three requests are here
        return {"path": request.path}

    names = ("a", "b", "c")
    for name in names:
        engine.routes[f"POST /containers/{name}/stop"] = answer
    pending = [Client(engine.host).begin("POST", f"/containers/{name}/stop") for name in names]
    assert [one.finish()["path"] for one in pending] == [f"/containers/{name}/stop" for name in names]


def test_nobody_listens(tmp_path: Path) -> None:
    with pytest.raises(Unreachable) as caught:
        Client(f"unix://{tmp_path}/none.sock").get("/info")
    assert not caught.value.is_forbidden


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nabc",
        b"SSH-2.0-OpenSSH\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nab",
        b'HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n{"a":',
    ],
)
def test_cut_and_foreign_answers_are_reported(tmp_path: Path, answer: bytes) -> None:
    raw_server(f"{tmp_path}/s", answer)
    with pytest.raises(BrokenAnswer):
        Client(f"unix://{tmp_path}/s").get("/info")


def test_a_body_without_length_ends_with_the_connection(tmp_path: Path) -> None:
    raw_server(f"{tmp_path}/s", b'HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n{"a": 1}')
    assert Client(f"unix://{tmp_path}/s").get("/info") == {"a": 1}


@pytest.mark.parametrize("host", ["tcp://1.2.3.4:2375", "ssh://me@there", "npipe:////./pipe/x"])
def test_other_hosts_are_refused_by_name(host: str) -> None:
    with pytest.raises(UnsupportedHost, match=host.partition(":")[0]):
        socket_path(host)


def test_targets_are_quoted() -> None:
    assert target("/x", {"filters": '{"a":{"b c":true}}', "n": 1}) == (
        "/v1.51/x?filters=%7B%22a%22:%7B%22b%20c%22:true%7D%7D&n=1"
    )
    assert target("/x", {"names": ["a/b:1", "c"]}) == "/v1.51/x?names=a/b:1&names=c"
    assert quote("a b/é?#%") == "a%20b/%C3%A9%3F%23%25"


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)


@given(json_values)
def test_json_text_agrees_with_the_standard_library(value: object) -> None:
    assert json.loads(jsontext.dumps(value)) == value
    assert jsontext.loads(json.dumps(value)) == value
    assert jsontext.pretty(value) == json.dumps(value, indent=4, ensure_ascii=False)


def no_constant(name: str) -> None:
    raise ValueError(f"{name} is Python's, not JSON's")


@given(st.text())
def test_wrong_json_is_an_error_and_never_a_crash(text: str) -> None:
    try:
        expected = json.loads(text, parse_constant=no_constant)
    except ValueError:
        with pytest.raises(jsontext.JsonError):
            jsontext.loads(text)
    else:
        assert jsontext.loads(text) == expected


@pytest.mark.parametrize("text", ["", "{", '{"a":', "[1,]", "nul", "NaN", "{} x", '"\x01"', b"\xff"])
def test_wrong_json_examples(text: str | bytes) -> None:
    with pytest.raises(jsontext.JsonError):
        jsontext.loads(text)


def test_go_json_escapes_html() -> None:
    assert jsontext.dumps_go({"a": "<&>é"}) == '{"a":"\\u003c\\u0026\\u003eé"}'
