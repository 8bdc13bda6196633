"""runc's command line: global flags, a command, its flags and arguments; as tables.

A flag is spelled ``--name value``, ``--name=value`` or with one dash, as Go's flags are.
"""

from __future__ import annotations

from sampan.oci.failure import Failed

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

SWITCH, TEXT, MANY = "switch", "text", "many"

GLOBAL = {
    "debug": SWITCH,
    "log": TEXT,
    "log-format": TEXT,
    "root": TEXT,
    "criu": TEXT,
    "systemd-cgroup": SWITCH,
    "rootless": TEXT,
    "help": SWITCH,
    "h": SWITCH,
    "version": SWITCH,
    "v": SWITCH,
}

_CREATE = {
    "bundle": TEXT,
    "b": TEXT,
    "console-socket": TEXT,
    "pidfd-socket": TEXT,
    "pid-file": TEXT,
    "no-pivot": SWITCH,
    "no-new-keyring": SWITCH,
    "preserve-fds": TEXT,
}
_LIMITS = dict.fromkeys(
    (
        *("blkio-weight", "cpu-period", "cpu-quota", "cpu-burst", "cpu-share", "cpu-rt-period"),
        *("cpu-rt-runtime", "cpuset-cpus", "cpuset-mems", "cpu-idle", "memory", "memory-reservation"),
        *("memory-swap", "pids-limit", "kernel-memory", "kernel-memory-tcp", "l3-cache-schema"),
        "mem-bw-schema",
    ),
    TEXT,
)

# command → (its flags, least and most arguments, whether what follows the first argument is not ours to read)
COMMANDS: dict[str, tuple[dict[str, str], int, int | None, bool]] = {
    "create": (_CREATE, 1, 1, False),
    "run": ({**_CREATE, "detach": SWITCH, "d": SWITCH, "keep": SWITCH, "no-subreaper": SWITCH}, 1, 1, False),
    "start": ({}, 1, 1, False),
    "state": ({}, 1, 1, False),
    "kill": ({"all": SWITCH, "a": SWITCH}, 1, 2, False),
    "delete": ({"force": SWITCH, "f": SWITCH}, 1, 1, False),
    "pause": ({}, 1, 1, False),
    "resume": ({}, 1, 1, False),
    "list": ({"format": TEXT, "f": TEXT, "quiet": SWITCH, "q": SWITCH}, 0, 0, False),
    "ps": ({"format": TEXT, "f": TEXT}, 1, None, True),
    "exec": (
        {
            "console-socket": TEXT,
            "pidfd-socket": TEXT,
            "cwd": TEXT,
            "env": MANY,
            "e": MANY,
            "tty": SWITCH,
            "t": SWITCH,
            "user": TEXT,
            "u": TEXT,
            "additional-gids": MANY,
            "g": MANY,
            "process": TEXT,
            "p": TEXT,
            "detach": SWITCH,
            "d": SWITCH,
            "pid-file": TEXT,
            "process-label": TEXT,
            "apparmor": TEXT,
            "no-new-privs": SWITCH,
            "cap": MANY,
            "c": MANY,
            "preserve-fds": TEXT,
            "cgroup": MANY,
            "ignore-paused": SWITCH,
        },
        1,
        None,
        True,
    ),
    "update": ({"resources": TEXT, "r": TEXT, **_LIMITS}, 1, 1, False),
    "spec": ({"bundle": TEXT, "b": TEXT, "rootless": SWITCH}, 0, 0, False),
    "features": ({}, 0, 0, False),
}

# Commands that runc has and this runtime has not, each with the reason.
ABSENT = {
    "checkpoint": "checkpoints need CRIU, which is not supported",
    "restore": "checkpoints need CRIU, which is not supported",
    "events": "watch the container's cgroup, whose path is in the state",
}

_SAME = {
    "b": "bundle",
    "d": "detach",
    "a": "all",
    "e": "env",
    "t": "tty",
    "u": "user",
    "g": "additional-gids",
    "p": "process",
    "c": "cap",
    "q": "quiet",
    "r": "resources",
    "h": "help",
    "v": "version",
}


def parse(words: list[str], flags: dict[str, str], *, stop: bool) -> tuple[dict[str, Any], list[str]]:
    """(flags given, by their long names; the other words). ``stop``: the first other word ends the flags."""
    given: dict[str, Any] = {}
    rest: list[str] = []
    at = 0
    while at < len(words):
        word = words[at]
        at += 1
        if word == "--":
            rest += words[at:]
            break
        if not word.startswith("-") or word == "-":
            rest.append(word)
            if stop:
                rest += words[at:]
                break
            continue
        name, equals, value = word.lstrip("-").partition("=")
        kind = flags.get(name)
        if kind is None:
            raise Failed(f"flag provided but not defined: -{name}")
        key = _long(name, flags)
        if kind == SWITCH:
            given[key] = value.lower() not in ("false", "0", "f") if equals else True
            continue
        if not equals:
            if at >= len(words):
                raise Failed(f"flag needs an argument: -{name}")
            value = words[at]
            at += 1
        if kind == MANY:
            given.setdefault(key, []).append(value)
        else:
            given[key] = value
    return given, rest


def _long(name: str, flags: dict[str, str]) -> str:
    if name == "f":
        return "force" if "force" in flags else "format"
    return _SAME.get(name, name)


def check_count(command: str, arguments: list[str]) -> None:
    """Raise Failed, in runc's words, for too few or too many arguments."""
    _, least, most, _ = COMMANDS[command]
    if len(arguments) < least or (most is not None and len(arguments) > most):
        number = f"exactly {least}" if least == most else f"a minimum of {least}" if most is None else ""
        number = number or (f"a minimum of {least}" if len(arguments) < least else f"a maximum of {most}")
        raise Failed(f'"sampan oci {command}" requires {number} argument(s)')
