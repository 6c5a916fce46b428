"""The namespace thread: it goes and comes back, and pins what it makes."""

from __future__ import annotations

import asyncio
import os
import threading
from pathlib import Path

import pytest

from tsunagu.kernel import netns
from tsunagu.kernel.netns import Worker
from tsunagu.model.errors import KernelFailure

pytestmark = pytest.mark.root

OWN = "/proc/thread-self/ns/net"


def test_pinned_namespace_is_another_one_and_outlives_the_thread(tmp_path: Path) -> None:
    pin = str(tmp_path / "pin")
    worker = Worker("test")
    host = os.stat(OWN).st_ino
    try:
        descriptor = worker.submit(worker.create, pin).result()
        made = os.fstat(descriptor).st_ino
        os.close(descriptor)
        assert made != host
        assert worker.submit(os.stat, OWN).result().st_ino == host  # back home
        worker.close()
        assert os.stat(pin).st_ino == made
    finally:
        netns.remove(pin)
    assert not os.path.exists(pin)
    netns.remove(pin)  # no error when it is gone


def test_inside_moves_that_thread_only_and_comes_back_after_an_error(tmp_path: Path) -> None:
    pin = str(tmp_path / "pin")
    worker = Worker("test")
    host = os.stat(OWN).st_ino

    def job() -> tuple[int, int]:
        descriptor = netns.open_pinned(pin)
        try:
            with worker.inside(descriptor):
                seen = os.stat(OWN).st_ino
                asked = threading.Thread(target=lambda: None)
                asked.start()
                asked.join()
                raise ValueError(seen)
        except ValueError as error:
            return error.args[0], os.stat(OWN).st_ino
        finally:
            os.close(descriptor)

    try:
        os.close(worker.submit(worker.create, pin).result())
        inside, after = worker.submit(job).result()
        assert inside == os.stat(pin).st_ino
        assert after == os.stat(OWN).st_ino == host
    finally:
        worker.close()
        netns.remove(pin)


def test_create_refuses_a_path_in_use_and_leaves_it_alone(tmp_path: Path) -> None:
    pin = tmp_path / "pin"
    pin.write_text("mine")
    worker = Worker("test")
    try:
        with pytest.raises(FileExistsError):
            worker.submit(worker.create, str(pin)).result()
        with pytest.raises(FileNotFoundError):
            worker.submit(worker.create, str(tmp_path / "no" / "pin")).result()
    finally:
        worker.close()
    assert pin.read_text() == "mine"


def test_open_pinned_refuses_what_is_no_namespace(tmp_path: Path) -> None:
    plain = tmp_path / "plain"
    plain.touch()
    worker = Worker("test")
    try:

        def enter() -> None:
            with worker.inside(netns.open_pinned(str(plain))):
                pass

        with pytest.raises(OSError, match="Invalid argument"):
            worker.submit(enter).result()
    finally:
        worker.close()


def test_a_thread_that_cannot_return_refuses_all_work(monkeypatch: pytest.MonkeyPatch) -> None:
    worker = Worker("test")

    def lost() -> None:
        with worker.inside(worker.host):
            worker._host = os.open("/dev/null", os.O_RDONLY)  # what setns cannot go back to

    try:
        with pytest.raises(KernelFailure, match="cannot return"):
            worker.submit(lost).result()
        with pytest.raises(KernelFailure, match="could not return"):
            worker.submit(int).result()
    finally:
        worker.close()


def test_jobs_run_in_order_and_a_cancelled_caller_stops_none_that_began() -> None:
    worker = Worker("test")
    done: list[int] = []
    began, may_end = threading.Event(), threading.Event()

    def slow() -> None:
        began.set()
        may_end.wait(5)
        done.append(1)

    async def body() -> None:
        first = asyncio.ensure_future(worker.run(slow))
        await asyncio.get_running_loop().run_in_executor(None, began.wait)
        second = asyncio.ensure_future(worker.run(done.append, 2))
        await asyncio.sleep(0)
        first.cancel()
        may_end.set()
        await second

    asyncio.run(body())
    worker.close()
    assert done == [1, 2]
