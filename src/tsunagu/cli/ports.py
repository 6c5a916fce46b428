"""Port texts of the command line: `-p [ip:][host[-host]:]container[-container][/proto]` and `--expose`.

The rules and sentences are those of Docker's client (go-connections/nat). May import: `cli/values.py` for addresses.
"""

from __future__ import annotations

from tsunagu.cli.output import Failure
from tsunagu.cli.values import address

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    Bindings = dict[str, list[dict[str, str]]]

_PROTOCOLS = ("tcp", "udp", "sctp")


def parse_publish(specs: Iterable[str]) -> Bindings:
    """`-p` values as the API's PortBindings, each host port a text ("" for any). Raises Failure."""
    bindings: Bindings = {}
    for spec in specs:
        _add(bindings, _short_form(spec) if "=" in spec else spec)
    return bindings


def parse_expose(specs: Iterable[str]) -> list[str]:
    """`--expose` values as "port/proto". Raises Failure."""
    exposed = []
    for spec in specs:
        if ":" in spec:
            raise Failure(f"invalid port format for --expose: {spec}")
        ports, slash, protocol = spec.partition("/")
        try:
            first, last = parse_range(ports)
        except ValueError as error:
            raise Failure(f"invalid range format for --expose: {spec}, error: {error}") from None
        exposed += [f"{port}/{protocol.lower() if slash else 'tcp'}" for port in range(first, last + 1)]
    return exposed


def parse_range(text: str) -> tuple[int, int]:
    """First and last port of "80" or "80-90". Raises ValueError with the sentence of go-connections."""
    if not text:
        raise ValueError("empty string specified for ports")
    start, dash, end = text.partition("-")
    first = _port(start)
    last = _port(end) if dash else first
    if last < first:
        raise ValueError(f"invalid range specified for port: {text}")
    return first, last


def _port(text: str) -> int:
    if not text.isdecimal() or not text.isascii():
        raise ValueError(f'strconv.ParseUint: parsing "{text}": invalid syntax')
    value = int(text)
    if value > 65535:
        raise ValueError(f'strconv.ParseUint: parsing "{text}": value out of range')
    return value


def _split(spec: str) -> tuple[str, str, str]:
    """Address, host port and container port; an IPv6 address may be written without brackets."""
    rest, _, container = spec.rpartition(":")
    host, _, port = rest.rpartition(":")
    return host, port, container


def _short_form(spec: str) -> str:
    """`target=80,published=8080,protocol=udp` written the short way; unknown keys are ignored, as Docker does."""
    fields = {"published": "", "target": "", "protocol": "tcp"}
    for field in spec.split(","):
        key, equals, value = field.partition("=")
        if not equals or not key:
            raise Failure(f"invalid publish opts format (should be name=value but got '{field}')")
        fields[key] = value
    return f"{fields['published']}:{fields['target']}/{fields['protocol']}"


def _add(bindings: Bindings, spec: str) -> None:
    raw_ip, host_port, container_port = _split(spec)
    ports, slash, protocol = container_port.partition("/")
    protocol = protocol if slash else "tcp"
    ip = raw_ip
    if ip.startswith("["):
        if not ip.endswith("]"):
            raise Failure(f"invalid IP address {ip}: address {ip}:: missing ']' in address")
        ip = ip[1:-1]
    if ip and not address(ip):
        raise Failure(f"invalid IP address: {raw_ip}")
    if not ports:
        raise Failure(f"no port specified: {spec}<empty>")
    try:
        first, last = parse_range(ports)
    except ValueError:
        raise Failure(f"invalid containerPort: {ports}") from None
    host_first = host_last = 0
    if host_port:
        try:
            host_first, host_last = parse_range(host_port)
        except ValueError:
            raise Failure(f"invalid hostPort: {host_port}") from None
    # A host range for one container port means "any free port of these"; otherwise the ranges must be equally long.
    if host_port and last - first != host_last - host_first and last != first:
        raise Failure(f"invalid ranges specified for container and host Ports: {ports} and {host_port}")
    if protocol.lower() not in _PROTOCOLS:
        raise Failure(f"invalid proto: {protocol}")
    for offset in range(last - first + 1):
        published = str(host_first + offset) if host_port else ""
        if host_port and first == last and host_first != host_last:
            published = f"{host_first}-{host_last}"
        key = f"{first + offset}/{protocol.lower()}"
        bindings.setdefault(key, []).append({"HostIp": ip, "HostPort": published})
