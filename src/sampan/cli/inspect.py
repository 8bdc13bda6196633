"""``inspect`` and the groups' own: an object's document, whole or by a template."""

from __future__ import annotations

from sampan.cli.command import Command, Exit, Options
from sampan.cli.context import Context, err, write
from sampan.client.api import ApiError, Client, segment
from sampan.errors import Failure
from sampan.wire import document

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    Fetch = Callable[[Client, str, bool], bytes]

TEMPLATE_ERROR = 64  # Docker's exit code for a template that does not parse


def _at(path: str) -> Fetch:
    def fetch(client: Client, name: str, size: bool) -> bytes:
        query = {"size": "1"} if size and path == "containers" else None
        suffix = "/json" if path in ("containers", "images") else ""
        return client.raw("GET", f"/{path}/{segment(name)}{suffix}", query)

    return fetch


def _verbose(client: Client, name: str, _size: bool) -> bytes:
    return client.raw("GET", f"/networks/{segment(name)}", {"verbose": "true"})


def _on_platform(platform: str) -> Fetch:
    """An image of one platform. Raises Failure for a platform that is none."""
    from sampan.cli.references import platform_document

    query = {"platform": platform_document(platform)}
    return lambda client, name, _size: client.raw("GET", f"/images/{segment(name)}/json", query)


# in the order in which Docker tries them
_TYPES: dict[str, Fetch] = {
    "container": _at("containers"),
    "image": _at("images"),
    "network": _at("networks"),
    "volume": _at("volumes"),
}
_FOREIGN = ("config", "node", "plugin", "secret", "service", "task")


def _any(client: Client, name: str, size: bool) -> bytes:
    for kind, fetch in _TYPES.items():
        try:
            found = fetch(client, name, size)
        except ApiError as error:
            if error.status != 404:
                raise
        else:
            if size and kind != "container":
                err(f"WARNING: --size ignored for {kind}")
            return found
    raise Failure(f"Error: No such object: {name}")


def _inspect(context: Context, options: Options, arguments: list[str]) -> int:
    kind = options["type"]
    if not kind and "type" in options.given:
        raise Exit(
            1,
            'type is empty: must be one of "config", "container", "image", "network", "node", '
            '"plugin", "secret", "service", "task", "volume"',
        )
    if kind in _FOREIGN:
        raise Exit(1, f"objects of type {kind} are not offered")
    if kind and kind not in _TYPES:
        known = ", ".join(f'"{name}"' for name in sorted((*_TYPES, *_FOREIGN)))
        raise Exit(1, f'unknown type: "{kind}": must be one of {known}')
    return show(context.client, options, arguments, _TYPES[kind] if kind else _any)


def _group(kind: str) -> Any:
    def act(context: Context, options: Options, arguments: list[str]) -> int:
        fetch = _verbose if options.get("verbose") else _TYPES[kind]
        if options.get("platform"):
            fetch = _on_platform(options["platform"])
        return show(context.client, options, arguments, fetch)

    return act


def show(client: Any, options: Options, names: list[str], fetch: Callable[[Any, str, bool], bytes]) -> int:
    """Print what ``fetch(client, name, size)`` finds for each name, as the flags say. The exit code."""
    template = options["format"]
    printer = _Documents() if template in ("", "json") else _Templated(template)
    printer.indented = template == ""
    errors: list[str] = []
    for name in names:
        if not name:
            errors.append("invalid container name or ID: value is empty")
            continue
        try:
            printer.add(fetch(client, name, bool(options.get("size"))))
        except ApiError as error:
            errors.append(str(error))
        except Failure as error:
            errors.append(str(error))
    printer.end()
    for message in errors:
        err(message)
    return 1 if errors else 0


class _Documents:
    """All objects as one JSON array."""

    def __init__(self) -> None:
        self._found: list[bytes] = []
        self.indented = True

    def add(self, raw: bytes) -> None:
        self._found.append(raw.strip())

    def end(self) -> None:
        if not self._found:
            write(1, "[]\n")
            return
        whole = b"[" + b",".join(self._found) + b"]"
        write(1, (indented(whole.decode("utf-8", "replace")) if self.indented else whole.decode()) + "\n")


class _Templated(_Documents):
    """Each object by the template, a line each."""

    def __init__(self, template: str) -> None:
        from sampan.wire.template import TemplateError, parse

        super().__init__()
        try:
            self._nodes = parse(template)
        except TemplateError as error:
            raise Exit(TEMPLATE_ERROR, f"template parsing error: {error}") from None
        self._failure = TemplateError
        self._template = template

    def add(self, raw: bytes) -> None:
        from sampan.cli.shapes import ALIASES, shaped
        from sampan.wire.template import execute

        try:
            text = execute(self._nodes, shaped(document.decode(raw)), self._template, ALIASES)
            write(1, text + "\n")
        except self._failure as error:
            write(1, "\n")
            raise Exit(1, f"template parsing error: {error}") from None

    def end(self) -> None:
        return


def indented(text: str, step: str = "    ") -> str:
    """JSON text laid out as Go's json.Indent does: every byte of strings and numbers stays as it came."""
    out: list[str] = []
    depth = at = 0
    while at < len(text):
        character = text[at]
        if character == '"':
            end = at + 1
            while text[end] != '"':
                end += 2 if text[end] == "\\" else 1
            out.append(text[at : end + 1])
            at = end
        elif character in "{[":
            closing = (
                text[at + 1 :].lstrip()[:1] if text[at + 1 : at + 2].isspace() else text[at + 1 : at + 2]
            )
            if closing in ("}", "]"):
                out.append(character + closing)
                at = text.index(closing, at)
            else:
                depth += 1
                out.append(character + "\n" + step * depth)
        elif character in "}]":
            depth -= 1
            out.append("\n" + step * depth + character)
        elif character == ",":
            out.append(",\n" + step * depth)
        elif character == ":":
            out.append(": ")
        elif not character.isspace():
            out.append(character)
        at += 1
    return "".join(out)


_FORMAT = (
    "f",
    "format",
    "string",
    "How to print:\n'json':             As JSON\n'TEMPLATE':         By a Go template",
)


def _command(group: str, argument: str, what: str, *more: tuple[str, ...]) -> Command:
    usage = f"[OPTIONS] {argument} [{argument}...]"
    flags = (_FORMAT, *more)
    return Command(f"{group} inspect", usage, what, _group(group), flags=flags, least=1)


COMMANDS: tuple[Command, ...] = (
    Command(
        "inspect",
        "[OPTIONS] NAME|ID [NAME|ID...]",
        "Return low-level information on objects of any kind",
        _inspect,
        flags=(
            _FORMAT,
            ("s", "size", "bool", "Show sizes on disk of containers"),
            ("", "type", "string", "Only look among objects of this type"),
        ),
        least=1,
    ),
    _command(
        "container",
        "CONTAINER",
        "Display detailed information on one or more containers",
        ("s", "size", "bool", "Show sizes on disk"),
    ),
    _command(
        "image",
        "IMAGE",
        "Display detailed information on one or more images",
        ("", "platform", "string", "Platform of the image, where it offers several"),
    ),
    _command(
        "network",
        "NETWORK",
        "Display detailed information on one or more networks",
        ("v", "verbose", "bool", "Show more for diagnostics"),
    ),
    _command("volume", "VOLUME", "Display detailed information on one or more volumes"),
)
