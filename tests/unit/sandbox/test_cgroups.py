"""Limits as writes, device rules as tests, and what control files say; nothing here touches a real group."""

from __future__ import annotations

import errno
import pathlib
import struct
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sampan.errors import Conflict, InvalidArgument
from sampan.linux import ebpf, kernel
from sampan.sandbox import cgroups, cgroups_v1, cgroups_v2
from sampan.sandbox import cgroups_files as files
from sampan.sandbox.cgroups_files import BlockIo
from sampan.spec.runtime import default_spec

if TYPE_CHECKING:
    from sampan.spec.runtime import DeviceRule, LinuxResources

MEGABYTE = 1 << 20
FULL: LinuxResources = {
    "memory": {
        "limit": 64 * MEGABYTE,
        "swap": 128 * MEGABYTE,
        "reservation": 32 * MEGABYTE,
        "swappiness": 0,
        "disableOOMKiller": True,
    },
    "cpu": {"shares": 1024, "quota": 50000, "period": 100000, "cpus": "0-1", "mems": "0", "burst": 10},
    "pids": {"limit": 50},
    "blockIO": {
        "weight": 500,
        "throttleReadBpsDevice": [{"major": 8, "minor": 0, "rate": 1024}],
        "throttleWriteIOPSDevice": [{"major": 8, "minor": 0, "rate": 10}],
    },
    "hugepageLimits": [{"pageSize": "2MB", "limit": 2 * MEGABYTE}],
}

MOUNTINFO = """\
31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755
32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw,nosuid shared:1 - cgroup cgroup rw,cpu,cpuacct
33 31 0:30 / /sys/fs/cgroup/with\\040space rw,relatime - cgroup cgroup rw,memory
34 31 0:31 / /sys/fs/cgroup/pids ro,relatime - cgroup cgroup rw,pids
40 31 0:37 / /sys/fs/cgroup/systemd rw,relatime - cgroup cgroup rw,xattr,name=systemd
41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw
"""


def pairs(writes: list[files.Write]) -> list[tuple[str, str]]:
    return [(write.file, write.value) for write in writes]


def test_mounts_are_found_with_their_controllers_if_they_are_writable() -> None:
    controllers, unified = cgroups.parse_mounts(MOUNTINFO)
    assert controllers == {
        "cpu": "/sys/fs/cgroup/cpu,cpuacct",
        "cpuacct": "/sys/fs/cgroup/cpu,cpuacct",
        "memory": "/sys/fs/cgroup/with space",
        "name=systemd": "/sys/fs/cgroup/systemd",
    }
    assert unified == "/sys/fs/cgroup/unified"


def test_a_container_sees_one_mount_for_each_tree() -> None:
    controllers, unified = cgroups.parse_mounts(MOUNTINFO)
    assert cgroups_v1.Hierarchy(controllers, unified).mounted() == (
        ("memory", "cgroup", (("memory", None),)),
        ("cpu,cpuacct", "cgroup", (("cpu", None), ("cpuacct", None))),
        ("systemd", "cgroup", (("none", None), ("name", "systemd"))),
    )


def test_limits_of_version_1() -> None:
    assert pairs(cgroups_v1.limits(FULL)) == [
        ("memory.limit_in_bytes", "67108864"),
        ("memory.memsw.limit_in_bytes", "134217728"),
        ("memory.soft_limit_in_bytes", "33554432"),
        ("memory.swappiness", "0"),
        ("cpu.shares", "1024"),
        ("cpu.cfs_period_us", "100000"),
        ("cpu.cfs_quota_us", "50000"),
        ("cpu.cfs_burst_us", "10"),
        ("memory.oom_control", "1"),
        ("cpuset.cpus", "0-1"),
        ("cpuset.mems", "0"),
        ("pids.max", "50"),
        ("blkio.weight", "500"),
        ("blkio.bfq.weight", "500"),
        ("blkio.throttle.read_bps_device", "8:0 1024"),
        ("blkio.throttle.write_iops_device", "8:0 10"),
        ("hugetlb.2MB.limit_in_bytes", "2097152"),
    ]
    assert cgroups_v1.limits({}) == []
    assert pairs(cgroups_v1.limits({"pids": {"limit": -1}, "memory": {"limit": -1}})) == [
        ("memory.limit_in_bytes", "-1"),
        ("pids.max", "max"),
    ]


def test_limits_of_version_2() -> None:
    assert pairs(cgroups_v2.limits(FULL)) == [
        ("memory.swap.max", "67108864"),
        ("memory.max", "67108864"),
        ("memory.low", "33554432"),
        ("cpu.weight", "100"),
        ("cpu.max", "50000 100000"),
        ("cpu.max.burst", "10"),
        ("cpuset.cpus", "0-1"),
        ("cpuset.mems", "0"),
        ("pids.max", "50"),
        ("io.bfq.weight", "500"),
        ("io.weight", "4950"),
        ("io.max", "8:0 rbps=1024"),
        ("io.max", "8:0 wiops=10"),
        ("hugetlb.2MB.max", "2097152"),
    ]
    assert pairs(cgroups_v2.limits({"cpu": {"period": 20000}, "memory": {"limit": -1, "swap": -1}})) == [
        ("memory.swap.max", "max"),
        ("memory.max", "max"),
        ("cpu.max", "max 20000"),
    ]
    assert pairs(cgroups_v2.limits({"unified": {"memory.high": "5"}})) == [("memory.high", "5")]


def test_impossible_limits_of_version_2() -> None:
    with pytest.raises(InvalidArgument, match="Memory limit when using Memoryswap"):
        cgroups_v2.limits({"memory": {"swap": 5}})
    with pytest.raises(InvalidArgument, match="Minimum memoryswap limit"):
        cgroups_v2.limits({"memory": {"limit": 6, "swap": 5}})
    with pytest.raises(InvalidArgument, match="no slashes"):
        cgroups_v2.limits({"unified": {"../cgroup.procs": "1"}})


@given(st.integers(0, 1 << 20), st.integers(0, 1 << 20))
def test_weights_keep_the_order_of_shares(one: int, other: int) -> None:
    low, high = sorted((one, other))
    assert 1 <= cgroups_v2.cpu_weight(low) <= cgroups_v2.cpu_weight(high) <= 10000
    assert (cgroups_v2.cpu_weight(2), cgroups_v2.cpu_weight(1024), cgroups_v2.cpu_weight(262144)) == (
        1,
        100,
        10000,
    )


def test_device_rules_of_version_1() -> None:
    rules = default_spec()["linux"]["resources"]["devices"]
    assert pairs(cgroups_v1.device_writes(rules))[:4] == [
        ("devices.deny", "a"),
        ("devices.allow", "c *:* m"),
        ("devices.allow", "b *:* m"),
        ("devices.allow", "c 1:3 rwm"),
    ]
    assert ("devices.allow", "c 136:* rwm") in pairs(cgroups_v1.device_writes(rules))
    assert cgroups_v1.device_writes([{"allow": True, "access": "rwm"}]) == []
    again: list[DeviceRule] = [
        {"allow": False, "access": "rwm"},
        {"allow": True, "type": "b", "major": 8, "minor": -1, "access": "r"},
        {"allow": True, "type": "a", "access": "rwm"},
    ]
    assert pairs(cgroups_v1.device_writes(again)) == [("devices.allow", "a")]


# -- device programs ----------------------------------------------------------------------------------------


def ask(program: bytes, device: int, access: int, major: int, minor: int) -> bool:
    """Run a device program on one access."""
    registers = [0] * 11
    context = {0: access << 16 | device, 4: major, 8: minor}
    code = list(struct.iter_unpack("<BBhi", program))
    position = 0
    while True:
        operation, both, offset, immediate = code[position]
        target, source = both & 15, both >> 4
        position += 1
        if operation == 0x95:
            return bool(registers[0])
        elif operation == 0x61:
            registers[target] = context[offset]
        elif operation == 0xB4:
            registers[target] = immediate & 0xFFFFFFFF
        elif operation == 0xBC:
            registers[target] = registers[source]
        elif operation == 0x54:
            registers[target] &= immediate & 0xFFFFFFFF
        elif operation == 0x74:
            registers[target] >>= immediate
        else:
            value = registers[source] if operation == 0x5E else immediate & 0xFFFFFFFF
            equal = registers[target] == value
            if equal == (operation == 0x16):
                position += offset


def expected(rules: list[DeviceRule], device: int, access: int, major: int, minor: int) -> bool:
    """The last rule that fits answers: an allowing one covers the access, a denying one touches it."""
    bits = {"r": ebpf.READ, "w": ebpf.WRITE, "m": ebpf.MKNOD}
    kinds = {"a": {1, 2}, "b": {1}, "c": {2}}
    answer = True
    for rule in rules:
        named = sum(bits[letter] for letter in rule.get("access", "rwm"))
        if rule.get("type", "a") == "a" or (
            device in kinds[rule["type"]]
            and rule.get("major", major) in (major, -1)
            and rule.get("minor", minor) in (minor, -1)
            and (access & ~named == 0 if rule["allow"] else access & named)
        ):
            answer = rule["allow"]
    return answer


ACCESS = st.sampled_from(["r", "w", "m", "rw", "rm", "wm", "rwm"])
NUMBERS = st.sampled_from([-1, 0, 1, 5, (1 << 32) - 1])
RULES = st.lists(
    st.one_of(
        st.builds(lambda allow: {"allow": allow, "access": "rwm"}, st.booleans()),
        st.builds(
            lambda allow, kind, major, minor, access: {
                "allow": allow,
                "type": kind,
                "major": major,
                "minor": minor,
                "access": access,
            },
            st.booleans(),
            st.sampled_from(["b", "c"]),
            NUMBERS,
            NUMBERS,
            ACCESS,
        ),
    ),
    max_size=8,
)


@given(RULES, st.sampled_from([1, 2]), st.integers(1, 7), NUMBERS, NUMBERS)
def test_a_device_program_answers_as_its_rules(
    rules: list[DeviceRule], device: int, access: int, major: int, minor: int
) -> None:
    major, minor = major % (1 << 32), minor % (1 << 32)
    tests, otherwise = cgroups_v2.device_tests(rules)
    program = ebpf.device_program(tests, otherwise=otherwise)
    assert ask(program, device, access, major, minor) == expected(rules, device, access, major, minor)


def test_the_devices_of_a_default_container() -> None:
    tests, otherwise = cgroups_v2.device_tests(default_spec()["linux"]["resources"]["devices"])
    program = ebpf.device_program(tests, otherwise=otherwise)
    read_write = ebpf.READ | ebpf.WRITE
    assert ask(program, ebpf.CHARACTER, read_write, 1, 3)
    assert ask(program, ebpf.CHARACTER, read_write, 136, 7)
    assert ask(program, ebpf.BLOCK, ebpf.MKNOD, 8, 0)
    assert not ask(program, ebpf.BLOCK, ebpf.READ, 8, 0)
    assert not ask(program, ebpf.CHARACTER, ebpf.READ, 1, 1)


# -- control files ------------------------------------------------------------------------------------------


def test_values_of_control_files() -> None:
    assert files.flat("oom_kill_disable 0\nunder_oom 0\noom_kill 3\n\nodd x\n") == {
        "oom_kill_disable": 0,
        "under_oom": 0,
        "oom_kill": 3,
    }
    assert files.limit("max\n") is None
    assert files.limit("9223372036854771712\n") is None
    assert files.limit("-1") is None
    assert files.limit("42\n") == 42
    assert files.limit("") is None
    assert files.integer("\n") == 0


def test_block_io_of_both_versions() -> None:
    assert cgroups_v1.block_io("8:0 Read 5\n8:0 Total 5\nTotal 5\n") == (
        BlockIo(major=8, minor=0, operation="Read", value=5),
        BlockIo(major=8, minor=0, operation="Total", value=5),
    )
    assert cgroups_v2.io_stat("8:16 rbytes=1 wbytes=2 rios=3 wios=4 dbytes=0 dios=0\n")[:3] == [
        ("bytes", BlockIo(major=8, minor=16, operation="Read", value=1)),
        ("bytes", BlockIo(major=8, minor=16, operation="Write", value=2)),
        ("ios", BlockIo(major=8, minor=16, operation="Read", value=3)),
    ]


def test_an_absent_file_is_passed_over(tmp_path: pathlib.Path) -> None:
    assert files.write(str(tmp_path / "absent"), "1") is False
    (tmp_path / "there").touch()
    assert files.write(str(tmp_path / "there"), "1") is True
    assert files.read(str(tmp_path / "there")) == "1"
    assert files.read_or(str(tmp_path / "absent"), "x") == "x"


def test_refusals_are_kinds() -> None:
    invalid = files.refusal("/sys/x", "9", OSError(errno.EINVAL, "Invalid argument"))
    assert isinstance(invalid, InvalidArgument)
    assert str(invalid) == 'failed to write "9": write /sys/x: invalid argument'
    assert isinstance(files.refusal("/sys/x", "9", OSError(errno.EBUSY, "busy")), Conflict)


def test_kernel_releases() -> None:
    assert kernel.parse_release("6.1.0-56-cloud-amd64") == (6, 1)
    assert kernel.parse_release("5.14") == (5, 14)
    assert kernel.parse_release("6.18+") == (6, 18)
    with pytest.raises(ValueError, match="not a kernel release"):
        kernel.parse_release("six")
