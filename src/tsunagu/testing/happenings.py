"""Waiting for what an engine says has happened (`GET /events`), instead of sleeping for luck.

May import the standard library and its neighbours.
"""

from __future__ import annotations

import json
import time
from types import TracebackType
from typing import Any, BinaryIO, cast

from tsunagu.testing.http import UnixConnection


class Happenings:
    """The events of one engine from the moment this is made, in order; each is met once.

    Use as a context manager, made before what is to be waited for.
    """

    def __init__(self, socket_path: str) -> None:
        self._connection = UnixConnection(socket_path, timeout=60)
        self._connection.request("GET", "/events")
        # A response with a status of 200 is sent once the engine listens: from here on nothing is missed.
        self._lines = cast(BinaryIO, self._connection.getresponse())
        self.seen: list[dict[str, Any]] = []

    def expect(self, action: str, name: str = "", *, seconds: float = 30.0, **attributes: str) -> dict[str, Any]:
        """Return the next event with this action, of the object called `name`; AssertionError after `seconds`."""
        deadline = time.monotonic() + seconds
        while True:
            left = deadline - time.monotonic()
            if left <= 0:
                raise AssertionError(f"no {action} {name} {attributes} within {seconds} s; seen: {self._words()}")
            if self._connection.sock is not None:
                self._connection.sock.settimeout(left)
            try:
                line = self._lines.readline()
            except TimeoutError:
                continue
            if not line:
                raise AssertionError(f"the engine ended its events; seen: {self._words()}")
            event: dict[str, Any] = json.loads(line)
            self.seen.append(event)
            found = event["Actor"]["Attributes"]
            is_meant = event["Action"] == action and name in ("", found.get("name"))
            if is_meant and all(found.get(key) == value for key, value in attributes.items()):
                return event

    def _words(self) -> list[str]:
        return [f"{event['Action']} {event['Actor']['Attributes'].get('name', '')}" for event in self.seen]

    def __enter__(self) -> Happenings:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._connection.close()
