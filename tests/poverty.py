"""Hosts that lack something, made by real means: ``python -m tests.poverty LACK COMMAND…``.

Each lack is a change to the calling process alone (a mount namespace of its own, a seccomp filter, a bounding
set, a network namespace), after which it becomes the command. Nothing of the machine is changed.
``overlay:PATH`` is about that directory.
"""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from collections.abc import Callable

from sampan.linux import bpf, capabilities, process, seccomp

CAP_NET_ADMIN, CAP_SYS_RESOURCE = 12, 24
_NETLINK_NETFILTER = 12
_FAILS = 0x00050000  # SECCOMP_RET_ERRNO
_ALLOWED = 0x7FFF0000  # SECCOMP_RET_ALLOW
_X86 = os.uname().machine == "x86_64"
_SOCKET = 41 if _X86 else 198


def _mounts_of_ones_own() -> None:
    process.unshare(process.CLONE_NEWNS)
    _run("mount", "--make-rprivate", "/")


def _netfilter() -> None:
    """A kernel without nf_tables: there is no such netlink protocol."""
    program = bpf.Assembler()
    allowed, place = program.give(_ALLOWED), program.give(_FAILS | errno.EPROTONOSUPPORT)
    place = program.branch(bpf.JUMP_EQUAL, _NETLINK_NETFILTER, place, allowed)
    place = program.load(bpf.ARGUMENTS_OFFSET + 8 * 2, place)
    place = program.branch(bpf.JUMP_EQUAL, _SOCKET, place, allowed)
    seccomp.install(program.program(program.load(bpf.NUMBER_OFFSET, place)))


def _without(capability: int) -> None:
    bounding = [number for number in range(41) if number != capability]
    capabilities.limit_bounding_set(bounding)
    held = capabilities.capget()[1]
    kept = [number for number in bounding if held >> number & 1]
    capabilities.capset(effective=kept, permitted=kept, inheritable=())


def _unified() -> None:
    """Version 1 of cgroups alone, as before systemd's hybrid hierarchy."""
    _mounts_of_ones_own()
    with open("/proc/self/mountinfo", encoding="utf-8") as file:
        for line in file:
            if " - cgroup2 " in line:
                _run("umount", "-l", line.split(" ")[4])


def _cgroups() -> None:
    _mounts_of_ones_own()
    _run("umount", "-l", "-R", "/sys/fs/cgroup")


def _memory() -> None:
    """The memory controller turned off on the kernel's command line."""
    _mounts_of_ones_own()
    _run("umount", "-l", "/sys/fs/cgroup/memory")


def _ipv6() -> None:
    process.unshare(process.CLONE_NEWNET)
    _run("ip", "link", "set", "lo", "up")
    for which in ("all", "default"):
        with open(f"/proc/sys/net/ipv6/conf/{which}/disable_ipv6", "w", encoding="ascii") as file:
            file.write("1")


def _overlay(path: str) -> None:
    """``path`` lies on an overlay, which can be no overlay's upper layer, nor shown with other ids."""
    _mounts_of_ones_own()
    os.makedirs(path, exist_ok=True)
    _run("mount", "-t", "tmpfs", "poverty", path)
    for name in ("upper", "work", "merged"):
        os.mkdir(f"{path}/{name}")
    options = f"lowerdir={path},upperdir={path}/upper,workdir={path}/work"
    _run("mount", "-t", "overlay", "-o", options, "poverty", path)


def _user_namespaces() -> None:
    """Nobody may make a user namespace in a chroot (user_namespaces(7))."""
    _mounts_of_ones_own()
    _run("mount", "--rbind", "/", "/mnt")
    os.chroot("/mnt")
    os.chdir("/")


LACKS: dict[str, Callable[[], object]] = {
    "unified": _unified,
    "cgroups": _cgroups,
    "memory": _memory,
    "netfilter": _netfilter,
    "ipv6": _ipv6,
    "user-namespaces": _user_namespaces,
    "net-admin": lambda: _without(CAP_NET_ADMIN),
    "sys-resource": lambda: _without(CAP_SYS_RESOURCE),
}


def _run(*command: str) -> None:
    subprocess.run(command, check=True)


if __name__ == "__main__":
    lack, _, place = sys.argv[1].partition(":")
    if place:
        _overlay(place)
    else:
        LACKS[lack]()
    os.execvp(sys.argv[2], sys.argv[2:])
