"""Removes directory trees that containers or images made, however deep they are.

A container may nest directories deeper than any recursion or descriptor limit. So nothing here recurses: a directory
that is not empty is moved up beside the others and taken from there. May import nothing of ours; must never follow a
symlink.
"""

from __future__ import annotations

import os
import secrets

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def remove_tree(path: str | bytes) -> None:
    """Remove directory `path` and everything in it; no error when it is gone. Raises OSError for what resists."""
    above, name = os.path.split(os.fsencode(path))
    try:
        parent = os.open(above or b".", _DIRECTORY)
    except FileNotFoundError:
        return
    try:
        remove_tree_at(parent, name)
    finally:
        os.close(parent)


def remove_tree_at(parent: int, name: bytes) -> None:
    """Remove directory `name` below the open directory `parent`; no error when it is gone."""
    try:
        top = os.open(name, _DIRECTORY, dir_fd=parent)
    except FileNotFoundError:
        return
    try:
        mark = secrets.token_hex(8).encode()
        count = 0
        waiting = _empty(top, top, mark, count)
        while waiting:
            child = waiting.pop()
            directory = os.open(child, _DIRECTORY, dir_fd=top)
            try:
                found = _empty(directory, top, mark, count)
            finally:
                os.close(directory)
            count += len(found)
            os.rmdir(child, dir_fd=top)
            waiting += found
    finally:
        os.close(top)
    os.rmdir(name, dir_fd=parent)


def _empty(directory: int, top: int, mark: bytes, count: int) -> list[bytes]:
    """Unlink what is in `directory`; directories that are not empty move to `top`. Returns their names there."""
    moved: list[bytes] = []
    with os.scandir(directory) as entries:
        listing = [(os.fsencode(e.name), e.is_dir(follow_symlinks=False)) for e in entries]
    for name, is_directory in listing:
        if not is_directory:
            os.unlink(name, dir_fd=directory)
            continue
        try:
            os.rmdir(name, dir_fd=directory)
        except OSError:
            if directory != top:
                fresh = b"%s-%d" % (mark, count + len(moved))
                os.rename(name, fresh, src_dir_fd=directory, dst_dir_fd=top)
                name = fresh  # noqa: PLW2901
            moved.append(name)
    return moved
