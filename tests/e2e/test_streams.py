"""Standard streams: attach, exec, terminals, half-close, detach keys, window size, logs."""

from __future__ import annotations

import re
import subprocess

import pytest

from tsunagu.testing.commandline import CommandLine

pytestmark = pytest.mark.root


def test_stdout_and_stderr_are_kept_apart(cli: CommandLine) -> None:
    result = cli("run --rm alpine sh -c", "echo out; echo err >&2")
    assert (result.code, result.out, result.err) == (0, "out\n", "err\n")
    cli("run -d --name box alpine sleep 3600").ok()
    result = cli("exec box sh -c", "echo out; echo err >&2; exit 5")
    assert (result.code, result.out, result.err) == (5, "out\n", "err\n")


def test_stdin_ends_when_the_callers_does(cli: CommandLine) -> None:
    assert cli("run --rm -i alpine cat", stdin=b"one\ntwo").out == "one\ntwo"
    assert cli("run --rm -i alpine wc -c", stdin=b"x" * 300_000).out.strip() == "300000"
    cli("run -d --name box alpine sleep 3600").ok()
    assert cli("exec -i box cat", stdin=b"three\n").out == "three\n"
    # the process goes on after the end of its input, and what it still says arrives
    assert cli("exec -i box sh -c", "cat >/dev/null; echo after", stdin=b"x").out == "after\n"
    # without -i nothing is read
    assert cli("run --rm alpine cat", stdin=b"not for you").out == ""


@pytest.mark.parametrize("size", [1_000_000])
def test_much_output_arrives_whole(cli: CommandLine, size: int) -> None:
    result = cli("run --rm alpine sh -c", f"yes | head -c {size}")
    assert len(result.out) == size
    cli("run -d --name box alpine sleep 3600").ok()
    assert len(cli("exec box sh -c", f"yes | head -c {size}").out) == size


def test_terminal_of_run(cli: CommandLine) -> None:
    with cli.terminal("run --rm -it alpine sh", rows=33, columns=101) as terminal:
        terminal.expect(r"/ # ")
        terminal.send("tty; stty size\r")
        terminal.expect(r"/dev/pts/0\r\n33 101\r\n")
        terminal.resize(44, 111)
        terminal.send("until stty size | grep 44; do :; done\r")
        terminal.expect(r"44 111\r\n")
        terminal.send("sh -c 'echo sta''rted; sleep 1000'\r")
        terminal.expect("started")
        terminal.send("\x03")
        terminal.expect(r"/ # ")
        terminal.send("echo code $?\r")
        terminal.expect(r"code 130\r\n")
        terminal.send("exit 9\r")
        assert terminal.wait() == 9


def test_terminal_of_exec(cli: CommandLine) -> None:
    cli("run -d --name box alpine sleep 3600").ok()
    with cli.terminal("exec -it box sh", rows=20, columns=77) as terminal:
        terminal.expect(r"/ # ")
        terminal.send("stty size\r")
        terminal.expect(r"20 77\r\n")
        terminal.send("\x04")
        assert terminal.wait() == 0
    result = cli("exec -t box echo hello")
    assert result.out == "hello\r\n" or "not a TTY" in result.err


def test_detach_and_attach_again(cli: CommandLine) -> None:
    cli("run -dit --name box alpine sh").ok()
    with cli.terminal("attach box") as terminal:
        terminal.send("echo first$((1+1))\r")
        terminal.expect(r"first2\r\n")
        terminal.send("\x10\x11")
        terminal.wait()
    assert cli("inspect -f {{.State.Running}} box").ok() == "true"
    with cli.terminal("attach --detach-keys ctrl-x box") as terminal:
        terminal.send("echo second$((1+1))\r")
        terminal.expect(r"second2\r\n")
        terminal.send("\x18")
        terminal.wait()
    assert cli("inspect -f {{.State.Running}} box").ok() == "true"
    with cli.terminal("attach box") as terminal:
        terminal.send("exit 6\r")
        assert terminal.wait() == 6


def test_signal_reaches_the_attached_container(cli: CommandLine) -> None:
    process = cli.start(
        "run --rm --name box alpine sh -c", "trap 'echo stopping; exit 4' TERM; echo up; while :; do sleep 0.1; done"
    )
    assert process.stdout is not None
    assert process.stdout.readline() == b"up\n"
    process.terminate()
    out, _ = process.communicate(timeout=30)
    assert (process.returncode, out) == (4, b"stopping\n")


def test_exec_in_the_background_and_environment(cli: CommandLine) -> None:
    cli("run -d --name box -e BASE=1 alpine sleep 3600").ok()
    cli("exec -d box sh -c", "echo done > /tmp/mark").ok()
    assert cli("exec box sh -c", "until cat /tmp/mark 2>/dev/null; do :; done").ok() == "done"
    out = cli("exec -e MORE=2 -w /tmp -u nobody box sh -c", 'echo "$BASE $MORE $(pwd) $(id -un)"').ok()
    assert out == "1 2 /tmp nobody"
    cli("stop -t 0 box").ok()
    result = cli("exec box true")
    assert result.code == 1
    assert "is not running" in result.err


def test_logs(cli: CommandLine) -> None:
    cli("run --name box alpine sh -c", "for i in 1 2 3; do echo out$i; usleep 50000; done; echo err >&2")
    result = cli("logs box")
    assert (result.out, result.err) == ("out1\nout2\nout3\n", "err\n")
    assert cli("logs --tail 1 box").err + cli("logs --tail 1 box").out == "err\n"
    stamped = cli("logs -t box").out.splitlines()
    assert all(re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{9}Z out\d", line) for line in stamped), stamped
    assert cli("logs --since 1h box").out == "out1\nout2\nout3\n"
    assert cli("logs --until 1h box").out == ""
    second = stamped[1].split()[0]
    assert cli(f"logs --since {second} box").out == "out2\nout3\n"
    assert cli("logs --tail 0 box").out == ""


def test_logs_follow_to_the_end(cli: CommandLine) -> None:
    cli("create -i --name box alpine cat").ok()
    writer = cli.start("start -ai box")
    cli.shell("until docker inspect -f '{{.State.Running}}' box | grep -q true; do :; done").ok()
    follower = cli.start("logs -f box")
    assert writer.stdin is not None
    assert follower.stdout is not None
    for word in (b"one\n", b"two\n"):
        writer.stdin.write(word)
        writer.stdin.flush()
        assert follower.stdout.readline() == word
    writer.stdin.close()
    out, _ = follower.communicate(timeout=30)
    assert (follower.returncode, out) == (0, b"")
    writer.wait(timeout=30)
    assert writer.stdout is not None
    writer.stdout.close()
    assert writer.stderr is not None
    writer.stderr.close()


def test_two_clients_attached_see_the_same(cli: CommandLine) -> None:
    cli("run -d -i --name box alpine sh").ok()
    readers = [cli.start("attach --no-stdin box") for _ in range(2)]
    writer = subprocess.Popen(
        [cli.program, "attach", "box"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=cli.environment
    )
    assert writer.stdin is not None
    assert writer.stdout is not None
    # said until each reader has been heard to be attached: an attach shows nothing of the past
    writer.stdin.write(b"while [ ! -e /stop ]; do echo tick; sleep 0.05; done; echo last; exit\n")
    writer.stdin.flush()
    for reader in readers:
        assert reader.stdout is not None
        assert reader.stdout.readline() == b"tick\n"
    cli("exec box touch /stop")  # may be killed with its container, which ends at once
    writer.stdin.close()
    for reader in readers:
        out, _ = reader.communicate(timeout=30)
        assert out.splitlines()[-1] == b"last"
    assert writer.stdout.read().splitlines()[-1] == b"last"
    writer.wait(timeout=30)
    writer.stdout.close()
