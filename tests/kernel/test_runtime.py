"""kernel.runtime against the real conmon and runc: start, end, signals, exit codes, clean-up, engine restarts."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from kernel.boxes import Boxes, boxes
from tsunagu.kernel import cgroups, conmon
from tsunagu.kernel.runtime import Runtime, RuntimeFailed
from tsunagu.model.process import Process
from tsunagu.services import logs

pytestmark = pytest.mark.root


def inside(scenario: Callable[[Boxes], Awaitable[None]], directory: str | None = None) -> None:
    async def whole() -> None:
        async with asyncio.timeout(120), boxes(directory) as made:
            await scenario(made)

    asyncio.run(whole())


async def status(b: Boxes, name: str) -> str:
    """Return what the runtime itself says of a container."""
    program = [b.runtime.detect().path, "--root", f"{b.instance.run_dir}/runtime", "state", name]
    output = await asyncio.to_thread(subprocess.check_output, program)
    return str(json.loads(output)["status"])


# ---- start and end


def test_output_and_exit_codes() -> None:
    async def scenario(b: Boxes) -> None:
        result, output = await b.run("one", "sh", "-c", "echo out; echo err >&2; exit 3")
        assert (result.code, result.is_oom_killed) == (3, False)
        assert sorted(output.split()) == ["err", "out"]
        for code in (0, 1, 125, 126, 127, 255):
            assert (await b.run(f"c{code}", "sh", "-c", f"exit {code}"))[0].code == code

    inside(scenario)


def test_signals() -> None:
    async def scenario(b: Boxes) -> None:
        trap = "trap 'exit 7' USR1; echo ready; while :; do sleep 0.05; done"
        process = await b.start("trap", "sh", "-c", trap)
        assert b.runtime.is_alive(process)
        async for _ in logs.read(b.log_path("trap"), ended=asyncio.Event()):
            break  # it is ready
        b.runtime.signal(process, signal.SIGUSR1)
        assert (await b.runtime.wait(process, "trap")).code == 7
        assert not b.runtime.is_alive(process)
        b.runtime.signal(process, signal.SIGKILL)  # no error: it has ended
        process = await b.start("sleep", "sleep", "1000")
        b.runtime.signal(process, signal.SIGKILL)
        assert (await b.runtime.wait(process, "sleep")).code == 137

    inside(scenario)


def test_nothing_runs_before_start() -> None:
    async def scenario(b: Boxes) -> None:
        process = await b.create("late", "echo", "hi")
        assert b.runtime.is_alive(process)
        assert await status(b, "late") == "created"
        assert Path(b.log_path("late")).read_text() == ""
        await b.runtime.start("late")
        assert (await b.runtime.wait(process, "late")).code == 0
        assert b.log("late") == "hi"

    inside(scenario)


def test_the_runtime_agrees_that_it_runs() -> None:
    async def scenario(b: Boxes) -> None:
        await b.start("run", "sleep", "1000")
        assert await status(b, "run") == "running"

    inside(scenario)


def test_start_of_what_was_killed_fails() -> None:
    async def scenario(b: Boxes) -> None:
        process = await b.create("dead", "true")
        b.runtime.signal(process, signal.SIGKILL)
        await b.runtime.wait(process, "dead")
        with pytest.raises(RuntimeFailed, match="ended before it was started"):
            await b.runtime.start("dead")

    inside(scenario)


@pytest.mark.parametrize(
    ("command", "code", "words"),
    [
        ("nosuchcmd", 127, 'exec: "nosuchcmd": executable file not found in $PATH'),
        ("/nosuch/file", 127, 'exec: "/nosuch/file": stat /nosuch/file: no such file or directory'),
        ("/etc/passwd", 126, 'exec: "/etc/passwd": permission denied'),
    ],
)
def test_a_program_that_cannot_run(command: str, code: int, words: str) -> None:
    async def scenario(b: Boxes) -> None:
        with pytest.raises(RuntimeFailed) as caught:
            await b.create("bad", command)
        assert caught.value.exit_code == code
        assert caught.value.message == (
            "failed to create task for container: failed to create shim task: OCI runtime create failed: runc create "
            f"failed: unable to start container process: error during container init: {words}"
        )
        await b.runtime.delete("bad")
        assert b.leftovers() == []

    inside(scenario)


def test_the_same_name_starts_again_and_again() -> None:
    async def scenario(b: Boxes) -> None:
        for number in range(5):
            process = await b.start("again", "sh", "-c", f"exit {number}")
            assert (await b.runtime.wait(process, "again")).code == number
            if number % 2:
                await b.runtime.delete("again")

    inside(scenario)


def test_thirty_at_once() -> None:
    async def scenario(b: Boxes) -> None:
        async def one(number: int) -> int:
            return (await b.run(f"many{number}", "sh", "-c", f"echo {number}; exit {number}"))[0].code

        assert await asyncio.gather(*(one(n) for n in range(30))) == list(range(30))
        assert all(b.log(f"many{n}") == str(n) for n in range(30))
        assert b.leftovers() == []

    inside(scenario)


def test_out_of_memory_is_told() -> None:
    async def scenario(b: Boxes) -> None:
        limit = {"resources": {"memory": {"limit": 16 << 20, "swap": 16 << 20}}}
        script = "x=x; while :; do x=$x$x; done"
        result, _ = await b.run("oom", "sh", "-c", script, changes=limit)
        assert result.is_oom_killed
        assert result.code == 137

    inside(scenario)


# ---- what the process gets


def test_docker_defaults_hold_inside() -> None:
    async def scenario(b: Boxes) -> None:
        script = (
            "grep -E '^(CapInh|CapEff|CapBnd|Seccomp|Groups):' /proc/self/status; ls /proc/self/fd | wc -l; env; "
            "echo 1 > /proc/sys/kernel/panic; grep -E ' cgroup2? ' /proc/mounts; mount -t tmpfs x /tmp; "
            "ls -l /proc/self/fd 2>&1; hostname"
        )
        _, output = await b.run("inner", "sh", "-c", script, env=("A=b",))
        assert "CapInh:\t0000000000000000" in output
        assert "CapEff:\t00000000a80425fb" in output
        assert "CapBnd:\t00000000a80425fb" in output
        assert "Seccomp:\t2" in output
        assert re.search(r"^Groups:\s*0 *$", output, re.M)
        assert "HOME=/root" in output and "HOSTNAME=inner" in output and "A=b" in output
        assert "can't create /proc/sys/kernel/panic: Read-only file system" in output
        assert set(re.findall(r" cgroup2? (r[ow]),", output)) == {"ro"}
        assert "mount: permission denied" in output or "Operation not permitted" in output
        # 0, 1, 2 and the directory that ls itself had open: nothing of the host (CVE-2024-21626)
        assert set(re.findall(r" (\d+) -> |/fd/(\d+): cannot read link", output)) == {
            ("0", ""), ("1", ""), ("2", ""), ("", "3"),
        }  # fmt: skip
        assert "inner" in output.splitlines()  # its errors, another pipe, may be read after it

    inside(scenario)


def test_a_user_has_its_groups_and_no_capabilities() -> None:
    async def scenario(b: Boxes) -> None:
        _, output = await b.run(
            "user", "sh", "-c", "id; grep CapEff /proc/self/status", user="app", host={"group_add": ("7",)}
        )
        assert "uid=1000(app) gid=1000(app) groups=7,29(audio),1000(app)" in output
        assert "CapEff:\t0000000000000000" in output

    inside(scenario)


def test_privileged_and_read_only_and_tmpfs(tmp_path: Path) -> None:
    async def scenario(b: Boxes) -> None:
        _, output = await b.run(
            "priv", "sh", "-c", "grep Seccomp: /proc/self/status; ls /dev/kmsg; grep -c ' /sys sysfs rw' /proc/mounts",
            host={"privileged": True},
        )  # fmt: skip
        assert "Seccomp:\t0" in output
        assert output.endswith("/dev/kmsg\n1")
        (tmp_path / "file").write_text("from the host")
        _, output = await b.run(
            "ro", "sh", "-c", "touch /x; cat /data/file; touch /data/y; grep ' /scratch ' /proc/mounts",
            host={"readonly_rootfs": True, "tmpfs": {"/scratch": "size=1m"}, "binds": (f"{tmp_path}:/data:ro",)},
        )  # fmt: skip
        assert "/x: Read-only file system" in output
        assert "from the host" in output
        assert "/data/y: Read-only file system" in output
        assert re.search(r"tmpfs /scratch tmpfs rw,nosuid,nodev,noexec.*size=1024k", output)

    # runc makes mount points that are missing in the root
    inside(scenario)


# ---- clean-up


def test_delete_of_a_running_container_leaves_nothing() -> None:
    async def scenario(b: Boxes) -> None:
        process = await b.start("del", "sh", "-c", "sleep 1000 & sleep 1000")
        assert cgroups.pids(f"{b.instance.cgroup}/del")
        await b.runtime.delete("del")
        assert not b.runtime.is_alive(process)
        assert b.leftovers() == []
        await b.runtime.delete("del")  # no error when gone
        assert b.runtime.known() == set()

    inside(scenario)


def test_delete_with_the_pid_namespace_of_the_host() -> None:
    """The end of the first process then does not end the others."""

    async def scenario(b: Boxes) -> None:
        process = await b.start("hostpid", "sh", "-c", "sleep 1000 & exit 0", host={"pid_mode": "host"})
        assert (await b.runtime.wait(process, "hostpid")).code == 0
        assert cgroups.pids(f"{b.instance.cgroup}/hostpid")
        await b.runtime.delete("hostpid")
        assert b.leftovers() == []

    inside(scenario)


@pytest.mark.parametrize("delay", [0.0, 0.005, 0.015, 0.03, 0.06])
def test_a_cancelled_create_can_be_deleted(delay: float) -> None:
    async def scenario(b: Boxes) -> None:
        task = asyncio.ensure_future(b.create("cancel", "sleep", "1000"))
        await asyncio.sleep(delay)
        task.cancel()
        await asyncio.wait([task])
        await b.runtime.delete("cancel")
        assert b.leftovers() == []

    inside(scenario)


def test_no_file_descriptor_leaks() -> None:
    async def scenario(b: Boxes) -> None:
        await b.run("warm", "true")
        before = len(os.listdir("/proc/self/fd"))
        for number in range(3):
            await b.run(f"fd{number}", "true")
            with pytest.raises(RuntimeFailed):
                await b.create(f"bad{number}", "nosuch")
            await b.runtime.delete(f"bad{number}")
        assert len(os.listdir("/proc/self/fd")) == before

    inside(scenario)


def test_a_long_run_directory() -> None:
    """Unix socket paths end at 107 bytes; directories do not."""
    directory = os.path.join(tempfile.mkdtemp(prefix="tsunagu-box-"), *["d" * 60] * 4)
    os.makedirs(directory)

    async def scenario(b: Boxes) -> None:
        result, output = await b.run("long", "tty", tty=True)
        assert (result.code, output) == (0, "/dev/pts/0")
        connection_of = await b.start("long", "sleep", "1000")
        connection = await b.runtime.connect("long")
        assert connection is not None
        connection.close()
        assert b.runtime.is_alive(connection_of)

    try:
        inside(scenario, directory)
    finally:
        os.removedirs(os.path.dirname(directory))


# ---- the engine goes, containers stay

_STARTER = """
import asyncio, os, signal, sys
sys.path[:0] = sys.argv[1:3]
from kernel.boxes import Boxes
import msgspec
async def main():
    b = Boxes(sys.argv[3])
    process = await b.start("stay", "sh", "-c", sys.argv[4])
    print(msgspec.json.encode(process).decode(), flush=True)
    os.killpg(0, signal.SIGKILL)
asyncio.run(main())
"""


def _start_and_die(directory: str, script: str) -> Process:
    import msgspec

    here = os.path.join(os.path.dirname(__file__), "..")
    source = os.path.join(here, "..", "src")
    done = subprocess.run(
        [sys.executable, "-c", _STARTER, here, source, directory, script],
        stdout=subprocess.PIPE, start_new_session=True, check=False, timeout=60,
    )  # fmt: skip
    assert done.returncode == -signal.SIGKILL
    return msgspec.json.decode(done.stdout, type=Process)


def _adopt(directory: str) -> Boxes:
    made = object.__new__(Boxes)
    made.directory = directory
    from tsunagu.model.instance import Instance

    made.instance = Instance(root=f"{directory}/root", run_dir=f"{directory}/run", socket=f"{directory}/sock")
    made.runtime = Runtime(made.instance)
    return made


@pytest.mark.parametrize("has_ended", [False, True])
def test_killing_the_engine_stops_nothing(has_ended: bool) -> None:
    async def scenario() -> None:
        with tempfile.TemporaryDirectory(prefix="tsunagu-box-") as directory:
            script = "exit 5" if has_ended else "while [ ! -e /tmp/go ]; do sleep 0.02; done; echo done; exit 5"
            process = await asyncio.to_thread(_start_and_die, directory, script)
            b = _adopt(directory)
            try:
                assert b.runtime.known() == {"stay"}
                if not has_ended:
                    assert b.runtime.is_alive(process)
                    Path(f"{directory}/rootfs/tmp/go").touch()
                async with asyncio.timeout(20):
                    assert (await b.runtime.wait(process, "stay")).code == 5
                    assert (await b.runtime.wait(process, "stay")).code == 5  # and once more, after its end
            finally:
                await b.runtime.delete("stay")
                assert b.leftovers() == []
                b.runtime.remove_parent_cgroup()

    asyncio.run(scenario())


def test_a_killed_conmon_is_no_end_of_the_container() -> None:
    async def scenario(b: Boxes) -> None:
        process = await b.start("orphan", "sleep", "1000")
        assert conmon.send_signal(process.conmon_pid, process.conmon_started, signal.SIGKILL)
        waiting = asyncio.ensure_future(b.runtime.wait(process, "orphan"))
        pidfd = conmon.open_process(process.conmon_pid, process.conmon_started)
        if pidfd is not None:
            await conmon.readable(pidfd)
            os.close(pidfd)
        done, _ = await asyncio.wait([waiting], timeout=0.2)
        assert not done and b.runtime.is_alive(process)
        b.runtime.signal(process, signal.SIGKILL)
        async with asyncio.timeout(10):
            assert (await waiting).code == 255  # documented: nobody can know it
        await b.runtime.delete("orphan")
        assert b.leftovers() == []

    inside(scenario)


def test_a_reused_pid_is_never_touched() -> None:
    async def scenario(b: Boxes) -> None:
        victim = await asyncio.create_subprocess_exec("sleep", "1000")
        try:
            stale = Process(pid=victim.pid, pid_started=1, conmon_pid=victim.pid, conmon_started=1)
            b.runtime.signal(stale, signal.SIGKILL)
            assert not b.runtime.is_alive(stale)
            async with asyncio.timeout(5):
                assert (await b.runtime.wait(stale, "never")).code == 255
            # a process directory of an earlier boot whose conmon pid is somebody else's now
            directory = f"{b.instance.run_dir}/processes/stale"
            os.makedirs(directory)
            Path(f"{directory}/conmon.pid").write_text(str(victim.pid))
            Path(f"{directory}/process.json").write_text("{}")
            await b.runtime.delete("stale")
            assert victim.returncode is None
        finally:
            victim.kill()
            await victim.wait()

    inside(scenario)


def test_the_same_pid_under_another_name_is_refused() -> None:
    async def scenario(b: Boxes) -> None:
        for name in ("../x", "", "a/b", "x\0"):
            with pytest.raises(Exception, match="invalid id"):
                await b.runtime.delete(name)

    inside(scenario)


def test_detect() -> None:
    async def scenario(b: Boxes) -> None:
        info = b.runtime.detect()
        assert info.name in ("runc", "crun")
        assert re.match(r"\d+\.\d+", info.version)
        assert re.match(r"2\.", info.conmon_version)

    inside(scenario)


# ---- freezing


def test_a_frozen_container_does_nothing_until_it_is_thawed() -> None:
    async def scenario(b: Boxes) -> None:
        process = await b.start("cold", "sh", "-c", "trap 'exit 7' USR1; echo ready; while :; do sleep 0.01; done")
        async for _ in logs.read(b.log_path("cold"), ended=asyncio.Event()):
            break  # it is ready: before, the signal would be nothing to the first process
        await b.runtime.freeze("cold")
        assert b.runtime.is_frozen("cold")
        assert await status(b, "cold") == "paused"
        b.runtime.signal(process, signal.SIGUSR1)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(b.runtime.wait(process, "cold"), 0.3)
        b.runtime.thaw("cold")
        assert not b.runtime.is_frozen("cold")
        assert (await b.runtime.wait(process, "cold")).code == 7
        b.runtime.thaw("cold")  # no error: it has ended

    inside(scenario)


def test_a_frozen_container_is_removed_whole() -> None:
    async def scenario(b: Boxes) -> None:
        process = await b.start("ice", "sleep", "1000")
        await b.runtime.freeze("ice")
        await asyncio.wait_for(b.runtime.delete("ice"), 5)
        assert not b.runtime.is_alive(process)
        assert b.leftovers() == []

    inside(scenario)
