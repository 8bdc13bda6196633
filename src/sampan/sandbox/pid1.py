"""``--init``: the forked process stays as pid 1 of the container, forwards signals and reaps orphans.

It needs no binary inside the image. Once the program runs it holds the program's own identity and no
descriptor but standard error, and is not dumpable: nothing inside may look into it.
"""

from __future__ import annotations

import os
import signal
import socket
from typing import NoReturn

from sampan.linux import process as p
from sampan.sandbox.program import Program, drop_privileges

# What the kernel raises for the process's own faults is not forwarded.
_FORWARDED = frozenset(signal.valid_signals()) - {
    signal.SIGCHLD,
    signal.SIGKILL,
    signal.SIGSTOP,
    signal.SIGSEGV,
    signal.SIGBUS,
    signal.SIGFPE,
    signal.SIGILL,
    signal.SIGTTIN,
    signal.SIGTTOU,
}


def run_as_init(program: Program, parent: socket.socket) -> None:
    """Fork the program and serve as its init. Returns in the program's process alone, which must run it."""
    signal.pthread_sigmask(signal.SIG_BLOCK, _FORWARDED | {signal.SIGCHLD})
    p.set_name("init")  # before the program can look
    pid, pidfd = p.clone3()
    if pid == 0:
        os.setpgid(0, 0)
        _take_foreground()
        return
    os.close(pidfd)
    p.set_dumpable(dumpable=False)
    p.set_title("init")
    parent.close()
    drop_privileges(program)
    p.set_dumpable(dumpable=False)
    _serve(pid)


def _take_foreground() -> None:
    """As a job of a shell: the program's group gets the terminal, when there is one.

    Who is not in front takes it by blocking the signal that would stop him (the program starts with none
    blocked).
    """
    if os.isatty(0):
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTTOU})
        os.tcsetpgrp(0, os.getpid())


def _serve(pid: int) -> NoReturn:
    while True:
        number = signal.sigwait(_FORWARDED | {signal.SIGCHLD})
        if number != signal.SIGCHLD:
            os.kill(pid, number)
            continue
        while True:
            try:
                ended, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                os._exit(0)
            if ended == 0:
                break
            if ended == pid:
                code = os.waitstatus_to_exitcode(status)
                os._exit(code if code >= 0 else 128 - code)
