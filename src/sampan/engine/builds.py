"""Build: from a Dockerfile and its context to a kept image.

Theory: the file is understood as a whole (``sampan.build``); the stages that the target needs are built side
by side, each waiting for those it uses; a stage goes step by step, and what a step does to files is looked up
in the cache before it is done (``buildsteps``).

Laws:
- The image becomes visible at the end, whole, with its names; a build that fails leaves what it has done so
  far in the cache, and nothing else.
- Messages come stage by stage in the order of the file, however the work is spread.
- Equal inputs give equal images: times in an image are those of the steps that were really run.
"""

from __future__ import annotations

import asyncio
import json
import posixpath
import time
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Callable, Coroutine, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from sampan.build import dockerfile, evaluate, lint, stages
from sampan.build.dockerfile import Dockerfile, DockerfileError
from sampan.build.stages import Recipe, Stage
from sampan.engine import cachetransfer, provenance, remotes
from sampan.engine.buildcontext import filled, sent_by, working
from sampan.engine.buildexplain import Explanations, Inputs, reasons
from sampan.engine.buildnamed import NamedContexts
from sampan.engine.buildnews import News, Vertex
from sampan.engine.buildoutputs import Outputs
from sampan.engine.buildsession import SessionContext
from sampan.engine.buildstages import SECOND, StageBuild, StageResult, automatic
from sampan.engine.buildsteps import StepFailed
from sampan.engine.model import HostConfig
from sampan.engine.telling import told
from sampan.errors import Failure, InvalidArgument, NotFound
from sampan.images.catalog import NewImage
from sampan.images.model import Image, format_time
from sampan.spec import digest as digests
from sampan.spec import image as documents
from sampan.spec import platform as platforms
from sampan.spec import reference as references
from sampan.spec.reference import Reference

if TYPE_CHECKING:
    from sampan.engine.buildcache import BuildCache, Remembered
    from sampan.engine.buildcontext import Context
    from sampan.engine.buildmounts import BuildMounts
    from sampan.engine.buildsession import Session
    from sampan.engine.buildsteps import BuildSteps
    from sampan.engine.cachetransfer import CacheTransfer
    from sampan.engine.heldfiles import HeldFiles
    from sampan.engine.images import Images
    from sampan.engine.pulls import Pulls
    from sampan.engine.registrycaches import RegistryCaches
    from sampan.images import unpacking
    from sampan.images.catalog import Catalog
    from sampan.images.holds import Hold
    from sampan.registry.credentials import Credentials
    from sampan.spec.digest import Digest

    AnyContext = Context | SessionContext


@dataclass(frozen=True, slots=True, kw_only=True)
class BuildOptions:
    """What the user asked for. ``credentials`` are by registry; ``host`` are limits of the containers.

    ``remote`` is the address of a context that is not sent; ``allowed`` are rights that RUN may ask for;
    ``cache_from`` are caches in registries, and images whose own records of their steps are taken,
    ``cache_inline`` gives the image such records, ``cache_told`` has the keys of all steps told,
    ``provenance`` (min, max) where the image comes from. With ``check`` the Dockerfile is only looked
    at, ``squash`` makes one layer of what the steps add.
    """

    dockerfile: str = "Dockerfile"
    remote: str = ""
    names: tuple[Reference, ...] = ()
    target: str = ""
    arguments: Mapping[str, str] = field(default_factory=dict)
    labels: Mapping[str, str] = field(default_factory=dict)
    platform: str = ""
    cache_from: tuple[str, ...] = ()
    cache_inline: bool = False
    cache_told: bool = False
    provenance: str = ""
    check: bool = False
    squash: bool = False
    no_cache: bool = False
    pull: bool = False
    quiet: bool = False
    host: HostConfig = field(default_factory=HostConfig)
    credentials: Mapping[str, Credentials] = field(default_factory=dict)
    allowed: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True, kw_only=True)
class Built:
    """The end of a build."""

    image_id: Digest


class Understood:
    """The first message: the context is here, and the Dockerfile makes sense."""


Message = str | Built | Understood | News


class Builds:
    """The use case."""

    def __init__(
        self,
        *,
        catalog: Catalog,
        images: Images,
        pulls: Pulls,
        cache: BuildCache,
        transfer: CacheTransfer,
        registry_caches: RegistryCaches,
        steps: BuildSteps,
        mounts: BuildMounts,
        held: HeldFiles,
        collect: Callable[[], Coroutine[Any, Any, None]] | None = None,
        explanations: Explanations,
        run: unpacking.Run | None = None,
        clock: Callable[[], int] = time.time_ns,
    ) -> None:
        """``collect`` keeps the cache to its limit, and is called after a build."""
        self.transfer = transfer
        self.registry_caches = registry_caches
        self._held = held
        self._collect = collect
        self._collecting: set[asyncio.Task[None]] = set()
        self._explanations = explanations
        self._going_on: set[asyncio.Future[None]] = set()
        self._catalog = catalog
        self._images = images
        self._pulls = pulls
        self._cache = cache
        self._steps = steps
        self._outputs = Outputs(catalog=catalog, steps=steps)
        self._mounts = mounts
        self._run = run
        self._clock = clock

    def build(
        self, body: AsyncIterable[bytes], options: BuildOptions, session: Session | None = None
    ) -> AsyncGenerator[Message, None]:
        """Messages while it goes on: ``Understood`` first, ``Built`` near the end.

        ``session`` is a client that answers while it goes on; ``body`` is then what it sends beforehand, if
        that is asked for. Failures name file and line where they can; StepFailed is a program's that ended
        badly.
        """
        return told(lambda tell: self._tracked(self._build(body, options, session, tell)))

    async def close(self) -> None:
        """End the builds that go on."""
        for task in self._going_on:
            task.cancel()
        await asyncio.gather(*self._going_on, return_exceptions=True)
        await asyncio.gather(*self._collecting)

    async def _tracked(self, build: Coroutine[Any, Any, None]) -> None:
        task = asyncio.ensure_future(build)
        self._going_on.add(task)
        try:
            await task
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            self._going_on.discard(task)
            if self._collect is not None:
                collecting = asyncio.create_task(self._collect())
                self._collecting.add(collecting)
                collecting.add_done_callback(self._collecting.discard)

    @asynccontextmanager
    async def _context(
        self, body: AsyncIterable[bytes], options: BuildOptions, session: Session | None
    ) -> AsyncIterator[AnyContext]:
        if session is not None and session.hello.dockerfile is not None:
            with self._held.session():
                async with working(self._catalog.blobs) as workspace:
                    yield SessionContext(workspace, session, self._held)
            await asyncio.to_thread(self._held.trim)
        else:
            fill = remotes.fill(options) if options.remote else sent_by(body)
            async with filled(self._catalog.blobs, fill, self._run) as context:
                yield context

    async def _build(
        self,
        body: AsyncIterable[bytes],
        options: BuildOptions,
        session: Session | None,
        tell: Callable[[Message], None],
    ) -> None:
        async with AsyncExitStack() as stack:
            context = await stack.enter_async_context(self._context(body, options, session))
            text = await context.read_dockerfile(options.dockerfile)
            if not text.strip():
                raise InvalidArgument(f"the Dockerfile ({options.dockerfile}) cannot be empty")
            named = posixpath.basename(options.dockerfile)
            # A client that sends a Dockerfile from outside its context gives it a name of this kind.
            named = "Dockerfile" if named.startswith(".dockerfile.") else named
            lines = tuple(text.removesuffix("\n").split("\n"))
            parsed, recipe = _understood(text, lines, named, options)
            tell(Understood())
            if options.check:
                tell(lint.report(parsed, named))
                if lint.lint(parsed):
                    raise StepFailed("lint violation found", code=1)
                return
            others = NamedContexts(
                catalog=self._catalog,
                held=self._held,
                run=self._run,
                session=session,
                options=options,
                stack=stack,
            )
            sources = await self._take_caches(options, tell)
            began_ns = self._clock()
            build = Build(self, options, context, recipe, tell, session, others)
            build.sources = sources
            try:
                image = await build.run()
            except StepFailed as error:
                if session is not None:
                    tell(error.shown(lines, named))
                raise
            except DockerfileError as error:
                shown = evaluate.shown(lines, error.first, error.last, named)
                if shown and not options.quiet:
                    tell(f"{shown}\n")
                place = f"{named}:{error.first}: " if error.first else ""
                raise InvalidArgument(f"{place}{error}") from error
            finally:
                await build.explained()
        if options.provenance:
            times = (began_ns, self._clock())
            document = provenance.statement(options, image.id, text, build.bases, times)
            tell(News(document={"aux": {"Provenance": document}}))
        keeps = session is None or session.hello.keep
        tell(Built(image_id=image.id))
        if not keeps:
            return
        short = digests.short(image.id)
        tell(f"{image.id}\n" if options.quiet else f"Successfully built {short}\n")
        for name in options.names:
            if not options.quiet:
                tell(f"Successfully tagged {name.familiar}\n")
            self._images.tell(image, "tag", name.familiar)

    async def _take_caches(self, options: BuildOptions, tell: Callable[[Message], None]) -> list[Image]:
        """Take caches and what images tell of their steps; what cannot be had is passed over, and told.

        Answers with the images that have nothing but their history to tell of them.
        """
        silent = []
        for name in options.cache_from:
            try:
                image = await self._take_cache(name, options)
            except Failure as error:
                if not options.quiet:
                    tell(f"[Warning] no cache of {name}: {error}\n")
            else:
                silent += [image] if image is not None else []
        return silent

    async def _take_cache(self, name: str, options: BuildOptions) -> Image | None:
        """An image that is here has the name before what a registry has under it.

        Answers with an image that has no records.
        """
        reference = references.parse(name).tagged()
        if options.pull or not await self._is_here(name, options):
            who = _credentials(reference, options)
            if await self.registry_caches.take(reference, who) is not None:
                return None
        image = await self.base(name, "", options, lambda _text: None)
        return None if await self.transfer.take_inline(image) else image

    async def _is_here(self, name: str, options: BuildOptions) -> bool:
        try:
            await self._catalog.resolve(name, platforms.parse(options.platform) if options.platform else None)
        except NotFound:
            return False
        return True

    # ------------------------------------------------------------------ what stages begin with

    async def base(
        self, name: str, platform: str, options: BuildOptions, say: Callable[[str], None]
    ) -> Image:
        """The image of a FROM, pulled if it is not here or a newer one is wanted."""
        reference = references.parse(name).tagged()
        platform = platform or options.platform
        meant = platforms.parse(platform) if platform else None
        if not options.pull:
            try:
                return await self._catalog.resolve(name, meant)
            except NotFound:
                pass
        from sampan.engine.pulls import Wanted

        wanted = Wanted(reference=reference, credentials=_credentials(reference, options), platform=platform)
        async for progress in self._pulls.pull(wanted):
            if progress.current is None and progress.status:
                say(f"{progress.id + ': ' if progress.id else ''}{progress.status}\n")
        return await self._catalog.resolve(reference.familiar, meant)


def _credentials(reference: Reference, options: BuildOptions) -> Credentials:
    from sampan.registry.credentials import NOBODY

    return options.credentials.get(reference.domain, NOBODY)


def _understood(
    text: str, lines: tuple[str, ...], named: str, options: BuildOptions
) -> tuple[Dockerfile, Recipe]:
    try:
        parsed = dockerfile.parse(text)
        recipe = stages.understand(parsed, options.arguments, automatic(options.platform))
        recipe.target(options.target)
        if not options.check:
            lint.refuse(parsed)
    except DockerfileError as error:
        shown = evaluate.shown(lines, error.first, error.last, named)
        place = f" on line {error.first}" if error.first else ""
        raise InvalidArgument(f"dockerfile parse error{place}: {error}\n{shown}".strip()) from error
    return parsed, recipe


class Build:
    """One build."""

    def __init__(
        self,
        use: Builds,
        options: BuildOptions,
        context: AnyContext,
        recipe: Recipe,
        tell: Callable[[Message], None],
        session: Session | None,
        named: NamedContexts,
    ) -> None:
        self.named = named
        self.use = use
        self.options = options
        self.context = context
        self.recipe = recipe
        self.session = session
        self._tell = tell
        self.results: dict[int, asyncio.Task[StageResult]] = {}
        self.consumed: set[str] = set()
        self._unsaid: list[str] = []
        self.sources: list[Image] = []
        """Images whose history may tell what steps came to."""
        self.bases: dict[str, Digest] = {}
        """The images that stages began with, by name."""
        self.steps: list[Remembered] = []
        """What each step came to, as it is remembered."""
        self._inputs: list[tuple[Inputs, bool]] = []
        self.epoch = _epoch(options.arguments)

    def vertex(self, name: str) -> Vertex:
        """A step that begins."""
        wanted = self.session is not None and self.session.hello.events
        return Vertex(self._tell if wanted else None, name)

    def took(self, inputs: Inputs, *, ran: bool) -> None:
        """What went into a step, and whether it was done anew."""
        self._inputs.append((inputs, ran))

    async def explained(self) -> None:
        """Keep what went into the steps, for the next time; say what was different, if that was asked for."""
        session = self.session
        if session is None or not session.hello.folder or not self._inputs:
            return
        hello, explanations = session.hello, self.use._explanations
        place = f"{hello.folder}\n{hello.name}\n{self.options.target}"
        before = await asyncio.to_thread(explanations.before, place)
        if hello.explain:
            for inputs, ran in self._inputs:
                if ran:
                    why = reasons(inputs, before, no_cache=self.options.no_cache)
                    self._tell("".join((f"Ran: {inputs.words}\n", *(f"  {one}\n" for one in why))))
        every = [inputs for inputs, _ in self._inputs]
        done = {(one.stage, one.number) for one in every}
        every += [one for one in before if (one.stage, one.number) not in done]
        every.sort(key=lambda one: (one.stage, one.number))
        await asyncio.to_thread(explanations.keep, place, every)

    async def result(self, stage: Stage, hold: Hold) -> StageResult:
        """A stage's result. One that only a trigger asks for is built now, and says nothing."""
        for wanted in self.recipe.needed(stage):
            if wanted.number not in self.results:
                work = StageBuild(self, wanted, hold, asyncio.Queue(), (1, 1 + len(wanted.steps)))
                self.results[wanted.number] = asyncio.create_task(work.run())
        return await self.results[stage.number]

    async def run(self) -> Image:
        target = self.recipe.target(self.options.target)
        needed = self.recipe.needed(target)
        total = sum(1 + len(stage.steps) for stage in needed)
        logs: dict[int, asyncio.Queue[str | None]] = {}
        with self.use._catalog.layers.holding() as hold:
            number = 1
            try:
                for stage in needed:
                    logs[stage.number] = asyncio.Queue()
                    work = StageBuild(self, stage, hold, logs[stage.number], (number, total))
                    self.results[stage.number] = asyncio.create_task(work.run())
                    number += 1 + len(stage.steps)
                for stage in needed:
                    await self._relay(logs[stage.number])
                    await self.results[stage.number]
                return await self._keep(await self.results[target.number], hold)
            except BaseException:
                # What a quiet build did is told when it fails.
                for text in self._unsaid:
                    self._tell(text)
                for result in self.results.values():
                    result.cancel()
                await asyncio.gather(*self.results.values(), return_exceptions=True)
                hold.end()
                await asyncio.shield(self.use._catalog.garbage.sweep(hold.blobs))
                raise

    async def _relay(self, log: asyncio.Queue[str | None]) -> None:
        while (text := await log.get()) is not None:
            if self.options.quiet:
                self._unsaid.append(text)
            else:
                self._tell(text)

    async def _keep(self, result: StageResult, hold: Hold) -> Image:
        unused = sorted(set(self.options.arguments) - self.consumed - set(self.recipe.arguments))
        unused = [
            name for name in unused if name not in evaluate.PREDEFINED and name not in (_EPOCH, _INLINE)
        ]
        if unused and not self.options.quiet:
            self._tell(f"[Warning] One or more build-args [{' '.join(unused)}] were not consumed\n")
        if self.options.squash:
            await self._squash(result, hold)
        raw = self._with_records(result.document(self.options), result)
        new = NewImage(raw=raw, names=self.options.names)
        if self.session is None:
            return (await self.use._images.keep([new], hold))[0]
        image = self.use._catalog.described(new)
        await self.use._outputs.deliver(self.session, image, self.options.names)
        return (await self.use._images.keep([new], hold))[0] if self.session.hello.keep else image

    def _with_records(self, raw: bytes, result: StageResult) -> bytes:
        """The configuration with what tells other engines of its steps, if that is wanted."""
        steps = {one.key: one for one in map(self.use._cache.whole, self.steps) if one.words}
        if self.options.cache_told:
            self._tell(News(document={"aux": {"BuildCache": sorted(steps)}}))
        wanted = self.options.cache_inline or self.options.arguments.get(_INLINE) == "1"
        if not wanted or self.options.squash:
            return raw
        records = cachetransfer.inline(steps.values(), result.chain)
        return documents.encode({**json.loads(raw), cachetransfer.INLINE: records})

    async def _squash(self, result: StageResult, hold: Hold) -> None:
        """Make one layer of all that the target's steps made; its history tells of them as Docker's does."""
        below = result.below
        whole = digests.of(result.document(self.options))
        latest = None if self.epoch is None else self.epoch * SECOND
        result.chain = await self.use._steps.squashed(below.chain, result.chain, latest, hold)
        result.diff_ids = [self.use._catalog.layers[one].diff_id for one in result.chain]
        added = [{**entry, "empty_layer": True} for entry in result.history[below.history :]]
        comment = f"merge {whole} to {below.image_id}" if below.image_id else f"create new from {whole}"
        merged: dict[str, Any] = {"created": format_time(result.created_ns), "comment": comment}
        if len(result.chain) == len(below.chain):
            merged["empty_layer"] = True
        result.history = [*result.history[: below.history], *added, merged]


_EPOCH = "SOURCE_DATE_EPOCH"
_INLINE = "BUILDKIT_INLINE_CACHE"


def _epoch(arguments: Mapping[str, str]) -> int | None:
    text = arguments.get(_EPOCH, "")
    if not text:
        return None
    if not text.isdecimal():
        raise InvalidArgument(f"invalid {_EPOCH}: {text}; it is seconds since 1970")
    return int(text)
