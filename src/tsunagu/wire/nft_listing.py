"""Read what nft lists of our tables: which rules and elements are there, and what each has counted.

Imports `nft` and `rules`; pure. Must never be asked what we wanted: the world knows that.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import TypeAlias

import msgspec

from tsunagu.model.checkup import Chain
from tsunagu.rules.policy import Rule

from . import nft

_COUNTER = re.compile(r"counter packets (\d+) bytes (\d+)")
_COMMENT = re.compile(r' comment "([^"]*)"')
_BARE = re.compile(r"counter packets \d+ bytes \d+ ?")
_ROUTED = ("ip", "ip6", "inet")  # families whose forward hook sees what the host routes
_ELEMENTS = "elements = {"


class Count(msgspec.Struct, frozen=True):
    """What a rule has decided since it was put in force."""

    packets: int = 0
    bytes: int = 0


class Line(msgspec.Struct, frozen=True):
    """A rule, an element, or a property of a block. `count` is None where nothing is counted."""

    text: str
    count: Count | None = None


Blocks: TypeAlias = dict[tuple[str, str], tuple[Line, ...]]  # (family, "chain NAME") -> its lines in order


def parse(listing: str) -> Blocks:
    """Read a listing of any tables, as the nft program prints it. Elements are sorted, rules keep their order."""
    blocks: Blocks = {}
    family = ""
    name = ""
    lines: list[str] = []
    for raw in listing.splitlines():
        line = raw.strip()
        if not name:
            words = line.split()
            if len(words) == 4 and words[0] == "table" and words[3] == "{":
                family = words[1]
            elif len(words) == 3 and words[2] == "{":
                name, lines = f"{words[0]} {words[1]}", []
        elif line == "}":
            blocks[family, name] = tuple(_line(text) for text in _split(lines))
            name = ""
        else:
            lines.append(line)
    return blocks


def _split(lines: Sequence[str]) -> list[str]:
    """One text for each rule, property or element: a list of elements goes over several lines."""
    head = [line for line in lines if not line.startswith(_ELEMENTS)]
    if len(head) == len(lines):
        return head
    start = next(i for i, line in enumerate(lines) if line.startswith(_ELEMENTS))
    whole = " ".join(lines[start:])[len(_ELEMENTS) :].rpartition("}")[0]
    return list(lines[:start]) + sorted(element.strip() for element in whole.split(","))


def _line(text: str) -> Line:
    found = _COUNTER.search(text)
    if found is None:
        return Line(text)
    return Line(_COUNTER.sub("counter", text), Count(int(found[1]), int(found[2])))


def forward_chains(listing: str, but: str) -> list[Chain]:
    """Return the chains that see forwarded packets in a listing of everything, those of our table `but` left out."""
    found: list[Chain] = []
    table = name = ""
    lines: list[str] = []
    for raw in listing.splitlines():
        words = raw.split()
        if not words or words[0].startswith("#"):
            continue
        if words[0] == "table" and words[-1] == "{":
            table, name = " ".join(words[1:3]), ""
        elif words[-1] == "{":
            name, lines = (words[1] if words[0] == "chain" else ""), []
        elif words != ["}"]:
            lines.append(" ".join(words))
        elif name:
            if lines and " hook forward " in lines[0] and table.split()[-1] != but and table.split()[0] in _ROUTED:
                found.append(_chain(f"{table} {name}", lines))
            name = ""
    return found


def _chain(where: str, lines: Sequence[str]) -> Chain:
    rules = [_BARE.sub("", line) for line in lines[1:]]
    return Chain(
        where=where,
        drops="policy drop" in lines[0] or any(rule.startswith(("drop", "reject")) for rule in rules),
        accepts=tuple(rule for rule in rules if "accept" in rule.split()),
    )


def counters(programme: Iterable[Rule], blocks: Blocks) -> dict[Rule, Count]:
    """Return what each rule has counted. Rules that are not where they should be are left out."""
    found: dict[Rule, Count] = {}
    position: dict[tuple[str, str], int] = {}
    for rule in programme:
        place = nft.place(rule)
        block = place.family, place.block
        lines = blocks.get(block, ())
        if place.key:
            mine = [line for line in lines if line.text.startswith(f"{place.key} counter")]
        else:
            start = position.get(block, 0)
            position[block] = start + place.lines
            mine = [line for line in lines[start : start + place.lines] if _comment(line) == rule.reason.code]
        counts = [line.count for line in mine if line.count is not None]
        if len(counts) == place.lines and rule not in found:
            found[rule] = Count(sum(one.packets for one in counts), sum(one.bytes for one in counts))
    return found


def _comment(line: Line) -> str:
    found = _COMMENT.search(line.text)
    return found[1] if found else ""


def _is_frame(line: Line) -> bool:
    """Whether a line is of a kind that decides nothing about packets as long as there is no other."""
    return line.text.startswith(("type ", "flags ")) or line.text == "counter" or " vmap @" in line.text


def differences(wanted: Blocks, found: Blocks) -> list[str]:
    """Say in words what of `found` is not as `wanted`; counters do not matter. Empty when all is equal."""
    said: list[str] = []
    for family in sorted({family for family, _ in wanted} - {family for family, _ in found}):
        said.append(f"the whole table of family {family} is missing")
    present = {family for family, _ in found}
    for block in sorted(wanted.keys() | found.keys()):
        where = f"{block[1]} ({block[0]})"
        if block not in found:
            said += [f"{where} is missing"] if block[0] in present else []
        elif block not in wanted:
            # a table that has become empty is left standing by updates
            if any(family == block[0] for family, _ in wanted) or not all(map(_is_frame, found[block])):
                said.append(f"{where} is not ours")
        else:
            mine, there = ([line.text for line in side[block]] for side in (wanted, found))
            missing = [text for text in mine if text not in there]
            more = [text for text in there if text not in mine]
            said += [f"{where} lacks: {text}" for text in missing] + [f"{where} has besides: {text}" for text in more]
            if mine != there and not missing and not more:
                said.append(f"{where} has its lines in another order, or twice")
    return said
