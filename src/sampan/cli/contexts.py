"""``context``: named engines. Every command reads and writes the files of Docker's own client."""

from __future__ import annotations

import os

from sampan.cli import contextstore as store
from sampan.cli.command import FORMAT_HELP, Command, Options
from sampan.cli.context import DEFAULT_CONTEXT, Context, err, out
from sampan.cli.listing import Fields, ellipsis, natural, render
from sampan.client.connection import Address
from sampan.errors import Failure

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, ClassVar

_DESCRIPTION = "Current SAMPAN_HOST based configuration"
_ERROR_WIDTH = 45
_ENDPOINT_HELP = """

Docker endpoint config:

NAME                DESCRIPTION
from                Copy the endpoint of this context
host                Where the engine listens: unix://, tcp:// or ssh://
ca                  Trust only certificates signed by this authority
cert                Path of the TLS certificate
key                 Path of the TLS key
skip-tls-verify     Do not verify the engine's certificate"""


class Row(Fields):
    """A row of ``context ls``."""

    kind = "*formatter.clientContextContext"
    columns: ClassVar[dict[str, str]] = {
        "Current": "",  # no heading is marked as the current context
        "Description": "DESCRIPTION",
        "DockerEndpoint": "DOCKER ENDPOINT",
        "Error": "ERROR",
        "Name": "NAME",
    }

    def __init__(self, name: str, *, current: bool, found: dict[str, Any] | None, error: str = "") -> None:
        self._name = name
        self._current = current
        self._found = found or {}
        self._error = error

    def Name(self) -> str:
        return self._name

    def Current(self) -> bool:
        return self._current

    def Description(self) -> str:
        return _DESCRIPTION if self._name == DEFAULT_CONTEXT else _description(self._found)

    def DockerEndpoint(self) -> str:
        return str(store.endpoint(self._found).get("Host") or "")

    def Error(self) -> str:
        return ellipsis(self._error.replace("\n", " "), _ERROR_WIDTH)


def _description(found: dict[str, Any]) -> str:
    return str((found.get("Metadata") or {}).get("Description") or "")


def _document(context: Context, name: str) -> dict[str, Any]:
    """The document of context ``name``. Raises Failure."""
    if name == DEFAULT_CONTEXT:
        return store.default(context.where)
    store.check(name)
    return store.read(name)


def _ls(context: Context, options: Options, _arguments: list[str]) -> int:
    current = context.where.name
    rows = []
    for name in {*store.names(), DEFAULT_CONTEXT, current}:
        try:
            rows.append(Row(name, current=name == current, found=_document(context, name)))
        except Failure as error:
            rows.append(Row(name, current=name == current, found=None, error=str(error)))
    rows.sort(key=lambda row: natural(row.Name()))
    template = options["format"]
    if options["quiet"]:
        for row in rows:
            out(row.Name())
    else:
        shown = "{{.Name}}{{if .Current}} *{{end}}\t{{.Description}}\t{{.DockerEndpoint}}\t{{.Error}}"
        render(rows, Row, f"table {shown}" if template in ("", "table") else template)
    if context.where.variable and not context.where.context:
        err(_overridden(context, "use a context"))
    return 0


def _overridden(context: Context, what: str) -> str:
    variable = context.where.variable
    return (
        f"Warning: {variable} environment variable overrides the active context. "
        f"To {what}, either set the global --context flag, or unset {variable} environment variable."
    )


def _show(context: Context, _options: Options, _arguments: list[str]) -> int:
    out(context.where.name)
    return 0


def _use(context: Context, _options: Options, arguments: list[str]) -> int:
    name = arguments[0]
    if name != DEFAULT_CONTEXT:
        _document(context, name)
    _make_current("" if name == DEFAULT_CONTEXT else name, context)
    out(name)
    err(f'Current context is now "{name}"')
    if context.where.variable:
        err(_overridden(context, f'use "{name}"'))
    return 0


def _make_current(name: str, context: Context) -> None:
    if (context.settings.get("currentContext") or "") == name:
        return
    from sampan.cli.settings import change

    def edit(found: dict[str, Any]) -> None:
        found.pop("currentContext", None)
        if name:
            found["currentContext"] = name

    change(edit)


def _rm(context: Context, options: Options, arguments: list[str]) -> int:
    current = context.where.name
    code = 0
    for name in arguments:
        try:
            if name == DEFAULT_CONTEXT:
                raise Failure('context "default" cannot be removed')
            if name == current and not options["force"]:
                raise Failure(f'context "{name}" is in use, set -f flag to force remove')
            if not options["force"] and not os.path.exists(store.meta_folder(name)):
                raise Failure(f'context "{name}" does not exist')
            if name == current:
                _make_current("", context)
            store.remove(name)
        except Failure as error:
            err(str(error))
            code = 1
        else:
            out(name)
    return code


def _inspect(context: Context, options: Options, arguments: list[str]) -> int:
    from sampan.cli.inspect import show

    def fetch(_client: object, name: str, _size: bool) -> bytes:
        from sampan.wire import document

        found = _document(context, name)
        memory = "\\u003cIN MEMORY\\u003e"  # with Go's escapes, as Docker prints it
        absent = name == DEFAULT_CONTEXT
        places = {
            "MetadataPath": "\0" if absent else store.meta_folder(name),
            "TLSPath": "\0" if absent else store.tls_folder(name),
        }
        whole = {
            "Name": name,
            "Metadata": found.get("Metadata") or {},
            "Endpoints": found.get("Endpoints") or {},
            "TLSMaterial": store.tls_files(name),
            "Storage": places,
        }
        return document.encode(whole).replace('"\\u0000"', f'"{memory}"').encode()

    return show(None, options, arguments or [context.where.name], fetch)


def _create(context: Context, options: Options, arguments: list[str]) -> int:
    name = arguments[0]
    _new(name)
    given = _given(options)
    if given and options["from"]:
        raise Failure("cannot use --docker flag when --from is set")
    metadata: dict[str, Any] = {}
    if given:
        reach, tls = _endpoint(context, given)
        endpoints = {"docker": reach}
    else:
        source = options["from"] or context.where.name
        found = _document(context, source)
        endpoints = found.get("Endpoints") or {}
        metadata = dict(found.get("Metadata") or {})
        if source == DEFAULT_CONTEXT:
            metadata["Description"] = _DESCRIPTION
        tls = _tls(source)
    if options["description"]:
        metadata["Description"] = options["description"]
    store.save({"Name": name, "Metadata": metadata, "Endpoints": endpoints}, tls)
    out(name)
    err(f'Successfully created context "{name}"')
    return 0


def _given(options: Options) -> dict[str, str]:
    return dict(pair for pairs in options["docker"] for pair in pairs)


def _new(name: str) -> None:
    """Raise Failure unless a context may be made by that name."""
    if name == DEFAULT_CONTEXT:
        raise Failure('"default" is a reserved context name')
    store.check(name)
    if os.path.exists(os.path.join(store.meta_folder(name), "meta.json")):
        raise Failure(f'context "{name}" already exists')


def _update(context: Context, options: Options, arguments: list[str]) -> int:
    name = arguments[0]
    if name == DEFAULT_CONTEXT:
        raise Failure('"default" is a reserved context name')
    found = _document(context, name)
    metadata = dict(found.get("Metadata") or {})
    if options["description"]:
        metadata["Description"] = options["description"]
    endpoints = dict(found.get("Endpoints") or {})
    tls = None
    if options["docker"]:
        endpoints["docker"], tls = _endpoint(context, _given(options))
    store.save({**found, "Metadata": metadata, "Endpoints": endpoints}, tls)
    out(name)
    err(f'Successfully updated context "{name}"')
    return 0


def _tls(name: str) -> dict[str, dict[str, bytes]]:
    found: dict[str, dict[str, bytes]] = {}
    for place, files in store.tls_files(name).items():
        for file in files:
            with open(os.path.join(store.tls_folder(name), place, file), "rb") as source:
                found.setdefault(place, {})[file] = source.read()
    return found


def _endpoint(context: Context, given: dict[str, str]) -> tuple[dict[str, Any], dict[str, dict[str, bytes]]]:
    """The endpoint that ``--docker`` describes, and its TLS files. Raises Failure."""
    try:
        return _described(context, given)
    except Failure as error:
        raise Failure(f"unable to create docker endpoint config: {error}") from error


def _described(context: Context, given: dict[str, str]) -> tuple[dict[str, Any], dict[str, dict[str, bytes]]]:
    for key in given:
        if key not in ("from", "host", "skip-tls-verify", *store.TLS_FILES):
            raise Failure(f"unrecognized config key: {key}")
    if given.get("from"):
        return store.endpoint(_document(context, given["from"])), _tls(given["from"])
    skip = given.get("skip-tls-verify") or "false"
    from sampan.cli.values import boolean
    from sampan.wire.quoting import quoted

    try:
        unverified = boolean(skip)
    except ValueError:
        raise Failure(f"skip-tls-verify: parsing {quoted(skip)}: invalid syntax") from None
    files: dict[str, bytes] = {}
    for key, file in store.TLS_FILES.items():
        if given.get(key):
            files[file] = _pem(given[key], file)
    host = given.get("host", "")
    if host:
        try:
            Address(host)
        except Failure as error:
            raise Failure(f"unable to apply docker endpoint options: {error}") from None
    reach = {"Host": host} if host else {}
    return {**reach, "SkipTLSVerify": unverified}, {"docker": files} if files else {}


def _pem(path: str, file: str) -> bytes:
    try:
        with open(path, "rb") as source:
            data = source.read()
    except OSError as error:
        raise Failure(f"open {path}: {(error.strerror or '').lower()}") from error
    if b"-----BEGIN " not in data:
        raise Failure(
            f"invalid docker endpoint options: failed to retrieve context tls info: {file} seems invalid"
        )
    return data


def _export(context: Context, _options: Options, arguments: list[str]) -> int:
    from sampan.cli.contextfiles import export

    name = arguments[0]
    found = _document(context, name)
    target = arguments[1] if len(arguments) > 1 else f"{name}.dockercontext"
    export(found, _tls(name), target)
    if target != "-":
        err(f'Written file "{target}"')
    return 0


def _import(_context: Context, _options: Options, arguments: list[str]) -> int:
    from sampan.cli.contextfiles import load

    name, source = arguments
    _new(name)
    found, tls = load(source)
    store.save({**found, "Name": name}, tls)
    out(name)
    err(f'Successfully imported context "{name}"')
    return 0


_DESCRIBED = (
    ("", "description", "string", "Description of the context"),
    ("", "docker", "stringToString", "set the docker endpoint", "[]"),
)

COMMANDS: tuple[Command, ...] = (
    Command(
        "context create",
        "[OPTIONS] CONTEXT",
        "Create a context" + _ENDPOINT_HELP,
        _create,
        flags=(*_DESCRIBED, ("", "from", "string", "create context from a named context")),
        least=1,
        most=1,
    ),
    Command(
        "context export",
        "[OPTIONS] CONTEXT [FILE|-]",
        "Write a context to a tar archive, FILE or standard output",
        _export,
        least=1,
        most=2,
    ),
    Command(
        "context import",
        "CONTEXT FILE|-",
        "Make a context of a tar or zip file",
        _import,
        least=2,
        most=2,
    ),
    Command(
        "context inspect",
        "[OPTIONS] [CONTEXT] [CONTEXT...]",
        "Display detailed information on one or more contexts",
        _inspect,
        flags=(
            (
                "f",
                "format",
                "string",
                "How to print:\n'json':             As JSON\n'TEMPLATE':         By a Go template",
            ),
        ),
    ),
    Command(
        "context ls",
        "[OPTIONS]",
        "List contexts",
        _ls,
        flags=(
            ("", "format", "string", FORMAT_HELP),
            ("q", "quiet", "bool", "Only show context names"),
        ),
        most=0,
        aliases=("context ls", "context list"),
    ),
    Command(
        "context rm",
        "CONTEXT [CONTEXT...]",
        "Remove one or more contexts",
        _rm,
        flags=(("f", "force", "bool", "Remove a context even if it is in use"),),
        least=1,
        aliases=("context rm", "context remove"),
    ),
    Command("context show", "", "Print the name of the current context", _show, most=0),
    Command(
        "context update",
        "[OPTIONS] CONTEXT",
        "Update a context" + _ENDPOINT_HELP,
        _update,
        flags=_DESCRIBED,
        least=1,
        most=1,
    ),
    Command("context use", "CONTEXT", "Make a context the current one", _use, least=1, most=1),
)
