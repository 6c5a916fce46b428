"""One module of handlers for each group of endpoints, joined into the route table here.

A handler is a plain function when it answers from memory (it then costs no task), else a coroutine. Handlers decode
with `api.schema`, call one service, and render with `api.views*`; they decide nothing about containers or networks.
"""

from __future__ import annotations

from . import (
    absent,
    archives,
    attachments,
    commits,
    containers,
    dns,
    doctor,
    execs,
    images,
    map,
    networks,
    pausing,
    statistics,
    system,
    updating,
    usage,
    volumes,
    why,
)

ROUTES = (
    *system.ROUTES,
    *usage.ROUTES,
    *containers.ROUTES,
    *pausing.ROUTES,
    *updating.ROUTES,
    *archives.ROUTES,
    *commits.ROUTES,
    *attachments.ROUTES,
    *statistics.ROUTES,
    *execs.ROUTES,
    *networks.ROUTES,
    *images.ROUTES,
    *map.ROUTES,
    *doctor.ROUTES,
    *volumes.ROUTES,
    *why.ROUTES,
    *dns.ROUTES,
    *absent.ROUTES,
)
