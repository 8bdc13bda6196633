"""Compiled filters as the kernel runs them, in forked children."""

from __future__ import annotations

import ctypes
import errno
import mmap
import os
import platform
import signal
import struct
from collections.abc import Callable

import pytest

from sampan.linux import seccomp as install
from sampan.sandbox import seccomp
from sampan.spec import syscalls
from sampan.spec.runtime import DEFAULT_CAPABILITIES
from sampan.spec.seccomp import default_profile

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(platform.machine() != "x86_64", reason="calls are made by their x86-64 numbers"),
]

NUMBERS = syscalls.numbers("x86_64")
I386 = syscalls.numbers("x86")
X32_BIT = 0x40000000
SIGCHLD, CLONE_NEWUSER, CLONE_NEWNS = 17, 0x10000000, 0x20000
LIBC = ctypes.CDLL(None, use_errno=True)
LIBC.syscall.restype = ctypes.c_long


def native(number: int, *arguments: int) -> int:
    """The call's result, or the negative errno."""
    result = LIBC.syscall(*(ctypes.c_long(word) for word in (number, *arguments)))
    return -ctypes.get_errno() if result == -1 else int(result)


def make_int80() -> Callable[[int, int, int], int]:
    """int80(number, first, second): a call by the 32-bit entry of the kernel."""
    page = mmap.mmap(-1, mmap.PAGESIZE, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
    # push rbx; mov eax, edi; mov ebx, esi; mov ecx, edx; xor edx, edx; int 0x80; movsxd rax, eax; pop rbx;
    # ret
    page.write(bytes.fromhex("5389f889f389d131d2cd804863c05bc3"))
    code = ctypes.c_char.from_buffer(page)
    function = ctypes.CFUNCTYPE(ctypes.c_long, ctypes.c_int, ctypes.c_int, ctypes.c_int)(
        ctypes.addressof(code)
    )

    def int80(number: int, first: int, second: int, keep: ctypes.c_char = code) -> int:
        return int(function(number, first, second))

    return int80


def outcome(program: bytes, body: Callable[[], int]) -> int | str:
    """What ``body`` returns in a child under the filter, or the name of the signal that killed it."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            for number in (signal.SIGSEGV, signal.SIGSYS):
                signal.signal(number, signal.SIG_DFL)  # pytest's handler would print
            install.set_no_new_privs()
            install.install(program)
            os.write(writing, struct.pack("q", body()))
        finally:
            os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        data = pipe.read()
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        return signal.Signals(os.WTERMSIG(status)).name
    return int(struct.unpack("q", data)[0])


@pytest.fixture(scope="module")
def program() -> bytes:
    return seccomp.compile_filter(default_profile(), capabilities=DEFAULT_CAPABILITIES)


@pytest.mark.parametrize(
    ("name", "arguments", "expected"),
    [
        ("getpid", (), None),
        ("clone", (CLONE_NEWUSER | SIGCHLD,), -errno.EPERM),
        ("clone", (CLONE_NEWNS | SIGCHLD,), -errno.EPERM),
        ("clone3", (0, 0), -errno.ENOSYS),
        ("unshare", (CLONE_NEWUSER,), -errno.EPERM),
        ("personality", (0xFFFFFFFF,), 0),
        ("personality", (0x20000,), 0),
        ("personality", (0x0040000,), -errno.EPERM),
        ("socket", (38, 5, 0), -errno.EPERM),
        ("socket", (1 << 32 | 38, 5, 0), -errno.EPERM),
        ("socket", (40, 1, 0), -errno.EPERM),
        ("socket", (999, 1, 0), -errno.EAFNOSUPPORT),
        ("keyctl", (0,), -errno.EPERM),
        ("add_key", (0,), -errno.EPERM),
        ("mount", (0, 0, 0, 0, 0), -errno.EPERM),
        ("umount2", (0, 0), -errno.EPERM),
        ("bpf", (0, 0, 0), -errno.EPERM),
        ("perf_event_open", (0, 0, 0, 0, 0), -errno.EPERM),
        ("kexec_load", (), -errno.EPERM),
        ("userfaultfd", (0,), -errno.EPERM),
        ("io_uring_setup", (1, 0), -errno.EPERM),
        ("setns", (-1, 0), -errno.EPERM),
        ("open_by_handle_at", (-1, 0, 0), -errno.EPERM),
        ("chroot", (0,), -errno.EFAULT),
        ("ptrace", (999, 0, 0, 0), -errno.ESRCH),
    ],
)
def test_calls_of_a_default_container(
    program: bytes, name: str, arguments: tuple[int, ...], expected: int | None
) -> None:
    result = outcome(program, lambda: native(NUMBERS[name], *arguments))
    if expected is None:
        assert isinstance(result, int)
        assert result > 0
    else:
        assert result == expected


def test_a_call_that_the_profile_has_never_heard_of_does_not_exist(program: bytes) -> None:
    assert outcome(program, lambda: native(5000)) == -errno.ENOSYS


def test_an_administrator_may_mount_and_make_namespaces() -> None:
    program = seccomp.compile_filter(default_profile(), capabilities=(*DEFAULT_CAPABILITIES, "CAP_SYS_ADMIN"))
    assert outcome(program, lambda: native(NUMBERS["mount"], 0, 0, 0, 0, 0)) == -errno.EFAULT
    assert outcome(program, lambda: native(NUMBERS["unshare"], CLONE_NEWNS)) == 0
    assert outcome(program, lambda: native(NUMBERS["clone3"], 0, 0)) == -errno.EINVAL


def test_calls_by_the_32_bit_entry(program: bytes) -> None:
    int80 = make_int80()
    allow_all = seccomp.compile_filter(
        {"defaultAction": "SCMP_ACT_ALLOW", "architectures": ["SCMP_ARCH_X86"], "syscalls": []},
        capabilities=(),
    )
    if outcome(allow_all, lambda: int80(I386["getpid"], 0, 0)) == "SIGSEGV":
        pytest.skip("this kernel has no 32-bit entry")
    pid = outcome(program, lambda: int80(I386["getpid"], 0, 0))
    assert isinstance(pid, int)
    assert pid > 0
    assert outcome(program, lambda: int80(I386["mount"], 0, 0)) == -errno.EPERM
    assert outcome(program, lambda: int80(I386["keyctl"], 0, 0)) == -errno.EPERM
    assert outcome(program, lambda: int80(I386["socket"], 38, 5)) == -errno.EPERM
    assert outcome(program, lambda: int80(I386["personality"], -1, 0)) == 0
    assert outcome(program, lambda: int80(I386["personality"], 0x40000, 0)) == -errno.EPERM
    assert outcome(program, lambda: int80(5000, 0, 0)) == -errno.ENOSYS


def test_an_architecture_that_the_profile_leaves_out_kills() -> None:
    int80 = make_int80()
    only_native = seccomp.compile_filter({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": []}, capabilities=())
    assert outcome(only_native, lambda: int80(I386["getpid"], 0, 0)) in ("SIGSYS", "SIGSEGV")
    assert outcome(only_native, lambda: native(X32_BIT | NUMBERS["getpid"])) == "SIGSYS"
