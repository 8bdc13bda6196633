"""From a set-up child to the user's program: limits, identity, privileges, exec.

Order matters and is the law here: limits while they may still be raised; the keyring; the bounding set and
ids while capabilities are held; the seccomp filter as late as it can be (a filter without no_new_privs needs
CAP_SYS_ADMIN, so it precedes the final capability set then); exec last. Whatever fails is a ``ProgramError``
with the exit code that Docker gives it.
"""

from __future__ import annotations

import errno
import functools
import os
import resource
import signal
import stat
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sampan.linux import capabilities, process
from sampan.linux import seccomp as filters
from sampan.sandbox import accounts
from sampan.spec.runtime import DEFAULT_PATH, capability_number

if TYPE_CHECKING:
    from collections.abc import Callable

    from sampan.linux.libc import Call
    from sampan.spec.runtime import Process, Rlimit

NOT_FOUND, NOT_EXECUTABLE = 127, 126
_NOT_SPARED = 128
_LOCKS = 10  # RLIMIT_LOCKS, which Python does not name
_HELD_TO_BY_NAMESPACE = frozenset(("RLIMIT_MEMLOCK", "RLIMIT_MSGQUEUE", "RLIMIT_SIGPENDING"))
VICE_VERSA = (  # what Docker adds to every "not a directory" of a start
    "Are you trying to mount a directory onto a file (or vice-versa)? "
    "Check if the specified host path exists and is the expected type"
)


class ProgramError(Exception):
    """The program cannot be run; ``code`` is the exit code that says so."""

    def __init__(self, message: str, code: int) -> None:
        super().__init__(message)
        self.code = code


@dataclass(frozen=True, slots=True, kw_only=True)
class Program:
    """What to run and as whom. ``user`` and ``group_add`` as in ``messages.Launch``; ``filter`` is BPF.

    ``make_directory``: a working directory that is missing is made, as Docker does for a container but not
    for an exec.
    """

    process: Process
    user: str | None = None
    group_add: tuple[str, ...] = ()
    filter: bytes | None = None
    make_directory: bool = True


def run(program: Program, wait: Callable[[], None] | None = None) -> None:
    """Become the program. Does not return; raises ProgramError, or OSError with the step as file name.

    ``wait`` is called when nothing is left to do but to become it.
    """
    become(ready(program), wait)


@dataclass(frozen=True, slots=True, kw_only=True)
class Ready:
    """All that is to be done to become a program but what its root says, in order: before and after it takes
    its ids, and what comes last."""

    program: Program
    before: list[Call]
    after: list[Call]
    last: list[Call]


def ready(program: Program) -> Ready:
    """Work out what becoming a program takes: a child that has it from its parent writes to few pages."""
    spec = program.process
    sets = spec.get("capabilities", {})
    wanted = {kind: [capability_number(n) for n in names] for kind, names in sets.items()}  # type: ignore[attr-defined]
    before = capabilities.limit_bounding_set_ready(wanted.get("bounding", ()))
    install = [] if program.filter is None else [filters.install_ready(program.filter)]
    unprivileged = spec.get("noNewPrivileges", False)
    before += [filters.set_no_new_privs] if unprivileged else install
    after: list[Call] = [
        functools.partial(os.umask, spec.get("user", {}).get("umask", 0o022)),
        capabilities.capset_ready(
            effective=wanted.get("effective", ()),
            permitted=wanted.get("permitted", ()),
            inheritable=wanted.get("inheritable", ()),
        ),
    ]
    if ambient := wanted.get("ambient"):
        after.append(functools.partial(capabilities.set_ambient, ambient))
    return Ready(program=program, before=before, after=after, last=install if unprivileged else [])


def become(made: Ready, wait: Callable[[], None] | None = None) -> None:
    """As ``run``, for what was made ready."""
    program, spec = made.program, made.program.process
    account = resolve(program)
    environment = _environment(spec.get("env", []), account.home)
    _set_limits(spec)
    with suppress(OSError):  # a seccomp filter around the engine may forbid keyrings
        process.join_new_session_keyring()
    _enter_directory(spec.get("cwd") or "/", make=program.make_directory)
    path = find_program(spec["args"], environment)
    _own_standard_streams(account)
    if profile := spec.get("apparmorProfile"):
        confine(profile)
    _take_identity(made, account)
    _default_signals()
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    if wait is not None:
        wait()
    for call in made.last:
        call()
    try:
        os.execve(path, spec["args"], environment)
    except OSError as error:
        raise _exec_error(spec["args"][0], error) from error


def confine(profile: str, attributes: str = "/proc/self/attr") -> None:
    """Have the next program run under an AppArmor profile, which the host has loaded."""
    path = f"{attributes}/apparmor/exec"
    if not os.path.exists(path):
        path = f"{attributes}/exec"  # before Linux 5.8
    try:
        with open(path, "w") as file:
            file.write(f"exec {profile}")
    except OSError as error:
        what = f"apply apparmor profile: apparmor failed to apply profile: write {path}: {_reason(error)}"
        raise ProgramError(f"error during container init: unable to {what}", _NOT_SPARED) from error


def _default_signals() -> None:
    """Ignore nothing: neither what Python ignores nor what the daemon's starter did, as SIGQUIT."""
    for number in signal.valid_signals():
        if signal.getsignal(number) not in (signal.SIG_DFL, None):
            signal.signal(number, signal.SIG_DFL)


def drop_privileges(program: Program) -> None:
    """Take the program's identity without running it."""
    made = ready(program)
    _take_identity(made, resolve(program))
    for call in made.last:
        call()


def _own_standard_streams(account: accounts.Account) -> None:
    """Let the program open its streams again by name (/dev/stdout), as a user without privileges too."""
    if account.uid == 0:
        return
    for fd in (0, 1, 2):
        found = os.fstat(fd)
        if not stat.S_ISCHR(found.st_mode) or os.isatty(fd):
            with suppress(OSError):
                os.fchown(fd, account.uid, -1)


def resolve(program: Program) -> accounts.Account:
    """The account that the program runs under; names are looked up in the current root."""
    if program.user is not None:
        return accounts.resolve(program.user, group_add=program.group_add)
    user = program.process.get("user", {})
    groups = tuple(user.get("additionalGids", ()))
    uid = user.get("uid", 0)
    return accounts.Account(uid=uid, gid=user.get("gid", 0), groups=groups, home=accounts.home_of(uid))


def _environment(pairs: list[str], home: str) -> dict[bytes, bytes]:
    environment: dict[bytes, bytes] = {}
    for pair in pairs:
        key, _, value = os.fsencode(pair).partition(b"=")
        environment[key] = value
    if not environment.get(b"HOME"):
        environment[b"HOME"] = os.fsencode(home or "/")
    return environment


def _set_limits(spec: Process) -> None:
    for limit in spec.get("rlimits", ()):
        kind = _kind(limit)
        wanted = (_limit(limit["soft"]), _limit(limit["hard"]))
        try:
            resource.setrlimit(kind, wanted)
        except (ValueError, OSError):
            # Without CAP_SYS_RESOURCE the hard limit cannot be raised: go as far as the host allows.
            _, ceiling = resource.getrlimit(kind)
            hard = ceiling if _above(wanted[1], ceiling) else wanted[1]
            soft = hard if _above(wanted[0], hard) else wanted[0]
            with suppress(ValueError, OSError):
                resource.setrlimit(kind, (soft, hard))


def _kind(limit: Rlimit) -> int:
    name = limit["type"]
    return _LOCKS if name == "RLIMIT_LOCKS" else int(getattr(resource, name))


def _limit(value: int) -> int:
    """A limit as setrlimit takes it: the specification's unsigned "infinity" is -1 there."""
    return resource.RLIM_INFINITY if value >= 1 << 63 or value < 0 else value


def _above(value: int, ceiling: int) -> bool:
    if ceiling == resource.RLIM_INFINITY:
        return False
    return value == resource.RLIM_INFINITY or value > ceiling


def bequeath(spec: Process) -> None:
    """Give the caller what a child of it is to have and could not take in a user namespace of its own.

    That is the OOM score and each hard limit that is above the caller's; and of the limits that the kernel
    also holds a user namespace to, as its maker had them, the soft ones.
    """
    if (score := spec.get("oomScoreAdj")) is not None:
        try:
            with open("/proc/self/oom_score_adj", "w") as file:
                file.write(str(score))
        except OSError as error:
            # Lowering it needs CAP_SYS_RESOURCE; only who asks to be spared is told of its lack.
            if score < 0:
                what = f"write /proc/self/oom_score_adj: {_reason(error)}"
                raise ProgramError(f"error during container init: {what}", _NOT_SPARED) from error
    for limit in spec.get("rlimits", ()):
        kind = _kind(limit)
        soft, hard = resource.getrlimit(kind)
        if limit["type"] in _HELD_TO_BY_NAMESPACE:
            soft = _limit(limit["soft"])
        if _above(_limit(limit["hard"]), hard):
            hard = _limit(limit["hard"])
        with suppress(ValueError, OSError):
            resource.setrlimit(kind, (soft, hard))


def _enter_directory(path: str, *, make: bool) -> None:
    """Change to the working directory, making it if asked to, and prove that it is inside the root.

    A descriptor that leads out of the root must never become the working directory (CVE-2024-21626):
    the kernel names such a place "(unreachable)", which getcwd reports as an error.
    """
    if not path.startswith("/"):
        raise ProgramError("Cwd must be an absolute path", NOT_EXECUTABLE)
    try:
        if make:
            with suppress(FileExistsError):
                os.makedirs(path, 0o755)
        os.chdir(path)
        inside = os.getcwd().startswith("/")
    except OSError as error:
        raise ProgramError(
            f'chdir to cwd ("{path}") set in config.json failed: {_reason(error)}', 126
        ) from error
    if not inside:
        raise ProgramError(f'chdir to cwd ("{path}") set in config.json failed: outside the root', 126)


def find_program(args: list[str], environment: dict[bytes, bytes]) -> bytes:
    """The path of ``args[0]``, searched in the container's own PATH as execvp would."""
    name = os.fsencode(args[0])
    if not name:
        raise ProgramError('exec: "": executable file not found in $PATH', NOT_FOUND)
    if b"/" in name:
        _check_program(name)
        return name
    denied: ProgramError | None = None
    for directory in environment.get(b"PATH", os.fsencode(DEFAULT_PATH)).split(b":"):
        path = (directory or b".") + b"/" + name
        try:
            _check_program(path)
            return path
        except ProgramError as error:
            if error.code == NOT_EXECUTABLE:
                denied = error
    # As execvp: a file that may not be executed is remembered, a directory of that name is not.
    if denied is not None and "permission denied" in str(denied):
        raise ProgramError(f'exec: "{args[0]}": permission denied', NOT_EXECUTABLE) from denied
    raise ProgramError(f'exec: "{args[0]}": executable file not found in $PATH', NOT_FOUND)


def _check_program(path: bytes) -> None:
    shown = os.fsdecode(path)
    try:
        mode = os.stat(path).st_mode
    except OSError as error:
        code = NOT_FOUND if error.errno in (errno.ENOENT, errno.ENOTDIR) else NOT_EXECUTABLE
        raise ProgramError(f'exec: "{shown}": stat {shown}: {_reason(error)}', code) from error
    if stat.S_ISDIR(mode):
        raise ProgramError(f'exec: "{shown}": is a directory', NOT_EXECUTABLE)
    if not mode & 0o111:
        raise ProgramError(f'exec: "{shown}": permission denied', NOT_EXECUTABLE)


def _exec_error(name: str, error: OSError) -> ProgramError:
    code = NOT_FOUND if error.errno == errno.ENOENT else NOT_EXECUTABLE
    return ProgramError(f"exec {name}: {_reason(error)}", code)


def _reason(error: OSError) -> str:
    reason = (error.strerror or str(error)).lower()
    return f"{reason}: {VICE_VERSA}" if error.errno == errno.ENOTDIR else reason


def _take_identity(made: Ready, account: accounts.Account) -> None:
    for call in made.before:
        call()
    process.set_keep_capabilities(keep=True)
    _take_ids(account)
    process.set_keep_capabilities(keep=False)
    for call in made.after:
        call()


def _take_ids(account: accounts.Account) -> None:
    try:
        os.setgroups(account.groups)
        os.setresgid(account.gid, account.gid, account.gid)
        os.setresuid(account.uid, account.uid, account.uid)
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
        ids = (account.uid, account.gid, *account.groups)
        raise ProgramError(
            f"user id {max(ids)} is not in the container's own range of ids; "
            "start the container as this user, or with --userns host",
            NOT_EXECUTABLE,
        ) from error
