"""Running containers: exit codes, errors in Docker's words, flags, signals, the life of a container."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from tsunagu.testing.commandline import CommandLine

pytestmark = pytest.mark.root

NO_COMMAND = (
    "Error response from daemon: failed to create task for container: failed to create shim task: OCI runtime create "
    "failed: runc create failed: unable to start container process: error during container init: exec: "
    '"nosuchcmd": executable file not found in $PATH'
)


@pytest.mark.parametrize("code", [0, 1, 42, 126, 255])
def test_exit_code_is_the_commands(cli: CommandLine, code: int) -> None:
    assert cli("run --rm alpine sh -c", f"exit {code}").code == code
    cli("run -d --name box alpine sleep 3600").ok()
    assert cli("exec box sh -c", f"exit {code}").code == code


def test_exit_code_of_a_signal(cli: CommandLine) -> None:
    cli("run -d --name box alpine sleep 3600").ok()
    assert cli("exec box sh -c", "kill -9 $$").code == 137
    cli("kill box").ok()
    assert cli("wait box").ok() == "137"
    assert (
        cli("inspect -f", "{{.State.Status}} {{.State.ExitCode}} {{.State.OOMKilled}}", "box").ok()
        == "exited 137 false"
    )


def test_command_that_is_not_there(cli: CommandLine) -> None:
    cli.refuses(cli("run --rm alpine nosuchcmd"), 127, NO_COMMAND, help_for="run")
    assert cli("run --rm alpine /etc/passwd").code == 126
    cli("run -d --name box alpine sleep 3600").ok()
    result = cli("exec box nosuchcmd")
    assert result.code == 127
    sentence = (
        'OCI runtime exec failed: exec failed: unable to start container process: exec: "nosuchcmd": '
        "executable file not found in $PATH"
    )
    assert sentence in result.out + result.err
    assert cli("exec box /etc/passwd").code == 126
    cli.refuses(cli("exec nosuchctr true"), 1, "Error response from daemon: No such container: nosuchctr")


def test_failed_start_leaves_a_created_container(cli: CommandLine) -> None:
    result = cli("run -d --name errx --network nosuchnet alpine sleep 10")
    sentence = "Error response from daemon: failed to set up container networking: network nosuchnet not found"
    cli.refuses(result, 125, sentence, help_for="run", out=result.out.strip())
    assert len(result.out.strip()) == 64
    assert cli("ps -a --filter name=errx --format", "{{.Names}} {{.Status}}").ok() == "errx Created"
    assert cli("rm -f errx").ok() == "errx"


def test_unknown_things_in_dockers_words(cli: CommandLine) -> None:
    daemon = "Error response from daemon: "
    for command in (
        "stop nosuch",
        "rm nosuch",
        "start nosuch",
        "kill nosuch",
        "logs nosuch",
        "rename nosuch x",
        "top nosuch",
    ):
        result = cli(command)
        assert result.code == 1, result
        assert "No such container: nosuch" in result.err, result
    cli.refuses(cli("stop nosuch"), 1, daemon + "No such container: nosuch")
    cli.refuses(cli("rm nosuch"), 1, daemon + "No such container: nosuch")
    result = cli("inspect nosuch")
    assert (result.code, result.out.strip()) == (1, "[]")
    assert "No such object: nosuch" in result.err
    result = cli("run --rm nosuchimage true")
    assert result.code == 125
    assert "Unable to find image 'nosuchimage:latest' locally" in result.err


def test_many_names_and_one_is_wrong(cli: CommandLine) -> None:
    for name in ("aa", "bb"):
        cli(f"run -d --name {name} alpine sleep 3600").ok()
    result = cli("stop -t 0 aa nosuch bb")
    assert (result.code, result.out.split()) == (1, ["aa", "bb"])
    assert "No such container: nosuch" in result.err
    result = cli("rm aa nosuch bb")
    assert (result.code, result.out.split()) == (1, ["aa", "bb"])


def test_names(cli: CommandLine) -> None:
    identity = cli("run -d --name web alpine sleep 3600").ok()
    sentence = (
        f'Error response from daemon: Conflict. The container name "/web" is already in use by container "{identity}". '
        "You have to remove (or rename) that container to be able to reuse that name."
    )
    cli.refuses(cli("run -d --name web alpine sleep 10"), 125, sentence, help_for="run")
    sentence = "Error response from daemon: Invalid container name (x), only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed"
    cli.refuses(cli("run --rm --name x alpine true"), 125, sentence, help_for="run")
    sentence = 'Error response from daemon: cannot remove container "web": container is running: '
    result = cli("rm web")
    assert result.code == 1
    assert sentence + "stop the container before removing or force remove" in result.err or not cli.has_current_words
    cli("rename web front").ok()
    assert cli("ps --format {{.Names}}").ok() == "front"
    assert cli(f"inspect -f {{{{.Name}}}} {identity[:6]}").ok() == "/front"
    generated = cli("create alpine true").ok()
    assert "_" in cli("inspect -f {{.Name}}", generated).ok()


def test_flags_reach_the_process(cli: CommandLine, tmp_path: Path) -> None:
    env_file = tmp_path / "env"
    env_file.write_text("# a comment\nFROM_FILE=a b\nHOME_OF_CALLER\n")
    out = cli(
        f"run --rm -e ONE=1 -e EMPTY= --env-file {env_file} -w /tmp -u 65534:65534 -h box alpine sh -c",
        'echo "$ONE|$EMPTY|$FROM_FILE|$HOME_OF_CALLER|$(pwd)|$(id -u):$(id -g)|$(hostname)|$PATH"',
        env={"HOME_OF_CALLER": "here"},
    ).ok()
    path = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
    assert out == f"1||a b|here|/tmp|65534:65534|box|{path}"
    assert cli("run --rm --entrypoint echo alpine one two").ok() == "one two"
    assert cli("run --rm -u nobody alpine id -un").ok() == "nobody"
    result = cli("run --rm -u nosuchuser alpine true")
    assert result.code in (125, 126)
    assert "nosuchuser" in result.err
    assert cli("run --rm -w /made/on/demand alpine pwd").ok() == "/made/on/demand"


def test_file_systems(cli: CommandLine, tmp_path: Path) -> None:
    assert cli("run --rm --read-only alpine touch /x").code == 1
    assert (
        cli("run --rm --read-only --tmpfs /scratch:size=1m alpine sh -c", "touch /scratch/x && ls /scratch").ok() == "x"
    )
    source = tmp_path / "data"
    source.mkdir()
    (source / "file").write_text("from the host\n")
    assert cli(f"run --rm -v {source}:/data:ro alpine cat /data/file").ok() == "from the host"
    assert cli(f"run --rm -v {source}:/data:ro alpine touch /data/x").code == 1
    cli(f"run --rm -v {source}:/data alpine sh -c", "echo inside > /data/back").ok()
    assert (source / "back").read_text() == "inside\n"
    # what one container writes, no other sees, and the image stays as it was
    cli("run --name writer alpine sh -c", "echo changed > /etc/motd; rm /bin/ed").ok()
    assert cli("run --rm alpine ls /bin/ed").ok() == "/bin/ed"
    cli("start writer").ok()
    cli("wait writer").ok()


def test_privileges_are_dockers(cli: CommandLine) -> None:
    def capabilities(flags: str) -> str:
        return cli(f"run --rm {flags} alpine grep CapEff /proc/self/status").ok().split()[1]

    assert capabilities("") == "00000000a80425fb"
    assert capabilities("--cap-drop ALL --cap-add NET_BIND_SERVICE") == "0000000000000400"
    assert capabilities("--cap-add NET_ADMIN") == "00000000a80435fb"
    assert int(capabilities("--privileged"), 16) > 0xFFFFFFFF
    assert cli("run --rm alpine grep -E", "^(NoNewPrivs|Seccomp):", "/proc/self/status").ok().split()[1::2] == [
        "0",
        "2",
    ]
    assert cli("run --rm --security-opt no-new-privileges alpine grep NoNewPrivs /proc/self/status").ok().endswith("1")
    assert cli("run --rm alpine sh -c", "cat /proc/timer_list /proc/keys 2>/dev/null").out == ""
    assert cli("run --rm alpine sh -c", "echo x > /proc/sys/kernel/domainname").code != 0
    assert cli("run --rm alpine unshare -U true").code != 0
    assert cli("run --rm alpine mount -t tmpfs x /tmp").code != 0


def test_stop_waits_and_then_kills(cli: CommandLine) -> None:
    cli("run -d --name stubborn alpine sh -c", "trap : TERM; while :; do sleep 0.1; done").ok()
    started = time.monotonic()
    assert cli("stop -t 1 stubborn").ok() == "stubborn"
    assert 1.0 <= time.monotonic() - started < 8
    assert cli("inspect -f {{.State.ExitCode}} stubborn").ok() == "137"
    cli("run -d --name polite alpine sh -c", "trap 'exit 7' TERM; while :; do sleep 0.1; done").ok()
    cli("exec polite true").ok()
    started = time.monotonic()
    cli("stop polite").ok()
    assert time.monotonic() - started < 8
    assert cli("inspect -f {{.State.ExitCode}} polite").ok() == "7"
    # nginx's image asks for SIGQUIT
    cli("run -d --name web nginx").ok()
    cli("exec web sh -c", "until curl -sf http://127.0.0.1 >/dev/null; do :; done").ok()
    cli("stop web").ok()
    assert cli("inspect -f {{.State.ExitCode}} web").ok() == "0"


def test_kill_sends_any_signal(cli: CommandLine) -> None:
    script = "trap 'echo got USR1' USR1; echo ready; while :; do sleep 0.1; done"
    cli("run -d --name box alpine sh -c", script).ok()
    follower = cli.start("logs -f box")
    assert follower.stdout is not None
    assert follower.stdout.readline() == b"ready\n"
    cli("kill -s USR1 box").ok()
    assert follower.stdout.readline() == b"got USR1\n"
    assert cli("kill -s NOSUCHSIGNAL box").code == 1
    cli("rm -f box").ok()
    follower.communicate(timeout=20)


def test_wait_restart_and_start_attached(cli: CommandLine) -> None:
    cli("create --name box alpine sh -c", "echo hello; exit 3").ok()
    result = cli("start -a box")
    assert (result.code, result.out) == (3, "hello\n")
    assert cli("wait box").ok() == "3"
    cli("run -d --name idle alpine sleep 3600").ok()
    before = cli("inspect -f {{.State.Pid}}", "idle").ok()
    assert cli("restart -t 0 idle").ok() == "idle"
    state = cli("inspect -f", "{{.State.Status}} {{.State.Pid}}", "idle").ok().split()
    assert state[0] == "running"
    assert state[1] != before
    assert cli("top idle").ok().splitlines()[0].split()[:2] == ["UID", "PID"]
    assert "sleep 3600" in cli("top idle").ok()
    assert cli("port idle").ok() == ""


def test_rm_flag_removes(cli: CommandLine) -> None:
    cli("run --rm --name gone alpine true").ok()
    assert cli("ps -aq").ok() == ""
    cli("run -d --rm --name gone alpine sleep 3600").ok()
    cli("stop -t 0 gone").ok()
    result = cli("wait gone")
    assert result.code in (0, 1)
    assert cli("ps -aq --filter name=gone").ok() == ""


def test_inspect_tells_what_was_asked(cli: CommandLine) -> None:
    cli("run -d --name box --label a=b -e X=1 alpine sleep 3600").ok()
    inspected = json.loads(cli("inspect box").ok())[0]
    assert inspected["Name"] == "/box"
    assert inspected["Path"] == "sleep"
    assert inspected["Args"] == ["3600"]
    assert inspected["Config"]["Labels"] == {"a": "b"}
    assert "X=1" in inspected["Config"]["Env"]
    assert inspected["Config"]["Image"] == "alpine"
    assert inspected["State"]["Running"] is True
    assert inspected["HostConfig"]["NetworkMode"] in ("bridge", "default")
    assert inspected["NetworkSettings"]["Networks"]["bridge"]["IPAddress"]


def test_what_comes_later_is_refused_by_name(cli: CommandLine) -> None:
    for flags, word in (
        ("--cpu-rt-period 5000", "ealtime"),
        ("--mount type=image,source=alpine,target=/x", "mage"),
    ):
        result = cli(f"run -d --name later {flags} alpine sleep 10")
        assert result.code == 125, result
        assert word in result.err, result
        assert cli("ps -aq --filter name=later").ok() == "", "a refused request makes nothing"
