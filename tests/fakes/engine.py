"""What the container use cases stand on, in memory, and a whole engine on top of it.

The fake runtime runs no program: a test ends its tasks, or lets signals do it. It understands some scripts,
so that the same tests can run on the real one: ``exit N``, ``trap 'exit N' TERM; …`` and ``trap '' TERM; …``.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import random
import shlex
import signal
import socket
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from sampan.engine.events import Events, Subscription
from sampan.engine.host import HostFacts
from sampan.engine.launches import Sources
from sampan.engine.lookups import Lookups
from sampan.engine.model import ContainerConfig, Filters, HostConfig, NetworkingConfig
from sampan.engine.model.volumes import Volume
from sampan.engine.options import EngineOptions
from sampan.engine.paths import Paths
from sampan.engine.ports import ClientStream, Runtime, Snapshots
from sampan.engine.settings import Settings
from sampan.engine.store import ContainerStore
from sampan.engine.timers import on_loop
from sampan.engine.watching import Watching
from sampan.engine.wiring import ContainerUseCases, Foundations, wire
from sampan.errors import Conflict, NotFound, StartCutShort, StartFailed, Unavailable
from sampan.images.model import Image
from sampan.linux.diskspace import Space
from sampan.runtime.runtime import is_frozen
from sampan.sandbox.messages import AttachOptions, Endpoint, Exit, Launch, RootFilesystem, encode
from sampan.spec.image import RunConfig, parse_image
from sampan.state import Database
from sampan.wire import stdcopy

if TYPE_CHECKING:
    from sampan.spec.runtime import LinuxResources, Process, Seccomp

NOT_FOUND = "nosuch"
DENIED = "denied"
STUBBORN = "stubborn"  # as a command: ignores SIGTERM

FACTS = HostFacts(
    cpu_count=2,
    cpus="0-1",
    memory_nodes="0",
    memory_total=8 << 30,
    cgroup_version="1",
    swap_limit=True,
    kernel_version="6.1.0",
    operating_system="Debian GNU/Linux 12 (bookworm)",
    os_version="12",
    architecture="x86_64",
    hostname="harbour",
    ip_forwarding=lambda: True,
    apparmor=False,
)


def make_image(number: int, run: RunConfig) -> Image:
    """An image without layers whose files belong to ids up to 1000."""
    document = {
        "architecture": "amd64",
        "os": "linux",
        "author": str(number),
        "rootfs": {"type": "layers", "diff_ids": []},
        "config": run.document(),
    }
    parsed = parse_image(json.dumps(document).encode())
    return Image(
        id=parsed.digest,
        config=parsed,
        manifest=None,
        chain=(),
        blobs=(),
        size=0,
        max_id=1000,
        loaded_ns=0,
        tagged_ns=0,
    )


class FakeCatalog:
    def __init__(self) -> None:
        self.images: dict[str, Image] = {}

    def add(self, name: str, run: RunConfig) -> Image:
        image = make_image(len(self.images), run)
        self.images[name] = image
        self.images[image.id] = image
        return image

    async def resolve(self, reference: str, wanted: tuple[str, str, str] | None = None) -> Image:
        return self.find(reference)

    def means(self, text: str, image_id: str) -> bool:
        return self.find(text).id == image_id

    def find(self, reference: str) -> Image:
        found = self.images.get(reference) or self.images.get(reference.removesuffix(":latest"))
        if found is None:
            raise NotFound(f"No such image: {reference}" + ("" if ":" in reference else ":latest"))
        return found


class FakeSnapshots:
    driver = "overlay2"

    def __init__(self) -> None:
        self.there: set[str] = set()
        self.largest: dict[str, int] = {}
        self.refuse: str | None = None

    async def prepare(self, key: str, image: object) -> RootFilesystem:
        if self.refuse:
            raise Conflict(self.refuse)
        self.there.add(key)
        self.largest[key] = getattr(image, "max_id", 0)
        return self.mounts(key)

    async def sync(self, key: str) -> None:
        assert key in self.there

    def is_whole(self, key: str) -> bool:
        return key in self.there

    async def complete(self, key: str, chain_id: object) -> None:
        self.there.add(key)

    def layers(self, key: str) -> tuple[str, ...]:
        return tuple(f"/data/{lower}" for lower in self.mounts(key).lowers)

    def max_id(self, key: str) -> int:
        return self.largest[key]

    def mounts(self, key: str) -> RootFilesystem:
        return RootFilesystem(base="/layers", lowers=("1",), upper=f"{key}/upper", work=f"{key}/work")

    async def remove(self, key: str, *, then: Callable[[], object] | None = None) -> None:
        if self.refuse:
            raise Conflict(self.refuse)
        self.there.discard(key)
        if then is not None:
            then()

    def keys(self) -> Iterable[str]:
        return list(self.there)

    async def usage(self, keys: Iterable[str]) -> dict[str, Space]:
        full = Space(apparent=10, occupied=4096)
        return {key: full if key in self.there else Space() for key in keys}


class FakeBridges:
    def __init__(self) -> None:
        self.connected: dict[str, Endpoint] = {}
        self.reconciled: list[str] | None = None
        self.swept = 0
        self._hosts = itertools.count(2)

    async def connect(
        self,
        container_id: str,
        *,
        network: str = "bridge",
        name: str = "eth0",
        mac: str | None = None,
        addresses: Sequence[str] = (),
    ) -> Endpoint:
        number = next(self._hosts)
        endpoint = Endpoint(
            bridge="br-fake",
            host_name=f"veth{number}",
            mac=mac or f"02:42:ac:11:00:{number:02x}",
            addresses=(f"172.17.0.{number}/16",),
            gateway="172.17.0.1",
        )
        self.connected[container_id] = endpoint
        return endpoint

    async def release(self, container_id: str, network: str | None = None) -> None:
        self.connected.pop(container_id, None)

    async def sweep(self, network: str | None = None, container_id: str | None = None) -> None:
        self.swept += 1

    async def reconcile(self, live: Mapping[str, int]) -> None:
        self.reconciled = list(live)

    def endpoints(self, network: str = "bridge") -> Mapping[str, Endpoint]:
        return self.connected


class FakeVolumes:
    def __init__(self) -> None:
        self.there: set[str] = set()
        self.populated: list[tuple[str, str]] = []
        self.held: set[tuple[str, str]] = set()
        self._numbers = itertools.count(1)

    async def ensure(
        self,
        name: str | None,
        *,
        labels: Mapping[str, str] | None = None,
        driver: str = "",
        options: Mapping[str, str] | None = None,
    ) -> str:
        name = name or f"{next(self._numbers):064x}"
        self.there.add(name)
        return name

    def mount_source(self, name: str) -> str:
        if name not in self.there:
            raise NotFound(f"get {name}: no such volume")
        return f"/volumes/{name}/_data"

    def get(self, name: str) -> Volume:
        return Volume(name=name, mountpoint=self.mount_source(name), created_ns=0, labels=None)

    async def hold(self, name: str, holder: str) -> str:
        self.held.add((name, holder))
        return self.mount_source(name)

    async def release(self, holder: str) -> None:
        self.held = {pair for pair in self.held if pair[1] != holder}

    async def settle(self, living: Iterable[str]) -> None:
        self.held = {pair for pair in self.held if pair[1] in set(living)}

    async def populate(self, name: str, root: RootFilesystem, path: str) -> None:
        self.populated.append((name, path))

    async def remove(self, name: str, *, force: bool = False) -> None:
        self.there.discard(name)


class FakeFilters:
    async def path(self, profile: str | None, capabilities: frozenset[str]) -> str:
        return "/seccomp/default.bpf" if profile is None else "/seccomp/own.bpf"

    def rules(self, profile: str | None, capabilities: Iterable[str]) -> Seccomp:
        return {"defaultAction": "SCMP_ACT_ALLOW" if profile is None else "SCMP_ACT_LOG"}


class FakeStream:
    """A client's connection; ``client`` is its far end."""

    def __init__(self, early: bytes = b"") -> None:
        self.client, self._ours = socket.socketpair()
        self.client.settimeout(5)
        self._early = early
        self.detached = False

    def detach(self) -> tuple[socket.socket, bytes]:
        self.detached = True
        return self._ours, self._early

    def received(self) -> bytes:
        """Everything until the other side closes."""
        data = b""
        while chunk := self.client.recv(65536):
            data += chunk
        self.client.close()
        return data


class FakeTimers:
    """Timers that fire when the test lets time pass, in seconds; ``settle`` runs after each."""

    def __init__(self) -> None:
        self.time = 0.0
        self.pending: list[FakeTimer] = []

    def later(self, seconds: float, callback: Callable[[], None]) -> FakeTimer:
        timer = FakeTimer(self, self.time + seconds, callback)
        self.pending.append(timer)
        return timer

    @property
    def waits(self) -> list[float]:
        """The seconds until each timer that is pending."""
        return sorted(round(timer.at - self.time, 6) for timer in self.pending)

    async def elapse(self, seconds: float) -> None:
        end = self.time + seconds
        await settle()
        while due := [timer for timer in self.pending if timer.at <= end + 1e-9]:
            first = min(due, key=lambda timer: timer.at)
            self.time = max(self.time, first.at)
            self.pending.remove(first)
            first.callback()
            await settle()
        self.time = end


class FakeTimer:
    def __init__(self, timers: FakeTimers, at: float, callback: Callable[[], None]) -> None:
        self._timers = timers
        self.at = at
        self.callback = callback

    def cancel(self) -> None:
        if self in self._timers.pending:
            self._timers.pending.remove(self)


class FakeExecTask:
    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.exited: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self.size = (0, 0)

    async def resize(self, height: int, width: int) -> None:
        self.size = (height, width)


class FakeTask:
    def __init__(self, launch: Launch, pid: int, started_at: float) -> None:
        self.launch = launch
        self.pid = pid
        self.started_at = started_at
        self.host_ids = ""
        self.cgroup: str = launch.spec["linux"]["cgroupsPath"]
        self.exited: asyncio.Future[Exit] = asyncio.get_running_loop().create_future()
        self.on_detach: Callable[[], None] = lambda: None
        self.on_log: Callable[[str], None] = lambda _what: None
        self.patient: list[bool] = []
        self.signals: list[int] = []
        self.frozen = False
        self.gate: asyncio.Event | None = None  # closed: pausing waits
        self.dying: int | None = None  # the exit code of a program that ends while its keeper is asked
        self.size = (0, 0)
        self.memory_used = 0
        self.limits: list[LinuxResources] = []
        self.attached: list[tuple[ClientStream, AttachOptions]] = []
        self.execs: list[tuple[str, Process, dict[str, Any]]] = []
        self.exec_tasks: list[FakeExecTask] = []
        self.said = b""  # what every exec writes to its client
        self.exec_limits: list[float | None] = []

    def end(
        self,
        code: int = 0,
        *,
        oom_killed: bool = False,
        error: str = "",
        ran: float = 3,
        timed_out: bool = False,
    ) -> None:
        """The program ends; the record is written first, as a keeper does."""
        if self.exited.done():
            return
        ended = Exit(
            code=code,
            oom_killed=oom_killed,
            error=error,
            finished_at=self.started_at + ran,
            timed_out=timed_out,
        )
        with open(f"{self.launch.state}/exit.json", "wb") as file:
            file.write(encode(ended))
        self.exited.set_result(ended)

    async def log(self, *, patient: bool) -> None:
        self.patient.append(patient)

    async def update(self, resources: LinuxResources) -> None:
        limit = resources.get("memory", {}).get("limit", 0)
        if 0 < limit < self.memory_used:
            raise Conflict(f"unable to set memory limit to {limit} (current usage: {self.memory_used})")
        self.limits.append(resources)

    async def signal(self, number: int) -> None:
        self.signals.append(number)
        if number == signal.SIGKILL:
            self.end(137)
        elif number == signal.SIGTERM:
            self._terminate(self.launch.spec["process"]["args"])

    def _terminate(self, args: list[str]) -> None:
        if (handler := _script(args, "trap")) is None:
            if args[0] != STUBBORN:
                self.end(143)
        elif handler.startswith("exit "):
            self.end(int(handler.removeprefix("exit ")))

    async def pause(self) -> None:
        if self.dying is not None:
            asyncio.get_running_loop().call_soon(self.end, self.dying)
            raise Unavailable("the container's keeper is gone")
        if self.gate is not None:
            await self.gate.wait()
        self.frozen = True

    async def resume(self) -> None:
        self.frozen = False

    async def resize(self, height: int, width: int) -> None:
        self.size = (height, width)

    async def attach(self, stream: ClientStream, options: AttachOptions) -> None:
        self.attached.append((stream, options))

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
    ) -> FakeExecTask:
        if stream is not None:
            sock, _ = stream.detach()
            if self.said:
                sock.sendall(stdcopy.frame(stdcopy.STDOUT, self.said))
            sock.close()
        self.exec_limits.append(limit)
        if self.dying is not None:
            asyncio.get_running_loop().call_soon(self.end, self.dying)
            raise StartFailed("cannot join the container: No such process", exit_code=126)
        program = process["args"][0]
        if program == NOT_FOUND:
            raise StartFailed(f'exec: "{program}": executable file not found in $PATH', exit_code=127)
        self.execs.append((exec_id, process, {"user": user, "filtered": filtered, "stdin": stdin}))
        task = FakeExecTask(self.pid + len(self.execs))
        self.exec_tasks.append(task)
        if (code := _script(process["args"], "exit")) is not None:
            asyncio.get_running_loop().call_soon(task.exited.set_result, int(code))
        return task


def _script(args: Sequence[str], word: str) -> str | None:
    """The first argument of a script that begins with ``word``, None for any other command."""
    if tuple(args[:2]) != ("sh", "-c") or not args[2].startswith(word + " "):
        return None
    return shlex.split(args[2])[1]


class FakeRuntime:
    """``tasks`` by container id; those in ``living`` are adopted by a new engine."""

    def __init__(self) -> None:
        self.tasks: dict[str, FakeTask] = {}
        self.living: dict[str, FakeTask] = {}
        self.launches: list[Launch] = []
        self.expected: list[Launch] = []
        self.gate: asyncio.Event | None = None  # closed: launches wait
        self.refuse = ""  # why nothing can be launched
        self.cut_short = False  # by a death among the engine's processes
        self._pids = itertools.count(1000, 100)

    def expect(self, launch: Launch) -> None:
        self.expected.append(launch)

    async def launch(
        self, launch: Launch, attachments: Sequence[tuple[ClientStream, AttachOptions]]
    ) -> FakeTask:
        self.launches.append(launch)
        if self.gate is not None:
            await self.gate.wait()
        program = launch.spec["process"]["args"][0]
        if self.refuse:
            raise (StartCutShort if self.cut_short else StartFailed)(self.refuse, exit_code=128)
        if program in (NOT_FOUND, DENIED):
            for stream, _ in attachments:
                stream.detach()[0].close()
            code, reason = (
                (127, "executable file not found in $PATH")
                if program == NOT_FOUND
                else (126, "permission denied")
            )
            raise StartFailed(f'OCI runtime create failed: exec: "{program}": {reason}', exit_code=code)
        os.makedirs(launch.bundle, exist_ok=True)
        if os.path.exists(f"{launch.state}/exit.json"):
            os.unlink(f"{launch.state}/exit.json")
        task = FakeTask(launch, next(self._pids), 1_700_000_000.0)
        task.attached.extend(attachments)
        self.tasks[launch.id] = task
        if (ending := _script(launch.spec["process"]["args"], "exit")) is not None:
            asyncio.get_running_loop().call_soon(task.end, int(ending))
        return task

    async def adopt(self, container_id: str) -> FakeTask | None:
        task = self.living.get(container_id)
        if task is None:
            return None
        self.tasks[container_id] = FakeTask(task.launch, task.pid, task.started_at)
        return self.tasks[container_id]


class World:
    """An engine on fakes, in a directory of its own, with a clock that ticks a millisecond at each look."""

    def __init__(
        self,
        root: str,
        *,
        options: EngineOptions | None = None,
        facts: HostFacts = FACTS,
        runtime: Runtime | None = None,
        timers: FakeTimers | None = None,
        snapshots: Snapshots | None = None,
    ) -> None:
        self.paths = Paths(data=f"{root}/data", run=f"{root}/run")
        self.catalog = FakeCatalog()
        self.catalog.add("base", RunConfig(cmd=("sh",), env=("PATH=/bin",)))
        self.snapshots = FakeSnapshots()
        self._snapshots = snapshots or self.snapshots
        self.bridges = FakeBridges()
        self.volumes = FakeVolumes()
        self.runtime = FakeRuntime()
        self._runtime = runtime or self.runtime
        self.ended_groups: list[str] = []
        self.time = 1_700_000_000_000_000_000
        self.settings = Settings(
            paths=self.paths,
            options=options or EngineOptions(),
            facts=facts,
            now=self._tick,
            later=timers.later if timers else on_loop,
            chance=random.Random(7),
        )
        self.open()

    def _tick(self) -> int:
        self.time += 1_000_000
        return self.time

    def open(self) -> None:
        """Build the engine; called again, it is the next daemon on the same files."""
        self.database = Database.open(self.paths.database)
        self.events = Events(self._tick)
        self.store = ContainerStore(self.database)
        self.watching = Watching()
        sources = Sources(
            catalog=self.catalog, snapshots=self._snapshots, volumes=self.volumes, filters=FakeFilters()
        )
        self.lookups = Lookups(store=self.store, catalog=self.catalog)
        self.built: ContainerUseCases = wire(
            Foundations(
                store=self.store,
                events=self.events,
                sources=sources,
                bridges=self.bridges,
                network_id=lambda name: f"id-of-{name}",
                runtime=self._runtime,
                end_group=self.ended_groups.append,
                is_frozen=self._is_frozen,
                watching=self.watching,
                settings=self.settings,
            )
        )
        self.containers = self.built.containers
        self.execs = self.built.execs

    def close(self) -> None:
        self.watching.close()
        self.database.close()

    def _is_frozen(self, path: str) -> bool:
        if isinstance(self._runtime, FakeRuntime):
            return self._runtime.living[path.rpartition("/")[2]].frozen
        return is_frozen(path)

    async def restart_daemon(self) -> None:
        """Forget everything in memory and come back; tasks in ``runtime.living`` are still there."""
        self.close()
        self.open()
        await self.built.recovery.run()

    async def create(self, *command: str, name: str | None = None, image: str = "base", **host: Any) -> str:
        config = ContainerConfig(image=image, cmd=command or ("sleep",))
        created = await self.containers.create(name, config, HostConfig(**host), NetworkingConfig())
        return created.id

    async def run(self, *command: str, name: str | None = None, **host: Any) -> str:
        container_id = await self.create(*command, name=name, **host)
        await self.containers.start(container_id)
        return container_id

    def task(self, container_id: str) -> FakeTask:
        return self.runtime.tasks[container_id]

    def record_events(self, **filters: tuple[str, ...]) -> Recorder:
        return Recorder(self.events.subscribe(filters=Filters(filters)))


class Recorder:
    """What was published since it was made."""

    def __init__(self, subscription: Subscription) -> None:
        self._subscription = subscription

    async def told(self) -> list[str]:
        self._subscription.close()
        return [event.action async for event in self._subscription]


async def settle() -> None:
    """Let everything run that can run without waiting for the outside."""
    for _ in range(20):
        await asyncio.sleep(0)
