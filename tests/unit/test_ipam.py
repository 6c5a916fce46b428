"""IPAM: properties against plain set arithmetic, and Docker's sentences."""

from __future__ import annotations

import contextlib
import ipaddress
import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tsunagu.model.errors import Conflict, EngineError, Forbidden, InvalidParameter
from tsunagu.model.network import Network, Subnet
from tsunagu.rules import ipam

# ---- subnets

small_prefixes = st.builds(
    lambda value, length: str(ipaddress.ip_network((0x0A000000 | value, length), strict=False)),
    st.integers(0, 0xFFFF),
    st.integers(14, 32),
)


@given(st.lists(small_prefixes, max_size=40), st.integers(16, 28))
def test_chosen_subnet_is_the_lowest_that_overlaps_nothing(taken: list[str], length: int) -> None:
    pool = ipaddress.ip_network("10.0.0.0/20")
    if length < 20:
        with pytest.raises(InvalidParameter):
            ipam.choose_subnet([str(pool)], length, taken)
        return
    used = [ipaddress.ip_network(one) for one in taken]
    free = (one for one in pool.subnets(new_prefix=length) if not any(one.overlaps(other) for other in used))
    expected = next(free, None)
    if expected is None:
        with pytest.raises(InvalidParameter, match="all predefined address pools have been fully subnetted"):
            ipam.choose_subnet([str(pool)], length, taken)
    else:
        assert ipam.choose_subnet([str(pool)], length, taken) == str(expected)


def test_pools_are_used_in_order_and_hold_hundreds() -> None:
    pools = ("10.1.0.0/23", "10.2.0.0/16")
    taken = ["fd00::/8", "10.1.1.77/32"]
    for expected in ("10.1.0.0/24", "10.2.0.0/24", "10.2.1.0/24"):
        chosen = ipam.choose_subnet(pools, 24, taken)
        assert chosen == expected
        taken.append(chosen)
    for _ in range(254):
        taken.append(ipam.choose_subnet(pools, 24, taken))
    with pytest.raises(InvalidParameter):
        ipam.choose_subnet(pools, 24, taken)


def test_ula() -> None:
    first = ipam.choose_ula("fd3b:5922:8e18::/48", [])
    assert first == "fd3b:5922:8e18::/64"
    assert ipam.choose_ula("fd3b:5922:8e18::/48", [first, "10.0.0.0/8"]) == "fd3b:5922:8e18:1::/64"


def check(*subnets: Subnet, ipv6: bool = False, taken: tuple[tuple[str, str], ...] = ()) -> tuple[Subnet, ...]:
    return ipam.check_subnets(subnets, families=(4, 6) if ipv6 else (4,), taken=taken)


def test_gateways_are_filled_in_and_texts_made_canonical() -> None:
    assert check(Subnet(subnet="10.9.0.0/24"), Subnet(subnet="FD00:0::/64", aux={"h": "fd00:0::0005"}), ipv6=True) == (
        Subnet(subnet="10.9.0.0/24", gateway="10.9.0.1"),
        Subnet(subnet="fd00::/64", gateway="fd00::1", aux={"h": "fd00::5"}),
    )
    # Docker's optnet and relatives: the gateway comes from the range, and keeps out of the way of aux addresses
    (one,) = check(Subnet(subnet="172.29.0.0/24", ip_range="172.29.0.128/26"))
    assert one.gateway == "172.29.0.128"
    (one,) = check(Subnet(subnet="172.29.0.0/24", aux={"router": "172.29.0.1"}))
    assert one.gateway == "172.29.0.2"
    (one,) = check(Subnet(subnet="172.29.0.0/24", gateway="172.29.0.254"))
    assert one.gateway == "172.29.0.254"


def test_ipv6_subnets_of_a_network_without_ipv6_are_left_out() -> None:
    assert [one.subnet for one in check(Subnet(subnet="10.9.0.0/24"), Subnet(subnet="fd00::/64"))] == ["10.9.0.0/24"]


@pytest.mark.parametrize(
    ("subnet", "sentence"),
    [
        (Subnet(subnet="300.1.1.0/24"), "invalid subnet 300.1.1.0/24: invalid CIDR block notation"),
        (Subnet(subnet="10.1.1.0"), "invalid subnet 10.1.1.0: invalid CIDR block notation"),
        (Subnet(subnet="10.1.1.0/255.255.255.0"), "invalid subnet 10.1.1.0/255.255.255.0: invalid CIDR block notation"),
        (Subnet(subnet="10.1.1.0/33"), "invalid subnet 10.1.1.0/33: invalid CIDR block notation"),
        (Subnet(subnet="fe80::1%eth0/64"), "invalid subnet fe80::1%eth0/64: invalid CIDR block notation"),
        (Subnet(subnet="172.30.5.1/24"), "invalid subnet 172.30.5.1/24: it should be 172.30.5.0/24"),
        (
            Subnet(subnet="10.1.1.0/24", ip_range="nonsense"),
            "invalid ip-range nonsense: invalid CIDR block notation",
        ),
        (
            Subnet(subnet="10.1.1.0/24", ip_range="fd00::/64"),
            "invalid ip-range fd00::/64: parent subnet is an IPv4 block",
        ),
        (
            Subnet(subnet="10.1.1.0/24", ip_range="10.1.0.0/16"),
            "invalid ip-range 10.1.0.0/16: CIDR block is bigger than its parent subnet 10.1.1.0/24",
        ),
        (
            Subnet(subnet="10.1.1.0/24", ip_range="10.1.1.5/28"),
            "invalid ip-range 10.1.1.5/28: it should be 10.1.1.0/28",
        ),
        (
            Subnet(subnet="10.1.1.0/24", ip_range="10.1.2.0/28"),
            "invalid ip-range 10.1.2.0/28: parent subnet 10.1.1.0/24 doesn't contain ip-range",
        ),
        (Subnet(subnet="10.1.1.0/24", gateway="x"), "invalid gateway x: invalid address"),
        (Subnet(subnet="10.1.1.0/24", gateway="fd00::1"), "invalid gateway fd00::1: parent subnet is an IPv4 block"),
        (
            Subnet(subnet="10.1.1.0/24", gateway="10.1.2.1"),
            "invalid gateway 10.1.2.1: parent subnet 10.1.1.0/24 doesn't contain this address",
        ),
        (
            Subnet(subnet="10.1.1.0/24", aux={"a": "10.1.2.1"}),
            "invalid auxiliary address a: parent subnet 10.1.1.0/24 doesn't contain this address",
        ),
        (Subnet(subnet="10.1.1.0/24", aux={"a": ""}), "invalid auxiliary address a: invalid address"),
    ],
)
def test_docker_s_sentences_for_bad_subnets(subnet: Subnet, sentence: str) -> None:
    with pytest.raises(InvalidParameter) as caught:
        check(subnet)
    assert caught.value.message == f"invalid network config:\n{sentence}"


def test_all_problems_are_told_at_once() -> None:
    with pytest.raises(InvalidParameter) as caught:
        check(Subnet(subnet="300.0.0.0/8"), Subnet(subnet="10.1.1.1/24", gateway="10.2.0.1"))
    assert caught.value.message.count("\n") == 3


def test_one_subnet_per_family() -> None:
    with pytest.raises(InvalidParameter, match="bridge driver doesn't support multiple subnets"):
        check(Subnet(subnet="10.1.0.0/24"), Subnet(subnet="10.2.0.0/24"))


def test_overlap_names_the_holder() -> None:
    with pytest.raises(Forbidden) as caught:
        check(Subnet(subnet="172.31.0.0/25"), taken=(("fd00::/8", "network v6"), ("172.31.0.0/24", "network sn1")))
    assert caught.value.message == "invalid pool request: Pool overlaps with other one on this address space"
    assert "network sn1" in caught.value.hint


@given(st.text(max_size=30), st.text(max_size=12), st.text(max_size=12), st.booleans())
def test_any_text_is_answered_or_refused(subnet: str, ip_range: str, gateway: str, ipv6: bool) -> None:
    with contextlib.suppress(EngineError):
        check(Subnet(subnet=subnet, ip_range=ip_range, gateway=gateway), ipv6=ipv6)


# ---- addresses


@given(st.integers(24, 32), st.sets(st.integers(0, 255), max_size=60), st.booleans())
def test_chosen_address_is_the_lowest_free_one(length: int, taken_hosts: set[int], has_range: bool) -> None:
    prefix = ipaddress.ip_network(f"10.7.0.0/{length}")
    ip_range = f"10.7.0.0/{min(32, length + 1)}" if has_range else ""
    pool = ipaddress.ip_network(ip_range) if ip_range else prefix
    subnet = Subnet(subnet=str(prefix), ip_range=ip_range, gateway="10.7.0.1", aux={"a": "10.7.0.3"})
    taken = {f"10.7.0.{host}" for host in taken_hosts}
    edges = {str(prefix.network_address), str(prefix.broadcast_address)} if length < 31 else set()
    free = [str(one) for one in pool if str(one) not in taken | edges | {"10.7.0.1", "10.7.0.3"}]
    if free:
        assert ipam.choose_address(subnet, taken) == free[0]
    else:
        with pytest.raises(Conflict, match="no available IPv4 addresses"):
            ipam.choose_address(subnet, taken)


def test_addresses_of_a_wide_ipv6_subnet() -> None:
    (subnet,) = check(Subnet(subnet="fd00::/64"), ipv6=True)
    taken: set[str] = set()
    for expected in ("fd00::2", "fd00::3", "fd00::4"):
        chosen = ipam.choose_address(subnet, taken)
        assert chosen == expected
        taken.add(chosen)


def test_docker_s_optnet_gives_128_first() -> None:
    subnet = Subnet(
        subnet="172.29.0.0/24", gateway="172.29.0.254", ip_range="172.29.0.128/26", aux={"h1": "172.29.0.129"}
    )
    assert ipam.choose_address(subnet, set()) == "172.29.0.128"
    assert ipam.choose_address(subnet, {"172.29.0.128"}) == "172.29.0.130"


NETWORK = Network(
    id="1" * 64,
    name="sn1",
    has_user_subnet=True,
    subnets=(
        Subnet(subnet="172.31.0.0/24", gateway="172.31.0.1", aux={"box": "172.31.0.9"}),
        Subnet(subnet="fd00::/64", gateway="fd00::1"),
    ),
)


def test_wanted_address_is_made_canonical() -> None:
    assert ipam.check_address(NETWORK, "172.31.0.50", {}) == "172.31.0.50"
    assert ipam.check_address(NETWORK, "FD00:0::05", {}) == "fd00::5"


@pytest.mark.parametrize(
    ("ip", "kind", "sentence", "hint"),
    [
        ("nonsense", InvalidParameter, "invalid IP address: nonsense", ""),
        (
            "172.32.0.50",
            InvalidParameter,
            "no configured subnet or ip-range contain the IP address 172.32.0.50",
            "172.31.0.0/24",
        ),
        ("172.31.0.60", Forbidden, "Address already in use", "container ip1"),
        ("172.31.0.1", Forbidden, "Address already in use", "gateway"),
        ("172.31.0.9", Forbidden, "Address already in use", "auxiliary address box"),
        ("172.31.0.0", Forbidden, "Address already in use", "subnet itself"),
        ("172.31.0.255", Forbidden, "Address already in use", "subnet itself"),
        ("fd00::1", Forbidden, "Address already in use", "gateway"),
    ],
)
def test_docker_s_sentences_for_bad_addresses(ip: str, kind: type[EngineError], sentence: str, hint: str) -> None:
    with pytest.raises(kind) as caught:
        ipam.check_address(NETWORK, ip, {"172.31.0.60": "container ip1"})
    assert caught.value.message == sentence
    assert hint in caught.value.hint


def test_wanted_address_outside_the_ip_range_is_refused() -> None:
    network = Network(
        id="1" * 64, name="n", has_user_subnet=True, subnets=(Subnet(subnet="10.1.0.0/24", ip_range="10.1.0.128/25"),)
    )
    assert ipam.check_address(network, "10.1.0.200", {}) == "10.1.0.200"
    with pytest.raises(InvalidParameter, match="no configured subnet or ip-range"):
        ipam.check_address(network, "10.1.0.5", {})


def test_wanted_address_needs_a_subnet_that_a_user_chose() -> None:
    network = Network(id="1" * 64, name="public-network", subnets=(Subnet(subnet="172.18.0.0/24"),))
    with pytest.raises(InvalidParameter, match="supported only when connecting to networks with user configured") as e:
        ipam.check_address(network, "172.18.0.99", {})
    assert "--subnet" in e.value.hint


# ---- MAC addresses


@given(st.binary(min_size=6, max_size=6))
def test_generated_mac_is_local_and_unicast(random6: bytes) -> None:
    mac = ipam.generate_mac(random6)
    assert int(mac[:2], 16) & 3 == 2
    assert ipam.check_mac(mac) == mac


@pytest.mark.parametrize("text", ["02:42:AC:11:00:02", "02-42-ac-11-00-02", "0242.ac11.0002", " 02:42:ac:11:00:02 "])
def test_mac_in_every_usual_form(text: str) -> None:
    assert ipam.check_mac(text) == "02:42:ac:11:00:02"


@pytest.mark.parametrize(
    "text",
    ["", "x", "02:42:ac:11:00", "02:42:ac:11:00:02:03", "02:42-ac:11:00:02", "01:00:5e:00:00:01", "00:00:00:00:00:00"],
)
def test_bad_macs(text: str) -> None:
    with pytest.raises(InvalidParameter, match="invalid MAC address"):
        ipam.check_mac(text)


def test_speed_does_not_depend_on_the_size_of_the_pools() -> None:
    """A /8 pool with a few thousand routes is answered by looking at the routes, not at the pool."""
    taken = [f"10.{a}.{b}.0/24" for a, b in itertools.product(range(12), range(256))]
    assert ipam.choose_subnet(["10.0.0.0/8"], 24, taken) == "10.12.0.0/24"
    assert ipam.choose_subnet(["fd00::/8"], 64, ["fd00::/9"]) == "fd80::/64"


@pytest.mark.parametrize(
    ("subnet", "kind"),
    [
        ("0.0.0.0/8", "unspecified"),
        ("127.0.0.0/8", "loopback"),
        ("224.0.0.0/24", "multicast"),
        ("255.255.255.0/24", "broadcast"),
        ("0.0.0.0/0", "unspecified"),
        ("::1/128", "loopback"),
        ("::/0", "loopback"),
        ("fe80::/64", "link-local"),
        ("ff02::/64", "multicast"),
        ("::ffff:10.1.0.0/120", "IPv4-mapped"),
    ],
)
def test_subnets_that_no_container_can_use(subnet: str, kind: str) -> None:
    with pytest.raises(InvalidParameter, match=f"{kind} addresses cannot be a container's"):
        ipam.check_subnets((Subnet(subnet=subnet),), families=(4, 6), taken=())


@pytest.mark.parametrize("gateway", ["10.0.0.0", "10.0.0.255"])
def test_a_gateway_that_no_interface_can_have_is_refused_at_create(gateway: str) -> None:
    with pytest.raises(InvalidParameter, match=f"invalid gateway {gateway}: it is the network or broadcast address"):
        ipam.check_subnets((Subnet("10.0.0.0/24", gateway=gateway),), families=(4,), taken=())


def test_both_addresses_of_a_point_to_point_prefix_may_be_the_gateway() -> None:
    for gateway in ("10.0.0.0", "10.0.0.1"):
        checked = ipam.check_subnets((Subnet("10.0.0.0/31", gateway=gateway),), families=(4,), taken=())
        assert checked[0].gateway == gateway
