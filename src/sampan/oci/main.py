"""``sampan oci``: global flags, the command, and what becomes of a failure.

A failure is one line on standard error and one record in ``--log``, which is what callers read.
"""

from __future__ import annotations

import os
import sys
import time
from typing import TYPE_CHECKING, Any

from sampan.oci import arguments
from sampan.oci.failure import Failed

if TYPE_CHECKING:
    from collections.abc import Callable

_USAGE = """Usage:  sampan oci [OPTIONS] COMMAND [ARG...]

An OCI runtime with runc's command line

Options:
  --root DIR            Where states of containers are kept
  --log FILE            File for warnings and errors
  --log-format FORMAT   Format of the log ("text", "json")
  --debug, --systemd-cgroup, --rootless and --criu are taken as runc takes them

Commands:
"""


class Log:
    """Where warnings and errors go."""

    def __init__(self, given: dict[str, Any]) -> None:
        self._path = given.get("log") or ""
        self._json = given.get("log-format") == "json"

    def write(self, level: str, message: str) -> None:
        """Add a record to the log; the failure of that is nobody's business."""
        if not self._path:
            if level == "warning":
                sys.stderr.write(f"{message}\n")
            return
        now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        if self._json:
            import json

            line = json.dumps({"level": level, "msg": message, "time": now})
        else:
            quoted = message.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
            line = f'time="{now}" level={level} msg="{quoted}"'
        try:
            fd = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
            os.write(fd, f"{line}\n".encode())
            os.close(fd)
        except OSError:
            pass

    def warn(self, message: str) -> None:
        self.write("warning", message)


def main(words: list[str]) -> int:
    """Run one command; the exit code."""
    log = Log({})
    command = ""
    try:
        given, rest = arguments.parse(words, arguments.GLOBAL, stop=True)
        log = Log(given)
        if given.get("version"):
            from sampan import __version__

            sys.stdout.write(f"sampan version {__version__}\nspec: 1.0.2\n")
            return 0
        if not rest or given.get("help") or rest[0] in ("help", "h"):
            sys.stdout.write(_USAGE + "".join(f"  {name}\n" for name in sorted(arguments.COMMANDS)))
            return 0
        command, rest = rest[0], rest[1:]
        return _run(command, given, rest, log)
    except Failed as error:
        prefix = f"sampan {command} failed: " if command in ("create", "run") else ""
        message = f"{prefix}{error}"
        log.write("error", message)
        sys.stderr.write(f"{message}\n")
        return error.code
    except Exception as error:
        # A caller sees nothing but the log: whatever went wrong has to be told there.
        log.write("error", _words(error))
        sys.stderr.write(f"{_words(error)}\n")
        return 1


def _words(error: Exception) -> str:
    if isinstance(error, OSError):
        where = f"{error.filename}: " if error.filename else ""
        return f"{where}{(error.strerror or str(error)).lower()}"
    return f"{type(error).__name__}: {error}"


def _run(command: str, general: dict[str, Any], words: list[str], log: Log) -> int:
    if command in arguments.ABSENT:
        raise Failed(f"{command} is not offered: {arguments.ABSENT[command]}")
    if command not in arguments.COMMANDS:
        raise Failed(f"No help topic for {command!r}")
    flags, _, _, stop = arguments.COMMANDS[command]
    given, rest = arguments.parse(words, {**flags, "help": arguments.SWITCH}, stop=stop)
    if given.get("help"):
        options = "".join(f"  --{name}\n" for name in sorted(flags) if len(name) > 1)
        sys.stdout.write(f"Usage:  sampan oci {command} [OPTIONS] [ARG...]\n\nOptions:\n{options}")
        return 0
    arguments.check_count(command, rest)
    if command in ("create", "run") and general.get("systemd-cgroup"):
        raise Failed("--systemd-cgroup is not supported: give linux.cgroupsPath as a path")
    from sampan.oci.container import DEFAULT_ROOT

    root = os.path.abspath(general.get("root") or DEFAULT_ROOT)
    return _ACTIONS[command](root, given, rest, log)


def _create(root: str, given: dict[str, Any], rest: list[str], _log: Log) -> int:
    from sampan.oci import creating

    return creating.create(root, given, rest[0])


def _start(root: str, _given: dict[str, Any], rest: list[str], log: Log) -> int:
    from sampan.oci import starting

    return starting.start_created(root, rest[0], log.warn)


def _run_whole(root: str, given: dict[str, Any], rest: list[str], log: Log) -> int:
    from sampan.oci import creating

    return creating.run(root, given, rest[0], log.warn)


def _exec(root: str, given: dict[str, Any], rest: list[str], _log: Log) -> int:
    from sampan.oci import executing

    return executing.execute(root, given, rest[0], rest[1:])


def _update(root: str, given: dict[str, Any], rest: list[str], _log: Log) -> int:
    from sampan.oci import limits

    return limits.update(root, given, rest[0])


def _other(name: str) -> Callable[[str, dict[str, Any], list[str], Log], int]:
    """One of ``commands``."""

    def act(root: str, given: dict[str, Any], rest: list[str], log: Log) -> int:
        from sampan.oci import commands

        actions: dict[str, Callable[[], int]] = {
            "state": lambda: commands.state(root, rest[0]),
            "kill": lambda: commands.kill(root, given, rest[0], rest[1] if len(rest) > 1 else "SIGTERM"),
            "delete": lambda: commands.delete(root, given, rest[0], log.warn),
            "pause": lambda: commands.pause(root, rest[0]),
            "resume": lambda: commands.resume(root, rest[0]),
            "list": lambda: commands.listing(root, given),
            "ps": lambda: commands.processes(root, given, rest[0], rest[1:]),
            "features": commands.features,
            "spec": lambda: commands.write_spec(given),
        }
        return actions[name]()

    return act


_ACTIONS: dict[str, Callable[[str, dict[str, Any], list[str], Log], int]] = {
    "create": _create,
    "run": _run_whole,
    "start": _start,
    "exec": _exec,
    "update": _update,
    **{
        name: _other(name)
        for name in ("state", "kill", "delete", "pause", "resume", "list", "ps", "features", "spec")
    },
}
