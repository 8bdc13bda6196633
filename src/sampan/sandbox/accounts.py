"""Who a container's process runs as: Docker's USER syntax against the container's own passwd and group files.

Syntax: ``""``, ``name``, ``uid``, each with an optional ``:group`` or ``:gid``. Laws:
- A number is an id, never a name; an id needs no entry in any file.
- The first matching line of a file counts.
- Memberships listed in the group file are taken only while no group is asked for by name or number.
- The primary group is always one of the supplementary groups, so that dropping it cannot gain access.

The files belong to the container and may be anything: they are read inside its root, only if they are regular
files and up to a bound, and a line that has no valid number where one belongs is no entry.

Sources: docker run --user and --group-add, passwd(5), group(5).
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from sampan.errors import InvalidArgument
from sampan.linux import process

MAXIMUM_ID = (1 << 31) - 1
MAXIMUM_FILE_SIZE = 4 << 20
_AT_FDCWD = -100


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """``groups`` are the supplementary group ids, ``gid`` first; ``name`` is empty without an entry."""

    uid: int
    gid: int
    groups: tuple[int, ...]
    home: str = "/"
    name: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class User:
    """A line of the passwd file."""

    name: str
    uid: int
    gid: int
    home: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """A line of the group file."""

    name: str
    gid: int
    members: tuple[str, ...]


def resolve(
    user: str,
    group_add: Sequence[str] = (),
    *,
    passwd_path: str = "/etc/passwd",
    group_path: str = "/etc/group",
) -> Account:
    """The account that ``user`` and ``--group-add`` name in the current root.

    A missing file is an empty one. Raises ``InvalidArgument`` in Docker's words.
    """
    return find_account(user, group_add, passwd=_read(passwd_path), group=_read(group_path))


def home_of(uid: int, *, passwd_path: str = "/etc/passwd") -> str:
    """The home directory of a number in the current root; "/" for one without an entry."""
    return next((line.home for line in parse_passwd(_read(passwd_path)) if line.uid == uid), "") or "/"


def find_account(user: str, group_add: Sequence[str], *, passwd: bytes, group: bytes) -> Account:
    """As ``resolve``, with the contents of the two files."""
    user_part, _, rest = user.partition(":")
    group_part = rest.partition(":")[0]
    entry = _find_user(user_part, passwd)
    groups: list[int] = []
    if group_part:
        gid = _find_group(group_part, group)
    else:
        gid = entry.gid
        if entry.name:
            groups = [line.gid for line in parse_group(group) if entry.name in line.members]
    groups += [_find_additional_group(name, group) for name in group_add]
    return Account(
        uid=entry.uid,
        gid=gid,
        groups=tuple(dict.fromkeys((gid, *groups))),
        home=entry.home or "/",
        name=entry.name,
    )


def parse_passwd(data: bytes) -> Iterator[User]:
    """The valid lines of a passwd file."""
    for fields in _lines(data):
        fields += [""] * (6 - len(fields))
        uid, gid = _identifier(fields[2]), _identifier(fields[3])
        if uid is not None and gid is not None:
            yield User(name=fields[0], uid=uid, gid=gid, home=fields[5])


def parse_group(data: bytes) -> Iterator[Group]:
    """The valid lines of a group file."""
    for fields in _lines(data):
        fields += [""] * (4 - len(fields))
        gid = _identifier(fields[2])
        if gid is not None:
            yield Group(name=fields[0], gid=gid, members=tuple(fields[3].split(",")))


def _lines(data: bytes) -> Iterator[list[str]]:
    for line in data.splitlines():
        line = line.strip()
        if line and not line.startswith(b"#"):
            yield line.decode("utf-8", "surrogateescape").split(":")


def _identifier(text: str) -> int | None:
    """A valid id written in decimal, or None."""
    number = _number(text)
    return number if number is not None and 0 <= number <= MAXIMUM_ID else None


def _number(text: str) -> int | None:
    """An integer of at most 64 bits as Docker reads it: an optional sign and ASCII digits."""
    digits = text[1:] if text[:1] in ("+", "-") else text
    if not digits or len(digits) > 20 or not digits.isascii() or not digits.isdigit():
        return None
    number = int(text)
    return number if -(1 << 63) <= number < 1 << 63 else None


def _checked(number: int) -> int:
    if not 0 <= number <= MAXIMUM_ID:
        raise InvalidArgument(f"uids and gids must be in range 0-{MAXIMUM_ID}")
    return number


def _find_user(text: str, passwd: bytes) -> User:
    number = _number(text) if text else 0
    for entry in parse_passwd(passwd):
        if (entry.uid == number) if number is not None else (entry.name == text):
            return entry
    if number is None:
        raise InvalidArgument(f"unable to find user {text}: no matching entries in passwd file")
    return User(name="", uid=_checked(number), gid=0, home="")


def _find_group(text: str, group: bytes) -> int:
    number = _number(text)
    if number is not None:
        return _checked(number)
    for entry in parse_group(group):
        if entry.name == text:
            return entry.gid
    raise InvalidArgument(f"unable to find group {text}: no matching entries in group file")


def _find_additional_group(text: str, group: bytes) -> int:
    """``--group-add``: unlike in USER, a group may have a number for its name."""
    for entry in parse_group(group):
        if entry.name == text or str(entry.gid) == text:
            return entry.gid
    return _find_group(text, b"")


def _read(path: str) -> bytes:
    """The regular file at ``path``; empty if there is none. Raises ``InvalidArgument`` for one too large.

    Opening does not wait for a writer of a FIFO, and goes through no /proc/*/fd link, which would reach what
    the runtime itself has open.
    """
    try:
        fd = process.openat2(
            _AT_FDCWD,
            path,
            os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY,
            resolve=process.RESOLVE_NO_MAGICLINKS,
        )
    except OSError:
        return b""
    try:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            return b""
        parts: list[bytes] = []
        size = 0
        while part := os.read(fd, 1 << 16):
            size += len(part)
            if size > MAXIMUM_FILE_SIZE:
                raise InvalidArgument(f"{path} in the container is larger than {MAXIMUM_FILE_SIZE} bytes")
            parts.append(part)
        return b"".join(parts)
    except OSError:
        return b""
    finally:
        os.close(fd)
