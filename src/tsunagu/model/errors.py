"""The kinds of failure an engine operation can have.

A *kind* says what the caller may do about it; the API maps each kind to one HTTP status (`api/router.py`) and a test
fails for a kind without one. Sentences are Docker's where Docker has one (clients match on them); our remedy follows
after it in `hint`. Refused *traffic* is no error: that is a `Reason` in `rules`.
"""

from __future__ import annotations


class EngineError(Exception):
    """Base of all errors that reach a user; never raised itself.

    `message` is Docker's sentence. `hint` names the holder and the remedy and is printed after the message.
    """

    def __new__(cls, *args: object, **kwargs: object) -> EngineError:
        if cls is EngineError:
            raise TypeError("EngineError is abstract: raise one of its kinds")
        return super().__new__(cls, *args)

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message}\n{self.hint}" if self.hint else self.message


class InvalidParameter(EngineError):
    """The request itself is wrong: a malformed value, an address outside its subnet."""


class Unauthorized(EngineError):
    """A registry refused the credentials."""


class Forbidden(EngineError):
    """The object is protected: a predefined network, a network with endpoints."""


class NotFound(EngineError):
    """No object of that name or id."""


class Conflict(EngineError):
    """The object's present state, or another object, stands in the way: a name in use, a running container."""


class NotModified(EngineError):
    """Nothing to do: starting a started container, stopping a stopped one."""


class NotSupported(EngineError):
    """A Docker feature that this engine does not have; names the field or option."""


class Unavailable(EngineError):
    """Something outside is away: a registry, or this engine while it shuts down."""


class KernelFailure(EngineError):
    """A system call, netlink message, nft script, mount or runtime failed; names the operation and the object."""
