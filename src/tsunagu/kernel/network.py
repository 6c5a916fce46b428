"""`NetworkKernel`: what the services ask of the kernel for networks and sandboxes.

Every method is a coroutine whose work runs on a thread: `netns` (the only one that leaves the host's namespace; jobs of
a few milliseconds), `reaper` (deletions, which wait tens of milliseconds for RCU) and `firewall` (host rules). So one
slow deletion never holds up thirty containers that start.

May import `model` and its neighbours in `kernel`. Must never decide: plans come in, the kernel's state goes out.
"""

from __future__ import annotations

import asyncio
import errno
import os
import socket
from collections.abc import Sequence
from contextlib import suppress

from tsunagu.model.errors import KernelFailure
from tsunagu.model.instance import Instance
from tsunagu.model.network import BridgePlan, InterfacePlan, RoutePlan, SandboxPlan

from . import firewall, link, netns, sockets
from .netlink import NetlinkError, Socket
from .netns import Worker
from .sockets import ResolverSockets

__all__ = ["NetworkKernel", "ResolverSockets"]

_DOOM_GROUP = 0x74730000  # link group that deletions are gathered in, plus the instance's tag


class NetworkKernel:
    """The kernel's networking for one instance. Open it in the network namespace that is to be the host."""

    def __init__(self, instance: Instance) -> None:
        self._instance = instance
        self._directory = os.path.join(instance.run_dir, "netns")
        self._mark = instance.nft_table  # alias of every link that we make
        self._netns = Worker("netns")
        self._reaper = Worker("reaper")
        self._rules = Worker("firewall")
        self._host: Socket | None = None
        self._reaper_host: Socket | None = None
        self._doomed: set[str] = set()
        self._failed: dict[str, OSError] = {}

    async def open(self) -> None:
        """Start the threads. Raises KernelFailure when a netlink socket cannot be had."""
        os.makedirs(self._directory, mode=0o700, exist_ok=True)
        try:
            self._host = await self._netns.run(Socket)
            self._reaper_host = await self._reaper.run(Socket)
        except OSError as error:
            raise KernelFailure(f"no netlink socket: {error}", hint="the engine needs root (CAP_NET_ADMIN)") from error

    async def close(self) -> None:
        """Finish what was begun (deletions too) and end the threads. Networks and sandboxes stay."""
        loop = asyncio.get_running_loop()
        for worker in (self._netns, self._reaper, self._rules):
            await loop.run_in_executor(None, worker.close)
        for one in (self._host, self._reaper_host):
            if one is not None:
                one.close()

    # ---- bridges

    async def ensure_bridge(self, plan: BridgePlan) -> None:
        """Make a bridge exist, addressed and up; repairs one that is there. Raises KernelFailure."""
        if plan.name in self._doomed:
            await self.settle()
        await self._run(f"bridge {plan.name}", lambda: link.ensure_bridge(self._nl, plan, self._mark))

    async def remove_bridge(self, name: str) -> None:
        """Remove a bridge that we made; no error when it is gone, none for one that somebody else made.

        Returns when the kernel has forgotten it.
        """
        await self._delete([name])

    # ---- sandboxes

    async def set_up_sandbox(self, plan: SandboxPlan) -> ResolverSockets | None:
        """Make the namespace of `plan`, pinned at its path, with everything in it; leftovers of a crash are replaced.

        Returns the resolver's sockets when `plan.has_resolver`. Raises KernelFailure and leaves nothing behind then;
        the same when the caller is cancelled.
        """
        names = [interface.host_name for interface in plan.interfaces]
        if os.path.lexists(plan.path):
            await self.tear_down_sandbox(plan.path, names)
        future = self._netns.submit(self._build, plan)
        try:
            return await asyncio.wrap_future(future)
        except asyncio.CancelledError:
            # the job may be running: what it made is taken away behind it, in the same queue
            self._netns.submit(self._abandon, plan.path, names)
            self._doomed.update(names)
            self._reaper.submit(self._reap)
            with suppress(Exception):
                if future.done() and not future.cancelled() and (made := future.result()) is not None:
                    made.close()
            raise
        except NetlinkError as error:
            await self._delete(names)
            if error.errno != errno.EEXIST:
                raise _failure(f"sandbox {plan.path}", error) from error
        except OSError as error:
            await self._delete(names)
            raise _failure(f"sandbox {plan.path}", error) from error
        except KernelFailure:
            await self._delete(names)
            raise
        # a veth of that name was left over by a crash: it is gone now
        return await self._run(f"sandbox {plan.path}", lambda: self._build(plan))

    async def add_interface(self, path: str, plan: InterfacePlan) -> None:
        """Attach a running sandbox to one more network. Raises KernelFailure and leaves nothing behind then."""
        try:
            await self._run(f"interface {plan.name}", lambda: self._attach(path, [plan]))
        except KernelFailure:
            await self._delete([plan.host_name])
            raise

    async def remove_interface(self, path: str, host_name: str) -> None:
        """Detach a sandbox from a network; both ends are gone when this returns. No error when they were."""
        await self._run(f"interface {host_name}", lambda: link.silence(self._nl, [host_name]))
        await self._delete([host_name])

    async def set_default_routes(self, path: str, routes: tuple[RoutePlan, ...]) -> None:
        """Make `routes` the default routes of the sandbox at `path`, at most one per family. Raises KernelFailure."""
        await self._run(f"routes of {path}", lambda: self._route(path, routes))

    async def tear_down_sandbox(self, path: str, host_names: Sequence[str], *, waits: bool = True) -> None:
        """Remove a sandbox: unpin the namespace and delete its links. No error when they are gone.

        From the moment this begins no packet leaves the sandbox any more, so its addresses may be given to others. With
        `waits` False it returns then and the deletion (about 20 ms) goes on behind it: see `settle`.
        """
        await self._run(f"sandbox {path}", lambda: self._abandon(path, host_names))
        if waits:
            await self._delete(host_names)
        else:
            self._doomed.update(host_names)
            self._reaper.submit(self._reap)

    async def settle(self) -> None:
        """Return when every deletion that was begun has ended."""
        await self._reaper.run(self._reap)

    async def open_sandbox_sockets(self, path: str, count: int, kind: int) -> list[socket.socket]:
        """Open unbound, non-blocking IPv4 sockets inside the sandbox at `path`. Raises KernelFailure."""
        return await self._run(f"sockets in {path}", lambda: self._inside(path, sockets.open_plain, count, kind))

    # ---- host

    async def apply_firewall(self, script: str) -> None:
        """Run an nft script in the host's namespace, as one transaction. Raises KernelFailure with nft's words."""
        await self._rules.run(firewall.apply, script)

    async def host_prefixes(self) -> tuple[str, ...]:
        """Return the prefixes that the host's routes and addresses use, as CIDR texts, sorted; our bridges' included.

        Default routes are left out, and halves of one (VPNs install 0.0.0.0/1).
        """
        return tuple(sorted(await self._run("routes", lambda: link.prefixes(self._nl))))

    async def default_mtu(self) -> int:
        """Return the MTU in bytes of the host's default route; 1500 without one."""
        return await self._run("routes", lambda: link.default_mtu(self._nl))

    async def list_links(self) -> set[str]:
        """Return the names of the bridges and host ends that this instance made and that exist."""
        found = await self._run("links", lambda: link.links(self._nl))
        return {one.name for one in found if one.alias == self._mark}

    async def list_sandboxes(self) -> set[str]:
        """Return the paths under run_dir/netns, pinned or left over."""
        return {entry.path for entry in os.scandir(self._directory)}

    async def enable_forwarding(self, *, ipv6: bool = False) -> bool:
        """Let the host forward IPv4, with `ipv6` also IPv6; True when something had to be changed.

        With IPv6 forwarding on, the host's own interfaces ignore router advertisements unless their accept_ra is 2
        (kernel, ip-sysctl). So ask for it only when a network has IPv6, as Docker does.
        """
        names = ["net/ipv4/ip_forward"] + (["net/ipv6/conf/all/forwarding"] if ipv6 else [])
        return await self._run("forwarding", lambda: any([link.ensure_sysctl(name, "1") for name in names]))

    # ---- jobs: run on a thread

    @property
    def _nl(self) -> Socket:
        if self._host is None:
            raise KernelFailure("the network kernel is not open")
        return self._host

    def _build(self, plan: SandboxPlan) -> ResolverSockets | None:
        namespace = self._netns.create(plan.path)
        try:
            if plan.interfaces:
                link.create_veths(self._nl, plan.interfaces, namespace, self._mark)
            with self._netns.inside(namespace), Socket() as inner:
                link.configure_inner(inner, plan.interfaces, with_loopback=True)
                if plan.routes:
                    link.set_default_routes(inner, plan.routes)
                for name, value in plan.sysctls.items():
                    link.write_sysctl(name.replace(".", "/"), value)
                made = sockets.open_resolver() if plan.has_resolver else None
                link.announce(inner, plan.interfaces)
                return made
        except BaseException:
            self._abandon(plan.path, [interface.host_name for interface in plan.interfaces])
            raise
        finally:
            os.close(namespace)

    def _attach(self, path: str, plans: Sequence[InterfacePlan]) -> None:
        namespace = netns.open_pinned(path)
        try:
            link.create_veths(self._nl, plans, namespace, self._mark)
            with self._netns.inside(namespace), Socket() as inner:
                link.configure_inner(inner, plans, with_loopback=False)
                link.announce(inner, plans)
        finally:
            os.close(namespace)

    def _route(self, path: str, routes: Sequence[RoutePlan]) -> None:
        namespace = netns.open_pinned(path)
        try:
            with self._netns.inside(namespace), Socket() as inner:
                link.set_default_routes(inner, routes)
        finally:
            os.close(namespace)

    def _inside(self, path: str, job, *args):  # type: ignore[no-untyped-def]
        namespace = netns.open_pinned(path)
        try:
            with self._netns.inside(namespace):
                return job(*args)
        finally:
            os.close(namespace)

    def _abandon(self, path: str, host_names: Sequence[str]) -> None:
        link.silence(self._nl, host_names)
        netns.remove(path)

    def _reap(self) -> None:
        names, self._doomed = self._doomed, set()
        if not names or self._reaper_host is None:
            return
        with suppress(OSError):
            link.delete(self._reaper_host, sorted(names))

    # ---- pieces

    async def _delete(self, names: Sequence[str]) -> None:
        self._doomed.update(names)
        await self._reaper.run(self._reap)

    async def _run(self, what, job):  # type: ignore[no-untyped-def]
        try:
            return await self._netns.run(job)
        except OSError as error:
            raise _failure(what, error) from error


def _failure(what: str, error: OSError) -> KernelFailure:
    hint = "the engine needs root (CAP_NET_ADMIN and CAP_SYS_ADMIN)" if error.errno == errno.EPERM else ""
    return KernelFailure(f"{what}: {error}", hint=hint)
