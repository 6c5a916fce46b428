"""Every `sh` block of README and docs is executed as written, and what it prints is compared with the `text output`
block after it, if there is one; `console` blocks are only shown.

In expected output `…` stands for any text, alone on a line for any lines; addresses, ids and times may differ.
"""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from images import build
from tsunagu.testing.commandline import docker_program
from tsunagu.testing.engine import EngineProcess, tsunagu_program

TOP = Path(__file__).resolve().parents[2]
PAGES = sorted([*TOP.glob("*.md"), *TOP.glob("docs/**/*.md")])
FENCE = re.compile(r"^```(\w*)[^\n]*\n(.*?)^```$", re.MULTILINE | re.DOTALL)
EXAMPLE = re.compile(r"^```sh\n(.*?)^```$(?:\s+^```text output\n(.*?)^```$)?", re.MULTILINE | re.DOTALL)
MARK = "=== end of block"
CHANGING = (  # what no two runs have in common, longest first
    (re.compile(r"\b[0-9a-f]{64}\b|\b[0-9a-f]{12}\b"), "ID"),
    (re.compile(r"\b\d+\.\d+\.\d+\.\d+\b"), "ADDRESS"),
    (re.compile(r"\b[\d./]+ ?(?:ms|seconds?|minutes?)\b"), "TIME"),
    (re.compile(r"[ \t]+"), " "),
    (re.compile(r"─+"), "─"),
)
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


def pages_to_run() -> list[Path]:
    """A translation runs the blocks of its original, see `test_a_translation_has_the_same_blocks`."""
    return [page for page in PAGES if EXAMPLE.search(page.read_text()) and original(page) is None]


def original(page: Path) -> Path | None:
    """The page that `name.ja.md` translates."""
    stem, _, language = page.stem.partition(".")
    return page.with_name(f"{stem}.md") if language else None


def comparable(text: str) -> str:
    """The text without what changes from run to run."""
    for pattern, name in CHANGING:
        text = pattern.sub(name, text)
    return "\n".join(line.rstrip() for line in text.strip().splitlines())


def pattern_of(expected: str) -> str:
    """A regular expression for expected output with its `…`."""
    lines = [
        "(?:.*\n)*" if line == "…" else re.escape(line).replace("…", ".*") + "\n" for line in expected.splitlines()
    ]
    return "".join(lines)


@pytest.mark.parametrize(
    "page", [page for page in PAGES if original(page)], ids=lambda page: str(page.relative_to(TOP))
)
def test_a_translation_has_the_same_blocks(page: Path) -> None:
    translated = original(page)
    assert translated is not None
    assert [text for language, text in blocks(page) if language == "sh"] == [
        text for language, text in blocks(translated) if language == "sh"
    ]
    assert EXAMPLE.findall(page.read_text()) == EXAMPLE.findall(translated.read_text())


@pytest.mark.root
@pytest.mark.parametrize("page", pages_to_run(), ids=lambda page: str(page.relative_to(TOP)))
def test_sh_blocks_run(page: Path, new_engine: Callable[[], EngineProcess], tmp_path: Path) -> None:
    """One shell per page, blocks in order, stopping at the first command that fails."""
    if build.DEFAULT_CACHE in page.read_text():
        build.ensure(("all",))
    engine = new_engine()
    examples = EXAMPLE.findall(page.read_text())
    script = "set -eu\nexec 2>&1\n" + "\n".join(f"{commands}\necho '{MARK}'" for commands, _ in examples)
    folders = {os.path.dirname(tsunagu_program()), os.path.dirname(docker_program())}
    environment = {
        **os.environ,
        "PATH": ":".join([*sorted(folders), os.environ["PATH"]]),
        "DOCKER_HOST": engine.host,
        "DOCKER_CONFIG": str(tmp_path),
    }
    done = subprocess.run(
        ["bash", "-c", script],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        text=True,
        env=environment,
        cwd=TOP,
        timeout=300,
        check=False,
    )
    printed = done.stdout.split(f"{MARK}\n")
    assert done.returncode == 0, f"after {examples[len(printed) - 1][0]}: {printed[-1]}"
    for (commands, expected), actual in zip(examples, printed, strict=False):
        if expected:
            found = comparable(actual)
            assert re.fullmatch(pattern_of(comparable(expected)), found + "\n"), f"{commands}\n{found}"
    assert engine.api.get("/containers/json?all=1") == [], "a page cleans up after itself"
