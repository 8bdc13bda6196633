"""Where each command lives: spelled words to the module that defines it. Importing it imports no command.

``GROUPS`` are the management commands, ``INSTEAD`` what to use in place of a command of Docker's that there
is not, by its first word. A word in neither may be a plugin of Docker's client (``plugins.py``).
"""

from __future__ import annotations

_CONTAINER = {
    "attach": "attach",
    "commit": "commit",
    "cp": "cp",
    "create": "run",
    "diff": "diff",
    "exec": "exec",
    "export": "export",
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
    "stats": "stats",
    "stop": "containers",
    "top": "containers",
    "unpause": "containers",
    "update": "update",
    "wait": "containers",
}

_TOP = {
    **{name: module for name, module in _CONTAINER.items() if name not in ("ls", "list", "prune", "remove")},
    "build": "build",
    "daemon": "daemon",
    "oci": "oci",
    "events": "events",
    "history": "images",
    "images": "images",
    "import": "transfer",
    "info": "info",
    "load": "transfer",
    "login": "login",
    "logout": "login",
    "pull": "pull",
    "push": "push",
    "rmi": "images",
    "save": "transfer",
    "search": "search",
    "tag": "images",
    "version": "version",
    "__complete": "completion",
    "__completeNoDesc": "completion",
}

_BUILDER = {
    "build": "build",
    "export-mount": "cachemounts",
    "import-mount": "cachemounts",
    "mounts": "cachemounts",
    "prune": "build",
}

_CHECKPOINT = {
    "create": "checkpoints",
    "list": "checkpoints",
    "ls": "checkpoints",
    "remove": "checkpoints",
    "rm": "checkpoints",
}

_COMPLETION = {"bash": "completionscripts", "fish": "completionscripts", "zsh": "completionscripts"}

_CONTEXT = {
    "create": "contexts",
    "export": "contexts",
    "import": "contexts",
    "inspect": "contexts",
    "list": "contexts",
    "ls": "contexts",
    "remove": "contexts",
    "rm": "contexts",
    "show": "contexts",
    "update": "contexts",
    "use": "contexts",
}

_IMAGE = {
    "build": "build",
    "history": "images",
    "import": "transfer",
    "inspect": "inspect",
    "list": "images",
    "load": "transfer",
    "ls": "images",
    "prune": "prune",
    "pull": "pull",
    "push": "push",
    "remove": "images",
    "rm": "images",
    "save": "transfer",
    "tag": "images",
}

_MANIFEST = {
    "annotate": "manifests",
    "create": "manifests",
    "inspect": "manifests",
    "push": "manifests",
    "rm": "manifests",
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

_REGISTRY = {"serve": "registryserve"}

_SYSTEM = {
    "check": "check",
    "df": "diskusage",
    "dial-stdio": "dialstdio",
    "events": "events",
    "info": "info",
    "ports": "reach",
    "prune": "prune",
    "report": "report",
    "service": "service",
}

_VOLUME = {
    "clone": "volumecopies",
    "create": "volumes",
    "export": "volumecopies",
    "import": "volumecopies",
    "inspect": "inspect",
    "list": "volumes",
    "ls": "volumes",
    "prune": "prune",
    "remove": "volumes",
    "rename": "volumecopies",
    "rm": "volumes",
    "snapshot": "volumecopies",
    "update": "volumes",
}

GROUPS = {
    "builder": _BUILDER,
    "checkpoint": _CHECKPOINT,
    "completion": _COMPLETION,
    "container": _CONTAINER,
    "context": _CONTEXT,
    "image": _IMAGE,
    "manifest": _MANIFEST,
    "network": _NETWORK,
    "registry": _REGISTRY,
    "system": _SYSTEM,
    "volume": _VOLUME,
}

GROUP_SUMMARIES = {
    "builder": "Manage builds",
    "checkpoint": "Manage checkpoints",
    "completion": "Print a script that makes a shell complete commands, flags and names",
    "container": "Manage containers",
    "context": "Manage contexts",
    "image": "Manage images",
    "manifest": "Manage image manifests and manifest lists",
    "network": "Manage networks",
    "registry": "Be a registry for other machines",
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

OWN = ("daemon", "oci")
"""Commands that Docker's client lacks."""

_SWARM = "Swarm mode is not offered; run several containers as one with Compose ({program} compose)"

INSTEAD = {
    "buildx": "Docker's buildx plugin is not installed; {program} build needs none",
    "compose": "Docker's Compose plugin is not installed; docker-compose works as well, with DOCKER_HOST set",
    "config": _SWARM,
    "node": _SWARM,
    "plugin": "managed plugins are not offered; volume drivers are found in /run/docker/plugins",
    "secret": _SWARM,
    "service": _SWARM,
    "stack": _SWARM,
    "swarm": _SWARM,
    "trust": "Docker Content Trust is not offered; sign and verify images with cosign or notation",
}


def module_of(words: list[str]) -> str | None:
    """The module of the command that ``words`` spell, or None."""
    if len(words) == 1:
        return _TOP.get(words[0])
    return GROUPS.get(words[0], {}).get(words[1]) if len(words) == 2 else None


def top() -> dict[str, str]:
    """The commands that need no group."""
    return _TOP
