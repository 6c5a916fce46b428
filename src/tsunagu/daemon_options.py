"""The engine's command line and configuration file, read into one frozen value for the composition root.

May import `model`, `rules` and argparse. Decides nothing: `rules.configuration` checks and merges.
"""

from __future__ import annotations

import argparse
import os
from typing import Any

import msgspec

from tsunagu import __version__
from tsunagu.model.errors import InvalidParameter
from tsunagu.model.instance import DEFAULT_ROOT, DEFAULT_RUN, Instance
from tsunagu.rules import configuration
from tsunagu.rules.ports import check_default_address

CONFIG_FILE = "/etc/tsunagu/daemon.json"


class DaemonOptions(msgspec.Struct, frozen=True, kw_only=True):
    """What one engine is started with. `flags` are kept, so that the file can be read anew beside them."""

    instance: Instance
    level: str = "info"
    pidfile: str = ""
    is_validation: bool = False
    flags: dict[str, Any] = {}
    config_file: str = ""

    def reread(self) -> DaemonOptions:
        """Return the options with the configuration file as it is now. Raises EngineError."""
        return _options(self.flags, self.config_file, self.is_validation)


def read(arguments: list[str]) -> DaemonOptions:
    """Parse a command line and read the file it names. Raises EngineError; ends the process for usage errors."""
    flags = vars(_parser().parse_args(arguments))
    config_file = flags.pop("config-file", "")
    return _options(flags, config_file, flags.pop("validate", False))


def _options(flags: dict[str, Any], config_file: str, is_validation: bool) -> DaemonOptions:
    path, given = config_file or CONFIG_FILE, flags
    if "default-ulimits" in flags:
        flags = {**flags, "default-ulimits": {one["Name"]: one for one in flags["default-ulimits"]}}
    merged = configuration.merge(flags, configuration.read(_text(path, is_named=bool(config_file)), path), path)
    level = "debug" if merged.get("debug") else merged.get("log-level", "info")
    return DaemonOptions(
        instance=_instance(merged), level=level, pidfile=merged.get("pidfile", ""), is_validation=is_validation,
        flags=given, config_file=config_file,
    )  # fmt: skip


def _text(path: str, *, is_named: bool) -> str:
    try:
        with open(path, encoding="utf-8") as file:
            return file.read()
    except FileNotFoundError:
        if not is_named:
            return ""
        reason = "no such file or directory"
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "not UTF-8"
    raise InvalidParameter(f"unable to configure the Docker daemon with file {path}: open {path}: {reason}")


def _instance(merged: dict[str, Any]) -> Instance:
    settings = configuration.settings(merged)
    root = os.path.realpath(merged.get("data-root") or DEFAULT_ROOT)
    run_dir = merged.get("exec-root") or (DEFAULT_RUN if root == DEFAULT_ROOT else f"{root}/run")
    run_dir = os.path.realpath(run_dir)
    socket = f"{run_dir}/tsunagu.sock"
    for host in merged.get("hosts", ()):
        scheme, separator, path = host.partition("://")
        if scheme != "unix" or not separator or not path.startswith("/"):
            raise InvalidParameter(f"invalid host {host}: only unix:///path is served", hint="no TCP without TLS")
        socket = path
    return Instance(
        root=root, run_dir=run_dir, socket=socket, bind_address=check_default_address(merged.get("ip", "0.0.0.0")),
        allows_icc=merged.get("icc", True), settings=settings,
    )  # fmt: skip


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="tsunagu daemon", description="Run the engine.", allow_abbrev=False, argument_default=argparse.SUPPRESS
    )

    def text(*names: str, key: str, metavar: str, about: str) -> None:
        parser.add_argument(*names, dest=key, metavar=metavar, help=about)

    def listed(*names: str, key: str, metavar: str, about: str, kind: Any = str) -> None:
        parser.add_argument(*names, dest=key, metavar=metavar, help=about, action="append", type=kind)

    def truth(*names: str, key: str, about: str) -> None:
        parser.add_argument(
            *names, dest=key, nargs="?", const=True, type=_boolean, metavar="true|false", help=about
        )  # fmt: skip

    text("--config-file", key="config-file", metavar="FILE", about=f"configuration file (default {CONFIG_FILE})")
    parser.add_argument("--validate", dest="validate", action="store_true", help="check the configuration and end")
    text("--root", "--data-root", key="data-root", metavar="DIR", about="where state is kept")
    text("--run-dir", "--exec-root", key="exec-root", metavar="DIR", about="where sockets and namespaces are pinned")
    listed("-H", "--host", key="hosts", metavar="unix://PATH", about="socket to serve the API on")
    text("-p", "--pidfile", key="pidfile", metavar="FILE", about="where to write the engine's process id")
    listed("--label", key="labels", metavar="KEY=VALUE", about="label of the engine, shown by info")
    text("--ip", key="ip", metavar="ADDRESS", about="where ports are published that name no address")
    truth("--icc", key="icc", about="whether containers of the network bridge reach each other without --link")
    text("--bip", key="bip", metavar="CIDR", about="address of the network bridge, with its prefix length")
    text("--fixed-cidr", key="fixed-cidr", metavar="CIDR", about="where containers of the network bridge get addresses")
    truth("--ipv6", key="ipv6", about="give the network bridge IPv6 too")
    text("--fixed-cidr-v6", key="fixed-cidr-v6", metavar="CIDR", about="IPv6 subnet of the network bridge")
    parser.add_argument("--mtu", dest="mtu", type=int, metavar="BYTES", help="MTU of the network bridge")
    listed(
        "--default-address-pool", key="default-address-pools", metavar="base=CIDR,size=LENGTH",
        about="what networks are cut from", kind=configuration.pool_of,
    )  # fmt: skip
    listed(
        "--default-ulimit", key="default-ulimits", metavar="NAME=SOFT:HARD",
        about="limit of processes in containers that name none of that kind", kind=configuration.ulimit_of,
    )  # fmt: skip
    listed("--dns", key="dns", metavar="ADDRESS", about="name server of containers that name none")
    listed("--dns-opt", key="dns-opts", metavar="OPTION", about="resolver option of containers that name none")
    listed("--dns-search", key="dns-search", metavar="DOMAIN", about="search domain of containers that name none")
    for name in ("ip-forward", "ip-masq", "iptables", "ip6tables", "live-restore", "userland-proxy"):
        truth(f"--{name}", key=name, about="as in dockerd, where it is what this engine does anyway")
    text("--log-driver", key="log-driver", metavar="NAME", about="json-file")
    text("-l", "--log-level", key="log-level", metavar="LEVEL", about="debug, info, warn or error")
    truth("-D", "--debug", key="debug", about="log everything")
    for name in sorted(configuration.REFUSED):
        parser.add_argument(f"--{name}", nargs="?", action=_Refused, help=argparse.SUPPRESS)
    parser.add_argument("-v", "--version", action="version", version=f"Tsunagu version {__version__}")
    return parser


class _Refused(argparse.Action):
    """A flag of dockerd that would have no effect here."""

    def __call__(self, parser: argparse.ArgumentParser, _namespace: Any, _values: Any, word: str | None = None) -> None:
        parser.error(f"{word} is not supported: leave it out, it would have no effect")


def _boolean(text: str) -> bool:
    if text.lower() not in ("true", "false", "1", "0"):
        raise argparse.ArgumentTypeError(f"invalid value {text!r}: use true or false")
    return text.lower() in ("true", "1")
