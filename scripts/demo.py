"""Shows scenarios 1 to 3 of the tutorial on an engine of its own: real nginx, a MySQL-like server, real packets.

Prints each command, what it printed and how long it took; removes everything; ends with 1 when something did not
behave. Needs root. May import the standard library, `tsunagu.testing` and the test images.
"""

from __future__ import annotations

import os
import re
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))

from images import build
from tsunagu.testing.commandline import CommandLine, Result, docker_program
from tsunagu.testing.engine import EngineProcess, tsunagu_program

IS_TERMINAL = sys.stdout.isatty() and "NO_COLOR" not in os.environ
BOLD, GREEN, RED, DIM, PLAIN = ("\033[1m", "\033[32m", "\033[31m", "\033[2m", "\033[0m") if IS_TERMINAL else ("",) * 5
SHOWN_LINES = 14


class Show:
    """Runs commands of one client for people to read, and counts what did not behave."""

    def __init__(self) -> None:
        self.failures: list[str] = []

    def title(self, text: str) -> None:
        """A heading."""
        print(f"\n{BOLD}{text}{PLAIN}", flush=True)

    def run(self, cli: CommandLine, command: str, *, expects: str = "", code: int = 0) -> Result:
        """Run one command; it must end with `code` and print something that matches `expects`."""
        print(f"{BOLD}$ {cli.name} {command}{PLAIN}", flush=True)
        started = time.monotonic()
        result = cli(command)
        milliseconds = (time.monotonic() - started) * 1000
        lines = (result.out + result.err).rstrip("\n").splitlines()
        for line in lines[:SHOWN_LINES]:
            print(f"  {line}")
        if len(lines) > SHOWN_LINES:
            print(f"  {DIM}… {len(lines) - SHOWN_LINES} more lines{PLAIN}")
        behaves = result.code == code and re.search(expects, result.out + result.err, re.MULTILINE) is not None
        mark = (
            f"{GREEN}ok{PLAIN}"
            if behaves
            else f"{RED}WRONG: exit {result.code}, expected {code} and {expects!r}{PLAIN}"
        )
        print(f"  {mark} {DIM}{milliseconds:.0f} ms{PLAIN}", flush=True)
        if not behaves:
            self.failures.append(str(result))
        return result


def scenario_1(show: Show, cli: CommandLine) -> None:
    """One network, names resolve."""
    show.title("1  One network: containers find each other by name")
    show.run(cli, "network create app-network", expects=r"^[0-9a-f]{64}$")
    show.run(cli, "run -d --name web --network app-network nginx", expects=r"^[0-9a-f]{64}$")
    show.run(cli, "run -d --name client --network app-network alpine sleep 3600", expects=r"^[0-9a-f]{64}$")
    show.run(cli, "exec client ping -c 3 web", expects="3 packets transmitted, 3 packets received, 0% packet loss")
    show.run(cli, "exec client wget -qO- http://web:80", expects="<title>Welcome to nginx!</title>")


def scenario_2(show: Show, cli: CommandLine) -> None:
    """Embedded DNS."""
    show.title("2  The name server inside each network, at 127.0.0.11")
    show.run(cli, "exec client cat /etc/resolv.conf", expects=r"^nameserver 127\.0\.0\.11$")
    lookup = r"Name:\s+{}\nAddress: [\d.]+"
    show.run(cli, "run --rm --network app-network alpine nslookup web", expects=lookup.format("web"))
    show.run(cli, "rename web front")
    show.run(cli, "exec client nslookup front", expects=lookup.format("front"))
    show.run(cli, "exec client nslookup web", code=1)
    show.run(cli, "rename front web")


def scenario_3(show: Show, cli: CommandLine) -> None:
    """Network aliases."""
    show.title("3  Several names for one database")
    show.run(
        cli,
        "run -d --name mysql-primary --network app-network --network-alias db --network-alias mysql "
        "--network-alias database mysql:8 --default-authentication-plugin=mysql_native_password",
        expects=r"^[0-9a-f]{64}$",
    )
    for name in ("db", "mysql", "database", "mysql-primary"):
        show.run(cli, f"exec client ping -c 1 {name}", expects="1 packets received, 0% packet loss")
    query = "until mysql -h db -e 'select 6*7 as answer' 2>/dev/null; do sleep 0.1; done"
    show.run(cli, f'exec mysql-primary sh -c "{query}"', expects="^42$")


def clean_up(show: Show, cli: CommandLine) -> None:
    """Remove everything by hand, as a user does."""
    show.title("Clean up")
    show.run(cli, "rm -f web client mysql-primary", expects="web\nclient\nmysql-primary")
    show.run(cli, "network rm app-network", expects="^app-network$")


def main() -> int:
    if os.geteuid() != 0:
        print("the demonstration needs root: it starts an engine of its own", file=sys.stderr)
        return 1
    show = Show()
    archives = build.ensure(("alpine", "nginx", "mysql_8"))
    engine = EngineProcess()
    with tempfile.TemporaryDirectory() as home:
        try:
            show.title("An engine of its own")
            started = time.monotonic()
            engine.start()
            print(f"  ready after {(time.monotonic() - started) * 1000:.0f} ms at {engine.host}")
            tsunagu = CommandLine("tsunagu", tsunagu_program(), engine.host, Path(home))
            docker = CommandLine("docker", docker_program(), engine.host, Path(home))
            for archive in archives.values():
                show.run(tsunagu, f"load -i {archive}", expects="^Loaded image: ")
            for scenario in (scenario_1, scenario_2, scenario_3):
                scenario(show, tsunagu)
            show.title("The same engine, Docker's own client")
            show.run(docker, "ps --format 'table {{.Names}}\t{{.Image}}\t{{.Status}}'", expects="^mysql-primary ")
            show.run(docker, "exec client wget -qO- http://web:80", expects="<title>Welcome to nginx!</title>")
            clean_up(show, tsunagu)
        finally:
            left = engine.close()
    show.title("After the engine has stopped")
    print("  nothing is left on this host" if not left else "  LEFT: " + "\n  ".join(left))
    for failure in show.failures:
        print(f"\n{RED}did not behave:{PLAIN}\n{failure}", file=sys.stderr)
    if show.failures or left:
        return 1
    print(f"\n{GREEN}Everything behaved.{PLAIN}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
