"""A box for one git command: the working directory is its repository, and all that it may write to.

Started as ``python -I -S -c … REQUEST``, REQUEST being ``{"program": path, "arguments": […],
"environment": {…}, "user": 65534|null, "filter": base64}``. The repository lies at ``PLACE``,
whatever its directory is called outside.

Confinement: mounts of its own, all read-only but the repository, where nothing can be run; processes of its
own, all gone with the first; no descriptor but the first three, no new privileges, no core, the system calls
that ``filter`` leaves it. With ``user`` it is that one and nobody else's groups, else root with no capability
but the one to reach its user's agent. The network is the host's, and so is what git's ssh finds in its user's
home. Whoever is not root runs git as it is.
"""

from __future__ import annotations

import binascii
import os
import resource
import sys

from sampan.linux import capabilities, mount, process, seccomp
from sampan.wire import document

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

PLACE = "/tmp"
_NEW = process.CLONE_NEWNS | process.CLONE_NEWPID | process.CLONE_NEWIPC
_STRICT = mount.MS_REMOUNT | mount.MS_BIND | mount.MS_NOSUID | mount.MS_NODEV | mount.MS_NOEXEC
_HELD = (1,)  # CAP_DAC_OVERRIDE
_DESCRIPTORS = 1024
_KILL = 9  # SIGKILL; the module that names it takes a fifth of our start


def main() -> int:
    """Run the command: its exit status, 128 and a signal's number for one that was killed."""
    request = document.decode(sys.argv[1])
    os.closerange(3, _DESCRIPTORS)
    process.set_parent_death_signal(_KILL)
    if os.geteuid() != 0:
        _become(request, os.getcwd())
    process.unshare(_NEW)
    mount.mount("none", "/", "", mount.MS_PRIVATE | mount.MS_REC)
    repository = mount.open_tree(".")
    mount.mount_setattr(mount.AT_FDCWD, attr_set=mount.MOUNT_ATTR_RDONLY, recursive=True, path="/")
    mount.move_mount(repository, PLACE)
    os.close(repository)
    mount.mount("none", PLACE, "", _STRICT)
    child = os.fork()
    if child == 0:
        try:
            _become(request, PLACE)
        except OSError as error:
            os.write(2, f"fatal: {error.filename}: {error.strerror}\n".encode())
        finally:
            os._exit(127)
    _, status = os.waitpid(child, 0)
    code = os.waitstatus_to_exitcode(status)
    return code if code >= 0 else 128 - code


def _become(request: dict[str, Any], place: str) -> None:
    """Be git. The first process of its namespace: whatever it starts ends with it."""
    os.chdir(place)
    os.umask(0o022)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    user = request["user"]
    if isinstance(user, int) and os.geteuid() == 0:
        os.setgroups([])
        os.setresgid(user, user, user)
        os.setresuid(user, user, user)
    elif os.geteuid() == 0:
        capabilities.limit_bounding_set(_HELD)
        capabilities.capset(effective=_HELD, permitted=_HELD, inheritable=())
    seccomp.set_no_new_privs()
    # Whoever changes its user loses this.
    process.set_parent_death_signal(_KILL)
    if request["filter"]:
        seccomp.install(binascii.a2b_base64(request["filter"]))
    # Nothing can be imported any more: the interpreter's files may be out of this user's reach.
    os.execve(
        request["program"], ["git", *request["arguments"]], {**request["environment"], "GIT_DIR": place}
    )


if __name__ == "__main__":
    sys.exit(main())
