"""Statuses, words and JSON of the endpoints, asked with bare HTTP."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import quote

import pytest

from .conftest import Served


def _create(served: Served, name: str = "c1", **body: Any) -> str:
    status, answer = served.ask("POST", f"/v1.51/containers/create?name={name}", {"Image": "tiny", **body})
    assert status == 201, answer
    return str(answer["Id"])


@pytest.mark.parametrize(
    ("target", "status", "message"),
    [
        ("/v1.99/_ping", 400, "client version 1.99 is too new. Maximum supported API version is 1.51"),
        (
            "/v1.12/_ping",
            400,
            "client version 1.12 is too old. Minimum supported API version is 1.24, "
            "please upgrade your client to a newer version",
        ),
        ("/nosuch", 404, "page not found"),
        ("/v1.51/nosuch/thing", 404, "page not found"),
        ("/", 404, "page not found"),
        ("/containers/nosuch/json", 404, "No such container: nosuch"),
        ("/networks/nosuch", 404, "network nosuch not found"),
        ("/images/nosuch/json", 404, "No such image: nosuch:latest"),
        ("/exec/nosuch/json", 404, "No such exec instance: nosuch"),
        ("/volumes/nosuch", 404, "get nosuch: no such volume"),
        ("/containers/c1/logs", 400, "Bad parameters: you must choose at least one stream"),
        ("/containers/json?filters=" + quote('{"nosuch":["1"]}'), 400, "invalid filter 'nosuch'"),
        ("/containers/json?filters=%7B", 400, "invalid filter"),
        ("/containers/json?limit=abc", 400, 'strconv.Atoi: parsing "abc": invalid syntax'),
        ("/events?since=yesterday", 400, 'invalid value for time: parsing "yesterday"'),
        ("/distribution/nginx/json", 503, "asking registries is not supported yet"),
        ("/swarm", 503, 'This node is not a swarm manager. Use "docker swarm init" or "docker swarm join"'),
        ("/services/abc/logs", 503, "This node is not a swarm manager."),
    ],
)
def test_refused_questions(served: Served, target: str, status: int, message: str) -> None:
    answer, body = served.ask("GET", target)
    assert answer == status
    assert body["message"].startswith(message)


@pytest.mark.parametrize("version", ["v1.24", "v1.41", "v1.51", "v1.44"])
def test_versions_spoken(served: Served, version: str) -> None:
    assert served.ask("GET", f"/{version}/_ping") == (200, b"OK")


def test_wrong_method_is_page_not_found(served: Served) -> None:
    assert served.ask("PUT", "/containers/json")[0] == 404


def test_browsers_are_refused(served: Served) -> None:
    status, body = served.ask("GET", "/_ping", headers="Origin: http://evil.example\r\n")
    assert status == 403 and "Origin" in body["message"]


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"{", "invalid JSON"),
        (b"", "invalid JSON: got EOF while reading request body"),
        (b"[]", "invalid JSON: expected an object"),
        (b'{"Image":"tiny"}trailing', "invalid JSON"),
        (b'{"Image":"tiny","Env":"A=b"}', "invalid JSON: Env"),
        (b'{"Image":5}', "invalid JSON: Image"),
        (b'{"Image":"tiny","HostConfig":[]}', "invalid JSON: HostConfig"),
        (b'{"Image":"tiny","HostConfig":{"Dns":[1]}}', "invalid JSON: HostConfig.Dns[0]"),
        (b'{"Image":"tiny","ExposedPorts":{"99999/tcp":{}}}', 'invalid port specification: "99999/tcp"'),
        (b'{"Image":"tiny","HostConfig":{"Dns":["dns.example"]}}', "invalid IP address: dns.example"),
        (b'{"Image":"\xff"}', "invalid JSON"),
        (b"[" * 100_000, "invalid JSON"),
    ],
)
def test_malformed_create(served: Served, body: bytes, message: str) -> None:
    status, answer = served.ask("POST", "/containers/create", body)
    assert (status, served.app.containers.created) == (400, [])
    assert answer["message"].startswith(message), answer


def test_body_must_say_that_it_is_json(served: Served) -> None:
    status, answer = served.ask(
        "POST", "/containers/create", b'{"Image":"tiny"}', headers="Content-Type: text/plain\r\n"
    )
    assert status == 400
    assert answer["message"] == "unsupported Content-Type header (text/plain): must be 'application/json'"


def test_body_above_the_limit(served: Served) -> None:
    status, answer = served.ask("POST", "/containers/create", b'{"Image":"' + b"x" * (5 << 20) + b'"}')
    assert status == 400 and "larger than" in answer["message"]


def test_bug_in_a_handler_is_told_with_an_id_and_logged(served: Served, caplog: pytest.LogCaptureFixture) -> None:
    identifier = _create(served)
    status, answer = served.ask("POST", f"/containers/{identifier}/rename?name=x")
    assert status == 500
    number = answer["message"].split()[2].rstrip(":")
    assert "nobody has thought of" not in answer["message"]
    record = next(r for r in caplog.records if number in r.getMessage())
    assert record.exc_info is not None


def test_states_map_to_statuses(served: Served) -> None:
    identifier = _create(served)
    assert served.ask("POST", f"/containers/{identifier}/start")[0] == 204
    assert served.ask("POST", f"/containers/{identifier}/start") == (304, b"")
    assert served.ask("DELETE", f"/containers/{identifier}")[0] == 409
    assert served.ask("DELETE", f"/containers/{identifier}?force=1") == (204, b"")
    status, answer = served.ask("POST", "/containers/create?name=a b", {"Image": "tiny"})
    assert status in (400, 404)  # a space ends the target
    status, answer = served.ask("POST", "/containers/create?name=x", {"Image": "tiny"})
    assert (status, answer["message"]) == (
        400,
        "Invalid container name (x), only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed",
    )


def test_command_that_cannot_be_executed_is_the_callers_fault(served: Served) -> None:
    identifier = _create(served, Cmd=["nosuchcmd"])
    status, answer = served.ask("POST", f"/containers/{identifier}/start")
    assert status == 400 and "executable file not found" in answer["message"]


def test_two_creates_share_nothing(served: Served) -> None:
    """CVE-2020-14370: the environment of one container leaked into the next."""
    _create(served, "one", Env=["SECRET=1"], Labels={"a": "b"}, HostConfig={"Tmpfs": {"/t": ""}})
    _create(served, "two")
    _, config, host, _ = served.app.containers.created[1]
    assert (config.env, config.labels, host.tmpfs) == ((), {}, None)


def test_list_filters_and_order(served: Served) -> None:
    for name in ("aa", "bb", "cc"):
        _create(served, name, Labels={"n": name})
    served.ask("POST", "/containers/bb/start")

    def names(query: str) -> list[str]:
        status, lines = served.ask("GET", f"/containers/json?{query}")
        assert status == 200, lines
        return [line["Names"][0] for line in ([lines] if isinstance(lines, dict) else lines)]

    def filtered(**filters: Any) -> list[str]:
        return names("all=1&filters=" + quote(json.dumps(filters)))

    assert names("") == ["/bb"]
    assert names("all=true") == ["/cc", "/bb", "/aa"]
    assert names("limit=2") == ["/cc", "/bb"]
    assert filtered(name=["a|c"]) == ["/cc", "/aa"]
    assert filtered(name={"^/aa$": True, "bb": False}) == ["/aa"]
    assert filtered(label=["n=bb"]) == ["/bb"]
    assert filtered(status=["created"]) == ["/cc", "/aa"]
    assert filtered(before=["bb"]) == ["/aa"]
    assert filtered(since=["bb"]) == ["/cc"]
    assert filtered(ancestor=["tiny"]) == ["/cc", "/bb", "/aa"]
    assert filtered(ancestor=["nosuch"]) == []
    assert filtered(network=["bridge"], status=["running"]) == ["/bb"]
    assert filtered(id=[served.app.engine.world.container_ids["aa"][:6]]) == ["/aa"]
    status, answer = served.ask("GET", "/containers/json?filters=" + quote('{"status":["odd"]}'))
    assert status == 400 and "status=odd" in answer["message"]


def test_inspect_with_sizes(served: Served) -> None:
    _create(served)
    status, answer = served.ask("GET", "/containers/c1/json?size=1")
    assert (status, answer["SizeRw"], answer["SizeRootFs"]) == (200, 10, 1244)
    assert "SizeRw" not in served.ask("GET", "/containers/c1/json")[1]


def test_resize_and_top(served: Served) -> None:
    _create(served)
    assert served.ask("POST", "/containers/c1/resize?h=24&w=80") == (200, b"")
    assert served.ask("POST", "/containers/c1/resize?h=24")[0] == 400
    assert served.ask("POST", "/containers/c1/resize?h=-1&w=80")[0] == 400
    assert served.ask("GET", "/containers/c1/top?ps_args=aux")[1]["Processes"] == [["1", "sh aux"]]


def test_errors_of_a_pull_before_its_first_line_are_a_status(served: Served) -> None:
    status, answer = served.ask("POST", "/images/create?fromImage=nginx&tag=v1")
    assert (status, answer["message"]) == (404, "manifest for nginx:v1 not found: manifest unknown: manifest unknown")
    status, answer = served.ask("POST", "/images/create?fromImage=Nginx&tag=v1")
    assert status == 400 and "must be lowercase" in answer["message"]


def test_error_in_a_saved_archive_comes_as_a_status(served: Served) -> None:
    assert served.ask("GET", "/images/get?names=nosuch")[0] == 404
    assert served.ask("GET", "/images/get")[0] == 400


def test_network_create_refusals(served: Served) -> None:
    for body, status, message in (
        ({"Name": "n", "ConfigOnly": True}, 501, "ConfigOnly is not supported yet"),
        ({"Name": "n", "IPAM": {"Driver": "dhcp"}}, 501, "IPAM.Driver dhcp is not supported"),
        ({"Name": "n", "IPAM": {"Config": [{"Subnet": 5}]}}, 400, "invalid JSON: IPAM.Config[0].Subnet"),
        ({"Name": "n", "Scope": "swarm"}, 501, "Scope is not supported yet"),
    ):
        answer = served.ask("POST", "/networks/create", body)
        assert (answer[0], answer[1]["message"][: len(message)]) == (status, message)
    assert served.ask("POST", "/networks/create", {"Name": "n", "Scope": "local", "CheckDuplicate": True})[0] == 201


def test_connect_and_disconnect(served: Served) -> None:
    body = {"Container": "c1", "EndpointConfig": {"Aliases": ["a"], "IPAMConfig": None, "NetworkID": "x"}}
    assert served.ask("POST", "/networks/bridge/connect", body) == (200, b"")
    assert served.app.connections.made[0][2].aliases == ("a",)
    status, answer = served.ask("POST", "/networks/bridge/connect", {"Container": "c1", "EndpointConfig": {"Odd": 1}})
    assert (status, answer["message"]) == (501, "EndpointConfig.Odd is not supported yet")
    assert served.ask("POST", "/networks/bridge/disconnect", {"Container": "c1", "Force": True}) == (200, b"")
    assert served.app.connections.made == []
