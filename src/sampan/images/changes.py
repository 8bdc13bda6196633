"""``--change``: Dockerfile instructions applied to an image's configuration, as import and commit take them.

Only instructions that change the configuration are known here; the words of refusal are Docker's.
"""

from __future__ import annotations

import json
import posixpath
import re
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

from sampan.errors import InvalidArgument
from sampan.spec import foreign
from sampan.spec.image import RunConfig

_SHELL = ("/bin/sh", "-c")
_UNITS = {"ns": 1, "us": 10**3, "µs": 10**3, "ms": 10**6, "s": 10**9, "m": 60 * 10**9, "h": 3600 * 10**9}
_DURATION_PART = re.compile(r"([0-9]+(?:\.[0-9]*)?|\.[0-9]+)(ns|us|µs|ms|s|m|h)")
_PORT = re.compile(r"([0-9]{1,5})(?:-([0-9]{1,5}))?(?:/(tcp|udp|sctp))?", re.IGNORECASE)
_SIGNAL = re.compile(r"(?:SIG)?[A-Z][A-Z0-9]*(?:[+-][0-9]+)?|[0-9]+", re.IGNORECASE)
_PORT_LIMIT = 65535
_FORBIDDEN_TRIGGERS = ("FROM", "MAINTAINER")


def apply(config: RunConfig, changes: Iterable[str]) -> RunConfig:
    """The configuration after the instructions, in order. InvalidArgument for one that cannot be applied."""
    command_given = False
    for change in changes:
        for line in _lines(change):
            word, _, rest = line.partition(" ")
            word, rest = word.upper(), rest.strip()
            handler = _HANDLERS.get(word)
            if handler is None:
                raise InvalidArgument(f"{word} is not a valid change command")
            if not rest and word not in ("CMD", "ENTRYPOINT"):
                raise InvalidArgument(f"{word} requires at least one argument")
            changed = handler(config, rest)
            # An entrypoint makes the inherited command meaningless, but not one given beside it.
            if word == "ENTRYPOINT" and not command_given:
                changed = replace(changed, cmd=None)
            command_given = command_given or word == "CMD"
            config = changed
    return config


def _lines(change: str) -> list[str]:
    """Instructions, one a line; a backslash at the end continues the line, ``#`` begins a comment line."""
    joined = re.sub(r"\\[ \t]*\r?\n", "", change)
    lines = [line.strip().replace("\t", " ", 1) for line in joined.splitlines()]
    return [line for line in lines if line and not line.startswith("#")]


def _exec_form(rest: str) -> tuple[str, ...] | None:
    """The strings of a JSON array; None when it is not one."""
    if not rest.startswith("["):
        return None
    try:
        value: Any = foreign.decode(rest)
    except ValueError:
        return None
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        return None
    return tuple(value)


def _command(config: RunConfig, rest: str) -> tuple[str, ...] | None:
    found = _exec_form(rest)
    if found is not None:
        return found
    return (*(config.shell or _SHELL), rest) if rest else None


def _cmd(config: RunConfig, rest: str) -> RunConfig:
    return replace(config, cmd=_command(config, rest))


def _entrypoint(config: RunConfig, rest: str) -> RunConfig:
    return replace(config, entrypoint=_command(config, rest))


def _env(config: RunConfig, rest: str) -> RunConfig:
    env = {entry.partition("=")[0]: entry for entry in config.env}
    for name, value in _pairs("ENV", rest):
        env[name] = f"{name}={value}"  # in its old place, if it has one
    return replace(config, env=tuple(env.values()))


def _label(config: RunConfig, rest: str) -> RunConfig:
    return replace(config, labels={**config.labels, **dict(_pairs("LABEL", rest))})


def _expose(config: RunConfig, rest: str) -> RunConfig:
    ports = list(config.exposed_ports)
    for word in _words(rest):
        match = _PORT.fullmatch(word)
        first = int(match[1]) if match else 0
        last = int(match[2] or first) if match else 0
        if match is None or not 0 < first <= last <= _PORT_LIMIT:
            raise InvalidArgument(f"invalid containerPort: {word}")
        ports += [f"{port}/{(match[3] or 'tcp').lower()}" for port in range(first, last + 1)]
    return replace(config, exposed_ports=tuple(dict.fromkeys(ports)))


def _on_build(config: RunConfig, rest: str) -> RunConfig:
    trigger = rest.partition(" ")[0].upper()
    if trigger == "ONBUILD":
        raise InvalidArgument("Chaining ONBUILD via `ONBUILD ONBUILD` isn't allowed")
    if trigger in _FORBIDDEN_TRIGGERS:
        raise InvalidArgument(f"{trigger} isn't allowed as an ONBUILD trigger")
    return replace(config, on_build=(*config.on_build, rest))


def _stop_signal(config: RunConfig, rest: str) -> RunConfig:
    if not _SIGNAL.fullmatch(rest):
        raise InvalidArgument(f"invalid signal: {rest}")
    return replace(config, stop_signal=rest)


def _user(config: RunConfig, rest: str) -> RunConfig:
    return replace(config, user=rest)


def _volume(config: RunConfig, rest: str) -> RunConfig:
    paths = _exec_form(rest)
    paths = tuple(_words(rest)) if paths is None else paths
    if any(not path.strip() for path in paths):
        raise InvalidArgument("VOLUME specified can not be an empty string")
    return replace(config, volumes=tuple(dict.fromkeys((*config.volumes, *paths))))


def _workdir(config: RunConfig, rest: str) -> RunConfig:
    words = _words(rest)
    if len(words) != 1:
        raise InvalidArgument("WORKDIR requires exactly one argument")
    (path,) = words
    return replace(config, working_dir=posixpath.normpath(posixpath.join("/", config.working_dir, path)))


def _shell(config: RunConfig, rest: str) -> RunConfig:
    found = _exec_form(rest)
    if not found:
        raise InvalidArgument("SHELL requires the arguments to be in JSON form")
    return replace(config, shell=found)


def _healthcheck(config: RunConfig, rest: str) -> RunConfig:
    check: dict[str, Any] = {}
    names = {"interval": "Interval", "timeout": "Timeout", "start-period": "StartPeriod"}
    names |= {"start-interval": "StartInterval"}
    while rest.startswith("--"):
        flag, _, rest = rest.partition(" ")
        rest = rest.strip()
        name, _, value = flag[2:].partition("=")
        if name in names:
            check[names[name]] = _duration(value)
        elif name == "retries" and value.isdigit():
            check["Retries"] = int(value)
        else:
            raise InvalidArgument(f"unknown flag: --{name}")
    kind, _, command = rest.partition(" ")
    command = command.strip()
    if kind.upper() == "NONE":
        if command:
            raise InvalidArgument("HEALTHCHECK NONE takes no arguments")
        return replace(config, healthcheck={"Test": ["NONE"]})
    if kind.upper() != "CMD":
        raise InvalidArgument(f"Unknown type {json.dumps(kind.upper())} in HEALTHCHECK (try CMD)")
    if not command:
        raise InvalidArgument("Missing command after HEALTHCHECK CMD")
    found = _exec_form(command)
    test = ["CMD-SHELL", command] if found is None else ["CMD", *found]
    return replace(config, healthcheck={"Test": test, **check})


def _duration(text: str) -> int:
    """A Go duration such as ``1m30s`` in nanoseconds."""
    total, at = 0.0, 0
    for match in _DURATION_PART.finditer(text):
        if match.start() != at:
            break
        total += float(match[1]) * _UNITS[match[2]]
        at = match.end()
    if not text or at != len(text):
        raise InvalidArgument(f"time: invalid duration {json.dumps(text)}")
    return int(total)


def _pairs(instruction: str, rest: str) -> list[tuple[str, str]]:
    """``key=value …`` with quotes, or the old form ``key the rest of the line``."""
    words = _words(rest, keep_quotes=True)
    if "=" not in words[0]:
        key, separator, value = rest.partition(" ")
        if not separator:
            raise InvalidArgument(f"{instruction} must have two arguments")
        return [(_unquote(key), _unquote(value.strip()))]
    pairs = []
    for word in words:
        key, separator, value = word.partition("=")
        if not separator:
            raise InvalidArgument(
                f"Syntax error - can't find = in {json.dumps(word)}. Must be of the form: name=value"
            )
        if not _unquote(key):
            raise InvalidArgument(f"{instruction} names can not be blank")
        pairs.append((_unquote(key), _unquote(value)))
    return pairs


def _words(text: str, *, keep_quotes: bool = False) -> list[str]:
    """Split at blanks outside quotes; a backslash keeps the next character."""
    words: list[str] = []
    word, quote, escaped, started = "", "", False, False
    for c in text:
        if not (escaped or quote) and c.isspace():
            if started:
                words.append(word)
            word, started = "", False
            continue
        started = True
        word += c
        if escaped:
            escaped = False
        elif c == "\\" and quote != "'":
            escaped = True
        elif quote:
            quote = "" if c == quote else quote
        elif c in "'\"":
            quote = c
    if started:
        words.append(word)
    return words if keep_quotes else [_unquote(word) for word in words]


def _unquote(text: str) -> str:
    """Without quotes and the backslashes that they or blanks needed."""
    result, quote, escaped = "", "", False
    for c in text:
        if escaped:
            # Within double quotes only these three lose their backslash.
            result += c if quote != '"' or c in '"\\$' else "\\" + c
            escaped = False
        elif c == "\\" and quote != "'":
            escaped = True
        elif quote:
            quote, result = ("", result) if c == quote else (quote, result + c)
        elif c in "'\"":
            quote = c
        else:
            result += c
    return result


_HANDLERS: dict[str, Callable[[RunConfig, str], RunConfig]] = {
    "CMD": _cmd,
    "ENTRYPOINT": _entrypoint,
    "ENV": _env,
    "EXPOSE": _expose,
    "HEALTHCHECK": _healthcheck,
    "LABEL": _label,
    "ONBUILD": _on_build,
    "SHELL": _shell,
    "STOPSIGNAL": _stop_signal,
    "USER": _user,
    "VOLUME": _volume,
    "WORKDIR": _workdir,
}
