"""An archive that the engine sends, on its way to a file or to standard output."""

from __future__ import annotations

import os

from sampan.cli.context import write

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sampan.client.connection import Answer


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
