"""kernel.runtime_words: the runtime's messages in Docker's sentences, with Docker's exit codes."""

from __future__ import annotations

from pathlib import Path

import pytest

from tsunagu.kernel.runtime_words import RuntimeFailed, create_sentence, exec_sentence, last_error

PREFIX = "failed to create task for container: failed to create shim task: OCI runtime create failed: "


def test_create_as_docker_says_it() -> None:
    old = 'runc create failed: unable to start container process: exec: "x": executable file not found in $PATH\n'
    new = (
        "runc create failed: unable to start container process: error during container init: "
        'exec: "x": executable file not found in $PATH'
    )
    assert create_sentence(old) == PREFIX + new
    assert create_sentence(new) == PREFIX + new
    assert create_sentence("") == PREFIX + "runc create failed: the runtime said nothing"


def test_crun_is_heard_as_runc() -> None:
    said = "executable file `nosuch` not found in $PATH: No such file or directory"
    words = 'exec: "nosuch": executable file not found in $PATH'
    assert create_sentence(said).endswith(f"unable to start container process: error during container init: {words}")
    assert exec_sentence(said) == f"OCI runtime exec failed: exec failed: unable to start container process: {words}"
    assert RuntimeFailed("crun: open executable: Permission denied").exit_code == 126


def test_exec_as_docker_says_it() -> None:
    said = 'exec failed: unable to start container process: exec: "x": executable file not found in $PATH'
    assert exec_sentence(f"warning\n{said}\n") == f"OCI runtime exec failed: {said}"
    assert exec_sentence("cannot exec in a stopped container").startswith(
        "OCI runtime exec failed: exec failed: cannot"
    )


@pytest.mark.parametrize(
    ("message", "code"),
    [
        ('exec: "x": executable file not found in $PATH', 127),
        ('exec: "/x": stat /x: no such file or directory', 127),
        ('exec: "/etc": permission denied', 126),
        ('exec: "/etc": is a directory', 126),
        ("cgroup: busy", 128),
    ],
)
def test_exit_codes(message: str, code: int) -> None:
    assert RuntimeFailed(message).exit_code == code


def test_the_log_is_read_when_nothing_was_said(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_text(
        '{"level":"error","msg":"first"}\n{"level":"error","msg":"last"}\n{"level":"info","msg":"i"}\n3\ncut'
    )
    assert last_error(str(path)) == "last"
    assert last_error(str(tmp_path / "none")) == ""
