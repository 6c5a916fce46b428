"""`diff`, `export` and `commit`: what a container changed, its whole root file system, an image of it.

May import: `client`, `cli`. Must never import the engine.
"""

from __future__ import annotations

from tsunagu.cli.command import Command
from tsunagu.cli.output import Failure, is_terminal, out, say
from tsunagu.cli.paths import api_path

TYPE_CHECKING = False
if TYPE_CHECKING:
    from tsunagu.cli.flags import Flag, Options
    from tsunagu.cli.main import Context

_EXPORT_FLAGS: tuple[Flag, ...] = (("output", "o", "string", "", "Write to a file, instead of STDOUT"),)


def _diff(context: Context, _options: Options, arguments: list[str]) -> int:
    name = arguments[0]
    if not name:
        raise Failure("Container name cannot be empty")
    changes = context.client().get(api_path("container", name) + "/changes") or []
    out("".join([f"{'CAD'[change['Kind']]} {change['Path']}\n" for change in changes]))
    return 0


def _export(context: Context, options: Options, arguments: list[str]) -> int:
    from tsunagu.cli.commands.archives import check_output, write_archive

    path = options["output"]
    if not path and is_terminal(1):
        raise Failure("cowardly refusing to save to a terminal. Use the -o flag or redirect")
    if path:
        check_output(path, "failed to export container")
    response = context.client().open("GET", api_path("container", arguments[0]) + "/export").raise_for_status()
    write_archive(response, path, "Exporting")
    return 0


def _commit(context: Context, options: Options, arguments: list[str]) -> int:
    query: dict[str, str | int | list[str]] = {"container": arguments[0], "pause": "1" if options["pause"] else "0"}
    if len(arguments) > 1 and arguments[1]:
        from tsunagu.cli.references import parse

        try:
            reference = parse(arguments[1])
        except ValueError as error:
            raise Failure(str(error)) from None
        query["repo"], query["tag"] = reference.name, reference.tag or "latest"
    for flag, key in (("message", "comment"), ("author", "author"), ("change", "changes")):
        if options[flag]:
            query[key] = options[flag]
    say(context.client().post("/commit", query)["Id"])
    return 0


COMMIT = Command(
    "[OPTIONS] CONTAINER [REPOSITORY[:TAG]]",
    "Create a new image from a container's changes",
    _commit,
    flags=(
        ("author", "a", "string", "", 'Author (e.g., "John Hannibal Smith <hannibal@a-team.com>")'),
        ("change", "c", "list", (), "Apply Dockerfile instruction to the created image"),
        ("message", "m", "string", "", "Commit message"),
        ("pause", "p", "bool", True, "Pause container during commit"),
    ),
    least=1,
    most=2,
)
DIFF = Command(
    "CONTAINER", "Inspect changes to files or directories on a container's filesystem", _diff, least=1, most=1
)
EXPORT = Command(
    "[OPTIONS] CONTAINER",
    "Export a container's filesystem as a tar archive",
    _export,
    flags=_EXPORT_FLAGS,
    least=1,
    most=1,
)
