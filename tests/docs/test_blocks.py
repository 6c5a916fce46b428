"""Every `sh` block of README and docs is executed as written; `console` blocks are only shown."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tsunagu.testing.commandline import docker_program
from tsunagu.testing.engine import EngineProcess, tsunagu_program

TOP = Path(__file__).resolve().parents[2]
PAGES = sorted([*TOP.glob("*.md"), *TOP.glob("docs/**/*.md")])
FENCE = re.compile(r"^```(\w*)[^\n]*\n(.*?)^```$", re.MULTILINE | re.DOTALL)
# languages of blocks that nobody is to type
SHOWN = {"", "text", "console", "json", "python", "yaml", "nft", "mermaid", "ini"}


def blocks(page: Path) -> list[tuple[str, str]]:
    """(language, text) of each fenced block."""
    return [(match[1], match[2]) for match in FENCE.finditer(page.read_text())]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(TOP)))
def test_every_block_says_what_it_is(page: Path) -> None:
    assert {language for language, _ in blocks(page)} <= SHOWN | {"sh"}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(TOP)))
def test_links_lead_somewhere(page: Path) -> None:
    targets = re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text())
    assert [target for target in targets if not (page.parent / target).exists()] == []


@pytest.mark.root
@pytest.mark.parametrize(
    "page",
    [page for page in PAGES if any(language == "sh" for language, _ in blocks(page))],
    ids=lambda page: str(page.relative_to(TOP)),
)
def test_sh_blocks_run(page: Path, new_engine: Callable[[], EngineProcess], tmp_path: Path) -> None:
    """One shell per page, blocks in order, stopping at the first command that fails."""
    engine = new_engine()
    script = "set -eu\n" + "\n".join(text for language, text in blocks(page) if language == "sh")
    folders = {os.path.dirname(tsunagu_program()), os.path.dirname(docker_program())}
    environment = {
        **os.environ,
        "PATH": ":".join([*sorted(folders), os.environ["PATH"]]),
        "DOCKER_HOST": engine.host,
        "DOCKER_CONFIG": str(tmp_path),
    }
    done = subprocess.run(
        ["bash", "-x", "-c", script],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        env=environment,
        cwd=TOP,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    assert engine.api.get("/containers/json?all=1") == [], "a page cleans up after itself"
