"""Commands on containers that are one request each: stop, kill, rm, …"""

from __future__ import annotations

from sampan.cli.command import Command, Exit, Options, UsageError
from sampan.cli.context import Context, each, err, out
from sampan.client.api import ApiError, segment
from sampan.errors import Failure

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def _post(context: Context, name: str, verb: str, query: dict[str, str] | None = None) -> None:
    context.client.raw("POST", f"/containers/{segment(name)}/{verb}", query)


def _stopping(verb: str) -> Any:
    def act(context: Context, options: Options, arguments: list[str]) -> int:
        if "time" in options.given and "timeout" in options.given:
            raise UsageError("conflicting options: cannot specify both --timeout and --time")
        query = {}
        if options["signal"]:
            query["signal"] = options["signal"]
        for flag in ("time", "timeout"):
            if flag in options.given:
                query["t"] = str(options[flag])
        return each(arguments, lambda name: _post(context, name, verb, query))

    return act


def _simple(verb: str) -> Any:
    def act(context: Context, _options: Options, arguments: list[str]) -> int:
        return each(arguments, lambda name: _post(context, name, verb))

    return act


def _kill(context: Context, options: Options, arguments: list[str]) -> int:
    query = {"signal": options["signal"]} if options["signal"] else None
    return each(arguments, lambda name: _post(context, name, "kill", query))


def _wait(context: Context, _options: Options, arguments: list[str]) -> int:
    def wait(name: str) -> str:
        value = context.client.call("POST", f"/containers/{segment(name)}/wait")
        error = value.get("Error")
        if error and error.get("Message"):
            raise Failure(f"Error waiting for container: {error['Message']}")
        return str(value["StatusCode"])

    return each(arguments, wait)


def _rm(context: Context, options: Options, arguments: list[str]) -> int:
    query = {
        name: "1" for name, flag in (("force", "force"), ("link", "link"), ("v", "volumes")) if options[flag]
    }

    code = 0
    for argument in arguments:
        name = argument.strip("/")
        try:
            if not name:
                raise Failure("container name cannot be empty")
            context.client.raw("DELETE", f"/containers/{segment(name)}", query)
        except Failure as error:
            err(str(error))
            absent = isinstance(error, ApiError) and error.status == 404
            code = code if options["force"] and absent else 1
        else:
            out(name)
    return code


def _rename(context: Context, _options: Options, arguments: list[str]) -> int:
    old, new = (argument.strip() for argument in arguments)
    if not old or not new:
        raise Failure("Error: Neither old nor new names may be empty")
    try:
        _post(context, old, "rename", {"name": new})
    except Failure as error:
        raise Exit(1, f"{error}\nError: failed to rename container named {old}") from error
    return 0


def _port(context: Context, _options: Options, arguments: list[str]) -> int:
    details = context.client.call("GET", f"/containers/{segment(arguments[0])}/json")
    ports: dict[str, Any] = (details.get("NetworkSettings") or {}).get("Ports") or {}
    if len(arguments) > 1:
        number, slash, protocol = arguments[1].partition("/")
        wanted = f"{number}/{protocol if slash else 'tcp'}"
        if not number.isdigit() or int(number) > 65535:
            raise Failure(f'invalid port "{arguments[1]}"' if not number.isdigit() else "invalid port")
        bindings = ports.get(wanted)
        if not bindings:
            raise Failure(f"Error: No public port '{arguments[1]}' published for {arguments[0]}")
        for line in sorted(_where(binding) for binding in bindings):
            out(line)
        return 0
    lines = [
        (_port_key(port), f"{port} -> {_where(binding)}") for port in ports for binding in ports[port] or ()
    ]
    for _, line in sorted(lines):
        out(line)
    return 0


def _port_key(port: str) -> tuple[int, str]:
    number, _, protocol = port.partition("/")
    return int(number), protocol


def _where(binding: dict[str, str]) -> str:
    host = binding.get("HostIp", "")
    return f"[{host}]:{binding['HostPort']}" if ":" in host else f"{host}:{binding['HostPort']}"


def _top(context: Context, _options: Options, arguments: list[str]) -> int:
    from sampan.cli.table import columns

    query = {"ps_args": " ".join(arguments[1:])} if len(arguments) > 1 else None
    answer = context.client.call("GET", f"/containers/{segment(arguments[0])}/top", query)
    for line in columns([answer["Titles"], *answer["Processes"]], least=20, gap=1):
        out(line)
    return 0


_NAMES = "CONTAINER [CONTAINER...]"
_STOP_FLAGS = (
    ("s", "signal", "string", "Signal that asks the container to stop"),
    ("", "time", "int", ""),
    ("t", "timeout", "int", "Seconds to wait before the container is killed"),
)


def _both(word: str) -> tuple[str, str]:
    return f"container {word}", word


COMMANDS: tuple[Command, ...] = (
    Command(
        "stop",
        f"[OPTIONS] {_NAMES}",
        "Stop one or more running containers",
        _stopping("stop"),
        flags=_STOP_FLAGS,
        least=1,
        aliases=_both("stop"),
    ),
    Command(
        "restart",
        f"[OPTIONS] {_NAMES}",
        "Restart one or more containers",
        _stopping("restart"),
        flags=_STOP_FLAGS,
        least=1,
        aliases=_both("restart"),
    ),
    Command(
        "kill",
        f"[OPTIONS] {_NAMES}",
        "Kill one or more running containers",
        _kill,
        flags=(("s", "signal", "string", "Signal to send"),),
        least=1,
        aliases=_both("kill"),
    ),
    Command(
        "pause",
        _NAMES,
        "Pause all processes within one or more containers",
        _simple("pause"),
        least=1,
        aliases=_both("pause"),
    ),
    Command(
        "unpause",
        _NAMES,
        "Unpause all processes within one or more containers",
        _simple("unpause"),
        least=1,
        aliases=_both("unpause"),
    ),
    Command(
        "wait",
        _NAMES,
        "Block until one or more containers stop, then print their exit codes",
        _wait,
        least=1,
        aliases=_both("wait"),
    ),
    Command(
        "rm",
        f"[OPTIONS] {_NAMES}",
        "Remove one or more containers",
        _rm,
        flags=(
            ("f", "force", "bool", "Kill a running container and remove it"),
            ("l", "link", "bool", "Remove the link of this name"),
            ("v", "volumes", "bool", "Remove the container's anonymous volumes too"),
        ),
        least=1,
        aliases=("container rm", "container remove", "rm"),
    ),
    Command(
        "rename",
        "CONTAINER NEW_NAME",
        "Rename a container",
        _rename,
        least=2,
        most=2,
        aliases=_both("rename"),
    ),
    Command(
        "port",
        "CONTAINER [PRIVATE_PORT[/PROTO]]",
        "List port mappings or a specific mapping for the container",
        _port,
        least=1,
        most=2,
        aliases=_both("port"),
    ),
    Command(
        "top",
        "CONTAINER [ps OPTIONS]",
        "Display the running processes of a container",
        _top,
        least=1,
        aliases=_both("top"),
        interspersed=False,
    ),
)
