"""Writing Docker's ``config.json``: one change at a time, atomically, and what we do not know is kept.

Law: a reader sees the file as it was or as it will be. A symbolic link stays one; mode and owner stay.
"""

from __future__ import annotations

import os

from sampan.cli.context import folder
from sampan.errors import Failure

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any


def change(edit: Callable[[dict[str, Any]], None]) -> None:
    """Let ``edit`` change the file's content; makes the file where there is none. Raises Failure."""
    import json

    path = os.path.realpath(os.path.join(folder(), "config.json"))
    try:
        with open(path, "rb") as file:
            found = json.load(file)
            before = os.fstat(file.fileno())
    except FileNotFoundError:
        found, before = {}, None
    except (OSError, ValueError) as error:
        raise Failure(f"Error loading config file: {path}: {error}") from error
    found.setdefault("auths", {})
    edit(found)
    write(path, json.dumps(found, indent="\t", sort_keys=True, ensure_ascii=False).encode(), before)


def write(path: str, data: bytes, before: os.stat_result | None = None, *, mode: int = 0o600) -> None:
    """Put ``data`` in the file ``path`` at once, with the mode of ``before`` or ``mode``. Raises Failure."""
    unfinished = f"{path}.{os.getpid()}"
    try:
        mask = os.umask(0o077 if mode == 0o600 else 0o022)
        try:
            os.makedirs(os.path.dirname(path), exist_ok=True)
        finally:
            os.umask(mask)
        fd = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            with open(fd, "wb") as file:
                file.write(data)
                os.fchmod(fd, before.st_mode & 0o777 if before else mode)
                if before is not None and (before.st_uid, before.st_gid) != (os.geteuid(), os.getegid()):
                    os.fchown(fd, before.st_uid, before.st_gid)
            os.rename(unfinished, path)
        except BaseException:
            os.unlink(unfinished)
            raise
    except OSError as error:
        raise Failure(f"Error saving config file: {path}: {error.strerror}") from error
