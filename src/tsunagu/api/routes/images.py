"""`/images`."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator
from contextlib import aclosing

from tsunagu.api.filters import Filters, parse_filters
from tsunagu.api.globs import matches
from tsunagu.api.request import JSON, Request, Response, empty_response, json_response
from tsunagu.api.router import Route
from tsunagu.api.views_image import created_ns, image_json, image_summary_json
from tsunagu.model.errors import EngineError, InvalidParameter, NotSupported, Unavailable
from tsunagu.model.image import Image, parse_reference
from tsunagu.services import builtin
from tsunagu.services.filters import parse_until

_LIST_FILTERS = {"before", "dangling", "label", "reference", "since", "until"}
_PRUNE_FILTERS = {"dangling", "label", "label!", "until"}
_TAR = b"application/x-tar"


def list_images(request: Request) -> Response:
    filters = parse_filters(request.text("filters"), _LIST_FILTERS)
    images, world = request.app.images, request.app.engine.world
    chosen = images.all()
    if filters:
        chosen = _filtered(request, chosen, filters)
    counts = Counter(c.image_id for c in world.containers.values())
    chosen = sorted(chosen, key=created_ns, reverse=True)
    return json_response([image_summary_json(i, request.version, counts[i.id]) for i in chosen])


def _filtered(request: Request, chosen: list[Image], filters: Filters) -> list[Image]:
    for bound in ("before", "since"):
        for word in filters.get(bound, ()):
            created = created_ns(request.app.images.find(word))
            chosen = [i for i in chosen if (created_ns(i) < created if bound == "before" else created_ns(i) > created)]
    until = parse_until(filters.get("until", ()))
    dangling = filters.flag("dangling")
    return [
        i
        for i in chosen
        if (dangling is None or dangling == (not i.tags))
        and (until is None or created_ns(i) < until)
        and filters.has_labels(i.run.get("Labels") or {})
        and ("reference" not in filters or any(_is_called(i, pattern) for pattern in filters["reference"]))
    ]


def _is_called(image: Image, pattern: str) -> bool:
    """Go's path.Match on the familiar name with its tag, and without it."""
    return any(matches(pattern, tag) or matches(pattern, tag.rpartition(":")[0]) for tag in image.tags)


def inspect(request: Request) -> Response:
    return json_response(image_json(request.app.images.find(request.words["word"]), request.version))


def history(request: Request) -> Response:
    return json_response(request.app.images.history(request.words["word"]))


async def tag(request: Request) -> Response:
    await request.app.images.tag(request.words["word"], request.text("repo"), request.text("tag"))
    return empty_response(201)


async def remove(request: Request) -> Response:
    holders: dict[str, tuple[str, bool]] = {}
    for container in request.app.engine.world.containers.values():
        if container.is_up or container.image_id not in holders:
            holders[container.image_id] = (container.id, container.is_up)
    removed = await request.app.images.remove(request.words["word"], force=request.flag("force"), holders=holders)
    return json_response(removed)


async def prune(request: Request) -> Response:
    filters = parse_filters(request.text("filters"), _PRUNE_FILTERS)
    until = parse_until(filters.get("until", ()))

    def is_wanted(image: Image) -> bool:
        is_old = until is None or created_ns(image) < until
        return is_old and filters.has_labels(image.run.get("Labels") or {})

    in_use = {c.image_id for c in request.app.engine.world.containers.values()}
    removed, freed = await request.app.images.prune(
        dangling_only=filters.flag("dangling", default=True) is True, in_use=in_use, is_wanted=is_wanted
    )
    return json_response({"ImagesDeleted": removed or None, "SpaceReclaimed": freed})


async def load(request: Request) -> None:
    """An error before the first line is an HTTP status; a later one is a line of the stream, as Docker's are."""
    lines = request.app.images.load(request.chunks())
    first = await anext(lines, None)
    request.stream(JSON)
    async with aclosing(lines):  # type: ignore[type-var]
        if first is not None:
            await request.write_json({"stream": first})
        try:
            async for line in lines:
                await request.write_json({"stream": line})
        except EngineError as error:
            await request.write_json(_stream_error(error))


def _stream_error(error: EngineError) -> dict[str, object]:
    return {"errorDetail": {"message": str(error)}, "error": str(error)}


async def create(request: Request) -> None:
    """Import a root file system (`fromSrc=-`), or pull (`fromImage`)."""
    if word := request.text("fromImage"):
        await _pull(request, word, request.text("tag"))
        return
    source = request.text("fromSrc")
    if source != "-":
        raise NotSupported(
            f"importing from {source or 'nowhere'} is not supported", hint="send the archive itself: fromSrc=-"
        )
    repo, wanted = request.text("repo"), request.text("tag")
    if repo and not wanted:
        reference = parse_reference(repo)
        repo, wanted = reference.name, reference.tag
    image = await request.app.images.import_rootfs(
        request.chunks(), repo, wanted, request.text("message"), request.values("changes")
    )
    request.stream(JSON)
    await request.write_json({"status": image.id})


async def _pull(request: Request, word: str, wanted: str) -> None:
    """Docker's rules: a tag or digest in `fromImage` counts unless `tag` is given; with neither all tags are meant.

    The built-in image needs no registry. A client that goes away ends the pull with the next line.
    """
    if wanted:
        word = f"{word}@{wanted}" if ":" in wanted else f"{word}:{wanted}"
    reference = parse_reference(word, default_tag="")
    images = request.app.images
    if str(parse_reference(word)) == builtin.REFERENCE:
        await images.ensure(word)
        request.stream(JSON)
        return
    messages = images.pull(reference, request.text("platform"), request.headers.get("x-registry-auth", ""))
    async with aclosing(messages):  # type: ignore[type-var]
        first = await anext(messages, None)
        request.stream(JSON)
        try:
            if first is not None:
                await request.write_json(first)
            async for message in messages:
                await request.write_json(message)
        except EngineError as error:
            await request.write_json(_stream_error(error))


async def save(request: Request) -> None:
    words = request.values("names") or ([request.words["word"]] if "word" in request.words else [])
    words = [name for word in words for name in word.split(",") if name]
    if not words:
        raise InvalidParameter("no image names given: use the names parameter")
    chunks = request.app.images.save(words)
    first = await anext(chunks, b"")  # an unknown image is an HTTP status
    request.stream(_TAR)
    await request.write(first)
    await _copy(request, chunks)


async def _copy(request: Request, chunks: AsyncIterator[bytes]) -> None:
    async for chunk in chunks:
        await request.write(chunk)


def search(request: Request) -> Response:
    raise Unavailable("searching registries is not supported yet", hint="bring images in with load or import")


ROUTES = (
    Route("GET", "/images/json", list_images),
    Route("GET", "/images/search", search),
    Route("GET", "/images/get", save, is_cancellable=True),
    Route("POST", "/images/create", create),
    Route("POST", "/images/load", load),
    Route("POST", "/images/prune", prune),
    Route("GET", "/images/{word*}/json", inspect),
    Route("GET", "/images/{word*}/history", history),
    Route("GET", "/images/{word*}/get", save, is_cancellable=True),
    Route("POST", "/images/{word*}/tag", tag),
    Route("DELETE", "/images/{word*}", remove),
)
