"""A stage at work: step by step from what it begins with to its files and its configuration.

A step whose work on files is remembered is not done again (``buildcache``); what it says goes to the log of
the stage, which ``builds`` tells in the order of the file.
"""

from __future__ import annotations

import asyncio
import dataclasses
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import msgspec

from sampan.build.dockerfile import DockerfileError
from sampan.build.evaluate import CopyWork, DirectoryWork, Draft, Outcome, RunWork
from sampan.build.instructions import Step, error
from sampan.build.stages import SCRATCH, Stage
from sampan.engine import buildhistory
from sampan.engine.buildcache import key_of
from sampan.engine.buildexplain import Inputs
from sampan.engine.buildnews import Vertex
from sampan.engine.buildsteps import Composition, StepFailed
from sampan.engine.model import HostConfig
from sampan.errors import InvalidArgument, NotFound
from sampan.images.model import format_time, parse_time
from sampan.spec import digest as digests
from sampan.spec import image as documents
from sampan.spec import platform as platforms
from sampan.spec.image import RunConfig

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from sampan.engine.builds import Build, BuildOptions
    from sampan.images.holds import Hold
    from sampan.images.model import Image
    from sampan.spec.digest import Digest

SECOND = 1_000_000_000  # ns
INSECURE = "security.insecure"
"""What allows a RUN to have all rights of the host."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Below:
    """What a stage began with: an image's or another stage's layers, how long its history is, and its id."""

    chain: tuple[Digest, ...] = ()
    history: int = 0
    image_id: str = ""


@dataclass(slots=True, kw_only=True)
class StageResult:
    """A stage as far as it has come. ``files`` is the cache's key of its files."""

    draft: Draft
    chain: tuple[Digest, ...]
    files: str
    created_ns: int
    architecture: str
    system: str
    variant: str
    history: list[dict[str, Any]]
    below: Below
    base: tuple[int, int] = (0, 0)
    """How many entries of the history, and how many layers, are an image's that the files began with."""

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


class StageBuild:
    """One stage."""

    def __init__(
        self,
        build: Build,
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
        self._first = self._number
        self._vertex = Vertex(None, "")
        self._words = ""
        self._result: StageResult

    def _say(self, text: str) -> None:
        self._log.put_nowait(text)

    async def run(self) -> StageResult:
        try:
            replaced = await self._begin()
            for step in () if replaced else self._stage.steps:
                await self._step(step)
            result = self._result
            layers = self._use._catalog.layers
            result.diff_ids = [layers[one].diff_id for one in result.chain]
            self._build.consumed |= result.draft.consumed
            self._vertex.end()
            return result
        except BaseException as error:
            self._vertex.end(str(error) or "canceled")
            raise
        finally:
            self._log.put_nowait(None)

    async def _begin(self) -> bool:
        """Begin the stage; True if a context of its name takes the place of all of it."""
        stage, named = self._stage, self._build.named
        shown = f" AS {stage.name}" if stage.name else ""
        self._announce(f"FROM {stage.image}{shown}")
        replaced = bool(stage.name) and stage.name in named
        source = stage.name if replaced else stage.image
        if stage.base is not None and not replaced:
            below = await self._build.results[stage.base]
            self._result = dataclasses.replace(
                below,
                draft=self._draft(below.draft.config),
                history=list(below.history),
                below=Below(
                    chain=below.chain,
                    history=len(below.history),
                    image_id=digests.of(below.document(self._build.options)),
                ),
            )
        elif stage.image == SCRATCH and not replaced:
            self._result = self._scratch()
        elif (context := await named.files(source)) is not None:
            self._result = self._scratch()
            self._words = f"COPY . / # from {source}"
            await self._compose(self._words, await self._use._mounts.everything(self, context))
        else:
            await self._begin_with_image(source)
        self._result.draft.begin()
        return replaced

    async def _image(self, name: str, platform: str) -> Image:
        """An image that the file names, or what the client has in its place."""
        named = self._build.named
        image = await named.layout(name)
        if image is None:
            image = await self._use.base(named.image(name), platform, self._build.options, self._say)
        self._build.bases[named.image(name)] = image.id
        return image

    async def _begin_with_image(self, name: str) -> None:
        image = await self._image(name, self._stage.platform)
        for chain_id in image.chain:
            self._hold.add(self._use._catalog.layers[chain_id])
        triggers = image.config.config.on_build
        history = documents.history(image.config)
        self._result = StageResult(
            draft=self._draft(image.config.config),
            chain=image.chain,
            files=key_of("files", image.chain_id),
            created_ns=int(parse_time(image.config.created) * SECOND),
            architecture=image.config.architecture,
            system=image.config.os,
            variant=image.config.variant,
            history=list(history),
            below=Below(chain=image.chain, history=len(history), image_id=image.id),
            base=(len(history), len(image.chain)),
        )
        self._result.draft.author = image.config.author
        self._say(f" ---> {digests.short(image.id)}\n")
        if triggers:
            self._say(f"# Executing {len(triggers)} build trigger{'s' if len(triggers) > 1 else ''}\n")
            for step in self._result.draft.triggers(triggers):
                await self._step(step, counted=False)

    def _scratch(self) -> StageResult:
        system, architecture, variant = platforms.parse(self._stage.platform or self._build.options.platform)
        self._say(" --->\n")
        return StageResult(
            draft=self._draft(RunConfig(working_dir="/")),
            chain=(),
            files=key_of("files", None),
            created_ns=0,
            architecture=architecture,
            system=system,
            variant=variant,
            history=[],
            below=Below(),
        )

    def _draft(self, config: RunConfig) -> Draft:
        build = self._build
        return Draft(
            escape=build.recipe.file.escape,
            given=build.options.arguments,
            outer={**automatic(build.options.platform), **build.recipe.arguments},
            config=config,
        )

    # ------------------------------------------------------------------ steps

    def _announce(self, words: str) -> None:
        self._say(f"Step {self._number}/{self._total} : {words}\n")
        self._vertex.end()
        self._vertex = self._build.vertex(f"[{self._number}/{self._total}] {words}")
        self._number += 1

    async def _step(self, step: Step, *, counted: bool = True) -> None:
        if counted:
            self._announce(step.source.original)
        outcome = self._result.draft.take(step)
        self._words = step.source.original
        try:
            await self._do(step, outcome)
        except DockerfileError:
            raise
        except StepFailed as error:
            source = step.source
            error.words, error.first, error.last = source.original, source.first, source.last
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
        """When the image came to be as it is: of no clock, unless a program was run."""
        return self._result.created_ns or (self._build.epoch or 0) * SECOND

    async def _run(self, outcome: Outcome, work: RunWork) -> None:
        build, result = self._build, self._result
        host = self._host(work)
        async with self._use._mounts.prepared(self, work) as prepared:
            key = key_of(
                "run",
                result.files,
                work.command,
                sorted(work.environment),
                work.user,
                work.directory,
                host.network_mode,
                *((host.privileged, host.userns_mode) if host.privileged or host.userns_mode else ()),
                work.script,
                prepared.inputs,
            )
            inputs = self._inputs(
                values=_values(work.environment),
                other={
                    "user": work.user,
                    "directory": work.directory,
                    "network": host.network_mode,
                    "mounts": key_of(prepared.inputs),
                },
            )
            await self._take_from_images(key, outcome.words, work, host)
            if self._remembered(key, inputs=inputs):
                return
            mounts, private = await prepared.given()
            work = dataclasses.replace(work, environment=(*work.environment, *private))
            self._say(f" ---> Running in {key[:12]}\n")
            latest = None if build.epoch is None else build.epoch * SECOND
            session = build.session
            shell = session.shell if session is not None and session.hello.shell else None
            chain_id = await self._use._steps.run(
                result.chain, work, host, mounts, latest, self._hold, self._heard, shell
            )
        await self._remember(key, chain_id, outcome.words, self._use._clock(), inputs=inputs)

    async def _take_from_images(self, key: str, words: str, work: RunWork, host: HostConfig) -> None:
        """Remember what an image's history tells of the step, if one does."""
        sources, result = self._build.sources, self._result
        own = host.network_mode != "default" or host.privileged or host.userns_mode
        if not sources or own or not buildhistory.is_told(work):
            return
        if self._build.options.no_cache or self._use._cache.get(key) is not None:
            return
        layers = self._use._catalog.layers
        for image in sources:
            if (image.config.os, image.config.architecture) != (result.system, result.architecture):
                continue
            told = buildhistory.found(
                image,
                history=result.history,
                base=result.base,
                diff_ids=[layers[one].diff_id for one in result.chain],
                environment=result.draft.config.env,
                words=words,
            )
            if told is not None and (told[0] is None or layers.get(told[0]) is not None):
                await self._use._cache.put(key, told[0], words, told[1])
                return

    def _host(self, work: RunWork) -> HostConfig:
        given = self._build.options.host
        wanted = work.step.network
        network = given.network_mode or "default" if wanted == "default" else wanted
        if work.step.insecure and INSECURE not in self._build.options.allowed:
            raise error(work.step.source, f"{INSECURE} is not allowed: it takes --allow {INSECURE}")
        return msgspec.structs.replace(given, network_mode=network, privileged=work.step.insecure)

    def _directory(self, work: DirectoryWork) -> Composition:
        return Composition(
            tree=self._build.context.empty,
            origin="nothing",
            sources=(),
            target=work.path,
            chown=work.owner,
            epoch=self._build.epoch,
            since=self.since,
        )

    async def _compositions(self, work: CopyWork) -> list[Composition]:
        return await self._use._mounts.compositions(self, work)

    async def _compose(self, words: str, what: Composition) -> None:
        """One composed layer, unless the same was made before."""
        result = self._result
        # The same files by the same words need not be looked at to be known.
        short = key_of("words", result.files, what.origin, what.words) if what.origin else ""
        inputs = self._inputs(
            files=await what.contents() if what.contents is not None else {},
            other={"source": what.origin if what.contents is None else "", "words": key_of(what.words)},
        )
        if short and self._remembered(short, inputs=inputs):
            return
        async with self._use._steps.composed(result.chain, what) as composed:
            key = key_of("copy", result.files, composed.digest)
            if self._remembered(key, short, inputs=inputs):
                return
            chain_id = await self._use._steps.keep(result.chain, composed, self._hold)
        await self._remember(key, chain_id, words, composed.newest * SECOND, short, inputs=inputs)

    def _inputs(
        self,
        *,
        values: Mapping[str, str] | None = None,
        files: Mapping[str, str] | None = None,
        other: Mapping[str, str],
    ) -> Inputs:
        """What goes into the step that is at work."""
        stage = self._stage
        return Inputs(
            stage=stage.name or str(stage.number),
            number=self._number - self._first - 1,
            words=self._words,
            parent=self._result.files,
            values=values or {},
            files=files or {},
            other=other,
        )

    def _heard(self, text: str) -> None:
        """A program has said something."""
        self._say(text)
        self._vertex.said(text)

    def _remembered(self, key: str, short: str = "", *, inputs: Inputs) -> bool:
        """Go on with what the step came to before; known by ``short`` from now on too."""
        found = None if self._build.options.no_cache else self._use._cache.get(key, short)
        if found is None:
            return False
        self._build.took(inputs, ran=False)
        self._build.steps.append(found)
        self._vertex.cached = True
        self._say(" ---> Using cache\n")
        self._advance(found.chain_id, found.created_ns)
        return True

    async def _remember(
        self,
        key: str,
        chain_id: Digest | None,
        words: str,
        created_ns: int,
        short: str = "",
        *,
        inputs: Inputs,
    ) -> None:
        entry = await self._use._cache.put(key, chain_id, words, created_ns, short)
        self._build.took(inputs, ran=True)
        self._build.steps.append(entry)
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
            newest = max(created_ns, result.created_ns)
            result.created_ns = newest if epoch is None else epoch * SECOND
        result.chain = chain
        if chain_id is not None:
            self._say(f" ---> {digests.short(chain_id)}\n")

    # ------------------------------------------------------------------ others' files

    @property
    def build(self) -> Build:
        return self._build

    @property
    def since(self) -> int:
        """When the image so far came to be, in seconds since 1970."""
        epoch = self._build.epoch
        return self._result.created_ns // SECOND if epoch is None else epoch

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
        image = await self._image(name, "")
        for chain_id in image.chain:
            self._hold.add(self._use._catalog.layers[chain_id])
        return image.chain


def _values(environment: Iterable[str]) -> dict[str, str]:
    """What tells each variable's value from another, by its name."""
    pairs = (entry.partition("=")[::2] for entry in environment)
    return {name: key_of(value)[:16] for name, value in pairs}


def automatic(platform: str) -> dict[str, str]:
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
