"""What a container's log options say: checked at create, and what its keeper is told of the local file.

Unlike in Docker a log is bounded unless the user says ``max-size=-1``, so that none fills a disk. Every
function raises InvalidArgument in Docker's words.
"""

from __future__ import annotations

import re

from msgspec import json

from sampan import errors
from sampan.engine.logdrivers import DRIVERS, LACKING, options, own_options
from sampan.engine.logdrivers.options import Options
from sampan.engine.logdrivers.subject import Subject, tag
from sampan.engine.model import Container, ContainerConfig, LogConfig
from sampan.errors import InvalidArgument
from sampan.sandbox.messages import LogFile

DRIVER_FAILED = "failed to initialize logging driver"
_OWN = frozenset(("max-size", "max-file", "compress"))
_JSON_SIZE, _COPY_SIZE, _FILES = "50m", "20m", 5


def check(config: LogConfig) -> None:
    """Refuse a driver that is not there, and options that it has not. NotImplemented for what is lacking."""
    driver, given = config.type, config.config or {}
    if driver == "none":
        return
    if driver in LACKING:
        raise errors.NotImplemented(f"--log-driver {driver} is not offered: it needs {LACKING[driver]}")
    if driver not in (*DRIVERS, "json-file", "local"):
        raise InvalidArgument(f'error looking up logging plugin {driver}: plugin "{driver}" not found')
    options.check_general(given)
    if driver in DRIVERS:
        DRIVERS[driver].check(own_options(given))
    else:
        for name in given:
            if name not in _OWN | options.COMMON | options.GENERAL:
                whose = "json-file log driver" if driver == "json-file" else "log driver local"
                raise InvalidArgument(f"unknown log opt '{name}' for {whose}")
    try:
        _limits(config)
    except InvalidArgument as error:
        raise InvalidArgument(f"{DRIVER_FAILED}: {error}") from None


def check_tag(container: Container) -> None:
    """A template of a tag that cannot be filled in is refused before anything is started."""
    if container.host.log_config.type != "none":
        try:
            tag(Subject.of(container, {}), container.host.log_config.config or {})
        except InvalidArgument as error:
            raise InvalidArgument(f"{DRIVER_FAILED}: {error}") from None


def readable(config: LogConfig) -> bool:
    """Whether ``logs`` can read the log."""
    return config.type != "none" and not options.boolean(config.config or {}, "cache-disabled")


def local_copy(container: Container, path: str) -> LogFile | None:
    """The file that the keeper writes; None for the driver ``none``."""
    config = container.host.log_config
    if config.type == "none":
        return None
    size, files, compressed = _limits(config)
    attributes = log_attributes(container) if config.type == "json-file" else {}
    return LogFile(
        path=path,
        max_size=size,
        max_files=files,
        attributes=json.encode(attributes, order="sorted").decode() if attributes else "",
        compressed=compressed,
        patient=config.type in DRIVERS and options.buffer_limit(config.config or {}) is None,
    )


def _limits(config: LogConfig) -> tuple[int, int, bool]:
    """(largest file in bytes, 0 for unbounded; number of files; whether rotated ones are compressed)."""
    given = config.config or {}
    if config.type == "json-file":
        size = parse_size(given.get("max-size", _JSON_SIZE))
        files = _number(given.get("max-file", str(_FILES)))
        if files < 1:
            raise InvalidArgument("max-file cannot be less than 1")
        compressed = options.boolean(given, "compress")
        if compressed and (files < 2 or not size):
            raise InvalidArgument(
                "compress cannot be true when max-file is less than 2 or max-size is not set"
            )
        return size, files, compressed
    # The copies of other drivers are bounded as Docker's local driver is.
    prefix = "" if config.type == "local" else "cache-"
    text = given.get(f"{prefix}max-size", _COPY_SIZE)
    size = options.explained(f"invalid value for max-size: {text}", options.size, text)
    text = given.get(f"{prefix}max-file", str(_FILES))
    files = options.explained(f"invalid value for max-file: {text}", _number, text)
    try:
        compressed = options.boolean(given, f"{prefix}compress", default=True)
    except InvalidArgument as error:
        raise InvalidArgument(f"error reading compress log option: {error}") from None
    if files < 2 and compressed:
        if f"{prefix}compress" in given or files < 1:
            raise InvalidArgument("compression cannot be enabled when max file count is 1")
        compressed = False
    if not size:
        raise InvalidArgument("max-size must be a positive number")
    return size, files, compressed


def _number(text: str) -> int:
    if not re.fullmatch(r"[+-]?[0-9]+", text):
        raise InvalidArgument(f'strconv.Atoi: parsing "{text}": invalid syntax')
    return int(text)


def parse_size(text: str) -> int:
    """A human size in decimal units ("10m", "1.5g"); -1 and 0 mean unbounded and give 0."""
    return 0 if text.strip() == "-1" else options.size(text.strip(), base=1000)


def log_attributes(container: Container) -> dict[str, str]:
    """The labels and variables of a container that its log options name, and the tag that they ask for.

    A container's configuration never changes, so they are the same for every record.
    """
    given = container.host.log_config.config or {}
    found = named_attributes(given, container.config)
    if given.get("tag") and container.host.log_config.type in ("json-file", "local"):
        found["tag"] = tag(Subject.of(container, {}), given)
    return found


def named_attributes(given: Options, config: ContainerConfig) -> dict[str, str]:
    """The labels and variables that the options ask for."""
    variables = dict(variable.partition("=")[::2] for variable in config.env or ())
    found = {}
    for have, names, pattern in (
        (config.labels or {}, given.get("labels", ""), given.get("labels-regex", "")),
        (variables, given.get("env", ""), given.get("env-regex", "")),
    ):
        wanted = names.split(",")
        expression = re.compile(pattern) if pattern else None
        for name, value in have.items():
            if name in wanted or (expression is not None and expression.search(name)):
                found[name] = value
    return found
