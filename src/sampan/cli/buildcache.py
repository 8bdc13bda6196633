"""``--cache-from`` and ``--cache-to``: caches of builds in registries, images, and folders (OCI layouts).

A folder's cache is sent to the engine before a build, and fetched from it afterwards; a registry's the engine
fetches and puts there itself; an image's is in its own configuration, and goes to a registry with the image.
"""

from __future__ import annotations

import os

from sampan.errors import Failure

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    from sampan.cli.context import Context

_LAYOUT = ("oci-layout", "index.json")
_BLOBS = "blobs/sha256/"
_PIECE = 1 << 18


class Caches:
    """What was asked for. ``images`` are names, of caches too; ``inline``: the image is to hold its own;
    ``target`` is a folder and ``name`` a registry's for the cache of the build."""

    __slots__ = ("folders", "images", "inline", "name", "target")

    def __init__(self, given_from: list[list[str]], given_to: list[str]) -> None:
        """``given_from`` are the parts between commas of each flag: names, or the fields of one source."""
        self.images: list[str] = []
        self.folders: list[str] = []
        self.inline = False
        self.target = ""
        self.name = ""
        sources = [[",".join(parts)] if "=" in parts[0] else parts for parts in given_from]
        for text in (text for texts in sources for text in texts):
            kind, fields = _fields(text, "ref")
            if kind == "local":
                self.folders.append(_field("cache-from", fields, "src"))
            elif kind == "registry":
                self.images.append(_field("cache-from", fields, "ref"))
            else:
                raise Failure(f"--cache-from: type {kind} is not offered; use registry or local")
        for text in given_to:
            kind, fields = _fields(text, "ref")
            if kind == "local":
                self.target = _field("cache-to", fields, "dest")
            elif kind == "registry":
                self.name = _field("cache-to", fields, "ref")
            elif kind == "inline":
                self.inline = True
            else:
                raise Failure(f"--cache-to: type {kind} is not offered; use registry, inline or local")

    @property
    def told(self) -> bool:
        """Whether the engine is to tell what the steps are remembered by."""
        return bool(self.target or self.name)

    def bring(self, context: Context) -> None:
        """Send the folders' caches; one that is not there yet has nothing to give."""
        for folder in self.folders:
            if os.path.exists(f"{folder}/index.json"):
                context.client.upload(
                    "/build/cache/import", None, _archive(folder), kind="application/x-tar"
                ).read()

    def keep(self, context: Context, keys: list[str]) -> None:
        """Have the steps of these keys where they are wanted."""
        if self.target:
            self._fetch(context, keys)
        if self.name:
            from sampan.cli.credentials import header

            context.client.upload(
                f"/build/cache/push?name={self.name}",
                None,
                iter((_json(keys),)),
                kind="application/json",
                headers=header(context.settings, self.name),
            ).read()

    def _fetch(self, context: Context, keys: list[str]) -> None:
        """Have them in the folder, in the place of what it told of before."""
        import tarfile

        answer = context.client.upload(
            "/build/cache/export", None, iter((_json(keys),)), kind="application/json"
        )
        reader: Any = _Reader(answer.pieces())
        os.makedirs(f"{self.target}/{_BLOBS}", exist_ok=True)
        with tarfile.open(fileobj=reader, mode="r|") as archive:
            kept: set[str] = set()
            for member in archive:
                file = archive.extractfile(member)
                if file is not None and _is_ours(member.name):
                    kept.add(member.name)
                    _write(f"{self.target}/{member.name}", file)
        for name in os.listdir(f"{self.target}/{_BLOBS}"):
            if _BLOBS + name not in kept:
                os.unlink(f"{self.target}/{_BLOBS}{name}")


def _fields(text: str, alone: str) -> tuple[str, dict[str, str]]:
    if "=" not in text:
        return "registry" if alone == "ref" and text not in ("inline", "local") else text, {alone: text}
    fields = dict(part.partition("=")[::2] for part in text.split(","))
    return fields.pop("type", ""), fields


def _field(flag: str, fields: dict[str, str], name: str) -> str:
    if not fields.get(name):
        raise Failure(f"--{flag}: {name} is required")
    return fields[name]


def _json(value: Any) -> bytes:
    from sampan.wire import document

    return document.encode(value).encode()


class _Reader:
    """Pieces as a file to read from."""

    def __init__(self, pieces: Iterator[bytes]) -> None:
        self._pieces = pieces
        self._rest = b""

    def read(self, size: int) -> bytes:
        while len(self._rest) < size and (piece := next(self._pieces, b"")):
            self._rest += piece
        data, self._rest = self._rest[:size], self._rest[size:]
        return data


def _is_ours(name: str) -> bool:
    digits = name.removeprefix(_BLOBS)
    return name in _LAYOUT or (len(digits) == 64 and set(digits) <= set("0123456789abcdef"))


def _write(path: str, file: Any) -> None:
    partial = f"{path}.partial"
    with open(partial, "wb") as target:
        while piece := file.read(_PIECE):
            target.write(piece)
    os.rename(partial, path)


def _archive(folder: str) -> Iterator[bytes]:
    from sampan.cli.buildcontext import Sender

    return Sender(folder, lambda _path: False, lambda _path: False).pieces({})
