"""What every command's action gets: the client, standard streams, the user's settings and the program's name.

Which engine, first match wins: ``-H``; ``--context``; ``SAMPAN_HOST``; ``DOCKER_HOST``; ``DOCKER_CONTEXT``;
the current context of the configuration file; our own socket, which is what the context "default" means here.
"""

from __future__ import annotations

import os

from sampan.client.api import Client
from sampan.client.connection import Address
from sampan.errors import Failure
from sampan.wire import document

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

    from sampan.cli.command import Command, Options

PROGRAM = "sampan"
DEFAULT_HOST = "unix:///run/sampan/sampan.sock"
VARIABLES = ("SAMPAN_HOST", "DOCKER_HOST")
DEFAULT_CONTEXT = "default"


def folder() -> str:
    """The folder of the client's files, which is Docker's."""
    return os.environ.get("DOCKER_CONFIG") or os.path.join(os.path.expanduser("~"), ".docker")


def read_settings() -> dict[str, Any]:
    """The configuration file's content; empty where there is none. A file that is no JSON is warned of."""
    path = os.path.join(folder(), "config.json")
    try:
        with open(path, "rb", buffering=0) as file:
            text = file.read() or b""
        found = document.decode(text) if text.strip() else {}
        if not isinstance(found, dict):
            raise ValueError("the text is not a JSON object")
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        reason = error.strerror.lower() if isinstance(error, OSError) and error.strerror else str(error)
        err(f"WARNING: Error loading config file: {path}: {reason}")
        return {}
    return found


class Where:
    """The global flags and variables that say which engine is meant."""

    __slots__ = ("_settings", "context", "debug", "hosts", "tls")

    def __init__(self, options: Options | None = None) -> None:
        self.hosts: list[str] = options["host"] if options else []
        self.context: str = options["context"] if options else ""
        self.tls = options
        self.debug = options is not None and (options["debug"] or options["log-level"] in ("debug", "trace"))
        self._settings: dict[str, Any] | None = None
        if len(self.hosts) > 1:
            raise Failure("Specify only one -H")
        if self.hosts and self.context:
            raise Failure("conflicting options: cannot specify both --host and --context")

    @property
    def settings(self) -> dict[str, Any]:
        """The configuration file's content, read once."""
        if self._settings is None:
            self._settings = read_settings()
        return self._settings

    @property
    def variable(self) -> str:
        """The variable that names a host, if one does."""
        return next((name for name in VARIABLES if os.environ.get(name)), "")

    @property
    def name(self) -> str:
        """The name of the chosen context."""
        if self.context:
            return self.context
        if self.hosts or self.variable:
            return DEFAULT_CONTEXT
        return os.environ.get("DOCKER_CONTEXT") or self.settings.get("currentContext") or DEFAULT_CONTEXT

    @property
    def host(self) -> str:
        """The host that the context "default" stands for."""
        if self.hosts and self.hosts[0]:
            return full(self.hosts[0])
        variable = self.variable
        return full(os.environ[variable]) if variable else DEFAULT_HOST

    def address(self) -> Address:
        """Where the engine listens. Raises Failure in Docker's words."""
        name = self.name
        if name != DEFAULT_CONTEXT:
            from sampan.cli.contextstore import address_of

            return address_of(name)
        tls = None
        host = self.host
        if host.startswith("tcp:"):
            from sampan.cli.tlsflags import material

            tls = material(self.tls)
        try:
            return Address(host, tls=tls)
        except Failure as error:
            reason = str(error)
            if host.partition("://")[0] not in ("fd", "http", "npipe", "ssh", "tcp", "unix"):
                reason = f"unable to resolve docker endpoint: invalid bind address format: {host}"
            raise Failure(f"Failed to initialize: {reason}") from None


def full(host: str) -> str:
    """``host`` with its scheme; a bare path is a Unix socket, anything else bare is TCP."""
    if host.startswith("/"):
        return f"unix://{host}"
    return host if "://" in host else f"tcp://{host}"


class Context:
    """One run of the program."""

    __slots__ = ("_client", "command", "spelled", "where")

    def __init__(self, where: Where, command: Command, spelled: str) -> None:
        self.where = where
        self._client: Client | None = None
        self.command = command
        self.spelled = spelled  # the command's words as the user typed them

    @property
    def settings(self) -> dict[str, Any]:
        """The user's configuration file."""
        return self.where.settings

    @property
    def client(self) -> Client:
        """The client of the chosen engine. Our own socket's engine is started if nobody listens there."""
        if self._client is None:
            address = self.where.address()
            self._client = Client(address, absent=_start if address.text == DEFAULT_HOST else None)
            if self.where.debug:
                self._client.trace = _trace
            headers = self.settings.get("HttpHeaders")
            if headers:
                self._client.headers = {
                    name: value for name, value in headers.items() if name.lower() != "user-agent"
                }
        return self._client

    def another(self) -> Client:
        """A second client of the same daemon and version, for what goes on beside a stream."""
        client = Client(self.client.address)
        client.version = self.client.version
        client.headers = self.client.headers
        client.trace = self.client.trace
        return client


def _trace(request: str) -> None:
    err(f'level=debug msg="{request}"')


def _start(_reason: Exception) -> bool:
    from sampan.cli.ondemand import start

    return start(DEFAULT_HOST)


def out(text: str) -> None:
    """Write ``text`` and a newline to stdout at once, so that it keeps its order among streams."""
    write(1, text + "\n")


def err(text: str) -> None:
    """Write ``text`` and a newline to stderr at once."""
    write(2, text + "\n")


def write(fd: int, text: str | bytes | memoryview) -> None:
    """Write all of ``text``."""
    data = text.encode("utf-8", "surrogateescape") if isinstance(text, str) else text
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]


def each(arguments: Iterable[str], act: object, *, echo: bool = True) -> int:
    """``act(argument)`` for each; print the argument (or what ``act`` returns), report failures, go on.

    Returns the exit code: 1 when any failed.
    """
    code = 0
    for argument in arguments:
        try:
            said = act(argument)  # type: ignore[operator]
        except Failure as error:
            err(str(error))
            code = 1
        else:
            if echo:
                out(said if isinstance(said, str) else argument)
    return code
