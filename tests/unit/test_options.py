"""Options of networks: what is refused, in Docker's words, and what they mean together."""

from __future__ import annotations

import pytest

from tsunagu.model.errors import InvalidParameter, NotSupported
from tsunagu.model.network import (
    ANNOUNCE_INTERVAL,
    ANNOUNCEMENTS,
    GATEWAY_MODE,
    ICC,
    INHIBIT_IPV4,
    MTU,
    SNAT_SOURCE,
    TRUSTED_INTERFACES,
    GatewayMode,
    Network,
    Subnet,
)
from tsunagu.rules import options


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({ICC: "maybe"}, f'failed to parse {ICC} value: maybe (strconv.ParseBool: parsing "maybe": invalid syntax)'),
        ({INHIBIT_IPV4: ""}, f'failed to parse {INHIBIT_IPV4} value:  (strconv.ParseBool: parsing "": invalid syntax)'),
        ({GATEWAY_MODE[4]: "x"}, f"failed to parse {GATEWAY_MODE[4]} value: x (unknown gateway mode x)"),
        ({GATEWAY_MODE[6]: ""}, f"failed to parse {GATEWAY_MODE[6]} value:  (unknown gateway mode )"),
        ({SNAT_SOURCE[4]: "me"}, f"failed to parse {SNAT_SOURCE[4]} value: me (nil ip)"),
        ({SNAT_SOURCE[4]: "::1"}, f"failed to parse {SNAT_SOURCE[4]} value: ::1 (not an IPv4 address)"),
        ({SNAT_SOURCE[6]: "1.2.3.4"}, f"failed to parse {SNAT_SOURCE[6]} value: 1.2.3.4 (not an IPv6 address)"),
        ({TRUSTED_INTERFACES: 'a:b"c'}, f'failed to parse {TRUSTED_INTERFACES} value: b"c (invalid interface name)'),
        ({GATEWAY_MODE[4]: "isolated"}, "gateway mode 'isolated' can only be used for an internal network"),
        ({ANNOUNCEMENTS: "x"}, f'value for option {ANNOUNCEMENTS} "x" must be an integer'),
        ({ANNOUNCEMENTS: "4"}, f"{ANNOUNCEMENTS} must be in the range 0 to 3"),
        ({ANNOUNCE_INTERVAL: "1s"}, f'value for option {ANNOUNCE_INTERVAL} "1s" must be integer milliseconds'),
        ({ANNOUNCE_INTERVAL: "99"}, f"{ANNOUNCE_INTERVAL} must be in the range 100 to 2000"),
        ({MTU: "67"}, f"invalid value for {MTU}: '67' (68 to 65535)"),
    ],
)
def test_refusals(given: dict[str, str], sentence: str) -> None:
    with pytest.raises(InvalidParameter) as caught:
        options.check(given, is_internal=False)
    assert caught.value.message == sentence


def test_unknown_options_are_refused_by_name() -> None:
    with pytest.raises(NotSupported, match=r"network option com\.docker\.network\.bridge\.nonsense is not supported"):
        options.check({"com.docker.network.bridge.nonsense": "1"}, is_internal=False)


def test_everything_at_once() -> None:
    given = {
        GATEWAY_MODE[4]: "isolated", GATEWAY_MODE[6]: "routed", INHIBIT_IPV4: "true", ICC: "F", MTU: "1400",
        SNAT_SOURCE[4]: "192.0.2.1", SNAT_SOURCE[6]: "2001:db8::1", TRUSTED_INTERFACES: "eth1:wg0:",
    }  # fmt: skip
    assert options.check(given, is_internal=True) == 1400
    network = Network(id="n", name="n", options=given)
    assert network.trusted_interfaces == ("eth1", "wg0")
    assert network.gateway_mode(4) is GatewayMode.ISOLATED


@pytest.mark.parametrize(
    ("given", "is_internal", "wants", "has"),
    [
        ({}, False, True, True),
        ({}, True, True, True),
        ({GATEWAY_MODE[4]: "isolated"}, True, False, False),
        ({INHIBIT_IPV4: "true"}, False, True, False),  # somebody else on the bridge is to have that address
        ({INHIBIT_IPV4: "true"}, True, False, False),
        ({GATEWAY_MODE[6]: "isolated"}, True, True, True),
    ],
)
def test_where_the_host_takes_part(given: dict[str, str], is_internal: bool, wants: bool, has: bool) -> None:
    subnets = (Subnet("10.0.0.0/24", gateway="10.0.0.1"),)
    network = Network(id="n", name="n", options=given, is_internal=is_internal, subnets=subnets)
    assert options.wants_gateway(network, 4) is wants
    assert network.has_host(4) is has
    assert network.has_host(6) is False
