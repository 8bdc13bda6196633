"""What is allowed in a Dockerfile but better not written: BuildKit's checks that need nothing but the file.

``# check=skip=RULE,RULE;error=true`` at its beginning leaves rules out and makes of the others errors; a
build says nothing about them otherwise, ``--check`` says all. Source: "Build checks" of Docker's build
reference.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from sampan.build.dockerfile import Dockerfile, DockerfileError, Instruction
from sampan.build.evaluate import shown

_EXPERIMENTAL = "experimental"
_NAMES = re.compile(
    r"(?i)(?:^|_)(?:apikey|auth|credential|credentials|key|password|pword|passwd|secret|token)(?:_|$)"
)
_PUBLIC = re.compile(r"(?i)(?:^|_)public(?:_|$)")
_VARIABLE = re.compile(r"\$\{?([A-Za-z_][A-Za-z0-9_]*)")
_ABSOLUTE = re.compile(r"/|\$|[A-Za-z]:[/\\]")
_RESERVED = ("context", "scratch")
_AUTOMATIC = frozenset(
    f"{prefix}{name}" for prefix in ("BUILD", "TARGET") for name in ("PLATFORM", "OS", "ARCH", "VARIANT")
)
_ONCE = ("cmd", "entrypoint", "healthcheck")


@dataclass(frozen=True, slots=True, kw_only=True)
class Warning:  # noqa: A001 - the reference's word
    """One violation at lines ``first`` to ``last``."""

    rule: str
    message: str
    first: int
    last: int


def lint(file: Dockerfile) -> list[Warning]:
    """All violations, in the order of the file, but those that it wants no word of."""
    skipped, _ = _directive(file)
    if "all" in skipped:
        return []
    found = [warning for check in _CHECKS for warning in check(file) if warning.rule not in skipped]
    return sorted(found, key=lambda warning: warning.first)


def refuse(file: Dockerfile) -> None:
    """DockerfileError for the violations of a file that wants them to be errors."""
    _, error = _directive(file)
    found = lint(file) if error else []
    if found:
        rules = ", ".join(dict.fromkeys(warning.rule for warning in found))
        raise DockerfileError(f"lint violation found for rules: {rules}", found[0].first, found[0].last)


def report(file: Dockerfile, name: str) -> str:
    """All that is to be said of a file called ``name``."""
    found = lint(file)
    if not found:
        return "Check complete, no warnings found.\n"
    count = "1 warning has been found!" if len(found) == 1 else f"{len(found)} warnings have been found!"
    parts = [f"Check complete, {count}\n"]
    for warning in found:
        lines = shown(file.lines, warning.first, warning.last, name)
        parts.append(f"\nWARNING: {warning.rule}\n{warning.message}\n{lines}\n")
    return "".join(parts)


def _directive(file: Dockerfile) -> tuple[frozenset[str], bool]:
    skipped: set[str] = set()
    error = False
    for part in file.directives.get("check", "").split(";"):
        name, _, value = part.strip().partition("=")
        if name == "skip":
            skipped |= {rule.strip() for rule in value.split(",")}
        elif name == "error":
            error = value.strip().lower() in ("true", "1")
        elif name and name != _EXPERIMENTAL:
            raise DockerfileError(f"invalid check option {name!r}", 1)
    return frozenset(skipped), error


def _at(rule: str, message: str, source: Instruction) -> Warning:
    return Warning(rule=rule, message=message, first=source.first, last=source.last)


def _word(source: Instruction) -> str:
    """The instruction's name as it is written."""
    return source.original[: len(source.name)]


def _casing(file: Dockerfile) -> Iterator[Warning]:
    words = [_word(source) for source in file.instructions]
    upper = sum(word.isupper() for word in words)
    lower = sum(word.islower() for word in words)
    wanted, name = (str.upper, "uppercase") if upper >= lower else (str.lower, "lowercase")
    for source, word in zip(file.instructions, words, strict=True):
        if word != wanted(word):
            message = f"Command '{word}' should match the case of the command majority ({name})"
            yield _at("ConsistentInstructionCasing", message, source)


def _empty_lines(file: Dockerfile) -> Iterator[Warning]:
    for source in file.instructions:
        between = file.lines[source.first : source.last - 1]
        if not source.heredocs and any(not line.strip() for line in between):
            yield _at("NoEmptyContinuation", "Empty continuation line", source)


def _stages(file: Dockerfile) -> Iterator[Warning]:
    names: set[str] = set()
    for source in file.instructions:
        words = source.words
        if source.name != "from":
            continue
        if len(words) == 3:
            name = words[2]
            if name != name.lower():
                yield _at("StageNameCasing", f"Stage name '{name}' should be lowercase", source)
            if words[1].isupper() != _word(source).isupper():
                message = f"'{words[1]}' and '{_word(source)}' keywords' casing do not match"
                yield _at("FromAsCasing", message, source)
            if name.lower() in names:
                message = f"Duplicate stage name '{name}', stage names should be unique"
                yield _at("DuplicateStageName", message, source)
            if name.lower() in _RESERVED:
                message = f"Stage name should not use the same name as reserved stage '{name}'"
                yield _at("ReservedStageName", message, source)
            names.add(name.lower())
        yield from _platform(source)


def _platform(source: Instruction) -> Iterator[Warning]:
    for flag in source.flags:
        name, _, value = flag.partition("=")
        if name != "--platform":
            continue
        if value in ("$TARGETPLATFORM", "${TARGETPLATFORM}"):
            message = (
                f"Setting platform to predefined {value} in FROM is redundant as this is the default behavior"
            )
            yield _at("RedundantTargetPlatform", message, source)
        elif "$" not in value:
            message = f'FROM --platform flag should not use constant value "{value}"'
            yield _at("FromPlatformFlagConstDisallowed", message, source)


def _arguments_of_from(file: Dockerfile) -> Iterator[Warning]:
    known: dict[str, str | None] = dict.fromkeys(_AUTOMATIC, "x")
    for source in file.instructions:
        if source.name == "from":
            break
        for word in source.words:
            name, equals, value = word.partition("=")
            known[name] = value if equals else None
    for source in file.instructions:
        if source.name != "from":
            continue
        for name in _VARIABLE.findall(" ".join((*source.words[:1], *source.flags))):
            if name not in known:
                message = f"FROM argument '{name}' is not declared"
                yield _at("UndefinedArgInFrom", message, source)
            elif not known[name] and not re.search(rf"\$\{{{name}:?[-+]", source.words[0]):
                message = (
                    f"Default value for ARG {source.words[0]} results in empty or invalid base image name"
                )
                yield _at("InvalidDefaultArgInFrom", message, source)


def _commands(file: Dockerfile) -> Iterator[Warning]:
    """What stands more than once in a stage, and commands that a shell would keep signals from."""
    last: dict[str, Instruction] = {}
    shell = absolute = False
    for source in file.instructions:
        if source.name == "from":
            last, shell = {}, False
            absolute = False
        elif source.name == "shell":
            shell = True
        elif source.name == "workdir" and source.words:
            absolute = absolute or _ABSOLUTE.match(source.words[0]) is not None
            if not absolute:
                message = (
                    f"Relative workdir '{source.words[0]}' can have unexpected results if the base image "
                    "changes"
                )
                yield _at("WorkdirRelativePath", message, source)
        if source.name in _ONCE:
            if source.name in last:
                message = (
                    f"Multiple {source.name.upper()} instructions should not be used in the same stage "
                    "because only the last one will be used"
                )
                yield _at("MultipleInstructionsDisallowed", message, last[source.name])
            last[source.name] = source
        if source.name in ("cmd", "entrypoint") and not source.json and not shell and source.words:
            message = (
                f"JSON arguments recommended for {source.name.upper()} to prevent unintended behavior "
                "related to OS signals"
            )
            yield _at("JSONArgsRecommended", message, source)


def _old_forms(file: Dockerfile) -> Iterator[Warning]:
    for source in file.instructions:
        name = source.name
        if name == "maintainer":
            message = "Maintainer instruction is deprecated in favor of using label"
            yield _at("MaintainerDeprecated", message, source)
        elif name in ("env", "label") and "" in source.words[2::3]:
            kind = name.upper()
            message = f'"{kind} key=value" should be used instead of legacy "{kind} key value" format'
            yield _at("LegacyKeyValueFormat", message, source)
        elif name == "expose":
            yield from _expose(source)


def _expose(source: Instruction) -> Iterator[Warning]:
    for word in source.words:
        port, _, protocol = word.partition("/")
        if protocol != protocol.lower():
            message = f"Defined protocol '{word}' in EXPOSE instruction should be lowercase"
            yield _at("ExposeProtoCasing", message, source)
        if ":" in port:
            message = (
                f"EXPOSE instruction should not define an IP address or host-port mapping, found '{word}'"
            )
            yield _at("ExposeInvalidFormat", message, source)


def _secrets(file: Dockerfile) -> Iterator[Warning]:
    for source in file.instructions:
        if source.name == "env":
            names = source.words[0::3]
        elif source.name == "arg":
            names = tuple(word.partition("=")[0] for word in source.words)
        else:
            continue
        for name in names:
            if _NAMES.search(name) and not _PUBLIC.search(name):
                message = (
                    f'Do not use ARG or ENV instructions for sensitive data ({source.name.upper()} "{name}")'
                )
                yield _at("SecretsUsedInArgOrEnv", message, source)


_CHECKS: tuple[Callable[[Dockerfile], Iterator[Warning]], ...] = (
    _casing,
    _empty_lines,
    _stages,
    _arguments_of_from,
    _commands,
    _old_forms,
    _secrets,
)
