"""A command line client (`docker` or `tsunagu`) at one engine, run as a user runs it: arguments, pipes, terminals.

May import the standard library and its neighbours.
"""

from __future__ import annotations

import dataclasses
import errno
import fcntl
import os
import pty
import re
import select
import shlex
import shutil
import signal
import struct
import subprocess
import sys
import termios
import time
from pathlib import Path
from types import TracebackType

TIMEOUT_SECONDS = 120.0


@dataclasses.dataclass(frozen=True)
class Result:
    """What one command did."""

    command: str
    code: int
    out: str
    err: str

    def ok(self) -> str:
        """Standard output without its last newline; AssertionError with everything when the command failed."""
        if self.code != 0:
            raise AssertionError(f"{self}")
        return self.out.rstrip("\n")

    def __str__(self) -> str:
        errors = "".join(f"[stderr] {line}" for line in self.err.splitlines(keepends=True))
        return f"$ {self.command}\n{self.out}{errors}\n[exit {self.code}]"


class CommandLine:
    """One client against one engine. `name` is what the user types: docker or tsunagu."""

    def __init__(self, name: str, program: str, host: str, home: Path) -> None:
        self.name = name
        self.program = program
        self.host = host
        self.environment = {
            **os.environ,
            "DOCKER_HOST": host,
            "DOCKER_CONFIG": str(home / "docker"),
            "DOCKER_CLI_HINTS": "false",
            "HOME": str(home),
            "LC_ALL": "C.UTF-8",
            "TERM": "xterm",
        }
        self.environment.pop("DOCKER_CONTEXT", None)
        # Docker 28's words are what errors are compared with; Debian 12's client of 2020 has others around them.
        self.has_current_words = name != "docker" or docker_version(program) >= (28,)

    def refuses(self, result: Result, code: int, sentence: str, *, help_for: str = "", out: str = "") -> None:
        """AssertionError unless `result` failed with `code` and Docker's words.

        `sentence` is what stderr starts with (after `docker: ` when `help_for` names a command whose help is
        pointed to at the end). Our own remedy may follow it on lines of its own.
        """
        name = f"{self.name}: " if help_for else ""
        end = f"\n\nRun '{self.name} {help_for} --help' for more information\n" if help_for else ""
        is_right = result.code == code and sentence in result.err
        if self.has_current_words:
            is_right = (
                result.code == code
                and result.out.strip() == out
                and result.err.startswith(name + sentence)
                and result.err.endswith(end)
                and (result.err[len(name + sentence) :].removesuffix(end)[:1] in ("", "\n"))
            )
        if not is_right:
            raise AssertionError(f"expected exit {code} and stderr {name + sentence + end!r}, got\n{result}")

    def __call__(
        self,
        command: str,
        *more: str,
        stdin: bytes = b"",
        timeout: float = TIMEOUT_SECONDS,
        env: dict[str, str] | None = None,
    ) -> Result:
        """Run `docker COMMAND` split as a shell splits it, `more` appended as it is; raises for no exit code."""
        arguments = [self.program, *shlex.split(command), *more]
        done = subprocess.run(
            arguments,
            input=stdin,
            capture_output=True,
            timeout=timeout,
            check=False,
            env={**self.environment, **(env or {})},
        )
        text = shlex.join([self.name, *arguments[1:]])
        return Result(text, done.returncode, done.stdout.decode(errors="replace"), done.stderr.decode(errors="replace"))

    def shell(self, line: str, *, timeout: float = TIMEOUT_SECONDS) -> Result:
        """Run a shell line in which `docker` means this client (for pipes, substitutions and redirections)."""
        function = f'docker() {{ {shlex.quote(self.program)} "$@"; }}\n'
        done = subprocess.run(
            ["bash", "-c", function + line],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=timeout,
            check=False,
            env=self.environment,
        )
        return Result(line, done.returncode, done.stdout.decode(errors="replace"), done.stderr.decode(errors="replace"))

    def start(self, command: str, *more: str) -> subprocess.Popen[bytes]:
        """Start a command and leave it running, with three pipes."""
        return subprocess.Popen(
            [self.program, *shlex.split(command), *more],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=self.environment,
        )

    def terminal(self, command: str, *more: str, rows: int = 24, columns: int = 80) -> Terminal:
        """Start a command on a terminal of its own."""
        return Terminal([self.program, *shlex.split(command), *more], self.environment, rows, columns)


class Terminal:
    """A program on a pseudo terminal: send keys, wait for words, change the window, read the exit code."""

    def __init__(self, command: list[str], environment: dict[str, str], rows: int, columns: int) -> None:
        self.output = ""
        self._position = 0
        self._code: int | None = None
        self.pid, self._descriptor = pty.fork()
        if self.pid == 0:
            try:
                fcntl.ioctl(0, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
                os.execvpe(command[0], command, environment)
            finally:
                os._exit(127)

    def send(self, text: str) -> None:
        """Type `text`."""
        os.write(self._descriptor, text.encode())

    def resize(self, rows: int, columns: int) -> None:
        """Change the size of the window; the program gets SIGWINCH from the kernel."""
        fcntl.ioctl(self._descriptor, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def expect(self, pattern: str, timeout: float = 20.0) -> re.Match[str]:
        """Wait until `pattern` appears after what was matched before; AssertionError with all output if not."""
        deadline = time.monotonic() + timeout
        while True:
            match = re.compile(pattern, re.MULTILINE).search(self.output, self._position)
            if match:
                self._position = match.end()
                return match
            if not self._read(deadline - time.monotonic()):
                raise AssertionError(f"{pattern!r} did not appear on the terminal; it shows:\n{self.output!r}")

    def wait(self, timeout: float = 20.0) -> int:
        """Read to the end and return the exit code (128 + signal when it was killed)."""
        deadline = time.monotonic() + timeout
        while self._read(deadline - time.monotonic()):
            pass
        if time.monotonic() >= deadline:
            raise AssertionError(f"the program did not end; the terminal shows:\n{self.output!r}")
        return self._reap()

    def close(self) -> None:
        """End the program if it still runs."""
        if self._code is None:
            os.kill(self.pid, signal.SIGKILL)
            self._reap()
        os.close(self._descriptor)

    def __enter__(self) -> Terminal:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def _reap(self) -> int:
        if self._code is None:
            _, status = os.waitpid(self.pid, 0)
            code = os.waitstatus_to_exitcode(status)
            self._code = code if code >= 0 else 128 - code
        return self._code

    def _read(self, timeout: float) -> bool:
        """Read what is there; False at the end or when `timeout` seconds passed."""
        readable, _, _ = select.select([self._descriptor], [], [], max(0.0, timeout))
        if not readable:
            return False
        try:
            data = os.read(self._descriptor, 65536)
        except OSError as error:
            if error.errno != errno.EIO:  # the terminal's last writer is gone
                raise
            return False
        self.output += data.decode(errors="replace")
        return bool(data)


def docker_program() -> str:
    """Path of the Docker client; RuntimeError when there is none."""
    beside = Path(sys.prefix, "bin", "docker")
    found = str(beside) if beside.exists() else shutil.which("docker")
    if found is None:
        raise RuntimeError("there is no docker client: run `make dev`, which takes it from Debian's docker.io package")
    return found


def docker_version(program: str) -> tuple[int, ...]:
    """Version of a Docker client, for example (28, 2, 2): its words changed over time."""
    done = subprocess.run([program, "--version"], capture_output=True, text=True, check=True)
    match = re.search(r"(\d+)\.(\d+)\.(\d+)", done.stdout)
    if match is None:
        raise RuntimeError(f"{program} --version printed {done.stdout!r}")
    return tuple(int(part) for part in match.groups())
