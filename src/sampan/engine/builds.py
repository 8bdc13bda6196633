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
import dataclasses
import posixpath
import time
from collections.abc import AsyncGenerator, AsyncIterable, Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import msgspec

from sampan.build import dockerfile, evaluate, stages
from sampan.build.dockerfile import DockerfileError
from sampan.build.evaluate import CopyWork, DirectoryWork, Draft, Outcome, RunWork
from sampan.build.instructions import Step
from sampan.build.stages import SCRATCH, Recipe, Stage
from sampan.engine.buildcache import key_of
from sampan.engine.buildcontext import Context, received
from sampan.engine.buildsteps import Composition
from sampan.engine.model import HostConfig, Mount
from sampan.engine.telling import told
from sampan.errors import Failure, InvalidArgument, NotFound
from sampan.images.catalog import NewImage
from sampan.images.model import Image, format_time, parse_time
from sampan.spec import digest as digests
from sampan.spec import image as documents
from sampan.spec import platform as platforms
from sampan.spec import reference as references
from sampan.spec.image import RunConfig
from sampan.spec.reference import Reference

if TYPE_CHECKING:
    from sampan.engine.buildcache import BuildCache
    from sampan.engine.buildmounts import BuildMounts
    from sampan.engine.buildsteps import BuildSteps
    from sampan.engine.images import Images
    from sampan.engine.pulls import Pulls
    from sampan.images import unpacking
    from sampan.images.catalog import Catalog
    from sampan.images.holds import Hold
    from sampan.registry.credentials import Credentials
    from sampan.spec.digest import Digest

_SECOND = 1_000_000_000  # ns


@dataclass(frozen=True, slots=True, kw_only=True)
class BuildOptions:
    """What the user asked for. ``credentials`` are by registry; ``host`` are limits of the containers."""

    dockerfile: str = "Dockerfile"
    names: tuple[Reference, ...] = ()
    target: str = ""
    arguments: Mapping[str, str] = field(default_factory=dict)
    labels: Mapping[str, str] = field(default_factory=dict)
    platform: str = ""
    no_cache: bool = False
    pull: bool = False
    quiet: bool = False
    host: HostConfig = field(default_factory=HostConfig)
    credentials: Mapping[str, Credentials] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Built:
    """The end of a build."""

    image_id: Digest


class Understood:
    """The first message: the context is here, and the Dockerfile makes sense."""


Message = str | Built | Understood


class Builds:
    """The use case."""

    def __init__(
        self,
        *,
        catalog: Catalog,
        images: Images,
        pulls: Pulls,
        cache: BuildCache,
        steps: BuildSteps,
        mounts: BuildMounts,
        run: unpacking.Run | None = None,
        clock: Callable[[], int] = time.time_ns,
    ) -> None:
        self._catalog = catalog
        self._images = images
        self._pulls = pulls
        self._cache = cache
        self._steps = steps
        self._mounts = mounts
        self._run = run
        self._clock = clock

    def build(self, body: AsyncIterable[bytes], options: BuildOptions) -> AsyncGenerator[Message, None]:
        """Messages while it goes on: ``Understood`` first, ``Built`` near the end.

        Failures name file and line where they can; StepFailed is a program's that ended badly.
        """
        return told(lambda tell: self._build(body, options, tell))

    async def _build(
        self, body: AsyncIterable[bytes], options: BuildOptions, tell: Callable[[Message], None]
    ) -> None:
        async with received(self._catalog.blobs, body, self._run) as context:
            text = await context.read_dockerfile(options.dockerfile)
            if not text.strip():
                raise InvalidArgument(f"the Dockerfile ({options.dockerfile}) cannot be empty")
            named = posixpath.basename(options.dockerfile)
            # A client that sends a Dockerfile from outside its context gives it a name of this kind.
            named = "Dockerfile" if named.startswith(".dockerfile.") else named
            lines = tuple(text.removesuffix("\n").split("\n"))
            try:
                recipe = stages.understand(
                    dockerfile.parse(text), options.arguments, _automatic(options.platform)
                )
                recipe.target(options.target)
            except DockerfileError as error:
                shown = evaluate.shown(lines, error.first, error.last, named)
                place = f" on line {error.first}" if error.first else ""
                raise InvalidArgument(f"dockerfile parse error{place}: {error}\n{shown}".strip()) from error
            tell(Understood())
            try:
                image = await _Build(self, options, context, recipe, tell).run()
            except DockerfileError as error:
                shown = evaluate.shown(lines, error.first, error.last, named)
                if shown and not options.quiet:
                    tell(f"{shown}\n")
                place = f"{named}:{error.first}: " if error.first else ""
                raise InvalidArgument(f"{place}{error}") from error
        tell(Built(image_id=image.id))
        short = digests.short(image.id)
        tell(f"{image.id}\n" if options.quiet else f"Successfully built {short}\n")
        for name in options.names:
            if not options.quiet:
                tell(f"Successfully tagged {name.familiar}\n")
            self._images.tell(image, "tag", name.familiar)

    # ------------------------------------------------------------------ what stages begin with

    async def base(
        self, name: str, platform: str, options: BuildOptions, say: Callable[[str], None]
    ) -> Image:
        """The image of a FROM, pulled if it is not here or a newer one is wanted."""
        reference = references.parse(name).tagged()
        if not options.pull:
            try:
                return await self._catalog.resolve(name)
            except NotFound:
                pass
        from sampan.engine.pulls import Wanted
        from sampan.registry.credentials import NOBODY

        who = options.credentials.get(_server(reference), NOBODY)
        wanted = Wanted(reference=reference, credentials=who, platform=platform or options.platform)
        async for progress in self._pulls.pull(wanted):
            if progress.current is None and progress.status:
                say(f"{progress.id + ': ' if progress.id else ''}{progress.status}\n")
        return self._catalog.find(reference.familiar)


class _Build:
    """One build."""

    def __init__(
        self,
        use: Builds,
        options: BuildOptions,
        context: Context,
        recipe: Recipe,
        tell: Callable[[Message], None],
    ) -> None:
        self.use = use
        self.options = options
        self.context = context
        self.recipe = recipe
        self._tell = tell
        self.results: dict[int, asyncio.Task[_Result]] = {}
        self.consumed: set[str] = set()
        self._unsaid: list[str] = []
        self.epoch = _epoch(options.arguments)

    async def result(self, stage: Stage, hold: Hold) -> _Result:
        """A stage's result. One that only a trigger asks for is built now, and says nothing."""
        for wanted in self.recipe.needed(stage):
            if wanted.number not in self.results:
                work = _StageBuild(self, wanted, hold, asyncio.Queue(), (1, 1 + len(wanted.steps)))
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
                    work = _StageBuild(self, stage, hold, logs[stage.number], (number, total))
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
                await asyncio.shield(self.use._catalog.sweep(hold.blobs))
                raise

    async def _relay(self, log: asyncio.Queue[str | None]) -> None:
        while (text := await log.get()) is not None:
            if self.options.quiet:
                self._unsaid.append(text)
            else:
                self._tell(text)

    async def _keep(self, result: _Result, hold: Hold) -> Image:
        unused = sorted(set(self.options.arguments) - self.consumed - set(self.recipe.arguments))
        unused = [name for name in unused if name not in evaluate.PREDEFINED and name != _EPOCH]
        if unused and not self.options.quiet:
            self._tell(f"[Warning] One or more build-args [{' '.join(unused)}] were not consumed\n")
        raw = result.document(self.options)
        new = NewImage(raw=raw, names=self.options.names)
        return (await self.use._images.keep([new], hold))[0]


@dataclass(slots=True, kw_only=True)
class _Result:
    """A stage as far as it has come. ``files`` is the cache's key of its files."""

    draft: Draft
    chain: tuple[Digest, ...]
    files: str
    created_ns: int
    architecture: str
    system: str
    variant: str
    history: list[dict[str, Any]]

    def document(self, options: BuildOptions) -> bytes:
        """The image's configuration."""
        draft = self.draft
        config = draft.config
        if options.labels:
            config = dataclasses.replace(config, labels={**config.labels, **options.labels})
        members: dict[str, Any] = {
            "architecture": self.architecture,
            **({"variant": self.variant} if self.variant else {}),
            "os": self.system,
            "created": format_time(self.created_ns),
            **({"author": draft.author} if draft.author else {}),
            "config": config.document(),
            "rootfs": {"type": "layers", "diff_ids": self.diff_ids},
            "history": self.history,
        }
        return documents.encode(members)

    diff_ids: list[Digest] = field(default_factory=list)


class _StageBuild:
    """One stage."""

    def __init__(
        self,
        build: _Build,
        stage: Stage,
        hold: Hold,
        log: asyncio.Queue[str | None],
        numbers: tuple[int, int],
    ) -> None:
        self._build = build
        self._use = build.use
        self._stage = stage
        self._hold = hold
        self._log = log
        self._number, self._total = numbers
        self._result: _Result

    def _say(self, text: str) -> None:
        self._log.put_nowait(text)

    async def run(self) -> _Result:
        try:
            await self._begin()
            for step in self._steps():
                await self._step(step)
            result = self._result
            layers = self._use._catalog.layers
            result.diff_ids = [layers[one].diff_id for one in result.chain]
            self._build.consumed |= result.draft.consumed
            return result
        finally:
            self._log.put_nowait(None)

    async def _begin(self) -> None:
        stage = self._stage
        shown = f" AS {stage.name}" if stage.name else ""
        self._announce(f"FROM {stage.image}{shown}")
        if stage.base is not None:
            below = await self._build.results[stage.base]
            self._result = dataclasses.replace(
                below, draft=self._draft(below.draft.config), history=list(below.history)
            )
        elif stage.image == SCRATCH:
            self._result = self._scratch()
        else:
            await self._begin_with_image()
        self._result.draft.begin()

    async def _begin_with_image(self) -> None:
        stage, build = self._stage, self._build
        image = await self._use.base(stage.image, stage.platform, build.options, self._say)
        for chain_id in image.chain:
            self._hold.add(self._use._catalog.layers[chain_id])
        triggers = image.config.config.on_build
        self._result = _Result(
            draft=self._draft(image.config.config),
            chain=image.chain,
            files=key_of("files", image.chain_id),
            created_ns=int(parse_time(image.config.created) * _SECOND),
            architecture=image.config.architecture,
            system=image.config.os,
            variant=image.config.variant,
            history=list(documents.history(image.config)),
        )
        self._result.draft.author = image.config.author
        self._say(f" ---> {digests.short(image.id)}\n")
        if triggers:
            self._say(f"# Executing {len(triggers)} build trigger{'s' if len(triggers) > 1 else ''}\n")
            for step in self._result.draft.triggers(triggers):
                await self._step(step, counted=False)

    def _scratch(self) -> _Result:
        system, architecture, variant = platforms.parse(self._stage.platform or self._build.options.platform)
        self._say(" --->\n")
        return _Result(
            draft=self._draft(RunConfig()),
            chain=(),
            files=key_of("files", None),
            created_ns=0,
            architecture=architecture,
            system=system,
            variant=variant,
            history=[],
        )

    def _draft(self, config: RunConfig) -> Draft:
        build = self._build
        return Draft(
            escape=build.recipe.file.escape,
            given=build.options.arguments,
            outer={**_automatic(build.options.platform), **build.recipe.arguments},
            config=config,
        )

    def _steps(self) -> tuple[Step, ...]:
        return self._stage.steps

    # ------------------------------------------------------------------ steps

    def _announce(self, words: str) -> None:
        self._say(f"Step {self._number}/{self._total} : {words}\n")
        self._number += 1

    async def _step(self, step: Step, *, counted: bool = True) -> None:
        if counted:
            self._announce(step.source.original)
        outcome = self._result.draft.take(step)
        try:
            await self._do(step, outcome)
        except DockerfileError:
            raise
        except (InvalidArgument, NotFound) as error:
            raise DockerfileError(str(error), step.source.first, step.source.last) from error

    async def _do(self, step: Step, outcome: Outcome) -> None:
        result = self._result
        before = result.chain
        if isinstance(outcome.work, RunWork):
            await self._run(outcome, outcome.work)
        elif isinstance(outcome.work, CopyWork):
            for composition in await self._compositions(outcome.work):
                await self._compose(outcome.words, composition)
        elif isinstance(outcome.work, DirectoryWork):
            await self._compose(outcome.words, self._directory(outcome.work))
        entry: dict[str, Any] = {"created": format_time(self._time()), "created_by": outcome.words}
        if result.draft.author:
            entry["author"] = result.draft.author
        layers = len(result.chain) - len(before)
        if not layers:
            entry["empty_layer"] = True
        # A COPY of several kinds of sources makes several layers.
        result.history += [entry] * max(1, layers)

    def _time(self) -> int:
        return self._result.created_ns or (self._build.epoch or 0) * _SECOND or self._use._clock()

    async def _run(self, outcome: Outcome, work: RunWork) -> None:
        build, result = self._build, self._result
        host = self._host(work)
        async with self._use._mounts.prepared(self, work) as (mounts, inputs):
            key = key_of(
                "run",
                result.files,
                work.command,
                sorted(work.environment),
                work.user,
                work.directory,
                host.network_mode,
                work.script,
                inputs,
            )
            if self._remembered(key):
                return
            self._say(f" ---> Running in {key[:12]}\n")
            latest = None if build.epoch is None else build.epoch * _SECOND
            chain_id = await self._use._steps.run(
                result.chain, work, host, mounts, latest, self._hold, self._say
            )
        await self._remember(key, chain_id, outcome.words)

    def _host(self, work: RunWork) -> HostConfig:
        given = self._build.options.host
        wanted = work.step.network
        network = given.network_mode or "default" if wanted == "default" else wanted
        return msgspec.structs.replace(given, network_mode=network)

    def _directory(self, work: DirectoryWork) -> Composition:
        return Composition(
            tree=self._build.context.empty,
            origin="nothing",
            sources=(),
            target=work.path,
            chown=work.owner,
            epoch=self._build.epoch,
        )

    async def _compositions(self, work: CopyWork) -> list[Composition]:
        return await self._use._mounts.compositions(self, work)

    async def _compose(self, words: str, what: Composition) -> None:
        """One composed layer, unless the same was made before."""
        result = self._result
        # The same files by the same words need not be looked at to be known.
        short = key_of("words", result.files, what.origin, what.words) if what.origin else ""
        if short and self._remembered(short):
            return
        async with self._use._steps.composed(result.chain, what) as (layer, digest):
            key = key_of("copy", result.files, digest)
            if self._remembered(key, short):
                return
            chain_id = await self._use._steps.keep(result.chain, layer, self._hold)
        await self._remember(key, chain_id, words, short)

    def _remembered(self, key: str, short: str = "") -> bool:
        """Go on with what the step came to before; known by ``short`` from now on too."""
        if self._build.options.no_cache:
            return False
        found = self._use._cache.get(key, short)
        if found is None:
            return False
        self._say(" ---> Using cache\n")
        self._advance(found.chain_id, found.created_ns)
        return True

    async def _remember(self, key: str, chain_id: Digest | None, words: str, short: str = "") -> None:
        entry = await self._use._cache.put(key, chain_id, words, short)
        self._advance(chain_id, entry.created_ns)

    def _advance(self, chain_id: Digest | None, created_ns: int) -> None:
        result = self._result
        layers = self._use._catalog.layers
        chain = tuple(layer.chain_id for layer in reversed(layers.chain(chain_id)))
        for one in chain:
            self._hold.add(layers[one])
        if chain != result.chain:
            result.files = key_of("files", chain_id)
            epoch = self._build.epoch
            result.created_ns = created_ns if epoch is None else epoch * _SECOND
        result.chain = chain
        if chain_id is not None:
            self._say(f" ---> {digests.short(chain_id)}\n")

    # ------------------------------------------------------------------ others' files

    @property
    def build(self) -> _Build:
        return self._build

    @property
    def chain(self) -> tuple[Digest, ...]:
        return self._result.chain

    async def files_of(self, name: str) -> tuple[Digest, ...]:
        """The layers of the stage or image that ``--from`` names."""
        stage = next(
            (
                found
                for found in reversed(self._build.recipe.stages[: self._stage.number])
                if name.lower() == found.name or name == str(found.number)
            ),
            None,
        )
        if stage is not None:
            return (await self._build.result(stage, self._hold)).chain
        image = await self._use.base(name, "", self._build.options, self._say)
        for chain_id in image.chain:
            self._hold.add(self._use._catalog.layers[chain_id])
        return image.chain


_EPOCH = "SOURCE_DATE_EPOCH"


def _epoch(arguments: Mapping[str, str]) -> int | None:
    text = arguments.get(_EPOCH, "")
    if not text:
        return None
    if not text.isdecimal():
        raise InvalidArgument(f"invalid {_EPOCH}: {text}; it is seconds since 1970")
    return int(text)


def _automatic(platform: str) -> dict[str, str]:
    """The arguments of platforms, which exist in every build."""
    found: dict[str, str] = {}
    for prefix, text in (("BUILD", ""), ("TARGET", platform)):
        system, architecture, variant = platforms.parse(text)
        shown = "/".join(part for part in (system, architecture, variant) if part)
        found |= {
            f"{prefix}PLATFORM": shown,
            f"{prefix}OS": system,
            f"{prefix}ARCH": architecture,
            f"{prefix}VARIANT": variant,
        }
    return found


def _server(reference: Reference) -> str:
    return reference.domain


__all__ = ["BuildOptions", "Builds", "Built", "Failure", "Mount"]
