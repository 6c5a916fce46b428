"""api.router: every kind of error has a status, versions, lookup of routes, and answers to bugs."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any, cast

import msgspec
import pytest

from tsunagu.api.app import App
from tsunagu.api.request import Request, Response, json_response
from tsunagu.api.router import STATUSES, Route, Router, error_response, status_of
from tsunagu.api.routes import ROUTES
from tsunagu.model import errors
from tsunagu.model.errors import EngineError, InvalidParameter, KernelFailure, NotFound, NotModified
from tsunagu.wire.http import RequestHead


class NoChannel:
    def chunks(self) -> AsyncIterator[bytes]:
        raise AssertionError

    def start(self, status: int, headers: Any) -> None:
        raise AssertionError

    async def write(self, data: bytes) -> None:
        raise AssertionError

    def hijack(self, content_type: bytes, *, is_upgrade: bool) -> Any:
        raise AssertionError


def request(target: str, method: str = "GET", **headers: str) -> Request:
    return Request(RequestHead(method, target, headers, has_body=False), NoChannel())


def router(*routes: Route) -> Router:
    return Router(cast(App, object()), routes)


def echo(request: Request) -> Response:
    return json_response([request.path, request.words, list(request.version)])


def all_kinds(kind: type[EngineError] = EngineError) -> set[type[EngineError]]:
    return {k for sub in kind.__subclasses__() for k in {sub, *all_kinds(sub)}}


def test_every_kind_of_error_has_a_status() -> None:
    ours = {k for k in all_kinds() if k.__module__ == errors.__name__}
    assert ours == set(STATUSES)
    for kind in all_kinds():
        if not kind.__module__.startswith("tsunagu."):
            continue  # made by a test
        assert 300 <= status_of(kind.__new__(kind, "x")) < 600  # some take more words


def test_a_kind_without_status_is_noticed() -> None:
    class Odd(EngineError):
        pass

    with pytest.raises(LookupError):
        status_of(Odd("x"))


def test_derived_kinds_have_the_status_of_their_kind() -> None:
    class RuntimeFailed(KernelFailure):
        exit_code = 128

    error = RuntimeFailed("x")
    assert status_of(error) == 500
    for code in (126, 127):  # the container's own command is wrong: Docker says 400
        error.exit_code = code
        assert status_of(error) == 400


def test_bodies_of_errors() -> None:
    answer = error_response(NotFound("No such container: x", hint="look with ps -a"), request("/"))
    assert (answer.status, answer.body) == (404, b'{"message":"No such container: x\\nlook with ps -a"}\n')
    assert error_response(NotModified("x"), request("/")).body == b""
    bug = error_response(ValueError("the secret"), request("/"))
    assert bug.status == 500 and b"secret" not in bug.body and b"ValueError" in bug.body


@pytest.mark.parametrize(
    ("target", "path", "words", "version"),
    [
        ("/a", "/a", {}, [1, 51]),
        ("/v1.40/a", "/a", {}, [1, 40]),
        ("/v1.51/b/x/json", "/b/x/json", {"word": "x"}, [1, 51]),
        ("/b/x%2Fy/json?z=1", None, None, None),
        ("/c/host:5000/x/y/json", "/c/host:5000/x/y/json", {"word": "host:5000/x/y"}, [1, 51]),
        ("/c/host%3A5000%2Fx/json", "/c/host:5000/x/json", {"word": "host:5000/x"}, [1, 51]),
        ("http://docker/v1.30/a", "/a", {}, [1, 30]),
    ],
)
def test_lookup(target: str, path: str | None, words: dict[str, str] | None, version: list[int] | None) -> None:
    table = router(
        Route("GET", "/a", echo), Route("GET", "/b/{word}/json", echo), Route("GET", "/c/{word*}/json", echo)
    )
    if path is None:
        with pytest.raises(NotFound, match="page not found"):
            table.answer(request(target))
        return
    answer = table.answer(request(target))
    assert isinstance(answer, Response)
    assert msgspec.json.decode(answer.body) == [path, words, version]


@pytest.mark.parametrize("version", ["1.52", "2.0", "1.99", "99"])
def test_too_new(version: str) -> None:
    with pytest.raises(InvalidParameter, match=r"is too new\. Maximum supported API version is 1"):
        router(Route("GET", "/a", echo)).answer(request(f"/v{version}/a"))


@pytest.mark.parametrize("version", ["1.23", "1.1", "0.9", "1", "..."])
def test_too_old(version: str) -> None:
    with pytest.raises(InvalidParameter, match=r"is too old\. Minimum supported API version is 1\.24, please upgrade"):
        router(Route("GET", "/a", echo)).answer(request(f"/v{version}/a"))


def test_origin_is_refused_before_anything_else() -> None:
    with pytest.raises(errors.Forbidden):
        router().answer(request("/nosuch", origin="http://x"))


def test_cancellable_is_told_to_the_request() -> None:
    asked = request("/a")
    router(Route("GET", "/a", echo, is_cancellable=True)).answer(asked)
    assert asked.is_cancellable


def test_route_table_has_no_doubles_and_changes_are_never_cancelled() -> None:
    keys = [(r.method, r.pattern) for r in ROUTES]
    assert len(keys) == len(set(keys))
    for route in ROUTES:
        if route.is_cancellable and route.method != "GET":
            assert route.pattern.endswith(("/attach", "/wait")), route


def test_query_forms() -> None:
    asked = request("/a?t=10&bad=x&all=0&size=None&force=&names=a&names=b&empty=&q=a%20b+c")
    assert (asked.number("t"), asked.number("nosuch"), asked.number("empty")) == (10, None, None)
    assert [asked.flag(n) for n in ("all", "size", "force", "t", "nosuch")] == [False, False, False, True, False]
    assert asked.flag("nosuch", default=True) is True
    assert asked.values("names") == ["a", "b"]
    assert asked.text("q") == "a b c"
    with pytest.raises(InvalidParameter, match=r'strconv\.Atoi: parsing "x": invalid syntax'):
        asked.number("bad")
