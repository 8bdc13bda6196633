"""What crosses the sockets between daemon, zygote and keeper: frozen values with a JSON form.

Law: a message names everything that its receiver needs; a keeper looks nothing up elsewhere. Every message
carries ``PROTOCOL`` so that a keeper left by another version is recognised before it is spoken to.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sampan.spec.runtime import Spec

PROTOCOL = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class RootFilesystem:
    """A container's root as directories; described by the snapshot store, mounted by the keeper.

    All paths are relative to ``base`` (absolute), which keeps them short: the kernel takes one page of mount
    options. ``lowers`` is topmost first. ``kind`` says how the root is put together of them: "" by an
    overlay; "fuse" by fuse-overlayfs; with "tree" it is ``upper`` alone, a copy of ``lowers`` with all that
    was changed in it, and ``work`` a file made when the copy was complete.
    """

    base: str
    lowers: tuple[str, ...]
    upper: str
    work: str
    kind: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class RootDirectory:
    """A root that somebody else has put together at ``path``, with owners as the container is to see them.

    ``hooks``: the start waits for hooks before it is entered.
    """

    path: str
    hooks: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """One interface of a container: a veth pair whose host end is a port of ``bridge``; or, of a ``kind``
    ("macvlan", "ipvlan") and its ``mode``, a further one of the host's link ``parent``.

    ``addresses`` are in CIDR notation; ``mtu`` is in bytes, 0 for the kernel's default. ``isolated``: it
    reaches no other port of the bridge, only the host. ``hairpin``: the bridge may give back to it what came
    from it: a published port that it asks for itself.
    """

    bridge: str
    host_name: str
    name: str = "eth0"
    mac: str = ""
    addresses: tuple[str, ...] = ()
    gateway: str | None = None
    gateway6: str | None = None
    mtu: int = 0
    isolated: bool = False
    hairpin: bool = False
    parent: str = ""
    kind: str = ""
    mode: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Neighbour:
    """A container whose namespaces are joined: the pid of its first process and its cgroup."""

    pid: int
    cgroup: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ExternalRuntime:
    """An OCI runtime that runs a container in place of ours: its program and its own arguments."""

    path: str
    arguments: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class LogFile:
    """A json-file log: rotated to ``path.1`` … when it would pass ``max_size`` bytes (0: never).

    ``attributes`` is an encoded JSON object that every record carries. ``compressed``: the daemon compresses
    rotated files to ``path.1.gz`` …. ``patient``: the oldest is not dropped before the daemon has sent it on.
    """

    path: str
    max_size: int = 20 << 20
    max_files: int = 5
    attributes: str = ""
    compressed: bool = False
    patient: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class AttachOptions:
    """How a client socket is joined to a process's streams.

    ``multiplex`` frames output as in Docker's stdcopy; without it bytes are raw (a terminal has one stream),
    or in ``websocket`` frames both ways.
    ``logs`` replays the log first, ``stream`` goes on live.
    """

    stdin: bool = False
    stdout: bool = False
    stderr: bool = False
    stream: bool = True
    logs: bool = False
    detach_keys: str | None = None
    multiplex: bool = True
    websocket: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class InitialClient:
    """A client that is attached before the start; ``early`` is input that it sent ahead, as latin-1."""

    options: AttachOptions
    early: str


@dataclass(frozen=True, slots=True, kw_only=True)
class TimeLimit:
    """A run is ended ``seconds`` after its start: ``signal``, then SIGKILL after ``grace`` seconds.

    ``grace`` None: no SIGKILL follows.
    """

    seconds: float
    signal: int
    grace: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Launch:
    """One start of a container.

    ``bundle`` is the run-time directory (keeper socket, root mount point), ``state`` the durable one, where
    ``exit.json`` is written. ``user`` is Docker's USER string, resolved inside the container's root; when it
    is None, ``spec["process"]["user"]`` holds numbers. ``seccomp_filter`` is the path of a compiled BPF
    program. ``console_size`` is (height, width) in characters. The sockets of ``clients`` travel beside it.
    ``neighbours`` are those whose namespaces the specification names by path. ``host_ids_allowed``: when a
    mount cannot be given the container's own ids, it is started with the host's. ``more`` are interfaces
    beside ``endpoint``, on further networks; ``names`` is the path of the socket that wants the sockets on
    which the container asks for names, empty if it asks somebody else.
    """

    id: str
    bundle: str
    state: str
    spec: Spec
    root: RootFilesystem | RootDirectory
    user: str | None = None
    group_add: tuple[str, ...] = ()
    seccomp_filter: str | None = None
    endpoint: Endpoint | None = None
    more: tuple[Endpoint, ...] = ()
    names: str = ""
    open_stdin: bool = False
    stdin_once: bool = False
    log: LogFile | None = None
    init: bool = False
    console_size: tuple[int, int] | None = None
    clients: tuple[InitialClient, ...] = ()
    runtime: ExternalRuntime | None = None
    neighbours: tuple[Neighbour, ...] = ()
    host_ids_allowed: bool = False
    limit: TimeLimit | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Keeping:
    """What a keeper must know of its container for life; the rest is read once, by its launcher.

    ``namespaces`` are the types of the namespaces that it does not share with the host (but for a pid
    namespace that is another container's, which does not end with it), ``attached`` says whether clients are
    attached from the start, ``request`` is the number of the one that the daemon answers by it; see
    ``Launch`` for the others. On the wire it is preceded by one byte of flags, all that a keeper looks at
    before something happens.
    """

    id: str
    bundle: str
    state: str
    cgroup: str
    namespaces: tuple[str, ...]
    terminal: bool
    open_stdin: bool
    stdin_once: bool
    log: LogFile | None
    seccomp_filter: str | None
    group_add: tuple[str, ...]
    attached: bool
    runtime: ExternalRuntime | None
    limit: TimeLimit | None
    request: int = 0

    @classmethod
    def of(cls, launch: Launch, request: int = 0) -> Keeping:
        linux = launch.spec["linux"]
        return cls(
            id=launch.id,
            bundle=launch.bundle,
            state=launch.state,
            cgroup=linux["cgroupsPath"],
            namespaces=tuple(
                n["type"] for n in linux["namespaces"] if n["type"] != "pid" or not n.get("path")
            ),
            terminal=bool(launch.spec["process"].get("terminal")),
            open_stdin=launch.open_stdin,
            stdin_once=launch.stdin_once,
            log=launch.log,
            seccomp_filter=launch.seccomp_filter,
            group_add=launch.group_add,
            attached=bool(launch.clients),
            runtime=launch.runtime,
            limit=launch.limit,
            request=request,
        )

    @property
    def flags(self) -> int:
        return (
            (TERMINAL if self.terminal else 0)
            | (STDIN if self.open_stdin else 0)
            | (LOGGED if self.log else 0)
            | (CLIENTS if self.attached else 0)
            | (TIMED if self.limit else 0)
            | (EXTERNAL if self.runtime else 0)
        )

    def encode(self) -> bytes:
        return bytes((self.flags,)) + encode(self)

    @property
    def surroundings(self) -> Surroundings:
        return Surroundings(
            cgroup=self.cgroup,
            namespaces=self.namespaces,
            seccomp_filter=self.seccomp_filter,
            group_add=self.group_add,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Surroundings:
    """What a further process has to know of its container; see ``Keeping``."""

    cgroup: str
    namespaces: tuple[str, ...]
    seccomp_filter: str | None
    group_add: tuple[str, ...]


# 128 marks what is no container; see ``visit``.
TERMINAL, STDIN, LOGGED, CLIENTS, EXTERNAL, TIMED = 1, 2, 4, 8, 32, 64


@dataclass(frozen=True, slots=True, kw_only=True)
class Exit:
    """How a container's first process ended. ``finished_at`` is in seconds since the epoch.

    ``timed_out``: it had been asked to end because its time was over.
    """

    code: int
    oom_killed: bool = False
    finished_at: float = 0.0
    error: str = ""
    timed_out: bool = False


def encode(message: Any) -> bytes:
    """A message, or a plain document, as JSON bytes."""
    return json.dumps(message, default=fields_of, separators=(",", ":")).encode()


def fields_of(message: Any) -> dict[str, Any]:
    """A message as a JSON object, one level deep: nothing is copied."""
    return {name: getattr(message, name) for name in message.__slots__}


def decode_launch(data: bytes) -> Launch:
    document = json.loads(data)
    root, endpoint, log = document["root"], document["endpoint"], document["log"]
    runtime = document["runtime"]
    document["root"] = RootFilesystem(**{**root, "lowers": tuple(root["lowers"])})
    if endpoint is not None:
        document["endpoint"] = _decode_endpoint(endpoint)
    document["more"] = tuple(map(_decode_endpoint, document["more"]))
    if log is not None:
        document["log"] = LogFile(**log)
    document["group_add"] = tuple(document["group_add"])
    size = document["console_size"]
    document["console_size"] = (size[0], size[1]) if size else None
    document["clients"] = tuple(map(decode_client, document["clients"]))
    document["runtime"] = runtime and decode_runtime(runtime)
    document["neighbours"] = tuple(Neighbour(**found) for found in document["neighbours"])
    document["limit"] = _decode_limit(document["limit"])
    return Launch(**document)


def _decode_endpoint(document: dict[str, Any]) -> Endpoint:
    return Endpoint(**{**document, "addresses": tuple(document["addresses"])})


def decode_client(document: dict[str, Any]) -> InitialClient:
    return InitialClient(options=AttachOptions(**document["options"]), early=document["early"])


def decode_keeping(data: bytes) -> Keeping:
    document = json.loads(data[1:])
    log, runtime = document["log"], document["runtime"]
    return Keeping(
        **{
            **document,
            "namespaces": tuple(document["namespaces"]),
            "group_add": tuple(document["group_add"]),
            "log": LogFile(**log) if log else None,
            "runtime": runtime and decode_runtime(runtime),
            "limit": _decode_limit(document["limit"]),
        }
    )


def decode_runtime(document: dict[str, Any]) -> ExternalRuntime:
    return ExternalRuntime(path=document["path"], arguments=tuple(document["arguments"]))


def _decode_limit(document: dict[str, Any] | None) -> TimeLimit | None:
    return TimeLimit(**document) if document else None


def decode_attach(document: dict[str, Any]) -> AttachOptions:
    return AttachOptions(**document)


def decode_exit(data: bytes) -> Exit:
    return Exit(**json.loads(data))
