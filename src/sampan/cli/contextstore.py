"""Contexts, in the files where Docker's client keeps them, so that both programs see the same ones.

Below the configuration folder, ``contexts/meta/ID/meta.json`` is the document and ``contexts/tls/ID/docker/``
holds its TLS files, where ID is the SHA-256 of the name. The context "default" has no file: it is what flags
and variables say.
"""

from __future__ import annotations

import os

from sampan.cli.context import DEFAULT_CONTEXT, Where, folder
from sampan.client.connection import Address
from sampan.errors import Failure
from sampan.wire import document

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

TLS_FILES = {"ca": "ca.pem", "cert": "cert.pem", "key": "key.pem"}
_FIRST = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789")
_NAME = _FIRST | frozenset("_.+-")


class NotFound(Failure):
    """There is no context of that name."""


def check(name: str) -> None:
    """Raise Failure, in Docker's words, if ``name`` can be no context's."""
    if not name:
        raise Failure("context name cannot be empty")
    if len(name) < 2 or name[0] not in _FIRST or not _NAME.issuperset(name):
        raise Failure(
            f'context name "{name}" is invalid, names are validated against regexp '
            '"^[a-zA-Z0-9][a-zA-Z0-9_.+-]+$"'
        )


def identity(name: str) -> str:
    """The folder's name for context ``name``."""
    try:
        found = __import__("_sha256")  # hashlib loads OpenSSL: 3 ms
    except ImportError:  # its name since Python 3.12
        found = __import__("hashlib")
    return str(found.sha256(name.encode()).hexdigest())


def meta_folder(name: str) -> str:
    """Where the document of context ``name`` lies."""
    return os.path.join(folder(), "contexts", "meta", identity(name))


def tls_folder(name: str) -> str:
    """Where the TLS files of context ``name`` lie, by endpoint."""
    return os.path.join(folder(), "contexts", "tls", identity(name))


def read(name: str) -> dict[str, Any]:
    """The document of context ``name``. Raises NotFound or Failure."""
    path = os.path.join(meta_folder(name), "meta.json")
    try:
        with open(path, "rb") as file:
            found: dict[str, Any] = document.decode(file.read())
            return found
    except (FileNotFoundError, NotADirectoryError) as error:
        raise NotFound(
            f'context "{name}": context not found: open {path}: no such file or directory'
        ) from error
    except (OSError, ValueError) as error:
        raise Failure(f'context "{name}": {error}') from error


def endpoint(found: dict[str, Any]) -> dict[str, Any]:
    """How the engine is reached, from a context's document."""
    return (found.get("Endpoints") or {}).get("docker") or {}


def default(where: Where) -> dict[str, Any]:
    """The document of the context "default"."""
    return {
        "Name": DEFAULT_CONTEXT,
        "Metadata": {},
        "Endpoints": {"docker": {"Host": where.host, "SkipTLSVerify": False}},
    }


def names() -> list[str]:
    """The names of all stored contexts, sorted; unreadable ones are left out."""
    place = os.path.join(folder(), "contexts", "meta")
    found = []
    try:
        entries = os.listdir(place)
    except OSError:
        return []
    for entry in entries:
        try:
            with open(os.path.join(place, entry, "meta.json"), "rb") as file:
                found.append(str(document.decode(file.read())["Name"]))
        except (OSError, ValueError, KeyError, TypeError):
            continue
    return sorted(found)


def tls_files(name: str) -> dict[str, list[str]]:
    """The TLS files of context ``name`` by endpoint."""
    place = tls_folder(name)
    try:
        return {one: sorted(os.listdir(os.path.join(place, one))) for one in sorted(os.listdir(place))}
    except OSError:
        return {}


def save(found: dict[str, Any], tls: dict[str, dict[str, bytes]] | None = None) -> None:
    """Store a context's document and, unless None, its TLS files (file name to content, by endpoint)."""
    from sampan.cli.settings import write

    name = found["Name"]
    if tls is not None:
        _forget(tls_folder(name))
        for place, files in tls.items():
            for file, data in files.items():
                write(os.path.join(tls_folder(name), place, file), data)
    write(os.path.join(meta_folder(name), "meta.json"), document.encode(found).encode(), mode=0o644)


def remove(name: str) -> None:
    """Remove context ``name``. Succeeds if it is already gone."""
    _forget(meta_folder(name))
    _forget(tls_folder(name))


def _forget(path: str) -> None:
    import shutil

    shutil.rmtree(path, ignore_errors=True)


def address_of(name: str) -> Address:
    """Where the engine of context ``name`` listens. Raises Failure in Docker's words."""
    unresolved = "Failed to initialize: unable to resolve docker endpoint: "
    try:
        check(name)
        reach = endpoint(read(name))
    except Failure as error:
        raise Failure(unresolved + str(error)) from error
    host = str(reach.get("Host") or "")
    tls = None
    if host.startswith("tcp:"):
        place = os.path.join(tls_folder(name), "docker")
        files = {key: os.path.join(place, file) for key, file in TLS_FILES.items()}
        there = {key: path if os.path.exists(path) else "" for key, path in files.items()}
        skip = bool(reach.get("SkipTLSVerify"))
        if skip or any(there.values()):
            from sampan.client.tls import Material

            tls = Material(
                authority=there["ca"], certificate=there["cert"], key=there["key"], verify=not skip
            )
    try:
        return Address(host or Where().host, tls=tls)
    except Failure as error:
        raise Failure(unresolved + str(error)) from error
