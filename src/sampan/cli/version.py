"""``version``: of the client, the engine and what it is made of."""

from __future__ import annotations

import os
import sys

from sampan import __version__
from sampan.cli.command import Command, Exit, Options
from sampan.cli.context import Context, err, out
from sampan.client.api import NEWEST
from sampan.errors import Failure
from sampan.wire import document

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_MACHINES = {"x86_64": "amd64", "aarch64": "arm64", "armv7l": "arm"}


def _client(version: str, context: str) -> dict[str, Any]:
    machine = os.uname().machine
    return {
        "Version": __version__,
        "ApiVersion": version,
        "DefaultAPIVersion": NEWEST,
        "GitCommit": "",
        "PythonVersion": sys.version.partition(" ")[0],
        "Os": "linux",
        "Arch": _MACHINES.get(machine, machine),
        "BuildTime": "",
        "Context": context,
    }


def _version(context: Context, options: Options, _arguments: list[str]) -> int:
    failure: Failure | None = None
    server: dict[str, Any] | None = None
    client = context.client
    try:
        client.agree()
        server = client.call("GET", "/version")
    except Failure as error:
        failure = error
    found = {"Client": _client(client.version, context.where.name), "Server": server}
    template = options["format"]
    if template == "json":
        out(document.encode(found))
    elif template:
        _templated(template, found)
    else:
        _print(found)
    if failure is not None:
        err(str(failure))
        return 1
    return 0


def _templated(template: str, found: dict[str, Any]) -> None:
    from sampan.cli.shapes import shaped
    from sampan.wire.template import TemplateError, execute, parse

    try:
        out(execute(parse(template), shaped(found), template))
    except TemplateError as error:
        raise Exit(64 if "executing" not in str(error) else 1, f"template parsing error: {error}") from None


def _rows(rows: list[tuple[str, object]], indent: str, wide: int) -> None:
    for name, value in rows:
        out(f"{indent}{name + ':':<{wide}}{value}")


def _print(found: dict[str, Any]) -> None:
    client = found["Client"]
    api = client["ApiVersion"]
    if api != client["DefaultAPIVersion"]:
        api = f"{api} (downgraded from {client['DefaultAPIVersion']})"
    out("Client:")
    _rows(
        [
            ("Version", client["Version"]),
            ("API version", api),
            ("Python version", client["PythonVersion"]),
            ("OS/Arch", f"{client['Os']}/{client['Arch']}"),
            ("Context", client["Context"]),
        ],
        " ",
        19,
    )
    server = found["Server"]
    if server is None:
        return
    platform = (server.get("Platform") or {}).get("Name", "")
    out(f"\nServer: {platform}".rstrip() if platform else "\nServer:")
    for component in server.get("Components") or [_component(server)]:
        _print_component(component)


def _component(server: dict[str, Any]) -> dict[str, Any]:
    """An engine that names no components is one itself."""
    names = ("ApiVersion", "Arch", "BuildTime", "GitCommit", "GoVersion", "MinAPIVersion", "Os")
    return {
        "Name": "Engine",
        "Version": server.get("Version", ""),
        "Details": {name: server.get(name, "") for name in names},
    }


def _print_component(component: dict[str, Any]) -> None:
    details = component.get("Details") or {}
    out(f" {component['Name']}:")
    rows: list[tuple[str, object]] = [("Version", component["Version"])]
    if component["Name"] == "Engine":
        least = details.get("MinAPIVersion", "")
        rows.append(("API version", f"{details.get('ApiVersion', '')} (minimum version {least})"))
        rows += [
            (label, _built(details[key]) if key == "BuildTime" else details[key])
            for label, key in (
                ("Go version", "GoVersion"),
                ("Python version", "PythonVersion"),
                ("Git commit", "GitCommit"),
                ("Built", "BuildTime"),
            )
            if key in details
        ]
        rows.append(("OS/Arch", f"{details.get('Os', '')}/{details.get('Arch', '')}"))
        rows.append(("Experimental", details.get("Experimental", "false")))
    else:
        rows += sorted(details.items())
    _rows(rows, "  ", 18)


def _built(text: str) -> str:
    """An RFC 3339 time as Docker prints it; anything else as it is."""
    import time

    from sampan.cli.human import epoch

    try:
        return time.asctime(time.gmtime(epoch(text)))
    except ValueError:
        return text


COMMANDS: tuple[Command, ...] = (
    Command(
        "version",
        "[OPTIONS]",
        "Show the version information",
        _version,
        flags=(
            (
                "f",
                "format",
                "string",
                "How to print:\n'json':             As JSON\n'TEMPLATE':         By a Go template",
            ),
        ),
        most=0,
    ),
)
