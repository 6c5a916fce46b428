"""What Docker 28.5 printed, command by command, said by both clients to one engine: transcript/*.txt, in order.

A block is a command, its standard output, its `[stderr]` lines and its exit code; places such as `<id>` are those of
`testing.golden`. Lines on standard error that are marked `[ours]` are not Docker's: docs/differences.md says why. The
engine has a host of its own, so that ports and subnets are the user's to choose.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from tsunagu.kernel import link, netns
from tsunagu.kernel.netlink import Socket
from tsunagu.testing import golden
from tsunagu.testing.commandline import CommandLine
from tsunagu.testing.engine import EngineProcess

pytestmark = pytest.mark.root

SECTIONS = sorted(Path(__file__).with_name("transcript").glob("*.txt"))
# Sections 1 to 3 are tests/e2e/test_scenarios.py; the later ones use what they leave.
BEFORE = (
    "network create app-network",
    "run -d --name web --network app-network nginx",
    "run -d --name client --network app-network alpine sleep 3600",
    "run -d --name mysql-primary --network app-network --network-alias db mysql:8",
)


class Block(NamedTuple):
    command: str
    expected: str


@pytest.fixture(scope="module")
def private(images: Callable[[str], Path]) -> Iterator[EngineProcess]:
    """An engine with every test image, in a network namespace that is the host to it."""
    engine = EngineProcess()
    failure: list[BaseException] = []

    def start() -> None:
        try:
            netns.leave_host()
            with Socket() as nl:
                link.set_up(nl, "lo")
            engine.start()  # a child starts in the namespace of the thread that forks it
        except BaseException as error:
            failure.append(error)

    thread = threading.Thread(target=start)
    thread.start()
    thread.join()
    try:
        if failure:
            raise failure[0]
        engine.load(images("all"))
        yield engine
    finally:
        left = engine.close()
        assert not left, left


def blocks(path: Path) -> list[Block]:
    """The commands of a section, each with what it prints."""
    texts = path.read_text().split("\n$ ")[1:]
    return [Block(command, printed) for command, _, printed in (text.partition("\n") for text in texts)]


@pytest.mark.parametrize("client", ["docker", "tsunagu"])
def test_transcript(
    client: str, private: EngineProcess, client_of: Callable[[str, EngineProcess], CommandLine]
) -> None:
    cli = client_of(client, private)
    assert cli.has_current_words, "these are Docker 28's words"
    wrong = []
    try:
        for command in BEFORE:
            cli(command).ok()
        for section in SECTIONS:
            for number, block in enumerate(blocks(section), 1):
                if said := difference(cli, private, block):
                    wrong.append(f"{section.name}, block {number}: {said}")
    finally:
        refused = private.remove_everything()
    assert not wrong, f"{len(wrong)} blocks differ\n\n" + "\n\n".join(wrong)
    assert not refused


def difference(cli: CommandLine, engine: EngineProcess, block: Block) -> str:
    """Say how what a command prints differs from what it should print, "" when it does not."""
    line = block.command
    if not line.startswith("docker"):  # a program of the host
        line = f"nsenter -t {engine.pid} -n {line}"
    result = cli.shell(line)
    errors = "".join(f"[stderr] {one}\n" for one in result.err.splitlines())
    output = result.out.replace("\r", "").rstrip("\n")
    printed = f"{output}\n{errors}[exit {result.code}]"
    expected = block.expected.replace("[ours] ", "[stderr] ")
    if cli.name != "docker":
        expected = expected.replace("[stderr] docker: ", f"[stderr] {cli.name}: ")
        expected = expected.replace("Run 'docker ", f"Run '{cli.name} ")
    if "nslookup" in line:
        printed, expected = plain(printed), plain(expected)
    if golden.matches(expected, printed):
        return ""
    try:
        golden.check(expected, printed)
    except AssertionError as error:
        return f"$ {line}\n{error}"
    return ""


def plain(text: str) -> str:
    """A look-up without what varies by which of A and AAAA is answered first."""
    return "\n".join(one for one in text.splitlines() if one and one != "Non-authoritative answer:")
