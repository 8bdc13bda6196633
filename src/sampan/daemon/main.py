"""The daemon: builds every object, hands each its few collaborators, serves until it is told to stop.

Stopping (SIGTERM, SIGINT) leaves containers running: their keepers hold their streams, and the next daemon
finds them. SIGHUP reads the settings anew. The zygote is started first, while everything else is still being
loaded.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import os
import resource
import signal
import stat
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from sampan import __version__
from sampan.daemon import instance, logs, memory
from sampan.daemon.ending import SIGNALS, Ending
from sampan.daemon.options import CommandLine, Options, parse, reloaded, settle
from sampan.daemon.service import Service
from sampan.engine.paths import Paths
from sampan.errors import Failure, InvalidArgument, of_host
from sampan.linux import allocator
from sampan.linux.inherited import children_are_waited_for
from sampan.runtime.zygote import Zygote
from sampan.sandbox import cgroups

if TYPE_CHECKING:
    from sampan.api.server import Server
    from sampan.daemon.metrics import Metrics
    from sampan.daemon.wiring import Wiring

log = logging.getLogger(__name__)


def main(arguments: Sequence[str], ending: Ending) -> int:
    """Serve; the exit status. Everything that keeps it from serving is one line on standard error."""
    children_are_waited_for()
    allocator.keep_little()
    service = Service.take(os.environ)
    line = parse(arguments)
    try:
        options = settle(line)
        if line.validate:
            print("configuration OK")
            return 0
        logs.set_up(options.log_level, options.settings["log-format"])
        os.umask(0o022)
        ending.hold()
        with contextlib.ExitStack() as held:
            _take_place(options, held)
            if line.repair:
                ending.release()
                return _repair(options)
            _settle_in(options, on_demand=line.on_demand)
            asyncio.run(_serve(line, options, service, ending))
    except Failure as error:
        print(f"sampan daemon: {error}", file=sys.stderr)
        return 1
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        print(f"sampan daemon: {of_host(error) or where + str(error.strerror)}", file=sys.stderr)
        return 1
    return 0


def _repair(options: Options) -> int:
    """Mend the state and tell of it."""
    from sampan.engine.mending import mend

    done = False
    for text in mend(Paths(data=options.data_root, run=options.exec_root)):
        print(text)
        done = True
    if not done:
        print("nothing is wrong with the state")
    return 0


def _take_place(options: Options, held: contextlib.ExitStack) -> None:
    """Make the two roots and hold them against other daemons."""
    if os.geteuid() != 0:
        raise InvalidArgument("must be run as root: namespaces, mounts and cgroups of containers need it")
    # Bundles are entered by root alone; the socket in the exec root by its group.
    for path, mode, what in (
        (options.data_root, 0o710, "data root"),
        (options.exec_root, 0o711, "exec root"),
    ):
        os.makedirs(path, mode, exist_ok=True)
        if path == options.data_root:
            # Containers make files in it that are setuid or anybody's to write: who is on the host but not
            # in a container must not get to them (CVE-2021-41091).
            os.chmod(path, stat.S_IMODE(os.stat(path).st_mode) & ~stat.S_IRWXO)
        held.callback(os.close, instance.lock(path, what))
    instance.write_pid_file(options.pidfile)
    held.callback(instance.remove_pid_file, options.pidfile)


def _settle_in(options: Options, *, on_demand: bool) -> None:
    """Be killed late for want of memory; and outlive the session of whoever first needed the engine."""
    # Lowering it takes CAP_SYS_RESOURCE, which not every root has. Containers start at their own score.
    with contextlib.suppress(OSError), open("/proc/self/oom_score_adj", "w") as file:
        file.write(str(options.oom_score))
    if on_demand:
        with contextlib.suppress(OSError):
            cgroups.detect().shelter(cgroups.engine_group(options.engine.cgroup_parent))


async def _serve(line: CommandLine, options: Options, service: Service, ending: Ending) -> None:
    for warning in options.warnings:
        log.warning("%s: %s", line.file, warning)
    paths = Paths(data=options.data_root, run=options.exec_root)
    zygote = Zygote(
        paths.run,
        f"{paths.data}/zygote.log",
        group=cgroups.engine_group(options.engine.cgroup_parent),
        descriptors=_raise_descriptors(),
    )
    # From before there is anything to leave in order: who is told while it starts, stops once it has.
    stop = _told_to_stop(ending)
    zygote.begin()
    idle = False
    try:
        idle = await _serve_engine(line, options, service, paths, zygote, stop)
    finally:
        zygote.close()
        if idle:
            await zygote.gone()
        _leave(options, on_demand=line.on_demand)


async def _serve_engine(
    line: CommandLine,
    options: Options,
    service: Service,
    paths: Paths,
    zygote: Zygote,
    stop: asyncio.Event,
) -> bool:
    """Serve until told to ``stop``; whether no container runs then."""
    gc.disable()  # all that is made from here until it serves is kept: to search it for garbage is in vain
    # Imported now, while the zygote starts on the other core.
    from sampan.daemon.doors import listen
    from sampan.daemon.wiring import Wiring

    wiring = Wiring(options, paths, zygote)
    try:
        await wiring.start()
        server = wiring.server()
        metrics = await _metrics(options, wiring, server)
        everywhere = (metrics.guard,) if metrics else ()
        await listen(server, options, service, wiring.engine, everywhere)
        reloads = Reloads(line, options, service, wiring)
        asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, reloads.reload)
        log.info(
            "serving", extra={"version": __version__, "hosts": ",".join(options.hosts), "pid": os.getpid()}
        )
        service.ready()
        # What lives now lives as long as the daemon: no collection need look at it again.
        gc.collect()
        gc.freeze()
        gc.enable()
        memory.watch()
        await stop.wait()
        service.stopping()
        log.info("stopping; containers go on running")
        await server.close()
        if metrics is not None:
            await metrics.close()
    finally:
        await wiring.close()
    return not wiring.runs


async def _metrics(options: Options, wiring: Wiring, server: Server) -> Metrics | None:
    """The page of metrics, listening, if one is asked for."""
    address = options.settings["metrics-addr"]
    if not address:
        return None
    from sampan.daemon.metrics import Metrics  # five megabytes that nobody else needs

    metrics = Metrics(wiring, server)
    await metrics.listen(address)
    return metrics


def _raise_descriptors() -> int:
    """Let this process open as many files as it may; the soft limit before, which is for containers."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return soft


def _leave(options: Options, *, on_demand: bool) -> None:
    """Remove the engine's groups, unless somebody is in them: containers go on running."""
    hierarchy = cgroups.detect()
    group = cgroups.engine_group(options.engine.cgroup_parent)
    with contextlib.suppress(OSError):
        if on_demand:
            hierarchy.leave(group)
        else:
            hierarchy.remove_parent(group)
        hierarchy.remove_parent(options.engine.cgroup_parent)


class Reloads:
    """Reads the settings anew when it is told to; what is wrong with them leaves everything as it was."""

    def __init__(self, line: CommandLine, options: Options, service: Service, wiring: Wiring) -> None:
        self._line = line
        self._options = options
        self._service = service
        self._wiring = wiring

    def reload(self) -> None:
        self._service.reloading()
        try:
            options, waiting = reloaded(self._options, self._line)
        except (Failure, OSError) as error:
            log.error("the settings stay as they are: %s", error)
        else:
            for warning in options.warnings:
                log.warning("%s: %s", self._line.file, warning)
            for key in waiting:
                log.warning("%s: a change of %s is taken up when the daemon starts", self._line.file, key)
            logs.set_level(options.log_level)
            self._wiring.reload(options)
            log.info("settings reloaded", extra={"file": self._line.file})
        self._service.ready()


def _told_to_stop(ending: Ending) -> asyncio.Event:
    """Set by the signals that ask for the daemon's end, or set already."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in SIGNALS:
        loop.add_signal_handler(number, stop.set)
    if ending.told:
        stop.set()
    return stop
