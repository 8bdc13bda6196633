"""cgroups version 1: a tree for each controller; and hybrid hosts, where an empty version 2 tree lies beside.

A group has one directory in every tree that can limit or account for something. Laws:
- A process joins by writing 0 to ``tasks``: a thread that moves itself costs 20 µs a tree, while a write to
  ``cgroup.procs``, or on behalf of another, waits for an RCU grace period of 10 ms and more.
- On a hybrid host the group exists on the version 2 side too, which kills and freezes all at once and whose
  frozen processes can be killed. A process gets there by being cloned into it (``clone_fd``).
- Without that side the freezer does it: a frozen process takes no SIGKILL before it is thawed.
- A new cpuset is empty and admits nobody until it is given what its parent has.

Sources: Documentation/admin-guide/cgroup-v1 of Linux, cgroups(7).
"""

from __future__ import annotations

import errno
import functools
import math
import os
import time
from typing import TYPE_CHECKING

from sampan.errors import Conflict, InvalidArgument
from sampan.sandbox import cgroups_files as files
from sampan.sandbox.cgroups_files import BlockIo, Features, Stats, Write

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from sampan.spec.runtime import DeviceRule, LinuxResources

# The trees that a group is made in, where the host has them. The named one lets systemd know whose it is.
CONTROLLERS = (
    "memory",
    "cpu",
    "cpuacct",
    "cpuset",
    "pids",
    "devices",
    "blkio",
    "freezer",
    "hugetlb",
    "name=systemd",
)

_REALTIME_PERIOD = 1_000_000  # microseconds; the kernel's default
# The kernel counts the share of a removed group for about 20 ms more, until RCU lets go of it.
_REALTIME_PATIENCE = 1.0  # seconds
_TICKS = os.sysconf("SC_CLK_TCK")
_MEMORY = (
    # The order matters: memory and swap together may not be less than memory.
    ("limit", "memory.limit_in_bytes"),
    ("swap", "memory.memsw.limit_in_bytes"),
    ("reservation", "memory.soft_limit_in_bytes"),
    ("kernelTCP", "memory.kmem.tcp.limit_in_bytes"),
    ("swappiness", "memory.swappiness"),
)
_CPU = (
    ("idle", "cpu.idle"),
    ("shares", "cpu.shares"),
    ("period", "cpu.cfs_period_us"),
    ("quota", "cpu.cfs_quota_us"),
    ("burst", "cpu.cfs_burst_us"),
    ("realtimePeriod", "cpu.rt_period_us"),
    ("realtimeRuntime", "cpu.rt_runtime_us"),
)
_THROTTLES = (
    ("throttleReadBpsDevice", "blkio.throttle.read_bps_device"),
    ("throttleWriteBpsDevice", "blkio.throttle.write_bps_device"),
    ("throttleReadIOPSDevice", "blkio.throttle.read_iops_device"),
    ("throttleWriteIOPSDevice", "blkio.throttle.write_iops_device"),
)


def limits(resources: LinuxResources) -> list[Write]:
    """The settings that ``resources`` asks for, in the order in which a new group takes them."""
    writes = [
        *_table("memory", _MEMORY, resources.get("memory", {})),
        *_table("cpu", _CPU, resources.get("cpu", {})),
    ]
    if resources.get("memory", {}).get("disableOOMKiller"):
        writes.append(Write(controller="memory", file="memory.oom_control", value="1"))
    for name in ("cpus", "mems"):
        value = resources.get("cpu", {}).get(name)
        if value:
            writes.append(Write(controller="cpuset", file="cpuset." + name, value=str(value)))
    if "pids" in resources:
        number = resources["pids"]["limit"]
        writes.append(Write(controller="pids", file="pids.max", value=str(number) if number > 0 else "max"))
    writes += _block_io(resources)
    for size in resources.get("hugepageLimits", []):
        writes.append(
            Write(
                controller="hugetlb",
                file=f"hugetlb.{size['pageSize']}.limit_in_bytes",
                value=str(size["limit"]),
            )
        )
    return writes + device_writes(resources.get("devices", []))


def _table(
    controller: str, table: tuple[tuple[str, str], ...], wanted: Mapping[str, object]
) -> Iterator[Write]:
    for key, file in table:
        value = wanted.get(key)
        if value is not None and (value != 0 or key in ("swappiness", "idle", "burst")):
            yield Write(controller=controller, file=file, value=str(value))


def _block_io(resources: LinuxResources) -> Iterator[Write]:
    wanted = resources.get("blockIO", {})
    weight = wanted.get("weight")
    if weight:
        # Which of the two exists depends on the scheduler; the other is passed over.
        yield Write(controller="blkio", file="blkio.weight", value=str(weight))
        yield Write(controller="blkio", file="blkio.bfq.weight", value=str(weight))
    for device in wanted.get("weightDevice", []):
        value = f"{device['major']}:{device['minor']} {device['weight']}"
        yield Write(controller="blkio", file="blkio.weight_device", value=value)
        yield Write(controller="blkio", file="blkio.bfq.weight_device", value=value)
    rates: Mapping[str, object] = wanted
    for key, file in _THROTTLES:
        throttles = rates.get(key)
        for throttle in throttles if isinstance(throttles, list) else []:
            value = f"{throttle['major']}:{throttle['minor']} {throttle['rate']}"
            yield Write(controller="blkio", file=file, value=value)


def device_writes(rules: list[DeviceRule]) -> list[Write]:
    """The device rules as writes; a leading "allow everything" is what a new group has anyway."""
    writes: list[Write] = []
    for rule in rules:
        everything = rule.get("type", "a") == "a"
        if everything:
            # It replaces whatever was said before it.
            writes.clear()
            if rule["allow"] and rule is rules[0]:
                continue
            value = "a"
        else:
            major, minor = rule.get("major"), rule.get("minor")
            numbers = ":".join("*" if n is None or n < 0 else str(n) for n in (major, minor))
            value = f"{rule['type']} {numbers} {rule.get('access', 'rwm')}"
        file = "devices.allow" if rule["allow"] else "devices.deny"
        writes.append(Write(controller="devices", file=file, value=value))
    return writes


class Hierarchy:
    """The trees of a host. ``mounts`` is the mount point of each controller, ``unified`` of version 2."""

    version = 1

    def __init__(self, mounts: Mapping[str, str], unified: str | None) -> None:
        self.mounts = {name: mounts[name] for name in CONTROLLERS if name in mounts}
        self.unified = unified
        if unified is not None:
            self.mounts.pop("freezer", None)

    def mounted(self) -> tuple[tuple[str, str, tuple[tuple[str, str | None], ...]], ...]:
        """What to mount so that a container sees its groups: (directory name, file system type, options)."""
        names: dict[str, list[str]] = {}
        for controller, mount in self.mounts.items():
            names.setdefault(mount, []).append(controller)
        found = []
        for controllers in names.values():
            options: list[tuple[str, str | None]] = []
            for controller in controllers:
                if controller.startswith("name="):
                    options += [("none", None), ("name", controller[5:])]
                else:
                    options.append((controller, None))
            directory = ",".join(controller.removeprefix("name=") for controller in controllers)
            found.append((directory, "cgroup", tuple(options)))
        return tuple(found)

    def group(self, path: str) -> Group:
        """The group ``path`` (absolute, from the root of every tree); it need not exist."""
        return Group(self, path)

    def remove_parent(self, path: str) -> None:
        """Remove an empty group in every tree; one that still holds groups or processes stays."""
        for mount in self._trees():
            try:
                os.rmdir(mount + path)
            except OSError as error:
                if error.errno not in (errno.ENOENT, errno.EBUSY, errno.ENOTEMPTY):
                    raise

    def shelter(self, path: str) -> None:
        group = self.group(path)
        group.ensure()
        group.join()

    def leave(self, path: str) -> None:
        self.group("").join()
        self.remove_parent(path)

    @functools.cached_property
    def features(self) -> Features:
        """What this host can do, found out once."""
        has = self._has
        cpuset = self.mounts.get("cpuset")
        return Features(
            memory_limit=has("memory", "memory.limit_in_bytes"),
            swap_limit=has("memory", "memory.memsw.limit_in_bytes"),
            memory_reservation=has("memory", "memory.soft_limit_in_bytes"),
            memory_swappiness=has("memory", "memory.swappiness"),
            oom_kill_disable=has("memory", "memory.oom_control"),
            cpu_shares=has("cpu", "cpu.shares"),
            cpu_quota=has("cpu", "cpu.cfs_quota_us"),
            cpu_realtime=has("cpu", "cpu.rt_period_us"),
            cpuset=cpuset is not None,
            cpus=files.read(cpuset + "/cpuset.cpus").strip() if cpuset else "",
            mems=files.read(cpuset + "/cpuset.mems").strip() if cpuset else "",
            pids_limit="pids" in self.mounts,
            blkio_weight=has("blkio", "blkio.weight") or has("blkio", "blkio.bfq.weight"),
            blkio_weight_device=has("blkio", "blkio.weight_device")
            or has("blkio", "blkio.bfq.weight_device"),
            blkio_throttle=has("blkio", "blkio.throttle.read_bps_device"),
            devices="devices" in self.mounts,
        )

    def _has(self, controller: str, file: str) -> bool:
        """Whether groups have a file. The root lacks some of them, so a group inside is looked at too."""
        mount = self.mounts.get(controller)
        if mount is None:
            return False
        if os.path.exists(f"{mount}/{file}"):
            return True
        with os.scandir(mount) as entries:
            inner = next((entry.path for entry in entries if entry.is_dir(follow_symlinks=False)), mount)
        return os.path.exists(f"{inner}/{file}")

    def _trees(self) -> list[str]:
        """The mount points without repetition: several controllers may share one."""
        unified = [self.unified] if self.unified is not None else []
        return list(dict.fromkeys((*self.mounts.values(), *unified)))


class Group:
    """One group: a directory in every tree. See ``cgroups`` for what the methods promise."""

    def __init__(self, hierarchy: Hierarchy, path: str) -> None:
        self.path = path
        self._hierarchy = hierarchy
        self._unified = None if hierarchy.unified is None else hierarchy.unified + path
        self._trees = [mount + path for mount in hierarchy._trees()]
        self._joined = [tree for tree in self._trees if tree != self._unified]

    def create(self, resources: LinuxResources, *, shared: bool = False) -> None:
        try:
            for mount, tree in zip(self._hierarchy._trees(), self._trees, strict=True):
                self._make(mount, tree, shared=shared)
            self._inherit_cpuset(self.path)
            self._allot_realtime(resources)
            self._apply(limits(resources))
        except BaseException:
            self._remove(patience=0)
            raise

    def ensure(self) -> None:
        """Make the group unless it is there; without limits, and whoever is in it stays."""
        for tree in self._trees:
            os.makedirs(tree, 0o755, exist_ok=True)
        self._inherit_cpuset(self.path)

    def update(self, resources: LinuxResources) -> None:
        memory = resources.get("memory", {})
        new, path = memory.get("limit"), self._file("memory", "memory.memsw.limit_in_bytes")
        writes = limits(resources)
        if new is not None and path is not None:
            present = files.limit(files.read_or(path, ""))
            if present is not None and (new < 0 or new > present):
                # Raising memory beyond the present total needs the total raised first.
                writes.sort(key=lambda write: write.file != "memory.memsw.limit_in_bytes")
        quota = resources.get("cpu", {}).get("quota")
        if quota is not None:
            # A new period may not make the old quota too large a share; lifting the quota first avoids it.
            self._set(Write(controller="cpu", file="cpu.cfs_quota_us", value="-1"))
        self._allot_realtime(resources)
        self._apply(writes)

    def delegate(self, gid: int) -> None:
        for tree in self._trees:
            files.give(tree, gid)

    def join(self, *, cloned: bool = False) -> None:
        for tree in self._joined:
            files.poke(tree + "/tasks", "0")
        if self._unified is not None and not cloned:
            files.poke(self._unified + "/cgroup.procs", "0")

    def entrances(self) -> list[int]:
        return [os.open(tree + "/tasks", os.O_WRONLY | os.O_CLOEXEC) for tree in self._joined]

    def clone_fd(self) -> int | None:
        if self._unified is None:
            return None
        return os.open(self._unified, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)

    def freeze(self, *, timeout: float = 10.0) -> bool:
        if self._unified is not None:
            files.poke(self._unified + "/cgroup.freeze", "1")
            return files.wait_for_event(self._unified, "frozen", 1, timeout=timeout)
        return self._set_freezer("FROZEN", timeout)

    def thaw(self, *, timeout: float = 10.0) -> bool:
        try:
            if self._unified is not None:
                files.poke(self._unified + "/cgroup.freeze", "0")
                return files.wait_for_event(self._unified, "frozen", 0, timeout=timeout)
            return self._set_freezer("THAWED", timeout)
        except FileNotFoundError:
            return True

    def frozen(self) -> bool:
        if self._unified is not None:
            return files.read_or(self._unified + "/cgroup.freeze", "0").strip() == "1"
        path = self._file("freezer", "freezer.state")
        return path is not None and files.read_or(path, "THAWED").strip() != "THAWED"

    def kill(self, *, timeout: float = 10.0) -> bool:
        if self._unified is not None:
            try:
                files.poke(self._unified + "/cgroup.kill", "1")
            except FileNotFoundError:
                return True
            # A frozen process of version 2 dies at once; one that is forked meanwhile dies with its parent.
            return files.wait_for_event(self._unified, "populated", 0, timeout=timeout)
        self.thaw(timeout=timeout)
        deadline = time.monotonic() + timeout
        pause = 0.0005
        while any(files.signal_all(tree) for tree in self._joined):
            if time.monotonic() >= deadline:
                return False
            time.sleep(pause)
            pause = min(pause * 2, 0.05)
        return True

    def pids(self) -> list[int]:
        trees = [self._unified] if self._unified is not None else self._joined[:1]
        return files.process_ids(trees[0]) if trees else []

    def oom_killed(self) -> bool:
        path = self._file("memory", "memory.oom_control")
        return path is not None and files.flat(files.read_or(path, "")).get("oom_kill", 0) > 0

    def remove(self, *, patience: float = 2.0) -> None:
        left = self._remove(patience=patience)
        if left:
            raise Conflict(f"unable to remove cgroup {left}: it still has processes")

    def stats(self) -> Stats:
        memory = files.flat(self._text("memory", "memory.stat"))
        cpu = files.flat(self._text("cpu", "cpu.stat"))
        ticks = files.flat(self._text("cpuacct", "cpuacct.stat"))
        return Stats(
            cpu_total=files.integer(self._text("cpuacct", "cpuacct.usage")),
            cpu_user=ticks.get("user", 0) * 1_000_000_000 // _TICKS,
            cpu_kernel=ticks.get("system", 0) * 1_000_000_000 // _TICKS,
            cpu_each=tuple(map(int, self._text("cpuacct", "cpuacct.usage_percpu").split())),
            cpu_periods=cpu.get("nr_periods", 0),
            cpu_throttled_periods=cpu.get("nr_throttled", 0),
            cpu_throttled=cpu.get("throttled_time", 0),
            memory_usage=files.integer(self._text("memory", "memory.usage_in_bytes")),
            memory_peak=files.integer(self._text("memory", "memory.max_usage_in_bytes")),
            memory_limit=files.limit(self._text("memory", "memory.limit_in_bytes")),
            memory_cache=memory.get("total_inactive_file", 0),
            memory_failures=files.integer(self._text("memory", "memory.failcnt")),
            memory_details=memory,
            pids=files.integer(self._text("pids", "pids.current")),
            pids_limit=files.limit(self._text("pids", "pids.max")),
            blkio_bytes=block_io(self._text("blkio", "blkio.throttle.io_service_bytes_recursive")),
            blkio_operations=block_io(self._text("blkio", "blkio.throttle.io_serviced_recursive")),
        )

    def _file(self, controller: str, file: str) -> str | None:
        mount = self._hierarchy.mounts.get(controller)
        return None if mount is None else f"{mount}{self.path}/{file}"

    def _text(self, controller: str, file: str) -> str:
        path = self._file(controller, file)
        return "" if path is None else files.read_or(path, "")

    def _make(self, mount: str, tree: str, *, shared: bool) -> None:
        try:
            os.mkdir(tree, 0o755)
        except FileNotFoundError:
            self._make_parents(mount)
            os.mkdir(tree, 0o755)
        except FileExistsError:
            # Left by a start that was cut short: its limits are not to be inherited.
            if not files.remove_directory(tree, patience=0):
                if shared:
                    return
                raise Conflict(f"cgroup {self.path} already has processes") from None
            os.mkdir(tree, 0o755)

    def _make_parents(self, mount: str) -> None:
        parents = self.path.strip("/").split("/")[:-1]
        for depth in range(1, len(parents) + 1):
            try:
                os.mkdir(f"{mount}/{'/'.join(parents[:depth])}", 0o755)
            except FileExistsError:
                continue

    def _inherit_cpuset(self, path: str) -> None:
        """Give an empty cpuset what its parent has, from the outermost empty one inwards."""
        mount = self._hierarchy.mounts.get("cpuset")
        if mount is None or not path.strip("/"):
            return
        for name in ("cpus", "mems"):
            file = f"{mount}{path}/cpuset.{name}"
            if not files.read(file).strip():
                parent = path.rpartition("/")[0]
                self._inherit_cpuset(parent)
                files.write(file, files.read(f"{mount}{parent}/cpuset.{name}").strip())

    def _allot_realtime(self, resources: LinuxResources) -> None:
        """Let the groups around this one have what it is to get: real-time is shared out from the root down,
        and a new group has none to give. They get no more than what the groups inside them come to."""
        wanted = resources.get("cpu", {})
        mount = self._hierarchy.mounts.get("cpu")
        if not wanted.get("realtimeRuntime") or mount is None:
            return
        share = wanted["realtimeRuntime"] / (wanted.get("realtimePeriod") or _REALTIME_PERIOD)
        share -= _realtime_share(mount + self.path)
        parents = self.path.strip("/").split("/")[:-1]
        for depth in range(1, len(parents) + 1):
            path = f"{mount}/{'/'.join(parents[:depth])}"
            with os.scandir(path) as entries:
                inside = sum(_realtime_share(entry.path) for entry in entries if entry.is_dir())
            if _realtime_share(path) < inside + share:
                period = files.integer(files.read_or(path + "/cpu.rt_period_us", "0"))
                _write_realtime(path + "/cpu.rt_runtime_us", str(math.ceil((inside + share) * period)))

    def _apply(self, writes: list[Write]) -> None:
        for write in writes:
            try:
                self._set(write)
            except Conflict as error:
                if write.file == "memory.limit_in_bytes":
                    raise self._memory_in_use(write.value) from error
                raise

    def _memory_in_use(self, limit: str) -> Conflict:
        usage = files.integer(self._text("memory", "memory.usage_in_bytes"))
        peak = files.integer(self._text("memory", "memory.max_usage_in_bytes"))
        return Conflict(f"unable to set memory limit to {limit} (current usage: {usage}, peak usage: {peak})")

    def _set(self, write: Write) -> None:
        path = self._file(write.controller, write.file)
        if path is None:
            return
        if write.file == "cpu.rt_runtime_us":
            _write_realtime(path, write.value)
        else:
            files.write(path, write.value)

    def _set_freezer(self, state: str, timeout: float) -> bool:
        """Write the state until the kernel says that it is reached: freezing needs to be asked for again."""
        path = self._file("freezer", "freezer.state")
        if path is None:
            raise Conflict("cannot pause a container: the freezer cgroup is not mounted")
        deadline = time.monotonic() + timeout
        while True:
            files.poke(path, state)
            if files.read(path).strip() == state:
                return True
            if time.monotonic() >= deadline:
                return False
            time.sleep(0.001)

    def _remove(self, *, patience: float) -> str:
        """Remove every directory; the first that stays, or the empty string."""
        left = [tree for tree in self._trees if not files.remove_directory(tree, patience=patience)]
        return left[0] if left else ""


def _write_realtime(path: str, value: str) -> None:
    """As ``files.write``; refused for want of a share, it is tried again for a while."""
    deadline = time.monotonic() + _REALTIME_PATIENCE
    while True:
        try:
            files.write(path, value)
            return
        except InvalidArgument:
            if time.monotonic() >= deadline:
                raise
            time.sleep(0.005)


def _realtime_share(directory: str) -> float:
    """The part of each processor's time that a group may use in real-time."""
    period = files.integer(files.read_or(directory + "/cpu.rt_period_us", "0"))
    return files.integer(files.read_or(directory + "/cpu.rt_runtime_us", "0")) / period if period else 0.0


def block_io(text: str) -> tuple[BlockIo, ...]:
    """The lines ``major:minor operation value`` of a blkio file; totals over all devices are left out."""
    found = []
    for line in text.splitlines():
        device, _, rest = line.partition(" ")
        operation, _, value = rest.partition(" ")
        major, colon, minor = device.partition(":")
        if colon and value.isdigit():
            found.append(BlockIo(major=int(major), minor=int(minor), operation=operation, value=int(value)))
    return tuple(found)
