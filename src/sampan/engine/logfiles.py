"""Options of the json-file log: how large a container's log grows and where it is."""

from __future__ import annotations

import re
from collections.abc import Mapping

from sampan.engine.model import ContainerConfig, LogConfig
from sampan.engine.options import DEFAULT_LOG_FILES, DEFAULT_LOG_SIZE
from sampan.errors import InvalidArgument

_DRIVER_FAILED = "failed to initialize logging driver"
_UNITS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12}
_KNOWN_WORDS = "max-size max-file compress labels labels-regex env env-regex tag mode max-buffer-size"
_KNOWN = frozenset(_KNOWN_WORDS.split())


def log_file_limits(config: LogConfig, defaults: Mapping[str, str]) -> tuple[int, int] | None:
    """(largest file in bytes, 0 for unbounded; number of files), or None for the driver ``none``.

    Unlike in Docker a log is bounded unless the user says ``max-size=-1``, so that none fills a disk.
    """
    if config.type == "none":
        return None
    given = config.config or {}
    for name in given:
        if name not in _KNOWN:
            raise InvalidArgument(f"unknown log opt '{name}' for json-file log driver")
    for name in ("labels-regex", "env-regex"):
        try:
            re.compile(given.get(name, ""))
        except re.error as error:
            raise InvalidArgument(f"{_DRIVER_FAILED}: error parsing regexp: {error}") from None
    options = {**defaults, **given}
    size = parse_size(options.get("max-size", DEFAULT_LOG_SIZE), wrong=_DRIVER_FAILED)
    text = options.get("max-file", str(DEFAULT_LOG_FILES))
    try:
        files = int(text)
    except ValueError:
        raise InvalidArgument(f'strconv.Atoi: parsing "{text}": invalid syntax') from None
    if files < 1:
        raise InvalidArgument(f"{_DRIVER_FAILED}: max-file cannot be less than 1")
    return size, files


def parse_size(text: str, *, wrong: str) -> int:
    """A human size in decimal units ("10m", "1.5g"); -1 and 0 mean unbounded and give 0.

    ``wrong`` begins the message about anything else.
    """
    word = text.strip().lower().removesuffix("b")
    if word == "-1":
        return 0
    unit = word[-1:] if word[-1:] in "kmgt" else ""
    try:
        value = float(word.removesuffix(unit)) if unit else float(word)
    except ValueError:
        raise InvalidArgument(f"{wrong}: invalid size: '{text}'") from None
    if value < 0 or value != value or value > 2**60:
        raise InvalidArgument(f"{wrong}: invalid size: '{text}'")
    return int(value * _UNITS[unit])


def log_attributes(config: LogConfig, container: ContainerConfig) -> dict[str, str]:
    """The labels and variables of a container that its log options name.

    A container's configuration never changes, so they are the same for every line and need not be written
    with each.
    """
    options = config.config or {}
    variables = dict(variable.partition("=")[::2] for variable in container.env or ())
    found = {}
    for have, names, pattern in (
        (container.labels or {}, options.get("labels", ""), options.get("labels-regex", "")),
        (variables, options.get("env", ""), options.get("env-regex", "")),
    ):
        wanted = names.split(",")
        expression = re.compile(pattern) if pattern else None
        for name, value in have.items():
            if name in wanted or (expression is not None and expression.search(name)):
                found[name] = value
    return found
