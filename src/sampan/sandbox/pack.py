"""A directory tree as a tar stream, by descriptor: for copies, exports and layers.

Laws:
- Equal trees give equal bytes: names are sorted, times are whole seconds (as Docker writes them), and neither
  inode numbers nor the names of users get in.
- No symbolic link is followed and nothing but a regular file is read, whatever a process that shares the tree
  puts in its place meanwhile: what is opened is looked at first, and opening it waits for nobody. What
  vanishes is left out; a file that shrinks is filled up with zeros, one that grows is cut at the size that
  its header promised.
- Depth and size of the tree cost no descriptors: a directory far up is closed and found again by ``..``.
- With ``overlay`` the tree is an upper directory and becomes a layer (OCI image-spec, layer.md): a whiteout
  becomes ``.wh.NAME``, an opaque directory gets ``.wh..wh..opq``.
- Sockets are left out: tar has no word for them.
"""

from __future__ import annotations

import errno
import os
import stat
from contextlib import suppress
from dataclasses import dataclass

from sampan.sandbox.marks import OPAQUE, OPAQUE_XATTR, WHITEOUT, is_whiteout
from sampan.wire import tar
from sampan.wire.tar import Member, Sparse

_KEPT_XATTRS = ("security.capability", "user.", "system.posix_acl_")
_OVERLAY_XATTRS = ("user.overlay.",)

_FLUSH = 1 << 18  # bytes gathered before a write
_SMALL = 1 << 16  # a file up to this size is read whole and gathered
_HOLES_WORTH_A_MAP = 1 << 20  # bytes: sparse archives are not read by every tool
_OPEN_DIRECTORIES = 64

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_NODES = {
    stat.S_IFCHR: tar.CHARACTER,
    stat.S_IFBLK: tar.BLOCK_DEVICE,
    stat.S_IFIFO: tar.FIFO,
}
_ZEROS = bytes(tar.BLOCK)
_SECOND = 1_000_000_000  # ns


@dataclass(frozen=True, slots=True, kw_only=True)
class Style:
    """``overlay``: the tree is an upper directory. ``sparse``: large holes become a map instead of zeros.
    ``latest``: no time is later, in ns.
    """

    overlay: bool = False
    sparse: bool = False
    latest: int | None = None


class Packer:
    """Writes one archive to the descriptor ``out``. OSError when the host fails or the reader went away."""

    def __init__(self, out: int, style: Style | None = None) -> None:
        self._out = out
        self._style = style or Style()
        self._pieces: list[bytes] = []
        self._gathered = 0
        self._links: dict[tuple[int, int], bytes] = {}

    def tree(self, directory: int, name: bytes | None, prefix: bytes) -> None:
        """Add all below ``directory``, with names that begin with ``prefix``, sorted at each level.

        ``name`` is the directory's own, None leaves it out. The descriptor stays the caller's.
        """
        fd = os.open(".", _DIRECTORY, dir_fd=directory)  # an offset of its own
        if name is not None:
            self._directory(fd, name, prefix)
        self._walk(fd, prefix)

    def file(self, parent: int, base: bytes, name: bytes) -> None:
        """Add what is not a directory: ``base`` in ``parent``, under ``name``."""
        self._member(parent, base, name, os.stat(base, dir_fd=parent, follow_symlinks=False))

    def finish(self) -> None:
        """End the archive."""
        self._gather(tar.END)
        self._flush()

    # ------------------------------------------------------------------ the walk

    def _walk(self, fd: int, prefix: bytes) -> None:
        levels = [_Level(fd, prefix)]
        opened = 1
        try:
            while levels:
                level = levels[-1]
                if not level.names:
                    levels.pop()
                    if levels and levels[-1].fd < 0:
                        levels[-1].reopen(level.fd)
                    else:
                        opened -= 1
                    os.close(level.fd)
                    continue
                base = level.names.pop()
                deeper = self._entry(level.fd, base, level.prefix + base, is_file=base in level.files)
                if deeper < 0:
                    continue
                levels.append(_Level(deeper, level.prefix + base + b"/"))
                if opened < _OPEN_DIRECTORIES:
                    opened += 1
                else:
                    levels[-1 - _OPEN_DIRECTORIES].close()
        finally:
            for level in levels:
                level.close()

    def _entry(self, parent: int, base: bytes, name: bytes, *, is_file: bool) -> int:
        """Add one entry; for a directory the descriptor to go on with, else -1.

        What was a regular file when it was listed is opened at once, and looked at through its descriptor.
        """
        if is_file and (fd := _try_open(parent, base)) >= 0:
            self._opened(fd, name)
            return -1
        try:
            there = os.stat(base, dir_fd=parent, follow_symlinks=False)
            if not stat.S_ISDIR(there.st_mode):
                self._member(parent, base, name, there)
                return -1
            fd = os.open(base, _DIRECTORY, dir_fd=parent)
        except OSError as error:
            if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ESTALE):
                return -1  # removed, or replaced, since it was listed
            raise
        self._directory(fd, name + b"/", name + b"/")
        return fd

    # ------------------------------------------------------------------ kinds of members

    def _directory(self, fd: int, name: bytes, prefix: bytes) -> None:
        there = os.fstat(fd)
        member = self._described(name, tar.DIRECTORY, there)
        names = _listed(fd)
        member.xattrs = _xattrs(fd, names)
        self._gather(tar.header(member))
        if self._style.overlay and OPAQUE_XATTR in names and os.getxattr(fd, OPAQUE_XATTR) == b"y":
            mark = self._described(prefix + OPAQUE, tar.REGULAR, there)
            mark.mode &= 0o777
            self._gather(tar.header(mark))

    def _member(self, parent: int, base: bytes, name: bytes, there: os.stat_result) -> None:
        if self._style.overlay and base == OPAQUE:
            return  # fuse-overlayfs's, which has set the attribute as well
        if self._style.overlay and is_whiteout(there):
            # Before links: one node serves for all whiteouts.
            mark = self._described(name[: len(name) - len(base)] + WHITEOUT + base, tar.REGULAR, there)
            mark.mode = 0o600
            self._gather(tar.header(mark))
            return
        if there.st_nlink > 1 and self._linked(there, name):
            return
        if stat.S_ISREG(there.st_mode):
            self._opened(os.open(base, _FILE, dir_fd=parent), name)
            return
        member = self._described(name, tar.SYMLINK, there)
        if stat.S_ISLNK(there.st_mode):
            member.link = os.readlink(base, dir_fd=parent)
        elif kind := _NODES.get(stat.S_IFMT(there.st_mode)):
            member.kind = kind
            member.major, member.minor = os.major(there.st_rdev), os.minor(there.st_rdev)
        else:
            return
        self._remember(there, name)
        self._gather(tar.header(member))

    def _linked(self, there: os.stat_result, name: bytes) -> bool:
        """Add one more name of what is in the archive already; False if it is not."""
        known = self._links.get((there.st_dev, there.st_ino))
        if known is None:
            return False
        member = self._described(name, tar.LINK, there)
        member.link = known
        self._gather(tar.header(member))
        return True

    def _remember(self, there: os.stat_result, name: bytes) -> None:
        if there.st_nlink > 1:
            self._links[there.st_dev, there.st_ino] = name

    def _opened(self, fd: int, name: bytes) -> None:
        """Add a regular file by its descriptor, which is closed; anything else has been put in its place."""
        try:
            there = os.fstat(fd)
            if not stat.S_ISREG(there.st_mode):
                return
            if there.st_nlink > 1:
                if self._linked(there, name):
                    return
                self._remember(there, name)
            member = self._described(name, tar.REGULAR, there)
            if names := _listed(fd):
                member.xattrs = _xattrs(fd, names)
            size = member.size = there.st_size
            holes = size - there.st_blocks * 512
            if self._style.sparse and holes > _HOLES_WORTH_A_MAP:
                self._sparse(fd, member)
            elif size <= _SMALL:
                # Read first: where it fails, there is no header yet.
                data = _read_up_to(fd, size) if size else b""
                self._gather(tar.header(member) + data + _ZEROS[: tar.padding(size)])
            else:
                self._gather(tar.header(member))
                self._contents(fd, size)
                self._gather(bytes(tar.padding(size)))
        finally:
            os.close(fd)

    def _sparse(self, fd: int, member: Member) -> None:
        segments = tuple(_segments(fd, member.size))
        member.sparse = Sparse(size=member.size, segments=segments)
        plan = tar.sparse_plan(member.sparse)
        member.size = len(plan) + sum(length for _, length in segments)
        self._gather(tar.header(member) + plan)
        for offset, length in segments:
            os.lseek(fd, offset, os.SEEK_SET)
            self._contents(fd, length)
        self._gather(bytes(tar.padding(member.size)))

    def _contents(self, fd: int, size: int) -> None:
        """``size`` bytes from where ``fd`` stands, zeros where it has no more."""
        self._flush()
        left = size
        while left:
            try:
                sent = os.sendfile(self._out, fd, None, left)
            except OSError as error:
                if error.errno not in (errno.EINVAL, errno.ENOSYS, errno.EOVERFLOW):
                    raise
                data = os.read(fd, min(left, _FLUSH))
                write_all(self._out, data)
                sent = len(data)
            if not sent:
                break
            left -= sent
        while left:
            piece = bytes(min(left, _FLUSH))
            write_all(self._out, piece)
            left -= len(piece)

    def _described(self, name: bytes, kind: bytes, there: os.stat_result) -> Member:
        return Member(
            name=name,
            kind=kind,
            mode=there.st_mode & 0o7777,
            uid=there.st_uid,
            gid=there.st_gid,
            mtime=self._time(there),
        )

    def _time(self, there: os.stat_result) -> int:
        time, latest = there.st_mtime_ns, self._style.latest
        return (time if latest is None else min(time, latest)) // _SECOND * _SECOND

    # ------------------------------------------------------------------ output

    def _gather(self, data: bytes) -> None:
        self._pieces.append(data)
        self._gathered += len(data)
        if self._gathered >= _FLUSH:
            self._flush()

    def _flush(self) -> None:
        if self._pieces:
            data = b"".join(self._pieces)
            self._pieces.clear()
            self._gathered = 0
            write_all(self._out, data)


class _Level:
    """A directory on the way from the top to where the walk is; ``names`` are still to be visited.

    ``files`` were regular ones when it was listed: the directory says so itself.
    """

    __slots__ = ("fd", "files", "identity", "names", "prefix")

    def __init__(self, fd: int, prefix: bytes) -> None:
        self.fd = fd
        self.prefix = prefix
        there = os.fstat(fd)
        self.identity = (there.st_dev, there.st_ino)
        with os.scandir(fd) as entries:
            found = {os.fsencode(entry.name): entry.is_file(follow_symlinks=False) for entry in entries}
        self.names = sorted(found, reverse=True)
        self.files = {name for name, is_file in found.items() if is_file and name != OPAQUE}

    def close(self) -> None:
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1

    def reopen(self, child: int) -> None:
        """Come back from ``child``. OSError if the child was moved elsewhere meanwhile."""
        fd = os.open("..", _DIRECTORY, dir_fd=child)
        there = os.fstat(fd)
        if (there.st_dev, there.st_ino) != self.identity:
            os.close(fd)
            raise OSError(errno.ESTALE, os.strerror(errno.ESTALE), os.fsdecode(self.prefix))
        self.fd = fd


def _try_open(parent: int, base: bytes) -> int:
    """A file by descriptor; -1 where that fails: something else may lie there by now."""
    try:
        return os.open(base, _FILE, dir_fd=parent)
    except OSError:
        return -1


def write_all(fd: int, data: bytes) -> None:
    """Write all of ``data``."""
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]


def _listed(fd: int) -> list[str]:
    try:
        return os.listxattr(fd)
    except OSError as error:
        if error.errno in (errno.ENOTSUP, errno.EPERM, errno.EACCES):
            return []
        raise


def xattrs_of(fd: int) -> dict[str, bytes] | None:
    """Those of an open file that a copy is to have."""
    return _xattrs(fd, _listed(fd))


def _xattrs(fd: int, names: list[str]) -> dict[str, bytes] | None:
    """Those that a copy is to have: capabilities, access lists and the user's own."""
    kept: dict[str, bytes] = {}
    for name in names:
        if name.startswith(_KEPT_XATTRS) and not name.startswith(_OVERLAY_XATTRS):
            with suppress(OSError):  # taken away meanwhile, or not ours to read
                kept[name] = os.getxattr(fd, name)
    return kept or None


def _read_up_to(fd: int, size: int) -> bytes:
    """``size`` bytes, filled up with zeros."""
    data = os.read(fd, size)
    while len(data) < size and (more := os.read(fd, size - len(data))):
        data += more
    return data.ljust(size, b"\0")


def _segments(fd: int, size: int) -> list[tuple[int, int]]:
    """Where a file holds data, as (offset, length); the last one ends at its size, as GNU tar writes it."""
    found: list[tuple[int, int]] = []
    at = 0
    while at < size:
        try:
            start = os.lseek(fd, at, os.SEEK_DATA)
        except OSError as error:
            if error.errno != errno.ENXIO:
                raise
            break
        if start >= size:
            break
        at = min(os.lseek(fd, start, os.SEEK_HOLE), size)
        found.append((start, at - start))
    if not found or at < size:
        found.append((size, 0))
    return found
