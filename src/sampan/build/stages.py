"""The stages of a Dockerfile: which there are, what each stands on, and which of them a target needs.

Laws: a stage is known by its name and by its number; it can use only stages before it, so that there is no
loop; what the target does not need, directly or by way of others, is not built.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from sampan.build import instructions
from sampan.build.dockerfile import Dockerfile
from sampan.build.expansion import process
from sampan.build.instructions import Arg, Copy, From, Run, Step, error
from sampan.errors import InvalidArgument
from sampan.wire.quoting import quoted

STAGE_LIMIT = 1000
SCRATCH = "scratch"


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """``base`` is a stage's number, or None with the ``image`` to begin with (``scratch``: nothing).

    ``needs`` are the numbers of all stages that it uses.
    """

    number: int
    name: str
    source: From
    image: str
    base: int | None
    platform: str
    steps: tuple[Step, ...]
    needs: frozenset[int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """A whole Dockerfile understood. ``arguments`` are its global ones, expanded."""

    file: Dockerfile
    stages: tuple[Stage, ...]
    arguments: Mapping[str, str]

    def target(self, name: str) -> Stage:
        """The stage of that name or number, the last for "". InvalidArgument if there is none."""
        if not name:
            return self.stages[-1]
        found = _by_name(self.stages, name)
        if found is None:
            raise InvalidArgument(f"target stage {quoted(name)} could not be found")
        return self.stages[found]

    def needed(self, target: Stage) -> tuple[Stage, ...]:
        """The target and what it needs, in the order of the file."""
        wanted: set[int] = set()
        waiting = [target.number]
        while waiting:
            number = waiting.pop()
            if number not in wanted:
                wanted.add(number)
                waiting += self.stages[number].needs
        return tuple(stage for stage in self.stages if stage.number in wanted)


def understand(file: Dockerfile, given: Mapping[str, str], automatic: Mapping[str, str]) -> Recipe:
    """The recipe of a file. ``given`` are the build's arguments, ``automatic`` those that always exist."""
    arguments: dict[str, str] = {}
    stages: list[Stage] = []
    open_from: From | None = None
    steps: list[Step] = []
    for source in file.instructions:
        step = instructions.read(source)
        if isinstance(step, From):
            if open_from is not None:
                stages.append(_stage(open_from, steps, stages, {**automatic, **arguments}, file.escape))
            open_from, steps = step, []
            if len(stages) >= STAGE_LIMIT:
                raise error(source, f"the Dockerfile has more than {STAGE_LIMIT} stages")
        elif open_from is not None:
            steps.append(step)
        elif isinstance(step, Arg):
            arguments |= _arguments(step, given, {**automatic, **arguments}, file.escape)
        else:
            raise error(source, "no build stage in current context")
    if open_from is None:
        raise error(file.instructions[-1], "no build stage in current context")
    stages.append(_stage(open_from, steps, stages, {**automatic, **arguments}, file.escape))
    return Recipe(file=file, stages=tuple(stages), arguments=arguments)


def _arguments(step: Arg, given: Mapping[str, str], known: Mapping[str, str], escape: str) -> dict[str, str]:
    found: dict[str, str] = {}
    for name, default in step.pairs:
        if name in given:
            found[name] = given[name]
        elif default is not None:
            found[name] = _expanded(step, default, {**known, **found}, escape)
    return found


def _stage(
    source: From, steps: list[Step], before: list[Stage], known: Mapping[str, str], escape: str
) -> Stage:
    image = _expanded(source, source.image, known, escape)
    if not image:
        raise error(source.source, f"base name ({source.image}) should not be blank")
    base = _named(before, image)
    needs = {base} if base is not None else set()
    for step in steps:
        needs |= set(_uses(step, before, source.name))
    return Stage(
        number=len(before),
        name=source.name,
        source=source,
        image=image,
        base=base,
        platform=_expanded(source, source.platform, known, escape),
        steps=tuple(steps),
        needs=frozenset(needs),
    )


def _uses(step: Step, before: list[Stage], own: str) -> Iterable[int]:
    """The stages before this one, whose name is ``own``, that a step takes files of."""
    names: list[str] = []
    if isinstance(step, Copy) and step.origin:
        names.append(step.origin)
    elif isinstance(step, Run):
        names += [mount["from"] for mount in step.mounts if mount["from"]]
    for name in names:
        found = _by_name(before, name)
        if found is not None:
            yield found
        elif own and name.lower() == own:
            raise error(step.source, f"circular dependency detected on stage: {own}")
        elif name.isdecimal():
            raise error(step.source, f"invalid stage index {name}: a stage can use only those before it")


def _by_name(stages: Iterable[Stage], name: str) -> int | None:
    """The last stage of that name, or the one of that number."""
    known = list(stages)
    found = _named(known, name)
    if found is None and name.isdecimal() and int(name) < len(known):
        return int(name)
    return found


def _named(stages: Iterable[Stage], name: str) -> int | None:
    lower = name.lower()
    return next((stage.number for stage in reversed(list(stages)) if stage.name == lower), None)


def _expanded(step: Step, word: str, values: Mapping[str, str], escape: str) -> str:
    try:
        return process(word, values, escape).text
    except InvalidArgument as failure:
        raise error(step.source, f"failed to process {quoted(word)}: {failure}") from None
