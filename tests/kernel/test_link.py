"""Netlink by our own codec, read back through iproute2 and through our own dumps."""

# ruff: noqa: ASYNC221 (a test may block its own loop)
from __future__ import annotations

import errno
import socket
import subprocess

import pytest

from tsunagu.kernel import link, netlink
from tsunagu.kernel.netlink import Message, NetlinkError, Socket
from tsunagu.model.network import BridgePlan, port_group
from tsunagu.testing.namespaces import on_private_host

pytestmark = pytest.mark.root


def plan(name: str, address: str = "10.1.0.1/24") -> BridgePlan:
    return BridgePlan(name=name, mtu=1500, addresses=(address,))


@on_private_host
async def test_every_acknowledgement_is_checked_and_the_socket_stays_usable() -> None:
    with Socket() as nl:
        good = Message(
            netlink.RTM_NEWLINK,
            netlink.NLM_F_CREATE | netlink.NLM_F_EXCL,
            netlink.link_body(
                netlink.text(link.IFLA_IFNAME, "one"),
                netlink.nested(link.IFLA_LINKINFO, netlink.text(1, "bridge")),
            ),
            "make one",
        )
        bad = Message(netlink.RTM_DELLINK, 0, netlink.link_body(netlink.text(link.IFLA_IFNAME, "nosuch")), "the second")
        with pytest.raises(NetlinkError, match="the second") as caught:
            nl.send([good, bad, bad])
        assert (caught.value.errno, caught.value.index) == (errno.ENODEV, 1)
        assert {one.name for one in link.links(nl)} == {"lo", "one"} | _fallback_devices(nl)
        nl.send([bad], ignore=frozenset({errno.ENODEV}))
        nl.send([])
        with pytest.raises(NetlinkError):
            nl.send([good])


def _fallback_devices(nl: Socket) -> set[str]:
    """Tunnel devices that some kernels put into every namespace (net.core.fb_tunnels_only_for_init_net=0)."""
    return {one.name for one in link.links(nl)} & {"tunl0", "gre0", "gretap0", "erspan0", "sit0", "ip6tnl0", "ip_vti0"}


@on_private_host
async def test_the_kernel_s_own_words_reach_the_error() -> None:
    with Socket() as nl:
        bad = Message(
            netlink.RTM_NEWLINK,
            netlink.NLM_F_CREATE | netlink.NLM_F_EXCL,
            netlink.link_body(netlink.nested(link.IFLA_LINKINFO, netlink.text(1, "nosuchkind"))),
            "make it",
        )
        with pytest.raises(NetlinkError, match=r"make it: .*\(.+\)"):
            nl.send([bad])


@on_private_host
async def test_many_links_are_read_in_one_dump_and_deleted_by_one_wait() -> None:
    with Socket() as nl:
        names = [f"b{n}" for n in range(200)]
        for n, name in enumerate(names):
            link.ensure_bridge(nl, plan(name, f"10.{n}.0.1/24"), "mark")
        found = {one.name: one for one in link.links(nl) if one.alias == "mark"}
        assert set(found) == set(names)
        assert len({one.mac for one in found.values()}) == 200
        assert {f"10.{n}.0.0/24" for n in range(200)} <= link.prefixes(nl)
        subprocess.run(["ip", "link", "add", "theirs", "type", "bridge"], check=True)
        link.delete(nl, [*names, "nosuch"], 0xF0000001)
        assert {one.name for one in link.links(nl)} - _fallback_devices(nl) == {"lo", "theirs"}


@on_private_host
async def test_find() -> None:
    with Socket() as nl:
        assert link.find(nl, "nosuch") is None
        link.ensure_bridge(nl, plan("b"), "m")
        found = link.find(nl, "b")
        assert found is not None
        assert (found.kind, found.mtu, found.alias, found.is_up) == ("bridge", 1500, "m", True)
        assert found.ifindex == socket.if_nametoindex("b")
        assert int(found.mac[:2], 16) & 3 == 2  # locally administered, unicast


def test_port_groups_fit_nft_and_netlink_and_differ() -> None:
    groups = {port_group(f"br-{n}") for n in range(1000)}
    assert len(groups) == 1000
    assert min(groups) > 0
    assert max(groups) <= 1 << 31
