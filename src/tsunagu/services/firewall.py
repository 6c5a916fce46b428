"""Our nft tables: always equal to the programme of the world that is about to be, sent as differences.

Operations that need a rule in force before they are recorded announce their event first; several may be under way at
once, so the rules follow the current world *and* every announced event. When somebody else flushes or edits our tables
the kernel says so, and the whole of them is put back. May import kernel, rules and wire. Must never read the tables
back to learn what we wanted.
"""

from __future__ import annotations

import asyncio
import logging
import time

import msgspec

from tsunagu.kernel.network import NetworkKernel
from tsunagu.kernel.ruleset import Change
from tsunagu.model.errors import KernelFailure
from tsunagu.model.world import EndpointsChanged, Event, NetworkRemoved, World, apply
from tsunagu.rules import policy
from tsunagu.wire import nft, nft_listing
from tsunagu.wire.nft_listing import Count

from .engine import Engine
from .tasks import spawn

log = logging.getLogger("tsunagu.firewall")
# Seconds from one restoration to the next: more and more for somebody who keeps at it, until he leaves us in peace.
_SHORTEST, _LONGEST, _PEACE = 0.02, 1.0, 10.0


class Disturbance(msgspec.Struct, frozen=True, kw_only=True):
    """Somebody else changed our tables, and they were put back. Times are in nanoseconds since the epoch, UTC."""

    count: int  # restorations since the engine started
    program: str  # that made the last change, "" when the kernel did not say
    pid: int
    at: int
    took: float  # seconds from the kernel's word to the whole table in force again


class Firewall:
    """The one writer of our tables."""

    def __init__(self, engine: Engine, kernel: NetworkKernel) -> None:
        self.last_disturbance: Disturbance | None = None
        self._noticed: list[Change] = []
        self._guard: asyncio.Task[None] | None = None
        self._pause = 0.0
        self._restored = 0.0  # when, by the monotonic clock
        self._is_withdrawn = False
        self._engine = engine
        self._kernel = kernel
        self._lock = asyncio.Lock()
        self._in_force: tuple[policy.Rule, ...] | None = None
        self._announced: list[Event] = []

    async def announce(self, event: Event) -> None:
        """Put the rules of the world after `event` in force, before it is committed. Raises KernelFailure.

        Call `settle` once it is committed, or `revoke` when it will not be.
        """
        self._announced.append(event)
        try:
            await self.sync()
        except BaseException:
            self._drop(event)
            raise

    def settle(self, event: Event) -> None:
        """Forget an announced event that has been committed: the rules stay as they are."""
        self._drop(event)

    async def revoke(self, event: Event) -> None:
        """Take the rules of an announced event back."""
        self._drop(event)
        await self.sync()

    async def sync(self) -> None:
        """Make the tables equal to the programme of the current world and what is announced, in one transaction.

        Only the difference to what we installed last is sent; when the kernel refuses it, somebody else changed the
        table, and the whole of it is replaced.
        """
        async with self._lock:
            self._is_withdrawn = False
            wanted = policy.programme(self._world())
            table = self._engine.instance.nft_table
            before, self._in_force = self._in_force, None
            if before is not None and (change := nft.update(before, wanted, table)):
                try:
                    await self._kernel.apply_firewall(change)
                except KernelFailure as error:
                    log.warning("nft table was changed by somebody else, replacing it: %s", error)
                    before = None
            if before is None:
                await self._kernel.apply_firewall(nft.script(wanted, table))
            self._in_force = wanted

    async def counters(self) -> dict[policy.Rule, Count]:
        """Return what each rule in force has decided since it was put there. Raises KernelFailure."""
        async with self._lock:
            rules, text = self._in_force or (), await self._kernel.list_firewall(*self._tables)
        return nft_listing.counters(rules, nft_listing.parse(text))

    async def counter(self, rule: policy.Rule) -> Count | None:
        """Return the same for one rule, reading its block only; None when it is not in force. Raises KernelFailure."""
        place = nft.place(rule)
        kind, name = place.block.split()
        async with self._lock:
            mates = [one for one in self._in_force or () if one.network == rule.network and one.hook is rule.hook]
            text = await self._kernel.list_firewall(f"{kind} {place.family} {self._engine.instance.nft_table} {name}")
        mates = [one for one in mates if nft.place(one).block == place.block]
        return nft_listing.counters(mates, nft_listing.parse(text)).get(rule)

    async def differences(self) -> list[str]:
        """Say what in the kernel is not as the world wants it, [] when all is. Raises KernelFailure.

        What is wanted is tried in a namespace of its own and listed there, so that two listings are compared.
        """
        async with self._lock:
            found = await self._kernel.list_firewall(*self._tables)
            wanted = nft.script(policy.programme(self._world()), self._engine.instance.nft_table)
        intended = await self._kernel.list_intended(wanted, *self._tables)
        return nft_listing.differences(nft_listing.parse(intended), nft_listing.parse(found))

    async def replace(self) -> None:
        """Put the whole of our tables in force again, whatever is there. Raises KernelFailure."""
        async with self._lock:
            await self._replace()

    @property
    def _tables(self) -> tuple[str, str]:
        name = self._engine.instance.nft_table
        return f"table inet {name}", f"table bridge {name}"

    async def watch(self) -> None:
        """Restore our tables, from now on, when somebody else changes them. Raises KernelFailure."""
        await self._kernel.watch_firewall(self._told)

    def _told(self, changes: list[Change]) -> None:
        if self._is_withdrawn:
            return
        self._noticed += changes
        if self._guard is None or self._guard.done():
            self._guard = spawn(self._restore(), name="firewall guard")

    async def _restore(self) -> None:
        """Put the whole table back for every change that was not ours, until there is none left."""
        while self._noticed:
            told = time.monotonic()
            async with self._lock:  # no transaction of ours is under way here, so it is known which ones were
                noticed, self._noticed = self._noticed, []
                foreign = [change for change in noticed if not self._kernel.has_made(change)]
                if not foreign or self._is_withdrawn:
                    continue
                try:
                    await self._replace()
                    self._record(foreign[-1], time.monotonic() - told)
                    await self._cut()
                except KernelFailure as error:
                    log.error("the firewall table cannot be restored, trying again error=%s", error)
                    self._noticed += foreign
            is_peace = told - self._restored > _PEACE
            self._restored = time.monotonic()
            self._pause = _SHORTEST if is_peace else min(_LONGEST, 2 * self._pause)
            await asyncio.sleep(self._pause)

    async def _replace(self) -> None:
        self._in_force = None
        wanted = policy.programme(self._world())
        await self._kernel.apply_firewall(nft.script(wanted, self._engine.instance.nft_table))
        self._in_force = wanted

    async def _cut(self) -> None:
        """Connections that began while there were no rules must not go on because they were established once."""
        prefixes = [s.subnet for n in self._engine.world.networks.values() if n.bridge for s in n.subnets]
        try:
            if cut := await self._kernel.forget_entered(prefixes):
                log.warning("connections into our networks are judged anew count=%s", cut)
        except KernelFailure as error:
            log.warning("connections that began meanwhile may go on error=%s", error)

    def _record(self, change: Change, took: float) -> None:
        count = 1 + (self.last_disturbance.count if self.last_disturbance else 0)
        self.last_disturbance = Disturbance(
            count=count, program=change.program, pid=change.pid, at=time.time_ns(), took=took
        )
        log.warning(
            "firewall table was changed by somebody else and is restored program=%s pid=%s took=%.1fms count=%s",
            change.program or "unknown", change.pid, took * 1000, count,
        )  # fmt: skip

    async def withdraw(self) -> None:
        """Remove our tables; `sync` makes them anew."""
        self._is_withdrawn = True
        await self._kernel.apply_firewall(nft.script((), self._engine.instance.nft_table))
        self._in_force = None

    def _world(self) -> World:
        world = self._engine.world
        for event in self._announced:
            if isinstance(event, EndpointsChanged) and event.container_id not in world.containers:
                continue
            if isinstance(event, NetworkRemoved) and event.network_id not in world.networks:
                continue
            world = apply(world, event)
        return world

    def _drop(self, event: Event) -> None:
        self._announced = [one for one in self._announced if one is not event]
