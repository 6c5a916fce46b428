"""Attach and exec against the real conmon and runc: nothing is lost, stdin closes when it should, terminals work."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from kernel.boxes import Boxes, Client, boxes
from tsunagu.kernel import cgroups
from tsunagu.kernel.runtime import RuntimeFailed
from tsunagu.model.errors import Conflict, NotFound
from tsunagu.services import logs, streams
from tsunagu.services.streams import AttachEnd

pytestmark = pytest.mark.root


def inside(scenario: Callable[[Boxes], Awaitable[None]]) -> None:
    async def whole() -> None:
        async with asyncio.timeout(120), boxes() as made:
            await scenario(made)

    asyncio.run(whole())


def attach(client: Client, connection: Any, **options: Any) -> asyncio.Task[AttachEnd]:
    settings: dict[str, Any] = {
        "is_multiplexed": True, "wants_stdin": True, "wants_stdout": True, "wants_stderr": True,
        "detach_keys": streams.DEFAULT_DETACH_KEYS, "closes_stdin": True,
    }  # fmt: skip
    return asyncio.ensure_future(streams.attach(client, connection, **{**settings, **options}))


# ---- attach


def test_attached_before_the_start_nothing_is_lost() -> None:
    async def scenario(b: Boxes) -> None:
        for number in range(5):
            process = await b.create("first", "sh", "-c", "echo out; echo err >&2")
            client, second = Client(), Client()
            tasks = [attach(c, await b.runtime.connect("first"), wants_stdin=False) for c in (client, second)]
            await b.runtime.start("first")
            assert await asyncio.gather(*tasks) == [AttachEnd.ENDED] * 2, number
            assert client.streams() == second.streams() == (b"out\n", b"err\n")
            assert (await b.runtime.wait(process, "first")).code == 0
            await b.runtime.delete("first")

    inside(scenario)


def test_thirty_clients_before_the_start() -> None:
    """More than conmon's backlog of ten."""

    async def scenario(b: Boxes) -> None:
        await b.create("crowd", "echo", "hello")
        clients = [Client() for _ in range(30)]
        connections = await asyncio.gather(*(b.runtime.connect("crowd") for _ in clients))
        tasks = [attach(c, k, wants_stdin=False) for c, k in zip(clients, connections, strict=True)]
        await b.runtime.start("crowd")
        assert set(await asyncio.gather(*tasks)) == {AttachEnd.ENDED}
        assert {c.streams()[0] for c in clients} == {b"hello\n"}

    inside(scenario)


def test_much_output_is_whole_for_the_client_and_in_the_log() -> None:
    async def scenario(b: Boxes) -> None:
        await b.create("much", "sh", "-c", "seq 200000")
        client = Client()
        task = attach(client, await b.runtime.connect("much"), wants_stdin=False)
        await b.runtime.start("much")
        assert await task is AttachEnd.ENDED
        expected = "".join(f"{n}\n" for n in range(1, 200_001)).encode()
        assert client.streams() == (expected, b"")
        logged = [data async for _, _, data in logs.read(b.log_path("much"))]
        assert b"".join(logged) == expected
        last = [data async for _, _, data in logs.read(b.log_path("much"), tail=2)]
        assert last == [b"199999\n", b"200000\n"]

    inside(scenario)


def test_stdin_until_half_close() -> None:
    """`cat file | docker run -i … wc -c`"""

    async def scenario(b: Boxes) -> None:
        process = await b.create("pipe", "sh", "-c", "wc -c; echo after", open_stdin=True, stdin_once=True)
        client = Client()
        task = attach(client, await b.runtime.connect("pipe"))
        await b.runtime.start("pipe")
        for _ in range(50):
            client.type(b"x" * 100_000)
        client.type(b"")
        assert await task is AttachEnd.ENDED
        assert client.streams()[0].split() == [b"5000000", b"after"]
        assert (await b.runtime.wait(process, "pipe")).code == 0

    inside(scenario)


def test_stdin_stays_open_without_stdin_once() -> None:
    async def scenario(b: Boxes) -> None:
        process = await b.create("keep", "cat", open_stdin=True)
        first = Client()
        task = attach(first, await b.runtime.connect("keep"), closes_stdin=False)
        await b.runtime.start("keep")
        first.type(b"one\n")
        await first.sees(b"one\n")
        first.type(b"")
        second = Client()
        other = attach(second, await b.runtime.connect("keep"), closes_stdin=False)
        second.type(b"two\n")
        await second.sees(b"two\n")
        await first.sees(b"two\n")  # everybody sees all output
        b.runtime.signal(process, signal.SIGKILL)
        assert await asyncio.gather(task, other) == [AttachEnd.ENDED] * 2

    inside(scenario)


def test_a_watcher_that_leaves_does_not_close_stdin() -> None:
    async def scenario(b: Boxes) -> None:
        await b.create("watch", "cat", open_stdin=True, stdin_once=True)
        owner, watcher = Client(), Client()
        task = attach(owner, await b.runtime.connect("watch"))
        other = attach(watcher, await b.runtime.connect("watch"), wants_stdin=False)
        await b.runtime.start("watch")
        owner.type(b"one\n")
        await watcher.sees(b"one\n")
        other.cancel()
        await asyncio.wait([other])
        owner.type(b"two\n")
        await owner.sees(b"two\n")
        owner.type(b"")
        assert await task is AttachEnd.ENDED

    inside(scenario)


def test_a_terminal_with_sizes_detach_and_attach_again() -> None:
    async def scenario(b: Boxes) -> None:
        process = await b.create("term", "sh", tty=True, open_stdin=True, stdin_once=True)
        client = Client()
        task = attach(client, await b.runtime.connect("term"), is_multiplexed=False)
        await b.runtime.resize("term", 30, 100)
        await b.runtime.start("term")
        client.type(b"stty size; tty\n")
        await client.sees(b"30 100\r\n/dev/pts/0")
        await b.runtime.resize("term", 24, 80)
        while b"24 80" not in client.received:  # conmon reads the fifo beside stdin: their order is open
            client.type(b"stty size\n")
            await client.sees(b"\r\n")
            await asyncio.sleep(0.02)
        client.type(b"echo typed\x10\x11")
        assert await task is AttachEnd.DETACHED
        again = Client()
        task = attach(again, await b.runtime.connect("term"), is_multiplexed=False)
        again.type(b" on; exit 9\n")
        assert await task is AttachEnd.ENDED
        assert b"typed on" in again.received
        assert (await b.runtime.wait(process, "term")).code == 9

    inside(scenario)


def test_ctrl_c_reaches_the_terminal() -> None:
    async def scenario(b: Boxes) -> None:
        script = "trap 'exit 42' INT; echo r; while :; do sleep 0.05; done"
        process = await b.create("int", "sh", "-c", script, tty=True, open_stdin=True)
        client = Client()
        task = attach(client, await b.runtime.connect("int"), is_multiplexed=False)
        await b.runtime.start("int")
        await client.sees(b"r\r\n")
        client.type(b"\x03")
        assert await task is AttachEnd.ENDED
        assert (await b.runtime.wait(process, "int")).code == 42

    inside(scenario)


def test_attach_and_resize_of_what_has_ended() -> None:
    async def scenario(b: Boxes) -> None:
        process = await b.start("gone", "true")
        await b.runtime.wait(process, "gone")
        assert await b.runtime.connect("gone") is None
        assert await b.runtime.connect("never") is None
        for name in ("gone", "never"):
            with pytest.raises(NotFound, match="does not run"):
                await b.runtime.resize(name, 10, 10)

    inside(scenario)


# ---- exec


def test_exec_output_exit_codes_and_surroundings() -> None:
    async def scenario(b: Boxes) -> None:
        await b.start("box", "sleep", "1000")
        assert await b.output(await b.exec("box", "e1", "sh", "-c", "echo o; echo e >&2; exit 4")) == (
            4,
            b"o\n",
            b"e\n",
        )
        assert await b.output(await b.exec("box", "e2", "true")) == (0, b"", b"")
        assert (await b.output(await b.exec("box", "e3", "sh", "-c", "kill -9 $$")))[0] == 137
        code, out, _ = await b.output(
            await b.exec(
                "box",
                "e4",
                "sh",
                "-c",
                "id -u; pwd; echo $A; grep -E 'Inh|Eff' /proc/self/status",
                user="app",
                working_dir="/tmp",
                env=("A=b",),
            )
        )
        lines = out.decode().split()
        assert code == 0
        assert lines[:3] == ["1000", "/tmp", "b"]
        assert lines[4] == lines[6] == "0" * 16
        many = await b.output(await b.exec("box", "e5", "sh", "-c", "seq 100000"))
        assert many == (0, "".join(f"{n}\n" for n in range(1, 100_001)).encode(), b"")

    inside(scenario)


def test_exec_of_what_cannot_run() -> None:
    async def scenario(b: Boxes) -> None:
        await b.start("box", "sleep", "1000")
        for command, code, words in (
            ("nosuchcmd", 127, 'exec: "nosuchcmd": executable file not found in $PATH'),
            ("/etc/passwd", 126, 'exec: "/etc/passwd": permission denied'),
        ):
            for tty in (False, True):
                with pytest.raises(RuntimeFailed) as caught:
                    await b.exec("box", f"bad{code}{tty}", command, tty=tty)
                assert caught.value.exit_code == code
                assert caught.value.message == (
                    f"OCI runtime exec failed: exec failed: unable to start container process: {words}"
                )

    inside(scenario)


def test_twenty_execs_at_once() -> None:
    async def scenario(b: Boxes) -> None:
        await b.start("box", "sleep", "1000")

        async def one(number: int) -> tuple[int, bytes, bytes]:
            return await b.output(await b.exec("box", f"x{number}", "sh", "-c", f"echo {number}; exit {number}"))

        results = await asyncio.gather(*(one(n) for n in range(20)))
        assert results == [(n, b"%d\n" % n, b"") for n in range(20)]

    inside(scenario)


def test_exec_with_stdin() -> None:
    async def scenario(b: Boxes) -> None:
        await b.start("box", "sleep", "1000")
        session = await b.exec("box", "in", "sh", "-c", "wc -c; echo after", has_stdin=True)
        client = Client()
        task = attach(client, session.connection)
        for _ in range(20):
            client.type(b"y" * 50_000)
        client.type(b"")
        assert await task is AttachEnd.ENDED
        assert await session.wait() == 0
        assert client.streams()[0].split() == [b"1000000", b"after"]

    inside(scenario)


def test_exec_in_a_terminal() -> None:
    async def scenario(b: Boxes) -> None:
        await b.start("box", "sleep", "1000")
        for number in range(5):
            session = await b.exec("box", f"quick{number}", "sh", "-c", "tty; exit 6", tty=True, has_stdin=True)
            client = Client()
            assert await attach(client, session.connection, is_multiplexed=False) is AttachEnd.ENDED
            assert (await session.wait(), bytes(client.received)) == (6, b"/dev/pts/0\r\n")
        session = await b.exec("box", "shell", "sh", tty=True, has_stdin=True, console_size=(33, 111))
        client = Client()
        task = attach(client, session.connection, is_multiplexed=False)
        client.type(b"stty size\n")
        await client.sees(b"33 111")
        await b.runtime.resize("shell", 20, 70)
        while b"20 70" not in client.received:
            client.type(b"stty size\n")
            await client.sees(b"\r\n")
            await asyncio.sleep(0.02)
        client.type(b"exit 3\n")
        assert await task is AttachEnd.ENDED
        assert await session.wait() == 3
        with pytest.raises(NotFound):
            await b.runtime.resize("shell", 20, 70)

    inside(scenario)


def test_a_detached_exec_runs_on_its_own() -> None:
    async def scenario(b: Boxes) -> None:
        await b.start("box", "sleep", "1000")
        session = await b.exec(
            "box", "alone", "sh", "-c", "seq 100000; echo done > /tmp/alone; exit 8", is_attached=False
        )
        assert session.connection is None
        async with asyncio.timeout(20):
            assert await session.wait() == 8

    inside(scenario)


@pytest.mark.parametrize("delay", [0.0, 0.004, 0.012, 0.02])
def test_a_cancelled_exec_is_undone(delay: float) -> None:
    async def scenario(b: Boxes) -> None:
        await b.start("box", "sleep", "1000")
        before = cgroups.pids(f"{b.instance.cgroup}/box")
        task = asyncio.ensure_future(b.exec("box", "cancel", "sleep", "1000"))
        await asyncio.sleep(delay)
        task.cancel()
        await asyncio.wait([task])
        if not task.cancelled():  # this machine is faster than the delay
            task.result().discard()
            return
        assert os.listdir(f"{b.instance.run_dir}/processes/box/execs") == []
        assert cgroups.pids(f"{b.instance.cgroup}/box") == before

    inside(scenario)


def test_the_container_ends_while_an_exec_runs() -> None:
    async def scenario(b: Boxes) -> None:
        process = await b.start("box", "sleep", "1000")
        session = await b.exec("box", "long", "sleep", "1000")
        output = asyncio.ensure_future(b.output(session))
        b.runtime.signal(process, signal.SIGKILL)
        assert (await b.runtime.wait(process, "box")).code == 137
        await b.runtime.delete("box")
        assert (await output)[0] == 137
        with pytest.raises(Conflict, match="container box is not running"):
            await b.exec("box", "late", "true")
        await b.runtime.delete("box")

    inside(scenario)
