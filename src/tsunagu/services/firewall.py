"""Our nft tables: always equal to the programme of the world that is about to be, sent as differences.

Operations that need a rule in force before they are recorded announce their event first; several may be under way at
once, so the rules follow the current world *and* every announced event. May import kernel, rules and wire. Must never
read the tables back to learn what we wanted.
"""

from __future__ import annotations

import asyncio
import logging

from tsunagu.kernel.network import NetworkKernel
from tsunagu.model.errors import KernelFailure
from tsunagu.model.world import EndpointsChanged, Event, NetworkRemoved, World, apply
from tsunagu.rules import policy
from tsunagu.wire import nft

from .engine import Engine

log = logging.getLogger("tsunagu.firewall")


class Firewall:
    """The one writer of our tables."""

    def __init__(self, engine: Engine, kernel: NetworkKernel) -> None:
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

    async def withdraw(self) -> None:
        """Remove our tables; `sync` makes them anew."""
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
