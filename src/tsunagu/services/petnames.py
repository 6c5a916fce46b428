"""Names for containers whose user gave none: two words and, when taken, a number."""

from __future__ import annotations

import secrets
from collections.abc import Container

_FIRST = (
    "amber bright brisk calm candid clear cosy crisp deft eager fair fleet fond gentle glad golden hardy "
    "honest humble jolly keen kind lively loyal lucid lunar mellow merry misty modest neat nimble noble "
    "patient plain polite proud quick quiet rapid ready serene sharp shy silent simple sleek smart snug "
    "solar solid spry steady still sturdy subtle sunny swift tidy tranquil trusty vivid warm wise witty "
    "woven"
).split()
_SECOND = (
    "anchor arch bamboo beacon bridge brook cable canal cedar chain channel compass cord crane delta dock "
    "ferry fjord ford gate harbor heron hinge inlet island jetty kite knot lantern lattice lighthouse "
    "link lock loom maple mast meadow mesh moor needle otter path pier pine plait pulley quay raft reed "
    "ribbon ring rivet river rope route sail seam shuttle signal silk span spindle spool strait strand "
    "thread tide torii tower trellis tunnel viaduct weaver willow wire"
).split()


def unused_name(taken: Container[str]) -> str:
    """Return a readable name that is not in `taken`."""
    for attempt in range(1000):
        name = f"{secrets.choice(_FIRST)}_{secrets.choice(_SECOND)}"
        if attempt > 5:
            name += str(secrets.randbelow(10 ** min(attempt // 5, 9)))
        if name not in taken:
            return name
    raise RuntimeError("no free container name found")
