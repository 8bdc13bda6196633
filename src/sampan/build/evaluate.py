"""A stage, step by step: variables expanded, the configuration as it grows, and what is to be done to files.

Everything here is a function of the Dockerfile, the build's arguments and the image that a stage begins with;
whoever does the work (``Run``, ``Copy``, ``Workdir`` below) only adds when it was done.
"""

from __future__ import annotations

import json
import posixpath
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from sampan.build import expansion, instructions
from sampan.build.dockerfile import DockerfileError, Heredoc, parse_instruction
from sampan.build.instructions import Step, error
from sampan.errors import InvalidArgument
from sampan.spec import signals
from sampan.spec.image import RunConfig
from sampan.wire import modes
from sampan.wire.quoting import quoted

DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
DEFAULT_SHELL = ("/bin/sh", "-c")
PREDEFINED = frozenset(
    name
    for word in ("HTTP_PROXY", "HTTPS_PROXY", "FTP_PROXY", "NO_PROXY", "ALL_PROXY")
    for name in (word, word.lower())
)
"""Arguments that need no ARG, and are in no image's history."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunWork:
    """A program to run. ``environment`` is whole; ``script`` a file that the command names, if any."""

    step: instructions.Run
    command: tuple[str, ...]
    environment: tuple[str, ...]
    user: str
    directory: str
    mounts: tuple[instructions.Mount, ...]
    script: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class CopyWork:
    """Files to put in. ``inline`` are files whose text is in the Dockerfile, by name."""

    step: instructions.Copy
    sources: tuple[str, ...]
    target: str
    chown: str
    mode: int | modes.Change | None
    exclude: tuple[str, ...]
    inline: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class DirectoryWork:
    """A directory to be there; ``owner``'s, if it has to be made."""

    path: str
    owner: str


Work = RunWork | CopyWork | DirectoryWork


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What a step comes to: ``words`` for the image's history, and work on files unless it is None."""

    words: str
    work: Work | None = None


@dataclass(slots=True, kw_only=True)
class Draft:
    """The image so far. ``given`` are the build's arguments, ``arguments`` those that steps may use."""

    escape: str
    given: Mapping[str, str]
    outer: Mapping[str, str]
    config: RunConfig
    arguments: dict[str, str] = field(default_factory=dict)
    consumed: set[str] = field(default_factory=set)
    author: str = ""
    shell: tuple[str, ...] = DEFAULT_SHELL
    own_command: bool = False

    def begin(self) -> None:
        """After FROM: what every image of a build has."""
        if not any(entry.startswith("PATH=") for entry in self.config.env):
            self.config = replace(self.config, env=(*self.config.env, f"PATH={DEFAULT_PATH}"))
        self.shell = self.config.shell or DEFAULT_SHELL
        self.config = replace(self.config, on_build=())

    def triggers(self, texts: Iterable[str]) -> list[Step]:
        """The steps that an image left for those which are built on it."""
        return [instructions.read(parse_instruction(text, "\\")) for text in texts]

    def take(self, step: Step) -> Outcome:
        """The outcome of a step; the configuration is changed by it. DockerfileError naming the lines."""
        try:
            return _TAKERS[type(step)](self, step)
        except DockerfileError:
            raise
        except InvalidArgument as failure:
            raise error(step.source, str(failure)) from None

    # ------------------------------------------------------------------ variables

    @property
    def values(self) -> dict[str, str]:
        """What variables mean: arguments, and over them the environment."""
        return {**self.arguments, **dict(entry.partition("=")[::2] for entry in self.config.env)}

    def text(self, word: str) -> str:
        return expansion.expand(word, self.values, self.escape)

    def words(self, words: Iterable[str]) -> tuple[str, ...]:
        values = self.values
        return tuple(part for word in words for part in expansion.expand_words(word, values, self.escape))

    def texts(self, words: Iterable[str]) -> tuple[str, ...]:
        """Each expanded, none split: words that were apart already."""
        return tuple(self.text(word) for word in words)

    def heredoc(self, found: Heredoc) -> str:
        if not found.expand:
            return found.content
        return expansion.process(found.content, self.values, self.escape, raw_quotes=True).text

    @property
    def environment(self) -> tuple[str, ...]:
        """For programs that are run: the image's, and the arguments that it does not set."""
        known = {entry.partition("=")[0] for entry in self.config.env}
        proxies = {name: value for name, value in self.given.items() if name in PREDEFINED}
        arguments = {**proxies, **self.arguments}
        extra = tuple(f"{name}={value}" for name, value in arguments.items() if name not in known)
        return (*self.config.env, *extra)

    @property
    def directory(self) -> str:
        return self.config.working_dir or "/"


def _arg(draft: Draft, step: instructions.Arg) -> Outcome:
    for name, default in step.pairs:
        if name in draft.given:
            draft.consumed.add(name)
            draft.arguments[name] = draft.given[name]
        elif default is not None:
            draft.arguments[name] = draft.text(default)
        elif name in draft.outer:
            draft.arguments[name] = draft.outer[name]
    shown = " ".join(name if default is None else f"{name}={default}" for name, default in step.pairs)
    return Outcome(words=f"ARG {shown}")


def _env(draft: Draft, step: instructions.Env) -> Outcome:
    values = draft.values
    pairs = [
        (expansion.expand(name, values, draft.escape), expansion.expand(value, values, draft.escape))
        for name, value in step.pairs
    ]
    env = dict(entry.partition("=")[::2] for entry in draft.config.env)
    env.update(pairs)
    draft.config = replace(draft.config, env=tuple(f"{name}={value}" for name, value in env.items()))
    return Outcome(words="ENV " + " ".join(f"{name}={value}" for name, value in pairs))


def _label(draft: Draft, step: instructions.Label) -> Outcome:
    values = draft.values
    pairs = [
        (expansion.expand(name, values, draft.escape), expansion.expand(value, values, draft.escape))
        for name, value in step.pairs
    ]
    draft.config = replace(draft.config, labels={**draft.config.labels, **dict(pairs)})
    return Outcome(words="LABEL " + " ".join(f"{name}={value}" for name, value in pairs))


def _run(draft: Draft, step: instructions.Run) -> Outcome:
    script = ""
    if step.heredocs:
        command, script = _heredoc_command(draft, step)
    else:
        command = (*draft.shell, step.words[0]) if step.shell else step.words
    arguments = [f"{name}={value}" for name, value in draft.arguments.items()]
    prefix = f"|{len(arguments)} {' '.join(arguments)} " if arguments else ""
    mounts = tuple(
        replace(mount, fields={name: draft.text(value) for name, value in mount.fields.items()})
        for mount in step.mounts
    )
    work = RunWork(
        step=step,
        command=command,
        environment=draft.environment,
        user=draft.config.user,
        directory=draft.directory,
        mounts=mounts,
        script=script,
    )
    return Outcome(words=f"RUN {_beside(work)}{prefix}{' '.join(command)}", work=work)


def _beside(work: RunWork) -> str:
    """What a RUN has besides its program and the build's arguments; "" for a plain one.

    A history that tells of it can stand for what the step was made from.
    """
    step = work.step
    flags = [
        f"--mount={','.join((f'type={mount.kind}', *(f'{name}={mount[name]}' for name in mount.fields)))} "
        for mount in work.mounts
    ]
    flags += [f"--network={step.network} "] if step.network != "default" else []
    flags += ["--security=insecure "] if step.insecure else []
    return "".join(flags)


SCRIPT = "/dev/pipes/script"
"""Where a program that stands in the Dockerfile lies while it runs."""


def _heredoc_command(draft: Draft, step: instructions.Run) -> tuple[tuple[str, ...], str]:
    """The command of a RUN with heredocs, and a script of its own if it begins with ``#!``."""
    line = step.words[0]
    first = step.heredocs[0]
    bare = line.strip().lstrip("<-").strip("'\"") == first.name and line.strip().startswith("<<")
    if bare and len(step.heredocs) == 1:
        if first.content.startswith("#!"):
            return (SCRIPT,), first.content
        return (*draft.shell, first.content), ""
    body = "".join(f"{found.content}{found.name}\n" for found in step.heredocs)
    return (*draft.shell, f"{line}\n{body}"), ""


def _copy(draft: Draft, step: instructions.Copy) -> Outcome:
    split = draft.texts if step.source.json else draft.words
    names = {found.name: draft.heredoc(found) for found in step.heredocs}
    marks = [word for word in step.sources if step.heredocs and word.lstrip("0123456789").startswith("<<")]
    sources = split(word for word in step.sources if word not in marks)
    (target, *rest) = split((step.target,)) or ("",)
    if rest:
        raise InvalidArgument(f"the destination {quoted(step.target)} is more than one word")
    directory = target.endswith(("/", "/.")) or target in (".", "")
    target = posixpath.normpath(posixpath.join(draft.directory, target))
    if directory and target != "/":
        target += "/"
    chmod = draft.text(step.chmod)
    shown = " ".join((*sources, *names, target))
    work = CopyWork(
        step=step,
        sources=sources,
        target="/" if target == "//" else target,
        chown=draft.text(step.chown),
        mode=_mode(chmod) if chmod else None,
        exclude=draft.texts(step.exclude),
        inline=tuple(names.items()),
    )
    return Outcome(words=f"{'ADD' if step.add else 'COPY'} {shown}", work=work)


def _mode(text: str) -> int | modes.Change:
    try:
        return modes.parse(text)
    except ValueError:
        raise InvalidArgument(
            f"invalid chmod parameter: '{text}'. it should be octal string and between 0 and 07777, or "
            "symbolic like u=rwX,go=rX"
        ) from None


def _command(draft: Draft, step: instructions.Command) -> Outcome:
    words = (*draft.shell, step.words[0]) if step.shell and step.words else step.words
    kind = "ENTRYPOINT" if step.entrypoint else "CMD"
    if step.entrypoint:
        draft.config = replace(draft.config, entrypoint=words)
        if not draft.own_command:
            draft.config = replace(draft.config, cmd=None)
    else:
        draft.own_command = True
        draft.config = replace(draft.config, cmd=words)
    return Outcome(words=f"{kind} {json.dumps(list(words), ensure_ascii=False)}")


def _shell(draft: Draft, step: instructions.Shell) -> Outcome:
    draft.shell = step.words
    draft.config = replace(draft.config, shell=step.words)
    return Outcome(words=f"SHELL {json.dumps(list(step.words), ensure_ascii=False)}")


def _text(draft: Draft, step: instructions.Text) -> Outcome:
    text = draft.text(step.text)
    kind = step.kind.upper()
    if step.kind == "maintainer":
        draft.author = step.text
        return Outcome(words=f"MAINTAINER {step.text}")
    if not text:
        raise InvalidArgument(f"{kind} requires exactly one argument")
    if step.kind == "workdir":
        path = posixpath.normpath(posixpath.join(draft.directory, text))
        draft.config = replace(draft.config, working_dir="/" + path.lstrip("/"))
        work = DirectoryWork(path=draft.directory, owner=draft.config.user)
        return Outcome(words=f"WORKDIR {draft.directory}", work=work)
    if step.kind == "user":
        draft.config = replace(draft.config, user=text)
    else:
        signals.number(text)
        draft.config = replace(draft.config, stop_signal=text)
    return Outcome(words=f"{kind} {text}")


def _several(draft: Draft, step: instructions.Words) -> Outcome:
    words = draft.texts(step.words) if step.source.json else draft.words(step.words)
    if step.kind == "expose":
        ports = [port for word in words for port in _ports(word)]
        known = dict.fromkeys((*draft.config.exposed_ports, *ports))
        draft.config = replace(draft.config, exposed_ports=tuple(known))
        return Outcome(words=f"EXPOSE {json.dumps(ports)}")
    if not all(words):
        raise InvalidArgument("VOLUME specified can not be an empty string")
    known = dict.fromkeys((*draft.config.volumes, *words))
    draft.config = replace(draft.config, volumes=tuple(known))
    return Outcome(words=f"VOLUME {json.dumps(list(words), ensure_ascii=False)}")


def _ports(word: str) -> list[str]:
    """``80``, ``80/udp``, ``8000-8010``, each as number and protocol."""
    numbers, _, protocol = word.rpartition("/") if "/" in word else (word, "", "tcp")
    protocol = protocol.lower() or "tcp"
    first, dash, last = numbers.rpartition(":")[2].partition("-")
    valid = first.isdecimal() and (not dash or last.isdecimal()) and protocol in ("tcp", "udp", "sctp")
    if not valid or not int(first) <= int(last or first) <= 65535:
        raise InvalidArgument(f"invalid containerPort: {word}")
    return [f"{number}/{protocol}" for number in range(int(first), int(last or first) + 1)]


def _health(draft: Draft, step: instructions.Healthcheck) -> Outcome:
    members = {
        "Test": list(step.test),
        "Interval": step.interval,
        "Timeout": step.timeout,
        "StartPeriod": step.start_period,
        "StartInterval": step.start_interval,
        "Retries": step.retries,
    }
    draft.config = replace(
        draft.config, healthcheck={name: value for name, value in members.items() if value}
    )
    return Outcome(words=f"HEALTHCHECK {json.dumps(list(step.test), ensure_ascii=False)}")


def _onbuild(draft: Draft, step: instructions.OnBuild) -> Outcome:
    draft.config = replace(draft.config, on_build=(*draft.config.on_build, step.text))
    return Outcome(words=f"ONBUILD {step.text}")


_TAKERS: dict[type[Step], Callable[[Draft, Any], Outcome]] = {
    instructions.Arg: _arg,
    instructions.Env: _env,
    instructions.Label: _label,
    instructions.Run: _run,
    instructions.Copy: _copy,
    instructions.Command: _command,
    instructions.Shell: _shell,
    instructions.Text: _text,
    instructions.Words: _several,
    instructions.Healthcheck: _health,
    instructions.OnBuild: _onbuild,
}


def shown(lines: Sequence[str], first: int, last: int, file: str) -> str:
    """The lines of an error as BuildKit shows them, with their neighbours."""
    if not first:
        return ""
    low, high = max(1, first - 2), min(len(lines), last + 2)
    body = [
        f"{number:4d} | {'>>>' if first <= number <= last else '   '} {lines[number - 1]}"
        for number in range(low, high + 1)
    ]
    rule = "-" * 20
    return "\n".join((f"{file}:{first}", rule, *body, rule))
