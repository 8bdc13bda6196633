"""``python -m sampan.sandbox EXEC_ROOT CGROUP DESCRIPTORS``: run the zygote; see ``zygote``.

DESCRIPTORS is the soft limit of open files that containers start with: the daemon raised its own. What else
the daemon was started with ends here: it is not for containers.
"""

from __future__ import annotations

import os
import resource
import socket
import sys
from contextlib import suppress

from sampan.linux import inherited, process
from sampan.sandbox import zygote


def main(exec_root: str, group: str, descriptors: str) -> None:
    resource.setrlimit(
        resource.RLIMIT_NOFILE, (int(descriptors), resource.getrlimit(resource.RLIMIT_NOFILE)[1])
    )
    inherited.default_signals()
    inherited.ordinary_scheduling()
    with suppress(OSError):  # a seccomp filter around the engine may forbid keyrings
        process.join_new_session_keyring()
    os.closerange(3, 1 << 20)  # whatever the starter let through would live as long as the containers
    path = f"{exec_root}/{zygote.SOCKET}"
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with suppress(FileNotFoundError):
        os.unlink(path)
    listener.bind(path)
    os.chmod(path, 0o600)
    listener.listen(8)
    process.set_name("sampan-zygote")
    process.set_title(f"sampan-zygote {exec_root}")
    os.chdir("/")
    zygote.Zygote(listener, path, group).run()


if __name__ == "__main__":
    main(*sys.argv[1:])
