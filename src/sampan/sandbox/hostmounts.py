"""Mounts that are made outside the container and handed in as detached mount descriptors.

The keeper makes them as root of the host: an overlay root, the device directory and binds. With a private
user namespace each is idmapped, so that owners on disk stay what the image and the user wrote while processes
inside see them through the container's id map. Laws:

- A host mount is described by a value (``OverlayRoot``, ``DeviceDirectory``, ``Bind``) and made by ``open``,
  which returns one descriptor that the caller owns.
- No path of a container is followed here: sources are the engine's own directories or what the user named.
  A path below one of them, where a container may have put links, is opened by ``beneath``, which never leaves
  it, and then only known by its descriptor.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sampan.errors import InvalidArgument
from sampan.linux import capabilities, kernel, process
from sampan.linux import mount as m
from sampan.sandbox.messages import Neighbour, RootFilesystem
from sampan.sandbox.mountopts import Options
from sampan.sandbox.neighbours import open_tree_of

if TYPE_CHECKING:
    from sampan.spec.runtime import Device

# Never "volatile": it would skip the flush that a kept container is promised.
_OVERLAY_OPTIONS = (("redirect_dir", "off"), ("metacopy", "off"), ("index", "off"))
# Without a writable layer "off" means that redirections are followed.
_VIEW_OPTIONS = (("redirect_dir", "nofollow"), ("metacopy", "off"), ("index", "off"))

# Since this version of Linux layers are named one by one. Before, the option is refused only when the file
# system is created, together with everything else that may be wrong then.
_ONE_BY_ONE = (6, 5)

_DEVICE_LINKS = (
    ("fd", "/proc/self/fd"),
    ("stdin", "/proc/self/fd/0"),
    ("stdout", "/proc/self/fd/1"),
    ("stderr", "/proc/self/fd/2"),
    ("core", "/proc/kcore"),
    ("ptmx", "pts/ptmx"),
)
DEVICE_KINDS = {"c": stat.S_IFCHR, "u": stat.S_IFCHR, "b": stat.S_IFBLK, "p": stat.S_IFIFO}


@dataclass(frozen=True, slots=True, kw_only=True)
class IdMap:
    """A private user namespace by descriptor, and the host ids that its root has."""

    userns_fd: int
    root_uid: int
    root_gid: int


@dataclass(frozen=True, slots=True, kw_only=True)
class OverlayRoot:
    """The container's root: read-only layers below a writable directory of its own."""

    root: RootFilesystem

    def open(self, ids: IdMap | None) -> int:
        base, cloned = self.root.base, -1
        try:
            if ids is not None:
                # One clone serves layers and snapshot alike: overlayfs wants upper and work on one mount.
                cloned = m.open_tree(base)
                idmap(cloned, ids, f"the data root {base}")
                base = f"/proc/self/fd/{cloned}"
            if kernel.version() < _ONE_BY_ONE:
                return self._mount_aside(cloned, ids)
            return self._create(base, ids)
        finally:
            if cloned >= 0:
                os.close(cloned)

    def _create(self, base: str, ids: IdMap | None) -> int:
        fs_fd = m.fsopen("overlay")
        try:
            m.fsconfig_set(fs_fd, "source", "overlay")
            for lower in self.root.lowers:
                m.fsconfig_set(fs_fd, "lowerdir+", f"{base}/{lower}")
            m.fsconfig_set(fs_fd, "upperdir", f"{base}/{self.root.upper}")
            m.fsconfig_set(fs_fd, "workdir", f"{base}/{self.root.work}")
            for key, value in _OVERLAY_OPTIONS:
                m.fsconfig_set(fs_fd, key, value)
            with _acting_as_root_of(ids):
                m.fsconfig_create(fs_fd)
            return m.fsmount(fs_fd)
        finally:
            os.close(fs_fd)

    def _mount_aside(self, cloned: int, ids: IdMap | None) -> int:
        """Before Linux 6.5: one option names all layers, and only mount(2) takes more than 255 bytes of it.

        Done in a mount namespace that nobody else sees and that the caller, which is short-lived, stays in.
        Paths relative to the layers' directory keep a hundred layers within the one page that is allowed.
        """
        root = self.root
        options = [
            f"lowerdir={':'.join(root.lowers)}",
            f"upperdir={root.upper}",
            f"workdir={root.work}",
            *(f"{key}={value}" for key, value in _OVERLAY_OPTIONS),
        ]
        process.unshare(process.CLONE_NEWNS)
        m.mount("", "/", "", m.MS_REC | m.MS_PRIVATE)
        if ids is not None:
            # overlayfs refuses layers on a mount that is not in its mounter's namespace. What is mounted on a
            # shared mount, as the clone of a shared one is, is shared too and cannot become a root.
            m.move_mount(cloned, "/sys")
            m.mount("", "/sys", "", m.MS_PRIVATE)
        os.chdir(root.base if ids is None else "/sys")
        try:
            with _acting_as_root_of(ids):
                m.mount("overlay", "/sys", "overlay", 0, ",".join(options))
            fd = m.open_tree("/sys")
            for _ in range(1 if ids is None else 2):
                m.unmount("/sys", m.MNT_DETACH)
            return fd
        finally:
            os.chdir("/")


@dataclass(frozen=True, slots=True, kw_only=True)
class TreeRoot:
    """The container's root where there is no overlay: a tree of its own, which is all of it."""

    root: RootFilesystem

    def open(self, ids: IdMap | None) -> int:
        fd = m.open_tree(f"{self.root.base}/{self.root.upper}")
        try:
            m.mount_setattr(fd, propagation=m.MS_PRIVATE)
            if ids is not None:
                idmap(fd, ids, f"the data root {self.root.base}")
        except BaseException:
            os.close(fd)
            raise
        return fd


@dataclass(frozen=True, slots=True, kw_only=True)
class FuseRoot:
    """The container's root as an overlay that a program of the host makes."""

    root: RootFilesystem

    def open(self, ids: IdMap | None) -> int:
        from sampan.sandbox import fuse  # few hosts need it

        root = self.root
        if ids is not None:
            raise IdmapError("a mount of fuse-overlayfs cannot be given a container's own user ids")
        return fuse.mount(root.base, root.lowers, root.upper, root.work)


def root_mount(root: RootFilesystem) -> OverlayRoot | TreeRoot | FuseRoot:
    """How a root that is described so is put together."""
    return _ROOTS[root.kind](root=root)


_ROOTS: dict[str, type[OverlayRoot] | type[TreeRoot] | type[FuseRoot]] = {
    "": OverlayRoot,
    "tree": TreeRoot,
    "fuse": FuseRoot,
}


@contextmanager
def acting_as(uid: int, gid: int | None, *, saved: bool = False) -> Iterator[None]:
    """Have other effective ids, ``saved`` ones too if asked for, and keep the capabilities of root."""
    bits = capabilities.get_securebits()
    capabilities.set_securebits(bits | capabilities.SECBIT_NO_SETUID_FIXUP)
    try:
        if gid is not None:
            os.setresgid(-1, gid, -1)
        os.setresuid(-1, uid, uid if saved else -1)
        try:
            yield
        finally:
            os.setresuid(-1, 0, 0)
            if gid is not None:
                os.setresgid(-1, 0, -1)
    finally:
        capabilities.set_securebits(bits)


@dataclass(frozen=True, slots=True, kw_only=True)
class DirectoryRoot:
    """The container's root as it lies in a directory, with what is mounted there; its ids are the maker's."""

    path: str

    def open(self, ids: IdMap | None) -> int:
        fd = m.open_tree(self.path, recursive=True)
        m.mount_setattr(fd, propagation=m.MS_SLAVE, recursive=True)
        return fd


@contextmanager
def _acting_as_root_of(ids: IdMap | None) -> Iterator[None]:
    """Create an overlay with its mounter's ids inside the map.

    overlayfs works with the credentials of its mounter; an id without a place in the layers' map would make
    it silently read-only. The capabilities are kept through the change of ids.
    """
    if ids is None:
        yield
        return
    with acting_as(ids.root_uid, ids.root_gid):
        yield


class IdmapError(Exception):
    """The file system of a mount cannot be idmapped, or one that is mounted below it."""


def idmap(fd: int, ids: IdMap, what: str, *, recursive: bool = False) -> None:
    """Show the detached mount ``fd``, which a user calls ``what``, with the ids of ``ids``. IdmapError."""
    try:
        m.mount_setattr(fd, userns_fd=ids.userns_fd, recursive=recursive)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.EPERM):
            raise
        raise IdmapError(f"{what} cannot be given a container's own user ids") from error


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceDirectory:
    """A fresh tmpfs for /dev with its nodes and links.

    Made outside because a user namespace may not make nodes, and fresh for each container because instances
    of one tmpfs share their contents.
    """

    options: Options
    devices: tuple[Device, ...]

    def open(self, ids: IdMap | None) -> int:
        uid, gid = (ids.root_uid, ids.root_gid) if ids else (0, 0)
        data = (*self.options.data, ("uid", str(uid)), ("gid", str(gid)))
        fd = m.new_mount("tmpfs", data, self.options.attributes & ~m.MOUNT_ATTR_NODEV)
        try:
            for name, target in _DEVICE_LINKS:
                if name != "core" or os.path.exists(target):
                    os.symlink(target, name, dir_fd=fd)
            for device in self.devices:
                self._make(fd, device, uid, gid)
        except BaseException:
            os.close(fd)
            raise
        return fd

    def _make(self, fd: int, device: Device, root_uid: int, root_gid: int) -> None:
        path = os.path.normpath(device["path"])
        name = path.removeprefix("/dev/")
        if name == path or name.startswith("../"):
            raise OSError(errno.EINVAL, "device outside /dev", device["path"])
        for parent in _parents(name):
            with suppress(FileExistsError):
                os.mkdir(parent, 0o755, dir_fd=fd)
        kind = DEVICE_KINDS[device["type"]]
        number = os.makedev(device.get("major", 0), device.get("minor", 0))
        with suppress(FileExistsError):
            os.mknod(name, kind, number, dir_fd=fd)
        os.chmod(name, device.get("fileMode", 0o666) & 0o7777, dir_fd=fd)
        uid, gid = device.get("uid", 0), device.get("gid", 0)
        if root_uid or root_gid or uid or gid:
            os.chown(name, root_uid + uid, root_gid + gid, dir_fd=fd)


def _parents(name: str) -> list[str]:
    parts = name.split("/")[:-1]
    return ["/".join(parts[: i + 1]) for i in range(len(parts))]


@dataclass(frozen=True, slots=True, kw_only=True)
class Bind:
    """A copy of the mount at ``source``, a file or directory of the host, or at ``subpath`` below it.

    ``mapped``: seen through the container's id map, if it has one.
    """

    source: str
    options: Options
    subpath: str = ""
    mapped: bool = True

    def open(self, ids: IdMap | None) -> int:
        fd = self._open()
        try:
            if ids is not None and self.mapped:
                idmap(fd, ids, self.source, recursive=self.options.recursive)
            if self.options.attr_set or self.options.attr_clr:
                m.mount_setattr(
                    fd,
                    attr_set=self.options.attr_set,
                    attr_clr=self.options.attr_clr,
                    recursive=self.options.recursive_readonly,
                )
            propagation = self.options.propagation or m.MS_PRIVATE
            recursive = self.options.propagation_recursive or not self.options.propagation
            m.mount_setattr(fd, propagation=propagation, recursive=recursive)
        except BaseException:
            os.close(fd)
            raise
        return fd

    def _open(self) -> int:
        if not self.subpath:
            return m.open_tree(self.source, recursive=self.options.recursive)
        place = os.open(self.source, _PLACE)
        try:
            pinned = beneath(place, self.source, self.subpath)
        finally:
            os.close(place)
        try:
            return m.open_tree("", dir_fd=pinned, recursive=self.options.recursive)
        finally:
            os.close(pinned)


@dataclass(frozen=True, slots=True, kw_only=True)
class LayersView:
    """The merged view of two or more read-only layers (absolute paths, topmost first), or a place in it."""

    lowers: tuple[str, ...]
    subpath: str = ""

    def open(self, ids: IdMap | None) -> int:
        fd = self._merge(ids)
        if not self.subpath:
            return fd
        # A detached mount cannot be copied from before Linux 6.15: it is attached for a moment, in a mount
        # namespace that nobody else sees and that the caller, which is short-lived, stays in.
        try:
            process.unshare(process.CLONE_NEWNS)
            m.mount("", "/", "", m.MS_REC | m.MS_PRIVATE)
            m.move_mount(fd, "/sys")
            pinned = beneath(fd, "the image", self.subpath)
            try:
                return m.open_tree("", dir_fd=pinned)
            finally:
                os.close(pinned)
                m.unmount("/sys", m.MNT_DETACH)
        finally:
            os.close(fd)

    def _merge(self, ids: IdMap | None) -> int:
        base, cloned = os.path.commonpath(self.lowers), -1
        names = [os.path.relpath(lower, base) for lower in self.lowers]
        try:
            cloned = m.open_tree(base)
            if ids is not None:
                idmap(cloned, ids, f"the data root {base}")
            if kernel.version() < _ONE_BY_ONE:
                return self._merge_aside(cloned, names)
            fs_fd = m.fsopen("overlay")
            try:
                m.fsconfig_set(fs_fd, "source", "overlay")
                for name in names:
                    m.fsconfig_set(fs_fd, "lowerdir+", f"/proc/self/fd/{cloned}/{name}")
                for key, value in _VIEW_OPTIONS:
                    m.fsconfig_set(fs_fd, key, value)
                m.fsconfig_create(fs_fd)
                return m.fsmount(fs_fd, m.MOUNT_ATTR_RDONLY)
            finally:
                os.close(fs_fd)
        finally:
            if cloned >= 0:
                os.close(cloned)

    @staticmethod
    def _merge_aside(cloned: int, names: list[str]) -> int:
        """As ``OverlayRoot`` does it before Linux 6.5."""
        process.unshare(process.CLONE_NEWNS)
        m.mount("", "/", "", m.MS_REC | m.MS_PRIVATE)
        m.move_mount(cloned, "/sys")
        m.mount("", "/sys", "", m.MS_PRIVATE)
        os.chdir("/sys")
        try:
            options = [f"lowerdir={':'.join(names)}", *(f"{key}={value}" for key, value in _VIEW_OPTIONS)]
            m.mount("overlay", "/sys", "overlay", m.MS_RDONLY, ",".join(options))
            fd = m.open_tree("/sys")
            for _ in range(2):
                m.unmount("/sys", m.MNT_DETACH)
            return fd
        finally:
            os.chdir("/")


@dataclass(frozen=True, slots=True, kw_only=True)
class NeighboursMount:
    """The very mount that another container has at ``place``: its ids are those of whoever joins it."""

    neighbour: Neighbour
    place: str

    def open(self, ids: IdMap | None) -> int:
        return open_tree_of(self.neighbour, self.place)


_PLACE = os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC


def beneath(place: int, shown: str, subpath: str) -> int:
    """A descriptor of what is at ``subpath`` below the open directory ``place``, which is called ``shown``.

    Links are followed as long as they stay below. InvalidArgument in Docker's words for what is not there
    and for what leads elsewhere.
    """
    resolve = process.RESOLVE_BENEATH | process.RESOLVE_NO_MAGICLINKS
    try:
        return process.openat2(place, subpath, os.O_PATH, resolve=resolve)
    except OSError as error:
        if error.errno == errno.EXDEV:
            reason = f"path concatenation escapes the base directory, base: {shown}, subpath: {subpath}"
        else:
            reason = f"cannot access path {shown}/{subpath}: {(error.strerror or '').lower()}"
        raise InvalidArgument(reason) from error


HostMount = (
    OverlayRoot | TreeRoot | FuseRoot | DirectoryRoot | DeviceDirectory | Bind | LayersView | NeighboursMount
)
