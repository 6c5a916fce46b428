"""What the host is like, as the rules want to know it. May import kernel and rules; must never change anything."""

from __future__ import annotations

from tsunagu.kernel.network import NetworkKernel
from tsunagu.rules.flows import Host


async def host_of(kernel: NetworkKernel) -> Host:
    """Return the facts about the host that reachability depends on, as they are now. Raises KernelFailure."""
    facts = await kernel.surroundings()
    return Host(
        addresses=facts.addresses, forwards=facts.forwards, outside=facts.outside,
        bridge_netfilter=facts.bridge_netfilter, uplink=facts.uplink,
    )  # fmt: skip
