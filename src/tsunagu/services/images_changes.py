"""Image configurations for `import` and `commit`: Dockerfile instructions of `--change` as Docker applies them.

May import model; does no I/O but the clock. An instruction that Docker does not allow here is refused by name.
"""

from __future__ import annotations

import datetime
import json
import re
import shlex
from collections.abc import Callable, Sequence
from typing import Any

from tsunagu.model.errors import InvalidParameter

from .images_archive import host_architecture

_PORT = re.compile(r"([0-9]{1,5})(?:-([0-9]{1,5}))?(?:/(tcp|udp|sctp))?")
Json = dict[str, Any]


def new_config(message: str, changes: Sequence[str]) -> Json:
    """Return the configuration of an imported image, still without its rootfs section."""
    now = _now()
    run: Json = {}
    apply_changes(run, changes)
    comment = message or "Imported from -"
    return {
        "architecture": host_architecture(),
        "os": "linux",
        "created": now,
        "comment": comment,
        "config": run,
        "history": [{"created": now, "comment": comment}],
    }


def layered_config(base: Json, run: Json, author: str, comment: str, *, created_by: str) -> Json:
    """Return the configuration of an image that stands on `base` with one more step, still without its rootfs section.

    The new step is the last of "history"; whether it made a layer is said by who adds the layer.
    """
    now = _now()
    step: Json = {"created": now, "created_by": created_by}
    made: Json = {"architecture": base.get("architecture") or host_architecture(), "os": "linux", "created": now}
    if variant := base.get("variant"):
        made["variant"] = variant
    for key, text in (("author", author), ("comment", comment)):
        if text:
            made[key] = step[key] = text
    return made | {"config": run, "history": [*(base.get("history") or ()), step]}


def _now() -> str:
    return datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def apply_changes(run: Json, changes: Sequence[str]) -> None:
    """Apply `--change` instructions to a run configuration. Raises InvalidParameter in Docker's words."""
    for change in changes:
        for line in change.replace("\\\n", " ").split("\n"):
            if line.strip():
                _apply(run, line.strip())


def _apply(run: Json, line: str) -> None:
    keyword, _, rest = line.partition(" ")
    rest = rest.strip()
    instruction = _INSTRUCTIONS.get(keyword.upper())
    if instruction is None:
        raise InvalidParameter(
            f"{keyword} is not a valid change command", hint=f"allowed are {', '.join(sorted(_INSTRUCTIONS))}"
        )
    if not rest:
        raise InvalidParameter(f"{keyword.upper()} requires at least one argument")
    instruction(run, rest)


def _command(key: str) -> Callable[[Json, str], None]:
    def apply(run: Json, rest: str) -> None:
        words = _json_words(rest)
        run[key] = ["/bin/sh", "-c", rest] if words is None else words

    return apply


def _json_words(text: str) -> list[str] | None:
    """The words of the JSON form; None for anything else, which Docker takes as a shell command."""
    if not text.startswith("["):
        return None
    try:
        words = json.loads(text)
    except ValueError:
        return None
    return words if isinstance(words, list) and all(isinstance(w, str) for w in words) else None


def _pairs(text: str, keyword: str) -> list[tuple[str, str]]:
    """`k=v k2="v 2"`, or the old form `k all the rest`."""
    first = text.split(None, 1)[0]
    if "=" not in first:
        key, _, value = text.partition(" ")
        if not value.strip():
            raise InvalidParameter(f"{keyword} must have two arguments")
        return [(key, value.strip())]
    pairs = []
    for word in _split(text):
        key, equals, value = word.partition("=")
        if not equals:
            raise InvalidParameter(f"Syntax error - can't find = in {word!r}. Must be of the form: name=value")
        if not key:
            raise InvalidParameter(f"{keyword} names can not be blank")
        pairs.append((key, value))
    return pairs


def _split(text: str) -> list[str]:
    try:
        return shlex.split(text)
    except ValueError as error:
        raise InvalidParameter(f"failed to process {text!r}: {error}") from error


def _env(run: Json, rest: str) -> None:
    env: list[str] = run.setdefault("Env", [])
    for key, value in _pairs(rest, "ENV"):
        env[:] = [e for e in env if e.partition("=")[0] != key]
        env.append(f"{key}={value}")


def _label(run: Json, rest: str) -> None:
    run.setdefault("Labels", {}).update(_pairs(rest, "LABEL"))


def _expose(run: Json, rest: str) -> None:
    ports = run.setdefault("ExposedPorts", {})
    for word in rest.split():
        match = _PORT.fullmatch(word.lower())
        first, last = (int(match[1]), int(match[2] or match[1])) if match else (1, 0)
        if match is None or not 0 < first <= last <= 65535:
            raise InvalidParameter(f"invalid containerPort: {word}")
        for port in range(first, last + 1):
            ports[f"{port}/{match[3] or 'tcp'}"] = {}


def _volume(run: Json, rest: str) -> None:
    for path in _json_words(rest) or _split(rest):
        if not path.strip():
            raise InvalidParameter("VOLUME specified can not be an empty string")
        run.setdefault("Volumes", {})[path] = {}


def _onbuild(run: Json, rest: str) -> None:
    trigger = rest.split(None, 1)[0].upper()
    if trigger == "ONBUILD":
        raise InvalidParameter("Chaining ONBUILD via `ONBUILD ONBUILD` isn't allowed")
    if trigger in ("MAINTAINER", "FROM"):
        raise InvalidParameter(f"{trigger} isn't allowed as an ONBUILD trigger")
    run.setdefault("OnBuild", []).append(rest)


def _one(key: str, keyword: str) -> Callable[[Json, str], None]:
    def apply(run: Json, rest: str) -> None:
        words = _split(rest)
        if len(words) != 1:
            raise InvalidParameter(f"{keyword} requires exactly one argument")
        run[key] = words[0]

    return apply


def _working_dir(run: Json, rest: str) -> None:
    words = _split(rest)
    path = words[0] if len(words) == 1 else rest
    run["WorkingDir"] = path if path.startswith("/") else f"{run.get('WorkingDir', '/').rstrip('/')}/{path}"


_INSTRUCTIONS: dict[str, Callable[[Json, str], None]] = {
    "CMD": _command("Cmd"),
    "ENTRYPOINT": _command("Entrypoint"),
    "ENV": _env,
    "EXPOSE": _expose,
    "LABEL": _label,
    "ONBUILD": _onbuild,
    "STOPSIGNAL": _one("StopSignal", "STOPSIGNAL"),
    "USER": _one("User", "USER"),
    "VOLUME": _volume,
    "WORKDIR": _working_dir,
}
