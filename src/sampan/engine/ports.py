"""What the use cases need from below, as protocols: one suite of tests runs against fakes and the real ones.

Implemented by ``runtime`` (Runtime, Task, ExecTask), ``images`` (Catalog, Snapshots), ``network`` (Bridges)
and the api (ClientStream). Every method may raise a ``Failure``; nothing else is expected.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from sampan.engine.model.volumes import Volume
    from sampan.images.model import Image
    from sampan.linux.diskspace import Space
    from sampan.sandbox.messages import AttachOptions, Endpoint, Exit, Launch, RootFilesystem
    from sampan.spec.digest import Digest
    from sampan.spec.runtime import LinuxResources, Process, Seccomp


class ClientStream(Protocol):
    """A hijacked connection."""

    def detach(self) -> tuple[socket.socket, bytes]:
        """Give up the raw socket and the bytes already received; the caller owns both from now on."""


TakeStream = Callable[[], ClientStream]
"""Hijack the request's connection: from then on its errors can no longer be told by a status."""


class ExecTask(Protocol):
    @property
    def pid(self) -> int: ...

    @property
    def exited(self) -> asyncio.Future[int]: ...

    async def resize(self, height: int, width: int) -> None: ...


class Task(Protocol):
    """A running container. ``exited`` is also resolved when its keeper dies.

    ``on_detach`` is called when a client leaves by its detach keys; ``on_log`` with "rotated", and with
    "full" when output waits because the log's oldest records were not sent on yet.
    """

    on_detach: Callable[[], None]
    on_log: Callable[[str], None]

    @property
    def pid(self) -> int: ...

    @property
    def cgroup(self) -> str:
        """The path of its group, from the root of every tree."""

    @property
    def started_at(self) -> float: ...

    @property
    def host_ids(self) -> str:
        """Why it had to be started with the host's ids; empty if it was not."""

    @property
    def exited(self) -> asyncio.Future[Exit]: ...

    async def signal(self, number: int) -> None:
        """No-op when the process is gone; thaws a frozen one for SIGKILL."""

    async def log(self, *, patient: bool) -> None:
        """Whether the log's oldest records are kept until they were sent; no-op when the keeper is gone."""

    async def pause(self) -> None: ...

    async def resume(self) -> None: ...

    async def resize(self, height: int, width: int) -> None: ...

    async def attach(self, stream: ClientStream, options: AttachOptions) -> None: ...

    async def update(self, resources: LinuxResources) -> None:
        """Change the limits of its group that ``resources`` mentions. What the kernel refuses is raised;
        some of the limits may have been changed then."""

    async def exec(
        self,
        exec_id: str,
        process: Process,
        *,
        user: str | None,
        filtered: bool,
        stdin: bool,
        stream: ClientStream | None,
        detach_keys: str | None,
        console_size: tuple[int, int] | None,
        limit: float | None = None,
    ) -> ExecTask:
        """``limit``: seconds after which it is killed with its process group; its exit code is -1 then.

        Raises StartFailed (126, 127) when the program cannot be run. ``filtered``: under the container's
        seccomp filter; ``user`` is Docker's USER string."""


class Runtime(Protocol):
    async def launch(self, launch: Launch, attachments: Sequence[tuple[ClientStream, AttachOptions]]) -> Task:
        """Return once the program was exec'd; raises StartFailed in Docker's words."""

    def expect(self, launch: Launch) -> None:
        """A launch like this one is likely to come next. Never waits, and never fails."""

    async def adopt(self, container_id: str) -> Task | None:
        """The task of a container whose keeper lives on from an earlier daemon; None without one."""


class Catalog(Protocol):
    async def resolve(self, reference: str, wanted: tuple[str, str, str] | None = None) -> Image:
        """By name[:tag], name@digest, id or unique id prefix, of several platforms that which is wanted.

        NotFound in Docker's words.
        """

    def means(self, text: str, image_id: str) -> bool:
        """Whether a name leads to an image, on whatever platform."""

    def find(self, text: str) -> Image:
        """``resolve`` among the images that are here."""


class Snapshots(Protocol):
    @property
    def driver(self) -> str:
        """The name of the storage driver."""

    async def prepare(self, key: str, image: Image) -> RootFilesystem: ...

    async def sync(self, key: str) -> None:
        """Have what ``prepare`` copied on the disk."""

    def is_whole(self, key: str) -> bool:
        """Whether all of what ``prepare`` makes is there."""

    async def complete(self, key: str, chain_id: Digest | None) -> None:
        """Make again what a loss of power took."""

    def mounts(self, key: str) -> RootFilesystem: ...

    def layers(self, key: str) -> tuple[str, ...]:
        """The directories of the image below it, absolute, topmost first."""

    def max_id(self, key: str) -> int:
        """The largest owner id of the files below."""

    async def remove(self, key: str, *, then: Callable[[], object] | None = None) -> None:
        """``then``: what is done last, in the thread that removes."""

    def keys(self) -> Iterable[str]: ...

    async def usage(self, keys: Iterable[str]) -> Mapping[str, Space]:
        """What writable layers take of the disk, by key."""


class Bridges(Protocol):
    """A network is named by its key: "bridge", or the id of a user-defined one."""

    async def connect(
        self,
        container_id: str,
        *,
        network: str = "bridge",
        name: str = "eth0",
        mac: str | None = None,
        addresses: Sequence[str] = (),
    ) -> Endpoint: ...

    async def release(self, container_id: str, network: str | None = None) -> None:
        """On all networks unless one is named."""

    async def sweep(self, network: str | None = None, container_id: str | None = None) -> None:
        """Delete the interfaces of what was released, or of one container's, if they are still there."""

    async def reconcile(self, live: Mapping[str, int]) -> None:
        """``live``: container id → pid of its first process."""

    def endpoints(self, network: str = "bridge") -> Mapping[str, Endpoint]: ...


class VolumeStore(Protocol):
    """The part of the volumes use case that containers need."""

    async def ensure(
        self,
        name: str | None,
        *,
        labels: Mapping[str, str] | None = None,
        driver: str = "",
        options: Mapping[str, str] | None = None,
    ) -> str:
        """The name of an existing or new volume; an anonymous one when ``name`` is None."""

    def mount_source(self, name: str) -> str:
        """The directory of a volume, or where it is going to be mounted."""

    def get(self, name: str) -> Volume: ...

    async def hold(self, name: str, holder: str) -> str:
        """The directory to mount, there until the holder is released."""

    async def release(self, holder: str) -> None:
        """Give back what the holder has of all volumes. Idempotent."""

    async def settle(self, living: Iterable[str]) -> None:
        """Give back what a killed daemon held for others than the ``living`` containers."""

    async def populate(self, name: str, root: RootFilesystem, path: str) -> None:
        """Fill a volume that is empty with what the image has at ``path``."""

    async def remove(self, name: str, *, force: bool = False) -> None: ...


class SeccompFilters(Protocol):
    async def path(self, profile: str | None, capabilities: frozenset[str]) -> str:
        """The file of the compiled program of ``profile`` for a process with ``capabilities``.

        A profile is a JSON document, None the default one; InvalidArgument for one that cannot be compiled.
        """

    def rules(self, profile: str | None, capabilities: Iterable[str]) -> Seccomp:
        """The same in the OCI form, for a runtime that compiles it itself."""


class Visit(Protocol):
    """A process at work on a container's files; see ``sandbox.visit`` for what it says."""

    async def answer(self) -> dict[str, Any]: ...

    async def read(self) -> bytes: ...

    async def write(self, data: bytes) -> bool: ...

    def end_of_data(self) -> None: ...

    async def aclose(self) -> None: ...


class Visits(Protocol):
    async def begin(
        self,
        container_id: str,
        op: str,
        *,
        pid: int = 0,
        root: RootFilesystem | None = None,
        directory: str = "",
        flow: str = "",
        **arguments: Any,
    ) -> Visit:
        """Send a process to the files of a running container, of a root that nobody has mounted, or of a
        directory of the host."""
