"""Manifests in registries, as ``manifest`` reads and writes them: from here, without the engine.

Docker's client speaks to the registry itself for these commands, and to one without TLS only when it is told
that it may (``--insecure``). What a user may not see does not exist: it is "no such manifest".
"""

from __future__ import annotations

import threading

from sampan.cli.context import read_settings
from sampan.cli.credentials import lookup, server_of
from sampan.cli.manifeststore import Entry
from sampan.errors import Failure, Forbidden, NotFound, Unauthenticated, Unavailable
from sampan.registry import credentials, hosts
from sampan.registry.auth import Authorizer
from sampan.registry.hosts import Endpoint
from sampan.registry.repository import Document, Repository
from sampan.registry.settings import RegistrySettings
from sampan.registry.transport import Transport
from sampan.spec import digest as digests
from sampan.spec import image as documents
from sampan.wire import document

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from sampan.spec.reference import Reference

_PLATFORM = ("architecture", "os", "os.version", "os.features", "variant")
_LARGEST = 8 << 20  # bytes of a configuration
_NO_TLS = "server gave HTTP response to HTTPS client"
_ABSENT = (NotFound, Unauthenticated, Forbidden)


class Source:
    """One repository of a registry. Use it as a context."""

    def __init__(self, reference: Reference, *, insecure: bool, writing: bool = False) -> None:
        """``writing`` may go without TLS wherever the registry is loopback's, as Docker's client does."""
        self._reference = reference
        host = (reference.domain,) if insecure else ()
        own = hosts.own(reference.domain, RegistrySettings(insecure=host))
        schemes = own.schemes if insecure or writing else ("https",)
        self._transport = self._reached(own, schemes)
        self.repository = Repository(self._transport, reference.path, reference.familiar_name)

    def __enter__(self) -> Source:
        return self

    def __exit__(self, *_: object) -> None:
        self._transport.close()

    def _reached(self, own: Endpoint, schemes: tuple[str, ...]) -> Transport:
        """A transport by the first scheme that the registry understands."""
        who = credentials.from_document(lookup(read_settings(), server_of(self._reference.familiar)))
        for scheme in schemes:
            endpoint = Endpoint(
                host=own.host, schemes=(scheme,), insecure=own.insecure, certificates=own.certificates
            )
            transport = Transport(endpoint, Authorizer(who), threading.Event())
            try:
                transport.request("GET", "v2/").close()
                return transport
            except Failure as error:
                transport.close()
                if _NO_TLS not in str(error):
                    why = f"failed to configure transport: error pinging v2 registry: {error}"
                    raise Failure(why) from error
        raise self._none()

    def _none(self) -> NotFound:
        return NotFound(f"no such manifest: {self._reference.canonical}")

    def read(self) -> Entry | list[Entry]:
        """The manifest that the reference names, or those of the list that it names.

        NotFound in Docker's words; InvalidArgument for what is neither.
        """
        wanted = self._reference.digest
        found = self._document(self._reference.tag or wanted or "")
        if wanted and found.digest != wanted:
            raise Unavailable(f"manifest verification failed for digest {wanted}")
        if found.media_type not in documents.INDEXES:
            return self._entry(self._reference, found, None)
        index = documents.parse_index(found.raw)
        return [
            self._entry(
                _at(self._reference, below.digest), self._document(below.digest), below.platform or {}
            )
            for below in index.manifests
        ]

    def _document(self, name: str) -> Document:
        try:
            return self.repository.manifest(name)
        except _ABSENT as error:
            raise self._none() from error

    def _entry(self, reference: Reference, found: Document, platform: dict[str, Any] | Any) -> Entry:
        manifest = documents.parse_manifest(found.raw, found.media_type)
        if manifest.media_type not in documents.MANIFESTS:
            raise Failure(f"unsupported manifest format: {manifest.media_type}")
        if platform is None:
            platform = self._platform(manifest)
        descriptor = {"mediaType": manifest.media_type, "digest": found.digest, "size": len(found.raw)}
        told = {name: platform[name] for name in _PLATFORM if _is_part(name, platform.get(name))}
        kept = {"architecture": "", "os": "", **told}  # both are always written
        return Entry(reference.canonical, {**descriptor, "platform": kept}, found.raw)

    def _platform(self, manifest: documents.Manifest) -> dict[str, Any]:
        """What the image's configuration says of its platform."""
        raw = bytearray()
        for block in self.repository.blob(manifest.config.digest)[1]:
            raw += block
            if len(raw) > min(manifest.config.size, _LARGEST):
                break
        if digests.of(raw) != manifest.config.digest:
            raise Unavailable(f"image config verification failed for digest {manifest.config.digest}")
        try:
            found = document.decode(bytes(raw))
        except (ValueError, RecursionError) as error:
            raise Failure(f"{self._reference.canonical}: its configuration is no JSON: {error}") from error
        return found if isinstance(found, dict) else {}


def _is_part(name: str, value: object) -> bool:
    """Whether a member of a platform is there, and is what it should be."""
    if name == "os.features":
        return isinstance(value, list) and bool(value) and all(isinstance(one, str) for one in value)
    return isinstance(value, str) and bool(value)


def _at(reference: Reference, digest: str) -> Reference:
    from dataclasses import replace

    return replace(reference, digest=digest)
