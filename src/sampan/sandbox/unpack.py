"""Unpack one layer: a tar stream onto an empty directory, by descriptor, with nothing outside it in reach.

Laws:
- A member's parent is opened once by the kernel with RESOLVE_IN_ROOT: whatever links an earlier member left,
  it lies inside the layer. Its last component is never followed: it is created, or replaced.
- A later member replaces an earlier one of the same name; a directory keeps its contents under a directory.
- ``.wh.NAME`` becomes overlayfs's whiteout (a character device 0:0), ``.wh..wh..opq`` its opaque mark. They
  hide what lies below, never what this layer itself brings, in whatever order (OCI image-spec, layer.md).
- Ownership, then mode, then attributes, then times: chown takes setuid bits and file capabilities away.
  Directories get theirs at the end, so that nothing created inside inherits from them or touches them.
- A failure names the member. What was unpacked until then is the caller's to remove.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from sampan.errors import Failure, InvalidArgument
from sampan.linux import tree
from sampan.linux.process import RESOLVE_IN_ROOT, RESOLVE_NO_MAGICLINKS, openat2
from sampan.sandbox.marks import OPAQUE, WHITEOUT, WHITEOUT_META, is_whiteout, make_opaque
from sampan.sandbox.members import Refused, clean, quoted, split, translated
from sampan.sandbox.source import sparse_map
from sampan.wire import tar

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sampan.sandbox.source import Source

# An archive must not speak to the overlay file system in our name.
_DROPPED_XATTRS = ("trusted.overlay.", "user.overlay.")

_DIRECTORY_CACHE = 128  # descriptors
_CREATE = os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC
_PARENT = os.O_PATH | os.O_DIRECTORY
_OPEN_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW
_RESOLVE = RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS
_PERMISSIONS = 0o777


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What one layer may hold; 0 is no limit. ``size`` is in bytes of plain archive and of file contents,
    ``ratio`` how many times as large as its compressed archive it may be.
    """

    size: int = 0
    entries: int = 0
    ratio: int = 0

    def check(self, *, size: int, entries: int) -> None:
        """InvalidArgument for a layer that holds more."""
        if self.size and size > self.size:
            raise InvalidArgument(f"layer is larger than the limit of {self.size} bytes")
        if self.entries and entries > self.entries:
            raise InvalidArgument(f"layer has more than the limit of {self.entries} entries")


@dataclass(slots=True, kw_only=True)
class Unpacked:
    """What a layer turned out to be. ``size`` counts the bytes of its files' contents once."""

    size: int = 0
    entries: int = 0
    max_uid: int = 0
    max_gid: int = 0
    implied: list[str] = field(default_factory=list)
    """Directories that no member describes, ``.`` among them if the root is one: they are to look as in the
    layer below."""


@dataclass(slots=True, kw_only=True)
class _Directory:
    """What a directory will be given at the end."""

    mode: int
    owner: tuple[int, int] | None
    mtime: int
    xattrs: Mapping[str, bytes] | None


def unpack(source: Source, root: int, limits: Limits | None = None, *, plain_marks: bool = False) -> Unpacked:
    """Unpack the archive onto the empty directory ``root``; the process's umask must be 0.

    ``plain_marks``: what hides something stays an empty file with the archive's own name, ``.wh.NAME``.

    Raises InvalidArgument that names the bad member, or Internal where the host fails.
    """
    kind = _PlainMarks if plain_marks else Extractor
    extractor = kind(source, root, limits or Limits())
    try:
        extractor.run()
    finally:
        extractor.close()
    return extractor.result


class Extractor:
    """One archive on its way onto ``root``; ``extract.Onto`` does it onto a tree that is there already."""

    def __init__(self, source: Source, root: int, limits: Limits) -> None:
        self.source = source
        self.root = root
        self.limits = limits
        self.limited = limits.size > 0 or limits.entries > 0
        self.result = Unpacked()
        self.cache: dict[bytes, tuple[int, bytes]] = {}  # parent as written → (descriptor, clean path)
        self.retired: list[int] = []  # descriptors that left the cache while in use
        self.directories: dict[bytes, _Directory] = {}
        self.kinds = {
            tar.REGULAR: self.regular,
            tar.LINK: self.link,
            tar.SYMLINK: self.symlink,
            tar.CHARACTER: self.node,
            tar.BLOCK_DEVICE: self.node,
            tar.FIFO: self.node,
        }

    def run(self) -> None:
        """Take every member, then give the directories their final looks, then read what trails."""
        reader, source, zeros = tar.HeaderReader(), self.source, 0
        name = b""
        try:
            while zeros < 2 and (block := source.block()) is not None:
                found = reader.block(block)
                if found is None:
                    zeros += 1
                    continue
                zeros = 0
                if isinstance(found, tar.Prelude):
                    reader.prelude(source.take(found.size))
                    source.skip(tar.padding(found.size))
                    continue
                name = found.name
                self.member(found)
            name = b""
            source.finish()
            self.finish()
        except Refused:
            raise
        except (Failure, OSError) as error:
            raise self.failed(error, name) from error

    def close(self) -> None:
        """Close the cached descriptors."""
        for fd, _ in self.cache.values():
            if fd != self.root:
                os.close(fd)
        self.cache.clear()
        self.retire()

    def retire(self) -> None:
        """Close the descriptors that no member uses any more."""
        for fd in self.retired:
            os.close(fd)
        self.retired.clear()

    def member(self, member: tar.Member) -> None:
        """Bring one member into being and pass over its data's padding."""
        result, size = self.result, member.size
        result.entries += 1
        if member.uid > result.max_uid:
            result.max_uid = member.uid
        if member.gid > result.max_gid:
            result.max_gid = member.gid
        self.check_limits(size)
        head, _, base = member.name.rpartition(b"/")
        if not base or base == b"." or base == b"..":
            head, base = split(member.name)
        if member.kind == tar.DIRECTORY:
            self.directory(member, head, base)
            return
        if not base:
            raise Refused(member.name, "is not a directory, and names the root of the layer")
        parent, path = self.cache.get(head) or self.parent(head, member.name)
        if self.is_mark(base):
            self.whiteout(parent, path, base, member)
            self.source.skip(size + tar.padding(size))
            return
        create = self.kinds.get(member.kind)
        if create is None:
            raise Refused(member.name, f"unsupported type {quoted(member.kind)}")
        try:
            create(parent, base, member)
        except FileExistsError:
            self.supersede(parent, path, base, member)
        if size:
            # A sparse member's map was part of its data; blocks are counted over all of it.
            self.source.skip(tar.padding(size))

    def check_limits(self, size: int) -> None:
        """Refuse what passes the limits, before it is written."""
        result = self.result
        result.size += size
        if self.limited:
            self.limits.check(size=max(result.size, self.source.taken), entries=result.entries)

    # ------------------------------------------------------------------ kinds of members

    def regular(self, parent: int, base: bytes, member: tar.Member) -> None:
        """A file with its data. Nothing of the source is read before the file exists."""
        mode = member.mode
        fd = os.open(base, _CREATE, mode & _PERMISSIONS, dir_fd=parent)
        try:
            self.fill(fd, member)
            if (owner := self.own(member)) is not None:
                os.fchown(fd, *owner)
            if mode > _PERMISSIONS:
                os.fchmod(fd, mode)
            if member.xattrs:
                self.set_xattrs(fd, member.xattrs)
            os.utime(fd, ns=_times(member))
        finally:
            os.close(fd)

    def fill(self, fd: int, member: tar.Member) -> None:
        """Write a member's data."""
        if member.sparse is not None:
            self.write_sparse(fd, member)
        elif member.size:
            whole = self.source.here(member.size)
            for piece in self.source.pieces(member.size) if whole is None else (whole,):
                written = os.write(fd, piece)
                while written < len(piece):
                    written += os.write(fd, memoryview(piece)[written:])

    def write_sparse(self, fd: int, member: tar.Member) -> None:
        """The segments in their places; what lies between stays a hole."""
        sparse = sparse_map(self.source, member)
        self.limits.check(size=sparse.size, entries=0)
        for offset, length in sparse.segments:
            os.lseek(fd, offset, os.SEEK_SET)
            for piece in self.source.pieces(length):
                view = memoryview(piece)
                while view:
                    view = view[os.write(fd, view) :]
        os.ftruncate(fd, sparse.size)

    def link(self, parent: int, base: bytes, member: tar.Member) -> None:
        """A hard link to what an earlier member made; it shares that one's owner, mode and times."""
        head, target = split(member.link)
        if not target:
            raise Refused(member.name, "is a link to the root of the layer")
        try:
            holder = self.open_at(head, _PARENT)
            try:
                os.link(target, base, src_dir_fd=holder, dst_dir_fd=parent, follow_symlinks=False)
            finally:
                os.close(holder)
        except (FileNotFoundError, NotADirectoryError, PermissionError) as error:
            why = (
                "which is a directory" if isinstance(error, PermissionError) else "which is not in the layer"
            )
            raise Refused(member.name, f"is a link to {quoted(member.link)}, {why}") from error

    def symlink(self, parent: int, base: bytes, member: tar.Member) -> None:
        """A symbolic link. Its target is data: it is resolved in a container, under the container's root."""
        os.symlink(member.link, base, dir_fd=parent)
        self.result.size += len(member.link)  # what a link's own file holds; Docker counts it, too
        self.dress(parent, base, member)

    def node(self, parent: int, base: bytes, member: tar.Member) -> None:
        """A device or a fifo."""
        kinds = {tar.CHARACTER: stat.S_IFCHR, tar.BLOCK_DEVICE: stat.S_IFBLK, tar.FIFO: stat.S_IFIFO}
        if member.major >= 1 << 12 or member.minor >= 1 << 20:
            raise Refused(member.name, f"device number {member.major}:{member.minor} out of range")
        device = os.makedev(member.major, member.minor)
        os.mknod(base, kinds[member.kind] | member.mode & _PERMISSIONS, device, dir_fd=parent)
        self.dress(parent, base, member)

    def dress(self, parent: int, base: bytes, member: tar.Member) -> None:
        """Owner, mode, attributes and times of what cannot be opened."""
        if (owner := self.own(member)) is not None:
            os.chown(base, *owner, dir_fd=parent, follow_symlinks=False)
        if member.kind != tar.SYMLINK and member.mode > _PERMISSIONS:
            os.chmod(base, member.mode, dir_fd=parent)
        if member.xattrs:
            os.fchdir(parent)  # there is no lsetxattrat before Linux 6.13
            self.set_xattrs(base, member.xattrs)
        os.utime(base, ns=_times(member), dir_fd=parent, follow_symlinks=False)

    def directory(self, member: tar.Member, head: bytes, base: bytes) -> None:
        """A directory, for now without its looks. Over a whiteout it becomes opaque, to hide as much."""
        self.source.skip(member.size + tar.padding(member.size))
        looks = _Directory(mode=member.mode, owner=self.own(member), mtime=member.mtime, xattrs=member.xattrs)
        if not base:
            self.directories[b""] = looks
            return
        parent, path = self.cache.get(head) or self.parent(head, member.name)
        if self.is_mark(base):
            raise Refused(member.name, "is a whiteout, and a directory")
        full = path + b"/" + base if path else base
        try:
            self.make_directory(parent, base)
        except FileExistsError:
            self.merge(parent, path, base)
        self.directories[full] = looks

    def make_directory(self, parent: int, base: bytes) -> None:
        """Make a directory that a member describes. FileExistsError if there is something of its name."""
        os.mkdir(base, 0o700, dir_fd=parent)

    def merge(self, parent: int, path: bytes, base: bytes) -> None:
        """Keep the directory that is there already, or make one in the place of what is there."""
        there = os.stat(base, dir_fd=parent, follow_symlinks=False)
        if not stat.S_ISDIR(there.st_mode):
            self.replace(parent, path, base)
            os.mkdir(base, 0o700, dir_fd=parent)
            if is_whiteout(there):
                make_opaque(parent, base)

    def whiteout(self, parent: int, path: bytes, base: bytes, member: tar.Member) -> None:
        """A mark that hides something of the layers below. AUFS's own files hide nothing and are dropped."""
        if base == OPAQUE:
            make_opaque(parent, b".")
            return
        if base.startswith(WHITEOUT_META):
            return
        hidden = base[len(WHITEOUT) :]
        if hidden in (b"", b".", b".."):
            raise Refused(member.name, "is a whiteout of nothing")
        try:
            os.mknod(hidden, stat.S_IFCHR, 0, dir_fd=parent)
        except FileExistsError:
            there = os.stat(hidden, dir_fd=parent, follow_symlinks=False)
            if stat.S_ISDIR(there.st_mode):
                make_opaque(parent, hidden)

    def supersede(self, parent: int, path: bytes, base: bytes, member: tar.Member) -> None:
        """Bring a member into being, that is no directory, in the place of what has its name."""
        self.replace(parent, path, base)
        self.kinds[member.kind](parent, base, member)

    # ------------------------------------------------------------------ what a heir may see otherwise

    def failed(self, error: Failure | OSError, name: bytes) -> Failure:
        """What to raise of a failure at the member ``name``, which is empty at the archive's end."""
        if isinstance(error, OSError):
            return translated(error, name)
        return type(error)(f"archive member {quoted(name)}: {error}") if name else error

    def is_mark(self, base: bytes) -> bool:
        """Whether a member of this name says something of the layers below."""
        return base.startswith(WHITEOUT)

    def open_at(self, path: bytes, flags: int) -> int:
        """Open what lies at a clean path below the root, wherever links lead, still inside."""
        return openat2(self.root, os.fsdecode(path or b"."), flags, resolve=_RESOLVE)

    def own(self, member: tar.Member) -> tuple[int, int] | None:
        """Whom the member's file is to belong to; None leaves it to root, who makes it."""
        return (member.uid, member.gid) if member.uid or member.gid else None

    def set_xattrs(self, where: int | bytes, xattrs: Mapping[str, bytes]) -> None:
        """Set the attributes that this file system can hold on this kind of file."""
        _set_xattrs(where, xattrs)

    # ------------------------------------------------------------------ places

    def parent(self, head: bytes, name: bytes) -> tuple[int, bytes]:
        """The directory that ``head`` names, made if it is missing: (descriptor, clean path)."""
        self.retire()
        path = clean(head, name)
        fd = self.root
        if path:
            try:
                fd = self.open_at(path, _PARENT)
            except (FileNotFoundError, NotADirectoryError):
                fd = self.make_parents(path, name)
            except OSError as error:
                raise Refused(name, f"its parent: {os.strerror(error.errno or 0).lower()}") from error
        if len(self.cache) >= _DIRECTORY_CACHE:
            self.close()
        entry = self.cache[head] = (fd, path)
        return entry

    def make_parents(self, path: bytes, name: bytes) -> int:
        """Create what is missing of ``path`` and open it."""
        walked = b""
        fd = os.dup(self.root)
        for part in path.split(b"/"):
            walked = walked + b"/" + part if walked else part
            try:
                deeper = self.open_at(walked, _PARENT)
            except (FileNotFoundError, NotADirectoryError):
                try:
                    deeper = self.make_parent(fd, part)
                except OSError as error:
                    why = os.strerror(error.errno or 0).lower()
                    raise Refused(name, f"its parent {quoted(walked)}: {why}") from error
                self.result.implied.append(os.fsdecode(walked))
            finally:
                os.close(fd)
            fd = deeper
        return fd

    @staticmethod
    def make_parent(parent: int, base: bytes) -> int:
        """Create and open a directory that no member describes; instead of a whiteout it is opaque."""
        try:
            os.mkdir(base, 0o755, dir_fd=parent)
        except FileExistsError:
            there = os.stat(base, dir_fd=parent, follow_symlinks=False)
            if not is_whiteout(there):
                broken = errno.ENOENT if stat.S_ISLNK(there.st_mode) else errno.ENOTDIR
                raise OSError(broken, os.strerror(broken)) from None
            os.unlink(base, dir_fd=parent)
            os.mkdir(base, 0o755, dir_fd=parent)
            make_opaque(parent, base)
        return os.open(base, _PARENT | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=parent)

    def replace(self, parent: int, path: bytes, base: bytes) -> None:
        """Remove what has the name of a member that comes now, and forget what was known of it."""
        there = os.stat(base, dir_fd=parent, follow_symlinks=False)
        tree.remove_tree(parent, base)
        if not stat.S_ISDIR(there.st_mode) and not stat.S_ISLNK(there.st_mode):
            return
        full = path + b"/" + base if path else base
        below = full + b"/"
        for known in [d for d in self.directories if d == full or d.startswith(below)]:
            del self.directories[known]
        # Any cached name may lead through the removed one. The caller still uses its own descriptor.
        self.retired += [fd for fd, _ in self.cache.values() if fd == parent != self.root]
        for fd, _ in self.cache.values():
            if fd not in (self.root, parent):
                os.close(fd)
        self.cache.clear()

    def finish(self) -> None:
        """Give the directories their owners, modes, attributes and times."""
        self.close()
        if b"" not in self.directories:
            self.result.implied.append(".")
        for path, looks in self.directories.items():
            try:
                fd = self.open_at(path, _OPEN_DIRECTORY)
            except (FileNotFoundError, NotADirectoryError):
                continue  # replaced through another name of its parent
            try:
                if looks.owner is not None:
                    os.fchown(fd, *looks.owner)
                os.fchmod(fd, looks.mode)
                if looks.xattrs:
                    self.set_xattrs(fd, looks.xattrs)
                os.utime(fd, ns=(looks.mtime, looks.mtime))
            finally:
                os.close(fd)


class _PlainMarks(Extractor):
    """Where no overlay file system will look at the layer: marks are files, and hide nothing in it."""

    def whiteout(self, parent: int, path: bytes, base: bytes, member: tar.Member) -> None:
        if base != OPAQUE and (base.startswith(WHITEOUT_META) or base[len(WHITEOUT) :] in (b"", b".", b"..")):
            super().whiteout(parent, path, base, member)
            return
        with contextlib.suppress(FileExistsError):
            os.close(os.open(base, _CREATE, 0o600, dir_fd=parent))

    def node(self, parent: int, base: bytes, member: tar.Member) -> None:
        if member.kind == tar.CHARACTER and member.major == member.minor == 0:
            self.whiteout(parent, b"", WHITEOUT + base, member)
        else:
            super().node(parent, base, member)


def _times(member: tar.Member) -> tuple[int, int]:
    mtime = member.mtime
    return (mtime if member.atime is None else max(member.atime, mtime), mtime)


def _set_xattrs(where: int | bytes, xattrs: Mapping[str, bytes]) -> None:
    """Set the attributes that this file system can hold on this kind of file."""
    for name, value in xattrs.items():
        if name.startswith(_DROPPED_XATTRS):
            continue
        try:
            if isinstance(where, int):
                os.setxattr(where, name, value)
            else:
                os.setxattr(where, name, value, follow_symlinks=False)
        except OSError as error:
            if error.errno == errno.ENOTSUP:
                continue  # Docker passes over what the file system does not know, too
            if error.errno == errno.EPERM and name.startswith("user."):
                continue  # links and devices carry none
            raise
