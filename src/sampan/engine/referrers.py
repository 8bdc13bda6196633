"""Statements about an image beside it in its registry: OCI referrers.

A statement is a manifest whose subject is the image's. A registry that keeps no list of referrers is given
one under a tag (``sha256-HEX``), as the specification has it. Source: OCI distribution-spec 1.1, "Referrers".
"""

from __future__ import annotations

import asyncio
import contextlib
import io
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from sampan.engine import registries
from sampan.errors import Failure, InvalidArgument, NotFound
from sampan.spec import digest as digests
from sampan.spec import foreign
from sampan.spec import image as documents

if TYPE_CHECKING:
    from sampan.engine.settings import Settings
    from sampan.registry.client import Session
    from sampan.registry.credentials import Credentials
    from sampan.registry.repository import Repository
    from sampan.spec.digest import Digest
    from sampan.spec.reference import Reference

IN_TOTO = "application/vnd.in-toto+json"
_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
_INDEX = "application/vnd.oci.image.index.v1+json"
_EMPTY = "application/vnd.oci.empty.v1+json"
_PREDICATE = "in-toto.io/predicate-type"


class Referrers:
    """The use case."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    async def push(self, reference: Reference, credentials: Credentials, statement: dict[str, Any]) -> Digest:
        """Put an in-toto statement beside the image of that name, made to speak of it; its digest."""
        if not statement.get("predicateType") or "predicate" not in statement:
            raise InvalidArgument("this is no in-toto statement")
        options = self._settings.options
        session = await registries.session(reference, credentials, options.registries)
        with contextlib.closing(session):
            return await asyncio.to_thread(_push, session, reference, statement)


def _push(session: Session, reference: Reference, statement: dict[str, Any]) -> Digest:
    repository = session.writing()
    image = repository.manifest(reference.tag or str(reference.digest))
    subject = {"mediaType": image.media_type, "digest": image.digest, "size": len(image.raw)}
    told = {"name": reference.familiar, "digest": {"sha256": digests.hex_of(image.digest)}}
    body = documents.encode({**statement, "subject": [told]})
    manifest = documents.encode(
        {
            "schemaVersion": 2,
            "mediaType": _MANIFEST,
            "artifactType": IN_TOTO,
            "config": _uploaded(repository, b"{}", _EMPTY),
            "layers": [
                {
                    **_uploaded(repository, body, IN_TOTO),
                    "annotations": {_PREDICATE: str(statement["predicateType"])},
                }
            ],
            "subject": subject,
        }
    )
    digest = repository.put_manifest(digests.of(manifest), manifest, _MANIFEST)
    _list(repository, image.digest, manifest)
    return digest


def _uploaded(repository: Repository, data: bytes, kind: str) -> dict[str, Any]:
    from sampan.registry.repository import Blob

    digest = digests.of(data)
    if not repository.has_blob(digest):
        repository.upload(
            Blob(digest=digest, size=len(data), open=lambda: io.BytesIO(data)), lambda _count: None
        )
    return {"mediaType": kind, "digest": digest, "size": len(data)}


def _list(repository: Repository, subject: Digest, manifest: bytes) -> None:
    """Have it in the list of referrers that the tag of the subject names."""
    tag = subject.replace(":", "-")
    entry: Mapping[str, Any] = {
        "mediaType": _MANIFEST,
        "digest": digests.of(manifest),
        "size": len(manifest),
        "artifactType": IN_TOTO,
    }
    known: list[Any] = []
    with contextlib.suppress(NotFound, ValueError, Failure):
        found = foreign.decode(repository.manifest(tag).raw).get("manifests")
        known = [one for one in found or [] if one.get("digest") != entry["digest"]]
    index = {"schemaVersion": 2, "mediaType": _INDEX, "manifests": [*known, entry]}
    repository.put_manifest(tag, documents.encode(index), _INDEX)
