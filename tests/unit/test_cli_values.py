"""Flag values with a form of their own, ports, references: Docker's readings and sentences."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tsunagu.cli import ports, references, values
from tsunagu.cli.output import Failure


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("32", 32),
        ("32b", 32),
        ("32k", 32768),
        ("32kb", 32768),
        ("32KiB", 32768),
        ("1.5g", 1610612736),
        ("5 m", 5 << 20),
    ],
)
def test_sizes(text: str, size: int) -> None:
    assert values.parse_bytes(text) == size


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "invalid size: ''"),
        ("x", "invalid size: 'x'"),
        ("5q", "invalid suffix: 'q'"),
        ("5kx", "invalid suffix: 'kx'"),
        ("1.2.3", "invalid size: '1.2.3'"),
        ("5bb", "invalid suffix: 'bb'"),
    ],
)
def test_wrong_sizes(text: str, sentence: str) -> None:
    with pytest.raises(ValueError) as caught:
        values.parse_bytes(text)
    assert str(caught.value) == sentence


@pytest.mark.parametrize(
    ("text", "nanoseconds"),
    [
        ("0", 0),
        ("1s", 10**9),
        ("1h15m30.5s", 4530500000000),
        ("-1.5h", -5400 * 10**9),
        ("300ms", 3 * 10**8),
        ("1us", 1000),
        ("1µs", 1000),
        (".5s", 5 * 10**8),
        ("1.s", 10**9),
    ],
)
def test_durations(text: str, nanoseconds: int) -> None:
    assert values.parse_duration(text) == nanoseconds


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", 'time: invalid duration ""'),
        ("5", 'time: missing unit in duration "5"'),
        ("x", 'time: invalid duration "x"'),
        ("5q", 'time: unknown unit "q" in duration "5q"'),
        ("-", 'time: invalid duration "-"'),
        (".s", 'time: invalid duration ".s"'),
        ("1.1.1s", 'time: invalid duration "1.1.1s"'),
    ],
)
def test_wrong_durations(text: str, sentence: str) -> None:
    with pytest.raises(ValueError) as caught:
        values.parse_duration(text)
    assert str(caught.value) == sentence


def test_cpus() -> None:
    assert values.parse_nano_cpus("1.5") == 1_500_000_000
    assert values.parse_nano_cpus("1/2") == 500_000_000
    for text, sentence in (("1/3", "value is too precise"), ("x", "failed to parse x as a rational number")):
        with pytest.raises(ValueError, match=sentence):
            values.parse_nano_cpus(text)


@given(
    st.text(max_size=12),
    st.sampled_from(
        [
            "parse_bytes",
            "parse_duration",
            "parse_nano_cpus",
            "dns",
            "dns_search",
            "add_host",
            "link",
            "ulimit",
            "mount",
            "network",
            "cgroup_rule",
            "weight_device",
            "rate_bytes",
            "rate_count",
            "gpus",
            "filter_pair",
            "sysctl",
            "label",
        ]
    ),
)
def test_any_text_is_read_or_refused(text: str, name: str) -> None:
    try:
        getattr(values, name)(text)
    except ValueError:
        return


def test_hosts() -> None:
    assert values.add_host("a:1.2.3.4") == "a:1.2.3.4"
    assert values.add_host("a=::1") == values.add_host("a:[::1]") == "a:::1"
    assert values.add_host("a:host-gateway") == "a:host-gateway"
    with pytest.raises(ValueError, match='invalid IP address in add-host: "b"'):
        values.add_host("a:b")


def test_environment_values_come_from_the_client(monkeypatch: pytest.MonkeyPatch) -> None:
    import posix

    monkeypatch.setitem(posix.environ, b"TSUNAGU_TEST", b"1=2")
    assert values.env("TSUNAGU_TEST") == "TSUNAGU_TEST=1=2"
    assert values.env("TSUNAGU_TEST=") == "TSUNAGU_TEST="
    assert values.env("TSUNAGU_UNSET") == "TSUNAGU_UNSET"


def test_networks_short_and_long() -> None:
    assert values.network("app")["name"] == "app"
    long = values.network(
        "name=app,alias=a,alias=b,ip=1.2.3.4,driver-opt=k=v,gw-priority=-1,mac-address=02:00:00:00:00:01"
    )
    assert long == {
        "name": "app",
        "aliases": ["a", "b"],
        "ip": "1.2.3.4",
        "options": {"k": "v"},
        "priority": -1,
        "mac": "02:00:00:00:00:01",
        "local": [],
    }
    for text, sentence in (
        ("foo=bar", "invalid field key foo"),
        ("alias=x", "network name/id is not specified"),
        ("name=x,gw-priority=q", r"invalid gw-priority \(q\): invalid syntax"),
    ):
        with pytest.raises(ValueError, match=sentence):
            values.network(text)


def test_mounts() -> None:
    assert values.mount("type=bind,src=/a,dst=/b,readonly,bind-propagation=rslave") == {
        "Type": "bind",
        "Source": "/a",
        "Target": "/b",
        "ReadOnly": True,
        "BindOptions": {"Propagation": "rslave"},
    }
    assert values.mount('dst=/b,"volume-opt=o=a,b",volume-label=x=y')["VolumeOptions"] == {
        "DriverConfig": {"Options": {"o": "a,b"}},
        "Labels": {"x": "y"},
    }
    assert values.mount("type=tmpfs,dst=/t,tmpfs-size=1m,tmpfs-mode=1777")["TmpfsOptions"] == {
        "SizeBytes": 1 << 20,
        "Mode": 0o1777,
    }
    for text, sentence in (
        ("type=bind", "target is required"),
        ("foo=bar", "unexpected key 'foo' in 'foo=bar'"),
        ("foo", "invalid field 'foo' must be a key=value pair"),
        ("dst=/x,readonly=maybe", "invalid value for readonly: maybe"),
        ("type=bind,dst=/x,volume-nocopy", "cannot mix 'volume-\\*' options with mount type 'bind'"),
    ):
        with pytest.raises(ValueError, match=sentence):
            values.mount(text)


def test_ulimits() -> None:
    assert values.ulimit("nofile=3:5") == {"Name": "nofile", "Soft": 3, "Hard": 5}
    assert values.ulimit("core=-1") == {"Name": "core", "Soft": -1, "Hard": -1}
    with pytest.raises(ValueError, match="ulimit soft limit must be less than or equal to hard limit: 3 > 2"):
        values.ulimit("nofile=3:2")


# -- ports ----------------------------------------------------------------------------------------------------------


def test_published_ports() -> None:
    specs = ["80", "8080:80/udp", "127.0.0.1:90-91:90-91", "[::1]:5:5", "127.0.0.1::7", "1-3:6", "::1:9:9"]
    assert ports.parse_publish(specs) == {
        "80/tcp": [{"HostIp": "", "HostPort": ""}],
        "80/udp": [{"HostIp": "", "HostPort": "8080"}],
        "90/tcp": [{"HostIp": "127.0.0.1", "HostPort": "90"}],
        "91/tcp": [{"HostIp": "127.0.0.1", "HostPort": "91"}],
        "5/tcp": [{"HostIp": "::1", "HostPort": "5"}],
        "7/tcp": [{"HostIp": "127.0.0.1", "HostPort": ""}],
        "6/tcp": [{"HostIp": "", "HostPort": "1-3"}],
        "9/tcp": [{"HostIp": "::1", "HostPort": "9"}],
    }
    assert ports.parse_publish(["target=80,published=8080,protocol=udp"]) == {
        "80/udp": [{"HostIp": "", "HostPort": "8080"}]
    }


@pytest.mark.parametrize(
    ("spec", "sentence"),
    [
        ("99999:80", "invalid hostPort: 99999"),
        ("99999", "invalid containerPort: 99999"),
        ("80-70", "invalid containerPort: 80-70"),
        ("1-2:3-5", "invalid ranges specified for container and host Ports: 3-5 and 1-2"),
        ("80/foo", "invalid proto: foo"),
        ("1.2.3:80:80", "invalid IP address: 1.2.3"),
        ("", "no port specified: <empty>"),
        ("[::1:80:80", "invalid IP address [::1: address [::1:: missing ']' in address"),
        ("1:2:3:4:5", "invalid IP address: 1:2:3"),
    ],
)
def test_wrong_ports(spec: str, sentence: str) -> None:
    with pytest.raises(Failure) as caught:
        ports.parse_publish([spec])
    assert caught.value.message == sentence


@given(st.text(alphabet="0123456789:.-/[]udptcs=,", max_size=16))
def test_any_port_text_is_read_or_refused(spec: str) -> None:
    try:
        bindings = ports.parse_publish([spec])
    except Failure:
        return
    for port in bindings:
        number, _, protocol = port.partition("/")
        assert 0 <= int(number) <= 65535 and protocol in ("tcp", "udp", "sctp")


def test_exposed_ports() -> None:
    assert ports.parse_expose(["3", "4-5/udp"]) == ["3/tcp", "4/udp", "5/udp"]
    for spec, sentence in (
        ("5:6", "invalid port format for --expose: 5:6"),
        ("5-3", "invalid range format for --expose: 5-3, error: invalid range specified for port: 5-3"),
    ):
        with pytest.raises(Failure) as caught:
            ports.parse_expose([spec])
        assert caught.value.message == sentence


# -- references -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "name", "tag"),
    [
        ("alpine", "docker.io/library/alpine", ""),
        ("a/b:c", "docker.io/a/b", "c"),
        ("localhost/x", "localhost/x", ""),
        ("localhost:5000/x/y:z", "localhost:5000/x/y", "z"),
        ("r.example/x", "r.example/x", ""),
        ("docker.io/alpine:3", "docker.io/library/alpine", "3"),
        ("a__b/c--d.e", "docker.io/a__b/c--d.e", ""),
    ],
)
def test_references(text: str, name: str, tag: str) -> None:
    found = references.parse(text)
    assert (found.name, found.tag) == (name, tag)


@pytest.mark.parametrize("text", ["", "-", "a b", "a:", "a::b", "a@sha256:zz", "a..b", "a/", "/a", "a:-x", "_a"])
def test_wrong_references(text: str) -> None:
    with pytest.raises(ValueError, match=r"^invalid reference format$"):
        references.parse(text)


def test_upper_case_is_explained() -> None:
    sentence = r"^invalid reference format: repository name \(library/UPPER\) must be lowercase$"
    with pytest.raises(ValueError, match=sentence):
        references.parse("UPPER")


def test_familiar_names() -> None:
    assert references.familiar_name("docker.io/library/alpine") == "alpine:latest"
    assert references.familiar_name("x/y:z") == "x/y:z"
