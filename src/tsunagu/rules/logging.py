"""Logging drivers and their options: which there are, what they mean, Docker's refusals. Pure; may import model."""

from __future__ import annotations

import re

import msgspec

from tsunagu.model.container import LogConfig
from tsunagu.model.errors import InvalidParameter, NotSupported

DRIVERS = ("json-file", "local", "none")
_OTHERS = ("awslogs", "fluentd", "gcplogs", "gelf", "journald", "splunk", "syslog", "etwlogs")
_LATER = ("compress", "labels", "labels-regex", "env", "env-regex", "tag", "mode", "max-buffer-size")
_UNITS = {"": 1, "k": 1000, "m": 1000**2, "g": 1000**3, "t": 1000**4, "p": 1000**5}
_SIZE = re.compile(r"(\d+(?:\.\d+)?) ?([kmgtp]?)(?:i?b)?", re.IGNORECASE)


class Keeping(msgspec.Struct, frozen=True):
    """How much of a log is kept: `files` of `size` bytes each; size 0 is without end. Nothing when not `is_kept`."""

    is_kept: bool = True
    size: int = 0
    files: int = 1


def keeping(config: LogConfig) -> Keeping:
    """Return what a driver and its options mean; raises in Docker's words."""
    driver, options = config.type or "json-file", config.config
    if driver in _OTHERS:
        raise NotSupported(f"the logging driver {driver} is not supported yet", hint=f"supported: {', '.join(DRIVERS)}")
    if driver not in DRIVERS:
        raise InvalidParameter(f"logger: no log driver named '{driver}' is registered")
    for name, value in options.items():
        if name in ("max-size", "max-file") and driver != "none":
            continue
        if name == "compress" and value == "false":
            continue
        if name in _LATER and driver != "none":
            raise NotSupported(f"the option {name} of logging driver {driver} is not supported yet")
        raise InvalidParameter(f"unknown log opt '{name}' for {driver} log driver")
    if driver == "none":
        return Keeping(is_kept=False)
    is_local = driver == "local"
    size = _size(options["max-size"]) if options.get("max-size") else 20 * 1000**2 if is_local else 0
    files = _count(options["max-file"]) if options.get("max-file") else 5 if is_local else 1
    return Keeping(size=size, files=files)


def _size(text: str) -> int:
    found = _SIZE.fullmatch(text)
    if found is None:
        raise InvalidParameter(f"failed to initialize logging driver: invalid size: '{text}'")
    size = int(float(found[1]) * _UNITS[found[2].lower()])
    if size <= 0:
        raise InvalidParameter("failed to initialize logging driver: max-size must be a positive number")
    return size


def _count(text: str) -> int:
    if not (text.isascii() and text.lstrip("-").isdigit()):
        raise InvalidParameter(f'failed to initialize logging driver: strconv.Atoi: parsing "{text}": invalid syntax')
    if int(text) < 1:
        raise InvalidParameter("failed to initialize logging driver: max-file cannot be less than 1")
    return int(text)
