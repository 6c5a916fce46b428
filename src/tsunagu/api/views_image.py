"""Docker's JSON of images. Pure."""

from __future__ import annotations

from tsunagu.model.image import Image

from .views import ZERO_TIME, Json, by_key, parse_rfc3339


def created_ns(image: Image) -> int:
    """Return the image's creation time in nanoseconds since the epoch, 0 when it has none."""
    return parse_rfc3339(str(image.config.get("created") or ""))


def image_json(image: Image, version: tuple[int, int]) -> Json:
    """Render `GET /images/{name}/json`."""
    config, run = image.config, image.run
    out: Json = {
        "Id": image.id,
        "RepoTags": image.tags,
        "RepoDigests": image.digests,
        "Parent": "",
        "Comment": _comment(image),
        "Created": config.get("created") or ZERO_TIME,
        "DockerVersion": str(config.get("docker_version") or ""),
        "Author": str(config.get("author") or ""),
        "Config": _run_json(run),
        "Architecture": str(config.get("architecture") or ""),
    }
    if variant := config.get("variant"):
        out["Variant"] = str(variant)
    out |= {
        "Os": str(config.get("os") or "linux"),
        "Size": image.size,
        "GraphDriver": {"Name": "overlay2", "Data": None},
        "RootFS": {"Type": "layers", "Layers": image.diff_ids},
        "Metadata": {"LastTagTime": ZERO_TIME},
    }
    if version < (1, 44):
        out["VirtualSize"] = image.size
    return out


def _comment(image: Image) -> str:
    history = image.config.get("history")
    if image.config.get("comment"):
        return str(image.config["comment"])
    last = history[-1] if isinstance(history, list) and history else {}
    return str(last.get("comment") or "") if isinstance(last, dict) else ""


def _run_json(run: Json) -> Json:
    """The image's run configuration with the keys Docker always shows; what it does not know is kept."""
    known = {
        "Hostname": "",
        "Domainname": "",
        "User": "",
        "AttachStdin": False,
        "AttachStdout": False,
        "AttachStderr": False,
        "Tty": False,
        "OpenStdin": False,
        "StdinOnce": False,
        "Env": None,
        "Cmd": None,
        "Image": "",
        "Volumes": None,
        "WorkingDir": "",
        "Entrypoint": None,
        "OnBuild": None,
        "Labels": None,
    }
    return {**known, **run}


def image_summary_json(image: Image, version: tuple[int, int], containers: int) -> Json:
    """Render one line of `GET /images/json`; `containers` is their number, -1 when not counted."""
    is_dangling_named = not image.tags and version < (1, 43)
    out: Json = {
        "Containers": containers,
        "Created": created_ns(image) // 1_000_000_000,
        "Id": image.id,
        "Labels": by_key(labels) if (labels := image.run.get("Labels")) else None,
        "ParentId": "",
        "RepoDigests": image.digests or (["<none>@<none>"] if is_dangling_named else []),
        "RepoTags": image.tags or (["<none>:<none>"] if is_dangling_named else []),
        "SharedSize": -1,
        "Size": image.size,
    }
    if version < (1, 44):
        out["VirtualSize"] = image.size
    return out
