"""``events``: what happens, as it happens."""

from __future__ import annotations

import time

from sampan.cli.command import Command, Exit, Options
from sampan.cli.context import Context, write
from sampan.cli.listing import filtered, filters
from sampan.client.api import json_stream
from sampan.wire import document

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

TEMPLATE_ERROR = 64


def line(event: dict[str, Any]) -> str:
    """``TIME TYPE ACTION ID (attribute=value, …)``."""
    nanoseconds = event.get("timeNano") or event.get("time", 0) * 1_000_000_000
    seconds, fraction = divmod(nanoseconds, 1_000_000_000)
    moment = time.localtime(seconds)
    zone = time.strftime("%z", moment)
    zone = "Z" if zone == "+0000" else f"{zone[:3]}:{zone[3:]}"
    stamp = f"{time.strftime('%Y-%m-%dT%H:%M:%S', moment)}.{fraction:09d}{zone}"
    actor = event.get("Actor") or {}
    text = f"{stamp} {event.get('Type', '')} {event.get('Action', '')} {actor.get('ID', '')}"
    attributes = actor.get("Attributes") or {}
    if attributes:
        text += " (" + ", ".join(f"{key}={attributes[key]}" for key in sorted(attributes)) + ")"
    return text


def _row(event: dict[str, Any]) -> dict[str, Any]:
    """The event's fields under the names that Go gives them."""
    from sampan.wire.template.values import Struct

    actor = event.get("Actor") or {}
    return Struct(
        {
            "Status": event.get("status", ""),
            "ID": event.get("id", ""),
            "From": event.get("from", ""),
            "Type": event.get("Type", ""),
            "Action": event.get("Action", ""),
            "Actor": Struct({"ID": actor.get("ID", ""), "Attributes": actor.get("Attributes") or {}}),
            "Scope": event.get("scope", ""),
            "Time": event.get("time", 0),
            "TimeNano": event.get("timeNano", 0),
        }
    )


def _printer(template: str) -> Callable[[dict[str, Any]], str]:
    if not template:
        return line
    if template in ("json", "{{json .}}"):
        return lambda event: document.encode(event)
    from sampan.wire.template import TemplateError, execute, parse

    try:
        nodes = parse(template)
        execute(nodes, _row({}), template)
    except TemplateError as error:
        text = str(error)
        if 'map has no entry for key "' in text:
            head, _, name = text.partition('map has no entry for key "')
            text = f"{head}can't evaluate field {name.rstrip(chr(34))} in type *events.Message"
        raise Exit(TEMPLATE_ERROR, f"Error parsing format: {text}") from None
    return lambda event: execute(nodes, _row(event), template)


def _events(context: Context, options: Options, _arguments: list[str]) -> int:
    query: dict[str, str] = {}
    for flag in ("since", "until"):
        if options[flag]:
            from sampan.cli.moments import timestamp

            try:
                query[flag] = timestamp(options[flag], flag)
            except ValueError as error:
                raise Exit(1, str(error).partition(": ")[2]) from None
    chosen = filters(options)
    query |= filtered(chosen)
    show = _printer(options["format"])
    for event in json_stream(context.client.open("GET", "/events", query)):
        write(1, show(event) + "\n")
    return 0


COMMANDS: tuple[Command, ...] = (
    Command(
        "events",
        "[OPTIONS]",
        "Get real time events from the server",
        _events,
        flags=(
            ("f", "filter", "filter", "Show only what meets the conditions"),
            (
                "",
                "format",
                "string",
                "How to print:\n'json':             As JSON\n'TEMPLATE':         By a Go template",
            ),
            ("", "since", "string", "Show also the events since a time"),
            ("", "until", "string", "Stop at a time"),
        ),
        most=0,
        aliases=("system events", "events"),
    ),
)
