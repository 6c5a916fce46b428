"""The map for other programs: Mermaid and Graphviz sources, and a picture (SVG) that needs nothing else.

Works on the engine's JSON (`GET /tsunagu/map`). Names come from users, so every text is escaped for its format. May
import: `drawing`. Must never decide who reaches whom.
"""

from __future__ import annotations

from tsunagu.cli.drawing import doors, meeting, members_of, remarks, wide

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

_MARKUP = str.maketrans({"&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;", "'": "&#39;"})


def _plain(text: str) -> str:
    """The text without what no format can carry: control characters and lone surrogates."""
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text)


# ---- Mermaid


def mermaid_text(text: str) -> str:
    """A text inside a quoted Mermaid label: everything but plain letters and signs becomes an entity code (#35;)."""
    return "".join(c if c.isalnum() or c in " .,-_/:()·" else f"#{ord(c)};" for c in _plain(text))


def mermaid(found: dict[str, Any]) -> str:
    """Return the map as a Mermaid flowchart."""
    lines = ["flowchart LR"]
    nodes = {container["Name"]: f"c{index}" for index, container in enumerate(found["Containers"])}
    for index, network in enumerate(found["Networks"]):
        label = mermaid_text(_title(network))
        lines.append(f'  n{index}{{{{"{label}"}}}}')
    for container in found["Containers"]:
        lines.append(f'  {nodes[container["Name"]]}["{mermaid_text(_label(container))}"]')
    for index, network in enumerate(found["Networks"]):
        line = "---" if meeting(found, members_of(network, found["Containers"])) != {""} else "-.-"
        for container in members_of(network, found["Containers"]):
            words = mermaid_text(_endpoint(container, network))
            text = f'|"{words}"|' if words else ""
            lines.append(f"  {nodes[container['Name']]} {line}{text} n{index}")
    if found["Ports"]:
        lines += ['  host(["host"])', '  outside(["outside"])', "  outside --> host"]
        for container in found["Containers"]:
            for here, there, is_open in doors(found["Ports"], container["Name"]):
                text = mermaid_text(f"{here} to {there.rpartition(':')[2]}{'' if is_open else ', host only'}")
                lines.append(f'  host -->|"{text}"| {nodes[container["Name"]]}')
    sealed = [nodes[name] for name in _sealed(found)]
    if sealed:
        lines += ["  classDef sealed stroke-dasharray: 4 3", f"  class {','.join(sealed)} sealed"]
    return "\n".join(lines) + "\n"


# ---- Graphviz


def dot_text(text: str) -> str:
    """A text inside a quoted DOT string."""
    return _plain(text).replace("\\", "\\\\").replace('"', '\\"')


def dot(found: dict[str, Any]) -> str:
    """Return the map as a Graphviz graph (`dot -Tpng`)."""
    lines = ["graph tsunagu {", "  layout=fdp; overlap=false; splines=true;", '  node [fontname="sans-serif"];']
    nodes = {container["Name"]: f"c{index}" for index, container in enumerate(found["Containers"])}
    sealed = set(_sealed(found))
    for index, network in enumerate(found["Networks"]):
        lines.append(f'  n{index} [shape=hexagon, label="{dot_text(_title(network))}"];')
    for container in found["Containers"]:
        style = ", style=dashed" if container["Name"] in sealed else ""
        lines.append(f'  {nodes[container["Name"]]} [shape=box, label="{dot_text(_label(container))}"{style}];')
    for index, network in enumerate(found["Networks"]):
        members = members_of(network, found["Containers"])
        style = ", style=dotted" if meeting(found, members) == {""} else ""
        for container in members:
            label = dot_text(_endpoint(container, network))
            lines.append(f'  {nodes[container["Name"]]} -- n{index} [label="{label}"{style}];')
    if found["Ports"]:
        lines += ["  host [shape=oval];", "  outside [shape=oval];", "  outside -- host;"]
        for container in found["Containers"]:
            for here, there, is_open in doors(found["Ports"], container["Name"]):
                text = dot_text(f"{here} to {there.rpartition(':')[2]}{'' if is_open else ', host only'}")
                lines.append(f'  host -- {nodes[container["Name"]]} [label="{text}", dir=forward];')
    return "\n".join([*lines, "}"]) + "\n"


# ---- SVG

_LETTER, _LINE, _PAD, _GAP = 7.3, 17, 10, 16  # a letter of 12 px monospace, a line of text, around and between boxes
_WIDEST = 960


def svg_text(text: str) -> str:
    """A text inside an XML element or attribute."""
    return _plain(text).translate(_MARKUP)


def svg(found: dict[str, Any]) -> str:
    """Return the map as a picture: a frame for each network with a box for each container."""
    parts: list[str] = []
    y, width = _GAP, 320.0
    ports = [
        f"{'outside → ' if is_open else ''}host {here} → {there}" for here, there, is_open in doors(found["Ports"])
    ]
    for line in ports:
        parts.append(_text(_GAP, y + 12, line))
        y, width = y + _LINE, max(width, 2 * _GAP + wide(line) * _LETTER)
    for network in found["Networks"]:
        made, size = _frame(found, network, y + _GAP)
        parts += made
        y, width = y + _GAP + int(size[1]), max(width, size[0] + 2 * _GAP)
    rest = [one for one in found["Containers"] if not any(e["NetworkId"] for e in one["Endpoints"])]
    if rest:
        made, size = _row(found, rest, "", _GAP, y + _GAP)
        parts += made
        y, width = y + _GAP + int(size[1]), max(width, size[0] + 2 * _GAP)
    y += _GAP
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width:.0f}" height="{y}" viewBox="0 0 {width:.0f} {y}" '
        'font-family="monospace" font-size="12">'
    )
    return "\n".join([head, f'<rect width="{width:.0f}" height="{y}" fill="#fff"/>', *parts, "</svg>"]) + "\n"


def _frame(found: dict[str, Any], network: dict[str, Any], y: float) -> tuple[list[str], tuple[float, float]]:
    members = members_of(network, found["Containers"])
    inside, (width, height) = _row(found, members, network["Id"], _GAP + _PAD, y + _LINE + _PAD)
    title = _title(network)
    width = max(width, wide(title) * _LETTER) + 2 * _PAD
    height += _LINE + 2 * _PAD
    dash = ' stroke-dasharray="6 4"' if meeting(found, members) == {""} else ""
    frame = (
        f'<rect x="{_GAP}" y="{y}" width="{width:.0f}" height="{height:.0f}" rx="8" fill="#eef4fb" stroke="#3b6ea5"'
        f"{dash}/>"
    )
    return [frame, _text(_GAP + _PAD, y + _LINE, title, "bold"), *inside], (width, height)


def _row(
    found: dict[str, Any], members: Sequence[dict[str, Any]], network_id: str, left: float, top: float
) -> tuple[list[str], tuple[float, float]]:
    parts, x, y, row, widest = [], left, top, 0.0, 0.0
    sealed = set(_sealed(found))
    for container in members:
        lines = _lines(found, container, network_id)
        width = max(wide(line) for line in lines) * _LETTER + 2 * _PAD
        height = len(lines) * _LINE + _PAD
        if x > left and x + width > _WIDEST:
            x, y, row = left, y + row + _GAP, 0.0
        dash = ' stroke-dasharray="4 3"' if container["Name"] in sealed else ""
        fill = "#fff" if container["Group"] >= 0 else "#ddd"
        parts.append(
            f'<rect x="{x:.0f}" y="{y:.0f}" width="{width:.0f}" height="{height}" rx="4" fill="{fill}" stroke="#333"'
            f"{dash}/>"
        )
        for number, line in enumerate(lines):
            weight = "bold" if not number else "normal"
            parts.append(_text(x + _PAD, y + _LINE * (number + 1) - 2, line, weight))
        row, widest = max(row, height), max(widest, x + width - left)
        x += width + _GAP
    return parts, (widest, y + row - top)


def _lines(found: dict[str, Any], container: dict[str, Any], network_id: str) -> list[str]:
    lines = [_label(container)]
    for endpoint in container["Endpoints"]:
        if endpoint["NetworkId"] == network_id:
            lines += [text for text in (endpoint["IPv4"], endpoint["IPv6"]) if text]
            lines += [f"= {alias}" for alias in dict.fromkeys(endpoint["Aliases"])]
    if not network_id:
        lines.append(f"network {container['Mode']}")
    lines += [f"host {here} →" for here, _, _ in doors(found["Ports"], container["Name"], network_id)]
    return lines + [f"also on {e['Network']}" for e in container["Endpoints"] if e["NetworkId"] != network_id]


def _text(x: float, y: float, text: str, weight: str = "normal") -> str:
    return f'<text x="{x:.0f}" y="{y:.0f}" font-weight="{weight}" xml:space="preserve">{svg_text(text)}</text>'


# ---- words that all of them use


def _title(network: dict[str, Any]) -> str:
    return " · ".join([network["Name"], *network["Subnets"], *remarks(network)])


def _label(container: dict[str, Any]) -> str:
    name: str = container["Name"]
    return name if container["State"] == "running" else f"{name} ({container['State']})"


def _endpoint(container: dict[str, Any], network: dict[str, Any]) -> str:
    endpoint = next(e for e in container["Endpoints"] if e["NetworkId"] == network["Id"])
    words = [endpoint["IPv4"], endpoint["IPv6"], *dict.fromkeys(endpoint["Aliases"])]
    return ", ".join(word for word in words if word)


def _sealed(found: dict[str, Any]) -> list[str]:
    """Return the names of running containers that do not reach the outside."""
    return [name for group in found["Groups"] if not group["Outside"] for name in group["Containers"]]
