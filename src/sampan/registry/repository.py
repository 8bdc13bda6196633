"""One repository of a registry: manifests, blobs and tags, read and written.

Laws: a document that was asked for by its digest is that document or a failure; blobs are handed over block
by block from any offset, and checked by whoever writes them down; an upload that broke goes on where the
registry says that it broke.
Source: OCI distribution-spec, "Endpoints".
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import IO
from urllib.parse import quote, urlsplit

from sampan.errors import Failure, InvalidArgument, NotFound, Unavailable
from sampan.registry import refusals
from sampan.registry.transport import Broken, Response, Transport, joined
from sampan.spec import digest as digests
from sampan.spec import foreign
from sampan.spec.digest import Digest
from sampan.spec.image import DOCKER_INDEX, DOCKER_MANIFEST, OCI_INDEX, OCI_MANIFEST

SCHEMA_1 = "application/vnd.docker.distribution.manifest.v1+json"
_ACCEPTED = ", ".join((OCI_INDEX, DOCKER_INDEX, OCI_MANIFEST, DOCKER_MANIFEST))
_UPLOAD_ATTEMPTS = 5
_TAGS_LIMIT = 100_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Document:
    """A manifest or an index as it was received."""

    raw: bytes
    digest: Digest
    media_type: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Blob:
    """What is to be uploaded: ``open`` gives a reading file at its beginning."""

    digest: Digest
    size: int
    open: Callable[[], IO[bytes]]


class Repository:
    """``path`` is the repository's name in the registry, ``familiar`` the one that people type."""

    def __init__(self, transport: Transport, path: str, familiar: str) -> None:
        self._transport = transport
        self._path = path
        self._familiar = familiar

    # ------------------------------------------------------------------ reading

    def manifest(self, reference: str) -> Document:
        """The manifest or index of a tag or digest. NotFound, in Docker's words, when there is none."""
        with self._get(f"manifests/{reference}", {"Accept": _ACCEPTED}) as answer:
            body = answer.document()
            if answer.status != 200:
                raise refusals.of_pull(self._familiar, self._shown(reference), answer, body)
            media_type = answer.headers.get("Content-Type", "").partition(";")[0].strip()
        if media_type.startswith(SCHEMA_1.removesuffix("+json")):
            raise InvalidArgument(
                f"{self._shown(reference)} has a manifest of schema version 1, which is not supported any "
                "more: push the image again with a newer client"
            )
        digest = digests.of(body)
        if digests.is_digest(reference) and digest != reference:
            raise Unavailable(
                f"manifest verification failed for digest {reference}: the registry sent {digest}"
            )
        return Document(raw=body, digest=digest, media_type=media_type)

    def blob(self, digest: Digest, offset: int = 0) -> tuple[int, Iterator[bytes]]:
        """(offset from which the blocks come, blocks): 0 where the registry cannot begin elsewhere.

        The blocks may end with Broken. NotFound when there is no such blob.
        """
        headers = {"Range": f"bytes={offset}-"} if offset else {}
        answer = self._get(f"blobs/{digest}", headers)
        if answer.status == 206 and _begins_at(answer, offset):
            return offset, _closing(answer)
        if answer.status == 200:
            return 0, _closing(answer)
        with answer:
            if answer.status in (206, 416) and offset:
                return self.blob(digest)
            failure = refusals.refusal(answer.status, answer.document())
        raise type(failure)(f"{self._familiar}: blob {digest}: {failure}")

    def tags(self) -> list[str]:
        """Every tag, page by page."""
        found: list[str] = []
        target: str | None = self._target("tags/list")
        while target is not None and len(found) < _TAGS_LIMIT:
            with self._transport.request("GET", target, scopes=self._scopes("pull")) as answer:
                body = answer.document()
                if answer.status != 200:
                    raise refusals.of_pull(self._familiar, self._familiar, answer, body)
                link = answer.headers.get("Link", "")
                url = answer.url
            found += _tags(body)
            target = self._next_page(url, link)
        return found

    # ------------------------------------------------------------------ writing

    def has_blob(self, digest: Digest) -> bool:
        return self._has(f"blobs/{digest}", {})

    def has_manifest(self, digest: Digest) -> bool:
        return self._has(f"manifests/{digest}", {"Accept": _ACCEPTED})

    def _has(self, rest: str, headers: dict[str, str]) -> bool:
        target = self._target(rest)
        with self._transport.request("HEAD", target, scopes=self._scopes("push"), headers=headers) as answer:
            if answer.status in (401, 403):
                raise refusals.of_head(answer)
            return answer.status == 200

    def mount(self, digest: Digest, origin: str) -> bool:
        """Take the blob over from another repository of the registry; False when it would not."""
        target = self._target(f"blobs/uploads/?mount={digest}&from={quote(origin, safe='/')}")
        scopes = (*self._scopes("push"), f"repository:{origin}:pull")
        with self._transport.request("POST", target, scopes=scopes, body=b"", length=0) as answer:
            if answer.status == 202:
                self._abandon(answer)
            return answer.status == 201

    def upload(self, blob: Blob, sent: Callable[[int], None]) -> None:
        """Upload; ``sent`` hears the number of bytes that the registry has been sent so far."""
        for attempt in range(_UPLOAD_ATTEMPTS):
            try:
                self._upload(blob, sent)
                return
            except Broken:
                if attempt == _UPLOAD_ATTEMPTS - 1:
                    raise

    def _upload(self, blob: Blob, sent: Callable[[int], None]) -> None:
        location = self._begin_upload()
        position = 0
        for attempt in range(_UPLOAD_ATTEMPTS):
            with blob.open() as file:
                file.seek(position)
                body = _Counted(file, functools.partial(_tell, sent, position))
                try:
                    location = self._patch(location, body, position, blob.size)
                    break
                except Broken:
                    if attempt == _UPLOAD_ATTEMPTS - 1:
                        raise
            location, position = self._where_it_broke(location, blob.size)
        mark = "&" if "?" in location else "?"
        with self._write("PUT", f"{location}{mark}digest={quote(blob.digest)}", b"", {}) as answer:
            if answer.status != 201:
                raise self._refusal_of_push(answer)

    def _begin_upload(self) -> str:
        with self._write("POST", self._target("blobs/uploads/"), b"", {}) as answer:
            if answer.status != 202:
                raise self._refusal_of_push(answer)
            return self._location(answer)

    def _patch(self, location: str, body: _Counted, start: int, size: int) -> str:
        headers = {"Content-Type": "application/octet-stream"}
        if start:
            headers["Content-Range"] = f"{start}-{size - 1}"
        with self._transport.request(
            "PATCH",
            location,
            scopes=self._scopes("push"),
            headers=headers,
            body=body,  # type: ignore[arg-type]  # a reading file as far as it is read
            length=size - start,
        ) as answer:
            if answer.status not in (202, 204):
                raise self._refusal_of_push(answer)
            return self._location(answer)

    def _where_it_broke(self, location: str, size: int) -> tuple[str, int]:
        """Ask how far the upload came: where to go on, and from which byte. Broken when it is lost."""
        with self._transport.request("GET", location, scopes=self._scopes("push")) as answer:
            if answer.status not in (202, 204):
                raise Broken(f"{location}: the upload was lost")
            last = answer.headers.get("Range", "0-0").rpartition("-")[2]
            position = int(last) + 1 if last.isdecimal() and last != "0" and len(last) < 20 else 0
            return self._location(answer), min(position, size)

    def put_manifest(self, reference: str, raw: bytes, media_type: str) -> Digest:
        """Upload a manifest or index under a tag or digest, after all that it names."""
        headers = {"Content-Type": media_type}
        with self._write("PUT", self._target(f"manifests/{reference}"), raw, headers) as answer:
            if answer.status not in (200, 201, 202):
                raise self._refusal_of_push(answer)
        return digests.of(raw)

    # ------------------------------------------------------------------ words

    def _target(self, rest: str) -> str:
        return f"v2/{self._path}/{rest}"

    def _scopes(self, *actions: str) -> tuple[str, ...]:
        wanted = ("pull", "push") if "push" in actions else ("pull",)
        return (f"repository:{self._path}:{','.join(wanted)}",)

    def _get(self, rest: str, headers: dict[str, str]) -> Response:
        return self._transport.request(
            "GET", self._target(rest), scopes=self._scopes("pull"), headers=headers
        )

    def _write(self, method: str, target: str, body: bytes, headers: dict[str, str]) -> Response:
        return self._transport.request(
            method, target, scopes=self._scopes("push"), headers=headers, body=body, length=len(body)
        )

    def _location(self, answer: Response) -> str:
        """Where an upload goes on; on the registry's own host, since what follows is the user's data."""
        location = joined(answer.url, answer.headers.get("Location", ""))
        if urlsplit(location).scheme not in ("http", "https") or "Location" not in answer.headers:
            raise Unavailable(f"{self._familiar}: the registry does not say where to upload")
        if urlsplit(answer.url).scheme == "https" and urlsplit(location).scheme == "http":
            raise Unavailable(
                f"{self._familiar}: the registry wants the upload unprotected: {location[:200]}"
            )
        return location

    def _abandon(self, answer: Response) -> None:
        """End an upload that a refused mount began."""
        try:
            self._transport.request("DELETE", self._location(answer), scopes=self._scopes("push")).close()
        except Failure:
            return  # the registry forgets it by itself

    def _next_page(self, url: str, link: str) -> str | None:
        target, _, parameters = link.partition(">")
        if not target.startswith("<") or 'rel="next"' not in parameters:
            return None
        following = joined(url, target[1:])
        return following if urlsplit(following)[:2] == urlsplit(url)[:2] and following != url else None

    def _shown(self, reference: str) -> str:
        return f"{self._familiar}{'@' if ':' in reference else ':'}{reference}"

    def _refusal_of_push(self, answer: Response) -> Failure:
        return refusals.of_proof(answer) or refusals.refusal(answer.status, answer.document())


class _Counted:
    """A reading file, from where it stands, that tells how much of it was read."""

    def __init__(self, file: IO[bytes], read: Callable[[int], None]) -> None:
        self._file = file
        self._start = file.tell()
        self._tell = read
        self._count = 0

    def read(self, size: int = -1) -> bytes:
        block = self._file.read(size)
        self._count += len(block)
        self._tell(self._count)
        return block

    def seekable(self) -> bool:
        return True

    def seek(self, position: int) -> None:
        self._file.seek(self._start + position)
        self._count = 0


def _tell(sent: Callable[[int], None], base: int, count: int) -> None:
    sent(base + count)


def _begins_at(answer: Response, offset: int) -> bool:
    unit, _, rest = answer.headers.get("Content-Range", "").partition(" ")
    return unit == "bytes" and rest.partition("-")[0] == str(offset)


def _closing(answer: Response) -> Iterator[bytes]:
    with answer:
        yield from answer.blocks()


def _tags(body: bytes) -> list[str]:
    try:
        tags = foreign.decode(body).get("tags") or []
    except (ValueError, AttributeError):
        raise NotFound("the registry's list of tags cannot be read") from None
    return [tag for tag in tags if isinstance(tag, str)]
