"""Published ports by command, with both clients: the reverse proxy of the tutorial, conflicts, choices, restarts."""

from __future__ import annotations

import re
import socket
import time
import urllib.request
from collections.abc import Callable, Iterator

import pytest

from tsunagu.testing import golden
from tsunagu.testing.commandline import CommandLine
from tsunagu.testing.engine import EngineProcess

pytestmark = pytest.mark.root

EXTERNAL = (
    "Error response from daemon: failed to set up container networking: driver failed programming external "
    "connectivity on endpoint "
)


@pytest.fixture
def port() -> int:
    """A port of this host that is free just now, at all addresses of both families."""
    with socket.socket(socket.AF_INET6) as probe:
        probe.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        probe.bind(("::", 0))
        number: int = probe.getsockname()[1]
        return number


@pytest.fixture
def taken() -> Iterator[int]:
    """A port on which a process of the host, this one, listens."""
    with socket.create_server(("0.0.0.0", 0)) as server:
        yield server.getsockname()[1]


def fetch(port: int, path: str = "/") -> str:
    """The page that a published port gives; a server that has just been started may need a moment to listen."""
    deadline = time.monotonic() + 10
    while True:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=10) as answer:
                text: str = answer.read().decode()
                return text
        except OSError as error:
            if "refused" not in str(error) or time.monotonic() > deadline:
                raise
            time.sleep(0.05)


def is_open(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=5).close()
    except OSError:
        return False
    return True


def status(cli: CommandLine, name: str) -> str:
    return cli(f"ps -a --filter name=^{name}$ --format", "{{.Status}}").ok()


def taken_sentence(name: str, rest: str, result: str) -> str:
    """Docker's sentence with the id of the endpoint that is in `result`."""
    found = re.search(r"\(([0-9a-f]{64})\)", result)
    assert found, result
    return f"{EXTERNAL}{name} ({found[1]}): {rest}"


def test_6_reverse_proxy(cli: CommandLine, port: int) -> None:
    """Section 6 of the tutorial."""
    cli("network create proxy-network").ok()
    for name in ("app1", "app2"):
        cli(f"run -d --name {name} --network proxy-network --network-alias backend myapp").ok()
    golden.check("<id>", cli(f"run -d --name proxy --network proxy-network -p {port}:80 nginx").ok())
    # only IPv4: the network has no IPv6, and there is no process in between that could translate
    assert cli("port proxy").ok() == f"80/tcp -> 0.0.0.0:{port}"
    assert cli("port proxy 80").ok() == cli("port proxy 80/tcp").ok() == f"0.0.0.0:{port}"
    ports = dict(line.split(" ", 1) for line in cli("ps --format", "{{.Names}} {{.Ports}}").ok().splitlines())
    assert ports == {"proxy": f"0.0.0.0:{port}->80/tcp", "app1": "8080/tcp", "app2": "8080/tcp"}
    assert "Welcome to nginx!" in fetch(port)
    # nginx with `backend` as its upstream, asked through the published port
    cli("run -d --name client --network proxy-network alpine sleep 3600").ok()
    page = "wget -qO- http://{}:{}"
    gateway = cli("network inspect proxy-network -f", "{{(index .IPAM.Config 0).Gateway}}").ok()
    for source in ("client", "app1"):
        assert "Welcome to nginx!" in cli(f"exec {source} {page.format(gateway, port)}").ok()
    assert "Welcome to nginx!" in cli(f"run --rm alpine {page.format(gateway, port)}").ok()  # from another network

    result = cli(f"run -d --name proxy2 --network proxy-network -p {port}:80 nginx")
    sentence = taken_sentence("proxy2", f"Bind for 0.0.0.0:{port} failed: port is already allocated", result.err)
    cli.refuses(result, 125, sentence, help_for="run", out=cli("inspect -f", "{{.Id}}", "proxy2").ok())
    assert "container proxy has it" in result.err
    assert cli("ps -a --filter name=proxy2 --format", "{{.Names}} {{.Status}}").ok() == "proxy2 Created"
    cli("rm -f proxy").ok()
    assert not is_open(port)
    cli("start proxy2").ok()
    assert "Welcome to nginx!" in fetch(port)
    cli("stop -t 0 proxy2").ok()
    assert not is_open(port)
    assert cli("port proxy2").ok() == ""


def test_7_web_is_published_and_the_private_database_is_not(cli: CommandLine, port: int) -> None:
    """Section 8 of the transcript: one foot in a public, the other in an internal network."""
    cli("network create public-network").ok()
    cli("network create --internal private-network").ok()
    cli(f"run -d --name web --network public-network -p {port}:80 nginx").ok()
    cli("network connect private-network web").ok()
    assert "Welcome to nginx!" in fetch(port)
    result = cli(f"run -d --name db --network private-network -p {port}:80 nginx")
    assert result.code == 0
    assert "Published ports are discarded: private-network is an internal network" in result.err
    assert cli("port db").ok() == ""
    # the port follows the gateway, and comes back
    cli("network disconnect public-network web").ok()
    assert not is_open(port)
    assert cli("port web").ok() == ""
    cli("network connect public-network web").ok()
    assert "Welcome to nginx!" in fetch(port)
    assert cli("port web").ok() == f"80/tcp -> 0.0.0.0:{port}"


def test_a_port_of_another_program(cli: CommandLine, taken: int) -> None:
    result = cli(f"run -d --name web -p {taken}:80 nginx")
    found = re.search(rf"failed to bind host port for 0\.0\.0\.0:{taken}:([\d.]+):80/tcp", result.err)
    assert found, result
    rest = f"failed to bind host port for 0.0.0.0:{taken}:{found[1]}:80/tcp: address already in use"
    identity = cli("inspect -f", "{{.Id}}", "web").ok()
    cli.refuses(result, 125, taken_sentence("web", rest, result.err), help_for="run", out=identity)
    assert "(pid " in result.err
    assert status(cli, "web") == "Created"
    assert "address already in use" in cli("inspect -f", "{{.State.Error}}", "web").ok()


def test_choices(cli: CommandLine, port: int) -> None:
    cli("network create --ipv6 both").ok()
    cli("run -d --name any --network both -p 80 nginx").ok()
    four, six = cli("port any 80").ok().splitlines()
    assert four.removeprefix("0.0.0.0:") == six.removeprefix("[::]:")
    number = int(four.rpartition(":")[2])
    assert "Welcome to nginx!" in fetch(number)
    assert cli("ps --filter name=any --format", "{{.Ports}}").ok() == f"{four}->80/tcp, {six}->80/tcp"
    # the first free one of several
    cli(f"run -d --name first -p 127.0.0.1:{port}-{port + 5}:80 nginx").ok()
    cli(f"run -d --name second -p 127.0.0.1:{port}-{port + 5}:80 nginx").ok()
    chosen = [int(cli(f"port {name} 80").ok().removeprefix("127.0.0.1:")) for name in ("first", "second")]
    assert port <= chosen[0] < chosen[1] <= port + 5
    assert "Welcome to nginx!" in fetch(chosen[1])
    # everything the image exposes
    cli("run -d --name all -P nginx").ok()
    assert re.fullmatch(r"80/tcp -> 0\.0\.0\.0:\d+", cli("port all").ok())
    names = cli(f"ps --filter publish={chosen[0]} --format", "{{.Names}}").ok()
    assert names == "first"
    template = "{{json .HostConfig.PortBindings}} {{json .NetworkSettings.Ports}}"
    assert cli("inspect -f", template, "second").ok() == (
        f'{{"80/tcp":[{{"HostIp":"127.0.0.1","HostPort":"{port}-{port + 5}"}}]}} '
        f'{{"80/tcp":[{{"HostIp":"127.0.0.1","HostPort":"{chosen[1]}"}}]}}'
    )


def test_ranges_of_both_protocols(cli: CommandLine) -> None:
    """As many ports of the host as of the container, each leading to its own."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        first = probe.getsockname()[1] // 10 * 10
    publish = f"-p 127.0.0.1:{first}-{first + 2}:7000-7002 -p 127.0.0.1:{first}-{first + 2}:7000-7002/udp"
    cli(f"run -d --name range {publish} tiny httpd -f -p 7001 -h /etc").ok()
    wanted = [
        f"{7000 + n}/{protocol} -> 127.0.0.1:{first + n}" for n in range(3) for protocol in ("tcp", "udp")
    ]  # fmt: skip
    assert sorted(cli("port range").ok().splitlines()) == sorted(wanted)
    cli("exec range sh -c", "until wget -qO /dev/null http://127.0.0.1:7001/hostname; do sleep 0.05; done").ok()
    with urllib.request.urlopen(f"http://127.0.0.1:{first + 1}/hostname", timeout=10) as answer:
        assert answer.read().decode().strip() == cli("exec range cat /etc/hostname").ok()
    result = cli("run --rm -p 8000-8002:80-81 tiny true")
    assert (result.code, "invalid ranges specified for container and host Ports" in result.err) == (125, True)


def test_the_default_address_of_ports(
    new_engine: Callable[..., EngineProcess], client_of: Callable[[str, EngineProcess], CommandLine], port: int
) -> None:
    """`daemon --ip`, and the option of a network before it."""
    engine = new_engine("--ip", "127.0.0.1")
    for name in ("docker", "tsunagu"):
        cli = client_of(name, engine)
        cli("network create -o com.docker.network.bridge.host_binding_ipv4=0.0.0.0 wide").ok()
        cli(f"run -d --name one -p {port}:80 tiny httpd -f -p 80 -h /etc").ok()
        cli("run -d --name two --network wide -p 80 tiny sleep 300").ok()
        assert cli("port one").ok() == f"80/tcp -> 127.0.0.1:{port}"
        assert cli("port two").ok().startswith("80/tcp -> 0.0.0.0:")
        cli("exec one sh -c", "until wget -qO /dev/null http://127.0.0.1/hostname; do sleep 0.05; done").ok()
        assert fetch(port, "/hostname").strip() == cli("exec one cat /etc/hostname").ok()
        gateway = cli("network inspect bridge -f", "{{(index .IPAM.Config 0).Gateway}}").ok()
        with pytest.raises(OSError, match="refused"):
            socket.create_connection((gateway, port), timeout=5)
        cli("rm -f one two").ok()
        cli("network rm wide").ok()


def test_what_is_refused(cli: CommandLine, port: int) -> None:
    result = cli(f"run -d --name web -p {port}:80/sctp nginx")
    cli.refuses(
        result, 125, "Error response from daemon: publishing sctp ports is not supported: 80/sctp", help_for="run"
    )
    result = cli(f"run -d --name web -p [::]:{port}:80 nginx")
    identity = cli("inspect -f", "{{.Id}}", "web").ok()
    sentence = (
        "Error response from daemon: failed to set up container networking: publishing 80/tcp on [::] is not "
        "supported: the container has no IPv6 address"
    )
    cli.refuses(result, 125, sentence, help_for="run", out=identity)
    result = cli(f"run --rm -p 198.51.100.7:{port}:80 nginx")
    assert result.code == 125
    assert f"198.51.100.7:{port}:" in result.err
    assert "cannot assign requested address" in result.err
    result = cli(f"run --rm -p {port}:80 -p {port}:81 nginx")
    assert "port is already allocated\nthis container asks for it twice" in result.err


def test_ports_outlive_the_engine(
    new_engine: Callable[[], EngineProcess],
    client_of: Callable[[str, EngineProcess], CommandLine],
    images: Callable[[str], object],
    port: int,
) -> None:
    engine = new_engine()
    engine.load(images("nginx"))  # type: ignore[arg-type]
    cli = client_of("tsunagu", engine)
    cli(f"run -d --name web -p {port}:80 nginx").ok()
    engine.kill()
    assert "Welcome to nginx!" in fetch(port)
    engine.start()
    assert "Welcome to nginx!" in fetch(port)
    assert cli("port web").ok() == f"80/tcp -> 0.0.0.0:{port}"
    with pytest.raises(OSError, match="in use"):
        socket.create_server(("0.0.0.0", port))
    assert "container web has it" in cli(f"run -d --name other -p {port}:80 nginx").err
    cli("restart -t 0 web").ok()
    assert "Welcome to nginx!" in fetch(port)
    cli("rm -f web").ok()
    socket.create_server(("0.0.0.0", port)).close()
