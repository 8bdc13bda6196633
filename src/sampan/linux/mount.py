"""Mounts, by the classic calls and by the descriptor-based ones (mount(2), open_tree(2), fsopen(2)).

Every function that returns an int returns a descriptor with close-on-exec set, owned by the caller.
"""

from __future__ import annotations

import ctypes
import os

from sampan.linux import libc
from sampan.linux.libc import check, syscall

MS_RDONLY, MS_NOSUID, MS_NODEV, MS_NOEXEC, MS_REMOUNT = 1, 2, 4, 8, 32
MS_BIND, MS_REC, MS_PRIVATE, MS_SLAVE, MS_SHARED = 4096, 16384, 1 << 18, 1 << 19, 1 << 20
MS_UNBINDABLE = 1 << 17
MNT_DETACH = 2

AT_FDCWD = -100
AT_EMPTY_PATH, AT_RECURSIVE, AT_SYMLINK_NOFOLLOW = 0x1000, 0x8000, 0x100
OPEN_TREE_CLONE, OPEN_TREE_CLOEXEC = 1, os.O_CLOEXEC
MOVE_MOUNT_F_EMPTY_PATH, MOVE_MOUNT_T_SYMLINKS, MOVE_MOUNT_T_EMPTY_PATH = 0x4, 0x10, 0x40

MOUNT_ATTR_RDONLY, MOUNT_ATTR_NOSUID, MOUNT_ATTR_NODEV, MOUNT_ATTR_NOEXEC = 1, 2, 4, 8
MOUNT_ATTR_NOATIME, MOUNT_ATTR_STRICTATIME, MOUNT_ATTR__ATIME = 0x10, 0x20, 0x70
MOUNT_ATTR_NODIRATIME, MOUNT_ATTR_IDMAP = 0x80, 0x100000

_FSCONFIG_SET_FLAG, _FSCONFIG_SET_STRING, _FSCONFIG_CMD_CREATE = 0, 1, 6


class _MountAttr(ctypes.Structure):
    _fields_ = (
        ("attr_set", ctypes.c_uint64),
        ("attr_clr", ctypes.c_uint64),
        ("propagation", ctypes.c_uint64),
        ("userns_fd", ctypes.c_uint64),
    )


def mount(source: str, target: str, fstype: str, flags: int = 0, data: str = "") -> None:
    check(
        libc.libc.mount(
            os.fsencode(source),
            os.fsencode(target),
            os.fsencode(fstype),
            ctypes.c_ulong(flags),
            os.fsencode(data) if data else None,
        ),
        f"mount {target}",
    )


def unmount(target: str, flags: int = 0) -> None:
    check(libc.libc.umount2(os.fsencode(target), flags), f"umount {target}")


def pivot_root(new: str, old: str) -> None:
    syscall(f"pivot_root {new}", libc.SYS_PIVOT_ROOT, os.fsencode(new), os.fsencode(old))


def open_tree(path: str, *, dir_fd: int = AT_FDCWD, clone: bool = True, recursive: bool = False) -> int:
    """A detached copy of the mount at ``path`` (``clone``), or a plain reference to it."""
    flags = OPEN_TREE_CLOEXEC | (OPEN_TREE_CLONE if clone else 0) | (AT_RECURSIVE if recursive else 0)
    if not path:
        flags |= AT_EMPTY_PATH
    return syscall(f"open_tree {path}", libc.SYS_OPEN_TREE, dir_fd, os.fsencode(path), flags)


def move_mount(mount_fd: int, target: str, *, dir_fd: int = AT_FDCWD) -> None:
    """Attach a detached mount at ``target``; a final symbolic link is followed."""
    flags = MOVE_MOUNT_F_EMPTY_PATH | (MOVE_MOUNT_T_SYMLINKS if target else MOVE_MOUNT_T_EMPTY_PATH)
    syscall(f"mount {target}", libc.SYS_MOVE_MOUNT, mount_fd, b"", dir_fd, os.fsencode(target), flags)


def mount_setattr(
    mount_fd: int,
    *,
    attr_set: int = 0,
    attr_clr: int = 0,
    propagation: int = 0,
    userns_fd: int | None = None,
    recursive: bool = False,
    path: str = "",
) -> None:
    """Change a mount's attributes, its propagation, or (once, while detached) its id map."""
    if userns_fd is not None:
        attr_set |= MOUNT_ATTR_IDMAP
    attributes = _MountAttr(attr_set, attr_clr, propagation, userns_fd or 0)
    flags = AT_EMPTY_PATH | (AT_RECURSIVE if recursive else 0)
    syscall(
        "mount_setattr",
        libc.SYS_MOUNT_SETATTR,
        mount_fd,
        os.fsencode(path),
        flags,
        ctypes.byref(attributes),
        ctypes.sizeof(attributes),
    )


def fsopen(fstype: str) -> int:
    return syscall(f"fsopen {fstype}", libc.SYS_FSOPEN, fstype.encode(), 1)


def fsconfig_set(fs_fd: int, key: str, value: str | None = None) -> None:
    """Set an option; without ``value`` a flag."""
    if value is None:
        syscall(f"fsconfig {key}", libc.SYS_FSCONFIG, fs_fd, _FSCONFIG_SET_FLAG, key.encode(), None, 0)
    else:
        syscall(
            f"fsconfig {key}={value}",
            libc.SYS_FSCONFIG,
            fs_fd,
            _FSCONFIG_SET_STRING,
            key.encode(),
            os.fsencode(value),
            0,
        )


def fsconfig_create(fs_fd: int) -> None:
    syscall("fsconfig create", libc.SYS_FSCONFIG, fs_fd, _FSCONFIG_CMD_CREATE, None, None, 0)


def fsmount(fs_fd: int, attributes: int = 0) -> int:
    return syscall("fsmount", libc.SYS_FSMOUNT, fs_fd, 1, attributes)


def new_mount(
    fstype: str,
    options: tuple[tuple[str, str | None], ...] = (),
    attributes: int = 0,
    *,
    source: str = "",
) -> int:
    """A detached mount of a new file system instance; ``source`` is a name, the type's by default."""
    fs_fd = fsopen(fstype)
    try:
        fsconfig_set(fs_fd, "source", source or fstype)
        for key, value in options:
            fsconfig_set(fs_fd, key, value)
        fsconfig_create(fs_fd)
        return fsmount(fs_fd, attributes)
    finally:
        os.close(fs_fd)
