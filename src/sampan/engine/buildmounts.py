"""What a step of a build reads beside the files so far: its context, other stages, images, addresses, mounts.

Theory: whatever is to be mounted is first put together by a visitor, like a COPY, and then bound: so no path
of a hostile context is ever resolved in the host's tree, and what a step read has a digest for the cache.
"""

from __future__ import annotations

import asyncio
import os
import posixpath
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from sampan.build.evaluate import SCRIPT
from sampan.build.instructions import error
from sampan.build.stages import SCRATCH
from sampan.engine import buildcontext
from sampan.engine.buildsecrets import Secrets, number
from sampan.engine.buildsession import SessionContext
from sampan.engine.buildsources import Fetched, remote_source
from sampan.engine.buildsteps import Composition
from sampan.engine.model import Mount, TmpfsOptions
from sampan.errors import InvalidArgument, NotFound
from sampan.wire.quoting import quoted

if TYPE_CHECKING:
    from sampan.build import instructions
    from sampan.build.evaluate import CopyWork, RunWork
    from sampan.engine.builds import AnyContext
    from sampan.engine.buildsources import Source
    from sampan.engine.buildstages import StageBuild
    from sampan.engine.buildsteps import BuildSteps
    from sampan.engine.cachemounts import CacheMounts
    from sampan.images import unpacking
    from sampan.sandbox.messages import RootFilesystem

    Tree = str | RootFilesystem | Fetched

_SIZE = re.compile(r"(\d+(?:\.\d+)?|)\s*([bkmgtp]?)(?:i?b)?")
_DOWNLOADED = 0o600
"""The mode of a file that ADD fetched."""


class Prepared:
    """The mounts of a step's container; ``inputs`` stand for their contents in the cache's key.

    ``last`` is what is still to be done if the step has to run.
    """

    def __init__(
        self,
        use: BuildMounts,
        stage: StageBuild,
        work: RunWork,
        held: AsyncExitStack,
        inputs: list[object],
    ) -> None:
        self._use = use
        self._stage = stage
        self._work = work
        self._held = held
        self.inputs = inputs
        self.mounts: list[Mount] = []
        self.last: list[Callable[[], Awaitable[object]]] = []

    async def given(self) -> tuple[tuple[Mount, ...], tuple[str, ...]]:
        """All mounts, and variables that are nobody's business but the program's."""
        for work in self.last:
            await work()
        lent = await self._held.enter_async_context(
            self._use.secrets.lent(self._stage.build.session, self._work)
        )
        if self._work.script:
            self.mounts.append(self._use.script(self._stage, self._work))
        return (*self.mounts, *lent.mounts), tuple(lent.environment)


class BuildMounts:
    """Finds and mounts it."""

    def __init__(
        self,
        *,
        steps: BuildSteps,
        caches: CacheMounts,
        secrets: Secrets,
        run: unpacking.Run | None = None,
    ) -> None:
        self.secrets = secrets
        self._steps = steps
        self._run = run
        self._caches = caches

    # ------------------------------------------------------------------ COPY and ADD

    async def compositions(self, stage: StageBuild, work: CopyWork) -> list[Composition]:
        """What the step is to put together, in order."""
        context = stage.build.context
        found: list[Composition] = []
        many = len(work.sources) + len(work.inline) > 1
        if many and not work.target.endswith("/"):
            kind = "ADD" if work.step.add else "COPY"
            raise InvalidArgument(
                f"When using {kind} with more than one source file, the destination must be a directory and "
                "end with a /"
            )
        plain: list[str] = []
        for source in work.sources:
            remote = remote_source(source, work, context, self._run)
            if remote is not None:
                found.append(self._remote(stage, work, remote))
            elif work.step.add and await self._is_archive(context, source, work):
                found.append(await self._unpacked(stage, work, source))
            else:
                plain.append(source)
        if plain:
            found.append(await self._plain(stage, work, tuple(plain)))
        if work.inline:
            place = context.place()
            for name, text in work.inline:
                with open(f"{place}/{posixpath.basename(name)}", "w", encoding="utf-8") as file:
                    file.write(text)
                os.utime(file.name, (stage.since, stage.since))
            names = tuple(posixpath.basename(name) for name, _ in work.inline)
            found.append(self._composition(stage, work, place, names, origin=repr(work.inline)))
        return found

    async def _plain(self, stage: StageBuild, work: CopyWork, sources: tuple[str, ...]) -> Composition:
        tree, origin, ignored, links = await self._files(stage, work.step.origin, sources)
        relative = [_below(source, pattern) for source in sources for pattern in work.exclude]
        excluded = (*ignored, *work.exclude, *relative)
        what = self._composition(stage, work, tree, sources, origin=origin, excluded=excluded)
        context = await stage.build.named.files(work.step.origin) if work.step.origin else stage.build.context
        contents = partial(context.contents, sources) if isinstance(context, SessionContext) else None
        return replace(what, links=links, contents=contents)

    async def everything(self, stage: StageBuild, context: AnyContext) -> Composition:
        """All files of a context, as what a stage begins with."""
        sources = (".",)
        return Composition(
            tree=Fetched(partial(context.files, sources)),
            links=context.links,
            origin=await context.origin(sources),
            contents=partial(context.contents, sources) if isinstance(context, SessionContext) else None,
            sources=sources,
            target="/",
            excluded=context.ignored,
            epoch=stage.build.epoch,
        )

    async def _is_archive(self, context: AnyContext, source: str, work: CopyWork) -> bool:
        return await asyncio.to_thread(_is_archive, await context.files((source,)), source, work)

    async def _files(
        self, stage: StageBuild, name: str, sources: tuple[str, ...]
    ) -> tuple[Tree, str, tuple[str, ...], int]:
        """Where ``--from`` says that files are, what tells them from others, what of them is ignored, and how
        many names each has."""
        if name == SCRATCH:
            return stage.build.context.empty, "nothing", (), 0
        context = await stage.build.named.files(name) if name else stage.build.context
        if context is not None:
            tree = Fetched(partial(context.files, sources))
            return tree, await context.origin(sources), context.ignored, context.links
        chain = await stage.files_of(name)
        return await self._steps.tree(chain), f"layers {chain[-1] if chain else ''}", (), 0

    def _composition(
        self,
        stage: StageBuild,
        work: CopyWork,
        tree: Tree,
        sources: tuple[str, ...],
        *,
        origin: str = "",
        excluded: tuple[str, ...] = (),
        target: str = "",
        keep_owners: bool = False,
        mode: int | None = None,
    ) -> Composition:
        return Composition(
            tree=tree,
            origin=origin,
            sources=sources,
            target=target or work.target,
            chown=work.chown,
            mode=work.mode if mode is None else mode,
            parents=work.step.parents,
            link=work.step.link,
            since=stage.since,
            keep_owners=keep_owners,
            excluded=excluded,
            epoch=stage.build.epoch,
        )

    def _remote(self, stage: StageBuild, work: CopyWork, remote: Source) -> Composition:
        mode = None if remote.whole or work.mode is not None else _DOWNLOADED
        target = work.target.rstrip("/") + "/" if remote.whole else ""
        return self._composition(
            stage,
            work,
            remote.tree,
            remote.sources,
            origin=remote.origin,
            target=target,
            keep_owners=remote.whole,
            mode=mode,
        )

    async def _unpacked(self, stage: StageBuild, work: CopyWork, source: str) -> Composition:
        place = stage.build.context.place()
        files = await stage.build.context.files((source,))
        fd = await asyncio.to_thread(buildcontext.open_inside, files, source)
        try:
            await buildcontext.unpack_from(fd, place, self._run)
        finally:
            os.close(fd)
        target = work.target.rstrip("/") + "/"
        return self._composition(stage, work, place, (".",), target=target, keep_owners=True)

    # ------------------------------------------------------------------ RUN --mount

    @asynccontextmanager
    async def prepared(self, stage: StageBuild, work: RunWork) -> AsyncIterator[Prepared]:
        """What the step's container is to have."""
        inputs: list[object] = []
        async with AsyncExitStack() as held:
            prepared = Prepared(self, stage, work, held, inputs)
            for wanted in work.mounts:
                if wanted.kind == "tmpfs":
                    prepared.mounts.append(_tmpfs(work, wanted))
                elif wanted.kind == "cache":
                    prepared.mounts.append(await self._cache(stage, work, wanted, held))
                    inputs.append(("cache", wanted["id"] or wanted["target"]))
                elif wanted.kind == "bind":
                    await self._bind(stage, work, wanted, prepared)
                else:
                    inputs.append((wanted.kind, wanted["id"], wanted["target"], wanted["env"]))
            yield prepared

    def script(self, stage: StageBuild, work: RunWork) -> Mount:
        """The program that stands in the Dockerfile."""
        path = f"{stage.build.context.place()}/script"
        with open(path, "w", encoding="utf-8") as file:
            file.write(work.script)
        os.chmod(path, 0o755)
        return Mount(type="bind", source=path, target=SCRIPT, read_only=True)

    async def _bind(
        self, stage: StageBuild, work: RunWork, wanted: instructions.Mount, prepared: Prepared
    ) -> None:
        sources = (wanted["source"] or ".",)
        tree, origin, ignored, links = await self._files(stage, wanted["from"], sources)
        what = Composition(
            tree=tree, sources=sources, target="/x", keep_owners=True, whole=True, excluded=ignored
        )
        target = posixpath.join(work.directory, wanted["target"])
        place = stage.build.context.place()

        async def unpack() -> str:
            digest = await self._put_into(what, place)
            if not os.path.lexists(f"{place}/x"):
                os.mkdir(f"{place}/x")
            return digest

        if links == SessionContext.links:
            prepared.last.append(unpack)  # what it holds is known already
            digest = origin
        else:
            digest = await unpack()
        prepared.inputs.append(("bind", wanted["target"], digest))
        read_only = "readwrite" not in wanted.fields
        prepared.mounts.append(Mount(type="bind", source=f"{place}/x", target=target, read_only=read_only))

    async def _cache(
        self, stage: StageBuild, work: RunWork, wanted: instructions.Mount, held: AsyncExitStack
    ) -> Mount:
        target = posixpath.join(work.directory, wanted["target"])
        identity, begin = wanted["id"] or target, None
        if wanted["from"] or wanted["source"]:
            # It begins with these files, and with others it is another.
            sources = (wanted["source"] or ".",)
            tree, origin, ignored, _ = await self._files(stage, wanted["from"] or SCRATCH, sources)
            what = Composition(
                tree=tree,
                sources=sources,
                target="/x",
                keep_owners=True,
                whole=True,
                excluded=ignored,
            )
            identity, begin = f"{identity} {origin} {wanted['source']}", partial(self._put_into, what)
        path = await held.enter_async_context(
            self._caches.held(
                identity,
                sharing=wanted["sharing"],
                mode=number(work, wanted, "mode", 0o755),
                owner=(number(work, wanted, "uid", 0), number(work, wanted, "gid", 0)),
                begin=begin,
            )
        )
        read_only = "readonly" in wanted.fields
        return Mount(type="bind", source=path, target=target, read_only=read_only)

    async def _put_into(self, what: Composition, place: str) -> str:
        """Put what is found at "/x" together in a directory; a digest of it."""
        async with self._steps.composed((), what, archive_only=True) as composed:
            fd = composed.layer.part.open()
            try:
                await buildcontext.unpack_from(fd, place, self._run)
            finally:
                os.close(fd)
        return composed.digest


def _below(source: str, pattern: str) -> str:
    """A pattern of files below a source as one of its tree."""
    exception = "!" if pattern.startswith("!") else ""
    return exception + posixpath.normpath(f"{source}/{pattern.removeprefix('!')}").lstrip("/")


def _tmpfs(work: RunWork, wanted: instructions.Mount) -> Mount:
    size = _bytes(work, wanted["size"])
    target = posixpath.join(work.directory, wanted["target"])
    return Mount(type="tmpfs", target=target, tmpfs_options=TmpfsOptions(size_bytes=size))


def _bytes(work: RunWork, text: str) -> int:
    """A size like 64m, in bytes."""
    match = _SIZE.fullmatch(text.lower())
    if match is None:
        raise error(work.step.source, f"invalid size: {quoted(text)}")
    return int(float(match[1] or 0) * 1024 ** "bkmgtp".index(match[2] or "b"))


def _is_archive(directory: str, source: str, work: CopyWork) -> bool:
    """Whether ADD takes the file apart: one file that is an archive, unless ``--unpack=false``."""
    if work.step.unpack is False or any(character in source for character in "*?["):
        return False
    start = buildcontext.head(directory, source)
    kind = buildcontext.archive_kind(start)
    if kind is None:
        return False
    if kind == "":
        return True
    try:
        fd = buildcontext.open_inside(directory, source)
    except NotFound:
        return False
    try:
        return _holds_tar(fd, kind)
    finally:
        os.close(fd)


def _holds_tar(fd: int, kind: str) -> bool:
    """Whether what is compressed is a tar: a compressed file that is none is copied as it is."""
    from sampan.wire.compression import Decompressor

    plain = b""
    decompressor = Decompressor(kind)
    try:
        while len(plain) < 512 and (data := os.read(fd, 1 << 14)):
            for piece in decompressor.feed(data):
                plain += piece
                if len(plain) >= 512:
                    break
    except InvalidArgument:
        return False
    return plain[257:262] == b"ustar"
