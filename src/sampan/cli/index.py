"""Where each command lives: spelled words to the module that defines it. Importing it imports no command.

``GROUPS`` are the management commands, ``UNOFFERED`` what Docker has and this engine does not (yet): each is
answered in one line.
"""

from __future__ import annotations

_CONTAINER = {
    "attach": "attach",
    "create": "run",
    "exec": "exec",
    "inspect": "inspect",
    "kill": "containers",
    "logs": "logs",
    "ls": "ps",
    "list": "ps",
    "pause": "containers",
    "port": "containers",
    "prune": "prune",
    "ps": "ps",
    "rename": "containers",
    "restart": "containers",
    "rm": "containers",
    "remove": "containers",
    "run": "run",
    "start": "start",
    "stop": "containers",
    "top": "containers",
    "unpause": "containers",
    "wait": "containers",
}

_TOP = {
    **{name: module for name, module in _CONTAINER.items() if name not in ("ls", "list", "prune", "remove")},
    "daemon": "daemon",
    "events": "events",
    "history": "images",
    "images": "images",
    "import": "transfer",
    "info": "info",
    "load": "transfer",
    "pull": "pull",
    "rmi": "images",
    "save": "transfer",
    "tag": "images",
    "version": "version",
}

_IMAGE = {
    "history": "images",
    "import": "transfer",
    "inspect": "inspect",
    "list": "images",
    "load": "transfer",
    "ls": "images",
    "prune": "prune",
    "pull": "pull",
    "remove": "images",
    "rm": "images",
    "save": "transfer",
    "tag": "images",
}

_NETWORK = {
    "connect": "networks",
    "create": "networks",
    "disconnect": "networks",
    "inspect": "inspect",
    "list": "networks",
    "ls": "networks",
    "prune": "prune",
    "remove": "networks",
    "rm": "networks",
}

_SYSTEM = {"df": "diskusage", "events": "events", "info": "info", "prune": "prune"}

_VOLUME = {
    "create": "volumes",
    "inspect": "inspect",
    "list": "volumes",
    "ls": "volumes",
    "prune": "prune",
    "remove": "volumes",
    "rm": "volumes",
}

GROUPS = {
    "container": _CONTAINER,
    "image": _IMAGE,
    "network": _NETWORK,
    "system": _SYSTEM,
    "volume": _VOLUME,
}

GROUP_SUMMARIES = {
    "container": "Manage containers",
    "image": "Manage images",
    "network": "Manage networks",
    "system": "Manage Sampan",
    "volume": "Manage volumes",
}

COMMON = (
    "run",
    "exec",
    "ps",
    "build",
    "pull",
    "push",
    "images",
    "login",
    "logout",
    "search",
    "version",
    "info",
)

UNOFFERED = {
    "": [
        "build",
        "builder",
        "buildx",
        "checkpoint",
        "commit",
        "compose",
        "config",
        "context",
        "cp",
        "diff",
        "export",
        "login",
        "logout",
        "manifest",
        "node",
        "plugin",
        "push",
        "search",
        "secret",
        "service",
        "stack",
        "stats",
        "swarm",
        "trust",
        "update",
    ],
    "container": ["commit", "cp", "diff", "export", "stats", "update"],
    "image": ["build", "push"],
    "volume": ["update"],
    "system": ["dial-stdio"],
}


def module_of(words: list[str]) -> str | None:
    """The module of the command that ``words`` (one or two) spell, or None."""
    if len(words) == 1:
        return _TOP.get(words[0])
    return GROUPS.get(words[0], {}).get(words[1])


def top() -> dict[str, str]:
    """The commands that need no group."""
    return _TOP
