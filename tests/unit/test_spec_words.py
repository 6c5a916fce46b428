"""Texts that would break out of a line of /etc/hosts or resolv.conf, or that no program can be started with."""

from __future__ import annotations

import pytest

from tsunagu.model.container import Config, HostConfig
from tsunagu.model.errors import InvalidParameter
from tsunagu.model.network import EndpointConfig, Network, Subnet
from tsunagu.model.world import NetworkCreated, World, apply
from tsunagu.rules import spec


@pytest.mark.parametrize(
    ("config", "host", "said"),
    [
        ({"hostname": "web\n6.6.6.6 bank.example"}, {}, "invalid hostname"),
        ({"hostname": "a b"}, {}, "invalid hostname"),
        ({"hostname": "a\0b"}, {}, "invalid hostname"),
        ({"hostname": "\N{LATIN SMALL LETTER E WITH ACUTE}" * 33}, {}, "invalid hostname"),
        ({"domainname": "x\nnameserver 6.6.6.6"}, {}, "invalid domainname"),
        ({}, {"dns_search": ("a\nnameserver 6.6.6.6",)}, "invalid dns-search"),
        ({}, {"dns_search": ("",)}, "invalid dns-search"),
        ({}, {"dns_options": ("a\N{LINE SEPARATOR}b",)}, "invalid dns-option"),
        ({}, {"dns_options": ("ndots:" + "9" * 5000,)}, "invalid dns-option"),
        ({}, {"dns": ("fe80::1%eth0\nsearch evil",)}, "invalid dns value"),
        ({"env": ("A=b\0c",)}, {}, "NUL"),
        ({"cmd": ("echo", "a\0b")}, {}, "NUL"),
        ({}, {"binds": ("/tmp\0:/x",)}, "NUL"),
        ({}, {"tmpfs": {"/x": "size=1m\0"}}, "NUL"),
        ({"cmd": ("x" * 70_000,)}, {}, "file name too long"),
        ({"working_dir": "/" + "x" * 5000}, {}, "file name too long"),
        ({"working_dir": "relative"}, {}, "needs to be an absolute path"),
        ({"user": "9" * 5000}, {}, "invalid user"),
    ],
)
def test_refused(config: dict[str, object], host: dict[str, object], said: str) -> None:
    with pytest.raises(InvalidParameter, match=said):
        spec.check_words(Config(image="x", **config), HostConfig(**host))  # type: ignore[arg-type]


def test_usual_words_pass() -> None:
    config = Config(
        image="x", hostname="a" * 64, domainname="corp.example", cmd=("sh", "-c", "x" * 70_000),
        env=("A=line\nline", "EMPTY="), user="www-data:adm", working_dir="/srv/a b",
    )  # fmt: skip
    host = HostConfig(dns=("fe80::1%eth0", "1.1.1.1"), dns_search=(".", "corp.example"), dns_options=("ndots:2",))
    spec.check_words(config, host)


def test_addresses_of_an_endpoint_become_canonical() -> None:
    """Leases are compared as text: two spellings of one address must not be given to two containers."""
    network = Network(
        id="1" * 64, name="net", has_user_subnet=True, enable_ipv6=True,
        subnets=(Subnet(subnet="10.1.0.0/24"), Subnet(subnet="fd00::/64")),
    )  # fmt: skip
    world = apply(World(), NetworkCreated(network))
    asked = EndpointConfig(network="net", ipv6="FD00:0:0::0005", mac="02-42-AC-11-00-02")
    found = spec.check_endpoint(world, asked)
    assert (found.ipv6, found.mac) == ("fd00::5", "02:42:ac:11:00:02")


@pytest.mark.parametrize("mac", ["x", "00:00:00:00:00:00", "01:00:5e:00:00:01", "ff:ff:ff:ff:ff:ff"])
def test_macs_that_no_interface_can_have(mac: str) -> None:
    with pytest.raises(InvalidParameter, match="invalid MAC address"):
        spec.check_endpoint(World(), EndpointConfig(network="net", mac=mac))
