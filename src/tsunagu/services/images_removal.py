"""Why an image may not be removed, in Docker's words. May import model; decides on values alone."""

from __future__ import annotations

from tsunagu.model import ids
from tsunagu.model.errors import Conflict
from tsunagu.model.image import Image


def conflict(image: Image, forced: str, why: str, hint: str = "") -> Conflict:
    """Return the refusal to delete an image by its id."""
    return Conflict(f"conflict: unable to delete {ids.short(image.id)} ({forced}) - {why}", hint=hint)


def check_unheld(image: Image, holder: tuple[str, bool] | None, force: bool) -> None:
    """Raise Conflict while a container (id, whether it runs) stands on the image."""
    if holder is None:
        return
    name = ids.short(holder[0])
    if holder[1]:
        raise conflict(
            image, "cannot be forced", f"image is being used by running container {name}", f"stop it first: stop {name}"
        )
    if not force:
        raise conflict(
            image, "must be forced", f"image is being used by stopped container {name}", f"remove it first: rm {name}"
        )
