"""Where the result of a build goes: ``--output`` in buildx's words, and what takes it.

Law: what the engine sends is unpacked below the folder that was named, through no link that leads out of it.
"""

from __future__ import annotations

import os

from sampan.cli.buildinputs import fields
from sampan.cli.context import write
from sampan.errors import Failure

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

_NAMES = (
    "type",
    "dest",
    "name",
    "push",
    "tar",
    "compression",
    "force-compression",
    "oci-mediatypes",
    "rewrite-timestamp",
)
_ARCHIVES = ("oci", "docker", "tar")


class Results:
    """What ``--output`` asks for. ``kinds`` and ``sinks`` go together; ``keep``: the engine has the image."""

    def __init__(self, given: Iterable[str], *, push: bool) -> None:
        self.kinds: list[str] = []
        self.sinks: list[File | Folder] = []
        self.names: list[str] = []
        self.keep = False
        self.push = push
        asked = [_parsed(text) for text in given]
        for pairs in asked:
            self._take(pairs)
        if not asked or push:
            self.keep = True

    def _take(self, pairs: dict[str, str]) -> None:
        kind, path = pairs["type"], pairs.get("dest", "")
        for name in pairs.get("name", "").split(","):
            if name:
                self.names.append(name)
        if kind in ("image", "registry"):
            self.keep = True
            self.push = self.push or kind == "registry" or pairs.get("push") in ("true", "1")
        elif kind == "docker" and not path:
            self.keep = True
        elif kind == "local" or (kind in _ARCHIVES and pairs.get("tar") in ("false", "0")):
            if not path or path == "-":
                raise Failure(f"dest is required for {kind} exporter")
            self._add(kind, Folder(path))
        elif kind in _ARCHIVES:
            self._add(kind, File(kind, path))
        else:
            raise Failure(f"invalid output type {kind}: use local, tar, oci, docker, image or registry")

    def _add(self, kind: str, sink: File | Folder) -> None:
        self.kinds.append(kind)
        self.sinks.append(sink)

    @property
    def to_stdout(self) -> bool:
        """Whether our output is the result."""
        return any(isinstance(sink, File) and not sink.path for sink in self.sinks)


def _parsed(text: str) -> dict[str, str]:
    """The fields; a path alone is a folder's, a dash alone is a tar on our output."""
    if text == "-":
        return {"type": "tar", "dest": "-"}
    if "=" not in text and "," not in text:
        return {"type": "local", "dest": text}
    pairs = fields(text, _NAMES)
    if not pairs.get("type"):
        raise Failure("type is required for output")
    return pairs


class File:
    """An archive in the file ``path``, "" for our output; it appears when it is complete."""

    def __init__(self, kind: str, path: str) -> None:
        self.path = "" if path == "-" else path
        if not self.path and os.isatty(1):
            raise Failure(f"dest file is required for {kind} exporter. refusing to write to console")
        if self.path and os.path.isdir(self.path):
            raise Failure(f"destination directory {self.path} is a directory: dest is to be a file")

    def take(self, pieces: Iterator[bytes]) -> None:
        if not self.path:
            for piece in pieces:
                write(1, piece)
            return
        partial = f"{self.path}.{os.getpid()}.partial"
        try:
            fd = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
        except OSError as error:
            raise _failure(self.path, error) from None
        try:
            try:
                for piece in pieces:
                    write(fd, piece)
            finally:
                os.close(fd)
            os.rename(partial, self.path)
        except OSError as error:
            raise _failure(self.path, error) from None
        finally:
            try:
                os.unlink(partial)
            except FileNotFoundError:
                pass


class Folder:
    """The files, put into a folder, whose other files stay."""

    def __init__(self, path: str) -> None:
        self.path = path

    def take(self, pieces: Iterator[bytes]) -> None:
        from sampan.sandbox.extract import Rules, Target, extract
        from sampan.sandbox.source import Source

        try:
            os.makedirs(self.path, exist_ok=True)
            fd = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as error:
            raise _failure(self.path, error) from None
        mask = os.umask(0)
        try:
            rules = Rules(keep_kinds=True, chown=False, nodes=False, roomy=True)
            extract(Source(pieces), Target(fd=fd, anchor=fd, path=b".", shown=os.fsencode(self.path)), rules)
        finally:
            os.umask(mask)
            os.close(fd)


def _failure(path: str, error: OSError) -> Failure:
    return Failure(f"open {path}: {os.strerror(error.errno or 0).lower()}")
