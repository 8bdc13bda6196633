"""Standard streams of a process to be started, and how it ended."""

from __future__ import annotations

import os
from contextlib import suppress

from sampan.sandbox.messages import Exit, decode_exit, encode

EXIT_FILE = "exit.json"
_EXIT_ATTRIBUTE = "trusted.sampan.exit"


def standard_pipes(*, stdin: bool) -> tuple[list[int], dict[int, int]]:
    """(descriptors for the process, descriptors of ours by stream number)."""
    out_read, out_write = os.pipe2(os.O_CLOEXEC)
    err_read, err_write = os.pipe2(os.O_CLOEXEC)
    outside = {1: out_read, 2: err_read}
    if stdin:
        in_read, outside[0] = os.pipe2(os.O_CLOEXEC)
    else:
        in_read = os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC)
    return [in_read, out_write, err_write], outside


def null_streams() -> list[int]:
    """Descriptors for a process whose input is empty and whose output nobody wants."""
    return [os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC) for _ in range(3)]


def terminal_ends(console: int) -> dict[int, int]:
    """A terminal's master as the writing end of stdin and the reading end of stdout."""
    return {0: os.dup(console), 1: os.dup(console)}


def read_file(path: str) -> bytes:
    with open(path, "rb") as file:
        return file.read()


def exit_code(result: os.waitid_result) -> int:
    """As a shell has it: 128 and the signal's number for one that was killed."""
    return result.si_status if result.si_code == os.CLD_EXITED else 128 + result.si_status


def read_exit(directory: str) -> Exit | None:
    """The recorded exit in a container's state directory; None without a (whole) record."""
    try:
        with open(f"{directory}/{EXIT_FILE}", "rb") as file:
            return decode_exit(file.read())
    except FileNotFoundError:
        return _read_attribute(directory)
    except (OSError, ValueError, TypeError):
        return None


def write_exit(directory: str, ended: Exit) -> None:
    """Record the exit by rename: a reader sees it whole or not at all.

    On a full disk an attribute of the directory has what counts: its inode has room for that.
    """
    path = f"{directory}/{EXIT_FILE}"
    try:
        with open(path + ".part", "wb") as file:
            file.write(encode(ended))
        os.rename(path + ".part", path)
    except OSError:
        with suppress(OSError):
            os.unlink(path + ".part")
        facts = f"{ended.code} {ended.finished_at} {ended.oom_killed:d} {ended.timed_out:d}"
        with suppress(OSError):
            os.setxattr(directory, _EXIT_ATTRIBUTE, facts.encode())


def forget_exit(directory: str) -> None:
    """Before a start: there is no exit any more."""
    try:
        os.unlink(f"{directory}/{EXIT_FILE}")
    except FileNotFoundError:
        with suppress(OSError):
            os.removexattr(directory, _EXIT_ATTRIBUTE)


def _read_attribute(directory: str) -> Exit | None:
    try:
        code, finished, oom_killed, timed_out = os.getxattr(directory, _EXIT_ATTRIBUTE).split()
        return Exit(
            code=int(code),
            finished_at=float(finished),
            oom_killed=oom_killed == b"1",
            timed_out=timed_out == b"1",
        )
    except (OSError, ValueError):
        return None
