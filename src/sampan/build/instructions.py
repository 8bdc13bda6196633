"""What each instruction means: its flags and words as typed values, still unexpanded.

Law: a flag or a number of words that BuildKit refuses is refused, naming file line and mend; nothing that
BuildKit understands is passed over in silence.
"""

from __future__ import annotations

import csv
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from sampan.build.dockerfile import DockerfileError, Heredoc, Instruction
from sampan.wire import durations
from sampan.wire.quoting import quoted


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """An instruction with its place in the file."""

    source: Instruction


@dataclass(frozen=True, slots=True, kw_only=True)
class From(Step):
    image: str
    platform: str = ""
    name: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Arg(Step):
    """(name, default or None) of each."""

    pairs: tuple[tuple[str, str | None], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Env(Step):
    pairs: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Label(Step):
    pairs: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Mount:
    """One ``--mount`` of a RUN: its fields as given."""

    kind: str = "bind"
    fields: Mapping[str, str]

    def __getitem__(self, name: str) -> str:
        return self.fields.get(name, "")


@dataclass(frozen=True, slots=True, kw_only=True)
class Run(Step):
    """``words`` are a program and its arguments, or with ``shell`` one line for the shell."""

    words: tuple[str, ...]
    shell: bool
    mounts: tuple[Mount, ...] = ()
    network: str = "default"
    insecure: bool = False
    heredocs: tuple[Heredoc, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Copy(Step):
    """COPY, and ADD with ``add``. ``origin`` is the stage, image or context of ``--from``."""

    add: bool
    sources: tuple[str, ...]
    target: str
    origin: str = ""
    chown: str = ""
    chmod: str = ""
    link: bool = False
    parents: bool = False
    exclude: tuple[str, ...] = ()
    checksum: str = ""
    keep_git: bool = False
    unpack: bool | None = None
    heredocs: tuple[Heredoc, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Command(Step):
    """CMD or ENTRYPOINT."""

    words: tuple[str, ...]
    shell: bool
    entrypoint: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Shell(Step):
    words: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Text(Step):
    """WORKDIR, USER, STOPSIGNAL, MAINTAINER: one word."""

    kind: str
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Words(Step):
    """EXPOSE, VOLUME: several."""

    kind: str
    words: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Healthcheck(Step):
    """``test`` as in the API; times in nanoseconds, 0 for the default."""

    test: tuple[str, ...]
    interval: int = 0
    timeout: int = 0
    start_period: int = 0
    start_interval: int = 0
    retries: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class OnBuild(Step):
    text: str


class _Flags:
    """The flags of one instruction; what nobody asked for is an error at the end."""

    def __init__(self, source: Instruction) -> None:
        self._source = source
        self._values: dict[str, list[str | None]] = {}
        for flag in source.flags:
            name, equals, value = flag[2:].partition("=")
            self._values.setdefault(name, []).append(value if equals else None)

    def text(self, name: str) -> str:
        values = self.texts(name)
        if len(values) > 1:
            raise self._wrong(f"duplicate flag specified: {name}")
        return values[0] if values else ""

    def texts(self, name: str) -> tuple[str, ...]:
        found = self._values.pop(name, [])
        for value in found:
            if value is None:
                raise self._wrong(f"missing a value on flag: {name}")
        return tuple(value or "" for value in found)

    def switch(self, name: str) -> bool | None:
        found = self._values.pop(name, None)
        if found is None:
            return None
        value = found[-1]
        if value not in (None, "true", "false", ""):
            raise self._wrong(f"expecting boolean value for flag {name}, not: {value}")
        return value in (None, "true", "")

    def done(self) -> None:
        if self._values:
            name = next(iter(self._values))
            raise self._wrong(f"unknown flag: --{name}")

    def _wrong(self, message: str) -> DockerfileError:
        return error(self._source, message)


def error(source: Instruction, message: str) -> DockerfileError:
    """An error at an instruction."""
    return DockerfileError(message, source.first, source.last)


def read(source: Instruction) -> Step:
    """The meaning of an instruction. DockerfileError for one that has none."""
    flags = _Flags(source)
    step = _READERS[source.name](source, flags)
    flags.done()
    return step


def _exactly_one(source: Instruction) -> str:
    if len(source.words) != 1:
        raise error(source, f"{source.name.upper()} requires exactly one argument")
    return source.words[0]


def _at_least_one(source: Instruction) -> tuple[str, ...]:
    if not source.words:
        raise error(source, f"{source.name.upper()} requires at least one argument")
    return source.words


def _from(source: Instruction, flags: _Flags) -> Step:
    words = source.words
    if len(words) == 1:
        name = ""
    elif len(words) == 3 and words[1].lower() == "as":
        name = words[2].lower()
        if not (name[:1].isalpha() and all(part.isalnum() or part in "-_." for part in name)):
            raise error(
                source,
                f"invalid name for build stage: {quoted(words[2])}, name can't start with a number or "
                "contain symbols",
            )
    else:
        raise error(source, "FROM requires either one or three arguments")
    return From(source=source, image=words[0], platform=flags.text("platform"), name=name)


def _arg(source: Instruction, _flags: _Flags) -> Step:
    pairs: list[tuple[str, str | None]] = []
    for word in _at_least_one(source):
        name, equals, value = word.partition("=")
        if not name:
            raise error(source, "ARG names can not be blank")
        pairs.append((name, value if equals else None))
    return Arg(source=source, pairs=tuple(pairs))


def _pairs(source: Instruction) -> tuple[tuple[str, str], ...]:
    words = _at_least_one(source)
    pairs = tuple(zip(words[0::3], words[1::3], strict=True))
    for name, _ in pairs:
        if not name:
            raise error(source, f"{source.name.upper()} names can not be blank")
    return pairs


def _env(source: Instruction, _flags: _Flags) -> Step:
    return Env(source=source, pairs=_pairs(source))


def _label(source: Instruction, _flags: _Flags) -> Step:
    return Label(source=source, pairs=_pairs(source))


_MOUNT_KINDS = frozenset(("bind", "cache", "tmpfs", "secret", "ssh"))
_MOUNT_NAMES = {
    "src": "source",
    "dst": "target",
    "destination": "target",
    "rw": "readwrite",
    "ro": "readonly",
}
_MOUNT_FIELDS = {
    "bind": frozenset(("target", "source", "from", "readonly", "readwrite")),
    "cache": frozenset(
        ("target", "source", "from", "readonly", "readwrite", "id", "sharing", "mode", "uid", "gid")
    ),
    "tmpfs": frozenset(("target", "size", "readonly", "readwrite")),
    "secret": frozenset(("target", "id", "required", "mode", "uid", "gid", "env")),
    "ssh": frozenset(("target", "id", "required", "mode", "uid", "gid")),
}
_MOUNT_KNOWN = frozenset().union(*_MOUNT_FIELDS.values()) | {"type"}
_MOUNT_SWITCHES = frozenset(("readonly", "readwrite", "required"))
_SHARINGS = ("shared", "private", "locked")


def _mount(source: Instruction, text: str) -> Mount:
    fields: dict[str, str] = {}
    for part in next(csv.reader([text]), []):
        name, equals, value = part.partition("=")
        name = _MOUNT_NAMES.get(name.lower(), name.lower())
        if name not in _MOUNT_KNOWN:
            raise error(source, f"unexpected key '{name}' in '{part}'")
        if not equals and name not in _MOUNT_SWITCHES:
            raise error(source, f"invalid field '{part}' must be a key=value pair")
        fields[name] = value if equals else "true"
    kind = fields.pop("type", "bind")
    if kind not in _MOUNT_FIELDS:
        raise error(source, f"unsupported mount type {quoted(kind)}")
    if unfit := fields.keys() - _MOUNT_FIELDS[kind]:
        raise error(source, f"unexpected key '{min(unfit)}' for mount type '{kind}'")
    if kind in ("bind", "cache", "tmpfs") and not fields.get("target"):
        raise error(source, f"--mount of type {kind} requires a target")
    if kind == "cache" and fields.setdefault("sharing", "shared") not in _SHARINGS:
        raise error(source, f"unsupported sharing value {quoted(fields['sharing'])}")
    return Mount(kind=kind, fields=fields)


def _run(source: Instruction, flags: _Flags) -> Step:
    mounts = tuple(_mount(source, text) for text in flags.texts("mount"))
    network = flags.text("network") or "default"
    if network not in ("default", "none", "host"):
        raise error(source, f"invalid network mode: {quoted(network)}")
    security = flags.text("security") or "sandbox"
    if security not in ("sandbox", "insecure"):
        raise error(source, f"security mode {quoted(security)} is not valid")
    if not source.words and not source.heredocs:
        raise error(source, "RUN requires at least one argument")
    return Run(
        source=source,
        words=source.words,
        shell=not source.json,
        mounts=mounts,
        network=network,
        insecure=security == "insecure",
        heredocs=source.heredocs,
    )


def _copy(source: Instruction, flags: _Flags) -> Step:
    add = source.name == "add"
    words = source.words
    if len(words) < 2:
        raise error(
            source,
            f"{source.name.upper()} requires at least two arguments, but only {len(words)} was provided. "
            "Destination could not be determined",
        )
    *sources, target = words
    return Copy(
        source=source,
        add=add,
        sources=tuple(sources),
        target=target,
        origin="" if add else flags.text("from"),
        chown=flags.text("chown"),
        chmod=flags.text("chmod"),
        link=bool(flags.switch("link")),
        parents=False if add else bool(flags.switch("parents")),
        exclude=flags.texts("exclude"),
        checksum=flags.text("checksum") if add else "",
        keep_git=bool(flags.switch("keep-git-dir")) if add else False,
        unpack=flags.switch("unpack") if add else None,
        heredocs=source.heredocs,
    )


def _command(source: Instruction, _flags: _Flags) -> Step:
    if source.name == "entrypoint" and not source.words and not source.json:
        raise error(source, "ENTRYPOINT requires at least one argument")
    return Command(
        source=source,
        words=source.words,
        shell=not source.json,
        entrypoint=source.name == "entrypoint",
    )


def _shell(source: Instruction, _flags: _Flags) -> Step:
    if not source.json or not source.words:
        raise error(source, "SHELL requires the arguments to be in JSON form")
    return Shell(source=source, words=source.words)


def _text(source: Instruction, _flags: _Flags) -> Step:
    return Text(source=source, kind=source.name, text=_exactly_one(source))


def _words(source: Instruction, _flags: _Flags) -> Step:
    return Words(source=source, kind=source.name, words=_at_least_one(source))


def _onbuild(source: Instruction, _flags: _Flags) -> Step:
    inner = source.inner
    if inner is None:
        raise error(source, "ONBUILD requires at least one argument")
    if inner.name == "onbuild":
        raise error(source, "Chaining ONBUILD via `ONBUILD ONBUILD` isn't allowed")
    if inner.name in ("from", "maintainer"):
        raise error(source, f"{inner.name.upper()} isn't allowed as an ONBUILD trigger")
    read(replace(inner, first=source.first, last=source.last))
    return OnBuild(source=source, text=source.words[0])


def _health(source: Instruction, flags: _Flags) -> Step:
    words = _at_least_one(source)
    kind = words[0].upper()
    if kind == "NONE":
        if len(words) > 1:
            raise error(source, "HEALTHCHECK NONE takes no arguments")
        return Healthcheck(source=source, test=("NONE",))
    if kind != "CMD":
        raise error(source, f"unknown type {quoted(words[0])} in HEALTHCHECK (try CMD)")
    command = words[1:]
    if not command or not any(command):
        raise error(source, "missing command after HEALTHCHECK CMD")
    test = ("CMD", *command) if source.json else ("CMD-SHELL", " ".join(command))
    retries = flags.text("retries")
    if retries and (not retries.isdecimal() or int(retries) < 0):
        raise error(source, f"invalid retries {quoted(retries)}")
    return Healthcheck(
        source=source,
        test=test,
        interval=_duration(source, flags, "interval"),
        timeout=_duration(source, flags, "timeout"),
        start_period=_duration(source, flags, "start-period"),
        start_interval=_duration(source, flags, "start-interval"),
        retries=int(retries or 0),
    )


def _duration(source: Instruction, flags: _Flags, name: str) -> int:
    text = flags.text(name)
    if not text:
        return 0
    try:
        value = durations.parse(text)
    except ValueError:
        raise error(source, f"invalid duration {quoted(text)} of --{name}") from None
    if value < 0 or 0 < value < 1_000_000:
        raise error(source, f"Interval {quoted(name)} cannot be less than 1ms")
    return value


_READERS: dict[str, Callable[[Instruction, _Flags], Step]] = {
    "add": _copy,
    "arg": _arg,
    "cmd": _command,
    "copy": _copy,
    "entrypoint": _command,
    "env": _env,
    "expose": _words,
    "from": _from,
    "healthcheck": _health,
    "label": _label,
    "maintainer": _text,
    "onbuild": _onbuild,
    "run": _run,
    "shell": _shell,
    "stopsignal": _text,
    "user": _text,
    "volume": _words,
    "workdir": _text,
}
