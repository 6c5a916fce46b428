"""Fixtures for every kind of test: an engine of the session's own, both clients, the check that nothing is left."""

from __future__ import annotations

import contextlib
import os
import signal
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType

import pytest
from hypothesis import settings

from images import build
from tsunagu.testing import host
from tsunagu.testing.commandline import CommandLine, docker_program
from tsunagu.testing.engine import EngineProcess, tsunagu_program

# No deadline per example: on a shared machine it measures the neighbours.
settings.register_profile("shared", deadline=None)
# `make check` draws fewer random examples than `make test`, to be done in seconds.
settings.register_profile("quick", max_examples=25, deadline=None)
settings.load_profile("quick" if os.environ.get("TSUNAGU_QUICK") else "shared")

LONGEST_TEST_SECONDS = 180
IS_CI = bool(os.environ.get("CI"))
# Other people's engines work on this machine: what they make and leave is not this run's.
IS_SHARED_HOST = bool(os.environ.get("TSUNAGU_SHARED_HOST"))


def pytest_configure() -> None:
    """A run that is told to end (SIGTERM, as `timeout` and CI send it) still stops its engines and tidies up."""

    def end(_signum: int, _frame: FrameType | None) -> None:
        raise KeyboardInterrupt("told to end by SIGTERM")

    signal.signal(signal.SIGTERM, end)


def pytest_runtest_setup(item: pytest.Item) -> None:
    """A test that needs root says so: it fails on CI, where root is promised, and is skipped elsewhere."""
    if item.get_closest_marker("root") is not None and os.geteuid() != 0:
        refuse("this test needs root: it makes network namespaces, mounts and firewall rules")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Iterator[None]:
    """A test that waits for what never comes fails with where it stood, instead of holding up the whole run."""

    def too_long(_signum: int, _frame: FrameType | None) -> None:
        raise TimeoutError(f"{item.name} took more than {LONGEST_TEST_SECONDS} s")

    previous = signal.signal(signal.SIGALRM, too_long)
    signal.alarm(LONGEST_TEST_SECONDS)
    try:
        return (yield)
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, previous)


def refuse(sentence: str) -> None:
    """Fail on CI, skip elsewhere, with the same sentence."""
    if IS_CI:
        pytest.fail(sentence, pytrace=False)
    pytest.skip(sentence)


@pytest.fixture(scope="session", autouse=True)
def nothing_is_left_on_the_host(request: pytest.FixtureRequest) -> Iterator[None]:
    """After the last test the host has the links, tables, mounts, cgroups and processes of before the first."""
    is_root_run = any(item.get_closest_marker("root") is not None for item in request.session.items)
    if os.geteuid() != 0 or not is_root_run:
        yield
        return
    before = host.read()
    yield
    left = host.read().since(before)
    if left and IS_SHARED_HOST:
        warnings.warn("left on the host, maybe by others: " + "; ".join(left), stacklevel=1)
    elif left:
        pytest.fail("left on the host:\n" + "\n".join(left), pytrace=False)


@pytest.fixture(scope="session")
def images() -> Callable[[str], Path]:
    """Path of a test image's archive by name (`nginx`, `mysql_8`, `all`), built when it is missing."""
    return lambda name: build.ensure((name,))[name]


@pytest.fixture
def new_engine() -> Iterator[Callable[..., EngineProcess]]:
    """Makes engines for tests that stop or break one: each is started, and at the end must leave nothing behind."""
    with contextlib.ExitStack() as stack:

        def make(*arguments: str, **environment: str) -> EngineProcess:
            engine = EngineProcess(*arguments, environment=environment)
            stack.callback(_close, engine)
            engine.start()
            return engine

        yield make


@pytest.fixture(scope="session")
def engine(images: Callable[[str], Path]) -> Iterator[EngineProcess]:
    """The session's engine with every test image loaded; when it stops nothing may be left of it."""
    process = EngineProcess()
    try:
        process.start()
        process.load(images("all"))
        yield process
    finally:
        _close(process)


def _close(engine: EngineProcess) -> None:
    left = engine.close()
    if left:
        pytest.fail(f"the engine of {engine.directory} left behind:\n" + "\n".join(left), pytrace=False)


def command_line(name: str, engine: EngineProcess, home: Path) -> CommandLine:
    """The client `name` (docker or tsunagu) at `engine`."""
    try:
        program = docker_program() if name == "docker" else tsunagu_program()
    except RuntimeError as error:
        refuse(str(error))
        raise
    return CommandLine(name, program, engine.host, home)


@pytest.fixture
def client_of(tmp_path: Path) -> Callable[[str, EngineProcess], CommandLine]:
    """A client by name (docker or tsunagu) at any engine."""
    return lambda name, engine: command_line(name, engine, tmp_path)


@pytest.fixture
def docker(engine: EngineProcess, tmp_path: Path) -> CommandLine:
    """Docker's own client at the session's engine."""
    return command_line("docker", engine, tmp_path)


@pytest.fixture
def tsunagu(engine: EngineProcess, tmp_path: Path) -> CommandLine:
    """Our client at the session's engine."""
    return command_line("tsunagu", engine, tmp_path)


@pytest.fixture(params=["docker", "tsunagu"])
def cli(request: pytest.FixtureRequest, engine: EngineProcess, tmp_path: Path) -> Iterator[CommandLine]:
    """Both clients in turn at the session's engine, and nothing left in the engine after each test."""
    yield command_line(request.param, engine, tmp_path)
    refused = engine.remove_everything()
    assert not refused, refused
