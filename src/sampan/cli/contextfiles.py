"""A context as one file: a tar archive of ``meta.json`` and ``tls/ENDPOINT/FILE``, or a zip file of the same.

Such a file comes from anywhere: its size is bounded, only these names are taken, and nothing is unpacked by
path.
"""

from __future__ import annotations

import io
import os
import sys
import tarfile

from sampan.cli.context import write
from sampan.errors import Failure
from sampan.wire import document

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    Tls = dict[str, dict[str, bytes]]

LIMIT = 10 << 20  # bytes of a file, packed and unpacked; Docker's own


def export(found: dict[str, Any], tls: Tls, target: str) -> None:
    """Write a context to the new file ``target`` or, for "-", to stdout. Raises Failure."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        _put(archive, "meta.json", document.encode(found).encode(), 0o644)
        _put(archive, "tls", None, 0o700)
        for place, files in tls.items():
            _put(archive, f"tls/{place}", None, 0o700)
            for file, data in files.items():
                _put(archive, f"tls/{place}/{file}", data, 0o600)
    if target == "-":
        if os.isatty(1):
            raise Failure("cowardly refusing to export to a terminal, specify a file path")
        write(1, buffer.getvalue())
        return
    try:
        fd = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise Failure(f"open {target}: {(error.strerror or '').lower()}") from error
    try:
        write(fd, buffer.getvalue())
    finally:
        os.close(fd)


def _put(archive: tarfile.TarFile, name: str, data: bytes | None, mode: int) -> None:
    entry = tarfile.TarInfo(name)
    entry.mode = mode
    if data is None:
        entry.type = tarfile.DIRTYPE
        archive.addfile(entry)
    else:
        entry.size = len(data)
        archive.addfile(entry, io.BytesIO(data))


def load(source: str) -> tuple[dict[str, Any], Tls]:
    """The document and TLS files in file ``source`` ("-": stdin). Raises Failure."""
    try:
        if source == "-":
            data = sys.stdin.buffer.read(LIMIT + 1)
        else:
            with open(source, "rb") as file:
                data = file.read(LIMIT + 1)
    except OSError as error:
        raise Failure(f"open {source}: {(error.strerror or '').lower()}") from error
    if len(data) > LIMIT:
        raise Failure("read exceeds the defined limit")
    found: dict[str, Any] | None = None
    tls: Tls = {}
    for name, content in _zipped(data) if data[:2] == b"PK" else _tarred(data):
        parts = name.split("/")
        if name == "meta.json":
            found = _metadata(content)
        elif parts[0] == "tls" and len(parts) == 3 and not {"", ".", ".."} & set(parts):
            tls.setdefault(parts[1], {})[parts[2]] = content
        else:
            raise Failure(f'unexpected context file "{name}": invalid context')
    if found is None:
        raise Failure("invalid context: no metadata found")
    return found, tls


def _metadata(content: bytes) -> dict[str, Any]:
    try:
        found = document.decode(content)
    except ValueError as error:
        raise Failure(f"invalid context: meta.json: {error}") from error
    if not isinstance(found, dict) or not isinstance(found.get("Endpoints") or {}, dict):
        raise Failure("invalid context: meta.json is not a context")
    return found


def _tarred(data: bytes) -> Iterator[tuple[str, bytes]]:
    try:
        # Docker's own exports lack the padding of the last file and the end of the archive
        with tarfile.open(fileobj=io.BytesIO(data + bytes(1024))) as archive:
            for entry in archive:
                if entry.isfile():
                    file = archive.extractfile(entry)
                    yield os.path.normpath(entry.name), file.read(LIMIT) if file else b""
    except (tarfile.TarError, EOFError, OSError) as error:
        if data:
            raise Failure("unexpected EOF" if len(data) < 512 else f"invalid context: {error}") from error


def _zipped(data: bytes) -> Iterator[tuple[str, bytes]]:
    import zipfile

    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            left = LIMIT
            for entry in archive.infolist():
                left -= entry.file_size
                if left < 0:
                    raise Failure("read exceeds the defined limit")
                if not entry.is_dir():
                    yield os.path.normpath(entry.filename), archive.read(entry)
    except (zipfile.BadZipFile, RuntimeError, NotImplementedError, OSError) as error:
        raise Failure(f"invalid context: {error}") from error
