"""``info``: what the engine is, has and can do on this host."""

from __future__ import annotations

from sampan import __version__
from sampan.cli.command import Command, Exit, Options
from sampan.cli.context import Context, err, out
from sampan.errors import Failure
from sampan.wire import document

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def _info(context: Context, options: Options, _arguments: list[str]) -> int:
    failure: Failure | None = None
    found: dict[str, Any] = {}
    try:
        found = context.client.call("GET", "/info")
    except Failure as error:
        failure = error
    client = {
        "Version": __version__,
        "Context": context.where.name,
        "Debug": False,
        "Plugins": [],
        "Warnings": None,
    }
    template = options["format"]
    if template:
        value = {**found, "ClientInfo": client, "ServerErrors": [str(failure)] if failure else []}
        _templated(template, value)
        return 0
    for line in _lines(found, client) if found else _client_lines(client):
        out(line)
    if failure is not None:
        err(str(failure))
        return 1
    for warning in found.get("Warnings") or ():
        err(warning)
    return 0


def _templated(template: str, value: dict[str, Any]) -> None:
    if template == "json":
        if not value["ServerErrors"]:
            del value["ServerErrors"]
        out(document.encode(value))
        return
    from sampan.cli.shapes import shaped
    from sampan.wire.template import TemplateError, execute, parse

    try:
        out(execute(parse(template), shaped(value), template))
    except TemplateError as error:
        text = str(error)
        if 'map has no entry for key "' in text:
            head, _, name = text.partition('map has no entry for key "')
            out("")
            raise Exit(
                1, f"{head}can't evaluate field {name.rstrip(chr(34))} in type system.dockerInfo"
            ) from None
        raise Exit(64, f"template parsing error: {text}") from None


def _client_lines(client: dict[str, Any]) -> list[str]:
    return [
        "Client:",
        f" Version:    {client['Version']}",
        f" Context:    {client['Context']}",
        " Debug Mode: false",
        "",
        "Server:",
    ]


_COUNTS = (
    ("Containers", "Containers", ""),
    ("Running", "ContainersRunning", " "),
    ("Paused", "ContainersPaused", " "),
    ("Stopped", "ContainersStopped", " "),
    ("Images", "Images", ""),
    ("Server Version", "ServerVersion", ""),
)


def _lines(found: dict[str, Any], client: dict[str, Any]) -> list[str]:
    lines = _client_lines(client)
    lines += [f" {indent}{label}: {found.get(key, '')}" for label, key, indent in _COUNTS]
    lines.append(f" Storage Driver: {found.get('Driver', '')}")
    lines += [f"  {name}: {value}" for name, value in found.get("DriverStatus") or ()]
    for label, key in (
        ("Logging Driver", "LoggingDriver"),
        ("Cgroup Driver", "CgroupDriver"),
        ("Cgroup Version", "CgroupVersion"),
    ):
        if found.get(key):
            lines.append(f" {label}: {found[key]}")
    plugins = found.get("Plugins") or {}
    lines.append(" Plugins:")
    for label in ("Volume", "Network", "Authorization", "Log"):
        if plugins.get(label):
            lines.append(f"  {label}: {' '.join(plugins[label])}")
    if found.get("CDISpecDirs"):
        lines += [" CDI spec directories:", *(f"  {folder}" for folder in found["CDISpecDirs"])]
    swarm = found.get("Swarm") or {}
    lines.append(f" Swarm: {swarm.get('LocalNodeState') or 'inactive'}")
    lines += _runtime_lines(found)
    lines += _security_lines(found)
    lines += _host_lines(found)
    return [*lines, ""]


def _runtime_lines(found: dict[str, Any]) -> list[str]:
    lines = [f" Runtimes: {' '.join(sorted(found.get('Runtimes') or {}))}"]
    lines.append(f" Default Runtime: {found.get('DefaultRuntime', '')}")
    lines.append(f" Init Binary: {found.get('InitBinary', '')}")
    for label, key in (("containerd", "ContainerdCommit"), ("runc", "RuncCommit"), ("init", "InitCommit")):
        commit = found.get(key)
        if commit is not None:
            lines.append(f" {label} version: {commit.get('ID', '')}")
    return lines


def _security_lines(found: dict[str, Any]) -> list[str]:
    options = found.get("SecurityOptions") or ()
    lines = [" Security Options:"] if options else []
    for option in options:
        fields = [field.partition("=")[::2] for field in option.split(",")]
        for key, value in fields:
            if key == "name":
                lines.append(f"  {value}")
            else:
                lines.append(f"   {key.capitalize()}: {value}")
    return lines


def _host_lines(found: dict[str, Any]) -> list[str]:
    from sampan.cli.human import binary_size

    lines = [
        f" {label}: {found.get(key, '')}"
        for label, key in (
            ("Kernel Version", "KernelVersion"),
            ("Operating System", "OperatingSystem"),
            ("OSType", "OSType"),
            ("Architecture", "Architecture"),
            ("CPUs", "NCPU"),
        )
    ]
    lines.append(f" Total Memory: {binary_size(found.get('MemTotal', 0))}")
    lines += [
        f" {label}: {found.get(key, '')}"
        for label, key in (("Name", "Name"), ("ID", "ID"), ("Docker Root Dir", "DockerRootDir"))
    ]
    lines.append(f" Debug Mode: {_flag(found.get('Debug'))}")
    for label, key in (
        ("HTTP Proxy", "HttpProxy"),
        ("HTTPS Proxy", "HttpsProxy"),
        ("No Proxy", "NoProxy"),
    ):
        if found.get(key):
            lines.append(f" {label}: {found[key]}")
    if found.get("Labels"):
        lines += [" Labels:", *(f"  {label}" for label in found["Labels"])]
    lines.append(f" Experimental: {_flag(found.get('ExperimentalBuild'))}")
    registries = found.get("RegistryConfig") or {}
    if registries.get("InsecureRegistryCIDRs"):
        lines += [" Insecure Registries:", *(f"  {cidr}" for cidr in registries["InsecureRegistryCIDRs"])]
    lines.append(f" Live Restore Enabled: {_flag(found.get('LiveRestoreEnabled'))}")
    return lines


def _flag(value: object) -> str:
    return "true" if value else "false"


COMMANDS: tuple[Command, ...] = (
    Command(
        "info",
        "[OPTIONS]",
        "Display system-wide information",
        _info,
        flags=(
            (
                "f",
                "format",
                "string",
                "How to print:\n'json':             As JSON\n'TEMPLATE':         By a Go template",
            ),
        ),
        most=0,
        aliases=("system info", "info"),
    ),
)
