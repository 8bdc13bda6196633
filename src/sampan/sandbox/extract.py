"""Extract a tar stream onto a tree that is there already: what ``cp`` into a container does, and out of one.

Laws, beside those of ``unpack``:
- Directories merge, all else replaces what has its name; with ``keep_kinds`` a directory never gives way to
  something else, nor something else to a directory. The target itself keeps its own looks.
- Links of the tree are followed as its own processes would follow them: from ``anchor``, its root, and never
  out of it. Names starting with ``.wh.`` are names like any other.
- A file that cannot be replaced because something is mounted on it is written in place.
"""

from __future__ import annotations

import errno
import os
import stat
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sampan.errors import Failure, InvalidArgument, of_host
from sampan.linux import roomy
from sampan.linux.process import RESOLVE_IN_ROOT, RESOLVE_NO_MAGICLINKS, openat2
from sampan.sandbox.members import quoted
from sampan.sandbox.unpack import Extractor, Limits
from sampan.wire import tar

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sampan.sandbox.source import Source

_IN_PLACE = os.O_WRONLY | os.O_TRUNC | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_RESOLVE = RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """Where to: the directory ``fd``, which is ``path`` (clean) below the root ``anchor``.

    ``shown`` is what messages call it, its path if empty.
    """

    fd: int
    anchor: int
    path: bytes
    shown: bytes = b""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """``owner``: whom everything is to belong to; None: whom the archive says. ``chown``: whether at all.

    ``nodes``: devices are refused where they cannot be made; otherwise they are left out, as Docker does in
    a user namespace. ``top``: the archive's own top directory says what the target looks like. ``rename``:
    what every name begins with, and what it is to begin with. ``roomy``: new directories of the target itself
    are made as ``linux.roomy`` does, which is for a target that nobody has placed with thought.
    """

    keep_kinds: bool = False
    rename: tuple[bytes, bytes] | None = None
    owner: tuple[int, int] | None = None
    chown: bool = True
    nodes: bool = True
    top: bool = False
    roomy: bool = False


class _KindsDiffer(InvalidArgument):
    """A directory and something else want the same name."""


def extract(source: Source, target: Target, rules: Rules) -> None:
    """Extract the archive; the process's umask must be 0.

    Raises InvalidArgument that names the bad member, or Internal where the host fails. What was written until
    then stays.
    """
    onto = Onto(source, target, rules)
    try:
        onto.run()
    finally:
        onto.close()


class Onto(Extractor):
    """See ``extract``."""

    def __init__(self, source: Source, target: Target, rules: Rules) -> None:
        super().__init__(source, target.fd, Limits())
        self.target = target
        self.rules = rules
        self.roomy = rules.roomy and roomy.helps(target.fd)

    def is_mark(self, base: bytes) -> bool:
        return False

    def open_at(self, path: bytes, flags: int) -> int:
        whole = self.target.path + b"/" + path if path else self.target.path
        return openat2(self.target.anchor, os.fsdecode(whole), flags, resolve=_RESOLVE)

    def own(self, member: tar.Member) -> tuple[int, int] | None:
        if not self.rules.chown:
            return None
        return self.rules.owner or (member.uid, member.gid)

    def set_xattrs(self, where: int | bytes, xattrs: Mapping[str, bytes]) -> None:
        for name, value in xattrs.items():
            try:
                super().set_xattrs(where, {name: value})
            except PermissionError:
                continue  # a user who may not; Docker passes over it, too

    def member(self, member: tar.Member) -> None:
        if self.rules.rename is not None:
            member.name = _renamed(member.name, *self.rules.rename)
            if member.kind == tar.LINK:
                member.link = _renamed(member.link, *self.rules.rename)
        super().member(member)

    def directory(self, member: tar.Member, head: bytes, base: bytes) -> None:
        super().directory(member, head, base)
        if not base and not self.rules.top:
            del self.directories[b""]

    def make_directory(self, parent: int, base: bytes) -> None:
        if self.roomy and parent == self.root:
            roomy.make_directory(base, 0o700, parent)
        else:
            super().make_directory(parent, base)

    def merge(self, parent: int, path: bytes, base: bytes) -> None:
        there = os.stat(base, dir_fd=parent, follow_symlinks=False)
        if stat.S_ISDIR(there.st_mode):
            return
        if self.rules.keep_kinds:
            raise self.refusal("cannot overwrite non-directory", "with directory", path, base)
        self.replace(parent, path, base)
        os.mkdir(base, 0o700, dir_fd=parent)

    def supersede(self, parent: int, path: bytes, base: bytes, member: tar.Member) -> None:
        there = os.stat(base, dir_fd=parent, follow_symlinks=False)
        if stat.S_ISDIR(there.st_mode) and self.rules.keep_kinds:
            raise self.refusal("cannot overwrite directory", "with non-directory", path, base)
        make = self.kinds[member.kind]
        try:
            self.replace(parent, path, base)
        except OSError as error:
            if error.errno != errno.EBUSY or make != self.regular or not stat.S_ISREG(there.st_mode):
                raise
            self.overwrite(parent, base, member)
        else:
            make(parent, base, member)

    def overwrite(self, parent: int, base: bytes, member: tar.Member) -> None:
        """Write a file that must keep its inode."""
        fd = os.open(base, _IN_PLACE, dir_fd=parent)
        try:
            if not stat.S_ISREG(os.fstat(fd).st_mode):
                raise OSError(errno.EBUSY, os.strerror(errno.EBUSY))
            self.fill(fd, member)
            os.fchmod(fd, member.mode)
        finally:
            os.close(fd)

    def node(self, parent: int, base: bytes, member: tar.Member) -> None:
        try:
            super().node(parent, base, member)
        except PermissionError:
            if self.rules.nodes:
                raise

    def refusal(self, what: str, by: str, path: bytes, base: bytes) -> InvalidArgument:
        """Docker's words for two kinds that do not go together."""
        top = (self.target.shown or self.target.path).rstrip(b"/")
        where = top + b"/" + (path + b"/" + base if path else base)
        return _KindsDiffer(f"{what} {quoted(where)} {by} {quoted(top or b'/')}")

    def failed(self, error: Failure | OSError, name: bytes) -> Failure:
        if isinstance(error, Failure):
            return error if isinstance(error, _KindsDiffer) else super().failed(error, name)
        where = f"archive member {quoted(name)}: " if name else ""
        if (host := of_host(OSError(error.errno, ""))) is not None:
            return type(host)(where + str(host))
        return InvalidArgument(where + os.strerror(error.errno or 0).lower())


def _renamed(name: bytes, old: bytes, new: bytes) -> bytes:
    return new + name[len(old) :] if name.startswith(old) else name
