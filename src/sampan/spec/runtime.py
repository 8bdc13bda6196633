"""OCI runtime specification: the document between engine and runtime, and Docker's defaults for it.

A specification is a plain JSON object (a ``dict``): it is produced by the engine, executed by our runtime or
handed unchanged to an external one. The ``TypedDict`` classes describe it to the type checker only and do not
exist at run time, because every forked child would pay for building them; import them under
``TYPE_CHECKING``.

Laws:
- ``default_spec()`` returns a document that shares nothing mutable with any other: callers edit it in place.
- It describes what `docker run` gives to a container without any option, with the implied things spelled out
  (device nodes, the device rules that runc adds by itself), so that a runtime has nothing to add.
- Capability names are spelled ``CAP_…``; ``ALL_CAPABILITIES`` is indexed by capability number.

Sources: opencontainers/runtime-spec (config.md, config-linux.md), Moby's default specification,
include/uapi/linux/capability.h.
"""

from __future__ import annotations

import functools
import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from typing import Literal, TypedDict

    class User(TypedDict, total=False):
        uid: int
        gid: int
        umask: int
        additionalGids: list[int]
        username: str

    class Capabilities(TypedDict, total=False):
        bounding: list[str]
        effective: list[str]
        permitted: list[str]
        inheritable: list[str]
        ambient: list[str]

    class Rlimit(TypedDict):
        type: str  # RLIMIT_…
        hard: int
        soft: int

    class ConsoleSize(TypedDict):
        height: int
        width: int

    class Process(TypedDict, total=False):
        terminal: bool
        consoleSize: ConsoleSize
        user: User
        args: list[str]
        env: list[str]
        cwd: str
        capabilities: Capabilities
        rlimits: list[Rlimit]
        noNewPrivileges: bool
        oomScoreAdj: int
        apparmorProfile: str
        selinuxLabel: str

    class Root(TypedDict, total=False):
        path: str
        readonly: bool

    class IdMapping(TypedDict):
        containerID: int
        hostID: int
        size: int

    class Mount(TypedDict, total=False):
        destination: str
        type: str
        source: str
        options: list[str]
        uidMappings: list[IdMapping]
        gidMappings: list[IdMapping]
        subpath: str  # ours: what is mounted is below the source, where links may lie in wait

    NamespaceKind = Literal["pid", "network", "uts", "ipc", "mount", "user", "cgroup", "time"]

    class Namespace(TypedDict, total=False):
        type: NamespaceKind
        path: str

    class Device(TypedDict, total=False):
        type: Literal["c", "b", "u", "p"]
        path: str
        major: int
        minor: int
        fileMode: int
        uid: int
        gid: int

    class DeviceRule(TypedDict, total=False):
        allow: bool
        type: Literal["a", "b", "c"]
        major: int  # absent: any
        minor: int
        access: str  # of r, w, m

    class Memory(TypedDict, total=False):  # bytes; -1: no limit
        limit: int
        reservation: int
        swap: int  # memory and swap together
        kernel: int
        kernelTCP: int
        swappiness: int  # 0 to 100
        disableOOMKiller: bool

    class Cpu(TypedDict, total=False):
        shares: int
        quota: int  # microseconds in each period; -1: no limit
        burst: int  # microseconds
        period: int  # microseconds
        realtimeRuntime: int  # microseconds
        realtimePeriod: int  # microseconds
        cpus: str  # list format, "0-2,5"
        mems: str
        idle: int

    class Pids(TypedDict):
        limit: int  # 0 or less: no limit

    class WeightDevice(TypedDict, total=False):
        major: int
        minor: int
        weight: int
        leafWeight: int

    class ThrottleDevice(TypedDict):
        major: int
        minor: int
        rate: int  # bytes or operations a second

    class BlockIo(TypedDict, total=False):
        weight: int  # 10 to 1000
        leafWeight: int
        weightDevice: list[WeightDevice]
        throttleReadBpsDevice: list[ThrottleDevice]
        throttleWriteBpsDevice: list[ThrottleDevice]
        throttleReadIOPSDevice: list[ThrottleDevice]
        throttleWriteIOPSDevice: list[ThrottleDevice]

    class HugepageLimit(TypedDict):
        pageSize: str  # "2MB", "1GB"
        limit: int

    class LinuxResources(TypedDict, total=False):
        devices: list[DeviceRule]
        memory: Memory
        cpu: Cpu
        pids: Pids
        blockIO: BlockIo
        hugepageLimits: list[HugepageLimit]
        unified: dict[str, str]

    class SeccompArgument(TypedDict, total=False):
        index: int
        value: int
        valueTwo: int
        op: str  # SCMP_CMP_…

    class SeccompRule(TypedDict, total=False):
        names: list[str]
        action: str  # SCMP_ACT_…
        errnoRet: int
        args: list[SeccompArgument]

    class Seccomp(TypedDict, total=False):
        defaultAction: str
        defaultErrnoRet: int
        architectures: list[str]  # SCMP_ARCH_…
        flags: list[str]
        listenerPath: str
        listenerMetadata: str
        syscalls: list[SeccompRule]

    class Linux(TypedDict, total=False):
        uidMappings: list[IdMapping]
        gidMappings: list[IdMapping]
        sysctl: dict[str, str]
        resources: LinuxResources
        cgroupsPath: str
        namespaces: list[Namespace]
        devices: list[Device]
        seccomp: Seccomp
        rootfsPropagation: Literal["private", "shared", "slave", "unbindable"]
        maskedPaths: list[str]
        readonlyPaths: list[str]
        mountLabel: str

    class Hook(TypedDict, total=False):
        path: str
        args: list[str]
        env: list[str]
        timeout: int  # seconds

    class Hooks(TypedDict, total=False):
        prestart: list[Hook]
        createRuntime: list[Hook]
        createContainer: list[Hook]
        startContainer: list[Hook]
        poststart: list[Hook]
        poststop: list[Hook]

    class Spec(TypedDict, total=False):
        ociVersion: str
        process: Process
        root: Root
        hostname: str
        domainname: str
        mounts: list[Mount]
        hooks: Hooks
        annotations: dict[str, str]
        linux: Linux


# What every runtime of the last years accepts; nothing newer than this version is used.
OCI_VERSION = "1.0.2"

DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

ALL_CAPABILITIES = (
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_DAC_READ_SEARCH",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_KILL",
    "CAP_SETGID",
    "CAP_SETUID",
    "CAP_SETPCAP",
    "CAP_LINUX_IMMUTABLE",
    "CAP_NET_BIND_SERVICE",
    "CAP_NET_BROADCAST",
    "CAP_NET_ADMIN",
    "CAP_NET_RAW",
    "CAP_IPC_LOCK",
    "CAP_IPC_OWNER",
    "CAP_SYS_MODULE",
    "CAP_SYS_RAWIO",
    "CAP_SYS_CHROOT",
    "CAP_SYS_PTRACE",
    "CAP_SYS_PACCT",
    "CAP_SYS_ADMIN",
    "CAP_SYS_BOOT",
    "CAP_SYS_NICE",
    "CAP_SYS_RESOURCE",
    "CAP_SYS_TIME",
    "CAP_SYS_TTY_CONFIG",
    "CAP_MKNOD",
    "CAP_LEASE",
    "CAP_AUDIT_WRITE",
    "CAP_AUDIT_CONTROL",
    "CAP_SETFCAP",
    "CAP_MAC_OVERRIDE",
    "CAP_MAC_ADMIN",
    "CAP_SYSLOG",
    "CAP_WAKE_ALARM",
    "CAP_BLOCK_SUSPEND",
    "CAP_AUDIT_READ",
    "CAP_PERFMON",
    "CAP_BPF",
    "CAP_CHECKPOINT_RESTORE",
)

DEFAULT_CAPABILITIES = (
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_FSETID",
    "CAP_FOWNER",
    "CAP_MKNOD",
    "CAP_NET_RAW",
    "CAP_SETGID",
    "CAP_SETUID",
    "CAP_SETFCAP",
    "CAP_SETPCAP",
    "CAP_NET_BIND_SERVICE",
    "CAP_SYS_CHROOT",
    "CAP_KILL",
    "CAP_AUDIT_WRITE",
)

MASKED_PATHS = (
    "/proc/acpi",
    "/proc/asound",
    "/proc/interrupts",  # interrupt counts reveal what is typed and run elsewhere (GHSA-6fw5-f8r9-fgfm)
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/sys/devices/virtual/powercap",  # energy counters reveal keys (GHSA-jq35-85cj-fj4p)
    "/sys/firmware",
)

READONLY_PATHS = ("/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger")

DEFAULT_NAMESPACES: tuple[Literal["mount", "network", "uts", "pid", "ipc"], ...] = (
    "mount",
    "network",
    "uts",
    "pid",
    "ipc",
)

# (destination, type, source, options), in the order in which they are mounted.
DEFAULT_MOUNTS = (
    ("/proc", "proc", "proc", ("nosuid", "noexec", "nodev")),
    ("/dev", "tmpfs", "tmpfs", ("nosuid", "strictatime", "mode=755", "size=65536k")),
    (
        "/dev/pts",
        "devpts",
        "devpts",
        ("nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"),
    ),
    ("/sys", "sysfs", "sysfs", ("nosuid", "noexec", "nodev", "ro")),
    ("/sys/fs/cgroup", "cgroup", "cgroup", ("ro", "nosuid", "noexec", "nodev")),
    ("/dev/mqueue", "mqueue", "mqueue", ("nosuid", "noexec", "nodev")),
    ("/dev/shm", "tmpfs", "shm", ("nosuid", "noexec", "nodev", "mode=1777", "size=67108864")),
)

# (path, major, minor): character devices of mode 0666. /dev/console and /dev/ptmx are made by the runtime.
DEFAULT_DEVICES = (
    ("/dev/null", 1, 3),
    ("/dev/zero", 1, 5),
    ("/dev/full", 1, 7),
    ("/dev/random", 1, 8),
    ("/dev/urandom", 1, 9),
    ("/dev/tty", 5, 0),
)

# (type, major, minor, access), allowed after everything has been denied. Nodes of every kind may be made but
# not opened: image builds unpack device nodes.
DEFAULT_DEVICE_RULES: tuple[tuple[Literal["b", "c"], int | None, int | None, str], ...] = (
    ("c", None, None, "m"),
    ("b", None, None, "m"),
    *(("c", major, minor, "rwm") for _, major, minor in DEFAULT_DEVICES),
    ("c", 5, 1, "rwm"),  # /dev/console
    ("c", 5, 2, "rwm"),  # /dev/ptmx
    ("c", 136, None, "rwm"),  # /dev/pts/*
)

_NUMBERS = {name: number for number, name in enumerate(ALL_CAPABILITIES)}


def capability_number(name: str) -> int:
    """The number of a capability spelled ``CAP_…``. Raises ``KeyError`` for a name that is none."""
    return _NUMBERS[name]


@functools.cache
def masked_paths() -> tuple[str, ...]:
    """The paths that Docker hides on this host: ``MASKED_PATHS`` and each CPU's thermal interrupt counters.

    The counters are as telling as /proc/interrupts. The list of CPUs is read once in a process.
    """
    try:
        names = sorted(os.listdir("/sys/devices/system/cpu"))
    except OSError:
        return MASKED_PATHS
    counters = (
        f"/sys/devices/system/cpu/{name}/thermal_throttle"
        for name in names
        if name.startswith("cpu") and name[3:].isdigit()
    )
    return MASKED_PATHS + tuple(path for path in counters if os.path.isdir(path))


def device_rule(
    device_type: Literal["b", "c"], major: int | None, minor: int | None, access: str
) -> DeviceRule:
    """A rule that allows ``access`` (of r, w, m); ``None`` stands for every number."""
    rule: DeviceRule = {"allow": True, "type": device_type, "access": access}
    if major is not None:
        rule["major"] = major
    if minor is not None:
        rule["minor"] = minor
    return rule


def default_spec() -> Spec:
    """Docker's container without any option, as a fresh document; the arguments are for the caller to set."""
    capabilities = DEFAULT_CAPABILITIES
    return {
        "ociVersion": OCI_VERSION,
        "process": {
            "terminal": False,
            "user": {"uid": 0, "gid": 0},
            "args": [],
            "env": ["PATH=" + DEFAULT_PATH],
            "cwd": "/",
            "capabilities": {
                "bounding": [*capabilities],
                "effective": [*capabilities],
                "permitted": [*capabilities],
                "inheritable": [],
                "ambient": [],
            },
            "noNewPrivileges": False,
        },
        "root": {"path": "rootfs", "readonly": False},
        "mounts": [
            {"destination": destination, "type": kind, "source": source, "options": [*options]}
            for destination, kind, source, options in DEFAULT_MOUNTS
        ],
        "linux": {
            "namespaces": [{"type": name} for name in DEFAULT_NAMESPACES],
            "devices": [
                {"type": "c", "path": path, "major": major, "minor": minor, "fileMode": 0o666}
                for path, major, minor in DEFAULT_DEVICES
            ],
            "resources": {
                "devices": [
                    {"allow": False, "access": "rwm"},
                    *(device_rule(*rule) for rule in DEFAULT_DEVICE_RULES),
                ]
            },
            "maskedPaths": [*masked_paths()],
            "readonlyPaths": [*READONLY_PATHS],
        },
    }
