"""Where a copy goes and under which name: Docker's rules of ``cp``.

A path that ends in ``/`` names a directory, one that ends in ``/.`` what is in it. A symbolic link is copied
as a link unless its path ends so, or ``-L`` is given; a destination's link is always followed.
"""

from __future__ import annotations

import errno
import os
import stat

from sampan.errors import Failure

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

_LINKS_FOLLOWED = 10


class End:
    """One end of a copy, as far as it is known.

    ``rebased`` is the name that a source is to have in the archive where its path no longer shows it.
    """

    __slots__ = ("exists", "is_directory", "path", "rebased")

    def __init__(
        self, path: str, *, exists: bool = False, is_directory: bool = False, rebased: str = ""
    ) -> None:
        self.path = path
        self.exists = exists
        self.is_directory = is_directory
        self.rebased = rebased


class Placement:
    """Into which directory the archive goes, and what its top is to be called there (empty: as it is)."""

    __slots__ = ("directory", "name")

    def __init__(self, directory: str, name: str = "") -> None:
        self.directory = directory
        self.name = name


def place(source: End, target: End) -> Placement:
    """Failure when the two do not go together."""
    directory, base = split(target.path)
    if target.exists and target.is_directory:
        return Placement(target.path)
    if source.is_directory:
        if target.exists:
            raise Failure("cannot copy directory")
    elif not target.exists and says_directory(target.path):
        raise Failure("no such directory")
    return Placement(directory, base)


# ------------------------------------------------------------------ paths


def argument(text: str) -> tuple[str, str]:
    """CONTAINER and PATH; no container for a path of the host, which begins with ``/`` or ``.`` in doubt."""
    if text.startswith("/"):
        return "", text
    container, colon, path = text.partition(":")
    if not colon or container.startswith("."):
        return "", text
    return container, path


def says_contents(path: str) -> bool:
    """Whether it ends in a component ``.``."""
    return last(path) == "."


def says_directory(path: str) -> bool:
    return path.endswith("/") or says_contents(path)


def last(path: str) -> str:
    """The last component, ``.`` for none, ``/`` for the root."""
    if not path:
        return "."
    return path.rstrip("/").rpartition("/")[2] or "/"


def like(cleaned: str, original: str) -> str:
    """``cleaned`` with what the end of ``original`` says."""
    if not says_contents(cleaned) and says_contents(original):
        cleaned = cleaned.rstrip("/") + "/."
    if not cleaned.endswith("/") and original.endswith("/"):
        cleaned += "/"
    return cleaned


def absolute(path: str) -> str:
    return like(os.path.abspath(path), path)


def split(path: str) -> tuple[str, str]:
    """Directory and last component of a path, cleaned but for a last ``.``."""
    cleaned = _clean(path)
    if says_contents(path):
        return cleaned, "."
    return os.path.dirname(cleaned) or ".", last(cleaned)


def joined(link: str, target: str) -> str:
    """Where the link at ``link`` leads by its ``target``."""
    return target if target.startswith("/") else _clean(os.path.join(split(link)[0], target))


def rebased(path: str, resolved: str) -> tuple[str, str]:
    """``resolved`` with what the end of ``path`` says, and the name that ``path`` gives it if another."""
    if says_contents(path) and not says_contents(resolved):
        resolved += "/."
    if path.endswith("/") and not resolved.endswith("/"):
        resolved += "/"
    return resolved, last(path) if last(path) != last(resolved) else ""


def _clean(path: str) -> str:
    return os.path.normpath(path) if not path.startswith("//") else os.path.normpath(path)[1:]


# ------------------------------------------------------------------ ends on the host


def local_source(path: str, *, follow: bool) -> End:
    """The source at an absolute path. Failure in the words of Go's lstat."""
    if follow:
        resolved, name = rebased(path, _evaluated(path))
    else:
        head, slash, base = path.rpartition("/")
        resolved = _evaluated(head + slash) + "/" + base
        name = last(path) if path.endswith("/") and last(path) != last(resolved) else ""
    there = _told(os.lstat, "lstat", resolved)
    return End(resolved, exists=True, is_directory=stat.S_ISDIR(there.st_mode), rebased=name)


def local_target(path: str) -> End:
    """The destination at an absolute path: its links are followed; its parent must be there."""
    original, links = path, 0
    while True:
        try:
            there = os.lstat(path)
        except FileNotFoundError:
            break
        except OSError as error:
            raise _failure("lstat", path, error) from None
        if not stat.S_ISLNK(there.st_mode):
            return End(path, exists=True, is_directory=stat.S_ISDIR(there.st_mode))
        links += 1
        if links > _LINKS_FOLLOWED + 1:
            raise Failure(f"too many symlinks in {original}")
        path = joined(path, os.readlink(path))
    parent = split(path)[0]
    if not stat.S_ISDIR(_told(os.stat, "stat", parent).st_mode):
        raise Failure("not a directory")
    return End(path)


def check_output(path: str) -> None:
    """Refuse a destination on the host whose directory is missing, or that is a device."""
    directory = os.path.dirname(_clean(path)) or "."
    if directory != "." and not os.path.exists(directory):
        raise Failure(f'invalid output path: directory "{directory}" does not exist')
    try:
        mode = os.stat(path).st_mode
    except FileNotFoundError:
        return
    except OSError as error:
        raise _failure("stat", path, error) from None
    if not (stat.S_ISDIR(mode) or stat.S_ISREG(mode)):
        why = "got a device" if stat.S_ISCHR(mode) or stat.S_ISBLK(mode) else "got an irregular file"
        raise Failure(f'invalid output path: "{path}" must be a directory or a regular file: {why}')


def _evaluated(path: str) -> str:
    """The path with every link followed, all of which must be there."""
    try:
        os.stat(path)
    except FileNotFoundError:
        raise _failure("lstat", _missing(path), FileNotFoundError(errno.ENOENT, "")) from None
    except NotADirectoryError:
        raise Failure("not a directory") from None
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise Failure("EvalSymlinks: too many links") from None
        raise _failure("lstat", path, error) from None
    return os.path.realpath(path)


def _missing(path: str) -> str:
    """The first part of the path that leads nowhere."""
    walked = ""
    for part in path.strip("/").split("/"):
        walked += "/" + part
        if not os.path.lexists(walked):
            return walked
        if os.path.islink(walked) and not os.path.exists(walked):
            return _missing(joined(walked, os.readlink(walked)))
    return path


def _told(ask: Callable[[str], os.stat_result], name: str, path: str) -> os.stat_result:
    try:
        return ask(path)
    except NotADirectoryError:
        raise Failure("not a directory") from None
    except OSError as error:
        raise _failure(name, path, error) from None


def _failure(name: str, path: str, error: OSError) -> Failure:
    return Failure(f"{name} {path}: {os.strerror(error.errno or 0).lower()}")
