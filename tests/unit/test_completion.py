"""cli.completion: what is offered in each place of a command line, and the bash script in a real bash."""

from __future__ import annotations

import os
import pty
import select
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from tsunagu.cli import commands
from tsunagu.cli.completion import _ARGUMENTS, _VALUES, Answer, candidates, script
from tsunagu.cli.main import GLOBAL_FLAGS, load

KNOWN = {
    "containers": [("api", "nginx, Up"), ("old", "nginx, Exited (0)"), ("web", "nginx, Up")],
    "running": [("api", ""), ("web", "")],
    "stopped": [("old", "")],
    "images": [("nginx", "image"), ("nginx:latest", "image"), ("localhost:5000/app:1.2", "image")],
    "networks": [("app-network", "network"), ("bridge", "network")],
    "objects": [("api", ""), ("bridge", ""), ("nginx:latest", "")],
}


def offered(line: str) -> list[str]:
    """The words offered at the end of `line` (what is typed after the program's name)."""
    return [word for word, _ in ask(line).words]


def ask(line: str) -> Answer:
    words = line.split()
    if not line or line[-1] == " ":
        words.append("")
    return candidates(words, lambda kind, _host: KNOWN[kind])


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("ne", ["network"]),
        ("network ", ["connect", "create", "disconnect", "inspect", "ls", "prune", "rm"]),
        ("container p", ["pause", "port", "prune"]),
        ("help network cr", ["create"]),
        ("completion ", ["bash", "fish", "zsh"]),
        ("stop ", ["api", "web"]),
        ("stop api ", ["web"]),
        ("container stop -t 3 a", ["api"]),
        ("start ", ["old"]),
        ("rm o", ["old"]),
        ("rename ", ["api", "old", "web"]),
        ("rename web ", []),
        ("network connect ", ["app-network", "bridge"]),
        ("network connect app-network w", ["web"]),
        ("network connect --ip 10.0.0.3 app-network w", ["web"]),
        ("run --network a", ["app-network"]),
        ("run --network=a", ["--network=app-network"]),
        ("run --rm=", ["--rm=true", "--rm=false"]),
        ("run -it --name x ng", ["nginx", "nginx:latest"]),
        ("run -p 80:80 -e A=B localhost:", ["localhost:5000/app:1.2"]),
        ("run --netw", ["--network", "--network-alias"]),
        ("exec -it ", ["api", "web"]),
        ("kill --signal SIGT", ["SIGTERM"]),
        ("kill -s SIGT", ["SIGTERM"]),
        ("inspect --type ", ["container", "image", "network"]),
        ("inspect --type image nginx:", ["nginx:latest"]),
        ("-H unix:///x sto", ["stop"]),
        ("--log-level d", ["debug"]),
        ("ps --format j", ["json"]),
        ("logs -- w", ["web"]),
        ("nonsense ", []),
        ("network nonsense ", []),
        ("stop --nonsense a", ["api"]),
        ("ps ", []),
    ],
)
def test_what_is_offered(line: str, words: Sequence[str]) -> None:
    assert offered(line) == words


def test_commands_of_the_first_level_are_all_offered() -> None:
    assert set(offered("")) == {*commands.TOP, *commands.GROUPS, "help"}


def test_hidden_flags_and_spellings_are_not_offered() -> None:
    assert "--net" not in offered("run --net")
    assert "list" not in offered("network ")
    assert "candidates" not in offered("completion ")


@pytest.mark.parametrize(
    "line", ["run --env-file ", "run --env-file=", "run -v /", "exec api cat ", "run nginx ", "import "]
)
def test_files_are_left_to_the_shell(line: str) -> None:
    assert ask(line).paths == "files"
    assert offered(line) == []


def test_behind_a_containers_command_nothing_of_ours_is_offered() -> None:
    assert offered("exec api --") == []
    assert offered("run nginx --net") == []


@pytest.mark.parametrize("line", ["-H unix:///here stop ", "--host=unix:///here stop ", "-Hunix:///here stop "])
def test_names_come_from_the_host_on_the_command_line(line: str) -> None:
    asked = []
    candidates(line.split(" "), lambda kind, host: asked.append((kind, host)) or [])
    assert asked == [("running", "unix:///here")]


def test_the_tables_name_what_exists() -> None:
    """A renamed command or flag must not lose its completion in silence."""
    entries = [entry for _, table in commands.GROUPS.values() for entry in table.values()] + list(commands.TOP.values())
    assert set(_ARGUMENTS) <= set(entries)
    flags = {f"--{flag[0]}" for entry in entries for flag in load(entry).flags} | {
        f"--{flag[0]}" for flag in GLOBAL_FLAGS
    }
    assert {name.rpartition(" ")[2] for name in _VALUES} <= flags


def test_every_command_that_takes_a_name_offers_names() -> None:
    silent = {"BASH", "ZSH", "FISH", "CANDIDATES", "LOAD", "DAEMON"}
    for _, table in commands.GROUPS.values():
        for entry in table.values():
            usage = load(entry).usage
            if any(word in usage for word in ("CONTAINER", "IMAGE", "NETWORK [", "NAME|ID")) and entry[1] not in silent:
                assert entry in _ARGUMENTS, entry


def test_an_answer_as_text() -> None:
    answer = Answer([("--rm", "Remove\nit"), ("-i", "")])
    assert answer.text(is_described=True) == "words\n--rm\tRemove it\n-i\n"
    assert answer.text(is_described=False) == "words\n--rm\n-i\n"
    assert Answer(paths="files").text(is_described=True) == "files\n"


# Shells.


@pytest.fixture(scope="module")
def bash(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with the script and a `tsunagu` that answers from KNOWN's engine: none, so names are canned."""
    directory = tmp_path_factory.mktemp("bash")
    (directory / "completion.bash").write_text(script("bash"))
    source = Path(commands.__file__).parents[3]
    program = directory / "tsunagu"
    program.write_text(
        f"#!{sys.executable} -SE\nimport sys\nsys.path.insert(0, {str(source)!r})\n"
        "from tsunagu.cli.completion import candidates\n"
        f"known = {KNOWN!r}\n"
        'words = sys.argv[sys.argv.index("--") + 1 :]\n'
        "sys.stdout.write(candidates(words, lambda kind, host: known[kind]).text(is_described=False))\n"
    )
    program.chmod(0o755)
    return directory


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_scripts_parse(shell: str) -> None:
    if not shutil.which(shell):
        pytest.skip(f"no {shell} on this machine: its completion script is not checked here")
    result = subprocess.run([shell, "-n"], input=script(shell), capture_output=True, text=True, check=False)
    assert (result.returncode, result.stderr) == (0, "")


def replies(directory: Path, line: str, words: Sequence[str]) -> list[str]:
    """COMPREPLY of the script's function for a line that readline has cut into `words`."""
    quoted = " ".join("'" + word.replace("'", "'\\''") + "'" for word in words)
    code = f"source {directory}/completion.bash\nCOMP_WORDS=({quoted}); COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1))\n"
    code += 'COMP_LINE=$LINE; COMP_POINT=${#COMP_LINE}\n_tsunagu\nprintf "%s\\n" "${COMPREPLY[@]}"\n'
    environment = {"PATH": f"{directory}:{os.environ['PATH']}", "LINE": line}
    run = ["bash", "--norc", "-c", code]
    result = subprocess.run(run, capture_output=True, text=True, check=True, env=environment, cwd=directory)
    assert result.stderr == ""
    return result.stdout.split()


@pytest.mark.parametrize(
    ("line", "words", "expected"),
    [
        ("tsunagu stop ", ["tsunagu", "stop", ""], ["api", "web"]),
        ("tsunagu netw", ["tsunagu", "netw"], ["network"]),
        ("tsunagu run nginx:", ["tsunagu", "run", "nginx", ":"], ["latest"]),
        ("tsunagu run localhost:5", ["tsunagu", "run", "localhost", ":", "5"], ["5000/app:1.2"]),
        ("tsunagu run --network=a", ["tsunagu", "run", "--network", "=", "a"], ["app-network"]),
        ("tsunagu run --network=", ["tsunagu", "run", "--network", "="], ["app-network", "bridge"]),
        ("tsunagu inspect -f '{{json .}}' b", ["tsunagu", "inspect", "-f", "'{{json .}}'", "b"], ["bridge"]),
        ("tsunagu run --env-file comp", ["tsunagu", "run", "--env-file", "comp"], ["completion.bash"]),
        ("tsunagu run --env-file=comp", ["tsunagu", "run", "--env-file", "=", "comp"], ["completion.bash"]),
        ("tsunagu nonsense x", ["tsunagu", "nonsense", "x"], []),
    ],
)
def test_the_bash_function(bash: Path, line: str, words: Sequence[str], expected: Sequence[str]) -> None:
    assert replies(bash, line, words) == expected


def test_a_tab_in_a_real_bash(bash: Path) -> None:
    """Typed at a terminal: readline cuts the words, the script answers, the line is completed."""
    child, terminal = pty.fork()
    if child == 0:
        os.chdir(bash)
        environment = {"PATH": f"{bash}:{os.environ['PATH']}", "PS1": "ready> ", "TERM": "dumb", "HOME": str(bash)}
        os.execvpe("bash", ["bash", "--norc", "--noprofile", "-i"], environment)
    try:
        typed(terminal, "", "ready> ")
        typed(terminal, 'source completion.bash; tsunagu() { echo got "$@"; }\r', "ready> ")
        screen = typed(terminal, "tsunagu ru\t--network=a\tnginx:\t\r", "ready> ")
        assert "\ngot run --network=app-network nginx:latest\n" in screen
    finally:
        os.close(terminal)
        os.waitpid(child, 0)


def typed(terminal: int, keys: str, until: str) -> str:
    """Send keys, read until the text appears; the whole screen since then. Fails after 20 s."""
    os.write(terminal, keys.encode())
    seen = ""
    deadline = time.monotonic() + 20
    while until not in seen.replace("\r", ""):
        ready, _, _ = select.select([terminal], [], [], max(deadline - time.monotonic(), 0))
        if not ready:
            pytest.fail(f"no {until!r} in {seen!r}")
        seen += os.read(terminal, 4096).decode()
    return seen.replace("\r", "")
