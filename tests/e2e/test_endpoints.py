"""Options of one attachment, by command: names of interfaces, sysctls, link-local addresses, the gateway's priority."""

from __future__ import annotations

import json
import re
import socket
import threading
import time
from collections.abc import Callable

import pytest

from tsunagu.kernel import netns
from tsunagu.testing.commandline import CommandLine
from tsunagu.testing.engine import EngineProcess

pytestmark = pytest.mark.root

DAEMON = "Error response from daemon: "
IFNAME = "com.docker.network.endpoint.ifname"
SYSCTLS = "com.docker.network.endpoint.sysctls"


@pytest.fixture(autouse=True)
def _current(cli: CommandLine) -> None:
    if not cli.has_current_words:
        pytest.skip("this docker client takes one --network only, and no gateway priority")


def interfaces(cli: CommandLine, name: str) -> dict[str, str]:
    """The container's IPv4 addresses by interface."""
    listing = cli(f"exec {name} ip -4 -o addr").ok()
    return {ifname: address for ifname, address in re.findall(r"^\d+: (\S+) +inet ([\d.]+)/", listing, re.MULTILINE)}


def addresses(cli: CommandLine, name: str) -> dict[str, str]:
    """The container's IPv4 addresses by network."""
    networks = json.loads(cli("inspect -f", "{{json .NetworkSettings.Networks}}", name).ok())
    return {network: endpoint["IPAddress"] for network, endpoint in networks.items()}


def default_interface(cli: CommandLine, name: str, family: int = 4) -> str:
    found = re.search(r"^default via \S+ dev (\S+)", cli(f"exec {name} ip -{family} route").ok(), re.MULTILINE)
    return found[1] if found else ""


def test_interfaces_have_the_names_that_were_asked_for_and_keep_them(cli: CommandLine) -> None:
    for name in ("app", "back", "front"):
        cli(f"network create {name}").ok()
    # an image that waits; the second network's chosen name is what the first would have got
    cli(
        f"run -d --name web --network app --network name=back,driver-opt={IFNAME}=eth0 "
        f"--network name=front,driver-opt={IFNAME}=wan alpine sleep 3600"
    ).ok()
    first = addresses(cli, "web")
    assert interfaces(cli, "web") == {
        "lo": "127.0.0.1", "eth1": first["app"], "eth0": first["back"], "wan": first["front"],
    }  # fmt: skip
    assert json.loads(cli("inspect -f", "{{json .NetworkSettings.Networks.front.DriverOpts}}", "web").ok()) == {
        IFNAME: "wan"
    }
    # what comes and goes while it runs changes no other name, not after a restart either
    cli("network disconnect back web").ok()
    cli("restart -t 0 web").ok()
    assert sorted(interfaces(cli, "web")) == ["eth1", "lo", "wan"]
    cli("network connect back web").ok()
    assert sorted(interfaces(cli, "web")) == ["eth0", "eth1", "lo", "wan"]
    cli("stop -t 0 web").ok()
    cli("start web").ok()
    after = addresses(cli, "web")
    assert interfaces(cli, "web") == {
        "lo": "127.0.0.1", "eth1": after["app"], "eth0": after["back"], "wan": after["front"],
    }  # fmt: skip


def test_names_of_interfaces_that_cannot_be(cli: CommandLine) -> None:
    for name in ("app", "back"):
        cli(f"network create {name}").ok()
    cli("run -d --name web --network app alpine sleep 3600").ok()
    taken = f'{DAEMON}error renaming interface to "eth0": file exists'
    cli.refuses(cli(f"network connect --driver-opt {IFNAME}=eth0 back web"), 1, taken)
    assert sorted(addresses(cli, "web")) == ["app"]
    result = cli(f"network connect --driver-opt {IFNAME}=much-too-long-name back web")
    cli.refuses(result, 1, f"{DAEMON}invalid endpoint settings:")
    assert "invalid interface name 'much-too-long-name'" in result.err
    sentence = f"{DAEMON}endpoint option com.docker.network.nonsense is not supported"
    cli.refuses(cli("network connect --driver-opt com.docker.network.nonsense=1 back web"), 1, sentence)
    twice = f'{DAEMON}error renaming interface to "lan": file exists'
    words = f"run --network name=app,driver-opt={IFNAME}=lan --network name=back,driver-opt={IFNAME}=lan alpine true"
    cli.refuses(cli(words), 125, twice, help_for="run")


def test_sysctls_of_an_interface(cli: CommandLine) -> None:
    for name in ("app", "back"):
        cli(f"network create {name}").ok()
    martians = f"{SYSCTLS}=net.ipv4.conf.IFNAME.log_martians=1"
    cli(f"run -d --name web --network name=app,driver-opt={martians},driver-opt={IFNAME}=lan alpine sleep 3600").ok()
    several = "net.ipv4.conf.IFNAME.forwarding=0,net.ipv4.neigh.IFNAME.gc_stale_time=99"
    cli(f"""network connect --driver-opt '"{SYSCTLS}={several}"' back web""").ok()  # the flag is a CSV record
    read = "exec web cat /proc/sys/net/ipv4/"
    assert cli(f"{read}conf/lan/log_martians").ok() == "1"
    assert cli(f"{read}conf/eth0/log_martians").ok() == "0"
    assert (cli(f"{read}conf/eth0/forwarding").ok(), cli(f"{read}neigh/eth0/gc_stale_time").ok()) == ("0", "99")
    # refused when it is said, in Docker's words
    result = cli(f"create --network name=app,driver-opt={SYSCTLS}=net.ipv4.conf.eth0.forwarding=1 alpine true")
    assert result.code == 1
    assert "unrecognised network interface sysctl 'net.ipv4.conf.eth0.forwarding=1'" in result.err
    # or when the kernel has no such thing: then nothing is left of it
    cli("network disconnect back web").ok()
    result = cli(f"network connect --driver-opt {SYSCTLS}=net.ipv4.conf.IFNAME.nonsense=1 back web")
    cli.refuses(result, 1, f"{DAEMON}/proc/sys/net/ipv4/conf/eth0/nonsense is not a sysctl file")
    assert sorted(interfaces(cli, "web")) == ["lan", "lo"]
    result = cli(f"run --rm --network name=app,driver-opt={SYSCTLS}=net.ipv4.conf.IFNAME.forwarding=x alpine true")
    assert result.code == 125
    assert "unable to write to '/proc/sys/net/ipv4/conf/eth0/forwarding': Invalid argument" in result.err


def test_link_local_addresses(cli: CommandLine) -> None:
    cli("network create app").ok()
    cli("run -d --name web --network name=app,link-local-ip=169.254.7.7 alpine sleep 3600").ok()
    assert "inet 169.254.7.7/16" in cli("exec web ip addr show eth0").ok()
    assert json.loads(cli("inspect -f", "{{json .NetworkSettings.Networks.app.IPAMConfig}}", "web").ok()) == {
        "LinkLocalIPs": ["169.254.7.7"]
    }
    cli("run -d --name peer alpine sleep 3600").ok()
    cli("network connect --link-local-ip 169.254.7.8 app peer").ok()
    assert cli("exec peer ping -c 1 -W 2 169.254.7.7").code == 0
    cli.refuses(
        cli("network connect --link-local-ip 10.1.2.3 app web"), 1,
        f"{DAEMON}endpoint with name web already exists in network app",
    )  # fmt: skip
    result = cli("run --rm --network name=app,link-local-ip=10.1.2.3 alpine true")
    assert "invalid link-local IP address: 10.1.2.3" in result.err


def test_the_gateway_follows_priorities_per_family(cli: CommandLine) -> None:
    cli("network create four").ok()
    cli("network create --ipv6 both").ok()
    cli("network create --ipv4=false --ipv6 six").ok()
    cli(
        "run -d --name web --network name=four,gw-priority=5 --network both --network name=six,gw-priority=1 "
        "alpine sleep 3600"
    ).ok()
    assert (default_interface(cli, "web"), default_interface(cli, "web", 6)) == ("eth0", "eth2")
    cli("network disconnect four web").ok()
    assert (default_interface(cli, "web"), default_interface(cli, "web", 6)) == ("eth1", "eth2")
    cli("network disconnect six web").ok()
    assert (default_interface(cli, "web"), default_interface(cli, "web", 6)) == ("eth1", "eth1")
    cli("network connect --gw-priority 7 four web").ok()
    assert (default_interface(cli, "web"), default_interface(cli, "web", 6)) == ("eth0", "eth1")
    cli("restart -t 0 web").ok()
    assert (default_interface(cli, "web"), default_interface(cli, "web", 6)) == ("eth0", "eth1")


def test_names_follow_the_gateway_at_once(cli: CommandLine) -> None:
    """Two networks know the name `store`: the one with the gateway is asked first, from the moment it has it."""
    for name in ("app", "back"):
        cli(f"network create {name}").ok()
        cli(f"run -d --name in-{name} --network {name} --network-alias store alpine sleep 3600").ok()
    expected = {name: addresses(cli, f"in-{name}")[name] for name in ("app", "back")}
    cli("run -d --name web --network app bench sleep 3600").ok()
    assert cli("exec web dig +short store").ok() == expected["app"]
    cli("network connect --gw-priority 1 back web").ok()
    assert cli("exec web dig +short store").ok() == expected["back"]
    cli("network disconnect back web").ok()
    assert cli("exec web dig +short store").ok() == expected["app"]


class Stream:
    """Datagrams a millisecond after each other, numbered, until it is told to stop; and which of them arrived."""

    def __init__(self, sender: socket.socket, target: tuple[str, int], receiver: socket.socket) -> None:
        self._sender, self._target, self._receiver = sender, target, receiver
        self._is_over = threading.Event()
        self._sent = 0
        self._seen: set[int] = set()
        self._threads = [threading.Thread(target=self._send), threading.Thread(target=self._collect)]

    def _send(self) -> None:
        while not self._is_over.wait(0.001):
            self._sender.sendto(b"%d" % self._sent, self._target)
            self._sent += 1

    def _collect(self) -> None:
        self._receiver.settimeout(0.2)
        while True:
            try:
                self._seen.add(int(self._receiver.recv(32)))
            except TimeoutError:
                if self._is_over.is_set():
                    return

    def __enter__(self) -> Stream:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._is_over.set()
        for thread in self._threads:
            thread.join()

    def wait_for(self, count: int) -> None:
        """Return when so many more have been sent."""
        until, deadline = self._sent + count, time.monotonic() + 30
        while self._sent < until and time.monotonic() < deadline:
            time.sleep(0.001)

    @property
    def lost(self) -> list[int]:
        assert self._sent > 100
        return sorted(set(range(self._sent)) - self._seen)


@pytest.fixture
def socket_inside(engine: EngineProcess, cli: CommandLine) -> Callable[[str], socket.socket]:
    """Opens UDP sockets inside the sandbox of a container."""

    def open_one(name: str) -> socket.socket:
        path = f"{engine.instance.run_dir}/netns/" + cli("inspect -f", "{{.Id}}", name).ok()
        worker = netns.Worker("inside")

        def job() -> socket.socket:
            with worker.inside(netns.open_pinned(path)):
                return socket.socket(socket.AF_INET, socket.SOCK_DGRAM)

        try:
            return worker.submit(job).result()
        finally:
            worker.close()

    return open_one


def test_nothing_is_lost_while_the_gateway_moves(
    cli: CommandLine, socket_inside: Callable[[str], socket.socket]
) -> None:
    """Two streams: one through the network that stays, one by the default route, which moves away and back."""
    for name in ("app", "back", "elsewhere"):
        cli(f"network create {name}").ok()
    cli("run -d --name web --network name=app,gw-priority=1 --network back alpine sleep 3600").ok()
    cli("run -d --name peer --network back alpine sleep 3600").ok()
    host = cli("network inspect elsewhere -f", "{{(index .IPAM.Config 0).Gateway}}").ok()
    with (
        socket_inside("peer") as peer,
        socket_inside("web") as inner,
        socket_inside("web") as sender,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as outer,
    ):
        inner.bind(("0.0.0.0", 0))
        outer.bind((host, 0))  # an address of the host that is on no network of the container
        here = addresses(cli, "web")["back"]
        with (
            Stream(peer, (here, inner.getsockname()[1]), inner) as staying,
            Stream(sender, outer.getsockname(), outer) as moving,
        ):
            staying.wait_for(50)
            cli("network disconnect app web").ok()
            assert default_interface(cli, "web") == "eth1"
            cli("network connect --gw-priority 1 app web").ok()
            assert default_interface(cli, "web") == "eth0"
            moving.wait_for(50)
    assert (staying.lost, moving.lost) == ([], [])
