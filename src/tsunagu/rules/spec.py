"""What a container will be, from what the user asked and what the image says. Pure: no file, no clock, no kernel.

Follows the Docker daemon's merge rules (Engine API, `POST /containers/create`): the user's word wins, environment and
labels merge by key, a user's entry point discards the image's command.
"""

from __future__ import annotations

from collections.abc import Sequence
from ipaddress import ip_address, ip_network

from msgspec.structs import replace

from tsunagu.model.container import Config, HostConfig
from tsunagu.model.errors import Conflict, EngineError, InvalidParameter, NotFound
from tsunagu.model.ids import short
from tsunagu.model.image import Image
from tsunagu.model.network import EndpointConfig, Network
from tsunagu.model.world import World

from . import endpoint_options, health, ipam
from .sandboxes import target_word


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
        volumes={**(config.volumes or {}), **(base.get("Volumes") or {})} or None,
        healthcheck=health.merge(base.get("Healthcheck"), config.healthcheck),
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
    if target_word(mode) is not None:
        return ()
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
        return ()
    wanted = list(endpoints)
    primary = "bridge" if mode in ("", "default", "bridge") else mode
    if not any(_same(world, e.network, primary) for e in wanted):
        wanted.insert(0, EndpointConfig(network=primary))
    if host.links and primary != "bridge":  # Docker's client says them twice; those of the default bridge: rules/links
        links = host.links
        wanted = [
            replace(e, links=(*dict.fromkeys((*e.links, *links)),)) if _same(world, e.network, primary) else e
            for e in wanted
        ]
    wanted = [check_endpoint(world, endpoint) for endpoint in wanted]
    endpoint_options.check_names(wanted)
    return tuple(wanted)


def check_endpoint(world: World, endpoint: EndpointConfig) -> EndpointConfig:
    """Refuse an attachment that can never work; return it with addresses in their canonical form, as leases compare
    them. A network that does not exist is found out at start, as Docker does."""
    endpoint = replace(
        endpoint,
        mac=ipam.check_mac(endpoint.mac) if endpoint.mac else "",
        ipv4=_canonical(endpoint.ipv4),
        ipv6=_canonical(endpoint.ipv6),
        link_local=tuple(_canonical(text) for text in endpoint.link_local),
    )
    problems = endpoint_options.problems(endpoint)
    try:
        network = world.network(endpoint.network)
    except NotFound:
        if problems:
            raise _endpoint_error(endpoint.network, problems) from None
        return endpoint
    if not network.has_names and (endpoint.aliases or endpoint.links):
        problems.append("network-scoped alias is supported only for containers in user defined networks")
    if network.driver == "host":
        raise InvalidParameter(
            "cannot connect container to host network - container must be created in host network mode"
        )
    if network.driver == "null":
        raise InvalidParameter(
            "container cannot be connected to multiple networks with one of the networks in private (none) mode"
        )
    for link in endpoint.links:
        target = link.partition(":")[0]
        try:
            world.container(target)
        except EngineError as error:
            raise InvalidParameter(f"could not get container for {target}: {error.message}") from error
    problems += _static_problems(network, endpoint)
    if problems:
        raise _endpoint_error(network.name, problems)
    return endpoint


def _canonical(text: str) -> str:
    """Return an address as the standard library writes it; other text as it is, for the complaint."""
    address = ipam.parse_address(text)
    return text if address is None else str(address)


def _static_problems(network: Network, endpoint: EndpointConfig) -> list[str]:
    problems = [
        f"invalid link-local IP address: {text}"
        for text in endpoint.link_local
        if (address := ipam.parse_address(text)) is None
        or not address.is_link_local
        or (address.version == 6 and not network.enable_ipv6)
    ]
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


HOST_NAME_LIMIT = 64  # bytes, the kernel's __NEW_UTS_LEN
WORD_LIMIT = 255  # characters of one word in resolv.conf, and of a user's name
PATH_LIMIT = 4096  # bytes, the kernel's PATH_MAX with its NUL


def check_words(config: Config, host: HostConfig) -> None:
    """Refuse texts that would break out of the line of a file they are written into, or that no program can be given.

    A line feed in a host name or in a DNS option would add lines to the container's /etc/hosts and resolv.conf.
    """
    check_process((*(config.entrypoint or ()), *(config.cmd or ())), config.env, config.user, config.working_dir)
    check_arguments(*(host.binds or ()), *(host.tmpfs or {}), *(host.tmpfs or {}).values())
    for text, what in ((config.hostname, "hostname"), (config.domainname, "domainname")):
        if not _is_one_word(text) or len(text.encode(errors="replace")) > HOST_NAME_LIMIT:
            raise InvalidParameter(
                f"invalid {what} format: {text[:WORD_LIMIT]!r}",
                hint=f"at most {HOST_NAME_LIMIT} bytes, no white space",
            )
    for words, what in ((host.dns_search, "dns-search"), (host.dns_options, "dns-option"), (host.dns, "dns")):
        for word in words:
            if not word or not _is_one_word(word) or len(word) > WORD_LIMIT:
                raise InvalidParameter(f"invalid {what} value: {word[:WORD_LIMIT]!r}", hint="one word, no white space")


def check_process(words: Sequence[str], env: Sequence[str], user: str, working_dir: str) -> None:
    """Refuse what no process can be started with.

    The runtime repeats the name of a program that it cannot run; one longer than a pipe (64 KiB) would make it wait for
    ever for conmon to read.
    """
    check_arguments(*words, *env, user, working_dir)
    for path, what in ((words[0] if words else "", "executable"), (working_dir, "working directory")):
        if len(path.encode(errors="replace")) >= PATH_LIMIT:
            raise InvalidParameter(f"invalid {what}: {path[:64]}…: file name too long")
    if len(user) > WORD_LIMIT:
        raise InvalidParameter(f"invalid user: {user[:64]}…: longer than {WORD_LIMIT} characters")
    if working_dir and not working_dir.startswith("/"):
        raise InvalidParameter(f"the working directory '{working_dir}' is invalid, it needs to be an absolute path")


def check_arguments(*texts: str) -> None:
    """Refuse what execve(2) and mount(2) cannot take: a NUL ends a string for the kernel."""
    for text in texts:
        if "\0" in text:
            raise InvalidParameter(f"invalid argument: {text[:64]!r} contains a NUL character")


def _is_one_word(text: str) -> bool:
    return not any(c.isspace() or not c.isprintable() for c in text)
