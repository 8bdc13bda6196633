"""The set-up of a container as data: each step is a value that says what it does and can do it.

Steps run in the container's first process, which is alone in its new namespaces. Laws:

- Mounts exist as detached descriptors before the root is changed (``prepare``); afterwards the host's tree is
  let go of, and only then is anything attached (``execute``). So no path of an image is ever resolved while a
  path to the host exists: a hostile symbolic link has nowhere to lead but its own root.
- /proc and /sys must be prepared before the host's tree is gone: the kernel refuses new instances in a user
  namespace that cannot see a complete one already.
- A step that fails raises OSError, to which who runs it adds the step's description; or ProgramError, when
  Docker has words of its own for the case.
"""

from __future__ import annotations

import errno
import fcntl
import os
import socket
import stat
import struct
import termios
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field

from sampan.linux import mount as m
from sampan.linux import process as p
from sampan.sandbox import interfaces
from sampan.sandbox.messages import Endpoint
from sampan.sandbox.mountopts import Options
from sampan.sandbox.program import NOT_FOUND, VICE_VERSA, ProgramError

_NOT_SET = 128
_TIOCGPTPEER = 0x5441
_TIOCSPTLCK = 0x40045431


@dataclass(slots=True, kw_only=True)
class Context:
    """What steps share while they run: descriptors handed in, made on the way and to be handed out.

    ``await_parent`` waits for the next thing that is done outside, ``tell_parent`` says what is done here.
    """

    await_parent: Callable[[], object]
    tell_parent: Callable[[str], None] = lambda _what: None
    host_mounts: list[int] = field(default_factory=list)
    prepared: dict[int, list[int]] = field(default_factory=dict)
    console_master: int = -1
    console_slave: int = -1


class Step:
    """One thing to do; ``describe`` is what a person reads when it fails."""

    __slots__ = ()

    def prepare(self, context: Context) -> None:
        """What must happen while the host's tree is still in sight."""

    def execute(self, context: Context) -> None:
        raise NotImplementedError

    def describe(self) -> str:
        raise NotImplementedError


@dataclass(frozen=True, slots=True, kw_only=True)
class Hostname(Step):
    name: str
    domain: str = ""

    def execute(self, context: Context) -> None:
        if self.name:
            socket.sethostname(self.name)
        if self.domain:
            p.set_domain_name(self.domain)

    def describe(self) -> str:
        return f"set hostname {self.name}"


@dataclass(frozen=True, slots=True, kw_only=True)
class EnterRoot(Step):
    """Make the first host mount the root and let go of the host's tree.

    ``propagation`` (MS_*) is what the container's tree receives from the host's. ``place`` is where the
    mount has been attached, if it has been; see ``AwaitHooks``.
    """

    propagation: int = m.MS_SLAVE
    place: str = ""

    def prepare(self, context: Context) -> None:
        # In a chroot "/" is not the root of the mount namespace. Were that left in place, whoever joins the
        # namespace later (exec, nsenter) would find the host's tree there.
        itself = os.pidfd_open(os.getpid())
        p.setns(itself, p.CLONE_NEWNS)
        os.close(itself)
        m.mount("", "/", "", m.MS_REC | self.propagation)

    def execute(self, context: Context) -> None:
        if not self.place:
            # Any directory serves, it is about to vanish with the host's tree; every user may enter this one.
            m.move_mount(context.host_mounts[0], "/proc")
        os.chdir(self.place or "/proc")
        m.pivot_root(".", ".")
        # The old root is now stacked on the new one, and the working directory is in it.
        m.unmount(".", m.MNT_DETACH)
        os.chdir("/")

    def describe(self) -> str:
        return "enter root"


@dataclass(frozen=True, slots=True, kw_only=True)
class AwaitHooks(Step):
    """Let hooks of the OCI specification do their work while the host's tree is there.

    The root is attached at ``place`` for them, unless that is empty.
    """

    place: str

    def execute(self, context: Context) -> None:
        if self.place:
            m.move_mount(context.host_mounts[0], self.place)
        context.tell_parent("placed")
        context.await_parent()

    def describe(self) -> str:
        return "wait for hooks"


def make_mount_point(path: str, *, directory: bool) -> None:
    """Make ``path`` a file or a directory, with its parents, unless it exists."""
    with suppress(OSError):
        os.stat(path)
        return
    # A dangling link names where the mount point has to be.
    path = os.path.realpath(path)
    os.makedirs(path if directory else os.path.dirname(path), 0o755, exist_ok=True)
    if not directory:
        os.close(os.open(path, os.O_CREAT | os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW, 0o644))


def _refuse_link(path: str) -> None:
    """The kernel's own file systems are mounted where their names say, not where an image's link points."""
    if path in ("/proc", "/sys", "/dev") and os.path.islink(path):
        raise OSError(errno.ELOOP, "is a symbolic link", path)


# The files of /proc that may be covered, as in runc.
_COVERED_IN_PROC = frozenset(
    f"/proc/{name}"
    for name in (
        *("cpuinfo", "diskstats", "meminfo", "stat", "swaps", "uptime", "loadavg", "slabinfo", "net/dev"),
        *("sys/kernel/ns_last_pid", "sys/crypto/fips_enabled"),
    )
)
_PROC_ROOT_INODE = 1


def _refuse_proc(path: str, fd: int | None = None) -> None:
    """Nobody's files take the place of the kernel's: set-up itself still writes to /proc as root.

    ``fd`` is what is to be mounted: procfs may cover procfs.
    """
    place = os.path.realpath(path)
    if place == "/proc" and fd is not None and os.fstat(fd).st_ino == _PROC_ROOT_INODE:
        with suppress(OSError):
            if stat.S_ISLNK(os.stat("self", dir_fd=fd, follow_symlinks=False).st_mode):
                return
    if place == "/proc" or (place.startswith("/proc/") and place not in _COVERED_IN_PROC):
        raise OSError(errno.EPERM, "cannot be mounted because it is inside /proc", path)


@dataclass(frozen=True, slots=True, kw_only=True)
class AttachHostMount(Step):
    """Attach the mount that was handed in at ``index``; ``source`` is what the user calls it."""

    index: int
    source: str
    destination: str

    def execute(self, context: Context) -> None:
        fd = context.host_mounts[self.index]
        _refuse_link(self.destination)
        _refuse_proc(self.destination, fd)
        directory = stat.S_ISDIR(os.fstat(fd).st_mode)
        make_mount_point(self.destination, directory=directory)
        if stat.S_ISDIR(os.stat(self.destination).st_mode) != directory:
            raise ProgramError(
                f'error mounting "{self.source}" to rootfs at "{self.destination}": '
                f"not a directory: {VICE_VERSA}",
                NOT_FOUND,
            )
        m.move_mount(fd, self.destination)

    def describe(self) -> str:
        return f"mount {self.destination}"


@dataclass(frozen=True, slots=True, kw_only=True)
class PlacedDevice(Step):
    """Show the device that was made as ``name`` in /dev at ``destination``, and there alone."""

    name: str
    destination: str

    def execute(self, context: Context) -> None:
        _refuse_proc(self.destination)
        make_mount_point(self.destination, directory=False)
        fd = m.open_tree(f"/dev/{self.name}")
        try:
            m.move_mount(fd, self.destination)
        finally:
            os.close(fd)
        os.unlink(f"/dev/{self.name}")

    def describe(self) -> str:
        return f"device {self.destination}"


@dataclass(frozen=True, slots=True, kw_only=True)
class NewMount(Step):
    """A file system instance that belongs to the container's own namespaces.

    ``source`` is what the list of mounts calls it.
    """

    fstype: str
    source: str
    destination: str
    options: Options

    def prepare(self, context: Context) -> None:
        fd = m.new_mount(self.fstype, self.options.data, self.options.attributes, source=self.source)
        context.prepared[id(self)] = [fd]

    def execute(self, context: Context) -> None:
        (fd,) = context.prepared[id(self)]
        _refuse_link(self.destination)
        if self.fstype != "proc":
            _refuse_proc(self.destination)
        make_mount_point(self.destination, directory=True)
        m.move_mount(fd, self.destination)

    def describe(self) -> str:
        return f"mount {self.fstype} at {self.destination}"


@dataclass(frozen=True, slots=True, kw_only=True)
class CgroupMounts(Step):
    """The container's own cgroups at ``destination``.

    ``hierarchies`` are (directory name, file system type, options); an empty name is a single mount (v2).
    On v1 they are gathered in a small tmpfs, as the host does.
    """

    destination: str
    options: Options
    hierarchies: tuple[tuple[str, str, tuple[tuple[str, str | None], ...]], ...]

    def prepare(self, context: Context) -> None:
        attributes = self.options.attributes
        fds = [m.new_mount(fstype, data, attributes) for _, fstype, data in self.hierarchies]
        if self._gathered:
            fds.append(
                m.new_mount("tmpfs", (("mode", "755"), ("size", "65536")), attributes & ~m.MOUNT_ATTR_RDONLY)
            )
        context.prepared[id(self)] = fds

    @property
    def _gathered(self) -> bool:
        return any(name for name, _, _ in self.hierarchies)

    def execute(self, context: Context) -> None:
        fds = context.prepared[id(self)]
        make_mount_point(self.destination, directory=True)
        if self._gathered:
            m.move_mount(fds[-1], self.destination)
        for (name, _, _), fd in zip(self.hierarchies, fds, strict=False):
            target = f"{self.destination}/{name}" if name else self.destination
            if name:
                os.mkdir(target, 0o755)
            m.move_mount(fd, target)
        if self._gathered:
            for name, _, _ in self.hierarchies:
                for alias in name.split(",") if "," in name else ():
                    os.symlink(name, f"{self.destination}/{alias}")
            m.mount_setattr(fds[-1], attr_set=self.options.attr_set & m.MOUNT_ATTR_RDONLY)

    def describe(self) -> str:
        return f"mount cgroup at {self.destination}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Console(Step):
    """Allocate a terminal in the container's own devpts and show it as /dev/console."""

    size: tuple[int, int] | None = None

    def execute(self, context: Context) -> None:
        master, slave = open_terminal(self.size)
        context.console_master, context.console_slave = master, slave
        place = "/dev/console"
        # A volume at /dev may have a link there, or get one at any moment: the place is held before it is
        # looked at, and what is held is mounted on.
        if not os.path.islink(place):
            make_mount_point(place, directory=False)
        held = os.open(place, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC)
        fd = m.open_tree("", dir_fd=slave)
        try:
            if stat.S_ISLNK(os.fstat(held).st_mode):
                raise OSError(errno.ELOOP, "is a symbolic link", place)
            m.move_mount(fd, "", dir_fd=held)
        finally:
            os.close(fd)
            os.close(held)

    def describe(self) -> str:
        return "allocate a terminal"


def open_terminal(size: tuple[int, int] | None) -> tuple[int, int]:
    """(master, slave) of a new terminal in the current root's devpts; ``size`` is (height, width)."""
    master = os.open("/dev/pts/ptmx", os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC)
    fcntl.ioctl(master, _TIOCSPTLCK, struct.pack("i", 0))
    slave = fcntl.ioctl(master, _TIOCGPTPEER, os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC)
    if size:
        set_window_size(master, *size)
    return master, slave


def set_window_size(fd: int, height: int, width: int) -> None:
    fcntl.ioctl(fd, termios.TIOCSWINSZ, struct.pack("HHHH", height, width, 0, 0))


@dataclass(frozen=True, slots=True, kw_only=True)
class Network(Step):
    """Bring up the loopback interface and, when there are any, the container's own."""

    endpoint: Endpoint | None
    more: tuple[Endpoint, ...] = ()

    def execute(self, context: Context) -> None:
        if self.endpoint is None:
            interfaces.loopback_up()
        else:
            context.await_parent()  # until it is plugged in
            interfaces.configure(self.endpoint)
            for endpoint in self.more:
                interfaces.configure(endpoint, first=False)

    def describe(self) -> str:
        return "set up the network"


@dataclass(frozen=True, slots=True, kw_only=True)
class Sysctls(Step):
    values: tuple[tuple[str, str], ...]

    def execute(self, context: Context) -> None:
        for key, value in self.values:
            path = "/proc/sys/" + key.replace(".", "/")
            doing = "open"
            try:
                fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
                doing = "write"
                try:
                    os.write(fd, value.encode())
                finally:
                    os.close(fd)
            except OSError as error:
                what = f"{doing} {path}: {(error.strerror or '').lower()}"
                raise ProgramError(f"error during container init: {what}", _NOT_SET) from error

    def describe(self) -> str:
        return "set sysctls"


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadonlyPaths(Step):
    paths: Sequence[str]

    def execute(self, context: Context) -> None:
        for path in self.paths:
            try:
                fd = m.open_tree(path, recursive=True)
            except FileNotFoundError:
                continue
            try:
                # Nothing that was forbidden on the mount below may come back: attributes are only added.
                m.mount_setattr(fd, attr_set=m.MOUNT_ATTR_RDONLY, recursive=True)
                m.move_mount(fd, path)
            finally:
                os.close(fd)

    def describe(self) -> str:
        return "make paths read-only"


@dataclass(frozen=True, slots=True, kw_only=True)
class MaskedPaths(Step):
    """Hide paths: a directory under an empty read-only one, anything else under /dev/null."""

    paths: Sequence[str]

    def execute(self, context: Context) -> None:
        null = os.open("/dev/null", os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            # The image or a volume may have put something else there.
            found = os.fstat(null)
            if not stat.S_ISCHR(found.st_mode) or found.st_rdev != os.makedev(1, 3):
                raise OSError(errno.ENODEV, "is not the null device", "/dev/null")
            for path in self.paths:
                with suppress(FileNotFoundError):
                    self._mask(path, null)
        finally:
            os.close(null)

    @staticmethod
    def _mask(path: str, null: int) -> None:
        if stat.S_ISDIR(os.stat(path).st_mode):
            fd = m.new_mount("tmpfs", (("nr_blocks", "1"), ("nr_inodes", "1")), m.MOUNT_ATTR_RDONLY)
        else:
            fd = m.open_tree("", dir_fd=null)
        try:
            m.move_mount(fd, path)
        finally:
            os.close(fd)

    def describe(self) -> str:
        return "mask paths"


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadonlyRoot(Step):
    def execute(self, context: Context) -> None:
        m.mount_setattr(m.AT_FDCWD, path="/", attr_set=m.MOUNT_ATTR_RDONLY)

    def describe(self) -> str:
        return "make the root read-only"


@dataclass(frozen=True, slots=True, kw_only=True)
class RootPropagation(Step):
    """What the finished root passes on to mounts made of it, in a container that shares its mounts."""

    propagation: int

    def execute(self, context: Context) -> None:
        m.mount("", "/", "", self.propagation)

    def describe(self) -> str:
        return "set the root's propagation"
