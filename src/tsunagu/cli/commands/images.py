"""`images`, `history`, `rmi`, `tag`. May import: `client`, `cli`. Must never import the engine."""

from __future__ import annotations

from time import time

from tsunagu.cli.command import Command
from tsunagu.cli.main import describe
from tsunagu.cli.output import Failure, say, warn
from tsunagu.cli.paths import api_path
from tsunagu.cli.render import ellipsis, print_list, query_filters, short_id
from tsunagu.cli.units import go_time, human_duration, human_size, rfc3339
from tsunagu.client import ApiError, ClientError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from tsunagu.cli.flags import Flag, Options
    from tsunagu.cli.main import Context

    Item = dict[str, Any]

FORMAT: Flag = ("format", "", "string", "", "Format the output: 'table', 'table TEMPLATE', 'json' or a Go template")
_LS_FLAGS: tuple[Flag, ...] = (
    ("all", "a", "bool", False, "Show all images (intermediate ones are hidden otherwise)"),
    ("digests", "", "bool", False, "Show digests"),
    ("filter", "f", "filter", (), "Show only what matches"),
    FORMAT,
    ("no-trunc", "", "bool", False, "Do not shorten"),
    ("quiet", "q", "bool", False, "Print image IDs only"),
)
_HISTORY_FLAGS: tuple[Flag, ...] = (
    FORMAT,
    ("human", "H", "bool", True, "Print sizes and dates for people (default true)"),
    ("no-trunc", "", "bool", False, "Do not shorten"),
    ("platform", "", "string", "", "Show the history for this platform"),
    ("quiet", "q", "bool", False, "Print image IDs only"),
)
_RMI_FLAGS: tuple[Flag, ...] = (
    ("force", "f", "bool", False, "Remove the image by force"),
    ("no-prune", "", "bool", False, "Keep parents without a name"),
    ("platform", "", "strings", (), "Remove only this variant of the image"),
)


def _images(context: Context, options: Options, arguments: list[str]) -> int:
    pairs = list(options["filter"])
    if arguments:
        pairs.append(("reference", arguments[0]))
    query: dict[str, str | int] = {}
    if options["all"]:
        query["all"] = 1
    if pairs:
        query["filters"] = query_filters(pairs)
    has_digests = options["digests"] or ".Digest" in options["format"]
    is_short = not options["no-trunc"]
    rows = [row for image in context.client().get("/images/json", query) for row in _names(image, has_digests)]
    default = ["Repository", "Tag", "ID", "CreatedSince", "Size"]
    if options["digests"]:
        default.insert(2, "Digest")

    def identity(row: Item) -> str:
        found: str = row["image"]["Id"]
        return short_id(found) if is_short else found

    print_list(
        {
            "Repository": ("REPOSITORY", lambda row: row["repository"]),
            "Tag": ("TAG", lambda row: row["tag"]),
            "Digest": ("DIGEST", lambda row: row["digest"]),
            "ID": ("IMAGE ID", identity),
            "CreatedSince": ("CREATED", lambda row: f"{human_duration(time() - row['image']['Created'])} ago"),
            "CreatedAt": ("CREATED AT", lambda row: go_time(row["image"]["Created"])),
            "Size": ("SIZE", lambda row: human_size(row["image"]["Size"], 3)),
            "Containers": ("CONTAINERS", lambda row: _count(row["image"].get("Containers", -1))),
            "VirtualSize": ("SIZE", lambda row: human_size(row["image"]["Size"])),
            "SharedSize": ("SHARED SIZE", lambda row: _shared(row["image"])),
            "UniqueSize": ("UNIQUE SIZE", lambda row: _unique(row["image"])),
        },
        rows,
        default=default,
        type_name="*formatter.imageContext",
        template=options["format"],
        quiet=identity if options["quiet"] else None,
        raw=[line for line in _RAW if line[0] != "digest" or options["digests"]],
    )
    return 0


_RAW = (
    ("repository", " {{.Repository}}"),
    ("tag", " {{.Tag}}"),
    ("digest", " {{.Digest}}"),
    ("image_id", " {{.ID}}"),
    ("created_at", " {{.CreatedAt}}"),
    ("virtual_size", " {{.Size}}"),
)


def _count(number: int) -> str:
    return "N/A" if number == -1 else str(number)


def _shared(image: Item) -> str:
    return "N/A" if image.get("SharedSize", -1) == -1 else human_size(image["SharedSize"])


def _unique(image: Item) -> str:
    return "N/A" if image.get("SharedSize", -1) == -1 else human_size(image["Size"] - image["SharedSize"])


def _names(image: Item, has_digests: bool) -> list[Item]:
    """One row for each name of an image; digests appear only where they are asked for."""
    tags: dict[str, list[str]] = {}
    digests: dict[str, list[str]] = {}
    for text in image.get("RepoTags") or ():
        if text != "<none>:<none>":
            name, _, tag = text.rpartition(":")
            tags.setdefault(name, []).append(tag)
    for text in image.get("RepoDigests") or ():
        if text != "<none>@<none>":
            name, _, digest = text.partition("@")
            digests.setdefault(name, []).append(digest)
    rows = []
    for name in dict.fromkeys([*tags, *digests]):
        for tag in tags.get(name) or ["<none>"]:
            for digest in (digests.get(name) or ["<none>"]) if has_digests else ["<none>"]:
                rows.append({"image": image, "repository": name, "tag": tag, "digest": digest})
    return rows or [{"image": image, "repository": "<none>", "tag": "<none>", "digest": "<none>"}]


def _history(context: Context, options: Options, arguments: list[str]) -> int:
    query = {"platform": options["platform"]} if options["platform"] else None
    is_short, is_human = not options["no-trunc"], options["human"]

    def created(layer: Item) -> str:
        if layer["Created"] <= 0:
            return "N/A" if is_human else ""
        return f"{human_duration(time() - layer['Created'])} ago" if is_human else rfc3339(layer["Created"])

    def size(layer: Item) -> str:
        return human_size(layer["Size"], 3) if is_human else str(layer["Size"])

    def identity(layer: Item) -> str:
        found: str = layer["Id"]
        return short_id(found) if is_short else found

    def made_by(layer: Item) -> str:
        text = layer["CreatedBy"].replace("\t", " ")
        return ellipsis(text, 45) if is_short else text

    print_list(
        {
            "ID": ("IMAGE", identity),
            "CreatedSince": ("CREATED" if is_human else "CREATED AT", created),
            "CreatedAt": ("CREATED AT", lambda layer: rfc3339(layer["Created"]) if layer["Created"] > 0 else ""),
            "CreatedBy": ("CREATED BY", made_by),
            "Size": ("SIZE", size),
            "Comment": ("COMMENT", lambda layer: layer["Comment"]),
        },
        context.client().get(api_path("image", arguments[0]) + "/history", query),
        default=("ID", "CreatedSince", "CreatedBy", "Size", "Comment"),
        type_name="*image.historyContext",
        template=options["format"],
        quiet=identity if options["quiet"] else None,
    )
    return 0


def _rmi(context: Context, options: Options, names: list[str]) -> int:
    query: dict[str, str | int | list[str]] = {}
    if options["force"]:
        query["force"] = 1
    if options["no-prune"]:
        query["noprune"] = 1
    if options["platform"]:
        query["platforms"] = list(options["platform"])
    client = context.client()
    errors: list[ClientError] = []
    for name in names:
        try:
            for item in client.delete(api_path("image", name), query):
                say(f"Deleted: {item['Deleted']}" if item.get("Deleted") else f"Untagged: {item['Untagged']}")
        except ClientError as error:
            errors.append(error)
    for problem in errors:
        warn(describe(problem))
    is_absent = [isinstance(problem, ApiError) and problem.status == 404 for problem in errors]
    return int(bool(errors) and not (options["force"] and all(is_absent)))


def _tag(context: Context, _options: Options, arguments: list[str]) -> int:
    from tsunagu.cli.references import parse

    source, target = arguments
    try:
        reference = parse(target)
    except ValueError as error:
        raise Failure(f'Error parsing reference: "{target}" is not a valid repository/tag: {error}') from None
    if reference.digest:
        raise Failure("refusing to create a tag with a digest reference")
    query = {"repo": reference.name, "tag": reference.tag or "latest"}
    context.client().post(api_path("image", source) + "/tag", query)
    return 0


IMAGES = Command("[OPTIONS] [REPOSITORY[:TAG]]", "List images", _images, flags=_LS_FLAGS, most=1)
HISTORY = Command("[OPTIONS] IMAGE", "Show how an image was made", _history, flags=_HISTORY_FLAGS, least=1, most=1)
RMI = Command("[OPTIONS] IMAGE [IMAGE...]", "Remove one or more images", _rmi, flags=_RMI_FLAGS, least=1)
TAG = Command("SOURCE_IMAGE[:TAG] TARGET_IMAGE[:TAG]", "Give an image another name", _tag, least=2, most=2)
