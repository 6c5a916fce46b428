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
from collections.abc import Callable, Collection, Iterable, Sequence
from concurrent.futures import Future
from contextlib import suppress
from functools import partial
from typing import TypeVar

from tsunagu.model.checkup import Chain, LinkState, SandboxState
from tsunagu.model.errors import KernelFailure
from tsunagu.model.instance import Instance
from tsunagu.model.network import BridgePlan, InterfacePlan, PortPlan, PublishedPort, RoutePlan, SandboxPlan

from . import checkup, conntrack, firewall, link, netns, ports, probes, ruleset, sockets, sysctl
from .netlink import Socket
from .netns import Worker
from .probes import Surroundings
from .reaper import Reaper
from .sockets import ResolverSockets

__all__ = ["NetworkKernel", "ResolverSockets"]

T = TypeVar("T")

_DOOM_GROUP = 0xF4730000  # link group in which deletions are gathered, plus the instance's tag; ports have lower ones


_ATTEMPTS, _PAUSE = 50, 0.02  # seconds; how often and how long after each other an announcement is tried again


class NetworkKernel:
    """The kernel's networking for one instance.

    The network namespace of the thread that calls `open` is the host: every thread of ours begins there.
    """

    def __init__(self, instance: Instance) -> None:
        self._directory = os.path.join(instance.run_dir, "netns")
        self._mark = instance.nft_table  # alias of every link that we make
        self._netns = Worker("netns")
        self._rules = Worker("firewall")
        self._reaper = Reaper(self._mark, _DOOM_GROUP + int(instance.tag or "0", 16))
        self._host: Socket | None = None
        self._generations: ruleset.Generations | None = None
        self._watch: ruleset.Watch | None = None
        self._loop: asyncio.AbstractEventLoop | None = None  # while open

    async def open(self) -> None:
        """Start the threads. Raises KernelFailure when a netlink socket cannot be had."""
        os.makedirs(self._directory, mode=0o700, exist_ok=True)
        try:
            self._host = await self._netns.run(Socket)
            await self._reaper.open()
            self._generations = await self._rules.run(ruleset.Generations)
        except OSError as error:
            raise KernelFailure(f"no netlink socket: {error}", hint="the engine needs root (CAP_NET_ADMIN)") from error
        self._loop = asyncio.get_running_loop()
        # loading the library takes longer than what it does for one container
        await self._rules.run(firewall.backend)

    async def close(self) -> None:
        """Finish what was begun (deletions too) and end the threads. Networks and sandboxes stay."""
        self._loop = None
        loop = asyncio.get_running_loop()
        if self._watch is not None:
            loop.remove_reader(self._watch)
            self._watch.close()
            self._watch = None
        for end in (self._netns.close, self._reaper.close, self._rules.close):
            await loop.run_in_executor(None, end)
        if self._host is not None:
            self._host.close()
        if self._generations is not None:
            self._generations.close()

    @property
    def firewall_backend(self) -> str:
        """ "libnftables" or "nft": what carries the rules into the kernel."""
        return firewall.backend()

    # ---- bridges

    async def ensure_bridge(self, plan: BridgePlan) -> None:
        """Make a bridge exist, addressed and up; repairs one that is there. Raises KernelFailure."""
        if self._reaper.is_pending(plan.name):
            await self.settle()
        await self._run(f"bridge {plan.name}", link.ensure_bridge, self._nl, plan, self._mark)

    async def remove_bridge(self, name: str) -> None:
        """Remove a bridge that we made; no error when it is gone, none for one that somebody else made.

        Returns when the kernel has forgotten it. Raises KernelFailure.
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
        try:
            return await self._make(f"sandbox {plan.path}", names, self._build, plan)
        except asyncio.CancelledError:
            self._netns.submit(self._abandon, plan.path, names)
            raise

    async def add_interface(self, path: str, plan: InterfacePlan) -> None:
        """Attach a running sandbox to one more network. Raises KernelFailure and leaves nothing behind then."""
        await self._make(f"interface {plan.name}", [plan.host_name], self._attach, path, plan)

    async def remove_interface(self, path: str, host_name: str) -> None:
        """Detach a sandbox from a network; both ends are gone when this returns. No error when they were."""
        await self._run(f"interface {host_name}", link.silence, self._nl, [host_name])
        await self._delete([host_name])

    async def set_default_routes(self, path: str, routes: tuple[RoutePlan, ...]) -> None:
        """Make `routes` the default routes of the sandbox at `path`, at most one per family. Raises KernelFailure."""
        await self._run(f"routes of {path}", self._inside, path, _set_routes, routes)

    async def tear_down_sandbox(self, path: str, host_names: Sequence[str], *, waits: bool = True) -> None:
        """Remove a sandbox: unpin the namespace and delete its links. No error when they are gone.

        A millisecond after this began no packet leaves the sandbox or enters it any more, so its addresses may be given
        to others. With `waits` False it returns then, and the deletion (about 20 ms) goes on behind it: see `settle`.
        """
        await self._run(f"sandbox {path}", self._abandon, path, host_names)
        if waits:
            await self._delete(host_names)
        else:
            self._reaper.doom(host_names)

    async def settle(self) -> None:
        """Return when every deletion that was begun has ended."""
        await asyncio.wrap_future(self._reaper.doom(()))

    async def open_resolver(self, path: str) -> ResolverSockets:
        """Open new resolver sockets in a sandbox that runs already, in place of earlier ones. Raises KernelFailure."""
        job = partial(sockets.open_resolver, replaces=True)
        return await self._run(f"resolver in {path}", self._inside, path, job)

    async def open_sandbox_sockets(
        self, path: str, count: int, kind: int, family: int = socket.AF_INET, protocol: int = 0
    ) -> list[socket.socket]:
        """Open unbound, non-blocking sockets of `kind` inside the sandbox at `path`. Raises KernelFailure."""
        job = partial(sockets.open_plain, count, kind, family, protocol)
        return await self._run(f"sockets in {path}", self._inside, path, job)

    # ---- host

    async def apply_firewall(self, script: str) -> None:
        """Run an nft script in the host's namespace, as one transaction. Raises KernelFailure with nft's words."""
        if script:
            await self._rules.run(self._apply, script)

    async def list_firewall(self, *blocks: str) -> str:
        """Return what nft lists of `blocks` in the host's namespace, see `firewall.listing`. Raises KernelFailure."""
        return await self._rules.run(firewall.listing, *blocks)

    async def list_intended(self, script: str, *blocks: str) -> str:
        """Return what nft would list of `blocks` after `script` alone: it is tried where nobody is. Raises
        KernelFailure."""
        return await self._run("a trial of the rules", self._try_out, script, blocks)

    async def watch_firewall(self, told: Callable[[list[ruleset.Change]], None]) -> None:
        """Call `told` on the event loop whenever a transaction touched our tables, our own ones included.

        Raises KernelFailure.
        """
        try:
            self._watch = watch = await self._rules.run(ruleset.Watch, self._mark)
        except OSError as error:
            raise _failure("changes of the firewall cannot be watched", error) from error

        def read() -> None:
            if found := watch.read():
                told(found)

        asyncio.get_running_loop().add_reader(watch, read)

    def has_made(self, change: ruleset.Change) -> bool:
        """Tell whether a change was our own doing; ask while no script of ours is under way."""
        return self._generations is not None and self._generations.made(change)

    async def host_prefixes(self) -> tuple[str, ...]:
        """Return the prefixes that the host's routes and addresses use, as CIDR texts, sorted; our bridges' included.

        Default routes are left out, and halves of one (VPNs install 0.0.0.0/1).
        """
        return tuple(sorted(await self._run("routes", link.prefixes, self._nl)))

    async def default_mtu(self) -> int:
        """Return the MTU in bytes of the host's default route; 1500 without one."""
        return await self._run("routes", link.default_mtu, self._nl)

    async def surroundings(self) -> Surroundings:
        """Return the host's addresses, and which address families it forwards and has a default route for."""
        return await self._run("routes", probes.surroundings, self._nl)

    async def sandbox_mtus(self, path: str) -> dict[str, int]:
        """Return the packet size in bytes of every interface in the sandbox at `path`. Raises KernelFailure."""
        return await self._run(f"interfaces of {path}", self._inside, path, probes.mtus)

    async def repair_interfaces(self, plans: Sequence[InterfacePlan]) -> None:
        """Put host ends that were taken off their bridges on them again, up. Raises KernelFailure."""
        await self._run("interfaces", link.attach_ports, self._nl, plans)

    async def link_states(self) -> list[LinkState]:
        """Return every link of the host, with its bridge and addresses. Raises KernelFailure."""
        return await self._run("links", checkup.links, self._nl, self._mark)

    async def sandbox_state(self, path: str, pid: int) -> SandboxState:
        """Return what is pinned at `path`; `pid` is a process that should live there, or 0. Raises KernelFailure."""
        try:
            addresses = await self._netns.run(self._inside, path, checkup.inside)
        except OSError as error:
            if error.errno in (errno.ENOENT, errno.EINVAL):  # no file, or nothing is mounted on it
                return SandboxState(is_there=False)
            raise _failure(f"sandbox {path}", error) from error
        return checkup.sandbox(path, pid, addresses)

    async def settings(self, paths: Iterable[str]) -> dict[str, str]:
        """Return network settings of the host by path below /proc/sys; unknown ones are left out."""
        return await self._run("settings", checkup.settings, list(paths))

    async def legacy_chains(self) -> list[Chain]:
        """Return the forward chains that nft does not list. Runs a program where there are any."""
        return await asyncio.to_thread(checkup.legacy_chains)

    async def list_links(self) -> set[str]:
        """Return the names of the bridges and host ends that this instance made and that exist."""
        found = await self._run("links", link.links, self._nl)
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
        written = [await self._run(f"sysctl {name}", sysctl.ensure, name, "1") for name in names]
        return any(written)

    async def reserve_ports(self, plans: Iterable[PortPlan], held: Collection[PublishedPort] = ()) -> ports.Holdings:
        """Take ports of the host, all or none, as long as the sockets in the answer live; see `ports.reserve`.

        Raises PortTaken (a KernelFailure).
        """
        return await self._run("ports", ports.reserve, plans, held)

    async def forget_flows(self, published: Iterable[PublishedPort]) -> None:
        """Have UDP senders to these ports of the host judged anew, by the rules now in force. Raises KernelFailure."""
        if udp := {(port.family, port.host_port) for port in published if port.protocol == "udp"}:
            await self._run("connection tracking", self._forget_udp, udp)

    async def forget_entered(self, prefixes: Iterable[str]) -> int:
        """Have connections into `prefixes`, but those from inside the same prefix and from the host, judged anew by the
        rules now in force; returns how many. Raises KernelFailure."""
        own = {address for _, address, _, _ in await self._run("addresses", link.addresses, self._nl)}
        try:  # on a thread of its own: a busy host has a hundred thousand
            return await asyncio.to_thread(conntrack.forget_entered, prefixes, own)
        except OSError as error:
            raise _failure("connection tracking", error) from error

    # ---- jobs: run on the namespace thread

    def _apply(self, script: str) -> None:
        if self._generations is None:
            raise KernelFailure("the network kernel is not open")
        self._generations.begin()
        firewall.apply(script)
        self._generations.end()

    def _try_out(self, script: str, blocks: Sequence[str]) -> str:
        with self._netns.elsewhere():
            firewall.apply(script)
            return firewall.listing(*blocks)

    def _forget_udp(self, udp: set[tuple[int, int]]) -> None:
        conntrack.forget_udp(udp, {address for _, address, _, _ in link.addresses(self._nl)})

    @property
    def _nl(self) -> Socket:
        if self._host is None:
            raise KernelFailure("the network kernel is not open")
        return self._host

    def _build(self, plan: SandboxPlan) -> ResolverSockets | None:
        names = [interface.host_name for interface in plan.interfaces]
        namespace = self._netns.create(plan.path)
        try:
            link.create_veths(self._nl, plan.interfaces, namespace, self._mark)
            with self._netns.inside(namespace), Socket() as inner:
                link.configure_inner(inner, plan.interfaces, with_loopback=True)
                if plan.routes:
                    link.set_default_routes(inner, plan.routes)
                for name, value in plan.sysctls.items():
                    sysctl.write(sysctl.check_name(name), value)
                made = sockets.open_resolver() if plan.has_resolver else None
                is_announced = link.announce(inner, plan.interfaces)
            if not is_announced:
                self._announce_later(plan.path, plan.interfaces)
            self._repeat(plan.path, plan.interfaces)
            return made
        except BaseException:
            self._abandon(plan.path, names)
            raise
        finally:
            os.close(namespace)

    def _attach(self, path: str, plan: InterfacePlan) -> None:
        namespace = netns.open_pinned(path)
        try:
            link.create_veths(self._nl, [plan], namespace, self._mark)
            with self._netns.inside(namespace), Socket() as inner:
                link.configure_inner(inner, [plan], with_loopback=False)
                is_announced = link.announce(inner, [plan])
            if not is_announced:
                self._announce_later(path, [plan])
            self._repeat(path, [plan])
        finally:
            os.close(namespace)

    def _announce_later(self, path: str, plans: Sequence[InterfacePlan], attempts: int = _ATTEMPTS) -> None:
        """Announce again in a moment: kernels before 6.8 finish carrier work in their own time, milliseconds later."""
        if self._loop is not None and attempts:
            again = partial(self._netns.submit, self._announce, path, plans, attempts - 1)
            self._loop.call_soon_threadsafe(self._call_later, again)

    def _repeat(self, path: str, plans: Sequence[InterfacePlan]) -> None:
        """Announce each interface as often as its plan says, the first time not counted."""
        for plan in plans:
            for count in range(1, plan.announcements if self._loop is not None else 0):
                again = partial(self._netns.submit, self._announce, path, [plan], 0)
                assert self._loop is not None
                self._loop.call_soon_threadsafe(self._call_later, again, count * plan.announce_interval)

    def _call_later(self, job: Callable[[], object], pause: float = _PAUSE) -> None:
        if self._loop is not None:
            self._loop.call_later(pause, lambda: self._loop is not None and job())

    def _announce(self, path: str, plans: Sequence[InterfacePlan], attempts: int) -> None:
        with suppress(OSError):  # the sandbox may be gone by now, or its interface
            if not self._inside(path, _announce_inside, plans):
                self._announce_later(path, plans, attempts)

    def _inside(self, path: str, job: Callable[..., T], *args: object) -> T:
        namespace = netns.open_pinned(path)
        try:
            with self._netns.inside(namespace):
                return job(*args)
        finally:
            os.close(namespace)

    def _abandon(self, path: str, host_names: Sequence[str]) -> None:
        link.silence(self._nl, host_names)
        netns.remove(path)

    # ---- pieces

    async def _make(self, what: str, names: Sequence[str], job: Callable[..., T], *args: object) -> T:
        """Run a job that makes the links `names`; takes them away when it fails, or when the caller is cancelled.

        A link of such a name that a crash left over is replaced.
        """
        for attempt in (1, 2):
            future = self._netns.submit(job, *args)
            try:
                return await asyncio.wrap_future(future)
            except asyncio.CancelledError:
                future.add_done_callback(_close_sockets)
                # queued behind the job, which may be running
                self._netns.submit(self._reaper.doom, names)
                raise
            except (OSError, KernelFailure) as error:
                await self._delete(names)
                if isinstance(error, KernelFailure):
                    raise
                if error.errno != errno.EEXIST or attempt == 2:
                    raise _failure(what, error) from error
        raise AssertionError("unreachable")

    async def _delete(self, names: Sequence[str]) -> None:
        if not names:
            return
        try:
            await asyncio.wrap_future(self._reaper.doom(names))
        except OSError as error:
            raise _failure(f"cannot delete {', '.join(names)}", error) from error

    async def _run(self, what: str, job: Callable[..., T], *args: object) -> T:
        try:
            return await self._netns.run(job, *args)
        except OSError as error:
            raise _failure(what, error) from error


def _announce_inside(plans: Sequence[InterfacePlan]) -> bool:
    with Socket() as inner:
        return link.announce(inner, plans)


def _set_routes(routes: Sequence[RoutePlan]) -> None:
    with Socket() as inner:
        link.set_default_routes(inner, routes)


def _close_sockets(future: Future[T]) -> None:
    """Close what a job made for a caller who has gone."""
    with suppress(BaseException):
        if not future.cancelled() and isinstance(made := future.result(), ResolverSockets):
            made.close()


def _failure(what: str, error: OSError) -> KernelFailure:
    hint = "the engine needs root (CAP_NET_ADMIN and CAP_SYS_ADMIN)" if error.errno == errno.EPERM else ""
    return KernelFailure(f"{what}: {error}", hint=hint)
