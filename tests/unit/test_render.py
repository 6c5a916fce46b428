"""Tables, templates and progress as Docker's client prints them."""

from __future__ import annotations

import contextlib
import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tsunagu.cli import progress, render
from tsunagu.cli.commands.ps import display_ports
from tsunagu.cli.output import Failure


def test_columns_have_three_spaces_between_and_ten_at_least() -> None:
    rows = [
        ["NETWORK ID", "NAME", "DRIVER"],
        ["3c7c3da3e688", "app-network", "bridge"],
        ["0ae70c317100", "none", "null"],
    ]
    assert render.align(rows) == (
        "NETWORK ID     NAME          DRIVER\n3c7c3da3e688   app-network   bridge\n0ae70c317100   none          null\n"
    )
    assert render.align([["A", "B"]]) == "A         B\n"


@given(st.lists(st.lists(st.text(alphabet="ab é", max_size=15), min_size=3, max_size=3), min_size=1, max_size=5))
def test_the_quick_table_is_the_tab_writers(rows: list[list[str]]) -> None:
    assert render.align(rows) == render.tab_write("".join("\t".join(row) + "\n" for row in rows))


def test_a_tab_writers_column_ends_with_its_block() -> None:
    assert render.tab_write("a\tb\nlonger cell here\tc\nno tabs\nx\ty\n") == (
        "a                  b\nlonger cell here   c\nno tabs\nx         y\n"
    )


COLUMNS = {"ID": ("CONTAINER ID", lambda item: item["id"]), "Names": ("NAMES", lambda item: item["name"])}
ITEMS = [{"id": "a1", "name": "<web>"}, {"id": "b2", "name": "db"}]


def show(capfd: pytest.CaptureFixture[str], template: str, **more: object) -> tuple[str, str]:
    render.print_list(
        COLUMNS,
        ITEMS,
        default=("ID", "Names"),
        type_name="*formatter.ContainerContext",
        template=template,
        label=lambda item, name: f"{name}-{item['id']}",
        **more,
    )
    captured = capfd.readouterr()
    return captured.out, captured.err


def test_lists(capfd: pytest.CaptureFixture[str]) -> None:
    assert (
        show(capfd, "")[0]
        == show(capfd, "table")[0]
        == "CONTAINER ID   NAMES\na1             <web>\nb2             db\n"
    )
    assert show(capfd, "json")[0] == ('{"ID":"a1","Names":"\\u003cweb\\u003e"}\n{"ID":"b2","Names":"db"}\n')
    assert show(capfd, "{{.ID}}: {{.Names}}")[0] == "a1: <web>\nb2: db\n"
    assert show(capfd, r"table {{.Names}}\t{{.ID}}")[0] == "NAMES     CONTAINER ID\n<web>     a1\ndb        b2\n"
    assert show(capfd, '{{.Label "x"}}')[0] == "x-a1\nx-b2\n"
    assert show(capfd, "", quiet=lambda item: item["id"]) == ("a1\nb2\n", "")
    assert show(capfd, "json", quiet=lambda item: item["id"], is_quiet_first=True) == (
        "a1\nb2\n",
        "WARNING: Ignoring custom format, because both --format and --quiet are set.\n",
    )


def test_a_template_wins_over_quiet_but_table_and_raw_do_not(capfd: pytest.CaptureFixture[str]) -> None:
    forms = [("name", " {{.Names}}"), ("id", " {{.ID}}"), ("none", "{{if false}} x{{end}}")]

    def quiet(template: str) -> tuple[str, str]:
        return show(capfd, template, quiet=lambda item: item["id"], raw=forms)

    assert quiet("{{.Names}}") == ("<web>\ndb\n", "")
    assert quiet("table") == ("a1\nb2\n", "")
    assert quiet("raw") == ("id: a1\nid: b2\n", "")
    assert show(capfd, "raw", raw=forms)[0] == "name: <web>\nid: a1\nnone:\n\nname: db\nid: b2\nnone:\n\n"


@pytest.mark.parametrize(
    ("template", "sentence"),
    [
        ("{{.ID", "template parsing error: template: :1: unclosed action"),
        (
            "{{.Foo}}",
            'template parsing error: template: :1:2: executing "" at <.Foo>: can\'t evaluate field Foo in '
            "type *formatter.ContainerContext",
        ),
    ],
)
def test_wrong_templates(capfd: pytest.CaptureFixture[str], template: str, sentence: str) -> None:
    with pytest.raises(Failure) as caught:
        show(capfd, template)
    assert caught.value.message == sentence


def port(private: int, public: int = 0, ip: str = "", kind: str = "tcp") -> dict[str, object]:
    made: dict[str, object] = {"PrivatePort": private, "Type": kind}
    return made | ({"IP": ip, "PublicPort": public} if public else {})


def test_the_ports_column() -> None:
    shown = display_ports(
        [
            port(80, 80, "0.0.0.0"),
            port(80, 80, "::"),
            port(443),
            port(81),
            port(82),
            port(90, 9000, "0.0.0.0"),
            port(53, kind="udp"),
        ]
    )
    assert shown == "81-82/tcp, 53/udp, 0.0.0.0:80->80/tcp, [::]:80->80/tcp, 443/tcp, 0.0.0.0:9000->90/tcp"
    assert display_ports([port(3306), port(33060)]) == "3306/tcp, 33060/tcp"
    assert display_ports([]) == ""


def test_names_sort_naturally() -> None:
    assert sorted(["net10", "net9", "abc", "net"], key=render.sort_key) == ["abc", "net", "net9", "net10"]


def test_short_texts() -> None:
    assert render.ellipsis("nginx -g 'daemon off;'", 20) == "nginx -g 'daemon of…"
    assert render.ellipsis("short", 20) == "short"
    assert render.go_quote('a"b\n') == '"a\\"b\\n"'
    assert render.short_id("sha256:" + "ab" * 32) == "abababababab"


def test_progress_lines_without_a_terminal(capfd: pytest.CaptureFixture[str]) -> None:
    progress.print_stream(
        [
            {"status": "Pulling from library/x", "id": "latest"},
            {
                "status": "Downloading",
                "progressDetail": {"current": 1, "total": 2},
                "progress": "[>] 1B/2B",
                "id": "aa",
            },
            {"status": "Pull complete", "progressDetail": {}, "id": "aa"},
            {"stream": "Loaded image: x:y\n"},
            {"status": "Digest: sha256:aa"},
        ]
    )
    out = capfd.readouterr().out
    assert out == "latest: Pulling from library/x\naa: Pull complete\nLoaded image: x:y\nDigest: sha256:aa\n"


def test_progress_lines_on_a_terminal_are_rewritten_in_place() -> None:
    master, slave = os.openpty()
    steps = ({"current": 1, "total": 4}, {"current": 3, "total": 4})
    documents = [{"status": "Downloading", "id": name, "progressDetail": step} for step in steps for name in ("a", "b")]
    progress.print_stream([*documents, {"status": "Digest: sha256:aa"}], slave)
    os.close(slave)
    seen = ""
    # a terminal hands its output over in pieces, and ends it with an error
    with contextlib.suppress(OSError):
        while data := os.read(master, 10_000):
            seen += data.decode()
    os.close(master)
    assert seen.count("a: Downloading") == seen.count("b: Downloading") == 2
    assert "\033[2A\033[2K\ra: Downloading" in seen and "\033[1A\033[2K\rb: Downloading" in seen
    assert seen.endswith("Digest: sha256:aa\r\n")


def test_a_bar_does_not_change_what_is_sent() -> None:
    master, slave = os.openpty()
    pieces = [b"a" * 10, b"b", b""]
    assert list(progress.with_bar(iter(pieces), 11, "Loading", slave)) == pieces
    os.close(master)
    os.close(slave)


def test_an_error_in_the_stream() -> None:
    with pytest.raises(Failure, match="boom"):
        progress.print_stream([{"errorDetail": {"message": "boom"}, "error": "boom"}])


def test_a_bar() -> None:
    assert progress.bar(50, 100) == "[=========================>                        ]      50B/100B"
    assert progress.bar(100, 100) == "[" + "=" * 50 + "]     100B/100B"
