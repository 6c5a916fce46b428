"""Is the host as the world wants it? Comparisons of plans with what the kernel shows; every function returns findings.

Where all is well there is one finding that says so. Imports `model` only; pure. Must never look at anything itself.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence

from tsunagu.model.checkup import Chain, DiskState, Finding, Level, LinkState, SandboxState
from tsunagu.model.container import Container
from tsunagu.model.ids import short
from tsunagu.model.network import BridgePlan, InterfacePlan, PublishedPort, port_group
from tsunagu.model.world import World

GIB = 1 << 30
_SCARCE, _GONE = 5, 1  # percent of a file system
_STRICT = "1"  # rp_filter


def _ok(topic: str, text: str) -> Finding:
    return Finding(topic=topic, level=Level.OK, text=text)


def _wrong(topic: str, text: str, remedy: str = "", repair: str = "", subject: str = "") -> Finding:
    return Finding(topic=topic, level=Level.WRONG, text=text, remedy=remedy, repair=repair, subject=subject)


def _warning(topic: str, text: str, remedy: str = "") -> Finding:
    return Finding(topic=topic, level=Level.WARNING, text=text, remedy=remedy)


def _or_fine(findings: Sequence[Finding], topic: str, text: str) -> list[Finding]:
    return list(findings) or [_ok(topic, text)]


def forwarding(world: World, sysctls: Mapping[str, str]) -> list[Finding]:
    """The host must forward what its containers send; IPv6 only for networks that have it."""
    wanted = {"net/ipv4/ip_forward": "IPv4"}
    if any(network.enable_ipv6 for network in world.networks.values()):
        wanted["net/ipv6/conf/all/forwarding"] = "IPv6"
    found = [
        _wrong(
            "forwarding", f"the host does not forward {family}: containers reach nothing beyond their network",
            f"sysctl -w {path.replace('/', '.')}=1", "forwarding",
        )
        for path, family in wanted.items()
        if sysctls.get(path) != "1"
    ]  # fmt: skip
    return _or_fine(found, "forwarding", f"the host forwards {' and '.join(wanted.values())}")


def sysctls(world: World, plans: Mapping[str, BridgePlan], values: Mapping[str, str]) -> list[Finding]:
    """Settings of single bridges, and those of the host that change what options mean. `plans` are by network id."""
    found: list[Finding] = []
    for network_id, plan in plans.items():
        if plan.routes_loopback and values.get(f"net/ipv4/conf/{plan.name}/route_localnet") == "0":
            found.append(
                _wrong(
                    "sysctls", f"route_localnet is off on {plan.name}: ports published at 127.0.0.1 are not answered",
                    f"sysctl -w net.ipv4.conf.{plan.name}.route_localnet=1", "bridge", network_id,
                )
            )  # fmt: skip
        closed = values.get(f"net/ipv6/conf/{plan.name}/disable_ipv6")
        if closed is not None and closed != ("0" if plan.has_ipv6 else "1"):
            wish = "off although its network has IPv6" if plan.has_ipv6 else "on although its network has none"
            found.append(
                _wrong(
                    "sysctls", f"IPv6 is {wish} on {plan.name}",
                    f"sysctl -w net.ipv6.conf.{plan.name}.disable_ipv6={0 if plan.has_ipv6 else 1}", "bridge",
                    network_id,
                )
            )  # fmt: skip
        filters = {values.get(f"net/ipv4/conf/{name}/rp_filter") for name in ("all", plan.name)}
        if _STRICT in filters and "2" not in filters and (several := _on_several(world, network_id)):
            found.append(
                _warning(
                    "sysctls",
                    f"rp_filter is strict on {plan.name}: what {', '.join(several)} sends from an address of another "
                    "network is dropped",
                    f"sysctl -w net.ipv4.conf.{plan.name}.rp_filter=2",
                )
            )
    if values.get("net/bridge/bridge-nf-call-iptables") == "1":
        apart = [n.name for n in world.networks.values() if n.id in plans and not n.allows_icc]
        if apart:
            found.append(
                _warning(
                    "sysctls",
                    f"bridge netfilter is on: neighbours on {', '.join(apart)} (enable_icc=false) do not reach each "
                    "other's published ports",
                    "sysctl -w net.bridge.bridge-nf-call-iptables=0",
                )
            )
    return _or_fine(found, "sysctls", "the kernel's settings are as the networks need them")


def _on_several(world: World, network_id: str) -> list[str]:
    """Names of running containers on this network and on another one that leads outside."""
    return [
        container.name
        for container in world.containers.values()
        if container.is_running
        and any(e.network_id == network_id and e.is_joined for e in container.endpoints)
        and sum(
            e.is_joined and (n := world.networks.get(e.network_id)) is not None and not n.is_internal
            for e in container.endpoints
        )
        > 1
    ]


def bridges(world: World, plans: Mapping[str, BridgePlan], links: Collection[LinkState]) -> list[Finding]:
    """Each network's bridge must be there, up, and have the network's gateways as addresses."""
    there = {link.name: link for link in links}
    found: list[Finding] = []
    for network_id, plan in plans.items():
        name = world.networks[network_id].name
        link = there.get(plan.name)
        if link is None:
            wrong = "is missing"
        elif link.kind != "bridge":
            found.append(
                _wrong("bridges", f"{plan.name} of network {name} is no bridge but of kind {link.kind or 'unknown'}",
                       f"ip link delete {plan.name}, then tsunagu doctor --fix")
            )  # fmt: skip
            continue
        elif not link.is_up:
            wrong = "is down"
        elif missing := [one for one in plan.addresses if one not in link.addresses]:
            wrong = f"has lost its address {', '.join(missing)}"
        elif link.is_ours and link.mtu != plan.mtu:
            wrong = f"has an MTU of {link.mtu} instead of {plan.mtu}"
        else:
            continue
        found.append(
            _wrong("bridges", f"bridge {plan.name} of network {name} {wrong}", "tsunagu doctor --fix", "bridge",
                   network_id)
        )  # fmt: skip
    return _or_fine(found, "bridges", f"{_count(len(plans), 'bridge')} as the networks want")


def interfaces(
    owners: Mapping[str, Container], plans: Mapping[str, Sequence[InterfacePlan]], links: Collection[LinkState]
) -> list[Finding]:
    """Each endpoint's host side must be there, up, and on its network's bridge. `plans` are by owner's id."""
    there = {link.name: link for link in links}
    found: list[Finding] = []
    for owner_id, wanted in plans.items():
        name = owners[owner_id].name
        for plan in wanted:
            what = f"interface {plan.host_name} ({plan.name} of {name})"
            link = there.get(plan.host_name)
            if link is None:
                found.append(_wrong("interfaces", f"{what} is gone", f"tsunagu restart {name}"))
            elif link.master != plan.bridge:
                on = f"on {link.master}" if link.master else "on no bridge"
                text = f"{what} is {on} instead of {plan.bridge}"
                found.append(_wrong("interfaces", text, "tsunagu doctor --fix", "interface", owner_id))
            elif link.group != port_group(plan.bridge):
                text = f"{what} has another link group than the rules of its bridge are for"
                found.append(_wrong("interfaces", text, "tsunagu doctor --fix", "interface", owner_id))
            elif not link.is_up:
                text = f"{what} is down"
                found.append(_wrong("interfaces", text, "tsunagu doctor --fix", "interface", owner_id))
    count = sum(len(wanted) for wanted in plans.values())
    return _or_fine(found, "interfaces", f"{_count(count, 'interface')} on the bridges of their networks")


def sandboxes(
    owners: Mapping[str, Container],
    plans: Mapping[str, Sequence[InterfacePlan]],
    states: Mapping[str, SandboxState],
) -> list[Finding]:
    """Each namespace must be there, be that of the process, and have the endpoints' addresses inside."""
    found: list[Finding] = []
    for owner_id, wanted in plans.items():
        name, state = owners[owner_id].name, states.get(owner_id, SandboxState(is_there=False))
        if not state.is_there:
            found.append(
                _wrong(
                    "sandboxes", f"the network namespace of {name} is not pinned any more", f"tsunagu restart {name}"
                )
            )
            continue
        if not state.is_used:
            found.append(
                _wrong("sandboxes", f"{name} lives in another namespace than the pinned one", f"tsunagu restart {name}")
            )
        for plan in wanted:
            if plan.name not in state.addresses:
                text = f"interface {plan.name} inside {name} is gone"
            elif missing := [one for one in plan.addresses if one not in state.addresses[plan.name]]:
                text = f"interface {plan.name} inside {name} has lost its address {', '.join(missing)}"
            else:
                continue
            found.append(_wrong("sandboxes", text, f"tsunagu restart {name}"))
    return _or_fine(
        found, "sandboxes", f"{_count(len(plans), 'sandbox', 'sandboxes')} with the addresses they should have"
    )


def published(owners: Mapping[str, Container], held: Mapping[str, Collection[PublishedPort]]) -> list[Finding]:
    """Every published port must be held by the engine, so that nobody else has it."""
    found: list[Finding] = []
    count = 0
    for owner_id, owner in owners.items():
        wanted = [port for endpoint in owner.endpoints for port in endpoint.ports]
        count += len(wanted)
        for port in wanted:
            if port not in held.get(owner_id, ()):
                address = f"[{port.host_ip}]" if port.family == 6 else port.host_ip
                found.append(
                    _wrong(
                        "ports", f"port {address}:{port.host_port}/{port.protocol} of {owner.name} is not held",
                        f"end what listens there (ss -lnp sport = :{port.host_port}), then tsunagu doctor --fix",
                        "ports", owner_id,
                    )
                )  # fmt: skip
    return _or_fine(found, "ports", f"{_count(count, 'published port')} held")


def leases(
    world: World, wanted: Mapping[str, Mapping[str, str]], found: Mapping[str, Mapping[str, str]]
) -> list[Finding]:
    """Leased addresses, by network and address, must be those of the world's containers."""
    findings: list[Finding] = []
    for network_id, addresses in wanted.items():
        name = world.networks[network_id].name if network_id in world.networks else short(network_id)
        for address, holder in addresses.items():
            if found.get(network_id, {}).get(address) != holder:
                who = world.containers[holder].name if holder in world.containers else short(holder)
                text = f"address {address} on {name} belongs to {who} and is not leased to it"
                findings.append(_wrong("leases", text, "tsunagu doctor --fix", "leases"))
    for addresses in found.values():
        for address, holder in addresses.items():
            if holder not in world.containers:
                text = f"address {address} is leased to a container that is gone ({short(holder)})"
                findings.append(_wrong("leases", text, "tsunagu doctor --fix", "leases"))
    return _or_fine(
        findings,
        "leases",
        f"{_count(sum(map(len, wanted.values())), 'address', 'addresses')} leased to their containers",
    )


def disk(states: Iterable[DiskState]) -> list[Finding]:
    """A full file system stops starts and logs."""
    found: list[Finding] = []
    for state in states:
        for what, free, total in (("space", state.free, state.total), ("inodes", state.inodes_free, state.inodes)):
            if not total:
                continue
            share = 100 * free / total
            amount = f"{free / GIB:.1f} GiB" if what == "space" else f"{free} inodes"
            text = f"{state.path} has {amount} left ({share:.0f}%)"
            remedy = "tsunagu container prune, tsunagu image prune"
            if share < _GONE:
                found.append(_wrong("disk", text, remedy))
            elif share < _SCARCE:
                found.append(_warning("disk", text, remedy))
            elif what == "space":
                found.append(_ok("disk", text))
    return found


def others(chains: Iterable[Chain], bridges: Collection[str], prefix: str) -> list[Finding]:
    """Chains of other firewalls that drop forwarded packets: what we accept they may drop all the same."""
    patterns = sorted({f"{prefix}*" if bridge.startswith(prefix) else bridge for bridge in bridges})
    found: list[Finding] = []
    for chain in chains:
        open_for = [p for p in patterns if any(_mentions(rule, p) for rule in chain.accepts)]
        if not chain.drops or (patterns and len(open_for) == len(patterns)):
            continue
        closed = [pattern for pattern in patterns if pattern not in open_for]
        command = " && ".join(_let_through(chain, pattern) for pattern in closed)
        found.append(
            _warning(
                "other firewalls",
                f"{chain.where} drops forwarded packets that it does not know: it may drop those of containers",
                command,
            )
        )
    return _or_fine(found, "other firewalls", "no other firewall drops what is forwarded")


def _mentions(rule: str, pattern: str) -> bool:
    """Whether a rule is for the interfaces of `pattern`; iptables writes + for * and no quotes."""
    words = rule.replace('"', "").split()
    return pattern in words or pattern.replace("*", "+") in words


def _let_through(chain: Chain, pattern: str) -> str:
    """A command that lets packets from and to our bridges pass a chain: our own rules judge them."""
    if chain.is_legacy:
        program, name = chain.where.split()
        pattern = pattern.replace("*", "+")
        return " && ".join(f"{program} -I {name} {side} {pattern} -j ACCEPT" for side in ("-i", "-o"))
    return " && ".join(
        f"nft insert rule {chain.where} {side} '\"{pattern}\"' accept" for side in ("iifname", "oifname")
    )


def _count(number: int, one: str, many: str = "") -> str:
    return f"{number} {one if number == 1 else many or one + 's'}"
