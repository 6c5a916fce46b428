"""Image references as users write and read them, and as the engine wants them. May import: nothing slow."""

from __future__ import annotations

_DEFAULT_DOMAIN = "docker.io"


class Reference:
    """A parsed reference. `name` has its domain ("docker.io/library/alpine"); `tag`, `digest` are "" where absent."""

    __slots__ = ("digest", "name", "tag")

    def __init__(self, name: str, tag: str, digest: str) -> None:
        self.name = name
        self.tag = tag
        self.digest = digest

    @property
    def familiar(self) -> str:
        """The name without Docker's default domain and `library/`."""
        for prefix in (f"{_DEFAULT_DOMAIN}/library/", f"{_DEFAULT_DOMAIN}/"):
            if self.name.startswith(prefix):
                return self.name[len(prefix) :]
        return self.name

    def text(self, name: str) -> str:
        """A name with this reference's tag and digest."""
        return name + (f":{self.tag}" if self.tag else "") + (f"@{self.digest}" if self.digest else "")


def parse(text: str) -> Reference:
    """The reference in its full form. Raises ValueError with the sentence of distribution/reference."""
    rest, at, digest = text.partition("@")
    slash, colon = rest.rfind("/"), rest.rfind(":")
    name, tag = (rest[:colon], rest[colon + 1 :]) if colon > slash else (rest, "")
    if (at and not _is_digest(digest)) or (colon > slash and not _is_tag(tag)):
        raise ValueError("invalid reference format")
    domain, has_slash, path = name.partition("/")
    is_domain = has_slash and ("." in domain or ":" in domain or domain == "localhost" or domain.lower() != domain)
    if not is_domain:
        domain, path = _DEFAULT_DOMAIN, name
    if domain == "index.docker.io":
        domain = _DEFAULT_DOMAIN
    if domain == _DEFAULT_DOMAIN and "/" not in path:
        path = f"library/{path}"
    if path.lower() != path:
        raise ValueError(f"invalid reference format: repository name ({path}) must be lowercase")
    if not all(_is_component(component) for component in path.split("/")) or not _is_domain(domain):
        raise ValueError("invalid reference format")
    return Reference(f"{domain}/{path}", tag, digest)


def familiar_name(text: str) -> str:
    """The short form with its tag: "docker.io/library/alpine" -> "alpine:latest". Raises ValueError."""
    found = parse(text)
    if not found.tag and not found.digest:
        found.tag = "latest"
    return found.text(found.familiar)


def _is_tag(text: str) -> bool:
    plain = text.replace("_", "a").replace(".", "a").replace("-", "a")
    return 0 < len(text) <= 128 and plain.isascii() and plain.isalnum() and text[0] not in ".-"


def _is_digest(text: str) -> bool:
    algorithm, _, digits = text.partition(":")
    return bool(algorithm) and len(digits) >= 32 and not set(digits) - set("0123456789abcdef")


def _is_component(text: str) -> bool:
    """Lower-case words joined by one dot, one or two underscores, or any number of dashes."""
    if not text or not text.isascii() or not text[0].isalnum() or not text[-1].isalnum():
        return False
    separator = ""
    for letter in text + "a":
        if letter.isalnum():
            if separator and separator not in (".", "_", "__") and set(separator) != {"-"}:
                return False
            separator = ""
        elif letter in "._-":
            separator += letter
        else:
            return False
    return True


def _is_domain(text: str) -> bool:
    host, colon, port = text.partition(":")
    labels = host.split(".")
    is_host = all(label.replace("-", "a").isalnum() and label[0] != "-" and label[-1] != "-" for label in labels)
    return is_host and text.isascii() and (not colon or port.isdecimal())
