"""The default profile's filters, run by the kernel for every system call, against the reference call by call.

On x86-64 the calls are made for real, by its 64-bit and its 32-bit entry and by the numbers of x32. A first
filter answers every call that carries a mark in its sixth argument by an error of its own, and the filter
under test is installed over it: of several filters the strictest answer counts and of equally strict ones the
youngest's, so what ours allows comes back as that error and what it refuses as its own. Each call has gone
through the kernel's entry and all filters then, and none has been executed.

A program for arm64 cannot be installed for an arm64 process here. The kernel runs it all the same, in the
machine of packet filters: over packets that hold ``struct seccomp_data`` as an arm64 kernel would fill it,
word by word in the network's order, which is what that machine loads. That proves its verdicts in the
kernel's own check and translation of BPF. It does not prove that the kernel of an arm64 host numbers its
calls as our table does; that is compared with libseccomp in ``tests/unit``.
"""

from __future__ import annotations

import copy
import ctypes
import errno
import functools
import json
import mmap
import os
import platform
import signal
import socket
import struct
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

import pytest

from sampan.linux import bpf
from sampan.linux import seccomp as kernel
from sampan.sandbox import seccomp, workers
from sampan.spec import syscalls
from sampan.spec.runtime import ALL_CAPABILITIES, DEFAULT_CAPABILITIES
from sampan.spec.seccomp import default_profile

if TYPE_CHECKING:
    from sampan.spec.seccomp import Profile
from tests.seccomp_reference import ALLOW, ERRNO, NONE, REFERENCE, X32_BIT, Call, expected

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(not REFERENCE.is_file(), reason="the reference profile is not on this machine"),
]
on_x86 = pytest.mark.skipif(platform.machine() != "x86_64", reason="calls are made by machine code of x86-64")

AMD64, I386, ARM64 = 0xC000003E, 0x40000003, 0xC00000B7
MARK, UNTOUCHED = 0x0BADCA11, 4000
WHOLE = 64  # struct seccomp_data
# The kernel's own trampolines pass every filter since Linux 6.11, and are no calls for anybody else.
TRAMPOLINES = {"uretprobe", "uprobe"}
SO_ATTACH_FILTER = 26

# Walk a table of (number, six arguments, place for the result), 8 bytes each, and make every call of it.
NATIVE = bytes.fromhex(
    "535541544155"  # push rbx, rbp, r12, r13
    "4989fc4989f5"  # table and count to where calls leave them alone
    "4d85ed7432498b0424498b7c2408498b742410498b5424184d8b5424204d8b4424284d8b4c2430"
    "0f05"  # syscall
    "4989442438"
    "4983c44049ffcdebc9415d415c5d5bc3"
)
INT80 = bytes.fromhex(
    "535541544155"
    "4989fc4989f5"
    "4d85ed7435418b0424418b5c2408418b4c2410418b542418418b742420418b7c2428418b6c2430"
    "cd804863c0"  # int 0x80; the result as 64 bits
    "49894424384983c44049ffcdebc6415d415c5d5bc3"
)

SETS = [
    DEFAULT_CAPABILITIES,
    (),
    ALL_CAPABILITIES,
    *((*DEFAULT_CAPABILITIES, name) for name in ALL_CAPABILITIES if name not in DEFAULT_CAPABILITIES),
]


def named(capabilities: tuple[str, ...]) -> str:
    return f"{len(capabilities)}-{capabilities[-1] if capabilities else 'none'}"


@functools.cache
def document() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(REFERENCE.read_text())
    return found


def watching() -> bytes:
    """The filter below: ``UNTOUCHED`` for calls with the mark, all others may pass."""
    assembler = bpf.Assembler()
    marked = assembler.branch(bpf.JUMP_EQUAL, MARK, assembler.give(ERRNO | UNTOUCHED), assembler.give(ALLOW))
    return assembler.program(assembler.load(bpf.ARGUMENTS_OFFSET + 8 * 5, marked))


def made(code: bytes, filters: Iterable[bytes], calls: Sequence[Call]) -> list[int] | str:
    """What the calls come to under the filters, in a child; or the name of the signal that ended it."""
    page = mmap.mmap(-1, mmap.PAGESIZE, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
    page.write(code)
    entry = ctypes.addressof(ctypes.c_char.from_buffer(page))
    run = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_size_t)(entry)
    table = mmap.mmap(-1, 64 * len(calls))
    for _, number, _, arguments in calls:
        table.write(struct.pack("<8Q", number, *arguments[:5], MARK, 0))
    words = ctypes.addressof(ctypes.c_char.from_buffer(table))
    child = os.fork()
    if child == 0:
        try:
            for fatal in (signal.SIGSEGV, signal.SIGSYS, signal.SIGILL):
                signal.signal(fatal, signal.SIG_DFL)  # pytest's handler would print
            for program in filters:
                kernel.install(program)
            run(words, len(calls))
        finally:
            os._exit(0)
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        return signal.Signals(os.WTERMSIG(status)).name
    return [entry[7] for entry in struct.iter_unpack("<7Qq", table[:])]


def verdict(result: int) -> int:
    return ALLOW if result == -UNTOUCHED else ERRNO | -result


def disagreements(profile: Profile, capabilities: tuple[str, ...], audit: int) -> list[tuple[Any, ...]]:
    """Calls on which the kernel, under the profile's filter, and the reference are of two minds."""
    program = seccomp.compile_filter(profile, capabilities=capabilities)
    wanted = {
        call: value
        for call, value in expected(document(), capabilities, "x86_64").items()
        if call[2] == audit and (audit == I386 or call[0] not in TRAMPOLINES)
    }
    results = made(INT80 if audit == I386 else NATIVE, (watching(), program), list(wanted))
    assert not isinstance(results, str), results
    return [
        (call, hex(verdict(result)), hex(value))
        for result, (call, value) in zip(results, wanted.items(), strict=True)
        if verdict(result) != value
    ]


@pytest.fixture(scope="module")
def i386() -> None:
    if made(INT80, (watching(),), [("getpid", 20, I386, NONE)]) == "SIGSEGV":
        pytest.skip("this kernel has no 32-bit entry")


@on_x86
@pytest.mark.parametrize("capabilities", SETS, ids=named)
def test_every_call_of_x86_64_and_x32(capabilities: tuple[str, ...]) -> None:
    assert disagreements(default_profile(), capabilities, AMD64) == []


@on_x86
@pytest.mark.usefixtures("i386")
@pytest.mark.parametrize("capabilities", SETS, ids=named)
def test_every_call_of_i386(capabilities: tuple[str, ...]) -> None:
    assert disagreements(default_profile(), capabilities, I386) == []


@on_x86
def test_none_of_the_calls_was_executed() -> None:
    """What makes the tests above harmless, and true: without our filter every answer is the one below."""
    calls = list(expected(document(), (), "x86_64"))
    native = [call for call in calls if call[2] == AMD64 and call[0] not in TRAMPOLINES]
    assert set(made(NATIVE, (watching(),), native)) == {-UNTOUCHED}
    assert {call[1] & X32_BIT for call in native} == {0, X32_BIT}


@on_x86
def test_an_int_is_compared_as_the_kernel_takes_it() -> None:
    """AF_ALG, AF_VSOCK and a personality with something in the upper half, which the kernel cuts off."""
    program = seccomp.compile_filter(default_profile(), capabilities=DEFAULT_CAPABILITIES)
    high = 1 << 32
    calls = [
        (name, number | base, AMD64, (high | value, 0, 0, 0, 0, 0))
        for base in (0, X32_BIT)
        for name, number, value in (("socket", 41, 38), ("socket", 41, 40), ("personality", 135, 0x40000))
    ]
    assert set(made(NATIVE, (watching(), program), calls)) == {-1}
    allowed = [("socket", 41, AMD64, (high | 2, 0, 0, 0, 0, 0))]
    assert made(NATIVE, (watching(), program), allowed) == [-UNTOUCHED]


# -- what the tests above are worth: each edit of one rule must be found ------------------------------------


def without(profile: Any, name: str) -> None:
    for rule in profile["syscalls"]:
        if name in rule["names"]:
            rule["names"] = [other for other in rule["names"] if other != name]
            return


def rule(profile: Any, name: str, value: int | None = None) -> Any:
    return next(
        found
        for found in profile["syscalls"]
        if name in found["names"] and (value is None or found.get("args", [{}])[0].get("value") == value)
    )


EDITS: dict[str, Callable[[Any], object]] = {
    "getpid": lambda profile: without(profile, "getpid"),
    "keyctl": lambda profile: profile["syscalls"][0]["names"].append("keyctl"),
    "io_uring_setup": lambda profile: profile["syscalls"][0]["names"].append("io_uring_setup"),
    "socket": lambda profile: rule(profile, "socket", 40)["args"][0].update(op="SCMP_CMP_GE"),
    "personality": lambda profile: rule(profile, "personality", 0x20008)["args"][0].update(value=0x40000),
    "clone": lambda profile: rule(profile, "clone", 0x7E020000)["args"][0].update(value=0x6E020000),
    "clone3": lambda profile: (
        rule(profile, "clone3", None).update(names=[])
        or [found.update(errnoRet=1) for found in profile["syscalls"] if "errnoRet" in found]
    ),
    "modify_ldt": lambda profile: rule(profile, "modify_ldt")["includes"].update(arches=["x86"]),
    "chroot": lambda profile: rule(profile, "chroot")["includes"].update(caps=["CAP_SYS_ADMIN"]),
}


@on_x86
@pytest.mark.usefixtures("i386")
@pytest.mark.parametrize("audit", [AMD64, I386], ids=["x86-64", "i386"])
@pytest.mark.parametrize("name", EDITS)
def test_an_edited_rule_is_found(name: str, audit: int) -> None:
    profile = copy.deepcopy(default_profile())
    EDITS[name](profile)
    found = disagreements(profile, DEFAULT_CAPABILITIES, audit)
    assert {call[0] for call, *_ in found} == {name}


# -- arm64, in the machine of packet filters ----------------------------------------------------------------


class Machine:
    """The kernel's BPF for packets, running a seccomp program: what it returns becomes a packet's length."""

    def __init__(self, program: bytes) -> None:
        self._values: list[int] = []
        translated = b""
        for operation, yes, no, value in struct.iter_unpack("<HBBI", program):
            kept = self._index(value) if operation == bpf.RETURN else value
            translated += struct.pack("<HBBI", operation, yes, no, kept)
        code = ctypes.create_string_buffer(translated, len(translated))
        self._inside, self._outside = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        description = struct.pack("HP", len(translated) // 8, ctypes.addressof(code))
        self._inside.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, description)

    def _index(self, value: int) -> int:
        if value not in self._values:
            self._values.append(value)
        return self._values.index(value) + 1  # a packet of no length would be dropped

    def run(self, number: int, audit: int, arguments: tuple[int, ...]) -> int:
        data = struct.pack("<IIQ6Q", number, audit, 0, *arguments)
        self._outside.send(struct.pack(">16I", *struct.unpack("<16I", data)))
        return self._values[len(self._inside.recv(WHOLE)) - 1]

    def close(self) -> None:
        self._inside.close()
        self._outside.close()


def disagreements_on_arm64(profile: Profile, capabilities: tuple[str, ...]) -> list[tuple[Any, ...]]:
    machine = Machine(
        seccomp.compile_filter(profile, capabilities=capabilities, architecture="aarch64", kernel=(6, 1))
    )
    try:
        return [
            (call, hex(found), hex(value))
            for call, value in expected(document(), capabilities, "aarch64").items()
            if (found := machine.run(*call[1:])) != value
        ]
    finally:
        machine.close()


@pytest.mark.parametrize("capabilities", SETS, ids=named)
def test_every_call_of_arm64_and_of_32_bit_arm(capabilities: tuple[str, ...]) -> None:
    assert disagreements_on_arm64(default_profile(), capabilities) == []


@pytest.mark.parametrize("name", ["getpid", "keyctl", "socket", "personality", "clone", "clone3", "chroot"])
def test_an_edited_rule_is_found_on_arm64(name: str) -> None:
    profile = copy.deepcopy(default_profile())
    EDITS[name](profile)
    found = disagreements_on_arm64(profile, DEFAULT_CAPABILITIES)
    assert {call[0] for call, *_ in found} == {name}


@on_x86
def test_the_kernel_takes_the_program_for_arm64_as_a_filter() -> None:
    """It passes the check of filters, and then ends the first call: none of ours is arm64's."""
    program = seccomp.compile_filter(
        default_profile(), capabilities=DEFAULT_CAPABILITIES, architecture="aarch64", kernel=(6, 1)
    )
    assert made(NATIVE, (program,), [("getpid", 39, AMD64, NONE)]) == "SIGSYS"


@pytest.mark.parametrize("machine", ["x86_64", "aarch64"])
@pytest.mark.parametrize("kind", [workers.READING, workers.WRITING])
def test_workers_have_the_same_rights_on_both_machines(kind: str, machine: str) -> None:
    audit, numbers = {"x86_64": AMD64, "aarch64": ARM64}[machine], syscalls.numbers(machine)
    run_by = Machine(workers.program(kind, machine))
    changes = ALLOW if kind == workers.WRITING else ERRNO | errno.EPERM
    wanted = {
        "read": ALLOW,
        "openat2": ALLOW,
        "execve": ERRNO | errno.EPERM,
        "unlinkat": changes,
        "mount": ERRNO | 1,
    }
    try:
        for name, value in wanted.items():
            assert run_by.run(numbers[name], audit, NONE) == value, name
        assert run_by.run(numbers["mmap"], audit, (0, 4096, 3, 0x22, 0, 0)) == ALLOW
        assert run_by.run(numbers["mmap"], audit, (0, 4096, 4, 0x22, 0, 0)) == ERRNO | errno.EPERM
        assert run_by.run(5000, audit, NONE) == ERRNO | errno.ENOSYS
        assert run_by.run(numbers["read"], I386, NONE) == ERRNO | errno.ENOSYS
    finally:
        run_by.close()
