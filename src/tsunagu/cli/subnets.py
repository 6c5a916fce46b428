"""`network create`: which gateway, range and auxiliary address belongs to which subnet.

The engine checks the values; the client only sorts them, with Docker's refusals. May import: `cli/values.py`.
"""

from __future__ import annotations

from _socket import AF_INET, AF_INET6, inet_pton

from tsunagu.cli.output import Failure

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any


class _Prefix:
    """One CIDR block as numbers. Raises Failure in Go's words for anything else."""

    def __init__(self, text: str, complaint: str = "") -> None:
        address, _, length = text.partition("/")
        self.number, self.bits = _number(address)
        if not self.bits or not length.isdecimal() or int(length) > self.bits:
            raise Failure(f"{complaint}invalid CIDR address: {text}")
        self.shift = self.bits - int(length)

    def holds(self, number: int, bits: int) -> bool:
        return bits == self.bits and number >> self.shift == self.number >> self.shift


def _number(text: str) -> tuple[int, int]:
    """An address as number and size in bits, (0, 0) when the text is none."""
    for family, bits in ((AF_INET, 32), (AF_INET6, 128)):
        try:
            return int.from_bytes(inet_pton(family, text), "big"), bits
        except (OSError, ValueError):
            continue
    return 0, 0


def ipam_config(
    subnets: Sequence[str], ranges: Sequence[str], gateways: Sequence[str], reserved: Mapping[str, str]
) -> list[dict[str, Any]]:
    """The API's IPAM.Config. Raises Failure with Docker's sentences."""
    if len(subnets) < len(ranges) or len(subnets) < len(gateways):
        raise Failure("every ip-range or gateway must have a corresponding subnet")
    subnets = [subnet for subnet in subnets if subnet]
    made: dict[str, dict[str, Any]] = {subnet: {"Subnet": subnet} for subnet in subnets}
    needs_parsing = len(subnets) > 1 or ranges or gateways or reserved
    prefixes = {subnet: _Prefix(subnet, "invalid subnet: ") for subnet in subnets} if needs_parsing else {}
    for index, first in enumerate(subnets):
        for other in subnets[index + 1 :]:
            one, two = prefixes[first], prefixes[other]
            if one.holds(two.number, two.bits) or two.holds(one.number, one.bits):
                raise Failure("multiple overlapping subnet configuration is not supported")
    for text in ranges:
        block = _Prefix(text)
        _put(made, prefixes, block.number, block.bits, "IPRange", text, "range")
    for text in gateways:
        _put(made, prefixes, *_number(text), "Gateway", text, "gateway")
    for name, text in reserved.items():
        subnet = _find(prefixes, *_number(text))
        if not subnet:
            raise Failure(f"no matching subnet for aux-address {text}")
        made[subnet].setdefault("AuxiliaryAddresses", {})[name] = text
    return list(made.values())


def _find(prefixes: Mapping[str, _Prefix], number: int, bits: int) -> str:
    for subnet, prefix in prefixes.items():
        if prefix.holds(number, bits):
            return subnet
    return ""


def _put(
    made: dict[str, dict[str, Any]],
    prefixes: Mapping[str, _Prefix],
    number: int,
    bits: int,
    field: str,
    text: str,
    title: str,
) -> None:
    subnet = _find(prefixes, number, bits)
    if not subnet:
        raise Failure(f"no matching subnet for {title} {text}")
    if field in made[subnet]:
        raise Failure(
            f"cannot configure multiple {title}s ({text}, {made[subnet][field]}) for the same subnet ({subnet})"
        )
    made[subnet][field] = text
