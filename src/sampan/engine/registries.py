"""What a user does with registries apart from pull and push: log in, and look at what is there."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sampan.engine.model import Event, EventType
from sampan.errors import Failure, InvalidArgument
from sampan.images.model import Progress
from sampan.registry.credentials import domain_of
from sampan.spec import image as documents
from sampan.spec import reference as references
from sampan.spec.image import INDEXES, Descriptor

if TYPE_CHECKING:
    from sampan.engine.model import Filters
    from sampan.engine.settings import Settings
    from sampan.registry.client import Session
    from sampan.registry.credentials import Credentials
    from sampan.registry.settings import RegistrySettings
    from sampan.spec.reference import Reference

_SEARCH_FILTERS = frozenset(("is-automated", "is-official", "stars"))
_SEARCH_MOST = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class RemoteImage:
    """What a registry has under a name: the descriptor of its manifest or index, and for which platforms."""

    descriptor: Descriptor
    platforms: tuple[dict[str, Any], ...]


_LONG = 1.0  # seconds from which a pause is told of


async def session(
    reference: Reference,
    credentials: Credentials,
    settings: RegistrySettings,
    tell: Callable[[Progress], None] = lambda _progress: None,
) -> Session:
    """A new session. Its HTTP library costs memory and time: loaded when it is needed, in a thread."""

    loop = asyncio.get_running_loop()

    def waiting(seconds: float) -> None:
        if seconds >= _LONG:
            number = round(seconds)
            words = f"Retrying in {number} second{'s'[: number > 1]}"
            loop.call_soon_threadsafe(tell, Progress(status=words))

    def make() -> Session:
        from sampan.registry.client import Session

        return Session(reference, credentials, settings, waiting)

    return await asyncio.to_thread(make)


def event(action: str, reference: Reference) -> Event:
    """The event of a pull or push, whose actor is the name and not the image."""
    return Event(
        type=EventType.IMAGE,
        action=action,
        actor_id=reference.familiar,
        attributes={"name": reference.familiar_name},
    )


class Registries:
    """Asks registries."""

    def __init__(self, *, settings: Settings) -> None:
        self._settings = settings

    async def log_in(self, credentials: Credentials) -> str:
        """Prove the credentials; a token that stands for them, or "". Unauthenticated when they are wrong."""
        options = self._settings.options.registries
        domain = _domain(credentials.server)

        def work() -> str:
            from sampan.registry.client import log_in

            return log_in(domain, credentials, options)

        return await asyncio.to_thread(work)

    async def search(
        self, text: str, limit: int, filters: Filters, credentials: Credentials
    ) -> list[dict[str, Any]]:
        """What Docker Hub, or the registry that the term begins with, finds; in its own order."""
        filters.accept(_SEARCH_FILTERS)
        if not 1 <= limit <= _SEARCH_MOST:
            raise InvalidArgument(f"limit {limit} is outside the range of [1, {_SEARCH_MOST}]")
        stars = [_stars(value) for value in filters.get("stars")]
        official, automated = filters.flag("is-official"), filters.flag("is-automated")
        first, _, rest = text.partition("/")
        named = bool(rest) and ("." in first or ":" in first or first == "localhost")
        domain, term = (_domain(first), rest) if named else (references.DEFAULT_DOMAIN, text)
        options = self._settings.options.registries

        def work() -> list[dict[str, Any]]:
            from sampan.registry.client import search

            return search(domain, term.removeprefix("library/"), limit, credentials, options)

        found = await asyncio.to_thread(work)
        return [
            _result(one)
            for one in found
            if all(_number(one.get("star_count")) >= least for least in stars)
            and official in (None, bool(one.get("is_official")))
            and automated in (None, bool(one.get("is_automated")))
        ]

    async def look(self, text: str, credentials: Credentials) -> RemoteImage:
        """What the registry has under a name with tag or digest."""
        try:
            reference = references.parse(text).tagged()
        except InvalidArgument as error:
            raise InvalidArgument(f"invalid reference format: {text}: {error}") from None
        opened = await session(reference, credentials, self._settings.options.registries)
        with contextlib.closing(opened):
            return await asyncio.to_thread(_look, opened, reference.digest or reference.tag or "")


def _stars(value: str) -> int:
    if not value.isdecimal():
        raise InvalidArgument(f"invalid filter 'stars=[{value}]'")
    return int(value)


def _number(value: object) -> int:
    return value if isinstance(value, int) else 0


def _result(one: dict[str, Any]) -> dict[str, Any]:
    """A result with the types that clients count on."""
    return {
        "star_count": _number(one.get("star_count")),
        "is_official": bool(one.get("is_official")),
        "name": one["name"],
        "is_automated": bool(one.get("is_automated")),
        "description": str(one.get("description") or ""),
    }


def _look(session: Session, name: str) -> RemoteImage:
    repository, document = session.reading(name)
    descriptor = Descriptor(media_type=document.media_type, digest=document.digest, size=len(document.raw))
    if document.media_type in INDEXES:
        entries = documents.parse_index(document.raw).manifests
        found = tuple(dict(entry.platform) for entry in entries if entry.platform)
    else:
        manifest = documents.parse_manifest(document.raw, document.media_type)
        raw = b"".join(repository.blob(manifest.config.digest)[1])
        found = (_platform(raw),)
    return RemoteImage(descriptor=descriptor, platforms=found)


def _platform(raw: bytes) -> dict[str, Any]:
    try:
        image = documents.parse_image(raw)
    except Failure:
        return {}  # an artifact that is no image runs nowhere
    found = {"architecture": image.architecture, "os": image.os, "variant": image.variant}
    return {name: value for name, value in found.items() if value}


def _domain(server: str) -> str:
    """The registry that ``serveraddress`` means: a host, or a URL as clients keep Docker Hub's."""
    host = domain_of(server) or references.DEFAULT_DOMAIN
    if not references.is_domain(host):  # it becomes part of a URL, and of the path of its certificates
        raise InvalidArgument(f"invalid registry: {host}")
    return host
