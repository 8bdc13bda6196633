"""What a process that works on files for the engine may still ask of the kernel, once it stands there.

Theory: such a process reads what strangers wrote: archives, trees of images and containers. Should one of
them get hold of it, there must be nothing to gain. It can start nothing, look into nobody, change no mount,
namespace, identity or limit, open no connection; no memory becomes code; who only reads cannot make, change
or remove a file. What it needs on the way to its place it has done before.

Laws:
- Calls that are not listed fail with EPERM. Those younger than all that we know do not exist (ENOSYS), so
  that a newer C library falls back on older ones. No call kills: a refusal is told like any other failure.
- The lists were found by tracing every kind of worker at work, with what glibc, musl and CPython 3.11 to 3.14
  may put in the place of a call.
- The programs are made once, before the zygote forks anybody.

Where the kernel has Landlock, a worker also changes files below its own directory only: in the tree of the
host it is the second wall behind chroot.
"""

from __future__ import annotations

import errno
import functools
import os
import sys
from contextlib import suppress
from typing import TYPE_CHECKING

from sampan.linux import bpf, landlock, process, seccomp
from sampan.spec.syscalls import numbers

if TYPE_CHECKING:
    from collections.abc import Iterable

READING, WRITING = "reading", "writing"

_ALWAYS = """
    read write readv writev pread64 pwrite64 preadv pwritev preadv2 pwritev2 close close_range lseek fcntl
    dup dup2 dup3 pipe pipe2 poll ppoll select pselect6 sendmsg sendto recvmsg recvfrom shutdown getsockopt
    getsockname getpeername munmap mremap madvise brk membarrier mincore rt_sigaction rt_sigprocmask
    rt_sigreturn rt_sigpending sigaltstack tgkill restart_syscall futex futex_wait futex_wake sched_yield
    sched_getaffinity set_robust_list get_robust_list set_tid_address rseq exit exit_group getpid gettid
    getppid getpgrp getpgid getsid getuid geteuid getgid getegid getresuid getresgid getgroups getrlimit
    getrusage sysinfo uname times time gettimeofday clock_gettime clock_getres clock_nanosleep nanosleep
    getrandom getcwd umask open openat openat2 stat lstat fstat newfstatat statx access faccessat faccessat2
    readlink readlinkat getdents getdents64 statfs fstatfs ioctl fadvise64 readahead flock chdir fchdir
    getxattr lgetxattr fgetxattr getxattrat listxattr llistxattr flistxattr listxattrat splice tee sendfile
    copy_file_range fsync fdatasync memfd_create
"""
_CHANGING = """
    mkdir mkdirat mknod mknodat unlink unlinkat rmdir rename renameat renameat2 link linkat symlink
    symlinkat chown lchown fchown fchownat chmod fchmod fchmodat fchmodat2 truncate ftruncate fallocate
    utime utimes utimensat futimesat setxattr lsetxattr fsetxattr setxattrat removexattr lremovexattr
    fremovexattr removexattrat sync_file_range syncfs
"""
# memfd_create: an answer that is too long for a message goes in an anonymous file, which nobody can run here.
# Bits of an argument, by its index, that must not be set. Memory that can be executed is made by loading
# libraries, which is over by then; limits may be looked at, but not set.
_WORD = (1 << 64) - 1
_PROT_EXEC = 4
_GUARDED = {
    "mmap": (2, _PROT_EXEC),
    "mprotect": (2, _PROT_EXEC),
    "pkey_mprotect": (2, _PROT_EXEC),
    "prlimit64": (2, _WORD),
}

_ARCHITECTURES = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}  # AUDIT_ARCH_…
_ALLOW, _ERRNO = 0x7FFF0000, 0x00050000


@functools.cache
def program(kind: str, machine: str = os.uname().machine) -> bytes:
    """The filter of a kind of worker; empty on a ``machine`` (uname's word) whose calls we do not know."""
    if machine not in _ARCHITECTURES:
        return b""
    table = numbers(machine)
    names = _ALWAYS.split() + (_CHANGING.split() if kind == WRITING else [])
    assembler = bpf.Assembler()
    allow, refuse = assembler.give(_ALLOW), assembler.give(_ERRNO | errno.EPERM)
    unknown = assembler.give(_ERRNO | errno.ENOSYS)
    verdicts = {table[name]: allow for name in names if name in table}
    for name, (index, bits) in _GUARDED.items():
        if name in table:
            verdicts[table[name]] = _unset(assembler, index, bits, allow, refuse)
    ranges: list[tuple[int, int]] = []
    for number in range(max(table.values()) + 1):
        verdict = verdicts.get(number, refuse)
        if not ranges or verdict != ranges[-1][1]:
            ranges.append((number, verdict))
    # Those of another ABI of the machine (x32) lie there, too.
    ranges.append((max(table.values()) + 1, unknown))
    tree = assembler.load(bpf.NUMBER_OFFSET, assembler.search(ranges, lambda verdict: verdict))
    start = assembler.branch(bpf.JUMP_EQUAL, _ARCHITECTURES[machine], tree, unknown)
    return assembler.program(assembler.load(bpf.ARCHITECTURE_OFFSET, start))


def _unset(assembler: bpf.Assembler, index: int, bits: int, then: int, otherwise: int) -> int:
    """Whether none of ``bits`` is set in an argument."""
    for offset, mask in ((4, bits >> 32), (0, bits & 0xFFFFFFFF)):  # little-endian
        if mask:
            then = assembler.mask(mask, assembler.branch(bpf.JUMP_EQUAL, 0, then, otherwise))
            then = assembler.load(bpf.ARGUMENTS_OFFSET + 8 * index + offset, then)
    return then


def prepare() -> None:
    """Make now what every worker that is forked from this process needs."""
    _load_codecs()
    for kind in (READING, WRITING):
        program(kind)
    landlock.abi()


def import_nothing_more() -> None:
    """Take the import system down: its paths are about to lead into what strangers wrote."""
    _load_codecs()
    sys.path.clear()
    sys.meta_path.clear()


def _load_codecs() -> None:
    "".encode("unicode_escape")  # what messages need


def narrow(kind: str, below: Iterable[int] | None = ()) -> None:
    """Keep for this process what ``kind`` of worker needs, for good. To be called where it does its work.

    Files are changed below the directories ``below`` only, None meaning anywhere in sight. A kernel without
    one of the means goes without it.
    """
    process.set_dumpable(dumpable=False)
    seccomp.set_no_new_privs()
    if below is not None:
        with suppress(OSError):
            landlock.change_only(below)
    filter_program = program(kind)
    if filter_program:
        with suppress(OSError):  # a kernel without seccomp, or a filter around the engine that forbids ours
            seccomp.install(filter_program)
