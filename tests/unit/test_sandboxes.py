"""Whose sandbox a container lives in, and how long the sandbox lives."""

from __future__ import annotations

from tsunagu.model.container import Config, Container, HostConfig, State, Status
from tsunagu.model.world import ContainerCreated, ContainerRemoved, World, apply
from tsunagu.rules.sandboxes import has_live_sandbox, joins, owner_of, sharers


def make(name: str, mode: str = "net", status: Status = Status.RUNNING, sandbox: str = "") -> Container:
    return Container(
        id=name * 64, name=name, created=0, image_id="", path="sh", args=(), config=Config(),
        host=HostConfig(network_mode=mode), state=State(status=status, sandbox=sandbox),
    )  # fmt: skip


def world(*containers: Container) -> World:
    found = World()
    for container in containers:
        found = apply(found, ContainerCreated(container))
    return found


def owner(found: World, name: str) -> str:
    return owner_of(found, found.container(name)).name


def test_a_container_owns_its_sandbox_unless_it_joins_one() -> None:
    found = world(make("a"), make("b", "container:a"), make("c", f"container:{'a' * 64}"), make("d", "container:b"))
    assert [owner(found, name) for name in "abcd"] == ["a", "a", "a", "a"]
    assert [joins(c) for c in found.containers.values()] == [False, True, True, True]
    assert [c.name for c in sharers(found, found.container("d"))] == ["a", "b", "c", "d"]


def test_who_leads_nowhere_or_in_a_circle_is_its_own() -> None:
    found = world(make("a", "container:gone"), make("b", "container:c"), make("c", "container:b"), make("d", "host"))
    assert [owner(found, name) for name in "abcd"] == list("abcd")
    assert not joins(found.container("d"))


def test_a_sandbox_lives_as_long_as_any_process_in_it() -> None:
    for status, expected in ((Status.RUNNING, True), (Status.EXITED, False)):
        found = world(make("a", status=Status.EXITED), make("b", "container:a", status), make("c"))
        assert has_live_sandbox(found, found.container("a")) is expected
        assert has_live_sandbox(found, found.container("b")) is expected
    assert has_live_sandbox(found, found.container("c"))


def test_a_running_joiner_stays_where_it_started() -> None:
    """Also when what led it there is removed, or a name means another container by now."""
    found = world(make("a"), make("b", "container:a", Status.EXITED), make("c", "container:b", sandbox="a" * 64))
    found = apply(found, ContainerRemoved("b" * 64))
    assert owner(found, "c") == "a"
    found = apply(found, ContainerRemoved("a" * 64))
    assert owner(found, "c") == "c", "nobody's: what it shared is gone"
