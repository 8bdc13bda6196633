"""Where a visitor of a container's files stands: inside the running one, or in a mount of its own.

Laws:
- Afterwards the host's tree cannot be reached by any path: the visitor's root is the container's, in a mount
  namespace that no one else is in. No file system there shows devices: none can be opened, whatever name a
  hostile container gives it at whatever moment.
- Nothing is imported from then on: the interpreter's paths would lead into the container.
- A running container is entered by its first process, with its user namespace: owners are seen and made as
  in the container, and what its mounts forbid stays forbidden.
- One upper directory is never mounted twice: the caller mounts a container's root only while it does not run,
  one visitor at a time.
"""

from __future__ import annotations

import errno
import os
import stat
from contextlib import suppress
from dataclasses import dataclass

from sampan.linux import capabilities, kernel
from sampan.linux import mount as m
from sampan.linux import process as p
from sampan.sandbox.entering import become_root
from sampan.sandbox.hostmounts import beneath, root_mount
from sampan.sandbox.messages import RootFilesystem
from sampan.sandbox.trees import Trees
from sampan.sandbox.workers import import_nothing_more

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_PLACE = os.O_PATH | os.O_CLOEXEC
_RESOLVE = p.RESOLVE_IN_ROOT | p.RESOLVE_NO_MAGICLINKS
_LOWER_ONLY = (("redirect_dir", "nofollow"), ("metacopy", "off"))
_ONE_BY_ONE = (6, 5)  # Linux: see ``hostmounts``
# CAP_CHOWN, DAC_OVERRIDE, DAC_READ_SEARCH, FOWNER, FSETID, MKNOD, SETFCAP
_CAPABILITIES = (0, 1, 2, 3, 4, 27, 31)
# CAP_CHOWN, DAC_OVERRIDE, DAC_READ_SEARCH, FOWNER, SYS_ADMIN (trusted.* attributes)
_TIDYING = (0, 1, 2, 3, 21)
# CAP_FSETID, MKNOD, SETFCAP
_MAKING = (4, 27, 31)


@dataclass(frozen=True, slots=True, kw_only=True)
class Bind:
    """A volume, or a directory or file of the host, as the container has it; ``subpath`` is below it."""

    source: str
    destination: str
    writable: bool
    recursive: bool = True
    subpath: str = ""


def enter_running(init: int, *, alone: bool = False) -> int:
    """Stand in the container of the pidfd ``init``: its root by descriptor.

    ``alone``: the root's own file system, without what is mounted on it. ProcessLookupError if it is gone.
    """
    own_users = _has_own_users(init)
    import_nothing_more()
    try:
        p.setns(init, p.CLONE_NEWNS)
    except OSError as error:
        # The namespaces of a process that is ending are gone before it is.
        raise ProcessLookupError(errno.ESRCH, "the container has ended") from error
    bare = m.open_tree("/") if alone else -1
    p.unshare(p.CLONE_NEWNS)
    root = bare if alone else os.open("/", _PLACE | os.O_DIRECTORY)
    m.mount_setattr(root, attr_set=m.MOUNT_ATTR_NODEV, propagation=m.MS_PRIVATE, recursive=True)
    if own_users:
        p.setns(init, p.CLONE_NEWUSER)
        become_root()
    _keep_few_capabilities()
    return root


def _has_own_users(init: int) -> bool:
    """Whether the process has another user namespace than ours."""
    with open(f"/proc/self/fdinfo/{init}", encoding="ascii") as file:
        pid = next(line.split()[1] for line in file if line.startswith("Pid:"))
    theirs, ours = os.stat(f"/proc/{pid}/ns/user"), os.stat("/proc/self/ns/user")
    return (theirs.st_dev, theirs.st_ino) != (ours.st_dev, ours.st_ino)


def enter_stopped(root: RootFilesystem, binds: list[Bind], *, writable: bool) -> int:
    """Mount a container's root with its binds, stand in it, and answer with it by descriptor.

    Missing places to mount on are made. ``writable`` False makes the root itself read-only afterwards.
    """
    _alone()
    sources = [(bind, _taken(bind)) for bind in sorted(binds, key=lambda bind: bind.destination)]
    top = root_mount(root).open(None)
    m.mount_setattr(top, attr_set=m.MOUNT_ATTR_NODEV)
    # On one of its own layers: that hides nothing which is still needed.
    _become_root_of(top, f"{root.base}/{root.upper}")
    fd = os.open("/", _PLACE | os.O_DIRECTORY)
    for bind, source in sources:
        _attach(fd, bind, source)
    if not writable:
        m.mount_setattr(fd, attr_set=m.MOUNT_ATTR_RDONLY)
    _keep_few_capabilities()
    return os.open("/", _PLACE | os.O_DIRECTORY)


def enter_reading(root: RootFilesystem) -> int:
    """Stand in a container's root without its binds, not to be written to."""
    _alone()
    return _enter_merged(root)


def _enter_merged(root: RootFilesystem) -> int:
    fd = root_mount(root).open(None) if root.kind else _merged(root.base, (root.upper, *root.lowers))
    m.mount_setattr(fd, attr_set=m.MOUNT_ATTR_NODEV | m.MOUNT_ATTR_RDONLY)
    _become_root_of(fd, f"{root.base}/{root.upper}")
    _keep_few_capabilities()
    return os.open("/", _DIRECTORY)


def enter_reading_from(other: RootFilesystem, root: RootFilesystem) -> tuple[int, int]:
    """As ``enter_reading`` of ``root``, with another tree in hand: (that, the root) by descriptor."""
    _alone()
    tree = _merged(other.base, (other.upper, *other.lowers))
    return tree, _enter_merged(root)


def open_both(root: RootFilesystem) -> tuple[int, int]:
    """The upper directory and the merged layers below it, by descriptor. Nothing may be resolved by path."""
    _alone()
    upper = os.open(f"{root.base}/{root.upper}", _DIRECTORY)
    return upper, _merged(root.base, root.lowers)


def open_whole(root: RootFilesystem) -> tuple[int, Trees, int]:
    """A root that is no overlay of the kernel's, the trees below it, and when it was made, in ns."""
    made = os.stat(f"{root.base}/{root.work}").st_ctime_ns
    upper = os.open(f"{root.base}/{root.upper}", _DIRECTORY)
    return upper, Trees.open(f"{root.base}/{lower}" for lower in root.lowers), made


def stand_in_directory(fd: int, *, making: bool = False) -> None:
    """Have an upper directory as the root, with what it takes to read and to tidy all of it.

    With ``making`` also what it takes to make anything there.
    """
    import_nothing_more()
    os.fchdir(fd)
    os.chroot(".")
    _keep(_TIDYING + _MAKING if making else _TIDYING)


def _alone() -> None:
    import_nothing_more()
    p.unshare(p.CLONE_NEWNS)
    m.mount("", "/", "", m.MS_REC | m.MS_PRIVATE)


def _merged(base: str, lowers: tuple[str, ...]) -> int:
    """Layers as one read-only tree, topmost first, by descriptor."""
    if len(lowers) == 1:
        return m.open_tree(f"{base}/{lowers[0]}")
    if kernel.version() >= _ONE_BY_ONE:
        layers = tuple(("lowerdir+", f"{base}/{lower}") for lower in lowers)
        fd = m.new_mount("overlay", (*layers, *_LOWER_ONLY), m.MOUNT_ATTR_RDONLY)
    else:
        os.chdir(base)
        options = [f"lowerdir={':'.join(lowers)}", *(f"{key}={value}" for key, value in _LOWER_ONLY)]
        m.mount("overlay", lowers[-1], "overlay", m.MS_RDONLY, ",".join(options))
        fd = m.open_tree(lowers[-1])
    # A descriptor that can be read; the mount lives as long as it does.
    return os.open(".", _DIRECTORY, dir_fd=fd)


def _taken(bind: Bind) -> int:
    if bind.subpath:
        whole = os.open(bind.source, _PLACE | os.O_DIRECTORY)
        fd = m.open_tree("", dir_fd=beneath(whole, bind.source, bind.subpath), recursive=bind.recursive)
    else:
        fd = m.open_tree(bind.source, recursive=bind.recursive)
    attributes = m.MOUNT_ATTR_NODEV | (0 if bind.writable else m.MOUNT_ATTR_RDONLY)
    m.mount_setattr(fd, attr_set=attributes, propagation=m.MS_PRIVATE, recursive=True)
    return fd


def _become_root_of(mount: int, place: str) -> None:
    """Make a detached mount the root, and let go of the host."""
    m.move_mount(mount, place)
    os.chdir(place)
    m.pivot_root(".", ".")
    m.unmount(".", m.MNT_DETACH)
    os.chdir("/")


def _attach(root: int, bind: Bind, source: int) -> None:
    directory = stat.S_ISDIR(os.fstat(source).st_mode)
    place = _mount_point(root, bind.destination, directory=directory)
    m.move_mount(source, "", dir_fd=place)
    os.close(place)
    os.close(source)


def _mount_point(root: int, path: str, *, directory: bool) -> int:
    """What lies at ``path``, made if it is missing. Links are followed inside the root."""
    with suppress(FileNotFoundError):
        return p.openat2(root, path, _PLACE, resolve=_RESOLVE)
    parts = path.strip("/").split("/")
    for depth in range(1, len(parts) + 1):
        last = depth == len(parts)
        walked = "/".join(parts[:depth])
        try:
            os.close(p.openat2(root, walked, _PLACE, resolve=_RESOLVE))
        except FileNotFoundError:
            parent = p.openat2(root, "/".join(parts[: depth - 1]) or ".", _PLACE, resolve=_RESOLVE)
            try:
                if last and not directory:
                    os.mknod(parts[depth - 1], stat.S_IFREG | 0o755, dir_fd=parent)
                else:
                    os.mkdir(parts[depth - 1], 0o755, dir_fd=parent)
            finally:
                os.close(parent)
    return p.openat2(root, path, _PLACE, resolve=_RESOLVE)


def _keep_few_capabilities() -> None:
    _keep(_CAPABILITIES)


def _keep(held: tuple[int, ...]) -> None:
    capabilities.limit_bounding_set(held)
    with suppress(OSError):  # a host that withholds one of them says so where it is missed
        capabilities.capset(effective=held, permitted=held, inheritable=())
