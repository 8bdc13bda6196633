"""An uploaded archive of images, taken apart as it arrives: every member becomes a hashed file.

Laws: memory stays bounded whatever the archive says; the archive may be compressed as a whole; member names
are only keys of a table here, they never become paths. ``finish`` refuses an archive that was cut short and
names the member that it broke off in. All methods block; ``feed`` is called from one thread at a time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from sampan.errors import InvalidArgument
from sampan.images.blobs import Part
from sampan.sandbox.members import quoted
from sampan.wire import compression, tar

MEMBER_LIMIT = 20_000
_LINKS_FOLLOWED = 8


class Spool:
    """Write the members of an archive to files in ``workspace``; feed, then finish, then look."""

    def __init__(self, workspace: str, begun: Callable[[str, int, Part], None] | None = None) -> None:
        """``begun`` hears of each file whose beginning is here: its name, its bytes in all, and the part."""
        self._begun = begun
        self._unheard = ""
        self._whole = 0
        self._workspace = workspace
        self._parts: dict[str, Part] = {}
        self._links: dict[str, str] = {}
        self._decompressor: compression.Decompressor | None = None
        self._buffer = b""
        self._started = False
        self._reader = tar.HeaderReader()
        self._name = b""
        self._part: Part | None = None
        self._left = 0
        self._prelude: bytearray | None = None
        self._padding = 0
        self._skip = 0
        self._zeros = 0
        self._count = 0

    def feed(self, pieces: Iterable[bytes]) -> None:
        """Take more of the archive. InvalidArgument names the bad member."""
        for data in pieces:
            if not self._started:
                data = self._buffer + data
                self._buffer = data
                if len(data) < compression.MAGIC_LENGTH:
                    continue
                self._begin(data)
            self._inflate(data)

    def finish(self) -> None:
        """The archive is complete. InvalidArgument if it is not."""
        if not self._started:
            raise InvalidArgument("invalid archive: unexpected end of archive")
        if self._decompressor is not None:
            self._decompressor.finish()
        if self._left or self._prelude is not None or (self._buffer and self._zeros < 2):
            where = f"archive member {quoted(self._name)}: " if self._name else "invalid archive: "
            raise InvalidArgument(f"{where}unexpected end of archive")

    def names(self) -> list[str]:
        """The names of all members that are files or links to some."""
        return [*self._parts, *self._links]

    def part(self, name: str) -> Part | None:
        """The member of that name, links between members followed."""
        key = _key(name)
        for _ in range(_LINKS_FOLLOWED):
            if (found := self._parts.get(key)) is not None:
                return found
            if key not in self._links:
                return None
            key = self._links[key]
        return None

    def document(self, name: str, limit: int) -> bytes:
        """The bytes of a small member; InvalidArgument if it is missing or too large."""
        part = self.part(name)
        if part is None:
            raise InvalidArgument(f"invalid archive: {quoted(name.encode())} is missing")
        return part.read(limit)

    def close(self) -> None:
        """Close the file that is being written, if any."""
        if self._part is not None:
            self._part.close()

    def _begin(self, data: bytes) -> None:
        self._started = True
        self._buffer = b""
        if kind := compression.detect(data):
            self._decompressor = compression.Decompressor(kind)

    def _inflate(self, data: bytes) -> None:
        if self._decompressor is None:
            self._take(data)
        else:
            for piece in self._decompressor.feed(data):
                self._take(piece)

    def _take(self, data: bytes) -> None:
        """Advance over plain bytes: padding, a member's data, a prelude's data, or a header."""
        view = memoryview(data)
        while view and self._zeros < 2:
            if self._skip:
                count = min(self._skip, len(view))
                self._skip -= count
                view = view[count:]
            elif self._left:
                view = self._body(view)
            else:
                view = self._header(view)

    def _body(self, view: memoryview) -> memoryview:
        piece, rest = view[: self._left], view[self._left :]
        self._left -= len(piece)
        if not self._left:
            self._skip = self._padding
        if self._prelude is not None:
            self._prelude += piece
            if not self._left:
                self._reader.prelude(bytes(self._prelude))
                self._prelude = None
        elif self._part is not None:
            self._part.write(piece)
            if self._unheard and len(self._part.head) >= compression.MAGIC_LENGTH:
                if self._begun is not None:
                    self._begun(self._unheard, self._whole, self._part)
                self._unheard = ""
            if not self._left:
                self._part.close()
                self._part = None
        return rest

    def _header(self, view: memoryview) -> memoryview:
        need = tar.BLOCK - len(self._buffer)
        self._buffer += view[:need]
        if len(self._buffer) == tar.BLOCK:
            block, self._buffer = self._buffer, b""
            try:
                self._member(block)
            except InvalidArgument as error:
                after = f" after {quoted(self._name)}" if self._name else ""
                raise InvalidArgument(f"invalid archive: {error}{after}") from error
        return view[need:]

    def _member(self, block: bytes) -> None:
        found = self._reader.block(block)
        if found is None:
            self._zeros += 1
            return
        self._zeros = 0
        self._left = found.size
        self._padding = tar.padding(found.size)
        if isinstance(found, tar.Prelude):
            self._prelude = bytearray() if found.size else None
        else:
            self._start(found)

    def _start(self, member: tar.Member) -> None:
        self._name = member.name
        key = _key(member.name.decode("utf-8", "surrogateescape"))
        self._count += 1
        if self._count > MEMBER_LIMIT:
            raise InvalidArgument(f"more than {MEMBER_LIMIT} members")
        if member.kind == tar.REGULAR and member.sparse is None:
            part = Part(f"{self._workspace}/{self._count}")
            self._parts[key] = part
            self._links.pop(key, None)
            if member.size:
                self._part = part
                self._unheard, self._whole = key, member.size
            else:
                part.close()
        elif member.kind in (tar.SYMLINK, tar.LINK):
            target = member.link.decode("utf-8", "surrogateescape")
            base = key.rpartition("/")[0] if member.kind == tar.SYMLINK else ""
            self._links[key] = _key(f"{base}/{target}")


def _key(name: str) -> str:
    """A member's name without ``.``, ``..`` and empty components."""
    parts: list[str] = []
    for part in name.split("/"):
        if part == "..":
            del parts[-1:]
        elif part and part != ".":
            parts.append(part)
    return "/".join(parts)
