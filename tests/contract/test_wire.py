"""The server against clients that behave badly, slowly or unusually."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import threading
import time

from .conftest import Served, read_all, read_body, read_chunk, read_exactly, read_head, read_response

CHUNKED = b"Content-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
PING = b"GET /_ping HTTP/1.1\r\nHost: d\r\n\r\n"


def test_ping_carries_the_headers_that_clients_negotiate_with(served: Served) -> None:
    answer = served.raw(b"HEAD /_ping HTTP/1.1\r\nHost: d\r\n\r\n")
    head, _, body = answer.partition(b"\r\n\r\n")
    assert body == b""
    assert head.startswith(b"HTTP/1.1 200 OK\r\n")
    for line in (
        b"Api-Version: 1.51",
        b"Ostype: linux",
        b"Docker-Experimental: false",
        b"Swarm: inactive",
        b"Builder-Version: 1",
    ):
        assert line.lower() in head.lower(), line
    assert served.raw(PING).endswith(b"\r\n\r\nOK")


def test_one_connection_serves_many_requests(served: Served) -> None:
    with served.connect() as client:
        for _ in range(3):
            client.sendall(PING)
            assert read_response(client) == (200, b"OK")


def test_pipelined_requests_are_answered_in_order(served: Served) -> None:
    with served.connect() as client:
        client.sendall(PING + b"GET /containers/json HTTP/1.1\r\nHost: d\r\n\r\n" + PING)
        assert read_response(client) == (200, b"OK")
        assert read_response(client) == (200, [])
        assert read_response(client) == (200, b"OK")


def test_pipelined_requests_whose_answers_nobody_reads_stop_being_read(served: Served) -> None:
    with served.connect() as client:
        client.setblocking(False)
        sent, deadline = 0, time.monotonic() + 10
        idle_since = time.monotonic()
        while time.monotonic() < deadline and time.monotonic() - idle_since < 0.5:
            try:
                sent += client.send(PING * 1000)
                idle_since = time.monotonic()
            except BlockingIOError:
                time.sleep(0.01)
        assert sent < 16 << 20, "the server took everything although nobody reads its answers"
    assert served.ask("GET", "/_ping") == (200, b"OK")


def test_a_request_sent_byte_by_byte(served: Served) -> None:
    with served.connect() as client:
        for byte in PING:
            client.sendall(bytes([byte]))
        assert read_response(client) == (200, b"OK")


def test_header_of_one_megabyte_is_refused_and_the_connection_closed(served: Served) -> None:
    with served.connect() as client:
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # the server may have seen enough early
            client.sendall(b"GET /_ping HTTP/1.1\r\nHost: d\r\nX-Big: " + b"x" * (1 << 20) + b"\r\n\r\n")
        status, body = read_response(client)
        assert status == 431 and "message" in body
        assert client.recv(1) == b""


def test_bytes_that_are_not_http(served: Served) -> None:
    answer = served.raw(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert b'"message":"malformed request' in answer


def test_missing_host_header(served: Served) -> None:
    assert served.raw(b"GET /_ping HTTP/1.1\r\n\r\n").startswith(b"HTTP/1.1 400 ")


def test_truncated_head(served: Served) -> None:
    assert served.raw(b"GET /_ping HTTP/1.1\r\nHos").startswith(b"HTTP/1.1 400 ")


def test_truncated_body_changes_nothing(served: Served) -> None:
    head = (
        b"POST /containers/create HTTP/1.1\r\nHost: d\r\nContent-Type: application/json\r\nContent-Length: 900\r\n\r\n"
    )
    answer = served.raw(head + b'{"Image":"tiny"')
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert served.app.containers.created == []
    assert served.ask("GET", "/_ping") == (200, b"OK")


def test_malformed_chunk(served: Served) -> None:
    head = b"POST /containers/create HTTP/1.1\r\nHost: d\r\n" + CHUNKED
    assert served.raw(head + b"zz\r\n{}\r\n0\r\n\r\n").startswith(b"HTTP/1.1 400 ")


def test_chunked_body(served: Served) -> None:
    body = b'{"Name":"chunky"}'
    head = b"POST /networks/create HTTP/1.1\r\nHost: d\r\n" + CHUNKED
    answer = served.raw(head + b"".join(b"1\r\n%c\r\n" % byte for byte in body) + b"0\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 201 ")


def test_expect_100_continue(served: Served) -> None:
    body = b'{"Name":"polite"}'
    with served.connect() as client:
        client.sendall(
            b"POST /networks/create HTTP/1.1\r\nHost: d\r\nContent-Type: application/json\r\n"
            b"Expect: 100-continue\r\nContent-Length: %d\r\n\r\n" % len(body)
        )
        assert read_head(client).startswith(b"HTTP/1.1 100 ")
        client.sendall(body)
        status, answer = read_response(client)
        assert status == 201 and len(answer["Id"]) == 64


def test_expect_100_continue_is_not_asked_for_when_refused(served: Served) -> None:
    with served.connect() as client:
        client.sendall(b"POST /nosuch HTTP/1.1\r\nHost: d\r\nExpect: 100-continue\r\nContent-Length: 5000\r\n\r\n")
        assert read_response(client)[0] == 404
        assert client.recv(1) == b"", "the body never came, so the connection cannot be used again"


def test_refused_upload_still_gets_its_answer(served: Served) -> None:
    """A client that is in the middle of sending must be able to read the refusal instead of a reset."""
    with served.connect() as client:
        client.sendall(b"POST /images/load HTTP/1.1\r\nHost: d\r\nContent-Length: 50000000\r\n\r\nbad")

        def push() -> None:
            try:
                while True:
                    client.sendall(b"x" * 65536)
            except OSError:
                pass

        pusher = threading.Thread(target=push, daemon=True)
        pusher.start()
        status, body = read_response(client)
        assert (status, body) == (400, {"message": "this is no image archive"})
        assert client.recv(1) == b""


def test_upload_is_streamed_and_counted(served: Served) -> None:
    size = 20 << 20
    with served.connect() as client:
        client.sendall(b"POST /images/load HTTP/1.1\r\nHost: d\r\nContent-Length: %d\r\n\r\n" % size)
        for _ in range(size >> 16):
            client.sendall(b"x" * 65536)
        status, lines = read_response(client)
    assert status == 200
    assert [line["stream"] for line in lines] == ["Loaded image: tiny:latest\n", "Loaded image: other:latest\n"]
    assert served.app.images.received == size


def test_client_that_dies_in_an_upload_fails_the_upload(served: Served) -> None:
    with served.connect() as client:
        client.sendall(b"POST /images/load HTTP/1.1\r\nHost: d\r\nContent-Length: 50000000\r\n\r\n" + b"x" * 100000)
    _until(lambda: served.app.images.upload_failed is not None)
    assert isinstance(served.app.images.upload_failed, ConnectionError)
    assert not served.app.images.is_uploaded.is_set()


def test_hundred_idle_connections_hinder_nobody(served: Served) -> None:
    idle = [served.connect() for _ in range(100)]
    assert served.ask("GET", "/_ping") == (200, b"OK")
    idle[50].sendall(PING)
    assert read_response(idle[50]) == (200, b"OK")
    for client in idle:
        client.close()
    _until(lambda: not served.server._connections)


def test_slow_reader_holds_no_memory(served: Served) -> None:
    identifier = _container(served)
    with served.connect() as client:
        client.sendall(
            f"GET /containers/{identifier}/logs?stdout=1&follow=1&tail=7777 HTTP/1.1\r\nHost: d\r\n\r\n".encode()
        )
        read_head(client)
        time.sleep(0.3)  # a reader that does not read; the server must have stopped by itself
        before = served.app.sessions.written
        time.sleep(0.3)
        assert served.app.sessions.written == before, "the server goes on writing to a client that does not read"
        assert before < 4 << 20
        for _ in range(50):
            read_chunk(client)
    assert served.app.sessions.written > before
    _until(lambda: not served.server._connections)


def test_every_piece_of_a_stream_is_sent_at_once(served: Served) -> None:
    identifier = _container(served)
    with served.connect() as client:
        client.sendall(
            f"GET /containers/{identifier}/logs?stdout=1&stderr=1&follow=1 HTTP/1.1\r\nHost: d\r\n\r\n".encode()
        )
        head = read_head(client)
        assert b"application/vnd.docker.multiplexed-stream" in head
        assert read_chunk(client) == b"\x01\0\0\0\0\0\0\x04out\n"
        assert read_chunk(client) == b"\x02\0\0\0\0\0\0\x04err\n"


def test_client_that_vanishes_cancels_a_follower(served: Served) -> None:
    identifier = _container(served)
    with served.connect() as client:
        client.sendall(f"GET /containers/{identifier}/logs?stdout=1&follow=1 HTTP/1.1\r\nHost: d\r\n\r\n".encode())
        _until(served.app.sessions.is_following.is_set)
    _until(served.app.sessions.is_cancelled.is_set)


def test_half_closed_follower_goes_on_until_the_client_is_gone(served: Served) -> None:
    identifier = _container(served)
    client = served.connect()
    client.sendall(f"GET /containers/{identifier}/logs?stdout=1&follow=1 HTTP/1.1\r\nHost: d\r\n\r\n".encode())
    client.shutdown(socket.SHUT_WR)
    read_head(client)
    _until(served.app.sessions.is_following.is_set)
    assert not served.app.sessions.is_cancelled.is_set()
    client.close()
    _until(served.app.sessions.is_cancelled.is_set)


def test_vanished_follower_is_noticed_behind_unread_pipelined_requests(served: Served) -> None:
    """What is pipelined behind a running request is read up to a limit only; the end lies behind it."""
    identifier = _container(served)
    client = served.connect()
    client.sendall(f"GET /containers/{identifier}/logs?stdout=1&follow=1 HTTP/1.1\r\nHost: d\r\n\r\n".encode())
    read_head(client)
    client.setblocking(False)
    with contextlib.suppress(BlockingIOError):
        while True:
            client.sendall(PING * 1000)
    _until(served.app.sessions.is_following.is_set)
    client.close()
    _until(served.app.sessions.is_cancelled.is_set)
    _until(lambda: not served.server._connections)


def test_create_goes_on_when_its_client_vanishes(served: Served) -> None:
    import asyncio

    gate = served.call(asyncio.Event)
    served.app.containers.gate = gate
    body = json.dumps({"Image": "tiny"}).encode()
    with served.connect() as client:
        client.sendall(
            b"POST /containers/create?name=orphan HTTP/1.1\r\nHost: d\r\nContent-Type: application/json\r\n"
            b"Content-Length: %d\r\n\r\n" % len(body) + body
        )
        _until(lambda: len(served.server._connections) == 1)
    _until(lambda: not served.server._connections)
    served.call(gate.set)
    _until(lambda: "orphan" in served.app.engine.world.container_ids)


def test_hijack_with_upgrade_delivers_early_bytes_and_half_close(served: Served) -> None:
    identifier = _container(served)
    with served.connect() as client:
        client.sendall(
            f"POST /v1.50/containers/{identifier}/attach?stream=1&stdin=1&stdout=1 HTTP/1.1\r\nHost: d\r\n"
            "Connection: Upgrade\r\nUpgrade: tcp\r\nContent-Length: 0\r\n\r\nearly".encode()
        )
        head = read_head(client)
        assert head.startswith(b"HTTP/1.1 101 UPGRADED\r\n")
        assert b"Upgrade: tcp" in head and b"Connection: Upgrade" in head
        assert b"Content-Type: application/vnd.docker.multiplexed-stream" in head
        assert read_exactly(client, 10) == b"echo:early"
        client.sendall(b"late")
        assert read_exactly(client, 9) == b"echo:late"
        client.shutdown(socket.SHUT_WR)
        assert read_all(client) == b"bye"


def test_hijack_without_upgrade_is_a_bare_200(served: Served) -> None:
    identifier = _container(served)
    with served.connect() as client:
        client.sendall(f"POST /containers/{identifier}/attach?stream=1 HTTP/1.1\r\nHost: d\r\n\r\nearly".encode())
        head = read_head(client)
        assert head == b"HTTP/1.1 200 OK\r\nContent-Type: application/vnd.docker.raw-stream\r\n\r\n"
        client.shutdown(socket.SHUT_WR)
        assert read_all(client) == b"echo:earlybye"


def test_hijack_content_type_before_1_42(served: Served) -> None:
    identifier = _container(served)
    with served.connect() as client:
        client.sendall(
            f"POST /v1.41/containers/{identifier}/attach?stream=1 HTTP/1.1\r\nHost: d\r\n"
            "Connection: Upgrade\r\nUpgrade: tcp\r\n\r\n".encode()
        )
        assert b"application/vnd.docker.raw-stream" in read_head(client)


def test_client_that_dies_after_half_close_cancels_its_attach(served: Served) -> None:
    identifier = _container(served)
    client = served.connect()
    client.sendall(f"POST /containers/{identifier}/attach?stream=1 HTTP/1.1\r\nHost: d\r\n\r\n".encode())
    read_head(client)
    client.close()
    _until(lambda: not served.server._connections)


def test_hijack_echo_of_much_data_both_ways(served: Served) -> None:
    identifier = _container(served)
    size = 8 << 20
    with served.connect() as client:
        client.sendall(f"POST /containers/{identifier}/attach?stream=1 HTTP/1.1\r\nHost: d\r\n\r\n".encode())
        read_head(client)

        def push() -> None:
            for _ in range(size >> 16):
                client.sendall(b"y" * 65536)
            client.shutdown(socket.SHUT_WR)

        pusher = threading.Thread(target=push, daemon=True)
        pusher.start()
        received = read_all(client)
        pusher.join(10)
    assert received.count(b"y") == size + 1  # the y of "bye"
    assert received.endswith(b"bye")


def test_wait_sends_its_head_before_the_end(served: Served) -> None:
    identifier = _container(served)
    with served.connect() as client:
        client.sendall(f"POST /containers/{identifier}/wait?condition=next-exit HTTP/1.1\r\nHost: d\r\n\r\n".encode())
        head = read_head(client)
        assert head.startswith(b"HTTP/1.1 200 ")
        served.call(lambda: served.app.containers.finish(identifier, 5))
        assert json.loads(read_body(client, head)) == {"StatusCode": 5}


def test_events_stream_and_end_at_until(served: Served) -> None:
    with served.connect() as client:
        client.sendall(b'GET /events?filters={"event":["create"]} HTTP/1.1\r\nHost: d\r\n\r\n')
        assert read_head(client).startswith(b"HTTP/1.1 200 ")
        identifier = _container(served, "seen")
        event = json.loads(read_chunk(client))
        assert (event["Type"], event["Action"], event["id"]) == ("container", "create", identifier)
        assert event["Actor"]["Attributes"]["name"] == "seen"
    now = int(time.time()) + 1
    status, past = served.ask("GET", f"/events?since=1&until={now}")
    assert status == 200 and past["Action"] == "create"


def test_stop_does_not_wait_for_raw_streams(served: Served) -> None:
    identifier = _container(served)
    exec_id = served.ask("POST", f"/containers/{identifier}/exec", {"Cmd": ["block"]})[1]["Id"]
    with served.connect() as client:
        client.sendall(f"POST /exec/{exec_id}/start HTTP/1.1\r\nHost: d\r\nContent-Length: 0\r\n\r\n".encode())
        read_head(client)
        started = time.monotonic()
        served.run(served.server.close(grace=10))
        assert time.monotonic() - started < 5


def test_stop_ends_watchers_and_lets_changes_finish(served: Served) -> None:
    identifier = _container(served)
    watcher = served.connect()
    watcher.sendall(b"GET /events HTTP/1.1\r\nHost: d\r\n\r\n")
    read_head(watcher)
    idle = served.connect()
    served.run(served.server.close(grace=2))
    assert idle.recv(1) == b""
    with contextlib.suppress(ConnectionResetError):
        assert b"0\r\n\r\n" not in read_all(watcher)  # cut, not ended as if complete
    assert not os.path.exists(served.path)
    assert identifier


def _container(served: Served, name: str = "c1") -> str:
    status, body = served.ask("POST", f"/containers/create?name={name}", {"Image": "tiny", "Cmd": ["sleep", "1"]})
    assert status == 201, body
    return str(body["Id"])


def _until(condition: object) -> None:
    """Wait for something that another thread brings about; fails after ten seconds."""
    deadline = time.monotonic() + 10
    while not condition():  # type: ignore[operator]
        assert time.monotonic() < deadline, "did not happen within ten seconds"
        time.sleep(0.005)
