"""Archives on their way between the engine and a file, or the standard streams."""

from __future__ import annotations

import os

from sampan.cli.command import Exit
from sampan.cli.context import write
from sampan.errors import Failure

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from sampan.client.api import Client
    from sampan.client.connection import Answer

_PIECE = 1 << 17


def deliver(answer: Answer, path: str) -> None:
    """Write the body to the file ``path``, which has its name once it is complete; "" is standard output."""
    if not path:
        for piece in answer.pieces():
            write(1, piece)
        return
    folder, name = os.path.split(os.path.abspath(path))
    temporary = os.path.join(folder, f".tmp-{name}{os.getpid()}")
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        try:
            for piece in answer.pieces():
                write(fd, piece)
        finally:
            os.close(fd)
        os.rename(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise


def not_to_a_terminal(path: str) -> None:
    """Raise Exit if an archive would go to standard output ("") and that is a terminal."""
    if not path and os.isatty(1):
        raise Exit(1, "cowardly refusing to save to a terminal. Use the -o flag or redirect")


def hand_in(client: Client, path: str, source: str) -> None:
    """Send the archive in the file ``source``, "-" for standard input, by POST to ``path``."""
    if source == "-" and os.isatty(0):
        raise Exit(1, "requested import from stdin, but stdin is a terminal")
    try:
        fd = 0 if source == "-" else os.open(source, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise Failure(f"open {source}: {os.strerror(error.errno or 0).lower()}") from error
    answer = client.upload(path, None, _pieces(fd), kind="application/x-tar")
    answer.read()
    client.release(answer)


def _pieces(fd: int) -> Iterator[bytes]:
    while piece := os.read(fd, _PIECE):
        yield piece
