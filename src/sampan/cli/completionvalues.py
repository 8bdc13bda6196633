"""Which values a flag or an argument may have: fixed words, files, or names that the engine knows."""

from __future__ import annotations

import os

from sampan.cli.completion import FILES, FOLDERS, NO_FILES, NO_SPACE
from sampan.client.api import Client
from sampan.errors import Failure

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from types import EllipsisType
    from typing import Any

    from sampan.cli.command import Command, Flag
    from sampan.cli.context import Where

    Answer = tuple[Iterable[tuple[str, str]], int]
    Source = Callable[["Where"], list[str]]

PATIENCE = 2  # seconds for the engine to answer


def _ask(where: Where, path: str, query: dict[str, str] | None = None) -> Any:
    """The engine's answer, or None. Starts nothing."""
    try:
        return Client(where.address(), patience=PATIENCE).call("GET", path, query)
    except Failure:
        return None


def containers(*states: str) -> Source:
    """Names of the containers in one of ``states``, or of all."""

    def names(where: Where) -> list[str]:
        listed = _ask(where, "/containers/json", {"all": "1"}) or []
        found = []
        for one in listed:
            if states and one.get("State") not in states:
                continue
            if os.environ.get("DOCKER_COMPLETION_SHOW_CONTAINER_IDS") == "yes":
                found.append(one["Id"])
            found += [name[1:] for name in one.get("Names") or () if "/" not in name[1:]]
        return found

    return names


def images(where: Where) -> list[str]:
    """Names of images, with tags."""
    listed = _ask(where, "/images/json") or []
    return sorted(tag for one in listed for tag in one.get("RepoTags") or () if not tag.startswith("<none>"))


def networks(where: Where) -> list[str]:
    """Names of networks."""
    return sorted(one["Name"] for one in _ask(where, "/networks") or [])


def volumes(where: Where) -> list[str]:
    """Names of volumes."""
    return sorted(one["Name"] for one in (_ask(where, "/volumes") or {}).get("Volumes") or ())


def contexts(_where: Where) -> list[str]:
    """Names of contexts."""
    from sampan.cli.contextstore import names

    return sorted([*names(), "default"])


def anything(where: Where) -> list[str]:
    """Names of everything that ``inspect`` finds."""
    return [*containers()(where), *images(where), *volumes(where), *networks(where)]


_ANY = containers()
_RUNNING = containers("running")
_ALIVE = containers("running", "paused", "restarting")
_STOPPED = containers("created", "exited", "dead")

ARGUMENTS: dict[str, tuple[Source | int | EllipsisType, ...]] = {
    "attach": (_RUNNING,),
    "build": (FOLDERS,),
    "checkpoint create": (_RUNNING,),
    "checkpoint ls": (_ANY,),
    "checkpoint rm": (_ANY,),
    "commit": (_ANY,),
    "container inspect": (_ANY, ...),
    "context export": (contexts, FILES),
    "context import": (NO_FILES, FILES),
    "context inspect": (contexts, ...),
    "context rm": (contexts, ...),
    "context update": (contexts,),
    "context use": (contexts,),
    "create": (images,),
    "diff": (_ANY,),
    "exec": (_RUNNING,),
    "export": (_ANY,),
    "history": (images,),
    "image inspect": (images, ...),
    "images": (images,),
    "import": (FILES,),
    "inspect": (anything, ...),
    "kill": (_ALIVE, ...),
    "logs": (_ANY,),
    "network connect": (networks, _ANY),
    "network disconnect": (networks, _ANY),
    "network inspect": (networks, ...),
    "network rm": (networks, ...),
    "pause": (_RUNNING, ...),
    "port": (_ANY,),
    "push": (images,),
    "rename": (_ANY,),
    "restart": (_ANY, ...),
    "rm": (_ANY, ...),
    "rmi": (images, ...),
    "run": (images,),
    "save": (images, ...),
    "start": (_STOPPED, ...),
    "stats": (_RUNNING, ...),
    "stop": (_ALIVE, ...),
    "tag": (images, images),
    "top": (_RUNNING,),
    "unpause": (containers("paused"), ...),
    "update": (_ANY, ...),
    "volume clone": (volumes,),
    "volume export": (volumes,),
    "volume import": (NO_FILES, FILES),
    "volume inspect": (volumes, ...),
    "volume rename": (volumes,),
    "volume rm": (volumes, ...),
    "volume snapshot": (volumes,),
    "volume update": (volumes,),
    "wait": (_ALIVE, ...),
}
"""What stands at each place of a command's arguments; an Ellipsis repeats what is before it."""

SIGNALS = (
    *("ABRT", "ALRM", "BUS", "CHLD", "CONT", "FPE", "HUP", "ILL", "INT", "IO", "KILL", "PIPE", "PROF", "PWR"),
    *("QUIT", "SEGV", "STOP", "SYS", "TERM", "TRAP", "TSTP", "TTIN", "TTOU", "URG", "USR1", "USR2"),
    *("VTALRM", "WINCH", "XCPU", "XFSZ"),
)
LOG_DRIVERS = ("fluentd", "gelf", "journald", "json-file", "local", "none", "syslog")
LEVELS = ("debug", "info", "warn", "error", "fatal")

WORDS: dict[str, tuple[str, ...]] = {
    "attach": ("stderr", "stdin", "stdout"),
    "availability": ("active", "drain", "pause"),
    "cgroupns": ("host", "private"),
    "format": ("json", "table"),
    "gpus": ("all",),
    "ipc": ("container:", "host", "none", "private", "shareable"),
    "log-driver": LOG_DRIVERS,
    "log-level": LEVELS,
    "mount": ("type=bind,", "type=image,", "type=tmpfs,", "type=volume,"),
    "pid": ("container:", "host"),
    "platform": ("linux", "linux/amd64", "linux/arm64"),
    "pull": ("always", "missing", "never"),
    "restart": ("always", "no", "on-failure", "unless-stopped"),
    "security-opt": ("apparmor=", "label=", "no-new-privileges", "seccomp=", "systempaths=unconfined"),
    "signal": SIGNALS,
    "stop-signal": SIGNALS,
    "storage-opt": ("size=",),
    "tail": ("all",),
    "type": ("container", "image", "network", "volume"),
    "userns": ("host", "private"),
    "uts": ("host",),
}
"""Flags with a few values, by long name."""

FILTERS: dict[str, tuple[str, ...]] = {
    "builder prune": ("until",),
    "container prune": ("label", "until"),
    "events": (
        *("config", "container", "daemon", "event", "image", "label", "network", "node", "plugin"),
        *("scope", "secret", "service", "type", "volume"),
    ),
    "image prune": ("label", "until"),
    "images": ("before", "dangling", "label", "reference", "since", "until"),
    "network ls": ("dangling", "driver", "id", "label", "name", "scope", "type"),
    "network prune": ("label", "until"),
    "ps": (
        *("ancestor", "before", "exited", "expose", "health", "id", "is-task", "isolation", "label"),
        *("name", "network", "publish", "since", "status", "volume"),
    ),
    "search": ("is-official", "stars"),
    "system prune": ("label", "until"),
    "volume ls": ("dangling", "driver", "label", "name"),
    "volume prune": ("label",),
}
"""Keys of ``--filter``, by command."""

FILTER_VALUES: dict[str, tuple[str, ...] | Source] = {
    "ancestor": images,
    "before": _ANY,
    "container": _ANY,
    "dangling": ("false", "true"),
    "health": ("healthy", "none", "starting", "unhealthy"),
    "image": images,
    "is-official": ("false", "true"),
    "is-task": ("false", "true"),
    "name": _ANY,
    "network": networks,
    "since": _ANY,
    "status": ("created", "dead", "exited", "paused", "removing", "restarting", "running"),
    "type": ("container", "daemon", "image", "network", "volume"),
    "volume": volumes,
}

FILE_FLAGS = frozenset(
    (
        *("cidfile", "config", "device", "env-file", "file", "iidfile", "input", "label-file", "output"),
        *("tlscacert", "tlscert", "tlskey", "volume"),
    )
)


def _environment(_where: Where) -> list[str]:
    return sorted(os.environ)


def _network_modes(where: Where) -> list[str]:
    return sorted({*networks(where), "host", "none", "container:"})


SOURCES: dict[str, Source] = {
    "context": contexts,
    "env": _environment,
    "from": contexts,
    "link": _ANY,
    "net": _network_modes,
    "network": _network_modes,
    "volumes-from": _ANY,
}


def _capabilities() -> list[str]:
    from sampan.spec.runtime import ALL_CAPABILITIES

    return ["ALL", *(name.removeprefix("CAP_") for name in sorted(ALL_CAPABILITIES))]


def of_flag(where: Where, words: str, flag: Flag, current: str) -> Answer:
    """The values of ``flag`` of the command ``words``, of which ``current`` is written."""
    name = flag[1]
    if flag[2] == "bool":
        return _plain(("false", "true"))
    if flag[2] == "filter":
        return _filter(where, words, current)
    if name in FILE_FLAGS:
        return (), FILES
    if name == "checkpoint-dir":
        return (), FOLDERS
    if name in ("cap-add", "cap-drop"):
        return _plain(_capabilities())
    if name == "driver":
        return _plain(("bridge", "host", "ipvlan", "macvlan", "none") if "network" in words else ("local",))
    if name in SOURCES:
        return _plain(SOURCES[name](where))
    if name == "pid" and current.startswith("container:"):
        return _plain(f"container:{one}" for one in _RUNNING(where))
    return _plain(WORDS.get(name, ()))


def _plain(values: Iterable[str]) -> Answer:
    found = list(values)
    open_ended = any(value[-1:] in "=,:" for value in found)
    return [(value, "") for value in found], NO_FILES | NO_SPACE if open_ended else NO_FILES


def _filter(where: Where, words: str, current: str) -> Answer:
    key, sign, _ = current.partition("=")
    if not sign:
        return _plain(f"{one}=" for one in FILTERS.get(words, ()))
    known = FILTER_VALUES.get(key, ())
    values = known(where) if callable(known) else known
    return _plain(f"{key}={value}" for value in values)


def of_argument(where: Where, command: Command, before: list[str], current: str) -> Answer:
    """What may stand after the arguments ``before``; a name that is there already is not offered again."""
    if command.words == "cp":
        return _copied(where, current)
    places = ARGUMENTS.get(command.words, ())
    at = len(before)
    if places and places[-1] is ... and at >= len(places) - 1:
        at = len(places) - 2
    source = places[at] if at < len(places) else NO_FILES
    if not callable(source):
        return (), source if isinstance(source, int) else NO_FILES
    return [(name, "") for name in source(where) if name not in before], NO_FILES


def _copied(where: Where, current: str) -> Answer:
    """Files, or ``CONTAINER:`` before a path in it."""
    if current[:1] in ("/", ".", "~") or ":" in current:
        return (), FILES
    found = [(f"{name}:", "") for name in _ANY(where) if name.startswith(current)]
    return found, NO_SPACE if found else FILES
