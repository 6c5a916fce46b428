"""Which registries are asked without TLS, which manifest of an index is meant, Docker's words for what went wrong."""

from __future__ import annotations

import base64
import json

import pytest

from tsunagu.model.errors import EngineError, InvalidParameter, NotFound, NotSupported, Unavailable
from tsunagu.model.image import parse_reference
from tsunagu.rules import registries


@pytest.mark.parametrize(
    ("domain", "expected"),
    [
        ("localhost", True),
        ("localhost:5000", True),
        ("127.0.0.1:5000", True),
        ("127.9.9.9", True),
        ("[::1]:5000", True),
        ("[fd00::1]:5000", False),
        ("10.0.0.1:5000", False),
        ("registry.example:5000", False),
        ("localhost.example", False),
        ("docker.io", False),
    ],
)
def test_only_this_machine_is_asked_without_tls(domain: str, expected: bool) -> None:
    assert registries.is_loopback(domain) is expected


def test_short_names() -> None:
    assert registries.remote_name(parse_reference("nginx")) == "docker://docker.io/library/nginx:latest"
    assert registries.remote_name(parse_reference("a/b:v1")) == "docker://docker.io/a/b:v1"
    assert registries.remote_name(parse_reference("localhost:5000/x")) == "docker://localhost:5000/x:latest"
    digest = f"sha256:{'a' * 64}"
    assert registries.remote_name(parse_reference(f"x:v1@{digest}")) == f"docker://docker.io/library/x@{digest}"
    assert registries.remote_name(parse_reference("x", default_tag="")) == "docker://docker.io/library/x"


def header(**fields: str) -> str:
    return base64.urlsafe_b64encode(json.dumps(fields).encode()).decode().rstrip("=")


def test_auth_file() -> None:
    made = json.loads(registries.auth_file(header(username="u", password="p:w"), "localhost:5000"))
    assert made == {"auths": {"localhost:5000": {"auth": base64.b64encode(b"u:p:w").decode()}}}
    assert json.loads(registries.auth_file("", "x")) == {"auths": {}}
    assert json.loads(registries.auth_file("e30=", "x")) == {"auths": {}}
    token = json.loads(registries.auth_file(header(identitytoken="t"), "x"))
    assert token["auths"]["x"]["identitytoken"] == "t"
    with pytest.raises(NotSupported, match="registrytoken"):
        registries.auth_file(header(registrytoken="t"), "x")
    for bad in ("nothing!", "W10="):
        with pytest.raises(InvalidParameter, match="invalid X-Registry-Auth header"):
            registries.auth_file(bad, "x")


def test_choice_of_platform() -> None:
    def entry(digest: str, *words: str) -> dict[str, object]:
        return {"digest": digest, "platform": dict(zip(("os", "architecture", "variant"), words, strict=False))}

    index = [entry("a", "unknown", "unknown"), entry("b", "linux", "amd64"), entry("c", "linux", "arm", "v7")]
    assert registries.choose(index, "linux/amd64") == "b"
    assert registries.choose(index, "linux/arm") == "c"
    assert registries.choose(index, "linux/arm/v7") == "c"
    with pytest.raises(NotFound, match="no matching manifest for linux/arm/v6 in the manifest list entries"):
        registries.choose(index, "linux/arm/v6")
    with pytest.raises(InvalidParameter):
        registries.check_platform("windows/amd64")


PREFIX = 'time="2026-11-25T09:02:48Z" level=fatal msg="Error parsing image name \\"docker://h/x:latest\\": '


@pytest.mark.parametrize(
    ("stderr", "kind", "expected"),
    [
        (
            "reading manifest latest in h/x: manifest unknown: manifest unknown",
            NotFound,
            "manifest for localhost:5000/x:latest not found: manifest unknown: manifest unknown",
        ),
        (
            'pinging container registry h: Get \\"http://h/v2/\\": dial tcp 127.0.0.1:1: connect: connection refused',
            Unavailable,
            'Get "http://h/v2/": dial tcp 127.0.0.1:1: connect: connection refused',
        ),
        (
            "reading manifest latest in h/x: requested access to the resource is denied",
            NotFound,
            "pull access denied for localhost:5000/x, repository does not exist or may require 'docker login': "
            "denied: requested access to the resource is denied",
        ),
        (
            "reading manifest latest in h/x: unauthorized: authentication required",
            Unavailable,
            "pulling localhost:5000/x:latest failed: unauthorized: authentication required",
        ),
        (
            "reading manifest: toomanyrequests: You have reached your pull rate limit",
            Unavailable,
            "toomanyrequests: You have reached your pull rate limit",
        ),
        (
            "something odd",
            Unavailable,
            'pulling localhost:5000/x:latest failed: Error parsing image name "docker://h/x:latest": something odd',
        ),
    ],
)
def test_words(stderr: str, kind: type[EngineError], expected: str) -> None:
    words = registries.fatal_words(f'time="x" level=warning msg="first"\n{PREFIX}{stderr}"\n')
    found = registries.pull_failure(parse_reference("localhost:5000/x"), words)
    assert (type(found), found.message) == (kind, expected)
    assert registries.fatal_words("killed\n") == "killed"
