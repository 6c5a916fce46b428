"""What a container sees of names, addresses and routes: sections 2 and 3 of Docker's transcript."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest

from tsunagu.testing import golden
from tsunagu.testing.commandline import CommandLine

pytestmark = pytest.mark.root

NOT_FOUND = """
Server:		127.0.0.11
Address:	127.0.0.11:53

** server can't find <name>: NXDOMAIN

** server can't find <name>: NXDOMAIN
"""


@pytest.fixture
def network(cli: CommandLine) -> Iterator[CommandLine]:
    """`web`, `client` and `tools` (with dig) on app-network."""
    cli("network create app-network").ok()
    cli("run -d --name web --network app-network alpine sleep 3600").ok()
    cli("run -d --name client --network app-network alpine sleep 3600").ok()
    cli("run -d --name tools --network app-network bench").ok()
    yield cli


def address(cli: CommandLine, container: str) -> str:
    return cli("inspect -f", '{{(index .NetworkSettings.Networks "app-network").IPAddress}}', container).ok()


def dig(cli: CommandLine, words: str) -> tuple[str, list[str], str]:
    """Status, answer records and everything that dig printed in the container `tools`."""
    printed = cli(f"exec tools dig {words}").ok()
    status = re.search(r"status: (\w+)", printed)
    assert status is not None, printed
    answers = printed.partition(";; ANSWER SECTION:\n")[2].partition("\n\n")[0]
    return status[1], [re.sub(r"\s+", " ", line) for line in answers.splitlines()], printed


def test_every_record_type_of_a_name(network: CommandLine) -> None:
    web = address(network, "web")
    for words in ("web", "WEB", "web +tcp", "web.app-network", "web +noedns"):
        status, answers, printed = dig(network, words)
        name = words.split()[0]
        assert (status, answers) == ("NOERROR", [f"{name}. 5 IN A {web}"]), printed
        assert re.search(r"flags: qr rd ra;", printed), printed
    for words in ("web AAAA", "web MX", "web TXT", "web HTTPS", "web SOA"):
        status, answers, printed = dig(network, words)
        assert (status, answers) == ("NOERROR", []), printed


def test_addresses_have_names(network: CommandLine) -> None:
    web = address(network, "web")
    reverse = ".".join(reversed(web.split("."))) + ".in-addr.arpa"
    status, answers, printed = dig(network, f"-x {web}")
    assert (status, answers) == ("NOERROR", [f"{reverse}. 5 IN PTR web.app-network."]), printed
    printed = network(f"exec client nslookup {web}").ok()
    assert f"{reverse}\tname = web.app-network" in printed


def test_short_id_is_a_name_and_no_other_length(network: CommandLine) -> None:
    identity = network("inspect -f {{.Id}} web").ok()
    assert address(network, "web") in network(f"exec client nslookup {identity[:12]}").ok()
    result = network(f"exec client nslookup {identity[:8]}")
    assert result.code == 1
    golden.check(NOT_FOUND, result.out, name=identity[:8])


def test_unknown_name(network: CommandLine) -> None:
    result = network("exec client nslookup nosuchname.invalid")
    assert result.code == 1
    assert "can't find nosuchname.invalid" in result.out
    result = network("exec client ping -c 1 nosuchname.invalid")
    assert (result.code, result.err.strip()) == (1, "ping: bad address 'nosuchname.invalid'")


def test_interface_and_route(network: CommandLine) -> None:
    mine = address(network, "client")
    prefix = mine.rpartition(".")[0]
    addresses = f"""
1: lo: <LOOPBACK,UP,LOWER_UP> mtu 65536 qdisc noqueue qlen 1000
    link/loopback 00:00:00:00:00:00 brd 00:00:00:00:00:00
    inet 127.0.0.1/8 scope host lo
       valid_lft forever preferred_lft forever
    inet6 ::1/128 scope host<space>
       valid_lft forever preferred_lft forever
2: eth0@if<n>: <BROADCAST,MULTICAST,UP,LOWER_UP,M-DOWN> mtu <n> qdisc noqueue<space>
    link/ether <mac> brd ff:ff:ff:ff:ff:ff
    inet {mine}/24 brd {prefix}.255 scope global eth0
       valid_lft forever preferred_lft forever
"""
    golden.check(addresses, network("exec client ip addr").ok())
    routes = f"default via {prefix}.1 dev eth0 \n{prefix}.0/24 dev eth0 scope link  src {mine} "
    golden.check(routes, network("exec client ip route").ok())


def test_port_53_is_the_containers_own(network: CommandLine) -> None:
    listening = network("exec client netstat -lntu").ok().splitlines()[2:]
    assert [line.split()[0] for line in listening] == ["tcp", "udp"]
    assert all(line.split()[3].startswith("127.0.0.11:") for line in listening)
    assert not any(line.split()[3].endswith(":53") for line in listening)


def test_shared_alias_rotates_and_stopped_members_leave(network: CommandLine) -> None:
    for name in ("app1", "app2", "app3"):
        network(f"run -d --name {name} --network app-network --network-alias backend myapp:v1").ok()
    expected = {address(network, name) for name in ("app1", "app2", "app3")}
    firsts = set()
    for _ in range(9):
        answers = network("exec tools dig +short backend").ok().splitlines()
        assert set(answers) == expected
        firsts.add(answers[0])
    assert firsts == expected, "the first address of the answer rotates over all members"
    hosts = {network("exec client wget -qO- http://backend:8080/host").ok() for _ in range(12)}
    assert hosts <= {network(f"inspect -f {{{{.Config.Hostname}}}} {name}").ok() for name in ("app1", "app2", "app3")}
    stopped = address(network, "app1")
    network("stop -t 0 app1").ok()
    assert set(network("exec tools dig +short backend").ok().splitlines()) == expected - {stopped}
    result = network("exec client nslookup app1")
    assert result.code == 1
    network("start app1").ok()
    assert network("exec tools dig +short app1").ok() == stopped
    network("rename app1 app1new").ok()
    assert network("exec tools dig +short app1new").ok() == stopped
    assert network("exec tools dig +short app1").ok() == ""


def test_written_files_follow_the_flags(network: CommandLine) -> None:
    command = (
        "run --rm --network app-network --dns 198.51.100.7 --dns-search corp.example --dns-option ndots:2 "
        "alpine cat /etc/resolv.conf"
    )
    expected = """
# Generated by Docker Engine.
# This file can be edited; Docker Engine will not make further changes once it
# has been modified.

nameserver 127.0.0.11
search corp.example
options ndots:2

# Based on host file: '/etc/resolv.conf' (internal resolver)
# ExtServers: [198.51.100.7]
# Overrides: [nameservers search options]
# Option ndots from: override
"""
    golden.check(expected, network(command).ok())
    hosts = network("run --rm --network app-network --add-host bar:1.2.3.4 -h box alpine cat /etc/hosts").ok()
    assert hosts.splitlines()[6] == "1.2.3.4\tbar"
    assert re.fullmatch(r"[\d.]+\tbox", hosts.splitlines()[7])


def test_default_bridge_has_the_hosts_name_servers_and_no_names(cli: CommandLine) -> None:
    cli("run -d --name web alpine sleep 3600").ok()
    printed = cli("run --rm alpine cat /etc/resolv.conf").ok()
    assert "127.0.0.11" not in printed
    assert "# Based on host file: '/etc/resolv.conf' (legacy)" in printed
    assert cli("run --rm alpine ping -c 1 -W 1 web").code == 1
