"""Legacy links: which are made, which are refused, and what a container is told about them."""

from __future__ import annotations

import pytest

from tsunagu.model.container import Config, Container, HostConfig, Link, State, Status
from tsunagu.model.errors import Conflict, EngineError, InvalidParameter, NotFound, NotSupported
from tsunagu.model.network import Endpoint, EndpointConfig, Network
from tsunagu.model.world import (
    ContainerCreated,
    ContainerRemoved,
    ContainerRenamed,
    LinksChanged,
    NetworkCreated,
    World,
    apply,
)
from tsunagu.rules import links

BRIDGE = Network(id="b" * 64, name="bridge", is_builtin=True, bridge="br0")
APP = Network(id="a" * 64, name="app", bridge="br1")


def container(
    name: str,
    *,
    network: Network = BRIDGE,
    mode: str = "bridge",
    ipv4: str = "172.17.0.2",
    ipv6: str = "",
    status: Status = Status.RUNNING,
    linked: tuple[Link, ...] = (),
    **config: object,
) -> Container:
    joined = Endpoint(
        config=EndpointConfig(network=network.name), network_id=network.id, network_name=network.name,
        id=f"ep-{name}", ipv4=ipv4, ipv6=ipv6,
    )  # fmt: skip
    return Container(
        id=name.ljust(64, "0"), name=name, created=1, image_id="", path="", args=(), links=linked,
        config=Config(hostname=name.ljust(12, "0")[:12], **config),  # type: ignore[arg-type]
        host=HostConfig(network_mode=mode), endpoints=(joined,) if mode not in ("host", "none") else (),
        state=State(status=status),
    )  # fmt: skip


def world(*containers: Container) -> World:
    it = apply(apply(World(), NetworkCreated(BRIDGE)), NetworkCreated(APP))
    for one in containers:
        it = apply(it, ContainerCreated(one))
    return it


def plan(it: World, *words: str, mode: str = "default") -> tuple[Link, ...]:
    return links.plan(it, HostConfig(network_mode=mode, links=words), "web")


DB = container("db")
TO_DB = (Link(DB.id, "database"),)


def test_a_link_keeps_the_target_whatever_it_is_called() -> None:
    it = world(DB)
    assert plan(it, "db:database", "/db:/web/store", "db", DB.id[:5] + ":short") == (
        Link(DB.id, "database"),
        Link(DB.id, "store"),
        Link(DB.id, "db"),
        Link(DB.id, "short"),
    )
    assert plan(it, "db:x", "db:x") == (Link(DB.id, "x"),)
    assert plan(it) == plan(it, "db:x", mode="app") == ()
    web = container("web", linked=TO_DB)
    it = apply(apply(world(DB, web), ContainerRenamed(DB.id, "store")), ContainerRenamed(web.id, "front"))
    assert links.words_of(it, it.containers[web.id]) == ["/store:/front/database"]
    assert it.container("front/database").id == it.container("/front/database").id == DB.id
    assert links.names_by_target(it) == {DB.id: ["/front/database"]}


def test_a_link_to_a_shared_sandbox_leads_to_its_owner() -> None:
    guest = container("guest", mode=f"container:{DB.id}")
    assert plan(world(DB, guest), "guest:x") == (Link(DB.id, "x"),)


@pytest.mark.parametrize(
    ("words", "mode", "kind", "sentence"),
    [
        (["nosuch:x"], "bridge", InvalidParameter, "could not get container for nosuch: No such container: nosuch"),
        (["web:x"], "bridge", InvalidParameter, "could not get container for web: No such container: web"),
        (["db:x:y"], "bridge", InvalidParameter, "bad format for links: db:x:y"),
        (
            ["onhost"],
            "bridge",
            InvalidParameter,
            "conflicting options: host type networking can't be used with links. "
            "This would result in undefined behavior",
        ),
        (
            ["db"],
            "container:db",
            InvalidParameter,
            "conflicting options: container type networking can't be used with links. "
            "This would result in undefined behavior",
        ),
        (["db"], "none", NotSupported, "links are not supported with --network none"),
        (["db:x", "other:x"], "bridge", InvalidParameter, "conflicting options: two links are called x"),
    ],
)
def test_refused_at_create(words: list[str], mode: str, kind: type[EngineError], sentence: str) -> None:
    it = world(DB, container("other"), container("onhost", mode="host"))
    with pytest.raises(kind) as caught:
        plan(it, *words, mode=mode)
    assert caught.value.message == sentence


def test_refused_at_start() -> None:
    web = container("web", status=Status.CREATED, linked=TO_DB)
    links.check_start(world(DB, web), web)
    with pytest.raises(Conflict, match=r"^Cannot link to a non running container: /db AS /web/database\n"):
        links.check_start(world(container("db", status=Status.EXITED), web), web)
    with pytest.raises(Conflict, match=r"^Cannot link to /db, as it does not belong to the default network\n"):
        links.check_start(world(container("db", network=APP), web), web)
    # nothing to refuse: the source is elsewhere, or the target is gone for good
    links.check_start(world(container("db", status=Status.EXITED)), container("web", network=APP, linked=TO_DB))
    links.check_start(world(), web)


def test_hosts_lines_follow_docker_s_order() -> None:
    six = container("db", ipv6="fd00::2")
    web = container("web", linked=(*TO_DB, Link(DB.id, "db")), ipv4="172.17.0.3")
    assert links.hosts_entries(world(six, web), web) == [
        ("172.17.0.2", "database db0000000000 db"),
        ("fd00::2", "database db0000000000 db"),
        ("172.17.0.2", "db db0000000000"),
        ("fd00::2", "db db0000000000"),
    ]
    assert links.hosts_entries(world(container("db", ipv4=""), web), web) == []
    assert links.hosts_entries(world(six), container("web", network=APP, linked=TO_DB)) == []


def test_a_link_goes_with_its_target_and_by_itself() -> None:
    web = container("web", linked=TO_DB)
    it = apply(world(DB, web), ContainerRemoved(DB.id))
    assert links.words_of(it, it.containers[web.id]) is None
    with pytest.raises(NotFound, match="No such container: web/database"):
        it.container("web/database")
    it = apply(world(DB, web), LinksChanged(web.id, ()))
    assert (links.words_of(it, it.containers[web.id]), it.link("web/database")) == (None, None)


def test_variables_of_ports_that_follow_each_other() -> None:
    ports = {"82/tcp": {}, "80/tcp": {}, "81/tcp": {}, "9/udp": {}}
    target = container("db", exposed_ports=ports, env=("HOME=/x", "PATH=/y", "FOO=a=b", "BARE"))
    web = container("web", linked=(Link(target.id, "my-db"),))
    found = links.environment(world(target, web), web)
    assert found[:7] == [
        "MY_DB_PORT=udp://172.17.0.2:9",
        "MY_DB_PORT_80_TCP_START=tcp://172.17.0.2:80",
        "MY_DB_PORT_80_TCP_ADDR=172.17.0.2",
        "MY_DB_PORT_80_TCP_PROTO=tcp",
        "MY_DB_PORT_80_TCP_PORT_START=80",
        "MY_DB_PORT_80_TCP_END=tcp://172.17.0.2:82",
        "MY_DB_PORT_80_TCP_PORT_END=82",
    ]
    assert found[-2:] == ["MY_DB_NAME=/web/my-db", "MY_DB_ENV_FOO=a=b"]
    assert "MY_DB_PORT_9_UDP_PORT=9" in found
    plain = container("db")
    assert links.environment(world(plain, web), web) == ["MY_DB_NAME=/web/my-db"]


def test_notices() -> None:
    it = world(DB, container("away", network=APP))
    (notice,) = links.notices(it, HostConfig(links=("db:x", "db:y")))
    assert "\n" not in notice
    assert "network create" in notice
    assert links.notices(it, HostConfig(network_mode="app", links=("away:x",))) == []
    (notice,) = links.notices(it, HostConfig(network_mode="app", links=("db:x",)))
    assert notice.endswith("network connect app db")
