"""Hooks of the OCI lifecycle: programs of the host (or of the container, before the start) told of the state.

A hook gets the state on standard input. It fails by its exit code or by taking longer than its timeout.
"""

from __future__ import annotations

import json
import os
import select
import signal
from contextlib import suppress
from typing import TYPE_CHECKING

from sampan.oci.failure import Failed

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any

    from sampan.spec.runtime import Hook, Spec


def of(spec: Spec, kind: str) -> Sequence[Hook]:
    """The hooks of one kind."""
    found: Any = spec.get("hooks") or {}
    return found.get(kind) or ()


def run_all(
    hooks: Sequence[Hook], kind: str, state: dict[str, Any], enter: Callable[[], None] = lambda: None
) -> None:
    """Run hooks of one kind in order, each where ``enter`` leads it. Raises Failed at the first failure."""
    for number, hook in enumerate(hooks):
        try:
            _run(hook, state, enter)
        except (Failed, OSError) as error:
            reason = error.strerror if isinstance(error, OSError) else str(error)
            raise Failed(f"error running {kind} hook #{number}: {reason}") from error


def _run(hook: Hook, state: dict[str, Any], enter: Callable[[], None]) -> None:
    reading, writing = os.pipe2(os.O_CLOEXEC)
    said, saying = os.pipe2(os.O_CLOEXEC)
    pid = os.fork()  # a container's filter may not let clone3 through
    if pid == 0:
        _become(hook, reading, saying, enter)
    pidfd = os.pidfd_open(pid)
    for fd in (reading, saying):
        os.close(fd)
    try:
        with suppress(BrokenPipeError):
            os.write(writing, json.dumps(state).encode())
        os.close(writing)
        output = _await(pidfd, said, hook.get("timeout") or 0)
    finally:
        os.close(said)
    result = os.waitid(os.P_PIDFD, pidfd, os.WEXITED)
    os.close(pidfd)
    assert result is not None
    if result.si_code != os.CLD_EXITED:
        raise Failed(f"signal: {signal.strsignal(result.si_status)}, stdout: , stderr: {output}")
    if result.si_status != 0:
        raise Failed(f"exit status {result.si_status}, stdout: , stderr: {output}")


def _await(pidfd: int, said: int, timeout: int) -> str:
    """What the hook said, when it has ended; after ``timeout`` seconds (0: never) it is killed."""
    waiting = select.poll()
    waiting.register(pidfd, select.POLLIN)
    waiting.register(said, select.POLLIN)
    output = b""
    while True:
        ready = waiting.poll(timeout * 1000 or None)
        if not ready:
            signal.pidfd_send_signal(pidfd, signal.SIGKILL)
            raise Failed(f"hook ran past specified timeout of {timeout}.0s")
        if any(fd == said for fd, _ in ready):
            data = os.read(said, 4096)
            if data:
                output = (output + data)[-4096:]
                continue
            waiting.unregister(said)
        if any(fd == pidfd for fd, _ in ready):
            return output.decode(errors="replace")


def _become(hook: Hook, reading: int, saying: int, enter: Callable[[], None]) -> None:
    try:
        os.dup2(reading, 0)
        os.dup2(saying, 1)
        os.dup2(saying, 2)
        enter()
        os.closerange(3, 1 << 20)
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        environment = dict(pair.partition("=")[::2] for pair in hook.get("env") or ())
        os.execve(hook["path"], hook.get("args") or [hook["path"]], environment)
    except OSError as error:
        os.write(2, f"{hook['path']}: {error.strerror}".encode())
    finally:
        os._exit(127)
