"""Print a rule programme as an nft script: our two tables, nothing else.

Imports `rules` and `model` only; pure. Must never decide about packets: each rule of the programme becomes one line, in
its order, with a counter and the code of its reason as comment.

Shape: a packet crosses one verdict-map lookup per hook, however many networks there are, and then only the chain of
its own network. `script` replaces both tables in one transaction; `update` changes the chains of single networks, so
that the cost of one change does not grow with the number of the others. Connections survive either: their state is
conntrack's. Published ports are elements of maps from the host's address and port to the container's, one lookup for
the first packet of a connection; each element has its counter.

Inside an nft hook several of our stages may follow each other (`Hook.SEALED`, `ENTERING`, `LEAVING` in forward); accept
ends the hook and drop ends the packet, which is what `rules.policy` means by "the first that matches decides".
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence

import msgspec

from tsunagu.model.errors import InvalidParameter
from tsunagu.model.network import PublishedPort, port_group
from tsunagu.rules.policy import LOOPBACK, LOOPBACK6, Frame, Hook, Peer, Rule, Verdict

_INTERFACE = re.compile(r"[A-Za-z0-9_.@-]{1,15}")
_PREFIX = re.compile(r"[0-9a-f.:]+/[0-9]{1,3}")
_NUMERIC = re.compile(r"[0-9a-f.:]+")
_SHORT = 12


class _Stage(msgspec.Struct, frozen=True):
    """How a hook is printed: base chain, verdict map, and the key that finds the network in the map."""

    family: str  # table family: inet or bridge
    chain: str
    map: str
    key: str  # expression before "vmap"
    type: str  # type of the map's keys
    other: str  # expression for the packet's other interface
    match: str = ""  # expression for a prefix that the rule itself tests, where the key is not the prefix


_FORWARD = "type filter hook forward priority filter; policy accept;"
_BASE = {
    ("inet", "prerouting"): "type filter hook prerouting priority mangle; policy accept;",
    ("inet", "arriving"): "type nat hook prerouting priority dstnat; policy accept;",
    ("inet", "own"): "type nat hook output priority -100; policy accept;",
    ("inet", "forward"): _FORWARD,
    ("inet", "postrouting"): "type nat hook postrouting priority srcnat; policy accept;",
    ("bridge", "prerouting"): "type filter hook prerouting priority filter; policy accept;",
    ("bridge", "forward"): _FORWARD,
}
_STAGES: dict[tuple[Hook, int], _Stage] = {
    (Hook.BRIDGE_PREROUTING, 0): _Stage("bridge", "prerouting", "received", "meta iifgroup", "devgroup", ""),
    (Hook.LOOPBACK, 0): _Stage("inet", "prerouting", "loopback", f"ip daddr {LOOPBACK} iifname", "ifname", ""),
    (Hook.PREROUTING, 4): _Stage("inet", "prerouting", "towards4", "ip daddr", "ipv4_addr", "iifname"),
    (Hook.PREROUTING, 6): _Stage("inet", "prerouting", "towards6", "ip6 daddr", "ipv6_addr", "iifname"),
    (Hook.SEALED, 0): _Stage("inet", "forward", "sealed", "iifname", "ifname", "oifname"),
    (Hook.ENTERING, 0): _Stage("inet", "forward", "entering", "oifname", "ifname", "iifname"),
    (Hook.LEAVING, 0): _Stage("inet", "forward", "leaving", "iifname", "ifname", "oifname"),
    (Hook.BRIDGE_FORWARD, 0): _Stage("bridge", "forward", "apart", "meta iifgroup", "devgroup", ""),
    (Hook.HAIRPIN, 4): _Stage("inet", "postrouting", "hairpin", "ct status dnat oifname", "ifname", "", "ip saddr"),
    (Hook.HAIRPIN, 6): _Stage("inet", "postrouting", "hairpin", "ct status dnat oifname", "ifname", "", "ip6 saddr"),
    (Hook.POSTROUTING, 4): _Stage("inet", "postrouting", "from4", "ip saddr", "ipv4_addr", "oifname"),
    (Hook.POSTROUTING, 6): _Stage("inet", "postrouting", "from6", "ip6 saddr", "ipv6_addr", "oifname"),
}
_ADDRESS = {4: "ipv4_addr", 6: "ipv6_addr"}
# Where TRANSLATE rules are kept. "at" is asked first: one address of the host; then "any": all of them.
_PORT_CHAINS = {Hook.PUBLISHED: "arriving", Hook.OWN: "own"}
_PORT_MAPS = {
    f"{chain}_{kind}{family}": f"type {_ADDRESS[family] + ' . ' if kind == 'at' else ''}inet_proto . inet_service"
    f" : {_ADDRESS[family]} . inet_service"
    for chain in _PORT_CHAINS.values()
    for kind in ("at", "any")
    for family in (4, 6)
}
_PORT_LOOKUPS = {
    chain: [
        f"dnat {ip} to {ip} daddr . meta l4proto . th dport map @{chain}_at{family}"
        for ip, family in (("ip", 4), ("ip6", 6))
    ]
    + [
        f"fib daddr type local {own}dnat {ip} to meta l4proto . th dport map @{chain}_any{family}"
        for ip, family, own in (("ip", 4, ""), ("ip6", 6, f"ip6 daddr != {LOOPBACK6} "))
    ]
    for chain in _PORT_CHAINS.values()
}
# The published ports at the containers' own addresses: where translated packets may go, so that nobody else's
# translation opens a container, and what a routed network lets in.
_TARGETS = {f"published{family}": f"type {_ADDRESS[family]} . inet_proto . inet_service" for family in (4, 6)}
_FRAMES = {
    Frame.ANY: "",
    Frame.ESTABLISHED: "ct state established,related",
    Frame.UNSOLICITED: "fib daddr type != local ct state new,invalid,untracked",
    Frame.NOT_ARP: "ether type != arp",
    Frame.ROUTER_ADVERTISEMENT: "icmpv6 type nd-router-advert",
}
# one line for each family
_BY_FAMILY = {
    Frame.PUBLISHED: {
        family: f"ct status dnat {ip} daddr . meta l4proto . th dport @published{family}"
        for ip, family in (("ip", 4), ("ip6", 6))
    },
    Frame.OFFERED: {
        family: f"{ip} daddr . meta l4proto . th dport @published{family}" for ip, family in (("ip", 4), ("ip6", 6))
    },
    Frame.ICMP: {4: "ip protocol icmp", 6: "meta l4proto ipv6-icmp"},
}


def script(programme: Sequence[Rule], table: str) -> str:
    """Return the script that replaces our tables by `programme`, in one transaction, whatever was there before."""
    tables = _compile(programme)
    lines: list[str] = []
    for family in ("inet", "bridge"):
        # "delete" fails on a table that is not there, so it is made first
        lines += [f"table {family} {table} {{ }}", f"delete table {family} {table}"]
        if family in tables:
            lines += _print(tables[family], family, table)
    return "\n".join(lines) + "\n"


def update(before: Sequence[Rule], after: Sequence[Rule], table: str) -> str:
    """Return the script that turns the rules `before` into `after`, "" when they are the same.

    Give two whole programmes, or only the rules of the networks that changed (`policy.rules_of`; slower, because it
    must then make sure that the tables are there). Other networks are not touched either way. The script fails as a
    whole when the kernel does not hold `before` (somebody flushed the table); apply `script` then.
    """
    present = {"inet" if rule.port is not None else _stage(rule).family for rule in before}
    before, after = _changed(before, after)
    old, new = _compile(before), _compile(after)
    lines: list[str] = []
    for family in ("inet", "bridge"):
        gone, here = old.get(family, _Table()), new.get(family, _Table())
        lines += _difference(gone, here, family, table, is_new=family in new and family not in present)
    return "\n".join(lines) + "\n" if lines else ""


def _changed(before: Sequence[Rule], after: Sequence[Rule]) -> tuple[list[Rule], list[Rule]]:
    """Leave out the parts whose rules are the very same objects in both (`policy.programme` keeps them)."""
    old, new = {id(rule) for rule in before}, {id(rule) for rule in after}
    touched = {_owner(rule) for rule in before if id(rule) not in new}
    touched |= {_owner(rule) for rule in after if id(rule) not in old}
    return [rule for rule in before if _owner(rule) in touched], [rule for rule in after if _owner(rule) in touched]


def _owner(rule: Rule) -> tuple[str, str]:
    """What a rule belongs to: its network, or the endpoint that its port leads to."""
    return rule.network, rule.target


# ---- compiling: rules -> sets, maps and chains


class _Table(msgspec.Struct):
    sets: dict[str, set[str]] = {}
    maps: dict[str, dict[str, str]] = {}  # map name -> key -> verdict, or address and port
    chains: dict[str, list[str]] = {}  # chain name -> rule lines


def _compile(programme: Iterable[Rule]) -> dict[str, _Table]:
    tables: dict[str, _Table] = {}
    for rule in programme:
        if rule.port is not None:
            _add_port(tables.setdefault("inet", _Table()), rule, rule.port)
            continue
        stage = _stage(rule)
        table = tables.setdefault(stage.family, _Table())
        if stage.family == "inet":
            table.sets.setdefault("bridges", set()).add(_interface(rule.bridge))
        chain = _chain(rule, stage)
        key = _key(rule, stage)
        table.maps.setdefault(stage.map, {})[key] = f"jump {chain}"
        table.chains.setdefault(chain, []).extend(_lines(rule, stage))
    return tables


def _port_element(rule: Rule, port: PublishedPort) -> tuple[str, str, str]:
    """Return map, key and value of a port that is translated."""
    kind = "any" if port.is_for_any_address else "at"
    address = [] if kind == "any" else [_numeric(port.host_ip)]
    key = " . ".join([*address, _protocol(port), str(int(port.host_port))])
    value = f"{_numeric(rule.target)} . {int(port.container_port)}"
    return f"{_PORT_CHAINS[rule.hook]}_{kind}{port.family}", key, value


def _entrance(rule: Rule, port: PublishedPort) -> tuple[str, str]:
    """Return set and element of a published port at the container's own address."""
    element = f"{_numeric(rule.target)} . {_protocol(port)} . {int(port.container_port)}"
    return f"published{port.family}", element


def _protocol(port: PublishedPort) -> str:
    if port.protocol not in ("tcp", "udp"):
        raise InvalidParameter(f"invalid protocol: {port.protocol!r}")
    return port.protocol


def _add_port(table: _Table, rule: Rule, port: PublishedPort) -> None:
    if rule.verdict is Verdict.TRANSLATE:
        name, key, value = _port_element(rule, port)
        table.maps.setdefault(name, {}).setdefault(key, value)  # the first rule that matches decides
    name, entrance = _entrance(rule, port)
    table.sets.setdefault(name, set()).add(entrance)


class Place(msgspec.Struct, frozen=True):
    """Where a rule stands in the tables: its block (as `list` of the nft program wants it), its key there if the block
    is a map or a set, and as how many lines."""

    family: str
    block: str
    key: str = ""
    lines: int = 1


def place(rule: Rule) -> Place:
    """Return where `script` and `update` put a rule. Rules of one chain stand there in the programme's order."""
    if rule.port is not None and rule.verdict is Verdict.TRANSLATE:
        name, key, _ = _port_element(rule, rule.port)
        return Place("inet", f"map {name}", key)
    if rule.port is not None:
        name, key = _entrance(rule, rule.port)
        return Place("inet", f"set {name}", key)
    stage = _stage(rule)
    return Place(stage.family, f"chain {_chain(rule, stage)}", lines=len(_lines(rule, stage)))


def _chain(rule: Rule, stage: _Stage) -> str:
    return f"{stage.map}_{rule.network[:_SHORT]}"


def _stage(rule: Rule) -> _Stage:
    family = 0 if not rule.prefix else 6 if ":" in rule.prefix else 4
    return _STAGES[rule.hook, family]


def _key(rule: Rule, stage: _Stage) -> str:
    if stage.type == "ifname":
        return _interface(rule.bridge)
    return str(port_group(rule.bridge)) if stage.type == "devgroup" else _prefix(rule.prefix)


def _lines(rule: Rule, stage: _Stage) -> list[str]:
    if rule.frame in (Frame.LINKED, Frame.LINKED_ANSWER):
        frames = _linked(rule)
    elif rule.frame in _BY_FAMILY:
        frames = [text for family, text in _BY_FAMILY[rule.frame].items() if rule.family in (0, family)]
    else:
        # a prefix says the family already
        only = f"meta nfproto ipv{rule.family}" if rule.family and not rule.prefix else ""
        frames = [" ".join(part for part in (only, _FRAMES[rule.frame]) if part)]
    start = [_peer(rule, stage), f"{stage.match} {_prefix(rule.prefix)}" if stage.match else ""]
    end = ["counter", _verdict(rule), f'comment "{rule.reason.code}"']
    return [" ".join(part for part in [*start, frame, *end] if part) for frame in frames]


def _verdict(rule: Rule) -> str:
    if rule.verdict is not Verdict.SOURCE:
        return str(rule.verdict.value)
    return f"snat {'ip6' if ':' in rule.source else 'ip'} to {_numeric(rule.source)}"


def _linked(rule: Rule) -> list[str]:
    """One line, or one for TCP and one for the rest. Frames on a bridge have no connections, so an answer is known by
    its ports; a target must not call back from one of them, which for TCP begins with a lone SYN."""
    side = "sport" if rule.frame is Frame.LINKED_ANSWER else "dport"
    found: dict[str, list[str]] = {}
    for link in rule.links:
        if link.protocol not in ("tcp", "udp", "sctp"):
            raise InvalidParameter(f"invalid protocol: {link.protocol!r}")
        ends = [_numeric(link.source), _numeric(link.target)]
        start = ""
        if side == "sport":
            ends.reverse()
            start = "tcp flags & (syn | ack) != syn " if link.protocol == "tcp" else ""
        expression = f"{start}ip saddr . ip daddr . meta l4proto . th {side}"
        found.setdefault(expression, []).append(" . ".join([*ends, link.protocol, str(int(link.port))]))
    return [f"{expression} {{ {', '.join(keys)} }}" for expression, keys in found.items()]


def _peer(rule: Rule, stage: _Stage) -> str:
    match rule.peer:
        case Peer.ANY:
            return ""
        case Peer.SAME:
            return f"{stage.other} {_interface(rule.bridge)}"
        case Peer.OTHER:
            return f"{stage.other} != {_interface(rule.bridge)}"
        case Peer.OURS:
            return f"{stage.other} @bridges"
        case Peer.FOREIGN:
            return f'{stage.other} != "lo" {stage.other} != @bridges'
        case Peer.TRUSTED:
            return f"{stage.other} {{ {', '.join(map(_interface, rule.interfaces))} }}"


def _interface(name: str) -> str:
    """Quote an interface name; refuses what could be read as anything else (quotes, wildcards)."""
    if not _INTERFACE.fullmatch(name):
        raise InvalidParameter(f"invalid interface name: {name!r}", hint="use up to 15 letters, digits, '_', '-', '.'")
    return f'"{name}"'


def _numeric(address: str) -> str:
    if not _NUMERIC.fullmatch(address):
        raise InvalidParameter(f"invalid address: {address!r}")
    return address


def _prefix(text: str) -> str:
    if not _PREFIX.fullmatch(text):
        raise InvalidParameter(f"invalid prefix: {text!r}")
    return text


# ---- printing


def _stages(family: str) -> list[_Stage]:
    return [stage for stage in _STAGES.values() if stage.family == family]


def _print(table: _Table, family: str, name: str) -> list[str]:
    """A whole table, with all sets, maps and base chains, needed or not: updates add and remove elements only."""
    lines = [f"table {family} {name} {{"]
    for one, kind in _set_types(family).items():
        lines += _block(f"set {one}", kind, *_list(sorted(table.sets.get(one, ()))))
    for chain, rules in table.chains.items():
        lines += _block(f"chain {chain}", *rules)
    for one, header in _map_types(family).items():
        elements = [f"{key} : {value}" for key, value in sorted(table.maps.get(one, {}).items())]
        lines += _block(f"map {one}", *header, *_list(elements))
    for chain, start in _base(family):
        lines += _block(f"chain {chain}", start, *_lookups(family, chain))
    return [*lines, "}"]


def _skeleton(family: str, table: str) -> list[str]:
    """A table without rules, made if it is not there and left as it is otherwise."""
    lines = [f"table {family} {table} {{"]
    for one, kind in _set_types(family).items():
        lines += _block(f"set {one}", kind)
    for one, header in _map_types(family).items():
        lines += _block(f"map {one}", *header)
    for chain, start in _base(family):
        lines += _block(f"chain {chain}", start)
    lines.append("}")
    for chain, _ in _base(family):
        lines.append(f"flush chain {family} {table} {chain}")
        lines += [f"add rule {family} {table} {chain} {lookup}" for lookup in _lookups(family, chain)]
    return lines


def _difference(old: _Table, new: _Table, family: str, table: str, *, is_new: bool) -> list[str]:
    """The commands from one state of a table to another: first what is new, then what changed, at last what goes."""
    where = f"{family} {table}"
    lines = [f"add table {where}"] if is_new else []
    changed = {chain: rules for chain, rules in new.chains.items() if old.chains.get(chain) != rules}
    for chain in changed:
        lines.append(f"flush chain {where} {chain}" if chain in old.chains else f"add chain {where} {chain}")
    if is_new:
        # after the chains: nft sends the elements of a new interval map along with the map (libnftables 1.0.6)
        lines += _skeleton(family, table)
    for one in _set_types(family):
        before, after = (dict.fromkeys(side.sets.get(one, ()), "") for side in (old, new))
        lines += _elements(one, before, after, where)
    for chain, rules in changed.items():
        lines += [f"add rule {where} {chain} {rule}" for rule in rules]
    for one in _map_types(family):
        lines += _elements(one, old.maps.get(one, {}), new.maps.get(one, {}), where)
    for chain in sorted(old.chains.keys() - new.chains.keys()):
        lines += [f"flush chain {where} {chain}", f"delete chain {where} {chain}"]
    return lines


def _base(family: str) -> list[tuple[str, str]]:
    return [(chain, header) for (owner, chain), header in _BASE.items() if owner == family]


def _lookups(family: str, chain: str) -> list[str]:
    found = {f"{stage.key} vmap @{stage.map}": None for stage in _stages(family) if stage.chain == chain}
    return [*found, *(_PORT_LOOKUPS.get(chain, []) if family == "inet" else [])]


def _set_types(family: str) -> dict[str, str]:
    return {"bridges": "type ifname", **_TARGETS} if family == "inet" else {}


def _map_types(family: str) -> dict[str, list[str]]:
    types = {
        stage.map: [f"type {stage.type} : verdict"] + (["flags interval"] if stage.type.endswith("_addr") else [])
        for stage in _stages(family)
    }
    if family == "inet":
        types |= {one: [kind, "counter"] for one, kind in _PORT_MAPS.items()}
    return types


def _block(head: str, *lines: str) -> list[str]:
    return [f"  {head} {{", *(f"    {line}" for line in lines), "  }"]


def _list(elements: Sequence[str]) -> list[str]:
    return [f"elements = {{ {', '.join(elements)} }}"] if elements else []


def _elements(name: str, old: Mapping[str, str], new: Mapping[str, str], where: str) -> list[str]:
    """Elements of a set (values are empty) or a map: what goes, then what comes; a changed value is both."""
    lines = []
    if gone := sorted(key for key, value in old.items() if new.get(key) != value):
        lines.append(f"delete element {where} {name} {{ {', '.join(gone)} }}")
    if added := sorted(f"{key} : {value}" if value else key for key, value in new.items() if old.get(key) != value):
        lines.append(f"add element {where} {name} {{ {', '.join(added)} }}")
    return lines
