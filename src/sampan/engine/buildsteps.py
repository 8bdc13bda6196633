"""The work of a build on files: what a step does, as a layer over what was there.

A RUN is a container of its own, whose upper directory becomes the layer; COPY, ADD and WORKDIR are composed
by a visitor that stands in the files so far. Nothing of either outlives the step: containers are temporary,
and what a killed daemon leaves of them goes when the next one starts.
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from msgspec.structs import replace

from sampan.build.evaluate import shown as excerpt
from sampan.engine.buildcontext import Context, working
from sampan.engine.buildshell import SHELL, Ends, serve
from sampan.engine.buildsources import Fetched
from sampan.engine.model import ContainerConfig, HealthConfig, HostConfig, Mount, NetworkingConfig
from sampan.errors import Failure
from sampan.images.blobs import Part
from sampan.images.layers import MadeLayer
from sampan.images.model import Image
from sampan.images.packing import Packed
from sampan.sandbox.messages import AttachOptions, RootFilesystem
from sampan.spec import digest as digests
from sampan.spec import image as documents
from sampan.wire import stdcopy

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from sampan.build.evaluate import RunWork
    from sampan.engine.buildsession import Shell
    from sampan.engine.containers import Containers
    from sampan.engine.ports import Visit, Visits
    from sampan.images.catalog import Catalog
    from sampan.images.holds import Hold
    from sampan.images.snapshots import Snapshots
    from sampan.spec.digest import Digest
    from sampan.wire.modes import Change

_PIECE = 1 << 16
Say = Callable[[str], None]


class StepFailed(Failure):
    """A program of the build ended badly; ``code`` is its exit code, ``said`` the end of its output.

    ``words`` is its instruction, which lines ``first`` to ``last`` hold.
    """

    words = ""
    first = 0
    last = 0

    def __init__(self, message: str, *, code: int, said: str = "") -> None:
        super().__init__(message)
        self.code = code
        self.said = said

    def shown(self, lines: Sequence[str], file: str) -> str:
        """The step, the end of what it said, and where it stands, as BuildKit shows it."""
        rule = "------\n"
        text = f"{rule} > {self.words}:\n{self.said}{rule}"
        return f"{text}{excerpt(lines, self.first, self.last, file)}\n"


@dataclass(frozen=True, slots=True, kw_only=True)
class Composition:
    """What a COPY is to put together; see ``sandbox.compose``. ``tree`` is a directory, layers or a context's
    files. ``origin`` tells one tree from all others that differ, "" where that is not known. ``links``: how
    many names a file of the tree has that may be linked into the layer. ``contents`` tells its files apart.
    """

    tree: str | RootFilesystem | Context | Fetched
    links: int = 1
    origin: str = ""
    contents: Callable[[], Awaitable[dict[str, str]]] | None = None
    sources: tuple[str, ...]
    target: str
    chown: str = ""
    mode: int | Change | None = None
    parents: bool = False
    link: bool = False
    whole: bool = False
    keep_owners: bool = False
    excluded: tuple[str, ...] = ()
    epoch: int | None = None
    since: int = 0

    @property
    def words(self) -> tuple[object, ...]:
        """All that tells what it comes to, but the files themselves."""
        return (
            self.sources,
            self.target,
            self.chown,
            self.mode,
            self.parents,
            self.link,
            self.keep_owners,
            self.excluded,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Composed:
    """A layer that was put together; ``digest`` is of its contents and knows no times, ``newest`` is the
    latest of them, in seconds. Unless ``shared`` is 0, a file is another layer's too
    if it has more names than that and this layer's own.
    """

    layer: MadeLayer
    digest: str
    newest: int
    shared: int = 0


class BuildSteps:
    """Does the work."""

    def __init__(
        self,
        *,
        catalog: Catalog,
        snapshots: Snapshots,
        containers: Containers,
        visits: Visits,
        empty: str,
    ) -> None:
        """``empty`` is a directory that stays empty."""
        self._catalog = catalog
        self._snapshots = snapshots
        self._containers = containers
        self._visits = visits
        self._empty = empty

    # ------------------------------------------------------------------ RUN

    async def run(
        self,
        chain: tuple[Digest, ...],
        work: RunWork,
        host: HostConfig,
        mounts: tuple[Mount, ...],
        latest: int | None,
        hold: Hold,
        say: Say,
        shell: Callable[[], Awaitable[Shell]] | None = None,
    ) -> Digest | None:
        """Run the program over ``chain`` and keep what it changed; the new chain, None where there is none.

        ``latest`` is the latest time, in ns, that a file may have. StepFailed when it ends with other than 0;
        before, a shell is opened where it failed, if there is a terminal that ``shell`` gives.
        """
        image = self._image(chain)
        config = ContainerConfig(
            image=image.id,
            cmd=work.command,
            entrypoint=("",),
            env=work.environment,
            user=work.user,
            working_dir=work.directory,
            attach_stdout=True,
            attach_stderr=True,
            healthcheck=HealthConfig(test=("NONE",)),
        )
        host = replace(host, mounts=mounts or None)
        container_id = await self._created(config, host, image)
        try:
            try:
                await self._to_its_end(container_id, work, say)
            except StepFailed:
                if shell is not None:
                    stubs = [mount.target for mount in mounts]
                    left = await self._written(container_id, chain, stubs, latest, hold)
                    await self._look(left, config, host, await shell(), say)
                raise
            return await self._written(container_id, chain, [mount.target for mount in mounts], latest, hold)
        finally:
            await self._remove(container_id)

    async def _look(
        self, chain_id: Digest | None, config: ContainerConfig, host: HostConfig, shell: Shell, say: Say
    ) -> None:
        """A shell over the files of a chain, on somebody's terminal."""
        layers = self._catalog.layers
        chain = tuple(layer.chain_id for layer in reversed(layers.chain(chain_id)))
        image = self._image(chain)
        config = replace(
            config,
            image=image.id,
            cmd=SHELL,
            attach_stdin=True,
            open_stdin=True,
            stdin_once=True,
            tty=True,
        )
        try:
            container_id = await self._created(config, host, image)
            try:
                await serve(self._containers, container_id, shell)
            finally:
                await self._remove(container_id)
        except Failure as error:
            say(f"no shell: {error}\n")
        finally:
            shell.end()
            shell.close()

    async def _created(self, config: ContainerConfig, host: HostConfig, image: Image) -> str:
        """The id of the step's container. One whose build was given up while it was made goes again."""
        networking = NetworkingConfig()
        making = asyncio.ensure_future(self._containers.create(None, config, host, networking, over=image))
        try:
            return (await asyncio.shield(making)).id
        except asyncio.CancelledError:
            with suppress(Failure):
                await self._remove((await making).id)
            raise

    async def _remove(self, container_id: str) -> None:
        with suppress(Failure):
            await asyncio.shield(self._containers.remove(container_id, force=True, volumes=True))

    async def _written(
        self, container_id: str, chain: tuple[Digest, ...], stubs: list[str], latest: int | None, hold: Hold
    ) -> Digest | None:
        """Make what an ended container has written a layer, by giving its directory another place."""
        parent = chain[-1] if chain else None
        root = self._snapshots.mounts(container_id)
        with self._catalog.blobs.workspace() as workspace:
            part = Part(f"{workspace}/layer")
            try:
                visit = await self._visits.begin(
                    container_id, "layer", root=root, flow="out", stubs=stubs, latest=latest
                )
                answer = await _received(visit, part)
            finally:
                part.close()
            if Packed(part=part).empty:
                return parent
            made = MadeLayer(
                directory=f"{root.base}/{root.upper}",
                part=part,
                size=answer["size"],
                entries=answer["entries"],
                max_uid=answer["max_uid"],
                max_gid=answer["max_gid"],
            )
            return await self._catalog.layers.take(hold, parent, made)

    async def _to_its_end(self, container_id: str, work: RunWork, say: Say) -> None:
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        options = AttachOptions(stdout=True, stderr=True)
        tail = _Tail()

        def heard(text: str) -> None:
            tail.add(text)
            say(text)

        reading = asyncio.create_task(_relay(ours, heard))
        try:
            await self._containers.attach(container_id, options, lambda: Ends(theirs))
            ended = self._containers.wait(container_id, "next-exit")
            await self._containers.start(container_id)
            status = await ended
            await reading
        finally:
            reading.cancel()
            await asyncio.gather(reading, return_exceptions=True)
            ours.close()
        if status.code:
            shown = " ".join(work.command)
            raise StepFailed(
                f"The command '{shown}' returned a non-zero code: {status.code}",
                code=status.code,
                said=tail.text,
            )

    def _image(self, chain: tuple[Digest, ...]) -> Image:
        """An image of these layers that is in no catalogue, for a container to stand on."""
        raw = documents.encode(
            {
                "architecture": "",
                "os": "linux",
                "config": {},
                "rootfs": {
                    "type": "layers",
                    "diff_ids": [self._catalog.layers[one].diff_id for one in chain],
                },
            }
        )
        layers = [self._catalog.layers[one] for one in chain]
        return Image(
            id=digests.of(raw),
            config=documents.parse_image(raw),
            manifest=None,
            chain=chain,
            blobs=(),
            size=sum(layer.size for layer in layers),
            max_id=max((max(layer.max_uid, layer.max_gid) for layer in layers), default=0),
            loaded_ns=0,
            tagged_ns=0,
        )

    # ------------------------------------------------------------------ COPY

    @asynccontextmanager
    async def composed(
        self, chain: tuple[Digest, ...], what: Composition, *, archive_only: bool = False
    ) -> AsyncIterator[Composed]:
        """The layer that it makes, not kept yet.

        ``archive_only`` leaves its directory empty.
        """
        async with working(self._catalog.blobs) as workspace:
            part, directory = Part(f"{workspace}/layer"), f"{workspace}/fs"
            os.mkdir(directory, 0o755)
            try:
                answer = await self._compose(chain, what, part, "" if archive_only else directory)
            finally:
                part.close()
            made = MadeLayer(
                directory=directory,
                part=part,
                size=answer.get("size", 0),
                entries=answer.get("entries", 0),
                max_uid=answer.get("max_uid", 0),
                max_gid=answer.get("max_gid", 0),
                implied=tuple(answer.get("implied", ())),
            )
            shared = what.links if answer.get("shared") else 0
            yield Composed(layer=made, digest=answer["digest"], newest=answer["newest"], shared=shared)

    async def squashed(
        self, below: tuple[Digest, ...], chain: tuple[Digest, ...], latest: int | None, hold: Hold
    ) -> tuple[Digest, ...]:
        """The chain ``below`` and over it one layer for all those of ``chain``, which begins with it."""
        above = chain[len(below) :]
        if len(above) < 2:
            return chain
        async with working(self._catalog.blobs) as workspace:
            part, directory = Part(f"{workspace}/layer"), f"{workspace}/fs"
            os.mkdir(directory, 0o755)
            try:
                visit = await self._visits.begin(
                    "build", "merge", root=await self.tree(above), flow="out", made=directory, latest=latest
                )
                answer = await _received(visit, part)
            finally:
                part.close()
            parent = below[-1] if below else None
            if Packed(part=part).empty:
                return below
            made = MadeLayer(
                directory=directory,
                part=part,
                size=answer["size"],
                entries=answer["entries"],
                max_uid=answer["max_uid"],
                max_gid=answer["max_gid"],
            )
            return (*below, await self._catalog.layers.take(hold, parent, made))

    async def keep(self, chain: tuple[Digest, ...], composed: Composed, hold: Hold) -> Digest | None:
        """Make what was composed a layer over ``chain``: the new chain."""
        parent = chain[-1] if chain else None
        made = composed.layer
        if Packed(part=made.part).empty:
            return parent
        layers = self._catalog.layers
        here = layers.get(digests.chain_id(parent, made.part.digest))
        if here is not None:
            hold.add(here)
        elif composed.shared:
            visit = await self._visits.begin(
                "build", "apart", root=await self.tree(()), made=made.directory, links=composed.shared + 1
            )
            try:
                await visit.answer()
                await visit.answer()
            finally:
                await visit.aclose()
        return await layers.take(hold, parent, made)

    async def _compose(
        self, chain: tuple[Digest, ...], what: Composition, part: Part, directory: str
    ) -> dict[str, Any]:
        order: dict[str, Any] = {
            "sources": what.sources,
            "target": what.target,
            "chown": what.chown,
            "mode": what.mode,
            "parents": what.parents,
            "link": what.link,
            "whole": what.whole,
            "since": what.since,
            "keep_owners": what.keep_owners,
            "excluded": what.excluded,
            "epoch": what.epoch,
        }
        found = await what.tree.files() if isinstance(what.tree, Context | Fetched) else what.tree
        tree = found if isinstance(found, str) else asdict(found)
        visit = await self._visits.begin(
            "build",
            "compose",
            root=await self.tree(chain),
            flow="out",
            tree=tree,
            order=order,
            made=directory,
            links=what.links,
        )
        return await _received(visit, part)

    async def packed(self, chain: tuple[Digest, ...]) -> AsyncIterator[bytes]:
        """The files of a chain as an archive."""
        visit = await self._visits.begin("build", "export", root=await self.tree(chain), flow="out")
        try:
            await visit.answer()
            while data := await visit.read():
                yield data
            await visit.answer()
        finally:
            await visit.aclose()

    async def tree(self, chain: tuple[Digest, ...]) -> RootFilesystem:
        """The files of a chain, or of the upper part of one, to be looked at."""
        layers = self._catalog.layers
        if not chain:
            base, name = os.path.split(self._empty)
            return RootFilesystem(base=base, lowers=(), upper=name, work="")
        # Short names: the kernel may have to take them all in one page.
        views = await layers.see(chain[-1])
        top, *rest = (view[len(layers.root) + 1 :] for view in views[: len(chain)])
        return RootFilesystem(base=layers.root, lowers=tuple(rest), upper=top, work="")


async def _received(visit: Visit, part: Part) -> dict[str, Any]:
    """Write what a visitor packs, and end it: its last answer."""
    try:
        await visit.answer()
        while data := await visit.read():
            if len(data) <= _PIECE:
                part.write(data)  # sooner done than handed to a thread
            else:
                await asyncio.to_thread(part.write, data)
        return await visit.answer()
    finally:
        await visit.aclose()


class _Tail:
    """The last lines of an output."""

    def __init__(self, lines: int = 10, size: int = 8192) -> None:
        self._lines = lines
        self._size = size
        self._text = ""

    def add(self, text: str) -> None:
        self._text = (self._text + text)[-self._size :]

    @property
    def text(self) -> str:
        """Whole lines."""
        lines = self._text.splitlines()[-self._lines :]
        return "".join(f"{line}\n" for line in lines)


async def _relay(sock: socket.socket, say: Say) -> None:
    """Say what comes in frames, until the end."""
    loop = asyncio.get_running_loop()
    rest = b""
    while data := await loop.sock_recv(sock, _PIECE):
        frames, rest = stdcopy.split(rest + data)
        for _, payload in frames:
            say(payload.decode(errors="replace"))
