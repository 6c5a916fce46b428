"""Deletion of links, on a thread of its own and many at a time.

The kernel makes every link deletion wait for RCU grace periods, about 20 ms, whether it deletes one link or thirty. So
names are collected while a deletion runs, and the next one takes them all. May import `model` and its neighbours in
`kernel`. Must never delete a link that does not carry our mark.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable
from concurrent.futures import Future

from . import link
from .netlink import Socket
from .netns import Worker


class Reaper:
    """Deletes links whose alias is `mark`, in the network namespace of the thread that calls `open`."""

    def __init__(self, mark: str, group: int) -> None:
        self._mark = mark
        self._group = group
        self._worker = Worker("reaper")
        self._nl: Socket | None = None
        self._lock = threading.Lock()
        self._waiting: set[str] = set()
        self._pending: dict[str, int] = {}  # names asked for and not yet reported, with how many asked
        self._failures: dict[str, OSError] = {}

    async def open(self) -> None:
        """Start the thread. Raises OSError."""
        self._nl = await self._worker.run(Socket)

    def close(self) -> None:
        """Finish every deletion that was asked for, then end. Blocks."""
        self._worker.close()
        if self._nl is not None:
            self._nl.close()

    def is_pending(self, name: str) -> bool:
        """True while a deletion of `name` is asked for or under way."""
        return name in self._pending

    def doom(self, names: Iterable[str]) -> Future[None]:
        """Ask for deletion; the future ends when they are gone, or with the OSError of the first that stays."""
        wanted = set(names)
        with self._lock:
            self._waiting |= wanted
            for name in wanted:
                self._pending[name] = self._pending.get(name, 0) + 1
        return self._worker.submit(self._run, wanted)

    def _run(self, wanted: set[str]) -> None:
        with self._lock:
            names, self._waiting = self._waiting, set()
        try:
            if names:
                self._delete(names)
            for name in wanted:
                if (error := self._failures.get(name)) is not None:
                    raise error
        finally:
            with self._lock:
                for name in wanted:
                    self._pending[name] -= 1
                    if not self._pending[name]:
                        del self._pending[name]
                        self._failures.pop(name, None)

    def _delete(self, names: set[str]) -> None:
        nl = self._nl
        if nl is None:
            raise RuntimeError("the reaper is not open")
        ours = [name for name in sorted(names) if (found := link.find(nl, name)) and found.alias == self._mark]
        try:
            link.delete(nl, ours, self._group)
        except OSError:
            for name in ours:  # one refused: find out which
                try:
                    link.delete(nl, [name])
                except OSError as error:
                    self._failures[name] = error
