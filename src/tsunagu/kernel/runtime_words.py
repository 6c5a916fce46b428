"""What a failing OCI runtime says, turned into Docker's sentences and exit codes. Imports model; reads a log."""

from __future__ import annotations

import json
import re

from tsunagu.model.errors import KernelFailure

_LOG_LIMIT = 1 << 20
_INIT = "unable to start container process: "
_CRUN_NOT_FOUND = re.compile(r"executable file `(.+)` not found in \$PATH")
_NOT_FOUND = ("executable file not found", "no such file or directory")
# Failures of what the request named: a mount that cannot be, a working directory that cannot be made or entered.
_REQUESTED = re.compile(r"error mounting |cannot be mounted because|container init: mkdir |chdir to cwd|mount `")
_KINDS_DIFFER = (
    ": Are you trying to mount a directory onto a file (or vice-versa)? "
    "Check if the specified host path exists and is the expected type"
)
_NOT_EXECUTABLE = ("permission denied", "is a directory", "not a directory")


class RuntimeFailed(KernelFailure):
    """The OCI runtime refused. `exit_code` as Docker records it: 127 not found, 126 not executable, else 128."""

    def __init__(self, message: str, *, hint: str = "", exit_code: int = 0) -> None:
        super().__init__(message, hint=hint)
        self.exit_code = exit_code or exit_code_of(message)

    @property
    def is_requested(self) -> bool:
        """Tell whether the request asked for what cannot be; Docker answers 400 then."""
        return self.exit_code in (126, 127) or _REQUESTED.search(self.message) is not None


def exit_code_of(message: str) -> int:
    """Return the exit code that Docker gives for a runtime's message (moby, daemon/errors.go)."""
    lowered = message.lower()  # crun takes the C library's words, which begin with a capital
    if any(words in lowered for words in _NOT_FOUND):
        return 127
    return 126 if any(words in lowered for words in _NOT_EXECUTABLE) else 128


def create_sentence(said: str) -> str:
    """Return Docker's sentence for a container that could not be made or started."""
    said = _as_runc(_last_line(said))
    if not said.startswith("runc create failed:"):
        said = f"runc create failed: {said}"
    # runc 1.2 and later, which Docker 28 ships, also say at which stage the program was looked up.
    said = said.replace(f"{_INIT}exec:", f"{_INIT}error during container init: exec:")
    if "error mounting" in said and "not a directory" in said:
        said += _KINDS_DIFFER
    return f"failed to create task for container: failed to create shim task: OCI runtime create failed: {said}"


def exec_sentence(said: str) -> str:
    """Return Docker's sentence for an exec that could not be started."""
    said = _as_runc(_last_line(said))
    return f"OCI runtime exec failed: {said if said.startswith('exec failed:') else f'exec failed: {said}'}"


def _as_runc(said: str) -> str:
    """Return crun's complaint about a missing program in runc's words: Docker's clients look for those."""
    found = _CRUN_NOT_FOUND.search(said)
    return f'{_INIT}exec: "{found.group(1)}": executable file not found in $PATH' if found else said


def _last_line(said: str) -> str:
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    return lines[-1] if lines else "the runtime said nothing"


def last_error(log_path: str) -> str:
    """Return the last error in a runtime's JSON log, "" without one."""
    try:
        with open(log_path, errors="replace") as file:
            lines = file.read(_LOG_LIMIT).splitlines()
    except OSError:
        return ""
    for line in reversed(lines):
        try:
            entry = json.loads(line)
        except ValueError:
            continue
        if isinstance(entry, dict) and entry.get("level") in ("error", "fatal", "panic"):
            return str(entry.get("msg", ""))
    return ""
