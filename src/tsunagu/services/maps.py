"""`tsunagu map`: the topology of the world as it is now. May import kernel and rules; must never change anything."""

from __future__ import annotations

from collections.abc import Sequence

from tsunagu.kernel.network import NetworkKernel
from tsunagu.rules.topology import Topology, topology

from .engine import Engine
from .surroundings import host_of


class Maps:
    """Answers `GET /tsunagu/map`."""

    def __init__(self, engine: Engine, kernel: NetworkKernel) -> None:
        self._engine = engine
        self._kernel = kernel

    async def survey(self, words: Sequence[str] = ()) -> Topology:
        """Return the whole map, or what the networks and containers named by `words` show. Raises NotFound."""
        return topology(self._engine.world, await host_of(self._kernel), words)
