"""The map as a drawing in text: a box for each network, in it a box for each container, below it who reaches whom.

Works on the engine's JSON (`GET /tsunagu/map`). May import: nothing of the engine. Must never decide who reaches whom.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from typing import Any

WIDTH = 80  # columns when nobody says otherwise
_MOST_BOXES = 12  # containers of one network that are drawn as boxes; more are listed
_MOST_ROWS = 24  # rows of the table of who reaches whom
_LONGEST = 40  # columns of one name


def draw(found: dict[str, Any], width: int = WIDTH) -> str:
    """Return the drawing, at most `width` columns wide (at least 40)."""
    width = max(40, width)
    by_name = {container["Name"]: container for container in found["Containers"]}
    blocks = []
    ports = _ports(found["Ports"])
    if ports:
        blocks.append(ports)
    for network in found["Networks"]:
        members = members_of(network, found["Containers"])
        blocks.append(_network(found, network, members, width))
    rest = [one for one in found["Containers"] if not any(e["NetworkId"] for e in one["Endpoints"])]
    if rest:
        blocks.append(_boxes(rest, "", width, found["Ports"]))
    blocks.append(_reach(found, by_name, width))
    return "\n\n".join("\n".join(_cut(line, width).rstrip() for line in block) for block in blocks if block) + "\n"


def members_of(network: dict[str, Any], containers: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the containers that have an endpoint on the network, running ones first."""
    found = [one for one in containers if any(e["NetworkId"] == network["Id"] for e in one["Endpoints"])]
    return sorted(found, key=lambda one: one["Group"] < 0)


def address(host_ip: str, port: int) -> str:
    """Return address and port as people write them: nothing stands for every address."""
    if host_ip in ("0.0.0.0", "::"):
        return f":{port}"
    return f"[{host_ip}]:{port}" if ":" in host_ip else f"{host_ip}:{port}"


def doors(ports: Iterable[dict[str, Any]], container: str = "", network_id: str = "") -> list[tuple[str, str, bool]]:
    """Return (port of the host, container and port, whether others than the host reach it), each once: a port of both
    address families is one."""
    found: dict[tuple[str, str, bool], None] = {}
    for port in ports:
        if container in ("", port["Container"]) and network_id in ("", port["NetworkId"]):
            protocol = "" if port["Protocol"] == "tcp" else f"/{port['Protocol']}"
            here = address(port["HostIp"], port["HostPort"]) + protocol
            found[here, f"{port['Container']}:{port['ContainerPort']}{protocol}", port["Open"]] = None
    return list(found)


def remarks(network: dict[str, Any]) -> list[str]:
    """Return what a person should know of a network, in few words."""
    words = []
    if network["Internal"]:
        words.append("internal")
    if not network["Icc"]:
        words.append("icc off")
    if network["Driver"] == "bridge" and not network["Names"]:
        words.append("no names")
    return words


def meeting(found: dict[str, Any], members: Sequence[dict[str, Any]]) -> set[str]:
    """Return how the running members of a network reach each other: {"name"}, {"address"}, {""} for not at all, or
    several of these when it differs from pair to pair; empty for fewer than two."""
    groups = {one["Group"] for one in members if one["Group"] >= 0}
    ways = {(way["From"], way["To"]): way["By"] for way in found["Ways"]}
    running = [one["Group"] for one in members if one["Group"] >= 0]
    seen = {found["Groups"][group]["Among"] for group in groups if running.count(group) > 1}
    return seen | {ways.get((one, other), "") for one in groups for other in groups if one != other}


# ---- widths


def wide(text: str) -> int:
    """Return how many columns a terminal needs for a text: two for each East Asian wide character."""
    if text.isascii():
        return len(text)
    from unicodedata import combining, east_asian_width

    return sum(0 if combining(c) else 2 if east_asian_width(c) in "WF" else 1 for c in text)


def _pad(text: str, width: int) -> str:
    return text + " " * (width - wide(text))


def _cut(text: str, width: int) -> str:
    """The text within `width` columns, its end replaced by … where it is longer. Control characters are shown."""
    text = "".join(c if c.isprintable() else "?" for c in text)
    if wide(text) <= width:
        return text
    kept, used = "", 0
    for c in text:
        used += wide(c)
        if used > width - 1:
            break
        kept += c
    return kept + "…"


def _wrap(words: Sequence[str], width: int) -> list[str]:
    """Words with commas between them, on lines of at most `width` columns."""
    lines = [""]
    for index, word in enumerate(words):
        piece = _cut(word, width - 1) + ("," if index < len(words) - 1 else "")
        if lines[-1] and wide(lines[-1]) + 1 + wide(piece) > width:
            lines.append("")
        lines[-1] += (" " if lines[-1] else "") + piece
    return lines


# ---- boxes


def _ports(ports: Sequence[dict[str, Any]]) -> list[str]:
    rows = [("outside ──► host" if is_open else "            host", *rest) for *rest, is_open in doors(ports)]
    widest = max([wide(here) for _, here, _ in rows], default=0)
    return [f"{who} {_pad(here, widest)} ──► {there}" for who, here, there in rows]


def _network(
    found: dict[str, Any], network: dict[str, Any], members: Sequence[dict[str, Any]], width: int
) -> list[str]:
    inner = width - 4
    title = " · ".join([_cut(network["Name"], _LONGEST), *network["Subnets"], *remarks(network)])
    title = _cut(title, inner - 2)
    lines = [f"┌─ {title} {'─' * (inner - 1 - wide(title))}┐"]
    body = ["(nobody is on it)"]
    if len(members) > _MOST_BOXES:
        body = _wrap([_label(one) for one in members], inner)
    elif members:
        body = _boxes(members, network["Id"], inner, found["Ports"])
    lines += [f"│ {_pad(_cut(line, inner), inner)} │" for line in [*body, *_footer(found, members)]]
    return [*lines, f"└{'─' * (width - 2)}┘"]


def _footer(found: dict[str, Any], members: Sequence[dict[str, Any]]) -> list[str]:
    met = meeting(found, members)
    if not met:
        return []
    texts = {
        "name": "all of them reach each other, by name",
        "address": "all of them reach each other, by address only",
        "": "none of them reaches another one",
    }
    return [texts[met.pop()] if len(met) == 1 else "some of them reach each other, see below"]


def _label(container: dict[str, Any]) -> str:
    state = "" if container["Group"] >= 0 and container["State"] == "running" else f" ({container['State']})"
    return _cut(container["Name"], _LONGEST) + state


def _boxes(
    members: Sequence[dict[str, Any]], network_id: str, width: int, ports: Sequence[dict[str, Any]]
) -> list[str]:
    """Boxes side by side, in as many rows as it takes."""
    rows: list[list[list[str]]] = [[]]
    used = 0
    for container in members:
        box = _box(container, network_id, width, ports)
        if rows[-1] and used + 2 + wide(box[0]) > width:
            rows.append([])
            used = 0
        used += wide(box[0]) + (2 if rows[-1] else 0)
        rows[-1].append(box)
    lines = []
    for row in rows:
        height = max(len(box) for box in row)
        whole = [[*box[:-1], *[f"│{' ' * (wide(box[0]) - 2)}│"] * (height - len(box)), box[-1]] for box in row]
        lines += ["  ".join(parts) for parts in zip(*whole, strict=True)]
    return lines


def _box(container: dict[str, Any], network_id: str, width: int, ports: Sequence[dict[str, Any]]) -> list[str]:
    endpoint = next((e for e in container["Endpoints"] if e["NetworkId"] == network_id), None)
    content = [_label(container)]
    if endpoint is not None:
        content += [text for text in (endpoint["IPv4"], endpoint["IPv6"]) if text]
        content += [f"= {alias}" for alias in dict.fromkeys(endpoint["Aliases"])]
    else:
        content.append(f"network {container['Mode']}")
    content += [f"host {here} ──►" for here, _, _ in doors(ports, container["Name"], network_id)]
    content += [f"also on {e['Network']}" for e in container["Endpoints"] if e["NetworkId"] != network_id]
    content = [_cut(line, min(_LONGEST, width - 4)) for line in content]
    inner = max(wide(line) for line in content)
    return [
        f"┌{'─' * (inner + 2)}┐",
        *[f"│ {_pad(line, inner)} │" for line in content],
        f"└{'─' * (inner + 2)}┘",
    ]


# ---- who reaches whom


def _reach(found: dict[str, Any], by_name: dict[str, dict[str, Any]], width: int) -> list[str]:
    groups = found["Groups"]
    if not groups:
        return ["nothing runs"]
    if len(groups) > _MOST_ROWS:
        return [f"{len(groups)} kinds of containers by whom they reach: name one, or use --format json"]
    ways: dict[int, list[dict[str, Any]]] = {}
    for way in found["Ways"]:
        ways.setdefault(way["From"], []).append(way)
    left = [_some([_cut(name, 18) for name in group["Containers"]]) for group in groups]
    column = min(max(wide(line) for line in left), 36)
    lines = ["who reaches whom"]
    for index, group in enumerate(groups):
        named = [one for way in ways.get(index, ()) if way["By"] == "name" for one in groups[way["To"]]["Containers"]]
        bare = [one for way in ways.get(index, ()) if way["By"] != "name" for one in groups[way["To"]]["Containers"]]
        each = {"name": ["each other"], "address": ["each other (by address)"], "": []}[group["Among"]]
        words = [*each, *named, *[f"{one} (by address)" for one in bare]]
        words.append("outside" if group["Outside"] else f"not outside ({group['Reason']})")
        first, *others = _wrap(words, width - column - 8)
        lines.append(f"  {_pad(_cut(left[index], column), column)} ──► {first}")
        lines += [" " * (column + 7) + line for line in others]
    return lines


def _some(names: Sequence[str]) -> str:
    return ", ".join(names) if len(names) < 4 else f"{names[0]}, {names[1]} and {len(names) - 2} more"
