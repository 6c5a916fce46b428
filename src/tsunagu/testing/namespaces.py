"""A throw-away host: run a test in a network namespace of its own that plays the host.

Every thread that begins inside inherits the namespace, the engine's threads included, so that code under test takes it
for the host: bridges, sysctls, nft tables and routes are its own, and vanish with the test. For tests only.
"""

from __future__ import annotations

import asyncio
import functools
import os
import shutil
import tempfile
import threading
from collections.abc import Callable, Coroutine
from typing import Any, ParamSpec

from tsunagu.kernel import link, netns, sysctl
from tsunagu.kernel.netlink import Socket
from tsunagu.model.instance import Instance

P = ParamSpec("P")


def on_private_host(test: Callable[P, Coroutine[Any, Any, None]]) -> Callable[P, None]:
    """Make a coroutine test run in a fresh host namespace, with an event loop of its own."""

    @functools.wraps(test)
    def run(*args: P.args, **kwargs: P.kwargs) -> None:
        failure: list[BaseException] = []

        def body() -> None:
            try:
                netns.leave_host()
                with Socket() as nl:
                    link.set_up(nl, "lo")
                # a new namespace inherits the real host's (net.core.devconf_inherit_init_net)
                sysctl.write("net/ipv4/ip_forward", "0")
                asyncio.run(test(*args, **kwargs))
            except BaseException as error:
                failure.append(error)

        thread = threading.Thread(target=body, name="private-host")
        thread.start()
        thread.join()
        if failure:
            raise failure[0]

    # pytest reads the arguments from the test itself
    return run


def private_instance() -> tuple[Instance, Callable[[], None]]:
    """Return an instance in a fresh directory, and what removes the directory and every namespace pinned in it."""
    directory = tempfile.mkdtemp(prefix="tsunagu-test-")
    instance = Instance(
        root=os.path.join(directory, "root"),
        run_dir=os.path.join(directory, "run"),
        socket=os.path.join(directory, "sock"),
    )

    def remove() -> None:
        pinned = os.path.join(instance.run_dir, "netns")
        if os.path.isdir(pinned):
            for name in os.listdir(pinned):
                netns.remove(os.path.join(pinned, name))
        shutil.rmtree(directory)

    return instance, remove
