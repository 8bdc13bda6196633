"""The daemon's command line: dockerd's options where they mean the same."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from dataclasses import dataclass

from sampan import __version__
from sampan.daemon.instance import name_of
from sampan.engine.options import EngineOptions

DATA_ROOT = "/var/lib/sampan"
EXEC_ROOT = "/run/sampan"
LEVELS = ("debug", "info", "warn", "error", "fatal")


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """``hosts`` are the addresses to listen on; directories are absolute."""

    hosts: tuple[str, ...]
    data_root: str
    exec_root: str
    pidfile: str
    group: str
    log_level: str
    engine: EngineOptions


def parse(arguments: Sequence[str]) -> Options:
    """Exits with status 2 and one line on standard error when the command line is wrong."""
    given = _parser().parse_args(arguments)
    data_root, exec_root = os.path.abspath(given.data_root), os.path.abspath(given.exec_root)
    debug = given.debug or given.log_level == "debug"
    return Options(
        hosts=tuple(given.host) or (f"unix://{exec_root}/sampan.sock",),
        data_root=data_root,
        exec_root=exec_root,
        pidfile=os.path.abspath(given.pidfile or f"{exec_root}/sampan.pid"),
        group=given.group,
        log_level="debug" if debug else given.log_level,
        engine=EngineOptions(
            userns=given.userns,
            cgroup_parent=given.cgroup_parent or f"/{name_of(data_root, default_root=DATA_ROOT)}",
            log_options=dict(pair.partition("=")[::2] for pair in given.log_opt),
            init=given.init,
            no_new_privileges=given.no_new_privileges,
            dns=tuple(given.dns),
            dns_search=tuple(given.dns_search),
            labels=tuple(given.label),
            debug=debug,
        ),
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="sampan daemon", description="Serve the Docker Engine API.", allow_abbrev=False
    )
    add = parser.add_argument
    add("-H", "--host", action="append", default=[], metavar="LIST", help="socket to listen on (repeatable)")
    add("-g", "--data-root", "--graph", default=DATA_ROOT, metavar="DIR", help="directory of what is kept")
    add("--exec-root", default=EXEC_ROOT, metavar="DIR", help="directory of what runs")
    add("-p", "--pidfile", default="", metavar="FILE", help="file for the daemon's pid")
    add("-G", "--group", default="", metavar="NAME", help="group that may use the socket")
    add("--userns", choices=("private", "host"), default="host", help="containers' default user namespace")
    add("--cgroup-parent", default="", metavar="PATH", help="cgroup that containers' groups are made in")
    add("--dns", action="append", default=[], metavar="ADDRESS", help="resolver of containers (repeatable)")
    add("--dns-search", action="append", default=[], metavar="DOMAIN", help="search domain (repeatable)")
    add("--init", action="store_true", help="run an init in every container")
    add("--no-new-privileges", action="store_true", help="containers gain no privileges by default")
    add("--label", action="append", default=[], metavar="KEY=VALUE", help="label of this engine (repeatable)")
    add("--log-opt", action="append", default=[], metavar="KEY=VALUE", help="default log option (repeatable)")
    add("-D", "--debug", action="store_true", help="log at level debug")
    add("-l", "--log-level", choices=LEVELS, default="info", help="least level that is logged")
    add("-v", "--version", action="version", version=f"Sampan version {__version__}")
    return parser
