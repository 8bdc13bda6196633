"""Manifest lists that are being put together: a directory for each list, a file for each manifest.

Docker's client keeps them in ``manifests`` beside its ``config.json``, and so do we, so that either client
goes on with what the other began. A file is named after its reference with ``:`` as ``-`` and ``/`` as ``_``,
and holds the manifest's canonical reference, its descriptor with the platform, its bytes, and its document.

Law: a file is there whole or not at all. The order of a list is that of its files' names.
"""

from __future__ import annotations

import os

from sampan.cli.context import folder
from sampan.errors import Failure, NotFound
from sampan.wire import document

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from sampan.spec.reference import Reference

OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"


class Entry:
    """One manifest: ``ref`` canonical, ``descriptor`` as in the OCI, ``raw`` the registry's bytes."""

    __slots__ = ("descriptor", "raw", "ref")

    def __init__(self, ref: str, descriptor: dict[str, Any], raw: bytes) -> None:
        self.ref = ref
        self.descriptor = descriptor
        self.raw = raw

    @property
    def platform(self) -> dict[str, Any]:
        """The platform, in the order in which Docker's client writes its members."""
        found = self.descriptor.get("platform") or {}
        return {name: found[name] for name in _PLATFORM if name in found}

    def document(self) -> dict[str, Any]:
        """The file's content, and what ``inspect --verbose`` shows."""
        from binascii import b2a_base64

        kind = "OCIManifest" if self.descriptor["mediaType"] == OCI_MANIFEST else "SchemaV2Manifest"
        return {
            "Ref": self.ref,
            "Descriptor": self.descriptor,
            "Raw": b2a_base64(self.raw, newline=False).decode(),
            kind: document.decode(self.raw),
        }


_PLATFORM = ("architecture", "os", "os.version", "os.features", "variant")


def entries(target: Reference) -> list[Entry]:
    """Every manifest of a list. NotFound in Docker's words when there is no such list."""
    directory = _path(target.canonical)
    try:
        names = sorted(os.listdir(directory))
    except FileNotFoundError:
        raise NotFound(f"No such manifest: {target.canonical}") from None
    except OSError as error:
        raise _failure("open", directory, error) from error
    return [_read(os.path.join(directory, name), target) for name in names if not name.startswith(_PART)]


def entry(target: Reference, manifest: Reference) -> Entry:
    """One manifest of a list. NotFound in Docker's words when it is not in it."""
    return _read(_path(target.canonical, manifest.canonical), manifest)


def save(target: Reference, manifest: Reference, found: Entry) -> None:
    """Put a manifest into a list, in place of what is there under its name."""
    directory = _path(target.canonical)
    name = _safe(manifest.canonical)
    unfinished = os.path.join(directory, f"{_PART}{os.getpid()}")
    try:
        os.makedirs(directory, mode=0o755, exist_ok=True)
        with open(unfinished, "w", encoding="utf-8") as file:
            file.write(document.encode(found.document()))
        os.rename(unfinished, os.path.join(directory, name))
    except OSError as error:
        raise _failure("open", directory, error) from error


def remove(target: Reference) -> None:
    """Forget a list. Succeeds if it is already gone."""
    directory = _path(target.canonical)
    try:
        for name in os.listdir(directory):
            os.unlink(os.path.join(directory, name))
        os.rmdir(directory)
    except FileNotFoundError:
        return
    except OSError as error:
        raise _failure("remove", directory, error) from error


_PART = ".unfinished-"  # no reference begins with a dot


def _safe(reference: str) -> str:
    return reference.replace(":", "-").replace("/", "_")


def _path(*references: str) -> str:
    return os.path.join(folder(), "manifests", *(_safe(reference) for reference in references))


def _read(path: str, named: Reference) -> Entry:
    from binascii import a2b_base64

    try:
        with open(path, "rb") as file:
            found = document.decode(file.read())
        raw = found.get("Raw")
        if not raw:  # of clients from before 2022: the document alone, in their own indentation
            from json import dumps

            kept = found.get("OCIManifest") or found["SchemaV2Manifest"]
            raw = dumps(kept, indent=3, ensure_ascii=False).encode()
        else:
            raw = a2b_base64(raw)
        if not isinstance(document.decode(raw), dict):
            raise ValueError("its document is none")
        return Entry(found["Ref"], _checked(found["Descriptor"]), raw)
    except FileNotFoundError:
        raise NotFound(f"No such manifest: {named.canonical}") from None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise Failure(f"{path} is no manifest of a list: {error}") from error
    except OSError as error:
        raise _failure("open", path, error) from error


def _checked(descriptor: dict[str, Any]) -> dict[str, Any]:
    """The descriptor. ValueError for what is none."""
    kinds = {"mediaType": str, "digest": str, "size": int}
    if not all(isinstance(descriptor.get(name), kind) for name, kind in kinds.items()):
        raise ValueError("its descriptor is none")
    if not isinstance(descriptor.get("platform") or {}, dict):
        raise ValueError("its platform is none")
    return descriptor


def _failure(verb: str, path: str, error: OSError) -> Failure:
    return Failure(f"{verb} {path}: {(error.strerror or str(error)).lower()}")
