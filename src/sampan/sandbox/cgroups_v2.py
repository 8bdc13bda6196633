"""cgroups version 2: one tree, controllers switched on for the children of each group.

Laws:
- A process gets into its group by being cloned into it (``clone_fd``), which costs nothing; writing to
  ``cgroup.procs`` waits for an RCU grace period.
- Only groups without children hold processes (the root of the tree apart); controllers are switched on from
  the root down to the parent of a container's group.
- Devices are ruled by a program attached to the group; a group without one may use every device.
- memory.swap.max counts swap alone, the specification memory and swap together.

Source: Documentation/admin-guide/cgroup-v2.rst of Linux.
"""

from __future__ import annotations

import errno
import functools
import math
import os
from typing import TYPE_CHECKING

from sampan.errors import Conflict, InvalidArgument
from sampan.linux import ebpf
from sampan.sandbox import cgroups_files as files
from sampan.sandbox.cgroups_files import BlockIo, Features, Stats, Write

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from sampan.spec.runtime import BlockIo as BlockIoLimits
    from sampan.spec.runtime import DeviceRule, LinuxResources

CONTROLLERS = ("cpu", "memory", "pids", "cpuset", "io", "hugetlb")
DEFAULT_PERIOD = 100_000  # microseconds

_THROTTLES = (
    ("throttleReadBpsDevice", "rbps"),
    ("throttleWriteBpsDevice", "wbps"),
    ("throttleReadIOPSDevice", "riops"),
    ("throttleWriteIOPSDevice", "wiops"),
)
_ACCESS = {"r": ebpf.READ, "w": ebpf.WRITE, "m": ebpf.MKNOD}
_DEVICE = {"a": None, "b": ebpf.BLOCK, "c": ebpf.CHARACTER}


def cpu_weight(shares: int) -> int:
    """The weight (1 to 10000) for shares (2 to 262144).

    A curve through the ends and through the two defaults, 1024 shares and weight 100.
    """
    bits = math.log2(min(max(shares, 2), 262144))
    return max(1, math.ceil(10 ** ((bits * bits + 125 * bits) / 612 - 7 / 34)))


def io_weight(weight: int) -> int:
    """The weight of io.weight (1 to 10000) for a blkio weight (10 to 1000)."""
    return 1 + (weight - 10) * 9999 // 990


def limits(resources: LinuxResources) -> list[Write]:
    """The settings that ``resources`` asks for, apart from its device rules."""
    writes = [*_memory(resources), *_cpu(resources)]
    if "pids" in resources:
        number = resources["pids"]["limit"]
        writes.append(_write("pids", "pids.max", number if number > 0 else "max"))
    writes += _block_io(resources.get("blockIO", {}))
    for size in resources.get("hugepageLimits", []):
        writes.append(_write("hugetlb", f"hugetlb.{size['pageSize']}.max", size["limit"]))
    for file, value in resources.get("unified", {}).items():
        if "/" in file:
            raise InvalidArgument(f'unified resource "{file}" must be a file name (no slashes)')
        writes.append(_write(file.partition(".")[0], file, value))
    return writes


def _write(controller: str, file: str, value: object) -> Write:
    return Write(controller=controller, file=file, value=str(value))


def _bytes(number: int) -> str:
    return "max" if number < 0 else str(number)


def _memory(resources: LinuxResources) -> Iterator[Write]:
    wanted = resources.get("memory", {})
    memory, swap = wanted.get("limit", 0), wanted.get("swap", 0)
    if swap < 0:
        yield _write("memory", "memory.swap.max", "max")
    elif swap:
        if memory <= 0:
            raise InvalidArgument(
                "You should always set the Memory limit when using Memoryswap limit, see usage"
            )
        if swap < memory:
            raise InvalidArgument("Minimum memoryswap limit should be larger than memory limit, see usage")
        yield _write("memory", "memory.swap.max", swap - memory)
    if memory:
        yield _write("memory", "memory.max", _bytes(memory))
    if wanted.get("reservation"):
        # "No reservation" is none here, not all there is.
        yield _write("memory", "memory.low", max(wanted["reservation"], 0))


def _cpu(resources: LinuxResources) -> Iterator[Write]:
    wanted = resources.get("cpu", {})
    if "idle" in wanted:
        yield _write("cpu", "cpu.idle", wanted["idle"])
    if wanted.get("shares"):
        yield _write("cpu", "cpu.weight", cpu_weight(wanted["shares"]))
    quota, period = wanted.get("quota", 0), wanted.get("period", 0)
    if quota or period:
        yield _write("cpu", "cpu.max", f"{quota if quota > 0 else 'max'} {period or DEFAULT_PERIOD}")
    if wanted.get("burst"):
        yield _write("cpu", "cpu.max.burst", wanted["burst"])
    if wanted.get("cpus"):
        yield _write("cpuset", "cpuset.cpus", wanted["cpus"])
    if wanted.get("mems"):
        yield _write("cpuset", "cpuset.mems", wanted["mems"])


def _block_io(wanted: BlockIoLimits) -> Iterator[Write]:
    if wanted.get("weight"):
        # Which of the two exists depends on the scheduler; the other is passed over.
        yield _write("io", "io.bfq.weight", wanted["weight"])
        yield _write("io", "io.weight", io_weight(wanted["weight"]))
    for device in wanted.get("weightDevice", []):
        yield _write("io", "io.bfq.weight", f"{device['major']}:{device['minor']} {device['weight']}")
    rates: Mapping[str, object] = wanted
    for key, word in _THROTTLES:
        throttles = rates.get(key)
        for throttle in throttles if isinstance(throttles, list) else []:
            value = f"{throttle['major']}:{throttle['minor']} {word}={throttle['rate'] or 'max'}"
            yield _write("io", "io.max", value)


def device_tests(rules: list[DeviceRule]) -> tuple[list[ebpf.DeviceTest], bool]:
    """The rules as tests and the answer where none of them fits; nothing said allows everything."""
    tests: list[ebpf.DeviceTest] = []
    otherwise = True
    for rule in rules:
        access = functools.reduce(lambda bits, letter: bits | _ACCESS[letter], rule.get("access", "rwm"), 0)
        kind = rule.get("type", "a")
        if kind == "a":
            # It replaces whatever was said before it.
            tests.clear()
            otherwise = rule["allow"]
            continue
        tests.append(
            ebpf.DeviceTest(
                allow=rule["allow"],
                device=_DEVICE[kind],
                access=access,
                major=_any(rule.get("major")),
                minor=_any(rule.get("minor")),
            )
        )
    return tests, otherwise


def _any(number: int | None) -> int | None:
    return None if number is None or number < 0 else number


class Hierarchy:
    """The tree of a host, mounted at ``mount``."""

    version = 2

    def __init__(self, mount: str) -> None:
        self.mount = mount

    def mounted(self) -> tuple[tuple[str, str, tuple[tuple[str, str | None], ...]], ...]:
        """What to mount so that a container sees its group: (directory name, file system type, options)."""
        return (("", "cgroup2", ()),)

    def group(self, path: str) -> Group:
        """The group ``path`` (absolute, from the root of the tree); it need not exist."""
        return Group(self, path)

    def remove_parent(self, path: str) -> None:
        """Remove an empty group; one that still holds groups or processes stays."""
        try:
            os.rmdir(self.mount + path)
        except OSError as error:
            if error.errno not in (errno.ENOENT, errno.EBUSY, errno.ENOTEMPTY):
                raise

    def shelter(self, path: str) -> None:
        os.makedirs(self.mount + path, 0o755, exist_ok=True)
        self.group(path).join()

    def leave(self, path: str) -> None:
        self.group("").join()
        self.remove_parent(path)

    @functools.cached_property
    def controllers(self) -> frozenset[str]:
        """The controllers of the tree that groups can have."""
        return frozenset(files.read(self.mount + "/cgroup.controllers").split()) & frozenset(CONTROLLERS)

    @functools.cached_property
    def features(self) -> Features:
        """What this host can do, found out once."""
        has = self.controllers.__contains__
        return Features(
            memory_limit=has("memory"),
            swap_limit=has("memory") and self._has("memory.swap.max"),
            memory_reservation=has("memory"),
            cpu_shares=has("cpu"),
            cpu_quota=has("cpu"),
            cpuset=has("cpuset"),
            cpus=files.read_or(self.mount + "/cpuset.cpus.effective", "").strip(),
            mems=files.read_or(self.mount + "/cpuset.mems.effective", "").strip(),
            pids_limit=has("pids"),
            blkio_weight=has("io") and (self._has("io.weight") or self._has("io.bfq.weight")),
            blkio_weight_device=has("io") and self._has("io.bfq.weight"),
            blkio_throttle=has("io"),
            devices=True,
        )

    def _has(self, file: str) -> bool:
        """Whether groups have a file; if no group tells, it is taken to be there."""
        controller = file.partition(".")[0]
        with os.scandir(self.mount) as entries:
            for entry in entries:
                if not entry.is_dir(follow_symlinks=False):
                    continue
                if controller in files.read_or(entry.path + "/cgroup.controllers", "").split():
                    return os.path.exists(f"{entry.path}/{file}")
        return True


class Group:
    """One group. See ``cgroups`` for what the methods promise."""

    def __init__(self, hierarchy: Hierarchy, path: str) -> None:
        self.path = path
        self._hierarchy = hierarchy
        self._directory = hierarchy.mount + path

    def create(self, resources: LinuxResources, *, shared: bool = False) -> None:
        try:
            self._make(shared=shared)
            self._apply(limits(resources))
            self._rule_devices(resources.get("devices", []))
        except BaseException:
            files.remove_directory(self._directory, patience=0)
            raise

    def update(self, resources: LinuxResources) -> None:
        self._apply(limits(resources))
        if "devices" in resources:
            self._rule_devices(resources["devices"])

    def delegate(self, gid: int) -> None:
        files.give(self._directory, gid)

    def join(self, *, cloned: bool = False) -> None:
        if not cloned:
            files.poke(self._directory + "/cgroup.procs", "0")

    def entrances(self) -> list[int]:
        return []

    def clone_fd(self) -> int | None:
        return os.open(self._directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)

    def freeze(self, *, timeout: float = 10.0) -> bool:
        files.poke(self._directory + "/cgroup.freeze", "1")
        return files.wait_for_event(self._directory, "frozen", 1, timeout=timeout)

    def thaw(self, *, timeout: float = 10.0) -> bool:
        try:
            files.poke(self._directory + "/cgroup.freeze", "0")
        except FileNotFoundError:
            return True
        return files.wait_for_event(self._directory, "frozen", 0, timeout=timeout)

    def frozen(self) -> bool:
        return files.read_or(self._directory + "/cgroup.freeze", "0").strip() == "1"

    def kill(self, *, timeout: float = 10.0) -> bool:
        try:
            files.poke(self._directory + "/cgroup.kill", "1")
        except FileNotFoundError:
            if not os.path.exists(self._directory):
                return True
            self._kill_each()  # before Linux 5.14
        return files.wait_for_event(self._directory, "populated", 0, timeout=timeout)

    def pids(self) -> list[int]:
        return files.process_ids(self._directory)

    def oom_killed(self) -> bool:
        return files.flat(self._text("memory.events")).get("oom_kill", 0) > 0

    def remove(self, *, patience: float = 2.0) -> None:
        if not files.remove_directory(self._directory, patience=patience):
            raise Conflict(f"unable to remove cgroup {self._directory}: it still has processes")

    def stats(self) -> Stats:
        memory = files.flat(self._text("memory.stat"))
        cpu = files.flat(self._text("cpu.stat"))
        usage = files.integer(self._text("memory.current"))
        done = io_stat(self._text("io.stat"))
        microsecond = files.MICROSECOND
        return Stats(
            cpu_total=cpu.get("usage_usec", 0) * microsecond,
            cpu_user=cpu.get("user_usec", 0) * microsecond,
            cpu_kernel=cpu.get("system_usec", 0) * microsecond,
            cpu_periods=cpu.get("nr_periods", 0),
            cpu_throttled_periods=cpu.get("nr_throttled", 0),
            cpu_throttled=cpu.get("throttled_usec", 0) * microsecond,
            memory_usage=usage,
            memory_peak=files.integer(self._text("memory.peak")),
            memory_limit=files.limit(self._text("memory.max")),
            memory_cache=memory.get("inactive_file", 0),
            memory_failures=files.flat(self._text("memory.events")).get("max", 0),
            memory_details=memory,
            pids=files.integer(self._text("pids.current")),
            pids_limit=files.limit(self._text("pids.max")),
            blkio_bytes=tuple(entry for kind, entry in done if kind == "bytes"),
            blkio_operations=tuple(entry for kind, entry in done if kind == "ios"),
        )

    def _text(self, file: str) -> str:
        return files.read_or(f"{self._directory}/{file}", "")

    def _make(self, *, shared: bool) -> None:
        try:
            os.mkdir(self._directory, 0o755)
        except FileNotFoundError:
            os.makedirs(self._directory, 0o755)
        except FileExistsError:
            # Left by a start that was cut short: its limits are not to be inherited.
            if files.remove_directory(self._directory, patience=0):
                os.mkdir(self._directory, 0o755)
            elif not shared:
                raise Conflict(f"cgroup {self.path} already has processes") from None
        wanted = self._hierarchy.controllers
        if not wanted <= set(self._text("cgroup.controllers").split()):
            self._switch_on(wanted)

    def _switch_on(self, wanted: frozenset[str]) -> None:
        """Switch the controllers on in every group from the root down to the parent."""
        directory = self._hierarchy.mount
        parts = self.path.strip("/").split("/")[:-1]
        for part in ("", *parts):
            directory = f"{directory}/{part}" if part else directory
            missing = wanted - set(files.read(directory + "/cgroup.subtree_control").split())
            for controller in sorted(missing):
                files.write(directory + "/cgroup.subtree_control", "+" + controller)

    def _apply(self, writes: list[Write]) -> None:
        for write in writes:
            if write.controller in self._hierarchy.controllers or write.controller == "cgroup":
                files.write(f"{self._directory}/{write.file}", write.value)

    def _rule_devices(self, rules: list[DeviceRule]) -> None:
        """Replace the device program. The new one is in force before the old ones go: access only narrows."""
        tests, otherwise = device_tests(rules)
        group = self.clone_fd()
        assert group is not None
        try:
            before = ebpf.attached_device_programs(group)
            if tests or not otherwise:
                program = ebpf.load_device_program(ebpf.device_program(tests, otherwise=otherwise))
                try:
                    ebpf.attach_device_program(group, program)
                finally:
                    os.close(program)
            for identifier in before:
                ebpf.detach_device_program(group, identifier)
        finally:
            os.close(group)

    def _kill_each(self) -> None:
        """Frozen processes of version 2 can be killed, and frozen ones do not fork meanwhile."""
        files.poke(self._directory + "/cgroup.freeze", "1")
        files.signal_all(self._directory)
        files.poke(self._directory + "/cgroup.freeze", "0")


def io_stat(text: str) -> list[tuple[str, BlockIo]]:
    """The lines ``major:minor rbytes=… wbytes=… rios=… …`` of io.stat as (bytes or ios, entry)."""
    operations = {"r": "Read", "w": "Write", "d": "Discard"}
    found = []
    for line in text.splitlines():
        device, *pairs = line.split()
        major, colon, minor = device.partition(":")
        for pair in pairs if colon else ():
            name, _, value = pair.partition("=")
            if name[1:] in ("bytes", "ios") and name[0] in operations and value.isdigit():
                entry = BlockIo(
                    major=int(major), minor=int(minor), operation=operations[name[0]], value=int(value)
                )
                found.append((name[1:], entry))
    return found
