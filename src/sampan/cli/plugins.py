"""Plugins of Docker's client: programs ``docker-NAME`` in its plugin folders, such as ``docker-compose``.

The protocol: ``docker-NAME docker-cli-plugin-metadata`` prints a JSON document that says what the plugin is;
``docker-NAME NAME ARGUMENTS`` is the command. A plugin finds the engine by itself, so it is told by
DOCKER_HOST which one is meant.
"""

from __future__ import annotations

import os

from sampan.cli.context import DEFAULT_CONTEXT, DEFAULT_HOST, Where, folder
from sampan.errors import Failure
from sampan.wire import document

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

PREFIX = "docker-"
METADATA = "docker-cli-plugin-metadata"
_SYSTEM = (
    "/usr/local/lib/docker/cli-plugins",
    "/usr/local/libexec/docker/cli-plugins",
    "/usr/lib/docker/cli-plugins",
    "/usr/libexec/docker/cli-plugins",
)


def _folders(settings: dict[str, Any]) -> list[str]:
    return [*(settings.get("cliPluginsExtraDirs") or ()), os.path.join(folder(), "cli-plugins"), *_SYSTEM]


def _is_name(name: str) -> bool:
    return name[:1].isalpha() and name.isalnum() and name.isascii() and name == name.lower()


def find(name: str, settings: dict[str, Any]) -> str:
    """The path of the plugin ``name``, or ""."""
    if not _is_name(name):
        return ""
    for place in _folders(settings):
        path = os.path.join(place, PREFIX + name)
        if os.access(path, os.X_OK) and os.path.isfile(path):
            return path
    return ""


def listed(settings: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Name and summary of every plugin that answers, sorted."""
    names: set[str] = set()
    for place in _folders(settings):
        try:
            names.update(name.removeprefix(PREFIX) for name in os.listdir(place) if name.startswith(PREFIX))
        except OSError:
            continue
    for name in sorted(names):
        path = find(name, settings)
        summary = path and _summary(path)
        if summary is not None and path:
            yield name, summary


def _summary(path: str) -> str | None:
    import subprocess

    try:
        said = subprocess.run([path, METADATA], capture_output=True, timeout=5, check=True).stdout
        found = document.decode(said)
    except (OSError, ValueError, subprocess.SubprocessError):
        return None
    if not isinstance(found, dict) or not found.get("SchemaVersion"):
        return None
    return str(found.get("ShortDescription") or "")


def environment(where: Where) -> dict[str, str]:
    """What tells a plugin which engine is meant."""
    found = {**os.environ, "DOCKER_CLI_PLUGIN_ORIGINAL_CLI_COMMAND": "sampan"}
    if where.name == DEFAULT_CONTEXT:
        found["DOCKER_HOST"] = where.host
        found.pop("DOCKER_CONTEXT", None)
    else:
        found["DOCKER_CONTEXT"] = where.name  # host and TLS files alike come from the store that we share
        found.pop("DOCKER_HOST", None)
    return found


def run(where: Where, program: str, arguments: list[str]) -> None:
    """Become the plugin. The default engine is started first if it is absent. Raises Failure."""
    if where.address().text == DEFAULT_HOST:
        from sampan.cli.ondemand import present

        present(DEFAULT_HOST)
    try:
        os.execve(program, [program, *arguments], environment(where))
    except OSError as error:
        raise Failure(f"fork/exec {program}: {(error.strerror or '').lower()}") from error
