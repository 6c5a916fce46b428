"""Attach to a container, start it and return its exit code: the way that `run`, `start -a` and `attach` share.

The order is Docker's: attach, then ask to be told of the exit, then start, so that neither output nor exit is missed.
May import: `client`, `cli/session.py`.
"""

from __future__ import annotations

from tsunagu.cli.output import Failure, is_terminal, warn
from tsunagu.cli.session import DEFAULT_DETACH_KEYS, Session, parse_detach_keys, window_size
from tsunagu.client import ApiError, ClientError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from tsunagu.cli.main import Context
    from tsunagu.client import Response


def detach_bytes(text: str) -> bytes:
    """The bytes of `--detach-keys`; a wrong value is warned of and the default kept, as Docker does."""
    if not text:
        return DEFAULT_DETACH_KEYS
    try:
        return parse_detach_keys(text)
    except ValueError as error:
        warn(f"invalid detach escape keys, using default: {error}")
        return DEFAULT_DETACH_KEYS


def open_wait(context: Context, container: str, condition: str) -> Response:
    """The pending answer of `wait`. Its head has arrived, so the engine is watching the container by now."""
    return context.another_client().open("POST", f"/containers/{container}/wait", {"condition": condition})


def read_wait(response: Response) -> int:
    """Exit code of the container. Raises Failure when the engine could not tell."""
    answer = response.raise_for_status().json()
    error = answer.get("Error")
    if error and error.get("Message"):
        raise Failure(f"Error waiting for container: {error['Message']}", 125)
    return int(answer["StatusCode"])


def forwarder(context: Context, container: str) -> Callable[[str], None]:
    """A function that sends a signal to the container. Failures are dropped: the process may just have ended."""
    client = context.another_client()

    def forward(name: str) -> None:
        try:
            client.post(f"/containers/{container}/kill", {"signal": name})
        except ClientError:
            return

    return forward


def resizer(context: Context, path: str) -> Callable[[int, int], None]:
    """A function that tells the engine the terminal's size; `path` is the object's API path."""
    client = context.another_client()

    def resize(height: int, width: int) -> None:
        if height and width:
            try:
                client.post(f"{path}/resize", {"h": height, "w": width})
            except ClientError:
                return  # the process may just have ended

    return resize


def attach_query(wants: tuple[bool, bool, bool], detach_keys: str, *, has_logs: bool = False) -> dict[str, str]:
    query = {"stream": "1"}
    for name, is_wanted in zip(("stdin", "stdout", "stderr"), wants, strict=True):
        if is_wanted:
            query[name] = "1"
    if detach_keys:
        query["detachKeys"] = detach_keys
    if has_logs:
        query["logs"] = "1"
    return query


def attached(
    context: Context,
    container: str,
    *,
    wants: tuple[bool, bool, bool],
    is_tty: bool,
    detach_keys: str,
    has_signal_proxy: bool,
    condition: str,
    start: Callable[[], Any] | None,
) -> int | None:
    """Exit code of the container, None when the user detached.

    `wants` are stdin, stdout, stderr; `start` starts the container once everything is ready (None: it runs already).
    Its errors pass through after the streams are closed.
    """
    keys = detach_bytes(detach_keys)
    client = context.client()
    stream = client.hijack(f"/containers/{container}/attach", attach_query(wants, detach_keys))
    pending = open_wait(context, container, condition)
    resize = resizer(context, f"/containers/{container}") if is_tty and is_terminal(1) else None
    session = Session(
        stream,
        wants_stdin=wants[0],
        wants_stdout=wants[1],
        wants_stderr=wants[2],
        is_tty=is_tty,
        detach_keys=keys,
        forward=forwarder(context, container) if has_signal_proxy and not is_tty else None,
        resize=resize,
    )
    session.catch_signals()
    if start is not None:
        try:
            start()
        except ApiError:
            stream.close()
            if condition == "removed":
                pending.read()  # a container with --rm is being removed: do not leave before it is gone
            raise
    if resize is not None:
        resize(*window_size())
    if not session.run():
        return None
    if not pending.connection.buffer:  # else the answer came along with its head
        session.wait_readable(pending.connection.sock.fileno())
    return read_wait(pending)
