"""The map's drawings: what they show, how wide they are, and that no name breaks any of their formats."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tsunagu.cli.drawing import draw, wide
from tsunagu.cli.graphs import dot, mermaid, svg
from unit.canned_engine import CannedEngine, serving, tsunagu


def network(name: str, number: int = 1, **changes: Any) -> dict[str, Any]:
    return {
        "Id": f"n{number}", "Name": name, "Driver": "bridge", "Subnets": [f"10.0.{number}.0/24"],
        "Gateways": [f"10.0.{number}.1"], "Internal": False, "Icc": True, "Names": True, **changes,
    }  # fmt: skip


def container(name: str, group: int, *networks: dict[str, Any], aliases: tuple[str, ...] = ()) -> dict[str, Any]:
    return {
        "Id": name, "Name": name, "State": "running" if group >= 0 else "exited", "Group": group,
        "Mode": networks[0]["Name"] if networks else "none",
        "Endpoints": [
            {
                "NetworkId": one["Id"], "Network": one["Name"], "IPv4": f"10.0.{i}.{group + 2}" if group >= 0 else "",
                "IPv6": "", "Aliases": list(aliases),
            }
            for i, one in enumerate(networks, 1)
        ],
    }  # fmt: skip


def tutorial() -> dict[str, Any]:
    """What the engine answers for scenario 4 of the tutorial, with a published port."""
    front, back = network("frontend-network"), network("backend-network", 2, Internal=True)
    groups = [("api-server", True), ("web-server", True), ("db-server", False)]
    ways = [(0, 1), (1, 0), (0, 2), (2, 0)]
    return {
        "Networks": [front, back],
        "Containers": [
            container("api-server", 0, front, back),
            container("web-server", 1, front),
            container("db-server", 2, back, aliases=("db",)),
            container("old", -1, front),
        ],
        "Groups": [
            {"Containers": [name], "Outside": out, "Reason": "outgoing" if out else "internal-egress", "Among": ""}
            for name, out in groups
        ],
        "Ways": [{"From": a, "To": b, "By": "name", "Reason": "same-network"} for a, b in ways],
        "Ports": [
            {
                "Container": "api-server", "NetworkId": "n1", "Protocol": "tcp", "HostIp": ip, "HostPort": 80,
                "ContainerPort": 8080, "Open": True, "Reason": "published",
            }
            for ip in ("0.0.0.0", "::")
        ],
    }  # fmt: skip


DRAWN = """\
outside ──► host :80 ──► api-server:8080

┌─ frontend-network · 10.0.1.0/24 ─────────────────────────────────────────────┐
│ ┌─────────────────────────┐  ┌────────────┐  ┌──────────────┐                │
│ │ api-server              │  │ web-server │  │ old (exited) │                │
│ │ 10.0.1.2                │  │ 10.0.1.3   │  └──────────────┘                │
"""


def test_the_drawing() -> None:
    text = draw(tutorial())
    lines = text.splitlines()
    assert lines[:3] == DRAWN.splitlines()[:3]
    for words in (
        "│ api-server              │", "│ also on backend-network │", "│ host :80 ──►            │", "│ = db      │",
        "│ old (exited) │", "10.0.2.0/24 · internal ─", "all of them reach each other, by name",
        "  api-server ──► web-server, db-server, outside", "  db-server  ──► api-server, not outside (internal-egress)",
    ):  # fmt: skip
        assert words in text, words
    assert {wide(line) for line in lines if line and line[0] in "┌│└"} == {80}
    assert text.count("host :80 ──►") == 2  # above, and in the box of the network that it leads through


def test_a_network_of_many_is_a_list() -> None:
    app = network("app")
    found = {
        "Networks": [app], "Containers": [container(f"worker-{i}", 0, app) for i in range(100)], "Ways": [],
        "Groups": [
            {
                "Containers": [f"worker-{i}" for i in range(100)], "Outside": True, "Reason": "outgoing",
                "Among": "name",
            }
        ],
        "Ports": [],
    }  # fmt: skip
    text = draw(found)
    assert "worker-99" in text
    assert "all of them reach each other, by name" in text
    assert "worker-0, worker-1 and 98 more ──► each other, outside" in text
    assert len(text.splitlines()) < 30
    assert max(map(wide, text.splitlines())) == 80


def test_nothing_runs() -> None:
    assert draw({"Networks": [], "Containers": [], "Groups": [], "Ways": [], "Ports": []}) == "nothing runs\n"


def test_containers_that_are_kept_apart() -> None:
    found = tutorial()
    found["Ways"] = []
    assert draw(found).count("none of them reaches another one") == 2
    assert "style=dotted" in dot(found)
    assert " -.-" in mermaid(found)
    assert 'stroke-dasharray="6 4"' in svg(found)


names = st.text(min_size=1, max_size=60)


@st.composite
def maps(draw_one: Any) -> dict[str, Any]:
    """The tutorial's map with any text at all in the place of every name."""
    found = tutorial()
    given_names: dict[str, str] = {}
    for one in found["Containers"]:
        fresh = draw_one(names.filter(lambda name: name not in given_names.values()))
        given_names[one["Name"]] = one["Name"] = fresh
        for endpoint in one["Endpoints"]:
            endpoint["Aliases"] = draw_one(st.lists(names, max_size=2))
    for group in found["Groups"]:
        group["Containers"] = [given_names[name] for name in group["Containers"]]
    for port in found["Ports"]:
        port["Container"] = given_names[port["Container"]]
    for one in found["Networks"]:
        one["Name"] = draw_one(names)
    return found


@given(maps(), st.integers(1, 150))
def test_no_name_breaks_the_drawing(found: dict[str, Any], width: int) -> None:
    for line in draw(found, width).split("\n"):
        assert wide(line) <= max(40, width)
        assert line.isprintable()


@given(maps())
def test_no_name_breaks_the_picture(found: dict[str, Any]) -> None:
    root = ElementTree.fromstring(svg(found))  # raises when it is no XML
    kinds = {element.tag.rpartition("}")[2] for element in root.iter()}
    assert kinds <= {"svg", "rect", "text"}
    shown = [element.text for element in root.iter() if element.tag.endswith("text")]
    assert len(shown) >= len(found["Containers"])


@given(maps())
def test_no_name_breaks_mermaid(found: dict[str, Any]) -> None:
    label = r'"[\w .,\-/:()·#;]*"'
    line = re.compile(
        rf"flowchart LR|  n\d+\{{\{{{label}\}}\}}|  c\d+\[{label}\]|  c\d+ (---|-\.-)(\|{label}\|)? n\d+"
        rf"|  (host|outside)\(\[{label}\]\)|  outside --> host|  host -->\|{label}\| c\d+"
        r"|  classDef sealed [\w\-: ]+|  class [c\d,]+ sealed"
    )
    assert [one for one in mermaid(found).removesuffix("\n").split("\n") if not line.fullmatch(one)] == []


@given(maps())
def test_no_name_breaks_dot(found: dict[str, Any]) -> None:
    quoted = re.compile(r'"(?:[^"\\\n]|\\["\\])*"')
    for one in dot(found).removesuffix("\n").split("\n"):
        bare = quoted.sub("", one)
        assert '"' not in bare, one
        assert re.fullmatch(r"[\w\s=\[\],;{}\-.]*", bare, re.ASCII), one


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[CannedEngine]:
    with serving(tmp_path) as engine:
        yield engine


def test_the_command_asks_for_what_was_named(engine: CannedEngine) -> None:
    engine.routes["GET /tsunagu/map"] = tutorial()
    done = tsunagu(engine, "map", "front", "api")
    assert (done.code, done.err) == (0, "")
    assert done.out.startswith("outside ──► host :80")
    assert engine.requests[-1].query == "only=front&only=api"


def test_a_format_that_is_none(engine: CannedEngine) -> None:
    done = tsunagu(engine, "map", "--format", "png")
    assert done.code == 125
    assert "invalid format: png (text, mermaid, dot, svg, json)" in done.err
