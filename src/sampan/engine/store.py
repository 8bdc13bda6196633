"""The containers of this engine, in memory, written through to the database.

Laws:
- Names and ids are unique; a name is taken before its container is written, and free as soon as the
  container is withdrawn.
- A ``Container`` is a value; its ``Instance`` is the one place that says which value is current, and holds
  what lives only while the daemon does (lock, task, waiters).
- Acknowledged creations, renames and removals are awaited; states are posted, because a restart learns them
  again from keepers and exit records.
"""

from __future__ import annotations

import asyncio
import bisect
import contextlib
import sqlite3
from collections.abc import Iterator
from typing import TYPE_CHECKING

import msgspec
from msgspec.structs import replace

from sampan.engine import moving
from sampan.engine.model import Container, ContainerState, ExitStatus, WaitCondition
from sampan.errors import Conflict, InvalidArgument, NotFound, Unavailable
from sampan.state.database import unreadable

if TYPE_CHECKING:
    from sampan.engine.health import Monitor
    from sampan.engine.model import Exec
    from sampan.engine.ports import ClientStream, ExecTask, Task
    from sampan.engine.restarts import Backoff
    from sampan.engine.visitors import Stay
    from sampan.sandbox.messages import AttachOptions
    from sampan.state import Database


PAUSE = 5.0
"""Seconds until a state that the host refused to record, as a full disk does, is tried again."""


class RunningExec:
    """An exec and, while it runs, its task."""

    __slots__ = ("task", "value")

    def __init__(self, value: Exec) -> None:
        self.value = value
        self.task: ExecTask | None = None


class Instance:
    """One container as this daemon holds it. ``lock`` orders start, pause, rename and removal."""

    __slots__ = (
        "backoff",
        "container",
        "execs",
        "guests",
        "keep",
        "lock",
        "monitor",
        "pending",
        "removed",
        "stopped",
        "task",
        "teardown",
        "turn",
        "waiters",
    )

    def __init__(self, container: Container) -> None:
        self.container = container
        self.lock = asyncio.Lock()
        self.task: Task | None = None
        self.stopped: asyncio.Future[None] | None = None  # resolved when the exit has been recorded
        self.teardown: asyncio.Task[None] | None = None  # what the last exit left to be released
        self.pending: list[tuple[ClientStream, AttachOptions]] = []  # attached before the start
        self.waiters: list[tuple[WaitCondition, asyncio.Future[ExitStatus]]] = []
        self.execs: dict[str, RunningExec] = {}
        self.backoff: Backoff | None = None  # what its restart policy remembers
        self.monitor: Monitor | None = None  # of its health, while it runs
        self.guests: set[Stay] = set()  # visitors of its files
        self.turn: asyncio.Lock | None = None  # of its visitors while it does not run
        self.keep = False  # a restart is under way: --rm must wait
        self.removed = False

    @property
    def id(self) -> str:
        return self.container.id

    @property
    def state(self) -> ContainerState:
        return self.container.state

    def release(self, *conditions: WaitCondition, status: ExitStatus) -> None:
        """Answer those who wait for one of ``conditions``."""
        left = []
        for condition, future in self.waiters:
            if condition not in conditions:
                left.append((condition, future))
            elif not future.done():
                future.set_result(status)
        self.waiters = [entry for entry in left if not entry[1].done()]


_decoder = msgspec.msgpack.Decoder(Container)
_encoder = msgspec.msgpack.Encoder()


class ContainerStore:
    """Lookup by id, name or unique prefix; every change is written through."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._owed: set[str] = set()  # ids of containers whose newest state the host did not let be recorded
        self._by_id: dict[str, Instance] = {}
        self._by_name: dict[str, Instance | str] = {}  # a string: the id of one being created
        self._creating: dict[str, Container] = {}  # by name
        self._ids: list[str] = []  # sorted, for prefixes

    def load(self, data_root: str) -> list[Instance]:
        """Read every container from the database; called once, when the daemon starts.

        What their records name below another data root was moved to ``data_root`` with it.
        """
        rows = self._database.read(lambda db: db.execute("SELECT name, document FROM containers").fetchall())
        for name, document in rows:
            # The column is the truth: a renamed container's document may be one write behind.
            try:
                container = replace(_decoder.decode(document), name=name)
            except (msgspec.DecodeError, ValueError) as error:
                raise unreadable(self._database.path, f"container {name}", error) from error
            self._insert(Instance(moving.at(data_root, container)))
        return list(self)

    def __iter__(self) -> Iterator[Instance]:
        return iter(list(self._by_id.values()))

    def __len__(self) -> int:
        return len(self._by_id)

    def __contains__(self, container_id: str) -> bool:
        return container_id in self._by_id

    def find(self, ref: str) -> Instance:
        """Full id, then name, then unique id prefix. NotFound, or InvalidArgument for an ambiguous prefix."""
        found = self._by_id.get(ref)
        if found is not None:
            return found
        named = self._by_name.get(ref.removeprefix("/"))
        if isinstance(named, Instance):
            return named
        linked = self._linked(ref)
        if linked is not None:
            return linked
        matches = self._with_prefix(ref) if ref else []
        if not matches:
            raise NotFound(f"No such container: {ref}")
        if len(matches) > 1:
            raise InvalidArgument(f"multiple IDs found with provided prefix: {ref}")
        return self._by_id[matches[0]]

    def _linked(self, ref: str) -> Instance | None:
        """The container that another knows by the name ``PARENT/ALIAS`` (``links``)."""
        name, slash, alias = ref.removeprefix("/").partition("/")
        parent = self._by_name.get(name) if slash else None
        if not isinstance(parent, Instance):
            return None
        children = (text.partition(":") for text in parent.container.host.links or ())
        return next((self._by_id.get(child) for child, _, known in children if known == alias), None)

    def reserve(self, name: str, container_id: str) -> None:
        """Take ``name`` for a container that is about to be added; Conflict in Docker's words when taken."""
        holder = self._by_name.get(name)
        if holder is not None:
            holder_id = holder if isinstance(holder, str) else holder.id
            raise Conflict(
                f'Conflict. The container name "/{name}" is already in use by container "{holder_id}". '
                "You have to remove (or rename) that container to be able to reuse that name."
            )
        self._by_name[name] = container_id

    def taken(self, name: str) -> bool:
        return name in self._by_name

    def unreserve(self, name: str) -> None:
        """Give a reserved name back, when the container did not come to be."""
        self._creating.pop(name, None)
        if isinstance(self._by_name.get(name), str):
            del self._by_name[name]

    def announce(self, container: Container) -> None:
        """Let ``containers_of`` know of a container that is being created under a reserved name."""
        self._creating[container.name] = container

    def containers_of(self, image_id: str) -> list[Container]:
        """The containers of an image, those being created and those that mount it elsewhere included: while
        there is one, it must stay."""
        return [
            container
            for container in self.everything()
            if container.image_id == image_id
            or any(point.type == "image" and point.source == image_id for point in container.mounts)
        ]

    def everything(self) -> list[Container]:
        """Every container, those being created included."""
        return [*(instance.container for instance in self), *self._creating.values()]

    async def add(self, container: Container, *, durable: bool) -> Instance:
        """Write a container whose name was reserved, then let others find it."""
        await self._database.write(_Put(container), durable=durable)
        instance = Instance(container)
        self._creating.pop(container.name, None)
        self._insert(instance)
        return instance

    def update(self, instance: Instance, container: Container) -> None:
        """Make ``container`` the current value; recorded soon."""
        instance.container = container
        if not instance.removed:
            self._post(container.id, _Put(container))

    def _post(self, container_id: str, work: _Put | _Delete) -> None:
        loop = asyncio.get_running_loop()

        def owe() -> None:
            with contextlib.suppress(RuntimeError):  # the loop is closed: the daemon has ended
                loop.call_soon_threadsafe(self._owe, container_id)

        self._database.post(work, owe)

    def _owe(self, container_id: str) -> None:
        """The host did not let it be recorded: what is so by then is tried to be a little later."""
        if container_id not in self._owed:
            self._owed.add(container_id)
            asyncio.get_running_loop().call_later(PAUSE, self._pay, container_id)

    def _pay(self, container_id: str) -> None:
        self._owed.discard(container_id)
        instance = self._by_id.get(container_id)
        with contextlib.suppress(Unavailable):  # the database is closed
            self._post(container_id, _Delete(container_id) if instance is None else _Put(instance.container))

    def show(self, instance: Instance, container: Container) -> None:
        """Make ``container`` the current value; recorded with the next update."""
        instance.container = container

    async def recorded(self) -> None:
        """Return when every update so far is in the database."""
        await self._database.drain()

    async def lasting(self, instance: Instance) -> None:
        """Return when every update of a container so far is on the disk, if the container is to last."""
        host = instance.container.host
        # Only a transaction that changes something takes those before it along.
        await self._database.write(_Touch(instance.id), durable=not host.auto_remove)

    async def rename(self, instance: Instance, name: str) -> None:
        """Change the name to ``name``, which was reserved; the old one is free when this returns."""
        await self._database.write(_Rename(instance.id, name))
        # Only now: the container may have changed otherwise while the name was written.
        if instance.removed:
            raise NotFound(f"No such container: {instance.id}")
        self._by_name.pop(instance.container.name, None)
        self._by_name[name] = instance
        self.update(instance, replace(instance.container, name=name))

    def withdraw(self, instance: Instance) -> None:
        """Let nobody find it any more, and free its name. The record stays until ``forget``."""
        if instance.removed:
            return
        instance.removed = True
        self._by_id.pop(instance.id, None)
        if self._by_name.get(instance.container.name) is instance:
            del self._by_name[instance.container.name]
        place = bisect.bisect_left(self._ids, instance.id)
        if place < len(self._ids) and self._ids[place] == instance.id:
            del self._ids[place]

    async def forget(self, container_id: str, *, durable: bool) -> None:
        """Delete the record."""
        await self._database.write(_Delete(container_id), durable=durable)

    def forget_soon(self, container_id: str) -> None:
        """Delete the record without waiting; a name written after this may be the same."""
        self._post(container_id, _Delete(container_id))

    def _insert(self, instance: Instance) -> None:
        self._by_id[instance.id] = instance
        self._by_name[instance.container.name] = instance
        bisect.insort(self._ids, instance.id)

    def _with_prefix(self, prefix: str) -> list[str]:
        start = bisect.bisect_left(self._ids, prefix)
        return [found for found in self._ids[start : start + 2] if found.startswith(prefix)]


class _Put:
    """Write one container as a row; encoded on the caller's thread, where the value is current."""

    __slots__ = ("_row",)

    def __init__(self, container: Container) -> None:
        if container.temporary:
            # Its row only tells the next daemon what to remove; what a build lends it is to be on no disk.
            container = replace(container, config=replace(container.config, env=None))
        self._row = (container.id, container.name, container.image_id, _encoder.encode(container))

    def __call__(self, connection: sqlite3.Connection) -> None:
        connection.execute(
            "INSERT INTO containers (id, name, image_id, document) VALUES (?, ?, ?, ?) "
            "ON CONFLICT (id) DO UPDATE SET name=excluded.name, document=excluded.document",
            self._row,
        )


class _Rename:
    """Take a name durably; the document with it follows."""

    __slots__ = ("_id", "_name")

    def __init__(self, container_id: str, name: str) -> None:
        self._id = container_id
        self._name = name

    def __call__(self, connection: sqlite3.Connection) -> None:
        connection.execute("UPDATE containers SET name=? WHERE id=?", (self._name, self._id))


class _Touch:
    """Write a container's row as it is, if it is there."""

    __slots__ = ("_id",)

    def __init__(self, container_id: str) -> None:
        self._id = container_id

    def __call__(self, connection: sqlite3.Connection) -> None:
        connection.execute("UPDATE containers SET name = name WHERE id = ?", (self._id,))


class _Delete:
    __slots__ = ("_id",)

    def __init__(self, container_id: str) -> None:
        self._id = container_id

    def __call__(self, connection: sqlite3.Connection) -> None:
        connection.execute("DELETE FROM containers WHERE id=?", (self._id,))
