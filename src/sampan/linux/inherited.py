"""What a process has from whoever started it, and how it gets rid of that.

Theory: a program hands down more than descriptors and variables: signals that it ignores or blocks, its
priority, the slack of its timers, its execution domain, what a core holds. An engine that was started by a
script, by a desktop or on demand would give all that to every container for as long as it runs.

Kept on purpose: limits (setrlimit) and processors (affinity), by which an administrator bounds an engine with
its containers.

Sources: signal(7), sched(7), ioprio_set(2), personality(2), prctl(2), core(5).
"""

from __future__ import annotations

import ctypes
import os
import signal
from contextlib import suppress

from sampan.linux import libc, process

_X86_64 = os.uname().machine == "x86_64"
_SYS_RT_SIGACTION, _SYS_IOPRIO_SET = (13, 251) if _X86_64 else (134, 30)
_SIGNALS = range(1, 65)
# The interpreter ignores these: a pipe or a file that takes no more is an error of the call.
_INTERPRETERS = frozenset((signal.SIGPIPE, signal.SIGXFSZ))
_PR_SET_TIMERSLACK, _PR_SET_THP_DISABLE = 29, 41
_IOPRIO_WHO_PROCESS = 1
_CORE_FILTER = "0x33"  # the kernel's own default


def default_signals() -> None:
    """Ignore and block nothing that the interpreter does not; handlers that are set are gone, too.

    Also the two that the C library keeps for itself, and sets to be ignored in what ``posix_spawn`` starts.
    """
    nothing = ctypes.create_string_buffer(32)  # struct sigaction of the kernel: SIG_DFL
    for number in _SIGNALS:
        if number not in _INTERPRETERS:
            with suppress(OSError):  # SIGKILL and SIGSTOP
                libc.syscall("rt_sigaction", _SYS_RT_SIGACTION, number, nothing, None, 8)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())


def children_are_waited_for() -> None:
    """Have the ends of children told, and no signal held back: whoever ignores SIGCHLD loses them."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())


def ordinary_scheduling() -> None:
    """Run as any process does: at the usual priority and policy, on time, with the kernel's defaults."""
    with suppress(OSError):  # of a process that may not have more than it was given
        os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))
    with suppress(OSError):
        os.setpriority(os.PRIO_PROCESS, 0, 0)
    with suppress(OSError):
        libc.syscall("ioprio_set", _SYS_IOPRIO_SET, _IOPRIO_WHO_PROCESS, 0, 0)
    libc.libc.prctl(_PR_SET_TIMERSLACK, ctypes.c_ulong(50_000), 0, 0, 0)  # ns
    libc.libc.prctl(_PR_SET_THP_DISABLE, ctypes.c_ulong(0), 0, 0, 0)
    with suppress(OSError):
        process.personality(0)
    with suppress(OSError), open("/proc/self/coredump_filter", "w") as file:
        file.write(_CORE_FILTER)
