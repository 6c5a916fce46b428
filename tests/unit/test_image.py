"""References as users type them, and the identity of layers."""

from __future__ import annotations

import hashlib

import pytest

from tsunagu.model.errors import InvalidParameter
from tsunagu.model.image import Image, chain_ids, parse_reference


@pytest.mark.parametrize(
    ("word", "familiar", "full"),
    [
        ("nginx", "nginx:latest", "docker.io/library/nginx"),
        ("nginx:1.25", "nginx:1.25", "docker.io/library/nginx"),
        ("docker.io/library/nginx", "nginx:latest", "docker.io/library/nginx"),
        ("index.docker.io/library/nginx", "nginx:latest", "docker.io/library/nginx"),
        ("team/app", "team/app:latest", "docker.io/team/app"),
        ("localhost/app:x", "localhost/app:x", "localhost/app"),
        ("registry.example:5000/a/b/c:v1", "registry.example:5000/a/b/c:v1", "registry.example:5000/a/b/c"),
        ("a__b/c.d-e--f", "a__b/c.d-e--f:latest", "docker.io/a__b/c.d-e--f"),
        ("nginx@sha256:" + "a" * 64, "nginx@sha256:" + "a" * 64, "docker.io/library/nginx"),
    ],
)
def test_parse(word: str, familiar: str, full: str) -> None:
    reference = parse_reference(word)
    assert str(reference) == familiar and f"{reference.domain}/{reference.path}" == full


@pytest.mark.parametrize(
    "word", ["", ":x", "a:", "A", "a//b", "a b", "-a", "a:" + "t" * 129, "a" * 64, "a@sha256:1", "../x", "a\n", "/a"]
)
def test_what_is_no_reference(word: str) -> None:
    with pytest.raises(InvalidParameter):
        parse_reference(word)


def test_chain_ids() -> None:
    a, b, c = (f"sha256:{letter * 64}" for letter in "abc")
    second = "sha256:" + hashlib.sha256(f"{a} {b}".encode()).hexdigest()
    third = "sha256:" + hashlib.sha256(f"{second} {c}".encode()).hexdigest()
    assert chain_ids([a, b, c]) == (a, second, third)
    assert chain_ids([]) == () and chain_ids([b, a])[1] != second


def test_an_image_without_a_run_section() -> None:
    assert Image(id="sha256:x", config={"config": None}, diff_ids=()).run == {}
