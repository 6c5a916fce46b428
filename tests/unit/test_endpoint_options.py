"""Options of one attachment: what is refused, and which names interfaces get."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tsunagu.model.errors import Conflict, NotSupported
from tsunagu.model.network import EndpointConfig
from tsunagu.rules import endpoint_options
from tsunagu.rules.endpoint_options import IFNAME, SYSCTLS


def config(name: str = "", **options: str) -> EndpointConfig:
    chosen = {IFNAME: name} if name else {}
    return EndpointConfig(network=f"net-{name}", driver_opts={**chosen, **options})


@pytest.mark.parametrize("name", ["a" * 16, "lo", "all", "..", "a b", "a/b", "über"])
def test_names_that_no_interface_can_have(name: str) -> None:
    (problem,) = endpoint_options.problems(config(name))
    assert problem.startswith(f"invalid interface name '{name}'")


@pytest.mark.parametrize(
    "text",
    [
        "", "net.ipv4.conf.eth0.log_martians=1", "net.unix.conf.IFNAME.x=1", "net.ipv4.conf.IFNAME=1", "kernel.x=1",
        "net.ipv4.conf.IFNAME.log_martians", "net.ipv4.../../..IFNAME.x=1", "net.ipv4.conf.IFNAME./x=1",
    ],
)  # fmt: skip
def test_sysctls_that_are_not_an_interfaces(text: str) -> None:
    assert endpoint_options.problems(config(**{SYSCTLS: text})) == [
        f"unrecognised network interface sysctl '{text}'; represent 'net.X.Y.ethN.Z=V' as 'net.X.Y.IFNAME.Z=V', "
        "'X' must be 'ipv4', 'ipv6' or 'mpls'"
    ]


def test_sysctls_are_written_below_the_interface_in_order() -> None:
    # Docker's client writes what stands behind --network in lower case
    asked = config(**{SYSCTLS: "net.ipv4.conf.IFNAME.log_martians=1,net.ipv6.neigh.ifname.base_reachable_time_ms=5000"})
    assert endpoint_options.problems(asked) == []
    assert endpoint_options.sysctls(asked, "lan.5") == (
        ("net/ipv4/conf/lan.5/log_martians", "1"),
        ("net/ipv6/neigh/lan.5/base_reachable_time_ms", "5000"),
    )
    assert endpoint_options.sysctls(config(), "eth0") == ()


def test_other_options_are_refused_by_name() -> None:
    for key in ("com.docker.network.advertise_addr_ms", "x"):
        with pytest.raises(NotSupported, match=f"endpoint option {key} is not supported"):
            endpoint_options.problems(config(**{key: "1"}))


def test_one_name_twice() -> None:
    with pytest.raises(Conflict, match='error renaming interface to "lan": file exists') as caught:
        endpoint_options.check_names([config("lan"), config(), config("lan")])
    assert "net-lan" in caught.value.hint


@pytest.mark.parametrize(
    ("wanted", "names"),
    [
        ([("", "", "eth"), ("", "", "eth")], ["eth0", "eth1"]),
        ([("", "", "eth"), ("", "", "lan"), ("", "", "eth")], ["eth0", "lan0", "eth1"]),
        # a name that was chosen is nobody else's, in whatever order
        ([("", "", "eth"), ("eth0", "", "eth")], ["eth1", "eth0"]),
        ([("wan", "", "eth"), ("", "", "eth")], ["wan", "eth0"]),
        # a name that an endpoint had stays, whatever was disconnected and connected since
        ([("", "eth1", "eth"), ("", "", "eth")], ["eth1", "eth0"]),
        ([("", "eth2", "eth"), ("", "", "eth"), ("", "eth0", "eth")], ["eth2", "eth1", "eth0"]),
        ([("eth1", "", "eth"), ("", "eth1", "eth")], ["eth1", "eth0"]),
        # the network was made anew with another prefix
        ([("", "eth0", "lan")], ["lan0"]),
    ],
)
def test_names_of_interfaces(wanted: list[tuple[str, str, str]], names: list[str]) -> None:
    assert endpoint_options.interface_names([(config(name), kept, prefix) for name, kept, prefix in wanted]) == names


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["", "", "wan", "eth1", "lan0"]), st.sampled_from(["", "eth0", "eth1", "lan0"]),
            st.sampled_from(["eth", "lan"]),
        ),
        max_size=6,
        unique_by=lambda one: one[0] or object(),
    )
)  # fmt: skip
def test_names_are_different_and_stay_as_they_are(wanted: list[tuple[str, str, str]]) -> None:
    asked = [(config(name), kept, prefix) for name, kept, prefix in wanted]
    names = endpoint_options.interface_names(asked)
    assert len(set(names)) == len(names)
    again = [(one, name, prefix) for (one, _, prefix), name in zip(asked, names, strict=True)]
    assert endpoint_options.interface_names(again) == names


def test_joining_a_running_container() -> None:
    present = {"eth0": "app", "eth2": "back", "wan": "front"}
    assert endpoint_options.next_name(config(), "eth", present) == "eth1"
    assert endpoint_options.next_name(config(), "lan", present) == "lan0"
    assert endpoint_options.next_name(config("eth5"), "eth", present) == "eth5"
    with pytest.raises(Conflict, match='error renaming interface to "eth0": file exists') as caught:
        endpoint_options.next_name(config("eth0"), "eth", present)
    assert caught.value.hint.startswith("network app has it")
