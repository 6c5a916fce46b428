"""The engine's configuration: what flags and daemon.json say together, what is refused and how."""

from __future__ import annotations

from typing import Any

import pytest

from tsunagu import daemon_options
from tsunagu.model.container import HostConfig
from tsunagu.model.errors import EngineError, InvalidParameter, NotSupported
from tsunagu.model.limits import Ulimit
from tsunagu.model.network import Subnet
from tsunagu.model.settings import BridgeSettings, Pool, Settings
from tsunagu.rules import configuration, ipam, modes


def test_a_file_is_read_and_checked() -> None:
    text = (
        '{"bip":"10.9.0.1/16","fixed-cidr":"10.9.4.0/24","mtu":1400,"dns":["192.0.2.53"],"labels":["a=b"],"icc":false}'
    )
    found = configuration.settings(configuration.read(text, "/f"))
    assert found.bridge == BridgeSettings(address="10.9.0.1/16", ip_range="10.9.4.0/24", mtu=1400)
    assert (found.dns, found.labels) == (("192.0.2.53",), ("a=b",))
    assert configuration.bridge_subnet(found.bridge) == Subnet("10.9.0.0/16", "10.9.0.1", "10.9.4.0/24")
    assert configuration.read(" \n", "/f") == {}


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ('{\n "mtu": }', "with file /f: Expecting value\nline 2, column 9"),
        ("[]", "expected an object"),
        ('{"nonsense":1,"x":2}', "the following directives don't match any configuration option: nonsense, x"),
        ('{"tls":true}', "tls not supported"),
        ('{"mtu":"1400"}', "mtu: expected a whole number"),
        ('{"mtu":true}', "mtu: expected a whole number"),
        ('{"default-ulimits":{"nofile":1}}', "default-ulimits: expected {"),
        ('{"dns":[1]}', "dns: expected an array of strings"),
        ('{"mtu":1400,"mtu":1500}', "given more than once: mtu"),
        ('{"default-address-pools":["x"]}', "expected objects like"),
    ],
)
def test_a_wrong_file_is_refused_by_name(text: str, sentence: str) -> None:
    with pytest.raises(EngineError) as caught:
        configuration.read(text, "/f")
    assert "unable to configure the Docker daemon with file /f: " in str(caught.value)
    assert sentence in str(caught.value)


def test_a_setting_in_both_places_is_refused_in_dockers_words() -> None:
    assert configuration.merge({"mtu": 1400}, {"bip": "10.9.0.1/16"}, "/f") == {"mtu": 1400, "bip": "10.9.0.1/16"}
    with pytest.raises(InvalidParameter) as caught:
        configuration.merge({"labels": ["a=b"], "icc": True}, {"icc": False, "labels": ["c=d", "e=f"]}, "/f")
    assert str(caught.value).endswith(
        "the following directives are specified both as a flag and in the configuration file: "
        "icc: (from flag: true, from file: false), labels: (from flag: [a=b], from file: [c=d e=f])"
    )


@pytest.mark.parametrize(
    "merged",
    [
        {"bip": "10.9.0.1"}, {"bip": "10.9.0.0/16"}, {"bip": "x"}, {"bip": "fd00::1/64"}, {"mtu": 1},
        {"bip": "10.9.0.1/16", "fixed-cidr": "10.8.0.0/24"}, {"fixed-cidr": "10.8.0.1/24"},
        {"fixed-cidr-v6": "fd00::/64"}, {"ipv6": True, "mtu": 1279}, {"labels": ["x"]}, {"dns": ["x"]},
        {"dns-search": ["a b"]}, {"log-level": "loud"},
        {"default-address-pools": [{"base": "10.9.0.0/16", "size": 8}]},
        {"default-address-pools": [{"base": "x", "size": 24}]},
    ],
)  # fmt: skip
def test_wrong_values_are_refused(merged: dict[str, Any]) -> None:
    with pytest.raises(InvalidParameter):
        configuration.settings(merged)


def test_what_is_always_so_is_taken_and_its_opposite_refused_with_a_remedy() -> None:
    for key, (value, _) in configuration.FIXED.items():
        assert configuration.settings({key: value}) == Settings()
        other = not value if isinstance(value, bool) else "syslog"
        with pytest.raises(NotSupported, match=f"{key}=") as caught:
            configuration.settings({key: other})
        assert caught.value.hint


def test_pools_have_each_their_own_size() -> None:
    assert configuration.pool_of("base=10.9.0.0/16,size=28") == {"base": "10.9.0.0/16", "size": 28}
    for text in ("10.9.0.0/16", "base=10.9.0.0/16", "base=x,size=y"):
        with pytest.raises(InvalidParameter):
            configuration.pool_of(text)
    pools = (Pool("10.1.0.0/28", 28), Pool("10.2.0.0/16", 20))
    assert ipam.choose_from(pools, ()) == "10.1.0.0/28"
    assert ipam.choose_from(pools, ("10.1.0.0/24",)) == "10.2.0.0/20"
    with pytest.raises(InvalidParameter, match="fully subnetted"):
        ipam.choose_from(pools, ("10.0.0.0/8",))


def test_dns_defaults_fill_what_a_container_leaves_open() -> None:
    settings = Settings(dns=("192.0.2.1",), dns_search=("a.test",))
    found = modes.with_dns_defaults(HostConfig(dns=("192.0.2.9",)), settings)
    assert (found.dns, found.dns_search, found.dns_options) == (("192.0.2.9",), ("a.test",), ())
    shared = HostConfig(network_mode="container:x")
    assert modes.with_dns_defaults(shared, settings) == shared


def test_the_command_line_and_the_file_together(tmp_path: Any) -> None:
    file = tmp_path / "daemon.json"
    file.write_text('{"labels":["a=b"],"log-level":"warn"}')
    words = [
        "--config-file",
        str(file),
        "--root",
        "/r",
        "--icc=false",
        "--default-address-pool=base=10.9.0.0/16,size=26",
    ]
    found = daemon_options.read(words)
    assert (found.instance.root, found.instance.run_dir, found.instance.allows_icc) == ("/r", "/r/run", False)
    assert (found.instance.pools, found.level) == ((Pool("10.9.0.0/16", 26),), "warn")
    file.write_text('{"labels":["c=d"],"debug":true}')
    again = found.reread()
    assert (again.instance.settings.labels, again.level) == (("c=d",), "debug")
    limited = daemon_options.read(["--root", "/r", "--default-ulimit=nofile=5:6"]).reread()
    assert limited.instance.settings.ulimits == (Ulimit("nofile", hard=6, soft=5),)
    for wrong in ("nofile=6:5", "nonsense=1"):
        with pytest.raises(InvalidParameter):
            daemon_options.read([f"--default-ulimit={wrong}"])
    with pytest.raises(InvalidParameter, match="no such file or directory"):
        daemon_options.read(["--config-file", "/nonexistent/daemon.json"])


def test_a_flag_of_dockerd_that_has_no_effect_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        daemon_options.read(["--tlsverify"])
    assert "--tlsverify is not supported" in capsys.readouterr().err
