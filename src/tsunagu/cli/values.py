"""Values of flags that have a form of their own: sizes, durations, addresses, mounts, networks.

Each function takes the text of one value and returns what is sent to the engine, or raises ValueError with the sentence
of Docker's client. May import: `_socket` for address parsing. Must never read the command line or the engine.
"""

from __future__ import annotations

from _socket import AF_INET, AF_INET6, inet_ntop, inet_pton

from tsunagu.cli.flags import parse_bool, parse_int, parse_uint
from tsunagu.cli.output import env as environment

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

_SIZE_UNITS = {"": 0, "b": 0, "k": 1, "m": 2, "g": 3, "t": 4, "p": 5}
_DURATION_UNITS = {
    "ns": 1,
    "us": 10**3,
    "µs": 10**3,
    "μs": 10**3,
    "ms": 10**6,
    "s": 10**9,
    "m": 60 * 10**9,
    "h": 3600 * 10**9,
}
_SYSCTLS = (
    "kernel.msgmax", "kernel.msgmnb", "kernel.msgmni", "kernel.sem",
    "kernel.shmall", "kernel.shmmax", "kernel.shmmni", "kernel.shm_rmid_forced",
)  # fmt: skip
_ULIMITS = (
    "core", "cpu", "data", "fsize", "locks", "memlock", "msgqueue", "nice",
    "nofile", "nproc", "rss", "rtprio", "rttime", "sigpending", "stack",
)  # fmt: skip


def parse_bytes(text: str) -> int:
    """A size in bytes: a number with an optional binary unit (k, m, g, t, p, also `kb`, `KiB`)."""
    end = len(text)
    while end and text[end - 1] not in "0123456789. ":
        end -= 1
    number, suffix = text[:end].rstrip(" "), text[end:].lower()
    try:
        if not number or not end:
            raise ValueError
        value = float(number)
    except ValueError:
        raise ValueError(f"invalid size: '{text}'") from None
    if not 0 <= value < float("inf"):
        raise ValueError(f"invalid size: '{text}'")
    unit = suffix[:1]
    if unit not in _SIZE_UNITS or suffix[1:] not in (("",) if unit in ("", "b") else ("", "b", "ib")):
        raise ValueError(f"invalid suffix: '{suffix}'")
    return int(value * (1 << 10 * _SIZE_UNITS[unit]))


def parse_swap(text: str) -> int:
    """Like `parse_bytes`, and -1 for unlimited."""
    return -1 if text == "-1" else parse_bytes(text)


def parse_duration(text: str) -> int:
    """Go's time.ParseDuration: nanoseconds of "1h15m30.5s"."""
    rest, sign = text, 1
    if rest[:1] in ("-", "+"):
        sign = -1 if rest[0] == "-" else 1
        rest = rest[1:]
    if rest == "0":
        return 0
    if not rest:
        raise ValueError(f'time: invalid duration "{text}"')
    total = 0
    while rest:
        end = 0
        while end < len(rest) and rest[end] in "0123456789.":
            end += 1
        number, rest = rest[:end], rest[end:]
        if not number.strip(".") or number.count(".") > 1:
            raise ValueError(f'time: invalid duration "{text}"')
        end = 0
        while end < len(rest) and rest[end] not in "0123456789.":
            end += 1
        unit, rest = rest[:end], rest[end:]
        if not unit:
            raise ValueError(f'time: missing unit in duration "{text}"')
        if unit not in _DURATION_UNITS:
            raise ValueError(f'time: unknown unit "{unit}" in duration "{text}"')
        whole, _, fraction = number.partition(".")
        scale = _DURATION_UNITS[unit]
        total += int(whole or "0") * scale + int(fraction or "0") * scale // 10 ** len(fraction)
    return sign * total


def parse_nano_cpus(text: str) -> int:
    """A decimal number of CPUs in billionths."""
    numerator, slash, denominator = text.partition("/")
    whole, _, fraction = numerator.partition(".")
    digits = (whole.lstrip("+-") + fraction).replace("_", "")
    if not digits.isdecimal() or (slash and not denominator.isdecimal()):
        raise ValueError(f"failed to parse {text} as a rational number")
    value = int(digits) * 10**9 * (-1 if whole.startswith("-") else 1)
    divisor: int = 10 ** len(fraction) * (int(denominator) if slash else 1)
    if not divisor or value % divisor:
        raise ValueError("value is too precise" if divisor else f"failed to parse {text} as a rational number")
    return value // divisor


def address(text: str) -> str:
    """Canonical form of an IPv4 or IPv6 address, "" when it is none."""
    for family in (AF_INET, AF_INET6):
        try:
            return inet_ntop(family, inet_pton(family, text))
        except (OSError, ValueError):
            continue
    return ""


def dns(text: str) -> str:
    found = address(text.strip())
    if not found:
        raise ValueError(f"IP address is not correctly formatted: {text}")
    return found


def dns_search(text: str) -> str:
    domain = text.strip()
    if domain == ".":
        return domain
    labels = domain.rstrip(".").split(".")
    is_valid = len(domain) < 255 and any(letter.isalpha() for letter in domain)
    for label in labels:
        is_plain = label.isascii() and label.replace("-", "").isalnum()
        is_valid = is_valid and is_plain and label[0] != "-" and label[-1] != "-"
    if not is_valid:
        raise ValueError(f"{text} is not a valid domain")
    return domain


def add_host(text: str) -> str:
    name, equals, value = text.partition("=")
    if not equals:
        name, equals, value = text.partition(":")
    if not equals or not name:
        raise ValueError(f'bad format for add-host: "{text}"')
    if value[:1] == "[" and value[-1:] == "]":
        value = value[1:-1]
    if value != "host-gateway" and not address(value):
        raise ValueError(f'invalid IP address in add-host: "{value}"')
    return f"{name}:{value}"


def env(text: str) -> str:
    """`NAME=value`, or `NAME` whose value comes from the client's environment (left bare when it is not set)."""
    name, equals, _ = text.partition("=")
    if not name:
        raise ValueError(f"invalid environment variable: {text}")
    if equals:
        return text
    value = environment(name, "\0")
    return text if value == "\0" else f"{name}={value}"


def label(text: str) -> str:
    if not text.partition("=")[0].strip():
        raise ValueError(f"invalid label '{text}': empty name")
    return text


def attach(text: str) -> str:
    stream = text.lower()
    if stream not in ("stdin", "stdout", "stderr"):
        raise ValueError("valid streams are STDIN, STDOUT and STDERR")
    return stream


def link(text: str) -> str:
    if not text:
        raise ValueError("empty string specified for links")
    if text.count(":") > 1:
        raise ValueError(f"bad format for links: {text}")
    return text


def sysctl(text: str) -> str:
    name, equals, _ = text.partition("=")
    if not equals or not (name in _SYSCTLS or name.startswith(("net.", "fs.mqueue."))):
        raise ValueError(f"sysctl '{text}' is not allowed")
    return text


def filter_pair(text: str) -> list[tuple[str, str]]:
    if not text:
        return []
    name, equals, value = text.partition("=")
    if not equals:
        raise ValueError("bad format of filter (expected name=value)")
    return [(name.strip().lower(), value.strip())]


def cgroup_rule(text: str) -> str:
    kind, _, rest = text.partition(" ")
    numbers, _, access = rest.partition(" ")
    parts = numbers.split(":")
    is_valid = kind in ("a", "b", "c") and len(parts) == 2 and all(part == "*" or part.isdecimal() for part in parts)
    if not is_valid or not 1 <= len(access) <= 3 or set(access) - set("rwm"):
        raise ValueError(f"invalid device cgroup format '{text}'")
    return text


def ulimit(text: str) -> dict[str, Any]:
    name, equals, value = text.partition("=")
    if not equals:
        raise ValueError(f"invalid ulimit argument: {text}")
    if name not in _ULIMITS:
        raise ValueError(f"invalid ulimit type: {name}")
    limits = value.split(":")
    if len(limits) > 2:
        raise ValueError(f"too many limit value arguments - {value}, can only have up to two, `soft[:hard]`")
    numbers = [parse_int(limit) for limit in limits]
    soft, hard = numbers[0], numbers[-1]
    if hard >= 0 and (soft > hard or soft < 0):
        raise ValueError(f"ulimit soft limit must be less than or equal to hard limit: {soft} > {hard}")
    return {"Name": name, "Hard": hard, "Soft": soft}


def weight_device(text: str) -> dict[str, Any]:
    path, weight = _device_pair(text)
    value = parse_uint(weight, 16) if weight.isdecimal() else -1
    if value != 0 and not 10 <= value <= 1000:
        raise ValueError(f"invalid weight for device: {text}")
    return {"Path": path, "Weight": value}


def rate_bytes(text: str) -> dict[str, Any]:
    path, rate = _device_pair(text)
    try:
        return {"Path": path, "Rate": parse_bytes(rate)}
    except ValueError:
        raise ValueError(
            f"invalid rate for device: {text}. The correct format is <device-path>:<number>[<unit>]. "
            "Number must be a positive integer. Unit is optional and can be kb, mb, or gb"
        ) from None


def rate_count(text: str) -> dict[str, Any]:
    path, rate = _device_pair(text)
    if not rate.isdecimal():
        raise ValueError(
            f"invalid rate for device: {text}. The correct format is <device-path>:<number>. "
            "Number must be a positive integer"
        )
    return {"Path": path, "Rate": int(rate)}


def _device_pair(text: str) -> tuple[str, str]:
    path, colon, value = text.partition(":")
    if not colon or not value or ":" in value:
        raise ValueError(f"bad format: {text}")
    if not path.startswith("/dev/"):
        raise ValueError(f"bad format for device path: {text}")
    return path, value


def gpus(text: str) -> dict[str, Any]:
    """A device request for GPUs, sent so that the engine can refuse it by name."""
    request: dict[str, Any] = {"Driver": "", "Count": 0, "DeviceIDs": None, "Capabilities": [["gpu"]], "Options": {}}
    for field in text.split(","):
        key, equals, value = field.partition("=")
        if key == "all" or (key == "count" and value == "all"):
            request["Count"] = -1
        elif key == "count" or (not equals and key.isdecimal()):
            request["Count"] = parse_int(value if equals else key)
        elif key == "driver":
            request["Driver"] = value
        elif key == "device":
            request["DeviceIDs"] = [value]
        elif key == "capabilities":
            request["Capabilities"] = [[*value.split(","), "gpu"]]
        else:
            raise ValueError(f"unexpected key '{key}' in '{field}'")
    return request


def network(text: str) -> dict[str, Any]:
    """`--network`: a name, or `name=…,alias=…,ip=…` as one CSV record."""
    attachment: dict[str, Any] = {"name": text, "aliases": [], "options": {}, "local": []}
    if "=" not in text:
        return attachment
    attachment["name"] = ""
    single = {"name": "name", "ip": "ip", "ip6": "ip6", "mac-address": "mac"}
    for field in csv_fields(text):
        key, equals, value = field.partition("=")
        key = key.strip().lower()
        value = value.strip()
        if not equals:
            raise ValueError(f"invalid field {field}")
        if key in single:
            attachment[single[key]] = value
        elif key == "alias":
            attachment["aliases"].append(value)
        elif key == "driver-opt":
            name, has_value, option = value.partition("=")
            if not has_value or not name.strip():
                raise ValueError("invalid key value pair format in driver options")
            attachment["options"][name.strip()] = option.strip()
        elif key == "link-local-ip":
            attachment["local"].append(value)
        elif key == "gw-priority":
            try:
                attachment["priority"] = parse_int(value)
            except ValueError as error:
                raise ValueError(f"invalid gw-priority ({value}): {str(error).rpartition(': ')[2]}") from None
        else:
            raise ValueError(f"invalid field key {key}")
    if not attachment["name"]:
        raise ValueError("network name/id is not specified")
    return attachment


def csv_fields(text: str) -> list[str]:
    """The fields of one CSV record (quotes allowed). Raises ValueError for an empty one."""
    if '"' not in text:
        return text.split(",")
    from _csv import reader

    return next(iter(reader([text])))


def mount(text: str) -> dict[str, Any]:
    """`--mount`: a mount of the API from `type=…,source=…,target=…` as one CSV record."""
    made: dict[str, Any] = {"Type": "volume"}
    if not text:
        raise ValueError("EOF")
    for field in csv_fields(text):
        key, equals, value = field.partition("=")
        key = key.strip().lower()
        if not equals:
            if key not in ("readonly", "ro", "volume-nocopy", "bind-nonrecursive"):
                raise ValueError(f"invalid field '{field}' must be a key=value pair")
            value = "true"
        store = _MOUNT_FIELDS.get(key)
        if store is None:
            raise ValueError(f"unexpected key '{key}' in '{field}'")
        path, convert = store
        try:
            found = convert(value)
        except ValueError:
            raise ValueError(f"invalid value for {key}: {value}") from None
        _put(made, path, found, key, value)
    if not made["Type"]:
        raise ValueError("type is required")
    if not made.get("Target"):
        raise ValueError("target is required")
    for kind in ("bind", "volume", "tmpfs", "image"):
        options = kind.capitalize() + "Options"
        if made["Type"] != kind and options in made:
            raise ValueError(f"cannot mix '{kind}-*' options with mount type '{made['Type']}'")
    return made


def _put(made: dict[str, Any], path: str, value: Any, key: str, text: str) -> None:
    *parents, last = path.split(".")
    for parent in parents:
        made = made.setdefault(parent, {})
    if isinstance(value, dict):
        made.setdefault(last, {}).update(value)
    elif key == "type":
        made[last] = text.lower()
    else:
        made[last] = value


def _pair(text: str) -> dict[str, str]:
    key, _, value = text.partition("=")
    return {key: value}


def _source(text: str) -> str:
    if text.startswith(("./", "../")) or text in (".", ".."):
        from tsunagu.cli.paths import absolute

        return absolute(text)
    return text


def _mode(text: str) -> int:
    return int(text, 8)


_MOUNT_FIELDS: dict[str, tuple[str, Callable[[str], Any]]] = {
    "type": ("Type", str),
    "source": ("Source", _source),
    "src": ("Source", _source),
    "target": ("Target", str),
    "dst": ("Target", str),
    "destination": ("Target", str),
    "readonly": ("ReadOnly", parse_bool),
    "ro": ("ReadOnly", parse_bool),
    "consistency": ("Consistency", str),
    "bind-propagation": ("BindOptions.Propagation", str),
    "bind-nonrecursive": ("BindOptions.NonRecursive", parse_bool),
    "bind-create-src": ("BindOptions.CreateMountpoint", parse_bool),
    "volume-subpath": ("VolumeOptions.Subpath", str),
    "volume-nocopy": ("VolumeOptions.NoCopy", parse_bool),
    "volume-label": ("VolumeOptions.Labels", _pair),
    "volume-driver": ("VolumeOptions.DriverConfig.Name", str),
    "volume-opt": ("VolumeOptions.DriverConfig.Options", _pair),
    "image-subpath": ("ImageOptions.Subpath", str),
    "tmpfs-size": ("TmpfsOptions.SizeBytes", parse_bytes),
    "tmpfs-mode": ("TmpfsOptions.Mode", _mode),
}
