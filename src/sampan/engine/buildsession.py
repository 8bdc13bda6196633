"""The client of a build as the engine sees it, and contexts whose files come from it on demand.

Theory: a client that keeps its connection open can be asked. So nothing is sent beforehand: a context is a
listing of the paths that steps name, whose files are found by stamp among what is held, then by digest, and
fetched only where neither helps (``heldfiles``). What a step reads has a digest before a byte of it is moved.

Laws:
- A client can name no file but below its own context's root here: paths are checked when they are listed.
- What is believed of a file's contents is what this engine hashed, or a digest of what it hashed itself.
"""

from __future__ import annotations

import asyncio
import os
import posixpath
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from typing import Any, Protocol

import msgspec

from sampan.engine.buildcache import key_of
from sampan.engine.heldfiles import Entry, HeldFiles, Receiver, Tree
from sampan.errors import InvalidArgument

ENTRY_LIMIT = 2_000_000
_PATH_LIMIT = 4096
_KINDS = frozenset("dflp")


class Pipe(Protocol):
    """A two-way stream of the session."""

    async def read(self) -> bytes:
        """What has come; empty at the end."""

    async def write(self, data: bytes) -> None:
        """Send; returns when the client keeps up. Raises when it is gone."""

    def end(self) -> None:
        """We send no more."""

    def close(self) -> None:
        """We are done with it."""


class Shell(Pipe, Protocol):
    """A terminal at the client. ``size`` is its rows and columns."""

    size: tuple[int, int]

    def on_resize(self, tell: Any) -> None:
        """Have ``tell(rows, columns)`` called when it changes."""


class Output(msgspec.Struct, frozen=True, kw_only=True):
    """A result that the client takes: ``kind`` is local or tar (files), oci or docker (the image)."""

    kind: str


class Hello(msgspec.Struct, frozen=True, kw_only=True):
    """What a client begins with. ``dockerfile`` is its text, called ``name``; None where it is in the
    context, which is then an archive that the client sends, or at an address. ``contexts`` are the named
    ones: "local", or a source with its scheme. ``folder`` tells the context from those of other machines and
    folders. ``keep``: the image is kept here, with its names.
    """

    dockerfile: str | None = None
    name: str = "Dockerfile"
    folder: str = ""
    contexts: Mapping[str, str] = msgspec.field(default_factory=dict)
    outputs: tuple[Output, ...] = ()
    keep: bool = True
    explain: bool = False
    shell: bool = False
    events: bool = False


class Session(Protocol):
    """What a client can be asked for; the services of BuildKit's sessions, and two of our own."""

    hello: Hello

    async def entries(self, context: str, paths: Sequence[str]) -> list[Entry]:
        """The files of a context at ``paths``, folders before what is in them, links followed within it."""

    async def digests(self, context: str, numbers: Sequence[int]) -> list[str]:
        """Of files by number; "" for one that is gone."""

    def fetch(self, context: str, numbers: Sequence[int]) -> AsyncIterator[Sequence[bytes]]:
        """The files, packed as ``heldfiles.Receiver`` takes them."""

    def archive(self) -> AsyncIterator[bytes]:
        """The context that is a tar."""

    async def secret(self, identity: str) -> bytes | None:
        """A secret; None if the client has none of that name."""

    async def agent(self, identity: str) -> Pipe | None:
        """A connection to an ssh agent; None if the client has none of that name."""

    async def output(self, number: int) -> Pipe:
        """Where the result goes that has this number in ``hello``."""

    async def shell(self) -> Shell:
        """A terminal."""

    async def tell(self, message: dict[str, Any]) -> None:
        """How the build goes on."""


def entries_of(data: bytes) -> list[Entry]:
    """The entries of a listing. InvalidArgument for what no honest client sends."""
    from sampan.wire.sessions import FIELDS

    texts = data.decode("utf-8", "surrogateescape").split("\0")
    if texts.pop() or len(texts) % FIELDS:
        raise InvalidArgument("malformed list of files")
    if len(texts) // FIELDS > ENTRY_LIMIT:
        raise InvalidArgument(f"the context has more than {ENTRY_LIMIT} files")
    found: list[Entry] = []
    for at in range(0, len(texts), FIELDS):
        number, kind, mode, size, seconds, stamp, capability, path, link = texts[at : at + FIELDS]
        if kind not in _KINDS or not _is_plain(path):
            raise InvalidArgument(f"the client lists a file that no context has: {path}")
        try:
            bytes.fromhex(capability)
            entry = Entry(
                number=int(number),
                kind=kind,
                mode=int(mode, 8) & 0o7777,
                size=int(size),
                seconds=min(max(int(seconds), 0), 1 << 40),
                stamp=stamp,
                capability=capability[:128].lower(),
                path=path,
                link=link,
            )
        except ValueError:
            raise InvalidArgument(f"the client describes a file wrongly: {path}") from None
        if entry.size < 0 or entry.number < 0 or (kind == "l" and not link):
            raise InvalidArgument(f"the client describes a file wrongly: {path}")
        found.append(entry)
    return found


def _is_plain(path: str) -> bool:
    if not path or len(path) > _PATH_LIMIT or path[0] == "/":
        return False
    return not any(part in ("", ".", "..") or len(os.fsencode(part)) > 255 for part in path.split("/"))


class SessionContext:
    """A context of a session. ``name`` is "" for the one that the build is of.

    It has what ``buildcontext.Context`` has; its files lie in ``files()`` as far as they were asked for.
    """

    links = 2  # ours and what is held

    def __init__(self, workspace: str, session: Session, held: HeldFiles, name: str = "") -> None:
        self.workspace = workspace
        self.ignored: tuple[str, ...] = ()  # the client leaves it out
        self.empty = f"{workspace}/empty"
        self.digest = ""
        self._session = session
        self._held = held
        self._name = name
        self._folder = f"{session.hello.folder}\n{name}"
        self._turn = asyncio.Lock()
        self._known: dict[int, Entry] = {}
        self._digests: dict[int, str] = {}
        self._listed: dict[tuple[str, ...], list[Entry]] = {}
        self._index: dict[str, tuple[str, str]] | None = None
        self._count = 0
        self.sent = 0
        """Bytes of files that the client had to send."""
        root = f"{workspace}/context"
        for path in (root, self.empty):
            if not os.path.isdir(path):
                os.mkdir(path, 0o755)
        self._tree = Tree(held, root)

    async def read_dockerfile(self, _name: str) -> str:
        """The text of the Dockerfile, which came with the greeting."""
        return self._session.hello.dockerfile or ""

    def place(self) -> str:
        """A new empty directory."""
        self._count += 1
        path = f"{self.workspace}/{self._count}"
        os.mkdir(path, 0o755)
        return path

    async def files(self, sources: Iterable[str] = (".",)) -> str:
        """A directory with what ``sources`` mean in it."""
        entries = await self.entries(sources)
        async with self._turn:
            await asyncio.to_thread(self._tree.place, entries, self._digests)
        return self._tree.root

    async def origin(self, sources: Iterable[str]) -> str:
        """A digest of all that ``sources`` mean: names, kinds, modes and contents, no times."""
        return key_of("session", [self._shown(entry) for entry in await self.entries(sources)])

    async def contents(self, sources: Iterable[str]) -> dict[str, str]:
        """What tells each file of ``sources`` from another, by path."""
        digests = self._digests
        return {
            entry.path: f"{digests.get(entry.number, '')[:16]}{entry.mode:o}{entry.link}"
            for entry in await self.entries(sources)
            if entry.kind != "d"
        }

    def _shown(self, entry: Entry) -> tuple[object, ...]:
        contents = self._digests.get(entry.number, "")
        return entry.path, entry.kind, entry.mode, entry.capability, contents, entry.link

    async def entries(self, sources: Iterable[str]) -> list[Entry]:
        """The entries that ``sources`` mean, by path, each held here if it is a file."""
        wanted = tuple(sorted({_clean(source) for source in sources}))
        async with self._turn:
            found = self._listed.get(wanted)
            if found is None:
                found = await self._session.entries(self._name, wanted)
                found.sort(key=lambda entry: entry.path.split("/"))
                await self._have([entry for entry in found if entry.number not in self._known])
                self._listed[wanted] = found
        return [entry for entry in found if entry.kind != "f" or entry.number in self._digests]

    async def _have(self, fresh: list[Entry]) -> None:
        """Know the digest of each file, and have the file."""
        held = self._held
        if self._index is None:
            await asyncio.to_thread(held.prepare)
            self._index = await asyncio.to_thread(held.index, self._folder)
        index = self._index
        self._known |= {entry.number: entry for entry in fresh}
        missing: list[Entry] = []
        for entry in fresh:
            if entry.kind == "f":
                stamp, digest = index.get(entry.path, ("", ""))
                if stamp and stamp == entry.stamp and held.has(entry, digest):
                    self._digests[entry.number] = digest
                else:
                    missing.append(entry)
        if missing:
            missing = await self._same(missing)
            await self._fetch(missing)
            await asyncio.to_thread(held.remember, self._folder, index)
        else:
            await asyncio.to_thread(held.used, self._folder)

    async def _same(self, entries: list[Entry]) -> list[Entry]:
        """Find files by their digests; those that are not here."""
        held = self._held
        asked = [entry for entry in entries if held.may_have(entry)]
        if not asked:
            return entries
        digests = await self._session.digests(self._name, [entry.number for entry in asked])
        answers: dict[int, str] = dict(zip((entry.number for entry in asked), digests, strict=True))

        def look() -> set[int]:
            return {
                entry.number
                for entry in asked
                if (digest := answers[entry.number]) and held.has(entry, digest)
            }

        there = await asyncio.to_thread(look)
        gone = {number for number, digest in answers.items() if not digest}
        for entry in asked:
            if entry.number in there:
                # Nobody can say when it was read; so it is asked for again next time.
                self._learn(entry, answers[entry.number], steady=True)
        return [entry for entry in entries if entry.number not in there and entry.number not in gone]

    async def _fetch(self, entries: list[Entry]) -> None:
        if not entries:
            return
        receiver = Receiver(self._held, entries)
        feeding: asyncio.Future[None] | None = None
        try:
            async for pieces in self._session.fetch(self._name, [entry.number for entry in entries]):
                feeding = asyncio.ensure_future(asyncio.to_thread(receiver.feed, pieces))
                await asyncio.shield(feeding)
            receiver.finish()
        finally:
            # A thread goes on when the build is given up, and may yet make the file that is to be removed.
            # It is not waited for: who is given up may be told so again meanwhile.
            if feeding is None or feeding.done():
                receiver.close()
            else:
                feeding.add_done_callback(lambda _: receiver.close())
        self.sent += receiver.received
        for entry in entries:
            if (found := receiver.found.get(entry.number)) is not None:
                self._learn(entry, found[0], steady=found[1])

    def _learn(self, entry: Entry, digest: str, *, steady: bool) -> None:
        assert self._index is not None
        self._digests[entry.number] = digest
        self._index[entry.path] = (entry.stamp if steady else "", digest)


def _clean(source: str) -> str:
    return posixpath.normpath("/" + source).lstrip("/") or "."
