"""Legacy links: section 5 of Docker's transcript, and what happens to links when their ends change."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tsunagu.testing import golden
from tsunagu.testing.commandline import CommandLine
from tsunagu.testing.engine import EngineProcess

pytestmark = pytest.mark.root

DAEMON = "Error response from daemon: "
HOSTS = """
127.0.0.1	localhost
::1	localhost ip6-localhost ip6-loopback
fe00::	ip6-localnet
ff00::	ip6-mcastprefix
ff02::1	ip6-allnodes
ff02::2	ip6-allrouters
"""
PING = """
PING database (<db>) 56(84) bytes of data.
64 bytes from database (<db>): icmp_seq=1 ttl=64 time=<ms> ms

--- database ping statistics ---
1 packets transmitted, 1 received, 0% packet loss, time 0ms
rtt min/avg/max/mdev = <ms>/<ms>/<ms>/<ms> ms
"""


def address(cli: CommandLine, container: str, network: str = "bridge") -> str:
    template = f'{{{{(index .NetworkSettings.Networks "{network}").IPAddress}}}}'
    return cli("inspect -f", template, container).ok()


def hosts(cli: CommandLine, container: str) -> str:
    """What a container's hosts file has besides the lines that all have."""
    text = cli(f"exec {container} cat /etc/hosts").ok()
    assert text.startswith(HOSTS.lstrip()), text
    return text[len(HOSTS.lstrip()) :]


def test_5_links_on_the_default_bridge(cli: CommandLine) -> None:
    database = cli("run -d --name db -e FOO=bar mysql:8").ok()
    result = cli("run -d --name web --link db:database nginx")
    web = result.ok()
    golden.check("<id>", web)
    notice = (
        "WARNING: --link on the default bridge is a legacy feature: put the containers on one network of their own "
        "(network create NAME, run --network NAME) and they find db by name.\n"
    )
    assert result.err == notice
    db = address(cli, "db")
    own = f"{address(cli, 'web')}\t{web[:12]}"
    assert hosts(cli, "web") == f"{db}\tdatabase {database[:12]} db\n{own}"
    for name in ("database", "db"):
        golden.check(PING, cli(f"exec web ping -c 1 -W 1 {name}").ok(), db=db)
    # as with Docker 29, no variables unless the engine is told to
    assert "DATABASE" not in cli("exec web env").ok()
    assert cli("inspect -f", "{{json .HostConfig.Links}}", "web").ok() == '["/db:/web/database"]'
    assert cli("inspect -f", "{{json .NetworkSettings.Networks.bridge.Links}}", "web").ok() == "null"
    assert cli("inspect -f", "{{.Name}} {{json .HostConfig.Links}}", "web/database").ok() == "/db null"
    assert cli("ps --filter name=db --format {{.Names}}").ok() == "db"
    assert cli("ps --no-trunc --filter name=web/database --format {{.Names}}").ok() == "db,web/database"

    # nobody else knows the names
    cli("run -d --name nolink alpine sleep 100").ok()
    result = cli("exec nolink ping -c 1 -W 1 web")
    assert (result.code, result.err.strip()) == (1, "ping: bad address 'web'")

    # the target comes back with another address, goes under another name, and the link follows
    cli("stop -t 0 db").ok()
    assert hosts(cli, "web") == own
    cli("run -d --name squatter alpine sleep 100").ok()
    assert address(cli, "squatter") == db
    cli("start db").ok()
    moved = address(cli, "db")
    assert moved != db
    assert hosts(cli, "web") == f"{moved}\tdatabase {database[:12]} db\n{own}"
    cli("rename db store").ok()
    assert hosts(cli, "web") == f"{moved}\tdatabase {database[:12]} store\n{own}"
    cli("rename web front").ok()
    assert cli("inspect -f", "{{json .HostConfig.Links}}", "front").ok() == '["/store:/front/database"]'

    # rm --link takes the name, not the container
    cli.refuses(cli("rm --link store"), 1, DAEMON + "Conflict, cannot remove the default link name of the container")
    cli.refuses(cli("rm --link front/nosuch"), 1, DAEMON + "No such container: front/nosuch")
    assert cli("rm --link /front/database").ok() == "/front/database"
    assert hosts(cli, "front") == own
    assert cli("inspect -f", "{{json .HostConfig.Links}}", "front").ok() == "null"
    assert cli("inspect -f {{.State.Running}} store").ok() == "true"


def test_links_that_are_refused(cli: CommandLine) -> None:
    sentence = DAEMON + "could not get container for nosuch: No such container: nosuch"
    cli.refuses(cli("run --rm --link nosuch:x alpine true"), 125, sentence, help_for="run")
    sentence = DAEMON + "could not get container for self: No such container: self"
    result = cli("run --rm --name self --link self:x alpine true")
    cli.refuses(result, 125, sentence, help_for="run")
    assert "cannot be linked to itself" in result.err
    clash = (
        "conflicting options: host type networking can't be used with links. This would result in undefined behavior"
    )
    cli("run -d --name onhost --network host alpine sleep 100").ok()
    cli.refuses(cli("run --rm --link onhost:x alpine true"), 125, DAEMON + clash, help_for="run")
    cli.refuses(cli("run --rm --network host --link onhost:x alpine true"), 125, DAEMON + clash, help_for="run")
    cli("create --name idle alpine sleep 100").ok()
    cli("create --name needy --link idle:x alpine sleep 100").ok()
    cli.refuses(cli("start needy"), 1, DAEMON + "Cannot link to a non running container: /idle AS /needy/x")
    assert cli("inspect -f {{.State.Status}} needy").ok() == "created"
    cli("network create link-net").ok()
    cli("run -d --name elsewhere --network link-net alpine sleep 100").ok()
    cli("create --name across --link elsewhere:x alpine sleep 100").ok()
    cli.refuses(
        cli("start across"), 1, DAEMON + "Cannot link to /elsewhere, as it does not belong to the default network"
    )
    sentence = DAEMON + "conflicting options: two links are called x"
    cli.refuses(cli("run --rm --link idle:x --link across:x alpine true"), 125, sentence, help_for="run")


def test_a_removed_target_takes_its_links_along(cli: CommandLine) -> None:
    database = cli("run -d --name db alpine sleep 300").ok()
    web = cli("run -d --name web --link db alpine sleep 300").ok()
    own = f"{address(cli, 'web')}\t{web[:12]}"
    assert hosts(cli, "web") == f"{address(cli, 'db')}\tdb {database[:12]}\n{own}"
    assert cli("rm -f db").ok() == "db"
    assert hosts(cli, "web") == own
    assert cli("inspect -f", "{{json .HostConfig.Links}}", "web").ok() == "null"
    # another container of that name is another container
    cli("run -d --name db alpine sleep 300").ok()
    assert hosts(cli, "web") == own
    cli("restart -t 0 web").ok()
    assert "\tdb " not in hosts(cli, "web")


def test_5_links_on_a_network_with_names(cli: CommandLine) -> None:
    cli("network create link-net").ok()
    cli("network create other-net").ok()
    cli("run -d --name target --network link-net alpine sleep 300").ok()
    script = "cat /etc/hosts; env; nslookup -type=a tt; nslookup -type=a target"
    result = cli("run --rm --network link-net --link target:tt alpine sh -c", script)
    out = result.ok()
    assert result.err == ""
    target = address(cli, "target", "link-net")
    assert out.startswith(HOSTS.lstrip())
    assert "TT_" not in out
    found = [f"Name:\t{name}\nAddress: {target}" in out for name in ("tt", "target")]
    assert found == [True, True], out
    cli("run -d --name one --network link-net --link target:tt alpine sleep 300").ok()
    assert cli("inspect -f", "{{json .HostConfig.Links}}", "one").ok() == "null"
    listed = cli("inspect -f", '{{json (index .NetworkSettings.Networks "link-net").Links}}', "one").ok()
    assert listed == '["target:tt"]'
    result = cli("run --rm --network other-net --link target:tt alpine true")
    assert (result.code, "link tt leads nowhere while target is not on network other-net" in result.err) == (0, True)


def test_variables_only_for_an_engine_that_is_told_to(
    new_engine: Callable[..., EngineProcess], client_of: Callable[[str, EngineProcess], CommandLine]
) -> None:
    engine = new_engine(DOCKER_KEEP_DEPRECATED_LEGACY_LINKS_ENV_VARS="1")
    cli = client_of("tsunagu", engine)
    cli("run -d --name db -e FOO=bar --expose 33060 --expose 3306 --expose 53/udp tiny sleep 300").ok()
    expected = """
PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
HOSTNAME=<id12>
DATA_BASE_PORT=udp://<db>:53
DATA_BASE_PORT_53_UDP=udp://<db>:53
DATA_BASE_PORT_53_UDP_ADDR=<db>
DATA_BASE_PORT_53_UDP_PORT=53
DATA_BASE_PORT_53_UDP_PROTO=udp
DATA_BASE_PORT_3306_TCP=tcp://<db>:3306
DATA_BASE_PORT_3306_TCP_ADDR=<db>
DATA_BASE_PORT_3306_TCP_PORT=3306
DATA_BASE_PORT_3306_TCP_PROTO=tcp
DATA_BASE_PORT_33060_TCP=tcp://<db>:33060
DATA_BASE_PORT_33060_TCP_ADDR=<db>
DATA_BASE_PORT_33060_TCP_PORT=33060
DATA_BASE_PORT_33060_TCP_PROTO=tcp
DATA_BASE_NAME=/web/data-base
DATA_BASE_ENV_FOO=bar
HOME=/root
"""
    cli("run -d --name web --link db:data-base tiny sleep 300").ok()
    golden.check(expected, cli("exec web env").ok(), db=address(cli, "db"))


def test_a_link_opens_ports_where_neighbours_are_kept_apart(
    new_engine: Callable[..., EngineProcess], client_of: Callable[[str, EngineProcess], CommandLine]
) -> None:
    engine = new_engine("--icc=false")
    cli = client_of("tsunagu", engine)
    server = "tiny httpd -f -p 80 -h /etc"
    cli(f"run -d --name db --expose 80 {server}").ok()
    cli(f"run -d --name web --expose 80 --link db:store {server}").ok()
    cli(f"run -d --name stranger {server}").ok()

    def reaches(source: str, target: str) -> bool:
        # not wget: Debian 12's busybox crashes on names from the hosts file
        result = cli(f"exec {source} nc -w 1 {target} 80")
        said = cli(f"why {source} {target}:80")
        assert (said.code == 0) == (result.code == 0), f"{result}\n{said}"
        return result.code == 0

    assert reaches("web", "store")
    assert "a link opens the ports that its target exposes" in cli("why web store:80").out
    assert not reaches("stranger", address(cli, "db"))
    assert not reaches("web", address(cli, "stranger"))
    assert not reaches("db", address(cli, "web")), "a link opens the target's ports, not the source's"
    assert cli("exec web ping -c 1 -W 1 store").code == 1, "only the ports that are exposed"
    # the target comes back elsewhere; the engine comes back
    old = address(cli, "db")
    cli("stop -t 0 db").ok()
    cli("run -d --name squatter --expose 80 " + server).ok()
    assert address(cli, "squatter") == old
    assert not reaches("web", old)
    cli("start db").ok()
    assert reaches("web", "store")
    engine.restart()
    assert reaches("web", "store")
    assert not reaches("web", old)
    cli("network disconnect bridge db").ok()
    assert cli("why web store:80").code == 1
    cli("network connect bridge db").ok()
    assert reaches("web", "store")
    cli("rm --link web/store").ok()
    assert not reaches("web", address(cli, "db"))
