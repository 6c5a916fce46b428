"""`network` commands. May import: `client`, `cli`. Must never import the engine."""

from __future__ import annotations

from tsunagu.cli.command import Command
from tsunagu.cli.main import describe
from tsunagu.cli.output import Failure, say, warn
from tsunagu.cli.paths import api_path
from tsunagu.client import ApiError, ClientError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from tsunagu.cli.flags import Flag, Options
    from tsunagu.cli.main import Context

_CREATE_FLAGS: tuple[Flag, ...] = (
    ("attachable", "", "bool", False, "Let containers be attached by hand"),
    ("aux-address", "", "map", (), "Addresses that the network's driver uses itself (default map[])"),
    ("config-from", "", "string", "", "Network whose configuration is copied"),
    ("config-only", "", "bool", False, "Create a configuration without a network"),
    ("driver", "d", "string", "bridge", 'Driver of the network (default "bridge")'),
    ("gateway", "", "strings", (), "IPv4 or IPv6 gateway of the subnet"),
    ("ingress", "", "bool", False, "Create a swarm routing mesh"),
    ("internal", "", "bool", False, "Cut the network off from the outside"),
    ("ip-range", "", "strings", (), "Part of the subnet that container addresses are taken from"),
    ("ipam-driver", "", "string", "default", 'Driver of the address management (default "default")'),
    ("ipam-opt", "", "map", (), "Options of the address management (default map[])"),
    ("ipv4", "", "bool", True, "Give out IPv4 addresses (default true)"),
    ("ipv6", "", "bool", False, "Give out IPv6 addresses"),
    ("label", "", "list:label", (), "Set labels on the network"),
    ("opt", "o", "map", (), "Options of the driver (default map[])"),
    ("scope", "", "string", "", "Scope of the network"),
    ("subnet", "", "strings", (), "Subnet of the network in CIDR form"),
)
_CONNECT_FLAGS: tuple[Flag, ...] = (
    ("alias", "", "strings", (), "Another name for the container on the network"),
    ("driver-opt", "", "strings", (), "Options of the driver for this endpoint"),
    ("gw-priority", "", "int", 0, "The network with the highest number gives the default gateway"),
    ("ip", "", "string", "", 'IPv4 address (e.g., "172.30.100.104")'),
    ("ip6", "", "string", "", 'IPv6 address (e.g., "2001:db8::33")'),
    ("link", "", "list:link", (), "Link to another container"),
    ("link-local-ip", "", "strings", (), "Link-local addresses of the container"),
)
_LS_FLAGS: tuple[Flag, ...] = (
    ("filter", "f", "filter", (), 'Show only what matches (e.g. "driver=bridge")'),
    ("format", "", "string", "", "Format the output: 'table', 'table TEMPLATE', 'json' or a Go template"),
    ("no-trunc", "", "bool", False, "Do not shorten"),
    ("quiet", "q", "bool", False, "Print IDs only"),
)


def _create(context: Context, options: Options, arguments: list[str]) -> int:
    from tsunagu.cli.create_body import pairs
    from tsunagu.cli.subnets import ipam_config

    body: dict[str, Any] = {
        "Name": arguments[0],
        "Driver": options["driver"],
        "IPAM": {
            "Driver": options["ipam-driver"],
            "Options": pairs(options["ipam-opt"]),
            "Config": ipam_config(
                options["subnet"], options["ip-range"], options["gateway"], pairs(options["aux-address"])
            ),
        },
        "Options": pairs(options["opt"]),
        "Labels": pairs(options["label"]),
    }
    for flag, field in (
        ("attachable", "Attachable"),
        ("config-only", "ConfigOnly"),
        ("ingress", "Ingress"),
        ("internal", "Internal"),
        ("ipv4", "EnableIPv4"),
        ("ipv6", "EnableIPv6"),
        ("scope", "Scope"),
    ):
        if flag in options:
            body[field] = options[flag]
    if options["config-from"]:
        body["ConfigFrom"] = {"Network": options["config-from"]}
    answer = context.client().post("/networks/create", None, body)
    if answer.get("Warning"):
        warn(f"WARNING: {answer['Warning']}")
    say(answer["Id"])
    return 0


def _rm(context: Context, options: Options, names: list[str]) -> int:
    client = context.client()
    is_failed = False
    for name in names:
        try:
            client.delete(api_path("network", name))
        except (ClientError, Failure) as error:
            if options["force"] and isinstance(error, ApiError) and error.status == 404:
                continue
            warn(describe(error))
            is_failed = True
        else:
            say(name)
    if is_failed:
        # Docker's client prints the name of its own status error here.
        raise Failure("exit status 1")
    return 0


def _connect(context: Context, options: Options, arguments: list[str]) -> int:
    from tsunagu.cli.create_body import pairs

    addresses: dict[str, Any] = {}
    for flag, field in (("ip", "IPv4Address"), ("ip6", "IPv6Address"), ("link-local-ip", "LinkLocalIPs")):
        if options[flag]:
            addresses[field] = options[flag]
    if not all("=" in text for text in options["driver-opt"]):
        raise Failure("invalid key/value pair format in driver options")
    endpoint: dict[str, Any] = {
        "IPAMConfig": addresses,
        "Aliases": list(options["alias"]),
        "DriverOpts": pairs(options["driver-opt"]),
    }
    if options["link"]:
        endpoint["Links"] = options["link"]
    if options["gw-priority"]:
        endpoint["GwPriority"] = options["gw-priority"]
    network, container = arguments
    api_path("container", container)  # refuses an empty name, as for every command
    body = {"Container": container, "EndpointConfig": endpoint}
    context.client().post(api_path("network", network) + "/connect", None, body)
    return 0


def _disconnect(context: Context, options: Options, arguments: list[str]) -> int:
    network, container = arguments
    api_path("container", container)
    body = {"Container": container, "Force": options["force"]}
    context.client().post(api_path("network", network) + "/disconnect", None, body)
    return 0


def _ls(context: Context, options: Options, _arguments: list[str]) -> int:
    from tsunagu.cli.render import print_list, query_filters, sort_key

    query = {"filters": query_filters(options["filter"])} if options["filter"] else None
    networks = sorted(context.client().get("/networks", query), key=lambda network: sort_key(network["Name"]))
    is_short = not options["no-trunc"]

    def identity(network: dict[str, Any]) -> str:
        found: str = network["Id"]
        return found[:12] if is_short else found

    print_list(
        {
            "ID": ("NETWORK ID", identity),
            "Name": ("NAME", lambda network: network["Name"]),
            "Driver": ("DRIVER", lambda network: network["Driver"]),
            "Scope": ("SCOPE", lambda network: network["Scope"]),
            "IPv4": ("IPV4", lambda network: _bool(network.get("EnableIPv4", False))),
            "IPv6": ("IPV6", lambda network: _bool(network.get("EnableIPv6", False))),
            "Internal": ("INTERNAL", lambda network: _bool(network.get("Internal", False))),
            "Labels": ("LABELS", _labels),
            "CreatedAt": ("CREATED AT", _created),
        },
        networks,
        default=("ID", "Name", "Driver", "Scope"),
        type_name="*network.networkContext",
        template=options["format"],
        quiet=identity if options["quiet"] else None,
        raw=(
            ("network_id", " {{.ID}}"),
            ("name", " {{.Name}}"),
            ("driver", " {{.Driver}}"),
            ("scope", " {{.Scope}}"),
        ),
        label=lambda network, name: (network.get("Labels") or {}).get(name, ""),
    )
    return 0


def _bool(value: bool) -> str:
    return "true" if value else "false"


def _labels(network: dict[str, Any]) -> str:
    return ",".join(sorted([f"{name}={value}" for name, value in (network.get("Labels") or {}).items()]))


def _created(network: dict[str, Any]) -> str:
    from tsunagu.wire.goprint import time_text

    return time_text(network["Created"])


CREATE = Command("[OPTIONS] NETWORK", "Create a network", _create, flags=_CREATE_FLAGS, least=1, most=1)
RM = Command(
    "NETWORK [NETWORK...]",
    "Remove one or more networks",
    _rm,
    flags=(("force", "f", "bool", False, "No error when a network does not exist"),),
    least=1,
)
CONNECT = Command(
    "[OPTIONS] NETWORK CONTAINER",
    "Connect a container to a network",
    _connect,
    flags=_CONNECT_FLAGS,
    least=2,
    most=2,
)
DISCONNECT = Command(
    "[OPTIONS] NETWORK CONTAINER",
    "Disconnect a container from a network",
    _disconnect,
    flags=(("force", "f", "bool", False, "Disconnect even if the container is gone"),),
    least=2,
    most=2,
)
LS = Command("[OPTIONS]", "List networks", _ls, flags=_LS_FLAGS, most=0)
