"""What the daemon was told: by its command line and by ``daemon.json``, merged and checked."""

from __future__ import annotations

import argparse
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sampan import __version__
from sampan.daemon import configuration, networking, values
from sampan.daemon.directives import BY_KEY, MANY, TABLE, Directive, Kind
from sampan.daemon.instance import name_of
from sampan.engine import runtimes
from sampan.engine.options import EngineOptions
from sampan.errors import InvalidArgument
from sampan.registry.settings import RegistrySettings

CONFIG_FILE = "/etc/sampan/daemon.json"
DATA_ROOT: str = BY_KEY["data-root"].default


@dataclass(frozen=True, slots=True, kw_only=True)
class CommandLine:
    """What was typed. ``flags`` holds the given settings by key; ``file`` must exist if ``file_named``."""

    flags: Mapping[str, Any]
    file: str
    file_named: bool
    validate: bool
    on_demand: bool
    repair: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """``hosts`` are the addresses to listen on; directories are absolute.

    ``settings`` has the value of every directive by its key, ``warnings`` what the file said in vain.
    """

    hosts: tuple[str, ...]
    read_only_hosts: tuple[str, ...]
    confined_hosts: Mapping[str, str]
    data_root: str
    exec_root: str
    pidfile: str
    group: str
    oom_score: int
    log_level: str
    engine: EngineOptions
    settings: Mapping[str, Any]
    warnings: tuple[str, ...]


def parse(arguments: Sequence[str]) -> CommandLine:
    """Exits with status 2 and one line on standard error when the command line is wrong."""
    parser = _parser()
    given = vars(parser.parse_args(arguments))
    flags = {}
    for directive in TABLE:
        if directive.key in given:
            try:
                flags[directive.key] = values.from_flag(directive, given[directive.key])
            except InvalidArgument as error:
                parser.error(str(error))
    return CommandLine(
        flags=flags,
        file=given.get("config-file", CONFIG_FILE),
        file_named="config-file" in given,
        validate=given["validate"],
        on_demand=given["on_demand"],
        repair=given["repair"],
    )


def settle(line: CommandLine) -> Options:
    """The command line and the file as they are now. Raises InvalidArgument, or OSError for the file."""
    file: dict[str, Any] = {}
    warnings: tuple[str, ...] = ()
    try:
        file, warnings = configuration.read_file(line.file)
    except FileNotFoundError:
        if line.file_named:
            raise
    configuration.conflicts(line.file, line.flags, file)
    given = {**{directive.key: directive.default for directive in TABLE}, **line.flags, **file}
    data_root, exec_root = os.path.abspath(given["data-root"]), os.path.abspath(given["exec-root"])
    networking.plan(given, "")  # refused now if it makes no sense
    debug = given["debug"] or given["log-level"] == "debug"
    return Options(
        hosts=given["hosts"] or (f"unix://{exec_root}/sampan.sock",),
        read_only_hosts=given["read-only-hosts"],
        confined_hosts=given["confined-hosts"],
        data_root=data_root,
        exec_root=exec_root,
        pidfile=os.path.abspath(given["pidfile"] or f"{exec_root}/sampan.pid"),
        group=given["group"],
        oom_score=given["oom-score-adjust"],
        log_level="debug" if debug else given["log-level"],
        engine=_engine(given, data_root, debug=debug),
        settings=given,
        warnings=warnings,
    )


def _engine(given: Mapping[str, Any], data_root: str, *, debug: bool) -> EngineOptions:
    return EngineOptions(
        userns=given["userns"],
        userns_fallback=given["userns-fallback"],
        default_runtime=_default_runtime(given),
        runtimes=given["runtimes"],
        cgroup_parent=given["cgroup-parent"] or f"/{name_of(data_root, default_root=DATA_ROOT)}",
        init=given["init"],
        shm_size=given["default-shm-size"],
        ulimits=given["default-ulimits"],
        log_driver=given["log-driver"],
        log_options=given["log-opts"],
        no_new_privileges=given["no-new-privileges"],
        registries=_registries(given),
        build_cache_limit=given["builder"],
        max_downloads=_at_least_one(given, "max-concurrent-downloads"),
        max_uploads=_at_least_one(given, "max-concurrent-uploads"),
        low_disk_warning=given["low-disk-warning"],
        low_disk_reserve=given["low-disk-reserve"],
        seccomp_profile=_profile(given["seccomp-profile"]),
        dns=given["dns"],
        dns_options=given["dns-opts"],
        dns_search=given["dns-search"],
        labels=given["labels"],
        debug=debug,
    )


def _registries(given: Mapping[str, Any]) -> RegistrySettings:
    mirrors = {**given["mirrors"]}
    mirrors["docker.io"] = (*given["registry-mirrors"], *mirrors.get("docker.io", ()))
    return RegistrySettings(mirrors=mirrors, insecure=given["insecure-registries"])


def _at_least_one(given: Mapping[str, Any], key: str) -> int:
    number: int = given[key]
    if number < 1:
        raise InvalidArgument(f"invalid {key}: {number}; use 1 or more")
    return number


def _default_runtime(given: Mapping[str, Any]) -> str:
    name: str = given["default-runtime"] or runtimes.OURS
    if name not in given["runtimes"]:
        try:
            runtimes.find(name, EngineOptions())
        except InvalidArgument:
            raise InvalidArgument(f"specified default runtime '{name}' does not exist") from None
    return name


def _profile(path: str) -> str | None:
    """The text of a seccomp profile, ``unconfined`` as it is, None for the built-in one."""
    if path in ("", "builtin"):
        return None
    if path == "unconfined":
        return path
    with open(path, encoding="utf-8") as file:
        return file.read()


def reloaded(before: Options, line: CommandLine) -> tuple[Options, tuple[str, ...]]:
    """The options after a reload, and the keys whose change has to wait for the next daemon."""
    now = settle(line)
    waiting = tuple(
        directive.key
        for directive in TABLE
        if not directive.live and now.settings[directive.key] != before.settings[directive.key]
    )
    return now, waiting


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="sampan daemon",
        description="Serve the Docker Engine API.",
        allow_abbrev=False,
        argument_default=argparse.SUPPRESS,
    )
    for directive in TABLE:
        if directive.flags:
            parser.add_argument(*directive.flags, **_argument(directive))
    add = parser.add_argument
    add("--config-file", dest="config-file", metavar="FILE", help=f"settings (default {CONFIG_FILE})")
    add("--validate", action="store_true", default=False, help="check the settings and exit")
    add("--repair", action="store_true", default=False, help="mend a damaged state and exit")
    # Given by the client that starts the engine: it is to outlive the session that it was started from.
    add("--on-demand", action="store_true", default=False, help=argparse.SUPPRESS)
    add("-v", "--version", action="version", version=f"Sampan version {__version__}")
    return parser


def _argument(directive: Directive) -> dict[str, Any]:
    argument: dict[str, Any] = {"dest": directive.key, "help": directive.words}
    if directive.metavar:
        argument["metavar"] = directive.metavar
    if directive.choices:
        argument["choices"] = directive.choices
    if directive.kind is Kind.SWITCH:
        argument |= {"nargs": "?", "const": "true", "metavar": "BOOL"}
    if directive.kind in MANY:
        argument["action"] = "append"
    return argument
