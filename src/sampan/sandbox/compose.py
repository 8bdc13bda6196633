"""What COPY and ADD put into an image, as the archive of a layer: files of one tree, placed in another.

The visitor stands in the tree that the layer will lie over (read-only) and holds the tree that the files come
from by descriptor. The archive holds every file under the place where it is to lie, with the directories that
are missing on the way there; a link of the lower tree on the way is followed, as the kernel would.

Laws:
- No path of either tree leaves it: a source that leads out by ``..`` is refused, links are followed within.
- Equal trees and equal words give an equal content digest, whatever the times of the files are.
"""

from __future__ import annotations

import errno
import functools
import hashlib
import os
import posixpath
import re
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from sampan.errors import InvalidArgument, NotFound
from sampan.linux import process as p
from sampan.sandbox.pack import Packer, write_all, xattrs_of
from sampan.sandbox.placing import Placer
from sampan.wire import ignore, modes, tar
from sampan.wire.tar import Member

_RESOLVE = p.RESOLVE_IN_ROOT | p.RESOLVE_NO_MAGICLINKS
_LOOK = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_NOWHERE = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP)
_BLOCK = 1 << 18
_SECOND = 1_000_000_000  # ns


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """One COPY. ``target`` is absolute and ends with a slash where it names a directory; without sources it
    is a directory that is to be there.

    Files belong to ``owner`` (uid, gid); without one to whom they did (``keep_owners``) or to root. ``mode``
    replaces their own. ``parents`` keeps the sources' folders, from ``/./`` on where a source has that;
    with ``whole`` a directory is put in itself, not its contents alone; ``link`` looks at nothing below, as
    if there were nothing; ``excluded`` tells of a path of their tree whether it stays out; ``epoch``
    (seconds) is the latest time that files may have, and ``since`` the earliest that directories get which
    are made on the way: otherwise it is that of what they are made for.
    """

    sources: tuple[str, ...]
    target: str
    owner: tuple[int, int] | None = None
    mode: int | modes.Change | None = None
    parents: bool = False
    link: bool = False
    whole: bool = False
    keep_owners: bool = False
    excluded: Callable[[str], bool] = field(default=lambda _path: False)
    epoch: int | None = None
    since: int = 0


class Composer(Packer):
    """Writes the archive to ``out`` and digests what is in it. ``lower`` and ``tree`` are directories."""

    def __init__(self, out: int, lower: int, tree: int, order: Order, placer: Placer | None = None) -> None:
        """``placer`` makes the layer's directory meanwhile; it may keep files of ``tree``."""
        super().__init__(out)
        self._placer = placer
        self._lower = lower
        self._tree = tree
        self._order = order
        self._made: set[str] = {"/", ""}
        self._digest = hashlib.sha256()
        self._moment = order.since
        self._pivots: list[str] = []
        self.newest = 0
        """The latest time of a file that was put in, in seconds."""

    @property
    def digest(self) -> str:
        """Of names, kinds, owners, modes and contents; in hexadecimal."""
        return self._digest.hexdigest()

    def run(self) -> None:
        """Write it all. NotFound, InvalidArgument for sources that are not there or not allowed."""
        self._gather_all()
        self.finish()
        if self._placer is not None:
            self._placer.finish()

    def _gather_all(self) -> None:
        order = self._order
        if not order.sources:
            self._directory_at(order.target, None)
            return
        sources = list(self._sources())
        many = len(sources) > 1
        if many and not order.target.endswith("/"):
            raise InvalidArgument(
                "When using COPY with more than one source file, the destination must be a directory and end "
                "with a /"
            )
        for path in sources:
            self._source(path)

    # ------------------------------------------------------------------ sources

    def _sources(self) -> Iterator[str]:
        for source in self._order.sources:
            clean = posixpath.normpath("/" + source).lstrip("/")
            if self._order.parents and "/./" in source:
                pivot = posixpath.normpath("/" + source.partition("/./")[0]).lstrip("/")
                self._pivots.append(f"{pivot}/" if pivot else "")
            if posixpath.normpath(source).startswith(".."):
                raise InvalidArgument(f"forbidden path outside the build context: {source} ()")
            if not any(character in source for character in "*?[\\"):
                if not self._leads_somewhere(clean):
                    raise NotFound(f"file not found in build context or excluded by .dockerignore: {source}")
                yield clean
                continue
            found = [path for path in self._matching(clean) if not self._order.excluded(path)]
            if not found:
                raise NotFound(f"no source files were specified: nothing matches {source}")
            yield from found

    def _leads_somewhere(self, path: str) -> bool:
        """Whether there is something, not left out, where all links end. A folder may hold what is not."""
        there = self._stat(path)
        return there is not None and (stat.S_ISDIR(there.st_mode) or not self._order.excluded(path))

    def _stat(self, path: str) -> os.stat_result | None:
        """What lies at the end of all links."""
        try:
            fd = p.openat2(self._tree, path or ".", os.O_PATH | os.O_CLOEXEC, resolve=_RESOLVE)
        except OSError as error:
            if error.errno in _NOWHERE:
                return None
            raise
        try:
            return os.fstat(fd)
        finally:
            os.close(fd)

    def _exists(self, path: str) -> bool:
        try:
            os.close(p.openat2(self._tree, path or ".", _LOOK, resolve=_RESOLVE))
        except OSError as error:
            if error.errno in _NOWHERE:
                return False
            raise
        return True

    def _matching(self, pattern: str) -> list[str]:
        """The paths that a pattern means, sorted; its parts match one name each, but ``**`` with parents."""
        found = [""]
        for part in pattern.split("/"):
            step: list[str] = []
            for folder in found:
                step += self._matching_in(folder, part)
            found = list(dict.fromkeys(step))
        return sorted(path for path in found if path)

    def _matching_in(self, folder: str, part: str) -> list[str]:
        prefix = f"{folder}/" if folder else ""
        if not any(character in part for character in "*?[\\"):
            return [prefix + part] if self._exists(prefix + part) else []
        if part == "**" and self._order.parents:
            return [folder, *self._folders_below(folder)]
        try:
            expression = re.compile(ignore.translate(part.replace("**", "*")), re.DOTALL)
        except re.error:
            raise InvalidArgument(f"syntax error in pattern: {part}") from None
        return [prefix + name for name in self._names(folder) if expression.fullmatch(name)]

    def _folders_below(self, folder: str) -> Iterator[str]:
        for name in sorted(self._names(folder)):
            path = f"{folder}/{name}" if folder else name
            try:
                fd = p.openat2(self._tree, path, _DIRECTORY | os.O_NOFOLLOW, resolve=_RESOLVE)
            except OSError:
                continue
            os.close(fd)
            yield path
            yield from self._folders_below(path)

    def _names(self, folder: str) -> list[str]:
        try:
            fd = p.openat2(self._tree, folder or ".", _DIRECTORY, resolve=_RESOLVE)
        except OSError:
            return []
        try:
            return os.listdir(fd)
        finally:
            os.close(fd)

    def _source(self, path: str) -> None:
        order = self._order
        # The last link of a source is followed too, as in Docker; one that a pattern found may lead nowhere.
        how = os.O_CLOEXEC if self._stat(path) else os.O_CLOEXEC | os.O_NOFOLLOW
        fd = p.openat2(self._tree, path or ".", os.O_PATH | how, resolve=_RESOLVE)
        try:
            there = os.fstat(fd)
        finally:
            os.close(fd)
        # The top of a tree is as old as the engine's copy of it.
        self._moment = max(order.since, int(there.st_mtime)) if path else order.since
        target = order.target
        if order.parents:
            pivot = self._pivot(path)
            target = posixpath.join(target, posixpath.dirname(path)[len(pivot) :]) + "/"
            self._copy_parents(path, pivot)
        if stat.S_ISDIR(there.st_mode):
            place = posixpath.join(target, posixpath.basename(path)) if order.parents else target
            directory = p.openat2(self._tree, path or ".", _DIRECTORY, resolve=_RESOLVE)
            try:
                base = self._directory_at(place.rstrip("/") or "/", there if order.whole else None)
                self._contents_of(directory, base, path)
            finally:
                os.close(directory)
            return
        name = posixpath.basename(path)
        if target.endswith("/") or self._is_directory(target):
            base = self._directory_at(target.rstrip("/") or "/", None)
        else:
            base = self._directory_at(posixpath.dirname(target.rstrip("/")) or "/", None)
            name = posixpath.basename(target)
        self._put(
            lambda flags: p.openat2(self._tree, path, flags | how, resolve=_RESOLVE),
            posixpath.join(base, name),
        )

    def _pivot(self, path: str) -> str:
        """The beginning of a source's path that is not kept."""
        return max((pivot for pivot in self._pivots if path.startswith(pivot)), key=len, default="")

    def _copy_parents(self, path: str, pivot: str) -> None:
        """The source's folders, with their own modes."""
        folders = path.split("/")[:-1]
        for depth in range(len(folders)):
            folder = "/".join(folders[: depth + 1])
            if len(folder) < len(pivot):
                continue
            fd = p.openat2(self._tree, folder, _DIRECTORY, resolve=_RESOLVE)
            try:
                self._directory_at(
                    posixpath.join(self._order.target.rstrip("/") or "/", folder[len(pivot) :]), os.fstat(fd)
                )
            finally:
                os.close(fd)

    # ------------------------------------------------------------------ places

    def _directory_at(self, path: str, there: os.stat_result | None) -> str:
        """See to it that the layer or what is below has a directory at ``path``; where it really lies.

        ``there`` is the directory that it is a copy of; None for one that is only on the way.
        """
        walked = "/"
        parts = [part for part in path.split("/") if part]
        for depth, part in enumerate(parts):
            walked = self._resolved(posixpath.join(walked, part))
            if walked in self._made:
                continue
            last = depth == len(parts) - 1
            copied = there if last else None
            if copied is not None or not self._is_directory(walked):
                self._add_directory(walked, copied)
            self._made.add(walked)
        return walked

    def _resolved(self, path: str) -> str:
        """Where a path leads in the tree below, by its last link; itself if it is none."""
        if self._order.link:
            return path
        for _ in range(64):
            try:
                fd = p.openat2(self._lower, path.lstrip("/") or ".", _LOOK, resolve=_RESOLVE)
            except OSError:
                return path
            try:
                if not stat.S_ISLNK(os.fstat(fd).st_mode):
                    return path
                target = os.readlink("", dir_fd=fd)
            finally:
                os.close(fd)
            path = posixpath.normpath(posixpath.join(posixpath.dirname(path), target))
            path = "/" + path.lstrip("/")
        raise InvalidArgument(f"too many links on the way to {path}")

    def _is_directory(self, path: str) -> bool:
        if path.rstrip("/") in self._made or self._order.link:
            return path.rstrip("/") in self._made
        try:
            fd = p.openat2(self._lower, path.lstrip("/") or ".", os.O_PATH | os.O_DIRECTORY, resolve=_RESOLVE)
        except OSError:
            return False
        os.close(fd)
        return True

    # ------------------------------------------------------------------ members

    def _contents_of(self, directory: int, base: str, origin: str) -> None:
        """Everything below a directory, sorted, under ``base``; ``origin`` is its path in its own tree."""
        for name in sorted(os.listdir(directory)):
            path = f"{origin}/{name}" if origin else name
            there = os.stat(name, dir_fd=directory, follow_symlinks=False)
            skipped = self._order.excluded(path)
            place = posixpath.join(base, name)
            if not stat.S_ISDIR(there.st_mode):
                if not skipped:
                    self._put(functools.partial(_open_in, directory, name), place, (directory, name))
                continue
            fd = os.open(name, _DIRECTORY | os.O_NOFOLLOW, dir_fd=directory)
            try:
                # A directory that is left out may hold what is not: it is made when that comes.
                self._contents_of(fd, place if skipped else self._directory_at(place, there), path)
            finally:
                os.close(fd)

    def _put(self, opened: Callable[[int], int], place: str, origin: tuple[int, str] | None = None) -> None:
        """One entry that is no directory; ``opened`` opens it with flags, and never another.

        ``origin`` is where it can be linked from: a directory and a name in it.
        """
        parent = posixpath.dirname(place)
        place = posixpath.join(self._directory_at(parent, None), posixpath.basename(place))
        fd = opened(os.O_PATH)
        try:
            there = os.fstat(fd)
            link = os.fsencode(os.readlink("", dir_fd=fd)) if stat.S_ISLNK(there.st_mode) else b""
        finally:
            os.close(fd)
        name = os.fsencode(place.lstrip("/"))
        if stat.S_ISREG(there.st_mode):
            fd = opened(os.O_RDONLY | os.O_NONBLOCK)
            try:
                self._file(fd, name, origin)
            finally:
                os.close(fd)
            return
        # Devices and sockets are nobody's to put into an image.
        if stat.S_ISLNK(there.st_mode) or stat.S_ISFIFO(there.st_mode):
            kind = tar.SYMLINK if link else tar.FIFO
            self._emit(self._member_of(name, kind, there, link=link))

    def _file(self, fd: int, name: bytes, origin: tuple[int, str] | None) -> None:
        there = os.fstat(fd)
        member = self._member_of(name, tar.REGULAR, there)
        member.size = there.st_size
        member.xattrs = xattrs_of(fd)
        self._emit(member)
        placer, made = self._placer, -1
        if placer is not None and not (origin and placer.link(member, *origin, there)):
            made = placer.file(member)
        left = there.st_size
        while left:
            data = os.read(fd, min(left, _BLOCK)) or bytes(min(left, _BLOCK))
            self._digest.update(data)
            self._gather(data)
            if made >= 0:
                write_all(made, data)
            left -= len(data)
        if placer is not None and made >= 0:
            placer.close(made, member)
        self._gather(bytes(tar.padding(there.st_size)))

    def _add_directory(self, path: str, there: os.stat_result | None) -> None:
        name = os.fsencode(path.lstrip("/") + "/")
        self._emit(self._member_of(name, tar.DIRECTORY, there))

    def _member_of(
        self, name: bytes, kind: bytes, there: os.stat_result | None, *, link: bytes = b""
    ) -> Member:
        """The header, by the order's rules; ``there`` None is a directory that is only on the way."""
        order = self._order
        uid, gid = order.owner or ((there.st_uid, there.st_gid) if order.keep_owners and there else (0, 0))
        mode = 0o755 if there is None else there.st_mode & 0o7777
        if order.mode is not None and there is not None and kind != tar.SYMLINK:
            mode = modes.apply(order.mode, mode, directory=kind == tar.DIRECTORY)
        seconds = self._moment if there is None else there.st_mtime_ns // _SECOND
        seconds = seconds if order.epoch is None else min(seconds, order.epoch)
        self.newest = max(self.newest, seconds)
        return Member(name=name, kind=kind, mode=mode, uid=uid, gid=gid, mtime=seconds * _SECOND, link=link)

    def _emit(self, member: Member) -> None:
        shown = (
            member.name,
            member.kind,
            member.mode,
            member.uid,
            member.gid,
            member.size,
            member.link,
            sorted((member.xattrs or {}).items()),
        )
        self._digest.update(repr(shown).encode())
        self._gather(tar.header(member))
        if self._placer is not None and member.kind != tar.REGULAR:
            self._placer.entry(member)


def _open_in(directory: int, name: str, flags: int) -> int:
    return os.open(name, flags | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=directory)
