"""`daemon`: become the engine. May import: `cli`. Must never import the engine: it is another process image."""

from __future__ import annotations

from tsunagu.cli.command import Command

TYPE_CHECKING = False
if TYPE_CHECKING:
    from tsunagu.cli.flags import Flag, Options
    from tsunagu.cli.main import Context

_ALWAYS = ("ip-forward", "ip-masq", "iptables", "ip6tables", "live-restore")
FLAGS: tuple[Flag, ...] = (
    ("root", "", "string", "", 'Directory of images, containers and networks (default "/var/lib/tsunagu")'),
    ("run-dir", "", "string", "", 'Directory of sockets, mounts and pids (default "/run/tsunagu")'),
    ("host", "H", "string", "", 'Socket to listen on (default "unix:///run/tsunagu/tsunagu.sock")'),
    ("config-file", "", "string", "", 'Configuration file (default "/etc/tsunagu/daemon.json")'),
    ("validate", "", "bool", False, "Check the configuration and end"),
    ("pidfile", "p", "string", "", "Where to write the process id of the engine"),
    ("label", "", "list", (), "Label of the engine (key=value)"),
    ("bip", "", "string", "", "Address of the default bridge, with its prefix length"),
    ("fixed-cidr", "", "string", "", "Where containers of the default bridge get addresses"),
    ("ipv6", "", "bool", False, "Give the default bridge IPv6 too"),
    ("fixed-cidr-v6", "", "string", "", "IPv6 subnet of the default bridge"),
    ("mtu", "", "string", "", "MTU of the default bridge in bytes"),
    ("default-address-pool", "", "list", (), "What networks are cut from (base=10.9.0.0/16,size=24)"),
    ("default-ulimit", "", "list", (), "Limit of processes in containers that name none of that kind (nofile=64:128)"),
    ("dns", "", "list", (), "Name server of containers that name none"),
    ("dns-opt", "", "list", (), "Resolver option of containers that name none"),
    ("dns-search", "", "list", (), "Search domain of containers that name none"),
    ("data-root", "", "string", "", "The same as --root"),
    ("exec-root", "", "string", "", "The same as --run-dir"),
    ("log-driver", "", "string", "", "json-file"),
    *((name, "", "bool", True, "As in dockerd; true is what this engine does anyway") for name in _ALWAYS),
    ("userland-proxy", "", "bool", False, "As in dockerd; false is what this engine does anyway"),
    ("ip", "", "string", "", 'Where ports are published that name no address (default "0.0.0.0": everywhere)'),
    ("icc", "", "bool", True, "Containers of the default bridge reach each other, also without --link"),
    ("log-level", "l", "string", "", 'Least level of what is logged: debug, info, warn, error (default "info")'),
    ("debug", "D", "bool", False, "Log everything"),
)


def _daemon(context: Context, options: Options, _arguments: list[str]) -> int:
    from tsunagu.cli.autostart import become_engine

    words: list[str] = []
    for flag, _, kind, _, _ in FLAGS:
        if flag in ("host", "log-level", "debug") or flag not in options:
            continue
        if flag == "validate":
            words += [f"--{flag}"] if options[flag] else []
        elif kind == "bool":
            words.append(f"--{flag}={str(options[flag]).lower()}")
        elif kind == "list":
            words += [f"--{flag}={value}" for value in options[flag]]
        else:
            words += [f"--{flag}", options[flag]]
    host = options["host"] or ("" if context.is_default_host else context.host)
    if host:
        words += ["--host", host]
    level = "debug" if options["debug"] else options["log-level"]
    if not level and "log-level" in context.options:
        level = context.options["log-level"]
    if level:
        words += ["--log-level", level]
    become_engine(words)


DAEMON = Command("[OPTIONS]", "Run the engine in the foreground", _daemon, flags=FLAGS, most=0)
