"""Ask the engine to pull an image: for `pull` and for `run` with an image that is not there. May import: `client`."""

from __future__ import annotations

from tsunagu.cli.output import Failure
from tsunagu.cli.progress import print_stream
from tsunagu.cli.references import parse

TYPE_CHECKING = False
if TYPE_CHECKING:
    from tsunagu.client import Client


def pull_image(
    client: Client, image: str, platform: str, *, is_quiet: bool, fd: int, wants_all_tags: bool = False
) -> None:
    """Pull with progress on `fd`. Raises Failure (the reference, or an error in the stream) and ApiError."""
    try:
        reference = parse(image)
    except ValueError as error:
        raise Failure(str(error)) from None
    query = {"fromImage": reference.name}
    if not wants_all_tags:
        query["tag"] = reference.digest or reference.tag or "latest"
    if platform:
        query["platform"] = platform
    response = client.open("POST", "/images/create", query).raise_for_status()
    if not is_quiet:
        print_stream(response.documents(), fd)
        return
    for document in response.documents():
        if document.get("error"):
            raise Failure((document.get("errorDetail") or {}).get("message") or document["error"])
