"""Images in and out: `load`, `save`, `import`, `pull`. May import: `client`, `cli`. Must never import the engine."""

from __future__ import annotations

import posix

from tsunagu.cli.command import Command
from tsunagu.cli.output import Failure, is_terminal, say, write_all
from tsunagu.cli.progress import print_stream, with_bar

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from tsunagu.cli.flags import Flag, Options
    from tsunagu.cli.main import Context
    from tsunagu.client import Response

_PIECE = 1 << 18
_PLATFORM: Flag = ("platform", "", "string", "", "Platform of a multi-platform image")
_LOAD_FLAGS: tuple[Flag, ...] = (
    ("input", "i", "string", "", "Read from a file instead of STDIN"),
    _PLATFORM,
    ("quiet", "q", "bool", False, "No progress"),
)
_SAVE_FLAGS: tuple[Flag, ...] = (("output", "o", "string", "", "Write to a file instead of STDOUT"), _PLATFORM)
_IMPORT_FLAGS: tuple[Flag, ...] = (
    ("change", "c", "list", (), "Apply a Dockerfile instruction to the image"),
    ("message", "m", "string", "", "Commit message of the image"),
    _PLATFORM,
)
_PULL_FLAGS: tuple[Flag, ...] = (
    ("all-tags", "a", "bool", False, "Pull every tag of the repository"),
    ("disable-content-trust", "", "bool", True, None),
    _PLATFORM,
    ("quiet", "q", "bool", False, "No progress"),
)


def _open(path: str) -> int:
    """A descriptor for reading. Raises Failure with Go's words."""
    try:
        return posix.open(path, posix.O_RDONLY | posix.O_CLOEXEC)
    except OSError as error:
        raise Failure(f"open {path}: {(error.strerror or str(error)).lower()}") from None


def _read(fd: int) -> Iterator[bytes]:
    while piece := posix.read(fd, _PIECE):
        yield piece


def _load(context: Context, options: Options, _arguments: list[str]) -> int:
    if options["input"]:
        fd = _open(options["input"])
    elif is_terminal(0):
        raise Failure("requested load from stdin, but stdin is empty")
    else:
        fd = 0
    has_progress = is_terminal(1) and not options["quiet"]
    query: dict[str, str | int] = {} if has_progress else {"quiet": 1}
    if options["platform"]:
        query["platform"] = options["platform"]
    pieces = _read(fd)
    if has_progress:
        pieces = with_bar(pieces, posix.fstat(fd).st_size, "Loading")
    client = context.client()
    response = client.open("POST", "/images/load", query, upload=pieces, content_type="application/x-tar")
    print_stream(response.raise_for_status().documents())
    return 0


def _save(context: Context, options: Options, names: list[str]) -> int:
    path = options["output"]
    if not path and is_terminal(1):
        raise Failure("cowardly refusing to save to a terminal. Use the -o flag or redirect")
    if path:
        check_output(path, "failed to save image")
    query: dict[str, str | int | list[str]] = {"names": names}
    if options["platform"]:
        query["platform"] = options["platform"]
    write_archive(context.client().open("GET", "/images/get", query).raise_for_status(), path, "Saving")
    return 0


def write_archive(response: Response, path: str, title: str) -> None:
    """An answer's body to a file, or to standard output where `path` is empty."""
    if not path:
        for piece in response.pieces():
            write_all(1, piece)
        return
    # A name of its own until the archive is whole: an interrupted save leaves no half file under the asked name.
    partial = f"{path}.{posix.getpid()}.partial"
    fd = posix.open(partial, posix.O_WRONLY | posix.O_CREAT | posix.O_EXCL | posix.O_CLOEXEC, 0o600)
    try:
        for piece in with_bar(response.pieces(), 0, title):
            write_all(fd, piece)
        posix.rename(partial, path)
    except BaseException:
        posix.unlink(partial)
        raise
    finally:
        posix.close(fd)


def check_output(path: str, complaint: str) -> None:
    """Raise Failure, beginning with `complaint`, when the directory of an output file is not there."""
    directory = path.rpartition("/")[0] or ("/" if path.startswith("/") else ".")
    try:
        posix.stat(directory)
    except OSError as error:
        reason = (error.strerror or "").lower()
        raise Failure(f"{complaint}: invalid output path: stat {directory}: {reason}") from None


def _import(context: Context, options: Options, arguments: list[str]) -> int:
    source = arguments[0]
    query: dict[str, str | int | list[str]] = {"fromSrc": source}
    if len(arguments) > 1:
        from tsunagu.cli.references import parse

        try:
            parse(arguments[1])
        except ValueError as error:
            raise Failure(str(error)) from None
        query["repo"] = arguments[1]
    if options["message"]:
        query["message"] = options["message"]
    if options["change"]:
        query["changes"] = options["change"]
    if options["platform"]:
        query["platform"] = options["platform"]
    pieces: Iterator[bytes] | None = None
    if not source.startswith(("http://", "https://")):
        query["fromSrc"] = "-"
        fd = 0 if source == "-" else _open(source)
        pieces = with_bar(_read(fd), posix.fstat(fd).st_size, "Importing")
    client = context.client()
    response = client.open("POST", "/images/create", query, upload=pieces, content_type="application/x-tar")
    print_stream(response.raise_for_status().documents())
    return 0


def _pull(context: Context, options: Options, arguments: list[str]) -> int:
    from tsunagu.cli.pulling import pull_image
    from tsunagu.cli.references import parse

    try:
        reference = parse(arguments[0])
    except ValueError as error:
        raise Failure(str(error)) from None
    if options["all-tags"]:
        if reference.tag or reference.digest:
            raise Failure("tag can't be used with --all-tags/-a")
    elif not reference.tag and not reference.digest:
        reference.tag = "latest"
        if not options["quiet"]:
            say("Using default tag: latest")
    pull_image(
        context.client(),
        arguments[0],
        options["platform"],
        is_quiet=options["quiet"],
        fd=1,
        wants_all_tags=options["all-tags"],
    )
    say(reference.text(reference.name))
    return 0


LOAD = Command("[OPTIONS]", "Load images from a tar archive or STDIN", _load, flags=_LOAD_FLAGS, most=0)
SAVE = Command(
    "[OPTIONS] IMAGE [IMAGE...]",
    "Save images as a tar archive (to STDOUT by default)",
    _save,
    flags=_SAVE_FLAGS,
    least=1,
)
IMPORT = Command(
    "[OPTIONS] file|URL|- [REPOSITORY[:TAG]]",
    "Make an image from the files of a tarball",
    _import,
    flags=_IMPORT_FLAGS,
    least=1,
)
PULL = Command(
    "[OPTIONS] NAME[:TAG|@DIGEST]", "Download an image from a registry", _pull, flags=_PULL_FLAGS, least=1, most=1
)
