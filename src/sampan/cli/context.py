"""What every command's action gets: the client, standard streams, and the program's own name."""

from __future__ import annotations

import os

from sampan.client.api import Client
from sampan.client.connection import Address
from sampan.errors import Failure

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from sampan.cli.command import Command

PROGRAM = "sampan"
DEFAULT_HOST = "unix:///run/sampan/sampan.sock"
VARIABLE = "SAMPAN_HOST"


def host_of(given: list[str]) -> tuple[str, bool]:
    """The daemon's address by ``-H``, then ``SAMPAN_HOST``, then the default; and whether it was chosen."""
    if len(given) > 1:
        raise Failure("Specify only one -H")
    chosen = given[0] if given else os.environ.get(VARIABLE, "")
    if not chosen:
        return DEFAULT_HOST, False
    if chosen.startswith("/"):
        return f"unix://{chosen}", True
    return chosen if "://" in chosen else f"tcp://{chosen}", True


class Context:
    """One run of the program."""

    __slots__ = ("_client", "_hosts", "command", "spelled")

    def __init__(self, hosts: list[str], command: Command, spelled: str) -> None:
        self._hosts = hosts
        self._client: Client | None = None
        self.command = command
        self.spelled = spelled  # the command's words as the user typed them

    @property
    def client(self) -> Client:
        """The client of the chosen daemon; a default daemon that is absent is started."""
        if self._client is None:
            text, chosen = host_of(self._hosts)
            self._client = Client(Address(text), absent=None if chosen else _start)
        return self._client

    def another(self) -> Client:
        """A second client of the same daemon and version, for what goes on beside a stream."""
        client = Client(self.client.address)
        client.version = self.client.version
        return client


def _start(_reason: Exception) -> bool:
    from sampan.cli.ondemand import start

    return start(DEFAULT_HOST)


def out(text: str) -> None:
    """Write ``text`` and a newline to stdout at once, so that it keeps its order among streams."""
    write(1, text + "\n")


def err(text: str) -> None:
    """Write ``text`` and a newline to stderr at once."""
    write(2, text + "\n")


def write(fd: int, text: str | bytes) -> None:
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
