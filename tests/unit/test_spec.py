"""What a container will be: Docker's merge of user and image, and every refusal before a side effect."""

from __future__ import annotations

import pytest

from tsunagu.model.container import Config, Container, HostConfig
from tsunagu.model.errors import Conflict, EngineError, InvalidParameter
from tsunagu.model.image import Image
from tsunagu.model.network import EndpointConfig, Network, Subnet
from tsunagu.model.world import ContainerCreated, NetworkCreated, World, apply
from tsunagu.rules import spec

ID = "abcdef012345" + "0" * 52
IMAGE = Image(
    id="sha256:1",
    diff_ids=(),
    config={
        "config": {
            "Cmd": ["serve"],
            "Entrypoint": ["/entry"],
            "Env": ["A=image", "B=image"],
            "Labels": {"l": "image", "k": "image"},
            "ExposedPorts": {"80/tcp": {}},
            "WorkingDir": "/srv",
            "User": "www",
            "StopSignal": "SIGQUIT",
        }
    },
)


def merge(host: HostConfig | None = None, **wanted: object) -> Config:
    return spec.merge_config(Config(**wanted), IMAGE, ID, host or HostConfig(), "hosty")  # type: ignore[arg-type]


def test_the_images_defaults_fill_what_the_user_left_open() -> None:
    merged = merge()
    assert spec.command(merged) == ("/entry", ("serve",))
    assert merged.working_dir == "/srv" and merged.user == "www" and merged.stop_signal == "SIGQUIT"
    assert merged.hostname == "abcdef012345"
    assert merged.exposed_ports == {"80/tcp": {}}


def test_a_command_replaces_the_images_and_an_entrypoint_discards_it() -> None:
    assert spec.command(merge(cmd=("once",))) == ("/entry", ("once",))
    assert spec.command(merge(entrypoint=("sh",))) == ("sh", ())
    assert spec.command(merge(entrypoint=("",), cmd=("ls", "-l"))) == ("ls", ("-l",))


def test_no_command_at_all_is_refused() -> None:
    bare = Image(id="sha256:1", diff_ids=(), config={})
    with pytest.raises(InvalidParameter, match="no command specified"):
        spec.merge_config(Config(), bare, ID, HostConfig(), "hosty")


def test_environment_and_labels_merge_by_key_and_the_user_wins() -> None:
    merged = merge(env=("B=user", "C"), labels={"k": "user"})
    assert merged.env == ("B=user", "C", "A=image")
    assert merged.labels == {"l": "image", "k": "user"}
    with pytest.raises(InvalidParameter, match="invalid environment variable: =x"):
        merge(env=("=x",))


def test_host_networking_takes_the_hosts_name() -> None:
    assert merge(HostConfig(network_mode="host")).hostname == "hosty"


def world() -> World:
    made = apply(World(), NetworkCreated(Network(id="1" * 64, name="bridge", is_builtin=True)))
    made = apply(made, NetworkCreated(Network(id="2" * 64, name="host", driver="host", is_builtin=True)))
    made = apply(made, NetworkCreated(Network(id="3" * 64, name="app", subnets=(Subnet("10.1.0.0/24"),))))
    fixed = Network(id="4" * 64, name="sn1", subnets=(Subnet("172.31.0.0/24"),), has_user_subnet=True)
    return apply(made, NetworkCreated(fixed))


def endpoints(mode: str, *wanted: EndpointConfig) -> list[str]:
    return [e.network for e in spec.plan_endpoints(world(), HostConfig(network_mode=mode), Config(), wanted)]


def test_the_network_mode_is_the_first_attachment_unless_listed() -> None:
    assert endpoints("default") == ["bridge"]
    assert endpoints("app") == ["app"]
    assert endpoints("app", EndpointConfig(network="sn1"), EndpointConfig(network="app")) == ["sn1", "app"]
    assert endpoints("app", EndpointConfig(network="3" * 12)) == ["3" * 12]  # the same network by id
    assert endpoints("none") == [] and endpoints("host") == []
    assert endpoints("nosuch") == ["nosuch"]  # found out at start, as Docker does


@pytest.mark.parametrize(
    ("endpoint", "sentence"),
    [
        (
            EndpointConfig(network="bridge", aliases=("x",)),
            "network-scoped alias is supported only for containers in user",
        ),
        (
            EndpointConfig(network="host"),
            "cannot connect container to host network - container must be created in host",
        ),
        (
            EndpointConfig(network="app", ipv4="10.1.0.9"),
            "only when connecting to networks with user configured subnets",
        ),
        (EndpointConfig(network="sn1", ipv4="172.32.0.50"), "ip-range contain the IP address 172.32.0.50"),
        (EndpointConfig(network="sn1", ipv4="nonsense"), "invalid IPv4 address: nonsense"),
        (EndpointConfig(network="sn1", ipv4="::1"), "invalid IPv4 address: ::1"),
        (
            EndpointConfig(network="sn1", links=("ghost:x",)),
            "could not get container for ghost: No such container: ghost",
        ),
        (EndpointConfig(network="sn1", driver_opts={"a": "b"}), "endpoint option a is not supported"),
        (EndpointConfig(network="sn1", link_local=("10.0.0.1",)), "invalid link-local IP address: 10.0.0.1"),
        (EndpointConfig(network="sn1", link_local=("fe80::5",)), "invalid link-local IP address: fe80::5"),
    ],
)
def test_attachments_that_can_never_work_are_refused(endpoint: EndpointConfig, sentence: str) -> None:
    with pytest.raises(EngineError) as raised:
        spec.check_endpoint(world(), endpoint)
    assert sentence in str(raised.value)


def test_who_joins_a_sandbox_has_no_endpoints() -> None:
    assert endpoints("container:x") == []


def test_a_taken_name_names_its_holder() -> None:
    holder = Container(
        id="9f0d" + "0" * 60, name="web", created=0, image_id="", path="", args=(), config=Config(), host=HostConfig()
    )
    taken = apply(world(), ContainerCreated(holder))
    with pytest.raises(Conflict) as raised:
        spec.check_name_free(taken, "web")
    assert raised.value.message == (
        f'Conflict. The container name "/web" is already in use by container "{holder.id}". '
        "You have to remove (or rename) that container to be able to reuse that name."
    )
