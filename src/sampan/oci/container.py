"""What the runtime remembers of a container: a directory below ``--root`` with ``state.json``.

Laws:
- The directory is made first and removed last; its making is what reserves the id.
- The state file is written once, whole, when the container is created; what its status is, is looked up.
- ``start.fifo`` is there until the container is started; the first process reads from it.
- A pid alone proves nothing: the time at which its process started must be the recorded one.
"""

from __future__ import annotations

import errno
import json
import os
import time
from contextlib import suppress
from typing import TYPE_CHECKING

from sampan.linux.tree import remove_tree
from sampan.oci.failure import Failed
from sampan.sandbox import cgroups

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    from sampan.sandbox.cgroups import Cgroup
    from sampan.spec.runtime import Spec

DEFAULT_ROOT = "/run/sampan-oci"
VERSION = "1.0.2"
_STATE, _NOTE, FIFO = "state.json", "group", "start.fifo"
_LETTERS = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_+-.")


def check_id(container_id: str) -> None:
    """Raise Failed for an id that is no plain name."""
    if not container_id or container_id.startswith(".") or not _LETTERS.issuperset(container_id):
        raise Failed("invalid container ID format" if container_id else "container id cannot be empty")
    if len(container_id) > 1024:
        raise Failed("invalid container ID format")


class Container:
    """One container. ``record`` is the content of its state file."""

    def __init__(self, root: str, container_id: str, record: dict[str, Any]) -> None:
        self.root = root
        self.id = container_id
        self.record = record

    @classmethod
    def reserve(cls, root: str, container_id: str) -> Container:
        """A new container, known by its directory. Raises Failed if the id is in use."""
        check_id(container_id)
        os.makedirs(root, 0o711, exist_ok=True)
        container = cls(root, container_id, {})
        try:
            os.mkdir(container.directory, 0o711)
        except FileExistsError:
            raise Failed("container with given ID already exists") from None
        return container

    @classmethod
    def load(cls, root: str, container_id: str) -> Container:
        """A container that was created. Raises Failed if there is none."""
        check_id(container_id)
        try:
            with open(f"{root}/{container_id}/{_STATE}", "rb") as file:
                return cls(root, container_id, json.loads(file.read()))
        except (FileNotFoundError, NotADirectoryError):
            raise Failed("container does not exist") from None
        except ValueError as error:
            raise Failed(f"the state of container {container_id} cannot be read: {error}") from error

    @classmethod
    def every(cls, root: str) -> Iterator[Container]:
        """Those that were created, by their ids."""
        with suppress(FileNotFoundError):
            for name in sorted(os.listdir(root)):
                with suppress(Failed):
                    yield cls.load(root, name)

    @property
    def directory(self) -> str:
        return f"{self.root}/{self.id}"

    @property
    def fifo(self) -> str:
        return f"{self.directory}/{FIFO}"

    @property
    def spec(self) -> Spec:
        spec: Spec = self.record["spec"]
        return spec

    @property
    def pid(self) -> int:
        pid: int = self.record["pid"]
        return pid

    @property
    def cgroup(self) -> Cgroup:
        return cgroups.detect().group(self.record["cgroup"])

    def make_fifo(self) -> int:
        """The fifo at which the first process waits, opened for it."""
        os.mkfifo(self.fifo, 0o600)
        # Both ways: reading waits for a byte then, not for somebody to open the other end.
        return os.open(self.fifo, os.O_RDWR | os.O_CLOEXEC)

    def note(self, group: str) -> None:
        """Remember the cgroup before it is made, for who finds a creation that was cut short."""
        write_whole(f"{self.directory}/{_NOTE}", group.encode())

    @classmethod
    def abandoned(cls, root: str, container_id: str) -> tuple[Container, str] | None:
        """A container whose creation was cut short, and its cgroup ("" before there was any)."""
        check_id(container_id)
        container = cls(root, container_id, {})
        if not os.path.isdir(container.directory):
            return None
        try:
            with open(f"{container.directory}/{_NOTE}") as file:
                return container, file.read()
        except FileNotFoundError:
            return container, ""

    def save(self, spec: Spec, bundle: str, pid: int, annotations: dict[str, str]) -> None:
        now = time.time()
        self.record = {
            "id": self.id,
            "pid": pid,
            "pid_start": start_time(pid),
            "bundle": bundle,
            "cgroup": spec["linux"]["cgroupsPath"],
            "created": time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(now)) + f".{int(now % 1 * 1e9):09}Z",
            "annotations": annotations,
            "spec": spec,
        }
        write_whole(f"{self.directory}/{_STATE}", json.dumps(self.record, separators=(",", ":")).encode())

    def alive(self) -> bool:
        """Whether the first process lives; one that has ended and is not reaped does not."""
        started = start_time(self.pid)
        return started != "" and started == self.record["pid_start"]

    def status(self) -> str:
        """created, running, paused or stopped."""
        if not self.alive():
            return "stopped"
        if self._waits():
            return "created"
        return "paused" if self.cgroup.frozen() else "running"

    def _waits(self) -> bool:
        try:
            os.close(os.open(self.fifo, os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC))
        except FileNotFoundError:
            return False
        except OSError as error:
            if error.errno == errno.ENXIO:  # whoever opened it has let go of it
                return False
            raise
        return True

    def release(self) -> None:
        """Let the first process become the program. Raises Failed if it does not wait."""
        try:
            fd = os.open(self.fifo, os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError:
            raise Failed("cannot start a container that has stopped") from None
        try:
            os.write(fd, b"0")
        finally:
            os.close(fd)
        os.unlink(self.fifo)

    def state(self, status: str = "") -> dict[str, Any]:
        """The state as the specification has it, with what runc adds."""
        status = status or self.status()
        record = self.record
        return {
            "ociVersion": VERSION,
            "id": self.id,
            "pid": record["pid"] if status != "stopped" else 0,
            "status": status,
            "bundle": record["bundle"],
            "rootfs": record["spec"]["root"]["path"],
            "created": record["created"],
            "annotations": record["annotations"],
            "owner": "",
        }

    def remove(self) -> None:
        """Forget the container. Idempotent."""
        with suppress(FileNotFoundError):
            fd = os.open(self.root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                remove_tree(fd, self.id)
            finally:
                os.close(fd)


def start_time(pid: int) -> str:
    """When a process started, in the kernel's count; empty for one that is dead."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            fields = file.read().rpartition(b")")[2].split()
    except OSError:
        return ""
    return "" if fields[0] in (b"Z", b"X") else fields[19].decode()


def write_whole(path: str, data: bytes, mode: int = 0o600) -> None:
    """Write a file that is seen whole or not at all."""
    part = f"{path}.{os.getpid()}.part"
    fd = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, mode)
    try:
        os.write(fd, data)
    finally:
        os.close(fd)
    os.rename(part, path)
