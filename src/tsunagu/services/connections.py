"""Attach containers to networks and detach them, running or not (`network connect`, `network disconnect`)."""

from __future__ import annotations

from contextlib import AsyncExitStack

from msgspec.structs import replace

from tsunagu.kernel.network import NetworkKernel
from tsunagu.model.container import Container
from tsunagu.model.errors import EngineError, Forbidden, InvalidParameter, NotFound, NotSupported
from tsunagu.model.network import Endpoint, EndpointConfig, Network
from tsunagu.model.world import EndpointsChanged, World, apply
from tsunagu.rules import endpoint_options, gateways, modes, names, spec
from tsunagu.rules.sandboxes import joins, owner_of

from . import attachments
from .bundles import Bundles
from .engine import Engine
from .lifecycle import Lifecycle
from .resolver import Resolver


class Connections:
    def __init__(
        self, engine: Engine, kernel: NetworkKernel, lifecycle: Lifecycle, bundles: Bundles, resolver: Resolver
    ) -> None:
        self._engine = engine
        self._kernel = kernel
        self._lifecycle = lifecycle
        self._bundles = bundles
        self._resolver = resolver

    async def connect(self, word: str, container_word: str, config: EndpointConfig) -> None:
        """Attach a container to one more network; a running one gets the interface and the names at once."""
        network = self._engine.world.network(word)
        container = self._engine.world.container(container_word)
        async with self._engine.lock(container.id):
            world = self._engine.world
            network, container = world.network(network.id), world.container(container.id)
            config = self._check(world, network, container, replace(config, network=network.name))
            if self._lifecycle.sandboxes.is_kept(container):
                with self._engine.joining([network.id]):
                    await self._join(world, network, container, config)
            else:
                endpoint = Endpoint(config=config, network_id=network.id, network_name=network.name)
                self._engine.commit(EndpointsChanged(container.id, (*container.endpoints, endpoint)))
                for address in (config.ipv4, config.ipv6):
                    if address and address not in self._lifecycle.leases.on(network.id):
                        self._lifecycle.leases.take(network.id, address, container.id)
        self._lifecycle.sandboxes.tell_one("connect", container, network.id, network.name)
        await self._resolver.settle()

    async def disconnect(self, word: str, container_word: str, *, force: bool = False) -> None:
        """Detach a container: interface, names and routes go while it runs on.

        With `force` a container that is gone is no error.
        """
        network = self._engine.world.network(word)
        try:
            container = self._engine.world.container(container_word)
        except NotFound:
            if force:  # endpoints live inside containers: one that is gone has left nothing attached
                return
            raise
        async with self._engine.lock(container.id):
            world = self._engine.world
            container = world.container(container.id)
            if container.host.network_mode == "host" and network.driver == "host":
                raise InvalidParameter(
                    "cannot disconnect container from host network - container was created in host network mode"
                )
            if container.host.network_mode == "none" and network.driver == "null":
                raise NotSupported(
                    f"disconnecting {container.name} from network none is not supported",
                    hint="make it anew on the network it is to be on: run --network NETWORK",
                )
            endpoint = next((e for e in container.endpoints if _is_on(world, e, network)), None)
            if endpoint is None:
                raise Forbidden(f"container {container.id} is not connected to network {network.name}")
            rest = tuple(e for e in container.endpoints if e is not endpoint)
            future = apply(world, EndpointsChanged(container.id, rest))
            if self._lifecycle.sandboxes.is_kept(container):
                path = self._lifecycle.sandboxes.path(container.id)
                # Names go first, then the other default route comes, then the interface goes: nothing is lost.
                async with AsyncExitStack() as undo:
                    leaving = future.containers[container.id]
                    rest = await self._lifecycle.ports.publish(future, leaving, undo, is_strict=False)
                    self._engine.commit(EndpointsChanged(container.id, rest))
                    self._lifecycle.ports.settle(container.id)
                    undo.pop_all()
                await self._lifecycle.links.follow(container.id)
                await self._resolver.settle()
                after = future.containers[container.id]
                await self._kernel.set_default_routes(path, gateways.default_routes(future, after))
                await self._kernel.remove_interface(path, endpoint.host_ifname)
                self._bundles.write_hosts(future, after)
            else:
                self._engine.commit(EndpointsChanged(container.id, rest))
            self._lifecycle.leases.release(endpoint, container.id, keep_static=False)
        self._lifecycle.sandboxes.tell_one("disconnect", container, network.id, network.name)

    def _check(self, world: World, network: Network, container: Container, config: EndpointConfig) -> EndpointConfig:
        mode = container.host.network_mode
        if joins(container) or (mode == "host" and network.driver != "host"):
            owner = owner_of(world, container)
            raise InvalidParameter(
                modes.SHARED,
                hint=f"connect {owner.name} instead, whose sandbox it shares" if owner is not container else "",
            )
        if network.driver == "host" and mode != "host":
            raise InvalidParameter(
                "cannot connect container to host network - container must be created in host network mode"
            )
        if (mode == "none") != (network.driver == "null"):
            raise InvalidParameter(
                "container cannot be connected to multiple networks with one of the networks in private (none) mode"
            )
        is_there = network.driver in ("host", "null")  # by now: the container's own mode
        if is_there or any(_is_on(world, e, network) for e in container.endpoints):
            raise Forbidden(f"endpoint with name {container.name} already exists in network {network.name}")
        try:
            checked = spec.check_endpoint(world, config)
        except InvalidParameter as error:
            prefix = f"invalid config for network {network.name}: "
            raise InvalidParameter(error.message.removeprefix(prefix), hint=error.hint) from error
        endpoint_options.check_names([*(e.config for e in container.endpoints), checked])
        return checked

    async def _join(self, world: World, network: Network, container: Container, config: EndpointConfig) -> None:
        present = {e.ifname: e.network_name for e in container.endpoints}
        ifname = endpoint_options.next_name(config, attachments.prefix(network), present)
        leases, instance = self._lifecycle.leases, self._engine.instance
        try:
            endpoint = attachments.join(
                world, instance, leases, container, network, config, ifname, self._engine.new_id()
            )
        except EngineError as error:
            raise type(error)(error.message, hint=error.hint) from error
        endpoints = (*container.endpoints, endpoint)
        future = apply(world, EndpointsChanged(container.id, endpoints))
        after = future.containers[container.id]
        path = self._lifecycle.sandboxes.path(container.id)
        async with AsyncExitStack() as undo:
            undo.callback(leases.release, endpoint, container.id, keep_static=False)
            plan = attachments.interface_plan(future, endpoint, has_hairpin=attachments.publishes(container))
            await self._kernel.add_interface(path, plan)
            undo.push_async_callback(self._kernel.remove_interface, path, endpoint.host_ifname)
            undo.push_async_callback(self._kernel.set_default_routes, path, gateways.default_routes(world, container))
            await self._kernel.set_default_routes(path, gateways.default_routes(future, after))
            # the new network may be the first that ports can be published on, or the gateway from now on
            endpoints = await self._lifecycle.ports.publish(future, after, undo, is_strict=False)
            if names.needs_resolver(future, after) and not names.needs_resolver(world, container):
                await self._lifecycle.sandboxes.open_resolver(future, after)
                self._bundles.write_etc(future, after)
            else:
                self._bundles.write_hosts(future, after)
            self._engine.commit(EndpointsChanged(container.id, endpoints))
            self._lifecycle.ports.settle(container.id)
            undo.pop_all()
        await self._lifecycle.links.follow(container.id)


def _is_on(world: World, endpoint: Endpoint, network: Network) -> bool:
    if endpoint.network_id:
        return endpoint.network_id == network.id
    try:
        return world.network(endpoint.config.network).id == network.id
    except NotFound:
        return False
