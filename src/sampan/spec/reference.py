"""Image references: ``[domain/]path[:tag][@digest]`` with Docker's grammar, defaults and words.

Theory: people type *familiar* names (``busybox``), the store keeps *canonical* ones
(``docker.io/library/busybox:latest``). ``parse`` goes from the first to the second, ``familiar`` back.
The grammar is that of the distribution project's ``reference`` package (OCI distribution-spec, "Pulling
manifests", restricts names in the same way).

Laws: ``parse(r.familiar) == r`` for every reference ``r``; nothing that parses contains an upper-case letter
in its path, a space, or more than 255 characters of name.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

from sampan.errors import InvalidArgument
from sampan.spec import digest as digests

DEFAULT_DOMAIN = "docker.io"
LEGACY_DOMAIN = "index.docker.io"
OFFICIAL_PREFIX = "library/"
DEFAULT_TAG = "latest"
NAME_LIMIT = 255

_LABEL = r"(?:[a-zA-Z0-9]|[a-zA-Z0-9][a-zA-Z0-9-]*[a-zA-Z0-9])"
_DOMAIN = rf"(?:{_LABEL}(?:\.{_LABEL})*|\[(?:[a-fA-F0-9:]+)\])(?::[0-9]+)?"
_COMPONENT = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_PATH = rf"{_COMPONENT}(?:/{_COMPONENT})*"
_TAG = r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}"
_DIGEST = r"[A-Za-z][A-Za-z0-9]*(?:[-_+.][A-Za-z][A-Za-z0-9]*)*:[0-9a-fA-F]{32,}"
_REFERENCE = re.compile(
    rf"(?P<domain>{_DOMAIN})/(?P<path>{_PATH})(?::(?P<tag>{_TAG}))?(?:@(?P<digest>{_DIGEST}))?", re.ASCII
)
_DOMAIN_ONLY = re.compile(_DOMAIN, re.ASCII)
_TAG_ONLY = re.compile(_TAG, re.ASCII)
_IDENTIFIER = re.compile(r"[a-f0-9]{64}")
_ID_PREFIX = re.compile(r"(?:sha256:)?([a-f0-9]{1,64})")


@dataclass(frozen=True, slots=True, kw_only=True)
class Reference:
    """One normalised reference. ``domain`` and ``path`` are never empty; ``tag`` and ``digest`` may be."""

    domain: str
    path: str
    tag: str | None = None
    digest: str | None = None

    @property
    def name(self) -> str:
        """The canonical repository name, ``docker.io/library/busybox``."""
        return f"{self.domain}/{self.path}"

    @property
    def familiar_name(self) -> str:
        """The repository name as people type it, ``busybox``."""
        if self.domain != DEFAULT_DOMAIN or _split_domain(self.path)[0] != DEFAULT_DOMAIN:
            return self.name  # a path that begins like a host cannot stand alone
        rest = self.path.removeprefix(OFFICIAL_PREFIX)
        return self.path if "/" in rest else rest

    @property
    def suffix(self) -> str:
        """``:tag`` and ``@digest``, as far as present."""
        return (f":{self.tag}" if self.tag else "") + (f"@{self.digest}" if self.digest else "")

    @property
    def canonical(self) -> str:
        """The whole canonical reference, the key of the store."""
        return self.name + self.suffix

    @property
    def familiar(self) -> str:
        """The whole reference as people type it."""
        return self.familiar_name + self.suffix

    def at_tag(self, tag: str) -> Reference:
        """That tag of the repository."""
        return replace(self, tag=tag, digest=None)

    def at_digest(self, digest: str) -> Reference:
        """What has that digest in the repository."""
        return replace(self, tag=None, digest=digest)

    def tagged(self) -> Reference:
        """With the tag ``latest`` where neither tag nor digest is given."""
        return self if self.tag or self.digest else replace(self, tag=DEFAULT_TAG)


def parse(text: str) -> Reference:
    """The normalised reference that ``text`` means, or InvalidArgument in Docker's words."""
    if _IDENTIFIER.fullmatch(text):
        raise InvalidArgument(f"invalid repository name ({text}), cannot specify 64-byte hexadecimal strings")
    domain, rest = _split_domain(text)
    remote = rest.partition("@")[0].partition(":")[0]
    if remote != remote.lower():
        raise InvalidArgument(f"invalid reference format: repository name ({remote}) must be lowercase")
    match = _REFERENCE.fullmatch(f"{domain}/{rest}")
    if match is None:
        raise InvalidArgument("invalid reference format")
    if len(match["path"]) > NAME_LIMIT or len(match["domain"]) + 1 + len(match["path"]) > NAME_LIMIT:
        raise InvalidArgument(f"repository name must not be more than {NAME_LIMIT} characters")
    if match["digest"]:
        digests.parse(match["digest"])
    return Reference(domain=match["domain"], path=match["path"], tag=match["tag"], digest=match["digest"])


def is_domain(text: str) -> bool:
    """Whether ``text`` may name a registry: a host, or an address, and maybe a port."""
    return _DOMAIN_ONLY.fullmatch(text) is not None and len(text) < NAME_LIMIT


def with_tag(repository: str, tag: str) -> Reference:
    """``repository`` with ``tag`` (``latest`` when empty), as ``POST /images/{name}/tag`` names a target.

    InvalidArgument for a bad name or tag, and for a repository that carries a digest.
    """
    reference = parse(repository)
    if tag:
        if not _TAG_ONLY.fullmatch(tag):
            raise InvalidArgument("invalid tag format")
        reference = replace(reference, tag=tag)
    if reference.digest:
        raise InvalidArgument("refusing to create a tag with a digest reference")
    return reference.tagged()


def id_prefix(text: str) -> str | None:
    """The hexadecimal digits when ``text`` may be an image id or the beginning of one."""
    match = _ID_PREFIX.fullmatch(text)
    return match[1] if match else None


def _split_domain(text: str) -> tuple[str, str]:
    """Docker's rule for what is a host: a dot, a colon or an upper-case letter, or ``localhost``."""
    head, slash, tail = text.partition("/")
    is_host = slash and (any(c in ".:[" for c in head) or head == "localhost" or head != head.lower())
    domain, rest = (head, tail) if is_host else (DEFAULT_DOMAIN, text)
    if domain == LEGACY_DOMAIN:
        domain = DEFAULT_DOMAIN
    if domain == DEFAULT_DOMAIN and "/" not in rest:
        rest = OFFICIAL_PREFIX + rest
    return domain, rest
