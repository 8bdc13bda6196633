"""The daemon: builds every object, hands each its few collaborators, serves until it is told to stop.

Stopping (SIGTERM, SIGINT) leaves containers running: their keepers hold their streams, and the next daemon
finds them. The zygote is started first, while everything else is still being loaded.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import grp
import logging
import os
import signal
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from sampan import __version__
from sampan.daemon import instance, logs
from sampan.daemon.options import Options, parse
from sampan.engine.paths import Paths
from sampan.errors import Failure, InvalidArgument
from sampan.runtime.zygote import Zygote

if TYPE_CHECKING:
    from sampan.api.server import Server

log = logging.getLogger(__name__)


def main(arguments: Sequence[str]) -> int:
    """Serve; the exit status. Everything that keeps it from serving is one line on standard error."""
    options = parse(arguments)
    logs.set_up(options.log_level)
    os.umask(0o022)
    try:
        with contextlib.ExitStack() as held:
            _take_place(options, held)
            asyncio.run(_serve(options))
    except Failure as error:
        print(f"sampan daemon: {error}", file=sys.stderr)
        return 1
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        print(f"sampan daemon: {where}{error.strerror}", file=sys.stderr)
        return 1
    return 0


def _take_place(options: Options, held: contextlib.ExitStack) -> None:
    """Make the two roots and hold them against other daemons."""
    if os.geteuid() != 0:
        raise InvalidArgument("must be run as root: namespaces, mounts and cgroups of containers need it")
    # Bundles are entered by root alone; the socket in the exec root by its group.
    for path, mode, what in (
        (options.data_root, 0o711, "data root"),
        (options.exec_root, 0o711, "exec root"),
    ):
        os.makedirs(path, mode, exist_ok=True)
        held.callback(os.close, instance.lock(path, what))
    instance.write_pid_file(options.pidfile)
    held.callback(instance.remove_pid_file, options.pidfile)


async def _serve(options: Options) -> None:
    paths = Paths(data=options.data_root, run=options.exec_root)
    zygote = Zygote(paths.run, f"{paths.data}/zygote.log")
    zygote.begin()
    try:
        await _serve_engine(options, paths, zygote)
    finally:
        zygote.close()


async def _serve_engine(options: Options, paths: Paths, zygote: Zygote) -> None:
    # Imported now, while the zygote starts on the other core.
    from sampan.daemon.wiring import Wiring

    wiring = Wiring(options, paths, zygote)
    try:
        await wiring.start()
        server = wiring.server()
        await _listen(server, options)
        log.info(
            "serving", extra={"version": __version__, "hosts": ",".join(options.hosts), "pid": os.getpid()}
        )
        # What lives now lives as long as the daemon: no collection need look at it again.
        gc.collect()
        gc.freeze()
        await _told_to_stop()
        log.info("stopping; containers go on running")
        await server.close()
    finally:
        await wiring.close()


async def _listen(server: Server, options: Options) -> None:
    for host in options.hosts:
        scheme, separator, rest = host.partition("://")
        if not separator:
            scheme, rest = "unix", host
        if scheme == "unix":
            await server.listen_unix(rest, gid=_group_id(options.group))
        elif scheme == "tcp":
            address, _, port = rest.rpartition(":")
            if not port.isdecimal():
                raise InvalidArgument(f"invalid bind address format: {host}")
            log.warning("%s is open to whoever reaches it: it gives them root on this machine", host)
            await server.listen_tcp(address.strip("[]") or "127.0.0.1", int(port))
        else:
            raise InvalidArgument(f"invalid bind address format: {host}; use unix://PATH or tcp://HOST:PORT")


def _group_id(name: str) -> int | None:
    if not name:
        return None
    if name.isdecimal():
        return int(name)
    try:
        return grp.getgrnam(name).gr_gid
    except KeyError:
        raise InvalidArgument(f"group {name} not found") from None


async def _told_to_stop() -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    await stop.wait()
