"""The commands on containers that exist, and those that need none: state, kill, delete, list, ps, …"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from sampan.errors import Failure
from sampan.oci.container import VERSION, Container
from sampan.oci.failure import Failed
from sampan.oci.starting import destroy
from sampan.sandbox import cgroups

if TYPE_CHECKING:
    from collections.abc import Callable

_PATIENCE = 10.0


def out(text: str) -> None:
    sys.stdout.write(text + "\n")


def state(root: str, container_id: str) -> int:
    """``state``: the state as JSON."""
    out(json.dumps(Container.load(root, container_id).state(), indent=2))
    return 0


def kill(root: str, given: dict[str, Any], container_id: str, name: str) -> int:
    """``kill``: send a signal to the first process, or to all with ``--all``."""
    number = _signal(name)
    container = Container.load(root, container_id)
    if given.get("all"):
        for pid in container.cgroup.pids():
            with suppress(ProcessLookupError):
                os.kill(pid, number)
        return 0
    pidfd = _living(container)
    try:
        if pidfd < 0:
            raise Failed("container not running")
        signal.pidfd_send_signal(pidfd, number)
    except ProcessLookupError:
        raise Failed("container not running") from None
    finally:
        if pidfd >= 0:
            os.close(pidfd)
    if number == signal.SIGKILL and container.cgroup.frozen():
        container.cgroup.thaw()
    return 0


def _living(container: Container) -> int:
    """A pidfd of the first process; -1 when it is dead."""
    try:
        pidfd = os.pidfd_open(container.pid)
    except OSError:
        return -1
    if container.alive():
        return pidfd
    os.close(pidfd)
    return -1


def _signal(text: str) -> int:
    if text.isdigit() and 0 < int(text) < signal.NSIG:
        return int(text)
    name = text.upper().removeprefix("SIG")
    for found in signal.Signals:
        if found.name == "SIG" + name:
            return found
    raise Failed(f"unknown signal {text!r}")


def delete(root: str, given: dict[str, Any], container_id: str, warn: Callable[[str], None]) -> int:
    """``delete``: forget a container that has stopped or was never started; any with ``--force``."""
    force = bool(given.get("force"))
    try:
        container = Container.load(root, container_id)
    except Failed:
        abandoned = Container.abandoned(root, container_id) if force else None
        if abandoned is not None:
            _clear(*abandoned)
        if force:
            return 0
        raise
    status = container.status()
    if status not in ("stopped", "created") and not force:
        raise Failed(f"cannot delete container {container_id} that is not stopped: {status}")
    if status != "stopped":
        _end(container)
    destroy(container, warn)
    return 0


def _end(container: Container) -> None:
    """Kill the first process and wait until it is dead, though somebody else has to reap it."""
    pidfd = _living(container)
    if pidfd >= 0:
        with suppress(ProcessLookupError):
            signal.pidfd_send_signal(pidfd, signal.SIGKILL)
        os.close(pidfd)
    container.cgroup.thaw()
    deadline = time.monotonic() + _PATIENCE
    pause = 0.0005
    while container.alive():
        if time.monotonic() >= deadline:
            raise Failed("container init still running")
        time.sleep(pause)
        pause = min(pause * 2, 0.05)


def _clear(container: Container, group: str) -> None:
    """Remove what a creation that was cut short has left."""
    if group:
        found = cgroups.detect().group(group)
        found.kill()
        try:
            found.remove()
        except Failure as error:
            raise Failed(str(error)) from error
    container.remove()


def pause(root: str, container_id: str) -> int:
    """``pause``: freeze all processes."""
    container = Container.load(root, container_id)
    if (status := container.status()) not in ("running", "created"):
        raise Failed(f"container not running or created: {status}")
    if not container.cgroup.freeze():
        container.cgroup.thaw()
        raise Failed("unable to freeze")
    return 0


def resume(root: str, container_id: str) -> int:
    """``resume``: let all processes go on."""
    container = Container.load(root, container_id)
    if container.status() != "paused":
        raise Failed("container not paused")
    container.cgroup.thaw()
    return 0


def listing(root: str, given: dict[str, Any]) -> int:
    """``list``: every container below the root."""
    style = given.get("format", "table")
    states = [container.state() for container in Container.every(root)]
    if given.get("quiet"):
        for found in states:
            out(found["id"])
    elif style == "json":
        out(json.dumps(states))
    elif style == "table":
        rows: list[tuple[str, ...]] = [("ID", "PID", "STATUS", "BUNDLE", "CREATED", "OWNER")]
        rows += [
            tuple(str(found[key]) for key in ("id", "pid", "status", "bundle", "created", "owner"))
            for found in states
        ]
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        for row in rows:
            out("   ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip())
    else:
        raise Failed("invalid format option")
    return 0


def processes(root: str, given: dict[str, Any], container_id: str, words: list[str]) -> int:
    """``ps``: the container's processes by the host's ``ps``, or their pids as JSON."""
    pids = Container.load(root, container_id).cgroup.pids()
    style = given.get("format", "table")
    if style == "json":
        out(json.dumps(pids))
        return 0
    if style != "table":
        raise Failed("invalid format option")
    import subprocess

    shown = subprocess.run(["ps", *(words or ["-ef"])], stdout=subprocess.PIPE, text=True, check=False)
    if shown.returncode != 0:
        return shown.returncode
    head, *lines = shown.stdout.splitlines()
    titles = head.split()
    if "PID" not in titles:
        raise Failed("couldn't find PID field in ps output")
    column = titles.index("PID")
    out(head)
    for line in lines:
        fields = line.split()
        if len(fields) > column and fields[column].isdigit() and int(fields[column]) in pids:
            out(line)
    return 0


def features() -> int:
    """``features``: what a document may ask for, in the form of the specification."""
    from sampan.oci.features import document

    out(json.dumps(document(VERSION), indent=4))
    return 0


def write_spec(given: dict[str, Any]) -> int:
    """``spec``: write a document to begin with."""
    from sampan.spec.runtime import default_spec

    if given.get("rootless"):
        raise Failed("--rootless is not supported")
    directory = given.get("bundle") or "."
    spec = default_spec()
    spec["process"].update({"terminal": True, "args": ["sh"], "env": [*spec["process"]["env"], "TERM=xterm"]})
    spec["hostname"] = "sampan"
    spec["root"]["readonly"] = True
    spec["linux"]["namespaces"].append({"type": "cgroup"})
    try:
        with open(f"{directory}/config.json", "x") as file:
            json.dump(spec, file, indent=4)
    except FileExistsError:
        raise Failed("File config.json exists. Remove it first") from None
    except OSError as error:
        raise Failed(f"open {directory}/config.json: {(error.strerror or '').lower()}") from error
    return 0
