"""What a container will be, from what the user asked and what the image says. Pure: no file, no clock, no kernel.

Follows the Docker daemon's merge rules (Engine API, `POST /containers/create`): the user's word wins, environment and
labels merge by key, a user's entry point discards the image's command.
"""

from __future__ import annotations

from collections.abc import Sequence
from ipaddress import ip_address, ip_network

from msgspec.structs import replace

from tsunagu.model.container import Config, HostConfig
from tsunagu.model.errors import Conflict, EngineError, InvalidParameter, NotFound, NotSupported
from tsunagu.model.ids import short
from tsunagu.model.image import Image
from tsunagu.model.network import EndpointConfig, Network
from tsunagu.model.world import World


def merge_config(config: Config, image: Image, identifier: str, host: HostConfig, host_name: str) -> Config:
    """Return `config` completed by the image's defaults.

    `host_name` is used with host networking, the short id otherwise, unless the user chose a name.
    Raises InvalidParameter when no command is left.
    """
    base = image.run
    cmd, entrypoint = config.cmd, config.entrypoint
    if entrypoint is None:
        entrypoint = _words(base.get("Entrypoint"))
        if not cmd:
            cmd = _words(base.get("Cmd"))
    if entrypoint == ("",):  # `--entrypoint ""` clears the image's
        entrypoint = None
    if not entrypoint and not cmd:
        raise InvalidParameter("no command specified", hint="give a command after the image name, or use --entrypoint")
    network = host.network_mode
    return replace(
        config,
        hostname=config.hostname or (host_name if network == "host" or host.uts_mode == "host" else short(identifier)),
        user=config.user or str(base.get("User") or ""),
        env=merge_env((*map(str, base.get("Env") or ()),), config.env),
        cmd=cmd,
        entrypoint=entrypoint,
        working_dir=config.working_dir or str(base.get("WorkingDir") or ""),
        exposed_ports={**(base.get("ExposedPorts") or {}), **config.exposed_ports},
        labels={**(base.get("Labels") or {}), **config.labels},
        stop_signal=config.stop_signal or str(base.get("StopSignal") or ""),
        volumes=config.volumes or base.get("Volumes"),
    )


def merge_env(image: Sequence[str], user: Sequence[str]) -> tuple[str, ...]:
    """Return the user's variables, then the image's that the user did not set (Docker's order)."""
    for item in user:
        if not item or item.startswith("="):
            raise InvalidParameter(f"invalid environment variable: {item}")
    keys = {item.partition("=")[0] for item in user}
    return (*user, *(item for item in image if item.partition("=")[0] not in keys))


def command(config: Config) -> tuple[str, tuple[str, ...]]:
    """Return argv[0] and the rest."""
    words = (*(config.entrypoint or ()), *(config.cmd or ()))
    return words[0], words[1:]


def check_name_free(world: World, name: str) -> None:
    """Raise Conflict in Docker's words, naming the holder, when a container has that name."""
    if holder := world.container_ids.get(name):
        raise Conflict(
            f'Conflict. The container name "/{name}" is already in use by container "{holder}". '
            "You have to remove (or rename) that container to be able to reuse that name."
        )


def plan_endpoints(
    world: World, host: HostConfig, config: Config, endpoints: Sequence[EndpointConfig]
) -> tuple[EndpointConfig, ...]:
    """Return the attachments a new container starts with, in declared order, after every refusal Docker makes."""
    mode = host.network_mode
    if mode.startswith("container:"):
        raise NotSupported(
            f"HostConfig.NetworkMode {mode} is not supported yet",
            hint="put both containers on one user-defined network",
        )
    if mode in ("host", "none"):
        others = [e.network for e in endpoints if e.network != mode]
        if others:
            raise InvalidParameter(
                f"container cannot be connected to multiple networks with one of the networks in private ({mode}) mode"
                if mode == "none"
                else "conflicting options: cannot attach both user-defined and non-user-defined network-modes"
            )
        if any(e.aliases or e.ipv4 or e.ipv6 or e.links for e in endpoints):
            raise _endpoint_error(
                mode, ["network-scoped alias is supported only for containers in user defined networks"]
            )
        if host.links:
            raise InvalidParameter("conflicting options: host type networking can't be used with links")
        return ()
    wanted = list(endpoints)
    primary = "bridge" if mode in ("", "default", "bridge") else mode
    if not any(_same(world, e.network, primary) for e in wanted):
        wanted.insert(0, EndpointConfig(network=primary))
    for endpoint in wanted:
        check_endpoint(world, endpoint)
    if host.links and primary == "bridge":
        raise NotSupported(
            "HostConfig.Links on the default bridge is not supported yet", hint="use a user-defined network"
        )
    if host.links:
        wanted = [replace(e, links=(*e.links, *host.links)) if _same(world, e.network, primary) else e for e in wanted]
    return tuple(wanted)


def check_endpoint(world: World, endpoint: EndpointConfig) -> None:
    """Refuse an attachment that can never work. A network that does not exist is found out at start, as Docker does."""
    try:
        network = world.network(endpoint.network)
    except NotFound:
        return
    problems = []
    if not network.has_names and (endpoint.aliases or endpoint.links):
        problems.append("network-scoped alias is supported only for containers in user defined networks")
    if network.driver in ("host", "null"):
        raise InvalidParameter(
            f"cannot connect container to {network.name} network - container must be created in {network.name} network mode"
        )
    if endpoint.driver_opts:
        raise NotSupported(f"endpoint option {next(iter(endpoint.driver_opts))} is not supported yet")
    for link in endpoint.links:
        target = link.partition(":")[0]
        try:
            world.container(target)
        except EngineError as error:
            raise InvalidParameter(f"could not get container for {target}: {error.message}") from error
    problems += _static_problems(network, endpoint)
    if problems:
        raise _endpoint_error(network.name, problems)


def _static_problems(network: Network, endpoint: EndpointConfig) -> list[str]:
    problems = []
    for text, family, flag in ((endpoint.ipv4, 4, "IPv4"), (endpoint.ipv6, 6, "IPv6")):
        if not text:
            continue
        try:
            address = ip_address(text)
        except ValueError:
            problems.append(f"invalid {flag} address: {text}")
            continue
        if address.version != family:
            problems.append(f"invalid {flag} address: {text}")
            continue
        subnet = network.subnet_of(family)
        if not network.has_user_subnet:
            problems.append(
                "user specified IP address is supported only when connecting to networks with user configured subnets"
            )
        elif subnet is None or address not in ip_network(subnet.subnet):
            problems.append(f"no configured subnet or ip-range contain the IP address {text}")
    return problems


def _endpoint_error(network: str, problems: list[str]) -> InvalidParameter:
    listed = "\n".join(problems)
    return InvalidParameter(f"invalid config for network {network}: invalid endpoint settings:\n{listed}")


def _same(world: World, one: str, other: str) -> bool:
    if one == other:
        return True
    try:
        return world.network(one).id == world.network(other).id
    except NotFound:
        return False


def _words(value: object) -> tuple[str, ...] | None:
    return tuple(map(str, value)) if isinstance(value, list | tuple) and value else None


def check_binds(binds: Sequence[str]) -> None:
    """Refuse binds that are malformed, and named volumes, by name. Form: `/host:/container[:options]`."""
    for bind in binds:
        parts = bind.split(":")
        if len(parts) not in (2, 3) or not parts[0] or not parts[1]:
            raise InvalidParameter(f"invalid volume specification: '{bind}'")
        if not parts[1].startswith("/"):
            raise InvalidParameter(
                f"invalid volume specification: '{bind}': invalid mount config for type \"bind\": "
                f"invalid mount path: '{parts[1]}' mount path must be absolute"
            )
        if parts[1].rstrip("/") == "":
            raise InvalidParameter(f"invalid volume specification: '{bind}': destination can't be '/'")
        if not parts[0].startswith("/"):
            raise NotSupported(
                f"named volumes are not supported yet: '{bind}'",
                hint="bind a host directory: -v /path/on/host:" + parts[1],
            )
